"""Frames of a video file, decoded with PyAV."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """A part of a video as the frames of a clip: a `FrameSource`.

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
        """Decode frames (T,) as (T, H, W, 3) uint8 RGB."""
        raise NotImplementedError

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all frames in order, up to `most` at a time."""
        raise NotImplementedError
