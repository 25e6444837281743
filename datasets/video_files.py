"""Opening and decoding video files: local files of known formats and bounded size, strictly.

Decoding is as strict as the decoders are: a frame that is known to be mended is not passed on. A
video that is noticed to be damaged or cut gives its frames up to there, then an `InputError`. Most
codecs have no check sums, so that not all damage can be noticed.
"""

import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import av.error
import av.logging
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import VideoReformatter

from datasets.images import MOST_PIXELS
from errors import InputError

# fmt: off
VIDEO_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
)
# fmt: on
# As for images: more than any frame, and a bound on what a header can make us allocate.

# Containers of one file. What is not here is refused: playlists (HLS, DASH, concat) would let a
# file name other files, and formats that are made of text or images match almost anything.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,h264,hevc,"
    "m4v,nut,ivf,obu,yuv4mpegpipe"
)
_CONTAINER_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
_REMEDY = "export the video again, or leave it out"
_TEXT_FORMATS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD")

# What FFmpeg's decoders can notice ends the video, instead of being mended without a word.
_ERR_DETECT = "crccheck+bitstream+buffer+explode"

_MATRIX_BYTES = 36  # 3 x 3 whole numbers of 32 bits


class Damaged(InputError):  # noqa: N818 - it says what the video is
    """A video cannot be decoded further; `reason` follows its name: "is cut short"."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}: {_REMEDY}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """A video that is open for reading.

    Attributes:
        path: the file.
        container: as PyAV opened it.
        stream: the one that is shown.
    """

    path: Path
    container: av.container.InputContainer
    stream: av.VideoStream


@contextmanager
def open_video(path: Path) -> Iterator[OpenVideo]:
    """Open a video file; it is decoded in this thread alone.

    Loader workers and extraction already use every core, one video each.

    Raises:
        InputError: it is no regular file, no video of a known format, has no picture, or
            pictures of more than 50 million pixels.
    """
    check_file(path)
    try:
        # An absolute path has no place for a protocol.
        container = av.open(
            str(path.absolute()),
            container_options=_CONTAINER_OPTIONS,
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} {_why_not(path, error)}: {_REMEDY}") from None
    with container:
        yield OpenVideo(path, container, _find_stream(path, container))


def check_file(path: Path) -> None:
    """Make sure that a file can be read to its end: no device, no pipe, not empty.

    Raises:
        InputError: it cannot.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{str(path)[:300]} cannot be read ({reason}): it should be a video"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is no regular file: it should be a video")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes): {_REMEDY}")


def _why_not(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as unreadable:
        return f"cannot be read ({unreadable.strerror})"
    if start.startswith(_TEXT_FORMATS):
        return "is a playlist, which names other files, and no video"
    if isinstance(error, av.error.InvalidDataError):
        return "is no video that can be read (another kind of file, or cut before its index)"
    return f"cannot be opened as a video ({getattr(error, 'strerror', None) or error})"


def _find_stream(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not streams:
        sound = "only sound" if container.streams.audio else "no picture"
        raise InputError(f"{path} holds {sound}: it should be a video; leave it out")
    best = container.streams.best("video")
    stream = next((s for s in streams if best is not None and s.index == best.index), streams[0])
    codec = stream.codec_context
    if codec is None:
        raise InputError(f"{path} is in a codec that this PyAV cannot decode: {_REMEDY}")
    if codec.width * codec.height > MOST_PIXELS:
        raise InputError(
            f"{path} is {codec.width}x{codec.height} pixels, frames may have at most "
            f"{MOST_PIXELS // 1_000_000} million: export it at a smaller size"
        )
    codec.options = {"max_pixels": str(MOST_PIXELS), "err_detect": _ERR_DETECT}
    codec.thread_count = 1
    return stream


def decode_frames(video: OpenVideo) -> Iterator[av.VideoFrame]:
    """Decode from where the video stands, in the order of presentation.

    Raises:
        Damaged: where it is; all whole frames before have been yielded.
    """
    return _sound(video, raw_frames(video))


def raw_frames(video: OpenVideo) -> Iterator[av.VideoFrame]:
    """Decode as `decode_frames`, with the frames that the decoder marks as corrupt.

    Raises:
        Damaged: where decoding cannot go on.
    """
    # Frames that the decoder holds back to bring them in order are lost with what is missing:
    # among them those that were not decoded would be gaps.
    try:
        for packet in video.container.demux(video.stream):
            if packet.is_corrupt:
                raise Damaged(video.path, "is cut short")
            yield from packet.decode()
    except Damaged:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Damaged(video.path, f"is damaged ({reason})") from None


@contextmanager
def overhear_decoder() -> Iterator[list[tuple[int, str, str]]]:
    """Collect the errors that FFmpeg reports in this thread, as (level, who, text).

    Some damage is only reported, as a check sum of FFV1 that does not match; the frame looks whole.
    """
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=True) as reports:
            yield reports
    finally:
        av.logging.set_level(level)


def frames_from(video: OpenVideo, pts: int, back: float) -> Iterator[av.VideoFrame] | None:
    """Seek, and decode from the frame with time stamp `pts`.

    Args:
        video: just opened.
        pts: time stamp of the first frame to yield, in units of the stream.
        back: seconds to seek before it. Where a frame is shown before the keyframe that was stored
            before it, 0 finds a keyframe that is too late.

    Returns:
        None where that does not lead to exactly this frame by way of a whole keyframe.
    """
    assert video.stream.time_base is not None
    try:
        target = pts - int(back / video.stream.time_base)
        video.container.seek(target, stream=video.stream, backward=True)
        frames = raw_frames(video)
        first = _first_at(frames, pts)
    except (av.error.FFmpegError, OSError, InputError):
        return None
    return None if first is None else _sound(video, chain([first], frames))


def _first_at(frames: Iterator[av.VideoFrame], pts: int) -> av.VideoFrame | None:
    """Decode up to the frame at `pts`; None if it does not come, or comes before a keyframe."""
    has_keyframe = False
    for frame in frames:
        has_keyframe |= frame.key_frame and not frame.is_corrupt
        if frame.pts is None or frame.pts > pts:
            return None
        if frame.pts == pts:
            return frame if has_keyframe and not frame.is_corrupt else None
    return None


def _sound(video: OpenVideo, frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    for frame in frames:
        if frame.is_corrupt:
            raise Damaged(video.path, "has a damaged frame")
        yield frame


# ---------------------------------------------------------------- pictures


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels are turned to be seen upright: swap the axes, then mirror."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def shown(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) as shown of a stored size."""
        return (height, width) if self.transposed else (width, height)

    @property
    def text(self) -> str:
        """Return what is done, in words; empty when nothing is."""
        turns = {
            (True, True, False): "turned by 90 degrees",
            (False, True, True): "turned by 180 degrees",
            (True, False, True): "turned by 270 degrees",
            (False, False, False): "",
        }
        return turns.get((self.transposed, self.mirror_x, self.mirror_y), "mirrored")


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Read the rotation tag of a frame: any of the 8 ways to lay a picture on its grid.

    An angle between two quarter turns counts as the nearer one.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData) or data.buffer_size != _MATRIX_BYTES:
        return Orientation()
    # Stored (p, q) is shown at (a p + c q, b p + d q); y points down.
    a, b, _, c, d = np.frombuffer(memoryview(data), np.int32)[:5].astype(np.int64)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, bool(a < 0), bool(d < 0))
    return Orientation(True, bool(c < 0), bool(b < 0))


def upright_rgb(
    frame: av.VideoFrame,
    size: tuple[int, int] | None = None,
    interpolation: Literal["BICUBIC", "AREA"] = "BICUBIC",
) -> np.ndarray:
    """Convert a frame to (H, W, 3) uint8 RGB as it is shown.

    Args:
        frame: as decoded.
        size: (width, height) to scale to, as shown; None keeps it.
        interpolation: for scaling.
    """
    turn = orientation_of(frame)
    width, height = turn.shown(*(size or turn.shown(frame.width, frame.height)))
    # The frame's own converter would live as long as the frame, in a circle with it, and start a
    # thread for each core: thousands, and in a forked process they would be waited for in vain.
    converted = VideoReformatter().reformat(
        frame, width, height, "rgb24", interpolation=interpolation, threads=1
    )
    image = converted.to_ndarray()
    if turn.transposed:
        image = image.swapaxes(0, 1)
    if turn.mirror_x:
        image = image[:, ::-1]
    if turn.mirror_y:
        image = image[::-1]
    return np.ascontiguousarray(image)


def shown_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return (width, height) of a frame as it is shown."""
    return orientation_of(frame).shown(frame.width, frame.height)
