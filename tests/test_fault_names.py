"""RELIABILITY 30: locales, encodings of the output, spaces, emoji, paths of 260 letters."""

import io
import json
import sys

import pytest

import console
import main_only_pose
import test_models as test_script
from errors import InputError
from tests.conftest import write_dataset
from tests.small_runs import command, numbers_of, run_of, start

ODD = "späce  \U0001f600 日本 '\"&;$[x]#%"
# What a system says of which nothing is known: names of files are bytes, output is ASCII.
NO_UNICODE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture
def odd_data(tmp_path):
    """Return the folder of a data set whose place, clips and classes have odd names."""
    root = write_dataset(tmp_path / ODD / "FRFS")
    for kind, ending in (("frames", ""), ("poses", ".npz")):
        (root / kind / f"train_1{ending}").rename(root / kind / f"{ODD}{ending}")
    path = root / "train_videofolder.txt"
    text = path.read_text(encoding="utf-8").replace("train_1 ", f"{ODD} ")
    path.write_text('# classes: ["fällt \U0001f600", "=1+1"]\n' + text, encoding="utf-8")
    return root


@pytest.mark.parametrize("speak", [console.say, console.warn])
def test_names_do_not_command_a_terminal(speak, capsys):
    speak("class \x1b[2Ja\x9b1mb\r\n\tnext line")
    assert "class \\x1b[2Ja\\x9b1mb\\r\n\tnext line\n" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "utf-16", None])
def test_a_line_can_be_printed_wherever_output_goes(encoding, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding) if encoding else io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    console.say(f"wrote {ODD} \udcff")
    console.warn(ODD)
    text = raw.getvalue().decode(encoding) if encoding else stream.getvalue()
    assert text.startswith("wrote sp")
    assert text.count("\n") == 2
    if encoding in ("utf-8", "utf-16", None):
        assert f"wrote {ODD} \\udcff" in text
    else:
        assert "\\U0001f600" in text


def test_odd_names_train_and_test_with_an_output_of_ascii(odd_data, tmp_path):
    out = tmp_path / f"out {ODD}"
    ascii_alone = {"PYTHONIOENCODING": "ascii"}
    line = command(odd_data, out, "--experiment_name", ODD, epochs=1)
    process = start("main_only_pose.py", line, env=ascii_alone)
    said, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert "\\U0001f600" in said
    folder = run_of(out)
    assert folder.name.endswith(f"_{ODD}")
    best = str(folder / "best.pth.tar")
    assert test_script.main(["--weights", best, "--workers", "0", "--save_scores"]).total == 2
    assert json.loads((folder / "args.json").read_bytes())["experiment_name"] == ODD


def test_without_unicode_a_name_is_refused_before_anything_is_trained(odd_data, tmp_path):
    process = start("main_only_pose.py", command(odd_data, tmp_path / ODD / "x"), env=NO_UNICODE)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2, err
    assert err.count("\n") == 1
    assert not (tmp_path / ODD / "x").exists()


def test_a_run_folder_that_is_no_text_is_refused(dataset, tmp_path):
    out = tmp_path / "bad\udcff"
    with pytest.raises(InputError, match="needs a name that is text") as caught:
        main_only_pose.main(command(dataset, out))
    assert "--experiment_path" in str(caught.value)
    assert not out.exists()


def test_paths_of_more_than_260_letters_are_fine(tmp_path):
    far = tmp_path / ("p" * 120) / ("q" * 120)
    data = write_dataset(far / "FRFS")
    out = far / "out"
    main_only_pose.main(command(data, out, "--experiment_name", "n" * 200, epochs=1))
    folder = run_of(out)
    assert len(str(folder)) > 500
    assert len(numbers_of(folder)) == 1
    assert (folder / "last.pth.tar").is_file()


@pytest.mark.parametrize("name", ["a/b", "..", "../up", "", ".", "/tmp/x"])
def test_a_name_that_is_a_path_is_refused(name, dataset, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main_only_pose.main(command(dataset, tmp_path / "out", "--experiment_name", name))
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n")) == (2, 1)
    assert "must be a plain name" in said
