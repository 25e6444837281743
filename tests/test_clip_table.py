"""clips.csv: what is written is read; what is wrong is named with its line."""

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.clip_table import NAME, ClipRow, load_table, write_table
from errors import InputError

ROW = ClipRow('a b/ü,"1"', "v 1.mp4", 3, -7, 20, 640, 360, 29.97, "athlete, one", "ab" * 32)


def complaint(root):
    with pytest.raises(InputError) as caught:
        load_table(root)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(root / NAME) in message
    return message


def outcome(root):
    """Return the table, or the one line that says what is wrong with it."""
    message = None
    try:
        return load_table(root)
    except InputError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return message


def test_what_is_written_is_read(tmp_path):
    rows = [ROW, replace(ROW, clip="x", start_pts=None, video=""), ClipRow("y")]
    write_table(tmp_path, rows)
    assert list(load_table(tmp_path).values()) == rows


def test_an_equal_table_is_left_as_it_is(tmp_path):
    write_table(tmp_path, [ROW])
    os.utime(tmp_path / NAME, (1, 1))
    write_table(tmp_path, [ROW])
    assert (tmp_path / NAME).stat().st_mtime == 1
    write_table(tmp_path, [ROW, ClipRow("y")])
    assert (tmp_path / NAME).stat().st_mtime > 1


def test_no_table_is_fine_and_columns_may_lack_or_be_more(tmp_path):
    assert load_table(tmp_path) == {}
    (tmp_path / NAME).write_text("group,clip,mine\r\ng,a,1\r\n", encoding="utf-8-sig")
    assert load_table(tmp_path) == {"a": ClipRow("a", group="g")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (",v.mp4", ":3 has no clip name"),
        ("a,", ":3 repeats clip a"),
        ("../b,", ":3 has clip '../b': it must lie below"),
        ("b/../../c,", ":3 has clip"),
        ("/etc,", ":3 has clip '/etc'"),
        ("b,../../v.mp4", ":3 has video '../../v.mp4'"),
        ("b,/dev/zero", ":3 has video '/dev/zero'"),
        ("b\0,v.mp4", ""),
        ("b,v,x", ":3 has first_frame 'x': write a whole number"),
        ("b,v,-1", ":3 has first_frame '-1'"),
        ("b,v,٣", ":3 has first_frame"),
        ("b,v,1,1.5", ":3 has start_pts '1.5'"),
        ("b,v,1,1,99999999999999999999", ":3 has num_frames"),
        ("b,v,1,1,1,1,1,nan", ":3 has fps 'nan'"),
        ("b,v,1,1,1,1,1,inf", ":3 has fps 'inf'"),
        ("b,v,1,1,1,1,1,-1", ":3 has fps '-1'"),
        ('"b', "cannot be read as a table"),
        ("b" * 200_000, "cannot be read as a table"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path, line, expected):
    header = "clip,video,first_frame,start_pts,num_frames,width,height,fps,group,sha256"
    (tmp_path / NAME).write_text(f"{header}\na,\n{line}\n")
    assert expected in complaint(tmp_path)


def test_what_is_no_table(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"clip\n\xff\xfe\n")
    assert "cannot be read" in complaint(tmp_path)
    path.write_text("<html>\n404\n")
    assert "has no clip name" in complaint(tmp_path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is not a regular file" in complaint(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert "is not a regular file" in complaint(tmp_path)


@given(st.binary(max_size=80))
def test_any_bytes_give_rows_or_one_line(tmp_path_factory, content):
    root = tmp_path_factory.mktemp("table")
    (root / NAME).write_bytes(content)
    outcome(root)


@given(st.integers(0, 10**6), st.integers(0, 255))
def test_mutations_of_a_real_table_give_rows_or_one_line(tmp_path_factory, place, value):
    root = tmp_path_factory.mktemp("table")
    write_table(root, [ROW, ClipRow("y", "z.avi", 1, 2, 3)])
    data = bytearray((root / NAME).read_bytes())
    data[place % len(data)] = value
    (root / NAME).write_bytes(data)
    outcome(root)
