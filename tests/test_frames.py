import struct
import zlib

import cv2
import numpy as np
import pytest

from datasets.frames import ImageFrames, decode_image, image_size, scan_folder
from errors import InputError

RNG_SEED = 0


def picture(width: int = 48, height: int = 30) -> np.ndarray:
    noise = np.random.default_rng(RNG_SEED).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def encode(image: np.ndarray, suffix: str = ".jpg", *parameters: int) -> bytes:
    return cv2.imencode(suffix, image, parameters)[1].tobytes()


def complaint(act) -> str:
    with pytest.raises(InputError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- numbering


@pytest.mark.parametrize(
    ("first", "pattern"),
    [
        (0, "{:05d}.jpg"),
        (1, "{:05d}.jpg"),
        (5, "{:05d}.jpg"),
        (0, "{}.jpg"),
        (8, "{}.png"),
        (9, "{:02d}.jpg"),
        (98, "{:02d}.jpg"),
        (1, "img_{:05d}.jpg"),
        (1, "clip 3_frame{}.jpeg"),
        (1, "{:06d}.JPG"),
    ],
)
def test_defect_01_any_numbering_gives_first_to_last_frame(tmp_path, make_frames, first, pattern):
    make_frames(tmp_path / "clip", 12, first, pattern)
    files = scan_folder(tmp_path / "clip", 12)
    assert [files.path(i).name for i in range(12)] == [pattern.format(first + i) for i in range(12)]
    assert all(files.path(i).is_file() for i in range(12))


def test_defect_02_a_frame_outside_the_clip_is_an_error_and_no_other_frame(tmp_path, make_frames):
    make_frames(tmp_path / "clip", 4)
    files = scan_folder(tmp_path / "clip", 3)
    for index in (-1, 3, 4):
        with pytest.raises(IndexError, match="has frames 0 to 2"):
            files.path(index)


def test_defect_33_frames_count_alone_and_in_number_order(tmp_path, make_frames):
    folder = tmp_path / "clip"
    make_frames(folder, 12, pattern="{}.jpg")
    for frame in range(1, 13):
        np.save(folder / f"{frame}.npy", np.zeros((17, 2)))
    (folder / "notes.txt").write_text("2 people")
    (folder / "._1.jpg").write_bytes(b"")
    (folder / "13.jpg").mkdir()
    files = scan_folder(folder, 12)
    assert files.found == 12
    assert [files.path(i).name for i in (0, 1, 8, 9, 11)] == [
        "1.jpg", "2.jpg", "9.jpg", "10.jpg", "12.jpg",
    ]  # fmt: skip


def test_of_more_frames_than_listed_the_first_are_used(tmp_path, make_frames):
    make_frames(tmp_path / "clip", 6)
    files = scan_folder(tmp_path / "clip", 4)
    assert (files.count, files.found, files.path(3).name) == (4, 6, "00004.jpg")


def test_a_gap_names_the_first_missing_frame(tmp_path, make_frames):
    make_frames(tmp_path / "clip", 9)
    for number in (4, 7):
        (tmp_path / "clip" / f"0000{number}.jpg").unlink()
    for listed in (7, 9):
        message = complaint(lambda n=listed: scan_folder(tmp_path / "clip", n))
        assert (
            "clip/00004.jpg is missing: the clip's frames go from 00001.jpg to 00009.jpg" in message
        )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["00001.jpg", "00002.jpg"], "clip holds 2 jpg files, the list says 3 frames"),
        ([], "clip holds no jpg/jpeg/png file, the list says 3 frames"),
        (["1.jpg", "2.jpg", "cover.jpg"], "clip/cover.jpg has no frame number in its name"),
        (["1.jpg", "2.jpg", "02.jpg"], "clip holds frame 2 twice, 02.jpg and 2.jpg"),
        (["1.jpg", "2.jpg", "3.png"], "clip/3.png breaks the naming of its clip, it should be"),
        (["01.jpg", "02.jpg", "003.jpg"], "should be called"),
        (["a_1.jpg", "a_2.jpg", "b_3.jpg"], "clip/b_3.jpg breaks the naming of its clip"),
    ],
)
def test_a_wrong_folder_is_named_with_what_is_wrong(tmp_path, names, expected):
    folder = tmp_path / "clip"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"")
    assert expected in complaint(lambda: scan_folder(folder, 3))


def test_a_missing_folder_or_a_file_in_its_place(tmp_path):
    message = complaint(lambda: scan_folder(tmp_path / "nowhere", 3))
    assert "nowhere is not there: it should hold the frames of this clip" in message
    (tmp_path / "file").write_text("")
    assert "should be a folder" in complaint(lambda: scan_folder(tmp_path / "file", 3))
    assert "cannot be read" in complaint(lambda: scan_folder(tmp_path / ("x" * 5000), 3))


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_rgb_as_stored(tmp_path, suffix):
    red = np.zeros((20, 32, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    path = tmp_path / f"00001{suffix}"
    path.write_bytes(encode(red, suffix))
    image = decode_image(path)
    assert image.shape == (20, 32, 3)
    assert image[10, 16, 0] > 250
    assert image[10, 16, 1:].max() < 5


@pytest.mark.parametrize(
    "data",
    [
        encode(picture()),
        encode(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encode(picture(), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        encode(picture()[..., 0]),
        encode(picture(), ".png"),
        encode(picture().astype(np.uint16) * 256, ".png"),
        encode(np.dstack((picture(), picture()[..., 0])), ".png"),
    ],
    ids=["baseline", "progressive", "restart", "grey", "png", "png16", "rgba"],
)
def test_the_header_tells_the_size_of_every_kind(tmp_path, data):
    path = tmp_path / "00001.jpg"
    path.write_bytes(data)
    assert image_size(path) == (48, 30)
    assert decode_image(path).shape == (30, 48, 3)


def test_a_rotation_tag_changes_neither_size_nor_picture(tmp_path):
    plain = encode(picture())
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    for name, data in (("1.jpg", plain), ("2.jpg", plain[:2] + segment + plain[2:])):
        (tmp_path / name).write_bytes(data)
    assert image_size(tmp_path / "2.jpg") == (48, 30)
    assert np.array_equal(decode_image(tmp_path / "2.jpg"), decode_image(tmp_path / "1.jpg"))


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_truncated_jpeg_is_refused_at_every_length(tmp_path, progressive, capfd):
    data = encode(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    path = tmp_path / "00003.jpg"
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        message = complaint(lambda: decode_image(path))
        assert "00003.jpg is" in message
        assert str(length) in message


@pytest.mark.parametrize(
    "data", [b"", b"<html>404</html>", b"GIF89a" + b"\0" * 50, b"\xff\xd8\xff"]
)
def test_what_is_no_image_is_refused(tmp_path, data):
    path = tmp_path / "00001.jpg"
    path.write_bytes(data)
    for read in (decode_image, image_size):
        assert "00001.jpg is no JPEG or PNG image" in complaint(lambda read=read: read(path))


def test_a_bomb_is_refused_by_its_header(tmp_path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    path = tmp_path / "00001.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b""))
    message = complaint(lambda: decode_image(path))
    assert "is 30000x30000 pixels, frames may have at most 50 million" in message


def test_a_vanished_frame_is_named(tmp_path):
    assert "00009.jpg cannot be read" in complaint(lambda: decode_image(tmp_path / "00009.jpg"))


def test_frames_come_in_the_order_asked_for(tmp_path, make_frames):
    make_frames(tmp_path / "clip", 9)
    files = scan_folder(tmp_path / "clip", 9)
    frames = ImageFrames(files).load(np.array([0, 4, 8]), (64, 36))
    assert frames.shape == (3, 36, 64, 3)
    assert frames.dtype == np.uint8
    assert [int(f.mean()) for f in frames] == pytest.approx([20, 52, 84], abs=1)


def test_frames_of_two_sizes_in_one_clip_are_refused(tmp_path, make_frames):
    make_frames(tmp_path / "clip", 3)
    (tmp_path / "clip" / "00002.jpg").write_bytes(encode(picture()))
    files = scan_folder(tmp_path / "clip", 3)
    message = complaint(lambda: ImageFrames(files).load(np.arange(3), (64, 36)))
    assert "00002.jpg is 48x30 pixels, the first frame of its clip 64x36" in message


# ---------------------------------------------------------------- reduced decoding


def averaged(image: np.ndarray, k: int) -> np.ndarray:
    """Average squares of k pixels, the last of a row or column over those that there are."""
    height, width, _ = image.shape
    rows, columns = range(0, height, k), range(0, width, k)
    return np.array([[image[y : y + k, x : x + k].mean((0, 1)) for x in columns] for y in rows])


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("size", [(48, 32), (47, 29), (49, 33), (640, 361)])
@pytest.mark.parametrize(
    "choices", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_a_jpeg_decodes_to_a_part_of_its_size_in_place(tmp_path, k, size, choices):
    path = tmp_path / "00001.jpg"
    path.write_bytes(encode(picture(*size), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 95, *choices))
    small, whole = decode_image(path, k), decode_image(path)
    assert small.shape == (-(-size[1] // k), -(-size[0] // k), 3)
    expected = averaged(whole, k)
    inside = expected[: size[1] // k, : size[0] // k]
    error = np.abs(small[: inside.shape[0], : inside.shape[1]] - inside)
    # Off by a pixel would be ten times as much, blue in the place of red fifteen times.
    assert error.mean() < 2.5


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("sampling", ["420", "422", "440", "411", "444"])
def test_colours_keep_their_resolution(tmp_path, k, sampling):
    """libjpeg reduces the colours of 4:2:2 and 4:1:1 more than asked."""
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    waves = [127 + 120 * np.sin((x + shift) / 9) * np.cos((y - shift) / 9) for shift in (0, 7, 23)]
    image = np.stack(waves, axis=-1).astype(np.uint8)
    factor = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    data = encode(image, ".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
    (tmp_path / "1.jpg").write_bytes(data)
    expected = averaged(decode_image(tmp_path / "1.jpg"), k)
    assert np.abs(decode_image(tmp_path / "1.jpg", k) - expected).mean() < 1.5


@pytest.mark.parametrize("k", [2, 4, 8])
def test_red_stays_red_and_grey_has_three_channels(tmp_path, k):
    red = np.zeros((40, 64, 3), np.uint8)
    red[..., 2] = 255
    for name, image in (("1.jpg", red), ("2.jpg", red[..., 2])):
        (tmp_path / name).write_bytes(encode(image))
    small = decode_image(tmp_path / "1.jpg", k)
    assert small[..., 0].min() > 250
    assert small[..., 1:].max() < 5
    assert decode_image(tmp_path / "2.jpg", k).shape == small.shape


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("progressive", [0, 1])
def test_a_truncated_jpeg_is_refused_at_every_length_when_reduced(tmp_path, progressive, k, capfd):
    data = encode(picture(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    path = tmp_path / "00003.jpg"
    for length in [*range(0, len(data) - 1, 7), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:length])
        message = complaint(lambda: decode_image(path, k))
        assert "00003.jpg is" in message
        assert str(length) in message


@pytest.mark.parametrize("k", [2, 4, 8])
def test_a_png_that_is_called_jpg_is_averaged(tmp_path, k):
    for size in ((48, 30), (47, 31), (5, 3)):
        path = tmp_path / "00001.jpg"
        path.write_bytes(encode(picture(*size), ".png"))
        inside = np.s_[: size[1] // k, : size[0] // k]
        small, expected = decode_image(path, k), averaged(decode_image(path), k)
        assert small.shape == expected.shape
        assert np.abs(small[inside] - expected[inside]).max(initial=0) <= 0.51


def test_a_stream_gives_frames_one_by_one_and_each_size_is_checked(tmp_path, make_frames):
    make_frames(tmp_path / "clip", 9)
    clip = ImageFrames(scan_folder(tmp_path / "clip", 9))
    assert clip.can_reduce
    stream = clip.stream(np.array([0, 4, 8]), (64, 36))
    (tmp_path / "clip" / "00009.jpg").unlink()
    assert [int(next(stream).mean()) for _ in range(2)] == pytest.approx([20, 52], abs=1)
    assert "00009.jpg cannot be read" in complaint(lambda: next(stream))
    # Half of 47x29 and of 48x30 are equally many pixels.
    (tmp_path / "clip" / "00005.jpg").write_bytes(encode(picture(63, 35)))
    stream = clip.stream(np.array([0, 4]), (64, 36), 2)
    assert next(stream).shape == (18, 32, 3)
    assert "00005.jpg is 63x35 pixels, the first frame of its clip 64x36" in complaint(
        lambda: next(stream)
    )


def test_only_jpegs_are_reduced(tmp_path, make_frames):
    for number, (pattern, is_jpeg) in enumerate(
        {"{}.png": False, "{}.jpg": True, "{}.JPEG": True}.items()
    ):
        make_frames(tmp_path / str(number), 2, pattern=pattern)
        assert ImageFrames.find(tmp_path / str(number), 2).can_reduce is is_jpeg
