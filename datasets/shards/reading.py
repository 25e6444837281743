"""Frames and keypoints of a clip out of a shard, bit for bit those that its files held."""

import io
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from datasets.images import decode_bytes
from datasets.poses import PoseArchive, Poses
from datasets.shards.fetching import ShardStore
from datasets.shards.index import KINDS, ShardIndex
from datasets.videos import VideoFrames
from errors import InputError


@dataclass(frozen=True, eq=False)
class Packed:
    """The shards of a data set.

    Attributes:
        index: what they hold.
        store: where their bytes come from.
    """

    index: ShardIndex
    store: ShardStore

    def place(self, row: int) -> Path:
        """Return what to call a clip in messages: its shard, then its name."""
        return self.store.path(self.index.value("shard", row)) / self.index.name(row)

    def members(self, row: int, numbers: Sequence[int]) -> list[bytes]:
        """Return the bytes of some members of a clip.

        Raises:
            InputError: the shard cannot be read.
        """
        spans = [(int(start), int(length)) for start, length in self.index.spans(row)[numbers]]
        return self.store.read(self.index.value("shard", row), spans)

    @contextmanager
    def blaming(self, row: int) -> Iterator[None]:
        """Give errors of the members of a clip the way out that shards have."""
        try:
            yield
        except InputError as error:
            fault = str(error).rpartition(": ")[0] or str(error)
            way = self.store.remedy(self.index.value("shard", row))
            raise InputError(f"{fault}: {way}") from None


@dataclass(frozen=True, slots=True)
class ShardImages:
    """A clip whose frames are images in a shard: a `FrameSource`.

    Attributes:
        packed: the shards.
        row: of the clip in their index.
        count: frames, N.
    """

    packed: Packed
    row: int
    count: int

    @property
    def place(self) -> Path:
        """Return shard and clip."""
        return self.packed.place(self.row)

    @property
    def found(self) -> int:
        """Return how many images the clip's folder held."""
        return self.packed.index.value("found", self.row)

    @property
    def first(self) -> int:
        """Return the number that its first image had."""
        return self.packed.index.value("first", self.row)

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the frames."""
        return size_of(self.packed.index, self.row)

    @property
    def can_reduce(self) -> bool:
        """Say whether the images are JPEGs."""
        return KINDS[self.packed.index.value("kind", self.row)] == "jpg"

    def load(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Decode frames (T,) as (T, H, W, 3) uint8 RGB.

        Raises:
            InputError: a frame cannot be read, or is of another size.
            IndexError: the clip has no such frame.
        """
        width, height = size
        frames = np.empty((len(indices), height, width, 3), np.uint8)
        for place, frame in enumerate(self.stream(indices, size)):
            frames[place] = frame
        return frames

    def stream(
        self, indices: np.ndarray, size: tuple[int, int], reduction: int = 1
    ) -> Iterator[np.ndarray]:
        """Decode frames one after the other, at 1/`reduction` of their size, rounded up.

        Raises:
            InputError, IndexError: as `load`.
        """
        numbers = [int(index) for index in indices]
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.count:
            raise IndexError(f"{self.place} has frames 0 to {self.count - 1}, asked for {numbers}")
        images = self.packed.members(self.row, [1 + number for number in numbers])
        for number, data in zip(numbers, images, strict=True):
            with self.packed.blaming(self.row):
                frame = decode_bytes(_FrameName(self, number), data, reduction, size)
            yield frame

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all frames in order, up to `most` at a time."""
        for start in range(0, self.count, most):
            yield self.load(np.arange(start, min(start + most, self.count)), size)


@dataclass(frozen=True, slots=True)
class _FrameName:
    """What messages call a frame: text that is made only when it is needed."""

    images: ShardImages
    number: int

    def __str__(self) -> str:
        return f"{self.images.place}, frame {self.images.first + self.number}"


@dataclass(frozen=True, slots=True)
class ShardVideo:
    """A clip that is a video in a shard: a `FrameSource`.

    Attributes:
        packed: the shards.
        row: of the clip in their index.
        count: frames, N.
    """

    packed: Packed
    row: int
    count: int

    @property
    def place(self) -> Path:
        """Return shard and clip."""
        return self.packed.place(self.row)

    @property
    def found(self) -> int:
        """Return N."""
        return self.count

    @property
    def first(self) -> int:
        """Return 0: frames of a video count from there."""
        return 0

    @property
    def can_reduce(self) -> bool:
        """Return false: a decoder of videos gives whole frames."""
        return False

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the frames as they are shown."""
        return size_of(self.packed.index, self.row)

    def load(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Decode frames (T,) as (T, H, W, 3) uint8 RGB; see `VideoFrames.load`."""
        with self._opened() as video:
            return video.load(indices, size)

    def stream(
        self, indices: np.ndarray, size: tuple[int, int], reduction: int = 1
    ) -> Iterator[np.ndarray]:
        """Decode frames, ascending and each once; see `VideoFrames.stream`."""
        with (
            self._opened() as video,
            closing(cast(Generator, video.stream(indices, size, reduction))) as frames,
        ):
            yield from frames

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all frames in order, up to `most` at a time."""
        with self._opened() as video, closing(cast(Generator, video.blocks(size, most))) as blocks:
            yield from blocks

    @contextmanager
    def _opened(self) -> Iterator[VideoFrames]:
        (data,) = self.packed.members(self.row, [1])
        first = self.packed.index.value("first_frame", self.row)
        with self.packed.blaming(self.row), as_file(data, self.place) as path:
            yield VideoFrames(path, self.count, first, None, self.size())


@contextmanager
def as_file(data: bytes, place: Path | None = None) -> Iterator[Path]:
    """Give bytes a path while they are used: readers of files have their guards there.

    Args:
        data: content of the file; on Linux it stays in memory.
        place: what messages call it.
    """
    with _written(data) as path:
        try:
            yield path
        except InputError as error:
            if place is None:
                raise
            raise InputError(str(error).replace(str(path), str(place))) from None


@contextmanager
def _written(data: bytes) -> Iterator[Path]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("clip")
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 - it has no path to open
            _write_all(file, data)
            yield Path(f"/proc/self/fd/{descriptor}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        path.write_bytes(data)
        yield path


def _write_all(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@dataclass(frozen=True, slots=True)
class ShardPoses:
    """The keypoints of a clip in a shard, read when they are needed: as a `PoseArchive`.

    Attributes:
        packed: the shards.
        row: of the clip in their index.
        num_frames: of the clip, N.
        num_joints: V.
    """

    packed: Packed
    row: int
    num_frames: int
    num_joints: int

    @property
    def path(self) -> Path:
        """Return shard and clip, for messages."""
        return self.packed.place(self.row)

    def load(self) -> Poses:
        """Read the keypoints and check every number in them.

        Raises:
            InputError: they cannot be read, or are not as they should be.
        """
        (data,) = self.packed.members(self.row, [-1])
        found = self.packed.index.value("found", self.row)
        with self.packed.blaming(self.row), as_file(data, self.path) as path:
            return PoseArchive(path, self.num_frames, found, self.num_joints).load()


def size_of(index: ShardIndex, row: int) -> tuple[int, int]:
    """Return (width, height) of the frames of a clip."""
    return index.value("width", row), index.value("height", row)
