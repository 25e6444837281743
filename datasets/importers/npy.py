"""Keypoint arrays: a tree with one .npy for each frame, or one .npz for each clip.

- `<clip>/<frame>.npy` holds (17, 2), (17, 3), or (M, 17, 2) and (M, 17, 3) for several people, in
  pixels. A frame without a file is one with nobody, and so is one of zeros.
- `<clip>.npz` holds `keypoints` (N, 17, 2 or 3) or (N, M, 17, 2 or 3) for all N frames of a clip,
  and, if known, `width` and `height` of the frames.

Larger layouts that begin with COCO-17, and OpenPose's, are read as well, see `to_coco17`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from datasets.arrays import (
    Fault,
    Shape,
    blaming,
    open_archive,
    open_array,
    read_array,
    read_member,
    unless,
)
from datasets.importers.names import FrameTree, clip_aliases, walk_files
from datasets.importers.people import (
    MOST_PEOPLE,
    REMEDY,
    People,
    Row,
    Span,
    gather,
    gather_rows,
    regular_file,
)
from errors import InputError

_MOST_FRAME_BYTES = 16 * 2**20
_MOST_CLIP_BYTES = 512 * 2**20
_MOST_PIXELS = 10**6


def _is_frame(shape: Shape) -> bool:
    is_pose = 2 <= len(shape) <= 3 and shape[-1] in (2, 3)
    return is_pose and shape[0] <= 1000 and 0 < shape[-2] <= 1000


def _is_clip(shape: Shape) -> bool:
    is_crowd = len(shape) == 4 and not 1 <= shape[1] <= MOST_PEOPLE
    is_pose = 3 <= len(shape) <= 4 and shape[-1] in (2, 3) and shape[-2] > 0
    return is_pose and shape[0] > 0 and not is_crowd


@dataclass(slots=True)
class NpyFrames(FrameTree):
    """A tree with one .npy for each frame: a `KeypointSource`."""

    suffix: ClassVar[str] = ".npy"

    def load(self, key: str) -> People:
        """Read the people of a clip.

        Raises:
            InputError: a file cannot be read, or holds other joints than those before.
        """
        rows: list[Row] = []
        for number, path in sorted(self.groups[key].files.items()):
            regular_file(path, _MOST_FRAME_BYTES)
            with blaming(path, REMEDY), open_array(path) as stream:
                array = read_array(stream, unless(_is_frame, "(17, 2), (17, 3) or (M, 17, 3)"))
            for person in array.reshape(-1, *array.shape[-2:]):
                if rows and person.shape != rows[0][1].shape:
                    raise InputError(
                        f"{path} has poses of {person.shape}, frames before {rows[0][1].shape}: "
                        "export all frames alike"
                    )
                rows.append((number, person, -1))
        return gather_rows(rows, key)


@dataclass(slots=True)
class NpzClips:
    """A tree with one .npz for each clip: a `KeypointSource`."""

    paths: dict[str, Path]
    aliases: dict[str, tuple[str, ...]]
    findings: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, source: Path) -> "NpzClips":
        """Find the clips of a tree, or take the one file.

        Raises:
            InputError: there is no .npz.
        """
        base = source if source.is_dir() else source.parent
        paths = walk_files(source, ".npz") if source.is_dir() else [source]
        names = {str(path): path.relative_to(base).with_suffix("").as_posix() for path in paths}
        return cls(
            {str(path): path for path in paths},
            {key: clip_aliases(name, "") for key, name in names.items()},
        )

    def span(self, key: str) -> Span:
        """Return how many frames the array has."""
        array, _ = self._arrays(key)
        return Span(0, len(array) - 1, is_array=True)

    def load(self, key: str) -> People:
        """Read the people of a clip; the slots of its array stay who they are."""
        array, size = self._arrays(key)
        return people_of_array(array, key, size)

    def _arrays(self, key: str) -> tuple[np.ndarray, tuple[int, int] | None]:
        path = self.paths[key]
        regular_file(path, _MOST_CLIP_BYTES)
        with blaming(path, REMEDY), open_archive(path) as archive:
            is_clip = unless(_is_clip, "(N, M, 17, 3) in keypoints")
            array = read_member(archive, "keypoints", is_clip)
            if array is None:
                raise Fault("has no array 'keypoints'")
            is_number = unless(lambda shape: shape in ((), (1,)), "one number for a side")
            sides = [read_member(archive, name, is_number) for name in ("width", "height")]
        if any(side is None for side in sides):
            return array, None
        width, height = (float(side.reshape(())) for side in sides if side is not None)
        if not (1 <= width <= _MOST_PIXELS and 1 <= height <= _MOST_PIXELS):
            raise InputError(f"{path} is for frames of {width}x{height} pixels: {REMEDY}")
        return array, (int(width), int(height))


def people_of_array(array: np.ndarray, place: str, size: tuple[int, int] | None) -> People:
    """Return the people of an array of all frames.

    Args:
        array: (N, V, 2 or 3) or (N, M, V, 2 or 3); slot m is one person through the clip.
        place: for messages.
        size: (width, height) of the frames, if known.
    """
    slots = array.reshape(len(array), -1, *array.shape[-2:])
    N, M = slots.shape[:2]
    return gather(
        slots.reshape(N * M, *slots.shape[2:]),
        place,
        frames=np.repeat(np.arange(N), M),
        tracks=np.tile(np.arange(M), N),
        in_slots=True,
        size=size,
    )
