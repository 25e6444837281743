"""One clip, checked from its frames to its keypoints: what a worker process does."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.check.duplicates import Signature
from datasets.check.findings import Finding, Tally, without_remedy
from datasets.check.frames import check_frames
from datasets.check.keypoints import PoseFacts, check_boxes, check_keypoints
from datasets.clip_table import ClipRow
from datasets.records import ClipRecord
from ops.skeleton import COCO17, SkeletonLayout


@dataclass(frozen=True, slots=True)
class ClipTask:
    """What to check, and how.

    Attributes:
        root: folder of the data set.
        record: the clip.
        row: its row of `clips.csv`, None without one.
        decode: decode every frame.
        has_frames: the data set has frames; one of skeletons alone has none.
        has_poses: the data set has keypoints.
        layout: of the keypoints.
    """

    root: Path
    record: ClipRecord
    row: ClipRow | None
    decode: bool
    has_frames: bool
    has_poses: bool
    layout: SkeletonLayout = COCO17


@dataclass(frozen=True, slots=True)
class ClipResult:
    """What was found out about a clip; small, as all of them are kept.

    Attributes:
        name: of the clip.
        findings: what is wrong.
        size: (width, height) of most frames, None if not known.
        frames: how many are there.
        sha256: of all frame files; "" if not known.
        keys: (N,) uint64, one for the content of each frame file.
        signature: what it looks like, None if not known.
        poses: what is known of its keypoints, None without any.
    """

    name: str
    findings: tuple[Finding, ...]
    size: tuple[int, int] | None
    frames: int
    sha256: str
    keys: np.ndarray
    signature: Signature | None
    poses: PoseFacts | None


def check_clip(task: ClipTask) -> ClipResult:
    """Check one clip."""
    record, tally = task.record, Tally(task.record.name)
    table: Mapping[str, ClipRow] = {} if task.row is None else {record.name: task.row}
    facts = check_frames(task.root, record, table, task.decode, tally, task.has_frames)
    poses = None
    if task.has_poses:
        poses = check_keypoints(
            task.root, record, facts.images, facts.size, task.layout, tally, task.row
        )
    check_boxes(task.root, record, tally)
    return ClipResult(
        record.name,
        tuple(tally),
        facts.size,
        facts.count,
        facts.sha256,
        facts.keys,
        facts.signature,
        poses,
    )


def check_clips(tasks: list[ClipTask]) -> list[ClipResult]:
    """Check several clips; what no check foresaw is a finding too, and the others go on."""
    return [_check_anyhow(task) for task in tasks]


def _check_anyhow(task: ClipTask) -> ClipResult:
    try:
        return check_clip(task)
    except (OSError, ValueError, MemoryError) as error:
        reason = without_remedy(" ".join(str(error).split()) or type(error).__name__)
        name = task.record.name
        path = str(task.root / "frames" / name)
        finding = Finding("clip_unusable", name, path, f"cannot be checked ({reason:.200})")
        return ClipResult(name, (finding,), None, 0, "", np.empty(0, np.uint64), None, None)
