"""Damaged, odd and hostile images: RELIABILITY numbers 16 and 17 for folders of frames."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.frames import decode_image
from datasets.strict_images import check_image
from errors import InputError

ROOT = Path(__file__).resolve().parent.parent


def picture(width=160, height=90):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def jpeg(image, **choices):
    file = io.BytesIO()
    Image.fromarray(image[..., ::-1]).save(file, "JPEG", **choices)
    return file.getvalue()


def as_mode(mode, kind="JPEG", **choices):
    file = io.BytesIO()
    Image.fromarray(picture()).convert(mode).save(file, kind, **choices)
    return file.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(picture(), exif=exif)


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb_png():
    """Return a small PNG that decodes to 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    rows = zlib.compressobj(9)
    line = bytes(1 + 3 * 30_000)
    data = b"".join(rows.compress(line) for _ in range(300)) + rows.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def bomb_jpeg():
    data = bytearray(jpeg(picture()))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 30_000, 30_000)
    return bytes(data)


WHOLE = jpeg(picture())
SCAN = WHOLE.index(b"\xff\xda") + 40


def complaint(path, check=check_image):
    with pytest.raises(InputError) as caught:
        check(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (WHOLE, (160, 90)),
        (jpeg(picture(), progressive=True), (160, 90)),
        (jpeg(picture(), subsampling=0, quality=100), (160, 90)),
        (jpeg(picture(), restart_marker_rows=1), (160, 90)),
        (as_mode("L"), (160, 90)),
        (as_mode("CMYK"), (160, 90)),
        (as_mode("CMYK", subsampling=1), (160, 90)),
        (as_mode("P", "PNG"), (160, 90)),
        (as_mode("1", "PNG"), (160, 90)),
        (as_mode("RGBA", "PNG"), (160, 90)),
        (png(picture().astype(np.uint16) * 256), (160, 90)),
        (rotated(), (160, 90)),
        (jpeg(picture(1, 1)), (1, 1)),
        (png(picture(1, 1)), (1, 1)),
        (jpeg(picture(65_500, 2)), (65_500, 2)),
        (jpeg(picture(2, 65_500)), (2, 65_500)),
        (WHOLE + b"trailing bytes", (160, 90)),
    ],
    ids=[
        "plain", "progressive", "444", "restart", "grey", "cmyk", "cmyk422", "palette", "1bit",
        "rgba", "16bit", "rotated", "1x1", "1x1png", "wide", "tall", "trailing",
    ],
)  # fmt: skip
def test_odd_images_are_whole_and_have_the_size_that_training_sees(tmp_path, data, size):
    path = tmp_path / "00001.jpg"
    path.write_bytes(data)
    assert check_image(path)[0] == size
    assert decode_image(path).shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>404</html>",
        b"\xff\xd8\xff",
        WHOLE[: len(WHOLE) // 2],
        WHOLE[: len(WHOLE) // 2] + b"\xff\xd9",
        WHOLE[:-2],
        WHOLE[:SCAN] + WHOLE[SCAN + 1500 :],
        WHOLE[:SCAN] + bytes(1500) + WHOLE[SCAN + 1500 :],
        WHOLE[:SCAN] + b"\xff\xfe" * 20 + WHOLE[SCAN + 40 :],
        png(picture())[:-20],
        png(picture())[:200] + b"x" + png(picture())[201:],
        b"GIF89a" + bytes(50),
    ],
    ids=[
        "empty", "html", "start", "truncated", "truncated and ended", "no end", "cut", "zeroed",
        "markers", "png truncated", "png damaged", "gif",
    ],
)  # fmt: skip
def test_damaged_images_are_refused(tmp_path, data, capfd):
    path = tmp_path / "00001.jpg"
    path.write_bytes(data)
    assert "extract the frames of this clip again" in complaint(path)


def test_jpegs_cut_anywhere_are_refused(tmp_path, capfd):
    path = tmp_path / "00001.jpg"
    for length in range(0, len(WHOLE) - 64, 23):  # FFmpeg forgives the last few blocks
        for end in (b"", b"\xff\xd9"):
            path.write_bytes(WHOLE[:length] + end)
            complaint(path)


def test_flipped_bits_never_end_in_anything_but_a_picture_or_one_line(tmp_path, capfd):
    rng = np.random.default_rng(0)
    path = tmp_path / "00001.jpg"
    for data in (WHOLE, jpeg(picture(), progressive=True), png(picture())):
        for _ in range(60):
            damaged = bytearray(data)
            damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            message = None
            try:
                size, digest = check_image(path)
                assert decode_image(path).shape == (size[1], size[0], 3)
                assert len(digest) == 32
            except InputError as error:
                message = str(error)
            assert message is None or len(message.splitlines()) == 1


@pytest.mark.parametrize("make", [bomb_png, bomb_jpeg])
@pytest.mark.parametrize("check", ["check_image", "decode_image"])
def test_a_bomb_is_refused_by_its_header_in_little_memory(tmp_path, make, check):
    path = tmp_path / "00001.jpg"
    path.write_bytes(make())
    module = "strict_images" if check == "check_image" else "frames"
    code = (
        f"import resource, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        f"from datasets.{module} import {check}\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try:\n"
        f"    {check}(Path({str(path)!r}))\n"
        "except ValueError as error:\n"
        "    print(error, peak() - before, sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, growth = done.stdout.split("|")
    assert "is 30000x30000 pixels, frames may have at most 50 million" in message
    assert int(growth) < 100 * 1024  # kilobytes


def test_a_sparse_file_of_gigabytes_is_refused_unread(tmp_path):
    path = tmp_path / "00001.jpg"
    path.write_bytes(WHOLE)
    os.truncate(path, 2**34)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "more than" in complaint(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_pipes_devices_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to("/dev/zero")
    (tmp_path / "3.jpg").mkdir()
    for number in (1, 2, 3, 4):
        assert "cannot be read" in complaint(tmp_path / f"{number}.jpg")


def test_the_sum_is_that_of_the_file(tmp_path):
    (tmp_path / "1.jpg").write_bytes(WHOLE)
    (tmp_path / "2.jpg").write_bytes(WHOLE)
    (tmp_path / "3.jpg").write_bytes(WHOLE + b"x")
    sums = [check_image(tmp_path / f"{n}.jpg")[1] for n in (1, 2, 3)]
    assert sums[0] == sums[1] != sums[2]
