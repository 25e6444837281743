import contextlib
import io
import os
import re
import zipfile

import numpy as np
import pytest

from errors import InputError
from results.score_files import ClipScores, format_csv, read_scores, write_scores

LABELS = np.array([0, 1, 1])
SCORES = np.array([[0.1, -2], [3, 1 / 3], [1e-30, 7]], np.float32)
NAMES = ("a b", 'ü/2,"x"', "=1+1")


def example(**changes):
    values = {"clips": NAMES, "labels": LABELS, "scores": SCORES, "classes": ("fall", "né, e")}
    return ClipScores(**(values | changes))


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".NPZ"])
@pytest.mark.parametrize("groups", [None, ("g 1", "", "g 2")])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_what_is_written_is_read(tmp_path, suffix, groups, kind):
    scores = SCORES if kind == "logits" else np.array([[0.25, 0.75], [1, 0], [0.5, 0.5]])
    saved = example(groups=groups, kind=kind, scores=scores, split="val", protocol="published")
    path = tmp_path / f"scores{suffix}"
    write_scores(path, saved)
    read = read_scores(path)
    for name in ("clips", "classes", "groups", "kind", "split", "protocol"):
        assert getattr(read, name) == getattr(saved, name)
    assert (read.labels == LABELS).all()
    assert (read.scores == scores).all()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_older_files_are_read_and_their_kind_is_found(tmp_path):
    old = {"clips": np.array(NAMES), "labels": LABELS, "classes": np.array(["x", "y"])}
    np.savez_compressed(tmp_path / "old.npz", scores=SCORES, **old)
    read = read_scores(tmp_path / "old.npz")
    assert (read.kind, read.groups, read.split) == ("logits", None, "")
    shares = np.array([[0.25, 0.75], [1, 0], [0.5, 0.5]], np.float32)
    np.savez_compressed(tmp_path / "soft.npz", scores=shares, **old)
    assert read_scores(tmp_path / "soft.npz").kind == "probabilities"


def test_clips_without_a_group_are_their_own():
    assert example(groups=("g", "", "g")).units == ("group g", f"clip {NAMES[1]}", "group g")
    assert example(groups=("", "", "")).units is None
    assert example().units is None


def test_table_says_what_was_predicted():
    lines = format_csv(example()).splitlines()
    assert lines[0] == 'clip,split,protocol,label,predicted,logits fall,"logits né, e"'
    assert lines[3].startswith('\'=1+1,,,"né, e","né, e",1.0000000031710769e-30,7.0')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": ("a", "b", "a")}, "holds clip 'a' twice"),
        ({"clips": ("a", "b")}, "has scores float32 (3, 2)"),
        ({"clips": (), "labels": LABELS[:0], "scores": SCORES[:0]}, "holds no clip"),
        ({"classes": ("x", "x")}, "class names"),
        ({"labels": np.array([0, 2, 1])}, "has label 2 for clip 'ü"),
        ({"labels": np.array([0, -1, 1])}, "has label -1"),
        ({"labels": np.array([0.0, 1, 1])}, "has labels float64"),
        ({"labels": LABELS[:2]}, "has labels int64 (2,)"),
        ({"scores": SCORES[:, :1]}, "has scores float32 (3, 1)"),
        ({"scores": SCORES.astype(int)}, "need floating-point numbers"),
        ({"scores": np.full((3, 2), np.nan)}, "not finite"),
        ({"scores": np.full((3, 2), np.inf)}, "not finite"),
        ({"groups": ("a",)}, "has 1 groups for 3 clips"),
        ({"kind": "votes"}, "holds 'votes'"),
        ({"kind": "probabilities"}, "do not add up to 1"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        example(**changes)
    arrays = {"clips": NAMES, "labels": LABELS, "scores": SCORES, "classes": ("x", "y")} | changes
    arrays = {name: np.array(value) for name, value in arrays.items()}
    np.savez(tmp_path / "bad.npz", **arrays)
    assert_one_line(tmp_path / "bad.npz")


def assert_one_line(path, message=""):
    with pytest.raises(InputError) as caught:
        read_scores(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 600
    assert text.startswith(str(path))
    assert message in text


def bad_npz(path, name, data):
    write_scores(path, example())
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in (members | {name: data}).items():
            if content is not None:
                archive.writestr(member, content)


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


class Boom:
    """Unpickling this would end the test run."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("clips.npy", npy(np.array([Boom(), "b", "c"], object)), "pickled objects"),
        ("extra.npy", npy(np.array([Boom()], object)), "pickled objects"),
        ("labels.npy", None, "has no array 'labels'"),
        ("labels.npy", b"", "damaged array"),
        ("labels.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8'}\n", "damaged array"),
        ("scores.npy", npy(SCORES)[:-3], "damaged array"),
        ("scores.npy", npy(np.array(["a", "b"])), "has scores <U1 (2,)"),
        ("scores.npy", npy(np.float64(1)), "has scores float64 ()"),
        ("clips.npy", npy(np.arange(3)), "has clips int64 (3,)"),
        ("classes.npy", npy(np.array([["x", "y"]])), "has classes <U1 (1, 2)"),
        ("kind.npy", npy(np.array(["logits"])), "has kind"),
        ("kind.npy", npy(np.array("votes")), "holds 'votes'"),
        ("split.npy", npy(np.array(3)), "has split"),
    ],
)
def test_damaged_archives_end_in_one_line(tmp_path, name, data, message):
    bad_npz(tmp_path / "bad.npz", name, data)
    assert_one_line(tmp_path / "bad.npz", message)


def test_an_array_that_lies_about_its_size_takes_no_memory(tmp_path):
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (200000000000, 2), }"
    head = head.ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    bad_npz(tmp_path / "bad.npz", "scores.npy", data)
    assert_one_line(tmp_path / "bad.npz", "damaged array")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    bad_npz(tmp_path / "bomb.npz", "scores.npy", bytes(10**6))
    monkeypatch.setattr("results.score_files._MOST_BYTES", 10**5)
    assert_one_line(tmp_path / "bomb.npz", "unpacks to more than")


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 500])
def test_files_cut_short_end_in_one_line(tmp_path, cut):
    write_scores(tmp_path / "whole.npz", example())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:cut])
    assert_one_line(tmp_path / "cut.npz", "no .npz file, or a damaged one")


def test_every_flipped_byte_is_read_the_same_or_ends_in_one_line(tmp_path):
    write_scores(tmp_path / "whole.npz", example())
    data = (tmp_path / "whole.npz").read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x55
        (tmp_path / "bad.npz").write_bytes(changed)
        text = ""
        with contextlib.suppress(InputError):
            text = "".join(read_scores(tmp_path / "bad.npz").clips)
        assert text in ("", "".join(NAMES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no columns"),
        ("clip,label\n", "has no columns"),
        ("clip,label,logits x,logits x\na,x,1,2\n", "has no columns"),
        ("clip,label,logits x,logits y\n", "holds no clip"),
        ("clip,label,logits x,logits y\na,x,1\n", "has 3 cells in line 2, not 4"),
        ("clip,label,logits x,logits y\na,z,1,2\n", "has label 'z'"),
        ("clip,label,logits x,logits y\na,x,1,two\n", "no number"),
        ("clip,label,logits x,logits y\na,x,1,nan\n", "not finite"),
        ("clip,label,logits x,logits y\na,x,1,2\na,x,1,2\n", "holds clip 'a' twice"),
        ("clip,label,split,logits x\na,x,val,1\nb,x,test,1\n", "several values in column split"),
        ('clip,label,logits x\n"a,x,1\n', "unexpected end"),
        ("<html>\n", "has no columns"),
    ],
)
def test_tables_that_are_none_end_in_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    assert_one_line(tmp_path / "t.csv", message)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    assert_one_line(tmp_path / "t.csv", "not UTF-8 text")


def test_places_that_are_no_files(tmp_path):
    assert_one_line(tmp_path / "none.npz", "is not there")
    (tmp_path / "folder.npz").mkdir()
    assert_one_line(tmp_path / "folder.npz", "cannot be read")
    os.mkfifo(tmp_path / "pipe.npz")
    assert_one_line(tmp_path / "pipe.npz", "not a regular file")
    assert_one_line(tmp_path / "scores.pkl", "no name of a score file")
    with pytest.raises(InputError, match="cannot be written"):
        write_scores(tmp_path / "nowhere" / "x.npz", example())
    with pytest.raises(InputError, match="end it in"):
        write_scores(tmp_path / "x.txt", example())


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
    text = format_csv(example()).replace("\n", "\r\n")
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_scores(tmp_path / "t.csv").clips == NAMES
