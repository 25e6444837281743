from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.records import ClipRecord, count_classes, load_records
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
