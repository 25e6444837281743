"""FRFS_Boxes.json: corners to upright boxes, and everything that may be wrong with it."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.prepare.boxes import encode_boxes, load_boxes, parse_boxes
from errors import InputError

SIZE = (640, 360)
BOX = [10, 20, 50, 20, 50, 90, 10, 90]


def complaint(path):
    with pytest.raises(InputError) as caught:
        load_boxes(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


def outcome(path):
    """Return the entries of a file, or the one line that says what is wrong with it."""
    message = None
    try:
        return load_boxes(path)
    except InputError as error:
        message = str(error)
    assert len(message.splitlines()) == 1
    return message


@given(st.permutations([(10, 20), (50, 20), (50, 90), (10, 90)]), st.booleans())
def test_corners_in_any_order_and_form_give_the_upright_box(corners, flat):
    entry = [v for corner in corners for v in corner] if flat else [list(c) for c in corners]
    found = parse_boxes([entry], 1, SIZE)
    assert found.boxes.tolist() == [[10, 20, 50, 90]]
    assert found.boxes.dtype == np.float32
    assert found.faults == ()


def test_a_turned_box_is_bounded():
    found = parse_boxes([[30, 10, 50, 30, 30, 50, 10, 30]], 1, SIZE)
    assert found.boxes.tolist() == [[10, 10, 50, 50]]


@pytest.mark.parametrize("nothing", [None, []])
def test_a_frame_without_a_box_is_nan_and_no_fault(nothing):
    found = parse_boxes([BOX, nothing, BOX], 3, SIZE)
    assert np.isnan(found.boxes).all(1).tolist() == [False, True, False]
    assert found.faults == ()


@pytest.mark.parametrize(
    ("corners", "fault"),
    [
        (BOX[:7], "is not 8 finite numbers"),
        ([*BOX, 1], "is not 8 finite numbers"),
        ([*BOX[:7], float("nan")], "is not 8 finite numbers"),
        ([*BOX[:7], float("inf")], "is not 8 finite numbers"),
        ([*BOX[:7], 10**400], "is not 8 finite numbers"),
        ([*BOX[:7], "90"], "is not 8 finite numbers"),
        ([*BOX[:7], True], "is not 8 finite numbers"),
        ([*BOX[:7], None], "is not 8 finite numbers"),
        ({"x": 1}, "is not 8 finite numbers"),
        ("12345678", "is not 8 finite numbers"),
        ([[1, 2], [3, 4], [5, 6], [7]], "is not 8 finite numbers"),
        ([5] * 8, "has no area"),
        ([v + 2000 for v in BOX], "lies outside of the frame of 640x360"),
        ([v - 2000 for v in BOX], "lies outside of the frame"),
    ],
)
def test_a_wrong_box_is_a_fault_and_no_box(corners, fault):
    found = parse_boxes([BOX, corners, BOX, corners], 4, SIZE)
    (text,) = found.faults
    assert fault in text
    assert "in 2 of 4 frames from frame 1 on" in text
    assert np.isnan(found.boxes).all(1).tolist() == [False, True, False, True]


def test_a_box_that_leaves_the_frame_is_cut_off_there():
    near = parse_boxes([[-5, 10, 50, 10, 50, 365, -5, 365]], 1, SIZE)
    assert near.boxes.tolist() == [[0, 10, 50, 360]]
    assert near.faults == ()
    far = parse_boxes([[-500, 10, 50, 10, 50, 365, -500, 365]], 1, SIZE)
    assert far.boxes.tolist() == [[0, 10, 50, 360]]
    assert "reaches far out of the frame of 640x360" in far.faults[0]


@pytest.mark.parametrize("entry", [[BOX] * 3, [], {}, None, "x", 5])
def test_a_wrong_number_of_boxes_is_not_used(entry):
    found = parse_boxes(entry, 4, SIZE)
    assert found.boxes is None
    assert "for 4 frames: not used" in found.faults[0]


def test_a_clip_without_any_box():
    assert parse_boxes([None] * 4, 4, SIZE).boxes is None


def test_boxes_are_kept_in_the_file(tmp_path):
    boxes = parse_boxes([BOX, None], 2, SIZE).boxes
    assert np.array_equal(np.load(io.BytesIO(encode_boxes(boxes))), boxes, equal_nan=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=20,
)


@given(JSON)
def test_any_entry_gives_boxes_within_the_frame_or_faults(entry):
    found = parse_boxes(entry, 2, SIZE)
    if found.boxes is None:
        assert found.faults
    else:
        kept = found.boxes[~np.isnan(found.boxes).any(1)]
        assert (kept >= 0).all()
        assert (kept[:, 2:] <= SIZE).all()
        assert (kept[:, 2:] > kept[:, :2]).all()


# ---------------------------------------------------------------- the file


def test_the_file_is_an_object(tmp_path):
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"a": [BOX]}), encoding="utf-8-sig")
    assert load_boxes(path) == {"a": [BOX]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ":1 is no JSON"),
        (b'{"a": [1,\n 2,\n oops]}', ":3 is no JSON (column 2"),
        (b'{"a": 1, "a": 2}', "key 'a' is there twice"),
        (b"[1, 2]", "holds a list, it should be an object"),
        (b"[" * 100_000, "is no JSON object of boxes"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is no JSON object of boxes"),
        (b'{"a": "\xff"}', "is no JSON object of boxes"),
        (b"<html>", ":1 is no JSON"),
        (b"\0\0", ":1 is no JSON"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, content, expected):
    path = tmp_path / "b.json"
    path.write_bytes(content)
    assert expected in complaint(path)


def test_a_missing_file_a_folder_and_a_device(tmp_path):
    for path in (tmp_path / "no.json", tmp_path):
        assert "cannot be read" in complaint(path)
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert "not a regular file" in complaint(tmp_path / "zero")


@given(st.binary(max_size=80))
def test_any_bytes_give_an_object_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("boxes") / "b.json"
    path.write_bytes(content)
    assert isinstance(outcome(path), dict | str)


@given(st.integers(0, 400), st.integers(0, 255))
def test_mutations_of_a_real_file_give_an_object_or_one_line(tmp_path_factory, place, value):
    data = bytearray(json.dumps({f"{n}_1": [BOX] * 3 for n in range(4)}, indent=1).encode())
    data[place % len(data)] = value
    path = tmp_path_factory.mktemp("boxes") / "b.json"
    path.write_bytes(data)
    found = outcome(path)
    if isinstance(found, dict):
        for entry in found.values():
            parse_boxes(entry, 3, SIZE)
