import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.check.images import inspect_bytes


def picture(size=(40, 30), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def encode(suffix=".jpg", image=None, *flags):
    return cv2.imencode(suffix, picture() if image is None else image, list(flags))[1].tobytes()


def kinds(data):
    return [kind for kind, _ in inspect_bytes(data)[1]]


def with_exif(jpeg, orientation, order="<"):
    mark = b"II" if order == "<" else b"MM"
    value = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", 1) + value
    content = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


KINDS_OF_JPEG = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
}


@pytest.mark.parametrize("flags", KINDS_OF_JPEG.values(), ids=KINDS_OF_JPEG)
def test_a_whole_jpeg_is_walked_to_its_last_byte(flags):
    data = encode(".jpg", None, *flags)
    facts, faults = inspect_bytes(data)
    assert (facts.size, facts.end, faults) == ((40, 30), len(data), [])


def test_a_whole_png_is_walked_to_its_last_byte():
    data = encode(".png")
    facts, faults = inspect_bytes(data)
    assert (facts.size, facts.end, faults) == ((40, 30), len(data), [])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_cut_anywhere_is_truncated(suffix):
    data = encode(suffix)
    for cut in (*range(8, len(data), 37), len(data) - 2, len(data) - 1):
        assert "frame_truncated" in kinds(data[:cut]), cut


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_bytes_after_the_end_are_told_even_when_they_are_another_picture(suffix):
    data = encode(suffix)
    assert kinds(data + b"\0") == ["frame_tail"]
    assert kinds(data + data) == ["frame_tail"]


def test_an_end_marker_inside_a_thumbnail_is_not_the_end():
    jpeg = encode()
    thumbnail = b"Exif\0\0" + encode(".jpg", picture((8, 8)))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = jpeg[:2] + segment + jpeg[2:]
    assert inspect_bytes(data)[0].end == len(data)
    assert "frame_truncated" in kinds(data[:-2])


def test_nothing_and_no_image_are_told_apart():
    assert kinds(b"") == ["frame_empty"]
    assert kinds(b"<html><body>404</body></html>") == ["frame_not_image"]


def test_unusual_forms_are_told():
    sixteen = encode(".png", picture().astype(np.uint16) * 257)
    assert kinds(sixteen) == ["frame_unusual"]
    assert kinds(encode(".png", picture((1, 1)))) == ["frame_unusual"]
    for order in "<>":
        assert kinds(with_exif(encode(), 6, order)) == ["frame_unusual"]
        assert kinds(with_exif(encode(), 1, order)) == []


def test_a_cmyk_jpeg_is_told():
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("CMYK", (16, 16)).save(file, "JPEG")
    assert kinds(file.getvalue()) == ["frame_unusual"]


def test_a_flipped_bit_in_a_png_breaks_its_checksum():
    data = bytearray(encode(".png"))
    data[len(data) // 2] ^= 1
    assert "frame_corrupt" in kinds(bytes(data))


def test_a_png_that_promises_a_huge_chunk_is_truncated():
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31) + b"IHDR"
    assert "frame_truncated" in kinds(head + bytes(30))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_have_an_answer(data, start):
    facts, faults = inspect_bytes(start + data)
    assert faults or facts.end == len(start + data)
