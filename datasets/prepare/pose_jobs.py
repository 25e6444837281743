"""Which clips of a data set need keypoints, and their frames, decoded clip after clip."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.arrays import blaming, open_array, read_array
from datasets.catalogue import DatasetRow
from datasets.clip_table import ClipRow
from datasets.frames import FrameSource, ImageFrames
from datasets.pose_files import has_frame_poses, read_notes
from datasets.poses import PoseArchive, find_poses
from datasets.records import ClipRecord
from datasets.sources import find_frames
from errors import InputError

_REMEDY = "write it again, remove it, or choose --main_athlete track"


@dataclass(frozen=True, slots=True)
class PoseJob:
    """A clip that needs keypoints.

    Attributes:
        name: of the clip.
        images: its frames.
        boxes: file with the place of the main athlete; it need not be there.
        identity: of its frames, to keep with the keypoints.
    """

    name: str
    images: FrameSource
    boxes: Path
    identity: str = ""


@dataclass(frozen=True, slots=True)
class PoseWishes:
    """What a run is to do with clips that have keypoints.

    Attributes:
        notes: the options that decide keypoints, to compare with those of existing files.
        overwrite: estimate anew.
        per_frame: the published files beside the frames are wanted too.
    """

    notes: Mapping[str, str]
    overwrite: bool = False
    per_frame: bool = False


@dataclass(slots=True)
class PosePlan:
    """What there is to do.

    Attributes:
        todo: clips to estimate.
        frames_only: clips with keypoints whose published files are missing.
        done: number of clips that have what they need.
        others: clip -> how its keypoints were made with other options than now.
        redone: clip -> what is wrong with the keypoints that it has.
        damaged: clip -> why its frames cannot be used.
    """

    todo: list[PoseJob] = field(default_factory=list)
    frames_only: list[tuple[PoseJob, PoseArchive]] = field(default_factory=list)
    done: int = 0
    others: dict[str, str] = field(default_factory=dict)
    redone: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)


def plan_poses(
    root: Path,
    row: DatasetRow,
    records: Iterable[ClipRecord],
    table: Mapping[str, ClipRow],
    wishes: PoseWishes,
) -> PosePlan:
    """Look at each clip's frames and keypoints.

    Args:
        root: folder of the data set.
        row: what is known of it.
        records: its clips.
        table: its `clips.csv`.
        wishes: what to do with keypoints that are there.
    """
    plan = PosePlan()
    for record in records:
        try:
            images = find_frames(root, record, table)
            if wishes.per_frame:
                refuse_video(record.name, images)
            known = table.get(record.name)
            boxes = root / "boxes" / f"{record.name}.npy"
            job = PoseJob(record.name, images, boxes, known.identity if known else "")
            poses = find_poses(root, record, images, row.layout, known)
        except InputError as error:
            plan.damaged[record.name] = str(error)
            continue
        if poses is None or wishes.overwrite:
            plan.todo.append(job)
        elif isinstance(poses, PoseArchive):
            _look_at(plan, job, poses, wishes)
        else:
            plan.done += 1
    return plan


def refuse_video(name: str, images: FrameSource) -> None:
    """Make sure that a clip has a folder of images.

    Raises:
        InputError: it is kept as a video.
    """
    if not isinstance(images, ImageFrames):
        raise InputError(
            f"clip {name} is kept as a video ({images.place}), and --per_frame_npy writes beside "
            "images: prepare the data set with --extract_frames, or drop --per_frame_npy"
        )


def _look_at(plan: PosePlan, job: PoseJob, poses: PoseArchive, wishes: PoseWishes) -> None:
    """Decide about a clip that has an .npz."""
    try:
        poses.load()
        notes = read_notes(poses.path)
    except InputError as error:  # its remedy is this program
        plan.redone[job.name] = str(error).rpartition(": ")[0]
        plan.todo.append(job)
        return
    if difference := note_difference(notes, wishes.notes):
        plan.others[job.name] = difference
    if (
        wishes.per_frame
        and isinstance(job.images, ImageFrames)
        and not has_frame_poses(job.images.files)
    ):
        plan.frames_only.append((job, poses))
    else:
        plan.done += 1


def note_difference(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say how options differ, "" where they do not; a file without notes has its source named."""
    if not then.keys() & now.keys():
        return f"from {then.get('source', 'an unknown source')!r}"
    pairs = ((name, then.get(name, "unknown"), now[name]) for name in now)
    return ", ".join(f"{name} {old} (now {new})" for name, old, new in pairs if old != new)


@dataclass(frozen=True, slots=True)
class DecodedPart:
    """Some frames of a clip, or why they cannot be had.

    Attributes:
        job: the clip.
        size: (width, height) of its frames, pixels.
        frames: (n, H, W, 3) uint8 RGB; None after the last of the clip, or at an error.
        boxes: (N, 4) places of the main athlete, NaN where unknown; None where not given.
        error: what is wrong with the clip; its other parts are to be forgotten.
    """

    job: PoseJob
    size: tuple[int, int] = (0, 0)
    frames: np.ndarray | None = None
    boxes: np.ndarray | None = None
    error: str = ""


def decode_jobs(jobs: Iterable[PoseJob], most: int, main: str) -> Iterator[DecodedPart]:
    """Decode clips one after the other; a damaged one does not end the others.

    Args:
        jobs: the clips.
        most: frames in a part.
        main: whether boxes are read: "auto" where they are there, "boxes" from every clip, else
            from none.
    """
    for job in jobs:
        try:
            size, boxes = job.images.size(), None
            if main == "boxes" or (main == "auto" and job.boxes.exists()):
                boxes = load_boxes(job.boxes, job.images)
            for frames in job.images.blocks(size, most):
                yield DecodedPart(job, size, frames, boxes)
            yield DecodedPart(job, size, None, boxes)
        except InputError as error:
            yield DecodedPart(job, error=str(error))


def load_boxes(path: Path, images: FrameSource) -> np.ndarray:
    """Read where the main athlete is in each frame.

    Returns:
        (N, 4) float32 x1, y1, x2, y2 in pixels, NaN where not known.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    if not path.exists():
        raise InputError(
            f"{path} is not there, and --main_athlete boxes needs it: write it, or choose "
            "--main_athlete auto"
        )
    fitting = ((images.count, 4), (images.found, 4))
    remedy = f"its clip needs ({images.count}, 4) numbers, {_REMEDY}"
    with blaming(path, remedy, ".npy file"), open_array(path) as stream:
        boxes = read_array(stream, lambda s: "" if s in fitting else f"has the shape {s}")
    with np.errstate(all="ignore"):
        boxes = np.array(boxes[: images.count], np.float32)
    given = boxes[np.isfinite(boxes).all(axis=1)]
    if (given[:, 2:] <= given[:, :2]).any():
        raise InputError(
            f"{path} has a box without area, it should be x1, y1, x2, y2 in pixels: {_REMEDY}"
        )
    return boxes
