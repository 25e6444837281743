"""What is stored of a clip: its images or its video as they are, or encoded anew where asked."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np

from datasets.cache import stored_size
from datasets.cached_frames import shrink
from datasets.frames import FrameSource, ImageFrames
from datasets.images import measure_bytes
from datasets.shards.reading import as_file
from datasets.video_files import open_video
from datasets.videos import VideoFrames
from errors import InputError
from files import read_regular

Frames = Literal["keep", "jpeg", "video"]
_MOST_IMAGE_BYTES = 200 * 2**20
# A member of a tar file may have 8 GB; a clip is decoded from memory.
_MOST_VIDEO_BYTES = 2 * 2**30
_BLOCK = 16
_UNKNOWN_RATE = 25
_JPEG_QUALITY, _VIDEO_CRF = 95, 18


@dataclass(frozen=True, slots=True)
class Encoding:
    """How frames are stored.

    Attributes:
        frames: "keep" takes images and videos as they are, "jpeg" makes every frame a JPEG,
            "video" makes every clip a video (H.264).
        short_side: larger frames are resized to it, pixels; None keeps their size.
        quality: of what is encoded: of JPEG 1 to 100, with "video" the CRF of H.264, 0 to 51,
            where less is better; None: 95 and 18.
    """

    frames: Frames = "keep"
    short_side: int | None = None
    quality: int | None = None

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of stored frames."""
        return size if self.short_side is None else stored_size(size, self.short_side)


@dataclass(frozen=True, slots=True)
class Stored:
    """The frames of a clip as they are stored.

    Attributes:
        kind: "jpg", "png" or "video".
        suffix: of the members, without the dot.
        parts: bytes of each image, one after the other, or of the one video.
        first_frame: 0-based number of the clip's first frame in its video.
    """

    kind: str
    suffix: str
    parts: Iterator[bytes]
    first_frame: int = 0


def encode_frames(
    frames: FrameSource, size: tuple[int, int], encoding: Encoding, fps: float
) -> Stored:
    """Return the frames of a clip as they are to be stored.

    Args:
        frames: of the clip.
        size: (width, height) that they have.
        encoding: how.
        fps: frames per second, where the clip becomes a video; 0 where not known.

    Raises:
        InputError: a frame cannot be read; images raise it when they are taken from `parts`.
    """
    is_same = encoding.size(size) == size
    if isinstance(frames, VideoFrames) and is_same and encoding.frames != "jpeg":
        return _keep_video(frames)
    is_video = encoding.frames == "video" or (
        isinstance(frames, VideoFrames) and encoding.frames == "keep"
    )
    if is_video:
        return Stored("video", "mp4", iter((_encode_video(frames, size, encoding, fps),)))
    if (
        isinstance(frames, ImageFrames)
        and is_same
        and (frames.can_reduce or encoding.frames == "keep")
    ):
        kind = "jpg" if frames.can_reduce else "png"
        return Stored(kind, kind, _keep_images(frames, size))
    is_png = isinstance(frames, ImageFrames) and not frames.can_reduce
    kind = "png" if is_png and encoding.frames == "keep" else "jpg"
    return Stored(kind, kind, _encode_images(frames, size, encoding, kind))


def _keep_images(frames: ImageFrames, size: tuple[int, int]) -> Iterator[bytes]:
    for index in range(frames.count):
        path = frames.files.path(index)
        try:
            data = read_regular(path, _MOST_IMAGE_BYTES)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}): extract the frames of this clip again"
            ) from None
        if measure_bytes(path, data) != size:
            raise InputError(
                f"{path} has another size than the first frame of its clip, {size[0]}x{size[1]}: "
                "extract the frames of this clip again at one size"
            )
        yield data


def _encode_images(
    frames: FrameSource, size: tuple[int, int], encoding: Encoding, kind: str
) -> Iterator[bytes]:
    quality = _JPEG_QUALITY if encoding.quality is None else encoding.quality
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpg" else []
    for image in _resized(frames, size, encoding.size(size)):
        done, data = cv2.imencode(f".{kind}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
        if not done:
            raise InputError(f"a frame of {frames.place} cannot be encoded: leave the clip out")
        yield data.tobytes()


def _resized(
    frames: FrameSource, size: tuple[int, int], target: tuple[int, int]
) -> Iterator[np.ndarray]:
    blocks = frames.blocks(size, _BLOCK)
    return chain.from_iterable(shrink(block, target) for block in blocks)


# ---------------------------------------------------------------- videos


def _encode_video(
    frames: FrameSource, size: tuple[int, int], encoding: Encoding, fps: float
) -> bytes:
    """Encode frames as H.264 in MP4, the same bytes for the same frames."""
    width, height = target = encoding.size(size)
    file = io.BytesIO()
    crf = _VIDEO_CRF if encoding.quality is None else encoding.quality
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps or _UNKNOWN_RATE).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf)})
        stream.width, stream.height = width, height
        # Half the colours need an even size.
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        stream.codec_context.thread_count = 1  # with several the bytes depend on their number
        for image in _resized(frames, size, target):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _keep_video(frames: VideoFrames) -> Stored:
    """Return the video of a clip, cut to the clip where that can be done without a change."""
    cut = _cut(frames)
    if cut is not None:
        first, data = cut
        return Stored("video", "mkv", iter((data,)), first)
    try:
        data = read_regular(frames.path, _MOST_VIDEO_BYTES)
    except OSError as error:
        raise InputError(
            f"{frames.path} cannot be packed as it is ({error.strerror}): store its frames with "
            "--frames jpeg"
        ) from None
    return Stored("video", frames.path.suffix[1:].lower(), iter((data,)), frames.first_frame)


def _cut(frames: VideoFrames) -> tuple[int, bytes] | None:
    """Copy the packets of a clip into a file of its own.

    Returns:
        The number of the clip's first frame in it, and its bytes; None where it would not be
        smaller, or not give the same frames.
    """
    whole = frames.path.stat().st_size
    last = -1
    for frame in frames.decode(frames.count):  # a clip that cannot be read stops here
        if frame.pts is None:
            return None
        last = max(last, frame.pts)
    try:
        data = _copy_packets(frames, last)
    except (av.FFmpegError, ValueError, InputError):
        return None
    if len(data) > 0.9 * whole:
        return None
    first = _find_clip(frames, data)
    return None if first is None else (first, data)


def _copy_packets(frames: VideoFrames, last: int) -> bytes:
    """Return a Matroska file with the packets from the keyframe before a clip to its end."""
    file = io.BytesIO()
    with open_video(frames.path) as video:
        if frames.start_pts is not None:
            video.container.seek(frames.start_pts, stream=video.stream, backward=True)
        options = {"fflags": "+bitexact"}  # else it gets a random number
        with av.open(file, "w", format="matroska", container_options=options) as container:
            stream = container.add_stream_from_template(video.stream)
            for packet in video.container.demux(video.stream):
                if packet.dts is None:
                    continue
                if packet.dts > last:
                    break
                packet.stream = stream
                container.mux(packet)
    return file.getvalue()


def _find_clip(frames: VideoFrames, data: bytes) -> int | None:
    """Return where in a cut video the clip begins; None if it does not hold the same frames."""
    wanted = frames.checksums()
    with as_file(data) as path:
        first = _first_of(path, frames, wanted)
        if first is None:
            return None
        copy = VideoFrames(path, frames.count, first, None, frames.shown)
        ends = np.array(sorted({0, frames.count - 1}))
        try:
            is_same = np.array_equal(copy.load(ends, frames.shown), frames.load(ends, frames.shown))
        except InputError:
            return None
    return first if is_same else None


def _first_of(path: Path, frames: VideoFrames, wanted: list[int]) -> int | None:
    """Find the check sums of a clip among those of a video's frames."""
    longest = VideoFrames(path, 2**31, 0, None, frames.shown).checksums()
    for first in range(len(longest) - len(wanted) + 1):
        if longest[first : first + len(wanted)] == wanted:
            return first
    return None
