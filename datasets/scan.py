"""Find the files of every clip of a list, and check them before anything is trained."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.clip_table import ClipRow, load_table
from datasets.frames import FrameSource
from datasets.poses import REMEDY, PoseSource, find_poses
from datasets.records import ClipRecord
from datasets.sources import find_frames
from errors import InputError
from ops.skeleton import COCO17, SkeletonLayout

# What happens to a clip without a keypoint file.
MissingPose = Literal["error", "skip", "zero", "estimate"]
_OUTCOMES = {
    "skip": "dropped (--missing_pose skip)",
    "zero": "used with every joint undetected (--missing_pose zero)",
    "estimate": "estimated while loading (--pose_weights)",
}

# Where nobody knows the size of the frames: keypoints that are normalised do not depend on it.
NOMINAL_SIZE = (640, 360)
# Keypoints of 12,000 clips of FR-FS; what is beyond is read again for every sample.
_MEMORY_BYTES = 256 * 2**20
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that was found whole on disk.

    Attributes:
        record: its line in the list.
        images: its frames, None where the input has none.
        poses: its keypoints, None where the input has none or the clip lacks them.
        size: (width, height) that keypoints are in: that of the frames where there are any.
        keypoints: (N, M, V, 3), None if they are to be read from `poses`.
    """

    record: ClipRecord
    images: FrameSource | None
    poses: PoseSource | None
    size: tuple[int, int]
    keypoints: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class PoseReport:
    """How many clips lacked keypoints, and what became of them."""

    clips: int
    missing: int
    policy: MissingPose

    def text(self) -> str:
        """Return one line for the end of a run; empty when nothing was missing."""
        if not self.missing:
            return ""
        outcome = _OUTCOMES[self.policy]
        return f"{self.missing} of {self.clips} clips had no keypoint file: {outcome}"


def find_clips(
    root: Path,
    records: Sequence[ClipRecord],
    *,
    has_frames: bool,
    has_poses: bool,
    in_pixels: bool = False,
    missing_pose: MissingPose = "error",
    layout: SkeletonLayout = COCO17,
) -> tuple[tuple[Clip, ...], PoseReport]:
    """Find the frames and keypoints of all clips; keypoints are read and checked.

    Args:
        root: folder of the data set, with frames/ and poses/.
        records: its list.
        has_frames: look for frames; without, no image is opened.
        has_poses: look for keypoints.
        in_pixels: keypoints are used in pixels, so the size of the frames must be known.
        missing_pose: what to do with a clip without keypoints.
        layout: of the keypoints.

    Raises:
        InputError: a clip is not as its record says; keypoints are missing under "error", or for
            every clip under "skip".
    """
    find = partial(
        _find_clip,
        root,
        table=load_table(root),
        has_frames=has_frames,
        has_poses=has_poses,
        in_pixels=in_pixels,
        layout=layout,
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        found = _within_memory(pool.map(find, records))
    lacking = [clip for clip in found if has_poses and clip.poses is None]
    if lacking and missing_pose == "error":
        raise InputError(
            f"{len(lacking)} of {len(found)} clips have no keypoints: neither "
            f"{root / 'poses' / lacking[0].record.name}.npz nor .npy files beside its frames are "
            "there; run preprocess_pose.py, or choose --missing_pose skip or zero"
        )
    if missing_pose == "skip":
        found = [clip for clip in found if not has_poses or clip.poses is not None]
    if not found:
        raise InputError(
            f"{root} has no keypoints for any clip of the list: run preprocess_pose.py, or choose "
            "--missing_pose zero"
        )
    return tuple(found), PoseReport(len(records), len(lacking), missing_pose)


def _find_clip(
    root: Path,
    record: ClipRecord,
    table: Mapping[str, ClipRow],
    has_frames: bool,
    has_poses: bool,
    in_pixels: bool,
    layout: SkeletonLayout,
) -> Clip:
    images = find_frames(root, record, table) if has_frames else None
    size = images.size() if images else None
    row = table.get(record.name)
    source = find_poses(root, record, images, layout, row) if has_poses else None
    if source is None:
        return Clip(record, images, None, size or NOMINAL_SIZE)
    poses = source.load()
    size = size or poses.size
    if size is None and in_pixels:
        size = find_frames(root, record, table).size()
    size = size or NOMINAL_SIZE
    if not poses.fits(size) and poses.size is not None:
        raise InputError(
            f"{source.path} is for frames of {poses.size[0]}x{poses.size[1]} pixels, the clip has "
            f"{size[0]}x{size[1]}: {REMEDY}"
        )
    return Clip(record, images, source, size, poses.keypoints_at(size))


def _within_memory(clips: Iterable[Clip]) -> list[Clip]:
    """Let the first clips keep their keypoints, the others read them when needed."""
    kept, total = [], 0
    for clip in clips:
        total += 0 if clip.keypoints is None else clip.keypoints.nbytes
        kept.append(clip if total <= _MEMORY_BYTES else replace(clip, keypoints=None))
    return kept
