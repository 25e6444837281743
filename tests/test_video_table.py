"""Tables and folders of videos: what is meant is found, what cannot be meant has a clear line."""

import csv
import io
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasets.prepare.video_plan import name_clips, number_labels
from datasets.prepare.video_table import ClipRequest, natural_key, read_class_folders, read_table
from datasets.records import ClipRecord, load_records, write_list
from errors import InputError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def table(tmp_path, text, encoding="utf-8", **renamed):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return read_table(path, None, renamed, tmp_path / "out")


def complaint(call, *args, **choices) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **choices)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def request(label="a", key="v.mp4", start=None, place="t.csv:2"):
    return ClipRequest(place, None, key, label, start=start)


# ---------------------------------------------------------------- folders


def test_the_top_folder_is_the_class_and_the_rest_the_name(tmp_path):
    touch(tmp_path, "fall/a.mp4", "fall/deep/er/b.AVI", "stand/take 10.mkv", "stand/take 2.mkv")
    touch(tmp_path, "fall/notes.txt", "fall/._a.mp4", ".hidden/c.mp4")
    (tmp_path / "none").mkdir()
    listing = read_class_folders(tmp_path, tmp_path / "out")
    assert [(r.key, r.label) for r in listing.requests] == [
        ("fall/a.mp4", "fall"),
        ("fall/deep/er/b.AVI", "fall"),
        ("stand/take 2.mkv", "stand"),
        ("stand/take 10.mkv", "stand"),
    ]
    assert name_clips(listing.requests)[1] == "fall/deep/er/b"
    assert any("1 files that are no videos" in note for note in listing.notes)
    assert any("none holds no video" in note for note in listing.notes)


def test_folders_of_splits_over_folders_of_classes(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "Validation/b/2.mp4", "test/a/3.mp4")
    listing = read_class_folders(tmp_path, tmp_path / "out")
    assert {(r.key, r.label, r.split) for r in listing.requests} == {
        ("train/a/1.mp4", "a", "train"),
        ("Validation/b/2.mp4", "b", "val"),
        ("test/a/3.mp4", "a", "test"),
    }


def test_folders_that_are_none(tmp_path):
    assert "is no folder" in complaint(read_class_folders, tmp_path / "x", tmp_path)
    assert "holds no video" in complaint(read_class_folders, tmp_path, tmp_path / "out")
    touch(tmp_path, "a.mp4", "b/c.mp4")
    assert "lies beside the class folders" in complaint(
        read_class_folders, tmp_path, tmp_path / "out"
    )


def test_links_to_folders_and_the_data_set_itself_are_not_looked_into(tmp_path):
    touch(tmp_path / "in", "a/1.mp4", "b/2.mp4", "out/videos/a/1.mp4")
    (tmp_path / "in" / "b" / "loop").symlink_to(tmp_path / "in")
    listing = read_class_folders(tmp_path / "in", tmp_path / "in" / "out")
    assert [r.key for r in listing.requests] == ["a/1.mp4", "b/2.mp4"]
    assert any("loop is a link to a folder" in note for note in listing.notes)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_all_kinds(tmp_path, delimiter, end):
    touch(tmp_path, "videos/a.mp4", "videos/b c.mp4", "ü/d.mkv")
    rows = [
        ["Video", "more", "label", "group", "start_seconds", "end_seconds"],
        ["videos/a.mp4", "x", "fall", "", "1.5", "2"],
        ["videos\\a.mp4", "", "stand", "anna", "", "1.5"],
        [],
        ["b c", f"said{delimiter} quoted", "fall"],
        ["ü/d", "", "fall", "", "", "", ""],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end).writerows(rows)
    listing = table(tmp_path, "\ufeff" + text.getvalue())
    assert [(r.key, r.label, r.group, r.start, r.end) for r in listing.requests] == [
        ("videos/a.mp4", "fall", "", 1.5, 2.0),
        ("videos/a.mp4", "stand", "anna", None, 1.5),
        ("videos/b c.mp4", "fall", "", None, None),
        ("ü/d.mkv", "fall", "", None, None),
    ]
    assert [r.place.rpartition(":")[2] for r in listing.requests] == ["2", "3", "5", "6"]


def test_columns_can_be_called_otherwise(tmp_path):
    touch(tmp_path, "a.mp4")
    listing = table(tmp_path, "clip,fall,label\na,1,x\n", video="clip", label="fall")
    assert listing.requests[0].label == "1"


BAD = {
    "": "is empty",
    "\n\n": "is empty",
    "video,label\n": "no line after its first",
    "name,label\na,b\n": "has no column 'video', it has name, label",
    "video,label,label\na,b,c\n": "names column 'label' 2 times",
    "video,label\na,\n": "t.csv:2 has no label",
    "video,label\n,b\n": "t.csv:2 has no video",
    "video,label\na,b,c\n": "t.csv:2 has 3 cells, the first line 2",
    "video,label,split\na,b,train\nc,b,\n": "t.csv:3 has no split",
    "video,label,split\na,b,left\n": "t.csv:2 has split 'left'",
    "video,label,start_seconds\na,b,soon\n": "t.csv:2 has start_seconds 'soon'",
    "video,label,start_seconds\na,b,nan\n": "t.csv:2 has start_seconds 'nan'",
    "video,label,end_seconds\na,b,-1\n": "t.csv:2 has end_seconds '-1'",
    "video,label\na,b\na.mp4,b\n": "t.csv:3 repeats a.mp4 of",
    'video,label\n"a,b\n': "is no line of a table",
    "video,label\na\0,b\n": "t.csv:2",
    "video,label\n../a.mp4,b\n": "t.csv:2 has video '../a.mp4'",
    "video,label\n/etc/passwd,b\n": "t.csv:2 has video '/etc/passwd'",
    "video,label\n..\\a.mp4,b\n": "t.csv:2 has video",
    "video,label\nd/x,b\n": "may be d/x.avi or d/x.mp4",
    "video,label\nout/link/e.mp4,b\n": "outside of",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_tables_name_the_line(text, tmp_path):
    touch(tmp_path / "in", "a.mp4", "c.mp4", "d/x.avi", "d/x.mp4", "out/f.mp4")
    touch(tmp_path / "elsewhere", "e.mp4")
    (tmp_path / "in" / "out" / "link").symlink_to(tmp_path / "elsewhere")
    assert BAD[text] in complaint(table, tmp_path / "in", text)


def test_files_that_are_no_tables(tmp_path):
    assert "is not UTF-8" in complaint(table, tmp_path, "video,label\nü,b\n", "latin-1")
    os.mkfifo(tmp_path / "pipe")
    for path, part in (
        (tmp_path / "pipe", "is no regular file"),
        (tmp_path, "is no regular file"),
        (tmp_path / "none", "cannot be read (No such file"),
    ):
        assert part in complaint(read_table, path, None, {}, tmp_path / "out")


def test_a_video_that_is_not_there_is_a_problem_of_its_line(tmp_path):
    touch(tmp_path, "a.mp4")
    listing = table(tmp_path, "video,label\nb,x\na,x\n" + "y" * 3000 + ",x\n")
    assert [r.key for r in listing.requests] == ["a.mp4"]
    assert ["t.csv:2 names video 'b'" in problem for problem in listing.problems] == [True, False]


@settings(
    max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.one_of(
        st.text(max_size=300),
        st.binary(max_size=300),
        st.lists(
            st.lists(
                st.one_of(
                    st.sampled_from(["a", "a.mp4", "0", "1", "-1", "train", "1e9", "nan", "", "b"]),
                    st.text(max_size=8),
                ),
                max_size=7,
            ),
            max_size=6,
        ),
    )
)
@example(content=b",")
@example(content=b"\x00\x0b\x00")
def test_fuzzed_tables_are_read_or_refused_in_one_line(tmp_path, content):
    touch(tmp_path, "a.mp4", "sub/b.mp4")
    if isinstance(content, list):
        text = io.StringIO()
        head = ["video", "label", "split", "group", "start_seconds", "end_seconds"]
        csv.writer(text).writerows([head, *content])
        content = text.getvalue().encode("utf-8", "surrogatepass")
    elif isinstance(content, str):
        content = b"video,label\n" + content.encode("utf-8", "surrogatepass")
    said = fate_of(tmp_path, content)
    assert len(said.splitlines()) <= 1
    named = (str(tmp_path / "t.csv"), "clips are of class", "labels go up to")
    assert not said or any(part in said for part in named)


def fate_of(tmp_path, content) -> str:
    """Read a table and use it; return the complaint, if there is one."""
    try:
        listing = table(tmp_path, content)
        if listing.requests:
            labels, classes = number_labels(listing.requests, None)
            assert set(labels) <= set(range(len(classes)))
            assert len(set(name_clips(listing.requests))) == len(labels)
    except InputError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------- labels: number 22


def test_names_are_sorted_naturally_and_numbers_are_themselves():
    requests = [request(label) for label in ("jump 10", "jump 2", "jump 10")]
    assert number_labels(requests, None) == ([1, 0, 1], ["jump 2", "jump 10"])
    assert number_labels([request("1"), request("0")], None) == ([1, 0], ["0", "1"])
    assert number_labels([request("1"), request("0")], ["no", "yes"]) == ([1, 0], ["no", "yes"])
    assert number_labels([request("b"), request("a")], ["b", "a"]) == ([0, 1], ["b", "a"])
    assert number_labels([request("2"), request("0")], list("xyz"))[0] == [2, 0]
    assert sorted(["b", "a10", "a9", ""], key=natural_key) == ["", "a9", "a10", "b"]


@pytest.mark.parametrize(
    ("labels", "class_names", "part"),
    [
        (["-1", "0"], None, "t.csv:2 has label '-1'"),
        (["0", "2"], None, "no clip has label 1"),
        (["0", "3"], ["a", "b"], "whole number from 0 to 1"),
        (["0", "fall"], None, "t.csv:2 has label '0', t.csv:2 has 'fall'"),
        (["fall", "trip"], ["fall", "stand"], "label 'trip', the classes are fall, stand"),
        (["fall", "fall"], None, "all 2 clips are of class 'fall'"),
        (["0", "0"], ["a", "b"], "all 2 clips are of class 'a'"),
        (["Fall", "fall"], None, "others have 'Fall'"),
        (["1.0", "0.0"], None, "write a whole number or a name"),
        (["a\u2028b", "c"], None, "write printable characters"),
        (["9" * 5000, "0"], None, "has label '9999"),
    ],
)
def test_labels_that_cannot_be_meant(labels, class_names, part):
    requests = [request(label) for label in labels]
    assert part in complaint(number_labels, requests, class_names)


# ---------------------------------------------------------------- names


def test_names_are_safe_unique_and_do_not_depend_on_the_order():
    keys = ["a.mp4", "a.avi", "A.mov", "b/c.mp4", "b.mp4", "x/# y .mp4", "..z/q..mp4", "tab\t.mp4",
            "line\u2028.mp4", "x" * 240 + ".mp4", "x" * 241 + ".mp4", "bad\udcff.mp4", "e: <f>.mp4",
            "e_ _f_.mp4", "日本/舞.mp4", ".partial.mp4"]  # fmt: skip
    names = name_clips([request(key=key) for key in keys])
    assert names[0:5] == ["a_mp4", "a_avi", "A_mov", "b/c", "b_mp4"]
    assert names[14] == "日本/舞"
    assert len({name.casefold() for name in names}) == len(keys)
    order = np.random.default_rng(0).permutation(len(keys))
    shuffled = name_clips([request(key=keys[i]) for i in order])
    assert shuffled == [names[i] for i in order]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(st.characters(blacklist_characters="\0"), min_size=1), unique=True))
def test_any_name_survives_a_list_and_can_be_a_folder(tmp_path_factory, keys):
    folder = tmp_path_factory.mktemp("names")
    names = name_clips([request(key=f"{key}.mp4") for key in keys])
    if not names:
        return
    write_list(folder / "list.txt", [ClipRecord(name, 1, 0) for name in names])
    assert [record.name for record in load_records(folder / "list.txt")] == names
    for name in names:
        (folder / "frames" / name).mkdir(parents=True)
        assert not any(part.startswith(".") for part in name.split("/"))


def test_parts_of_a_video_are_numbered_in_the_order_of_the_table():
    requests = [
        request(key="m.mp4", start=5.0),
        request(key="n.mp4", start=1.0),
        request(key="m.mp4", start=1.0),
        request(key="o.mp4"),
    ]
    assert name_clips(requests) == ["m__001", "n__001", "m__002", "o"]
