"""Frames and keypoints of a clip whose frames lie in the frame cache."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.transforms.v2 import functional as F

from datasets.frame_store import DamagedError, StoredClip, map_clip
from datasets.frames import FrameSource
from datasets.poses import Poses, PoseSource


class CachedFrames:
    """Stored frames of a clip: a `FrameSource`.

    A frame is checked when it is first read. One that is damaged, or whose file has gone, is made
    again from the clip itself: slower, with the same pixels. A damaged file is set aside, so that
    the next run makes it anew.

    Args:
        source: the clip itself.
        full_size: (width, height) of its frames.
        stored: its file in the cache.
    """

    def __init__(self, source: FrameSource, full_size: tuple[int, int], stored: StoredClip) -> None:
        self.source = source
        self.stored = stored
        self._full_size = full_size
        self._is_sound = bytearray(stored.count)

    @property
    def place(self) -> Path:
        """Return where the clip itself lies, for messages."""
        return self.source.place

    @property
    def count(self) -> int:
        """Return the number of frames, N."""
        return self.source.count

    @property
    def found(self) -> int:
        """Return how many frames the clip itself has: N or more."""
        return self.source.found

    @property
    def first(self) -> int:
        """Return the number that the first frame has on disk."""
        return self.source.first

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the stored frames."""
        return self.stored.size

    def frame(self, index: int) -> np.ndarray:
        """Return frame `index`, 0-based, as (H, W, 3) uint8 RGB, without a copy: only read it.

        Raises:
            InputError: it is not in the cache and cannot be read from the clip.
            IndexError: the clip has no such frame.
        """
        view = self._view(index)
        return self._remake(np.array([index]))[0] if view is None else view

    def load(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return frames (T,) as (T, H, W, 3) uint8 RGB, a copy.

        Raises:
            InputError: a frame is not in the cache and cannot be read from the clip.
            IndexError: the clip has no such frame.
        """
        self._check_size(size)
        frames = np.empty((len(indices), *self.stored.shape[1:]), np.uint8)
        lost = []
        for place, index in enumerate(indices):
            view = self._view(int(index))
            if view is None:
                lost.append(place)
            else:
                frames[place] = view
        if lost:
            frames[lost] = self._remake(np.asarray(indices)[lost])
        return frames

    @property
    def can_reduce(self) -> bool:
        """Return false: stored frames have the size that they have."""
        return False

    def stream(
        self, indices: np.ndarray, size: tuple[int, int], reduction: int = 1
    ) -> Iterator[np.ndarray]:
        """Yield frames one after the other as `frame` gives them: cropping copies the crop alone.

        Raises:
            InputError, IndexError: as `load`.
            ValueError: `reduction` is not 1.
        """
        self._check_size(size)
        if reduction != 1:
            raise ValueError(f"stored frames of {self.place} have one size")
        return (self.frame(int(index)) for index in indices)

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all frames in order, up to `most` at a time."""
        for start in range(0, self.count, most):
            yield self.load(np.arange(start, min(start + most, self.count)), size)

    def _check_size(self, size: tuple[int, int]) -> None:
        if size != self.stored.size:
            raise ValueError(f"stored frames are {self.stored.size}, asked for {size}")

    def _view(self, index: int) -> np.ndarray | None:
        """Return a stored frame, None where there is none to be had."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.place} has frames 0 to {self.count - 1}, asked for {index}")
        try:
            mapped = map_clip(self.stored)
        except OSError:
            return None
        except DamagedError:
            self._set_aside()
            return None
        if not self._is_sound[index]:
            if not mapped.is_sound(index):
                self._set_aside()
                return None
            self._is_sound[index] = True
        return mapped.frames[index]

    def _set_aside(self) -> None:
        # Where it cannot be renamed, as in a cache that is only read, it stays and is passed over.
        with suppress(OSError):
            self.stored.path.replace(self.stored.set_aside)

    def _remake(self, indices: np.ndarray) -> np.ndarray:
        return shrink(self.source.load(indices, self._full_size), self.stored.size)


def shrink(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (T, H, W, 3) uint8 frames to `size` (width, height), antialiased."""
    width, height = size
    if frames.shape[1:3] == (height, width):
        return frames
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    video = F.resize(video, [height, width], antialias=True)
    return np.ascontiguousarray(video.permute(0, 2, 3, 1).numpy())


@dataclass(frozen=True, slots=True)
class PosesOfSize:
    """Keypoints of a clip whose frames had `size` (width, height) before they were stored.

    Files need not say the size of their frames: pixels then could not be scaled.
    """

    source: PoseSource
    size: tuple[int, int]

    @property
    def path(self) -> Path:
        """Return where the keypoints lie, for messages."""
        return self.source.path

    def load(self) -> Poses:
        """Read them; raises as the source does."""
        return Poses(self.source.load().keypoints_at(self.size), self.size)
