"""Frames of anything that can be watched, one after the other, with their time stamps."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import av
import av.error
import numpy as np

from datasets.frames import IMAGE_SUFFIXES, ImageFrames, decode_image, image_size
from datasets.video_files import decode_frames, open_video, shown_size, upright_rgb
from errors import InputError

# Where neither the file nor the user says it.
USUAL_RATE = 25.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        seconds: since the first frame; later than the frame before.
        size: (width, height) in pixels, as shown.
        picture: makes the (H, W, 3) uint8 RGB picture.
        reduced: makes the picture at 1/k of its size, rounded up, given k; None where the source
            cannot (see `can_reduce`).
    """

    seconds: float
    size: tuple[int, int]
    picture: Callable[[], np.ndarray]
    reduced: Callable[[int], np.ndarray] | None = None


class Source(Protocol):
    """Something that can be watched."""

    @property
    def name(self) -> str:
        """Return what it is called, for the user; without secrets."""

    @property
    def stem(self) -> str:
        """Return the name of its output folder."""

    @property
    def is_live(self) -> bool:
        """Say whether it goes on while it is watched, so that it cannot be watched twice."""

    @property
    def path(self) -> Path | None:
        """Return the file or folder; None where there is none."""

    def rate(self) -> float | None:
        """Return the frames per second as far as they are known beforehand.

        Raises:
            InputError: the source cannot be opened.
        """

    def times(self) -> list[float] | None:
        """Return the seconds of all frames as far as they are known without decoding.

        They are a guess, as files may say anything; None where there is none.
        """

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the frames in order.

        Raises:
            InputError: the source cannot be read (further).
        """


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file."""

    path: Path
    is_live = False

    @property
    def name(self) -> str:
        """Return the path."""
        return str(self.path)

    @property
    def stem(self) -> str:
        """Return the file's name without its ending."""
        return self.path.stem

    def rate(self) -> float | None:
        """Return the mean frame rate that the file states."""
        with open_video(self.path) as video:
            return stated_rate(video.stream)

    def times(self) -> list[float] | None:
        """Return the time stamps of the packets, in order of presentation."""
        with open_video(self.path) as video:
            try:
                packets = video.container.demux(video.stream)
                stamps = [packet.pts for packet in packets if packet.size]
            except (av.error.FFmpegError, OSError, ValueError):
                return None
            base = video.stream.time_base
        known = sorted(stamp for stamp in stamps if stamp is not None)
        if base is None or not known or len(set(known)) < len(stamps):
            return None
        return [float((stamp - known[0]) * base) for stamp in known]

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the frames in order of presentation, upright."""
        with open_video(self.path) as video:
            rate = stated_rate(video.stream) or USUAL_RATE
            yield from timed(in_order(decode_frames(video)), rate)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """A folder of numbered images, as clips of a data set are kept."""

    path: Path
    fps: float | None = None
    is_live = False

    @property
    def name(self) -> str:
        """Return the path."""
        return str(self.path)

    @property
    def stem(self) -> str:
        """Return the folder's name."""
        return self.path.absolute().name

    def rate(self) -> float | None:
        """Return what the user says."""
        return self.fps

    def times(self) -> list[float] | None:
        """Return the seconds of the images."""
        rate = self.fps or USUAL_RATE
        return [index / rate for index in range(count_images(self.path))]

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the images in order of their numbers."""
        files = self._find().files
        for index in range(files.count):
            path = files.path(index)
            yield Frame(
                index / (self.fps or USUAL_RATE),
                image_size(path),
                partial(decode_image, path),
                partial(decode_image, path),
            )

    @property
    def can_reduce(self) -> bool:
        """Say whether the images can be decoded at a part of their size."""
        return self._find().can_reduce

    def _find(self) -> ImageFrames:
        return ImageFrames.find(self.path, count_images(self.path))


def can_reduce(source: Source) -> bool:
    """Say whether pictures of a source can be had at a part of their size, as in tests."""
    return isinstance(source, ImageFolder) and source.can_reduce


def count_images(folder: Path) -> int:
    """Count the images that lie directly in a folder."""
    return sum(
        path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        for path in folder.iterdir()
    )


def stated_rate(stream: av.VideoStream) -> float | None:
    """Return the mean frame rate of a stream as its file states it; None where it is absurd."""
    for stated in (stream.average_rate, stream.guessed_rate):
        if stated and 0.1 <= stated <= 1000:
            return float(stated)
    return None


def in_order(decoded: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Put the time stamps of neighbours in order, which some files with B-frames exchange.

    The frames themselves come in order. A stamp that goes back behind the last two frames is left
    as it is.
    """
    held: av.VideoFrame | None = None
    before = -math.inf
    try:
        for frame in decoded:
            if held is not None:
                _exchange(held, frame, before)
                before = before if held.pts is None else held.pts
                yield held
            held = frame
    except InputError:
        if held is not None:  # it was decoded before the fault
            yield held
        raise
    if held is not None:
        yield held


def _exchange(one: av.VideoFrame, two: av.VideoFrame, before: float) -> None:
    if one.pts is None or two.pts is None or one.time_base != two.time_base:
        return
    if before < two.pts < one.pts:
        one.pts, two.pts = two.pts, one.pts


def timed(decoded: Iterator[av.VideoFrame], rate: float) -> Iterator[Frame]:
    """Give decoded frames their seconds since the first.

    A frame without a time stamp, or with one that is not later than that of the frame before,
    comes one frame after that. (Each holds its pixels: use it before the next is taken.)

    Args:
        decoded: in order of presentation.
        rate: frames per second where time stamps do not say it.
    """
    first: float | None = None
    before = 0.0
    for number, frame in enumerate(decoded):
        stamp = None if frame.time is None else float(frame.time)
        if first is None and stamp is not None:
            first = stamp - (before + 1 / rate if number else 0.0)
        seconds = before + 1 / rate if stamp is None or first is None else stamp - first
        if number == 0:
            seconds = 0.0
        elif seconds <= before:
            seconds = before + 1 / rate
        before = seconds
        yield Frame(seconds, shown_size(frame), partial(upright_rgb, frame))


def check_size(frame: Frame, size: tuple[int, int], name: str, number: int) -> None:
    """Make sure that a frame is as large as the first.

    Raises:
        InputError: it is not.
    """
    if frame.size != size:
        raise InputError(
            f"{name} changes from {size[0]}x{size[1]} to {frame.size[0]}x{frame.size[1]} pixels at "
            f"frame {number}: cut it there, or export it at one size"
        )
