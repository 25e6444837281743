"""Frames of a video file, decoded with PyAV."""

import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np

from datasets.video_files import (
    decode_frames,
    frames_from,
    open_video,
    shown_size,
    upright_rgb,
)
from errors import InputError

# Seconds to seek before the first frame of a clip; then the video is decoded from its beginning.
_STEPS_BACK = (0.0, 2.0, 10.0)
_REMEDY = "prepare the data set again"


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """A part of a video as the frames of a clip: a `FrameSource`.

    Frame i is the i-th frame in order of presentation, counted from `first_frame`. The file is
    opened for each call, so that a copy in another process shares nothing with this one.

    Attributes:
        path: the video.
        count: frames, N.
        first_frame: 0-based number of the first of them in the video.
        start_pts: its time stamp, to seek to; None when the video is decoded from its beginning.
        shown: (width, height) of the frames as they are shown.
    """

    path: Path
    count: int
    first_frame: int
    start_pts: int | None
    shown: tuple[int, int]

    @property
    def place(self) -> Path:
        """Return the video."""
        return self.path

    @property
    def found(self) -> int:
        """Return N."""
        return self.count

    @property
    def first(self) -> int:
        """Return 0: frames of a video count from there."""
        return 0

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the frames as they are shown."""
        return self.shown

    def load(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Decode frames (T,) as (T, H, W, 3) uint8 RGB; in any order, with repeats.

        Nothing is decoded after the last of them.

        Raises:
            InputError: the video cannot be read that far, or a frame is of another size.
            IndexError: the clip has no such frame.
        """
        places: dict[int, list[int]] = {}
        for place, index in enumerate(indices):
            if not 0 <= index < self.count:
                raise IndexError(f"{self.path} has frames 0 to {self.count - 1}, not {index}")
            places.setdefault(int(index), []).append(place)
        width, height = size
        images = np.empty((len(indices), height, width, 3), np.uint8)
        with closing(self.decode(max(places, default=-1) + 1)) as frames:
            for index, frame in enumerate(frames):
                if index in places:
                    images[places[index]] = self._picture(index, frame, size)
        return images

    @property
    def can_reduce(self) -> bool:
        """Return false: a decoder of videos gives whole frames."""
        return False

    def stream(
        self, indices: np.ndarray, size: tuple[int, int], reduction: int = 1
    ) -> Iterator[np.ndarray]:
        """Decode frames, ascending and each once, one after the other: (H, W, 3) uint8 RGB.

        Raises:
            InputError: as `load`.
            IndexError: the clip has no such frame.
            ValueError: `reduction` is not 1, or the indices are not ascending.
        """
        if reduction != 1:
            raise ValueError(f"{self.path} gives its frames at their full size alone")
        wanted = [int(index) for index in indices]
        if any(one >= other for one, other in pairwise(wanted)):
            raise ValueError(f"frames of {self.path} are streamed in order, asked for {wanted}")
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self.count:
            raise IndexError(f"{self.path} has frames 0 to {self.count - 1}, asked for {wanted}")
        left = iter(wanted)
        following = next(left, -1)
        with closing(self.decode(max(wanted, default=-1) + 1)) as frames:
            for index, frame in enumerate(frames):
                if index == following:
                    yield self._picture(index, frame, size)
                    following = next(left, -1)

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all frames in order, up to `most` at a time: (n, H, W, 3) uint8 RGB.

        Raises:
            InputError: as `load`.
        """
        with closing(self.decode(self.count)) as frames:
            pictures = (self._picture(i, frame, size) for i, frame in enumerate(frames))
            while block := list(islice(pictures, most)):
                yield np.stack(block)

    def checksums(self) -> list[int]:
        """Decode all frames and return their check sums; fewer than N where that fails."""
        sums: list[int] = []
        try:
            with closing(self.decode(self.count)) as frames:
                sums.extend(checksum(frame) for frame in frames)
        except InputError:
            pass
        return sums

    def decode(self, count: int) -> Generator[av.VideoFrame, None, None]:
        """Yield the first `count` frames as they are decoded.

        Raises:
            InputError: the video cannot be read that far.
        """
        if count < 1:
            return
        number = 0
        try:
            with closing(self._from_first()) as frames:
                for frame in islice(frames, count):
                    yield frame
                    number += 1
        except InputError as error:
            raise InputError(f"{error} (wanted: frame {self.first_frame + number})") from None
        if number < count:
            raise InputError(
                f"{self.path} ends before frame {self.first_frame + number}, its clip goes from "
                f"frame {self.first_frame} to {self.first_frame + self.count - 1}: {_REMEDY}"
            )

    def _from_first(self) -> Generator[av.VideoFrame, None, None]:
        for back in () if self.start_pts is None else _STEPS_BACK:
            with open_video(self.path) as video:
                frames = frames_from(video, self.start_pts or 0, back)
                if frames is not None:
                    yield from frames
                    return
        with open_video(self.path) as video:
            yield from islice(decode_frames(video), self.first_frame, None)

    def _picture(self, index: int, frame: av.VideoFrame, size: tuple[int, int]) -> np.ndarray:
        if shown_size(frame) != size:
            width, height = shown_size(frame)
            raise InputError(
                f"{self.path} is {width}x{height} pixels at frame {self.first_frame + index}, the "
                f"clip {size[0]}x{size[1]}: {_REMEDY}"
            )
        return upright_rgb(frame)


def checksum(frame: av.VideoFrame) -> int:
    """Return a check sum of every fourth row of the first plane, as it was decoded."""
    plane = frame.planes[0]
    if plane.line_size <= 0:  # stored upside down: its memory begins elsewhere
        return zlib.crc32(frame.to_ndarray(format="gray").tobytes())
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return zlib.crc32(rows[::4, : plane.width].tobytes())
