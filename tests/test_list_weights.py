"""The table of published weights."""

import pytest

from errors import InputError
from tools import list_weights


def test_names_are_found_by_their_parts(capsys):
    count = list_weights.main(["STGCNPP", "bone"])
    lines = capsys.readouterr().out.splitlines()
    assert count == len(lines) - 1 > 0
    assert all("ST-GCN++" in line and "bone" in line for line in lines[1:])


def test_an_unknown_name_is_told():
    with pytest.raises(InputError, match="no published weights"):
        list_weights.main(["nothing"])


def test_networks_are_found_as_they_are_written(capsys):
    count = list_weights.main(["ST-GCN++"])
    assert all("ST-GCN++" in line for line in capsys.readouterr().out.splitlines()[1:])
    assert count > 8


def test_the_stream_of_frames_sees_no_joints(capsys):
    list_weights.main(["rgbpose"])
    lines = capsys.readouterr().out.splitlines()[1:]
    frames = [line.split()[0] for line in lines if "frames" in line and "joints" not in line]
    assert frames == ["rgbpose/ntu60-xsub-rgb", "pyskl/rgbpose/ntu60-xsub-rgb"]
