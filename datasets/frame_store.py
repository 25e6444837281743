"""One file of the frame cache: the frames of a clip, decoded and resized, a check sum for each.

A file is a header of one page, the frames as they lie in memory, a CRC-32 of each, and the CRC-32
of these. Header and length follow from the clip: a file that has others is not of it.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from errors import InputError
from files import replacing

# Another number when what is stored for the same clip changes: older files are then made again.
FORMAT = 1
SUFFIX = ".frames"
_PAGE = 4096
_LONGEST_NAME = 200
_SUM = np.dtype("<u4")
# Each open file keeps a descriptor, of which a process may have some hundred.
_MOST_OPEN = 64


class DamagedError(Exception):
    """A file of the cache does not hold what was written."""


@dataclass(frozen=True, slots=True)
class StoredClip:
    """The file that holds, or will hold, the frames of a clip.

    Attributes:
        path: of the file.
        clip: its name, for people who look into the file.
        key: what decides the pixels, as a hash.
        count: frames, N.
        size: (width, height) of the stored frames.
    """

    path: Path
    clip: str
    key: str
    count: int
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (N, H, W, 3)."""
        return (self.count, self.size[1], self.size[0], 3)

    @property
    def num_bytes(self) -> int:
        """Return the length of the file."""
        width, height = self.size
        return _PAGE + self.count * (width * height * 3 + _SUM.itemsize) + _SUM.itemsize

    @property
    def set_aside(self) -> Path:
        """Return what the file is called once it was found damaged."""
        return self.path.with_suffix(".damaged")

    def is_there(self) -> bool:
        """Say whether the file is there at its full length and belongs to the clip as it is now.

        Pixels are not looked at: each frame is checked when it is first read.
        """
        try:
            if self.path.stat().st_size != self.num_bytes:
                return False
            with self.path.open("rb") as file:
                return file.read(_PAGE) == self._header()
        except OSError:
            return False

    def write(self, blocks: Iterable[np.ndarray]) -> None:
        """Write the frames, whole or not at all.

        Args:
            blocks: of (n, H, W, 3) uint8, N frames in all.

        Raises:
            InputError: there are more or fewer.
            OSError: the file cannot be written.
        """
        sums: list[int] = []
        with replacing(self.path) as file:
            file.write(self._header())
            for block in blocks:
                assert block.shape[1:] == self.shape[1:], (block.shape, self.shape)
                assert block.dtype == np.uint8
                for frame in np.ascontiguousarray(block):
                    sums.append(zlib.crc32(frame))
                    file.write(frame)
            if len(sums) != self.count:
                raise InputError(
                    f"clip {self.clip} gave {len(sums)} frames, the list says {self.count}: "
                    "prepare the data set again"
                )
            table = np.array(sums, _SUM).tobytes()
            file.write(table)
            file.write(np.array(zlib.crc32(table), _SUM).tobytes())

    def _header(self) -> bytes:
        text = json.dumps(
            {
                "format": f"frame cache {FORMAT}",
                "clip": self.clip[:_LONGEST_NAME],
                "key": self.key,
                "shape": self.shape,
                "dtype": "uint8",
            }
        )
        return f"{text}\n".encode().ljust(_PAGE)


@dataclass(frozen=True, slots=True)
class MappedClip:
    """A file of the cache in memory: what is read of it, the system keeps as long as there is room.

    Attributes:
        frames: (N, H, W, 3) uint8. Writing to it changes this process's copy, not the file.
        sums: (N,) check sums.
    """

    frames: np.ndarray
    sums: np.ndarray

    def is_sound(self, index: int) -> bool:
        """Say whether a frame is as it was written."""
        return zlib.crc32(self.frames[index]) == int(self.sums[index])


@lru_cache(maxsize=_MOST_OPEN)
def map_clip(stored: StoredClip) -> MappedClip:
    """Map a file into memory; those used last stay mapped.

    Raises:
        OSError: it cannot be read, or is not there as the file of this clip.
        DamagedError: its table of check sums is not as it should be.
    """
    if not stored.is_there():
        raise FileNotFoundError(stored.path)
    end = stored.num_bytes - (stored.count + 1) * _SUM.itemsize
    # Copy-on-write: torch takes no array that cannot be written to.
    frames = np.memmap(stored.path, np.uint8, mode="c", offset=_PAGE, shape=stored.shape)
    table = np.fromfile(stored.path, _SUM, offset=end)
    if len(table) != stored.count + 1 or zlib.crc32(table[:-1].tobytes()) != int(table[-1]):
        raise DamagedError(f"{stored.path} has a damaged table of check sums")
    return MappedClip(frames.view(np.ndarray), table[:-1])
