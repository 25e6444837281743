"""Pictures and videos to begin with, and their readers."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from datasets.check.images import inspect_bytes
from datasets.images import decode_image
from datasets.prepare.probing import VideoLimits, probe_video
from datasets.strict_images import check_image
from errors import InputError

FRAMES, SIZE = 12, (64, 36)


def jpeg_bytes(number: int) -> bytes:
    """Return a small JPEG that differs with the number."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    image = np.stack((rows * 7 % 256, columns * 4 % 256, (rows + number * 9) % 256), axis=-1)
    return bytes(cv2.imencode(".jpg", image.astype(np.uint8))[1])


def image_targets(folder: Path, make: Callable[..., Any]) -> list[Any]:
    """Return the targets of readers of images, made by `make(name, path, seeds, read)`."""
    image = np.array(cv2.imdecode(np.frombuffer(jpeg_bytes(3), np.uint8), cv2.IMREAD_COLOR))
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
    grey = cv2.imencode(".jpg", image[..., 0])[1]
    seeds = [jpeg_bytes(0), bytes(progressive), bytes(grey)]
    png = bytes(cv2.imencode(".png", image)[1])
    return [
        make("JPEG", folder / "image.jpg", seeds, _read_image, kind="image"),
        make("PNG", folder / "image.png", [png], _read_image),
    ]


def _read_image(path: Path) -> None:
    _try_all(path, check_image, decode_image, lambda at: decode_image(at, 2))
    inspect_bytes(path.read_bytes())


def _try_all(path: Path, *readers: Callable[[Path], object]) -> None:
    """Call every reader, also after one has refused the file, and refuse it at the end."""
    refused = None
    for read in readers:
        try:
            read(path)
        except InputError as error:
            refused = error
    if refused is not None:
        raise refused


def film_bytes(codec: str = "libx264", suffix: str = "mp4") -> bytes:
    """Return a video of 12 frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska" if suffix == "mkv" else suffix) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 5
        stream.codec_context.thread_count = 1
        for number in range(FRAMES):
            image = np.full((SIZE[1], SIZE[0], 3), 20 + 9 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def video_targets(folder: Path, make: Callable[..., Any]) -> list[Any]:
    """Return the target of the reader of videos."""
    seeds = [film_bytes(), film_bytes("mpeg4", "avi"), film_bytes("libx264", "mkv")]
    path = folder / "film.mp4"
    return [make("video", path, seeds, _read_video, kind="video")]


def _read_video(path: Path) -> None:
    probe_video(path, VideoLimits(seconds=600))
