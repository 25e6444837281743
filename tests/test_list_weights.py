"""The table of published weights."""

import pytest

from errors import InputError
from tools import list_weights


def test_names_are_found_by_their_parts(capsys):
    count = list_weights.main(["STGCNPP", "bone"])
    lines = capsys.readouterr().out.splitlines()
    assert count == len(lines) - 1 > 0
    assert all("stgcnpp" in line and "bone" in line for line in lines[1:])


def test_an_unknown_name_is_told():
    with pytest.raises(InputError, match="no published weights"):
        list_weights.main(["nothing"])
