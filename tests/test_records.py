import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import records as module
from datasets.records import (
    PUBLISHED,
    ClipRecord,
    count_classes,
    format_list,
    header_classes,
    load_records,
    read_header,
)
from errors import InputError


@pytest.fixture
def write_list(tmp_path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "train_videofolder.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def complaint(path: Path, num_classes: int | None = 2) -> str:
    with pytest.raises(InputError) as caught:
        load_records(path, num_classes)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_line_names_folder_frames_and_label():
    assert ClipRecord.parse("jump/axel 01 103 1\n") == ClipRecord("jump/axel 01", 103, 1)


def test_blank_lines_windows_ends_and_a_byte_order_mark_are_fine(write_list):
    path = write_list(b"\xef\xbb\xbfa 3 0\r\n\r\n  \r\n b 4 1 \r\n")
    assert load_records(path) == (ClipRecord("a", 3, 0), ClipRecord("b", 4, 1))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a 3", ":2 has 2 fields: write 'folder num_frames label'"),
        ("a", ":2 has 1 fields"),
        ("a three 0", ":2 has 'three' frames"),
        ("a 0 0", ":2 has '0' frames: write a whole number of at least 1"),
        ("a -3 0", ":2 has '-3' frames"),
        ("a 3.0 0", ":2 has '3.0' frames"),
        ("a ٣ 0", ":2 has '٣' frames"),
        ("a 3 fall", ":2 has label 'fall'"),
        ("a 3 -1", ":2 has label '-1'"),
        ("a 3 2", ":2 has label 2, the data set has 2 classes, 0 to 1"),
        ("ok 3 1", ":2 repeats clip ok of line 1"),
        ("./ok 3 1", ":2 repeats clip ok of line 1"),
        ("../a 3 0", ":2 has folder '../a': it must lie below the frames folder"),
        ("x/../../a 3 0", ":2 has folder 'x/../../a'"),
        ("/etc 3 0", ":2 has folder '/etc'"),
        (". 3 0", ":2 has folder '.'"),
        ("a\0b 3 0", ":2 has folder 'a\\x00b'"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(write_list, line, expected):
    assert expected in complaint(write_list(f"ok 3 0\n{line}\n"))


def test_wrong_files_are_named(write_list, tmp_path):
    assert "is empty: it needs a line" in complaint(write_list("\n \n"))
    assert "is not UTF-8 text" in complaint(write_list("é 3 0\n".encode("latin-1")))
    assert "is not there: it should be a list" in complaint(tmp_path / "no.txt")
    assert "cannot be read" in complaint(tmp_path)


@given(st.binary(max_size=60))
def test_any_bytes_give_records_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_bytes(content)
    message = None
    try:
        records = load_records(path)
    except InputError as error:
        message = str(error)
    assert records if message is None else len(message.splitlines()) == 1


def test_classes_are_counted_and_gaps_found(write_list):
    path = write_list("a 3 1\nb 3 0\nc 3 1\n")
    assert count_classes(path, load_records(path)) == 2
    path = write_list("a 3 0\nb 3 900000000\n")
    with pytest.raises(InputError, match="no clip of class 1: number the classes from 0"):
        count_classes(path, load_records(path))


# ---------------------------------------------------------------- header, and writing

RECORDS = (ClipRecord("jump/axel 01", 103, 1), ClipRecord("été", 1, 0))
HEADER = {"made_by": "x.py", "protocol": PUBLISHED, "classes": '["a: b", "ü"]', "left_out": "2"}


def test_a_header_is_kept_and_is_no_clip(tmp_path):
    path = tmp_path / "list.txt"
    module.write_list(path, RECORDS, HEADER)
    assert read_header(path) == HEADER
    assert load_records(path) == RECORDS
    assert header_classes(path, read_header(path)) == ("a: b", "ü")
    module.write_list(path, RECORDS)
    assert read_header(path) == {}
    assert header_classes(path, {}) is None


def test_lines_keep_their_numbers_below_a_header(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(format_list(RECORDS, HEADER) + "broken\n")
    assert f"{path}:7 has 1 fields" in complaint(path)


def test_comments_below_the_top_are_no_header(write_list):
    path = write_list("# a: b\nx 3 0\n# c 3 1\n")
    assert read_header(path) == {"a": "b"}
    assert [record.name for record in load_records(path)] == ["x", "# c"]


def test_an_equal_list_is_left_as_it_is(tmp_path):
    path = tmp_path / "list.txt"
    module.write_list(path, RECORDS, HEADER)
    os.utime(path, (1, 1))
    module.write_list(path, RECORDS, HEADER)
    assert path.stat().st_mtime == 1
    module.write_list(path, RECORDS[:1], HEADER)
    assert load_records(path) == RECORDS[:1]


@pytest.mark.parametrize(
    "name", ["a\nb", "a\u2028b", "a\x85b", "# a", "../a", "/a", "", " a", "a/", "a\0", "\udcff"]
)
def test_a_name_that_would_not_be_read_back_is_not_written(tmp_path, name):
    path = tmp_path / "list.txt"
    with pytest.raises(InputError, match="cannot stand in a clip list"):
        module.write_list(path, [ClipRecord(name, 3, 0)])
    assert not path.exists()


@given(st.text(min_size=1, max_size=20), st.integers(1, 10**9 - 1), st.integers(0, 10**9 - 1))
def test_any_record_that_is_written_is_read_back(tmp_path_factory, name, num_frames, label):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    record = ClipRecord(name, num_frames, label)
    try:
        module.write_list(path, [record], {"key": "value"})
    except InputError:
        assert not path.exists()
    else:
        assert load_records(path) == (record,)


@pytest.mark.parametrize("header", [{"a:b": "c"}, {"a": "b\nc"}, {"a\u2028": "b"}])
def test_a_header_entry_is_one_line(header):
    with pytest.raises(ValueError, match="a header entry is one line"):
        format_list(RECORDS, header)


@pytest.mark.parametrize(
    "text", ["", "[", "{}", "[]", '["a", 1]', '["a", "a"]', '["a", ""]', "[" * 100_000, "null"]
)
def test_class_names_that_are_none(tmp_path, text):
    with pytest.raises(InputError, match="write distinct names as a JSON list") as caught:
        header_classes(tmp_path / "list.txt", {"classes": text})
    assert len(str(caught.value)) < 500


def test_pipes_and_devices_are_not_read_as_lists(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero"):
        assert "cannot be read (it is not a regular file)" in complaint(path)
        with pytest.raises(InputError):
            read_header(path)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_mutations_of_a_real_list_give_records_or_one_line(tmp_path_factory, place, value):
    data = bytearray(format_list(RECORDS, HEADER).encode())
    data[place % len(data)] = value
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_bytes(data)
    message = None
    try:
        assert load_records(path, 2)
        header_classes(path, read_header(path))
    except InputError as error:
        message = str(error)
    assert message is None or (len(message.splitlines()) == 1 and str(path) in message)
