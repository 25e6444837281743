"""The keypoints of one clip: whether they can be right, judged by the body's own size.

Lengths are in units of the body, the median over the clip of its extent (the longer side of the
box around the main person's joints): so a distant skater and a near one are judged alike.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.arrays import UNREADABLE, Fault, open_array, read_array
from datasets.check.findings import Tally, without_remedy
from datasets.clip_table import ClipRow
from datasets.frames import FrameSource
from datasets.poses import OTHER_FRAMES, Poses, find_poses
from datasets.records import ClipRecord
from errors import InputError
from ops.skeleton import SkeletonLayout, swap_left_right

# Below this share of frames with somebody in them, most of the heatmap is empty.
LEAST_DETECTED = 0.4
# Words of the messages of datasets/poses.py -> kind of finding.
_FAULTS = (
    (OTHER_FRAMES, "keypoints_stale"),
    ("NaN or infinite", "keypoints_nan"),
    ("poses, its clip has", "keypoints_length"),
    ("files, the list says", "keypoints_length"),
)
# Joints may be guessed a little outside of the frame.
_MARGIN = 0.05
_OUTSIDE_SHARE = 0.2
_FAR_OUTSIDE, _FAR_SHARE = 1.0, 0.01
# Whole bodies that repeat bit by bit: an estimator's result never does, a filled gap does.
_FROZEN_FRAMES = 8
# A skater in a leap, filmed at 15 frames a second, moves by half a body from frame to frame.
_JUMP_BODIES, _JUMP_FRAME = 0.8, 0.12
# Left and right have changed places where exchanging them leaves this share of the distance to the
# frame before. Below .35 it is no spin: of 560 drawn skaters who spin, 4 come so near.
_SWAP_GAIN, _SWAP_WIDTH, _LEAST_PAIRS = 0.35, 0.08, 4


@dataclass(frozen=True, slots=True)
class PoseFacts:
    """What is known of the keypoints of a clip.

    Attributes:
        detected: share of frames in which the main person was found.
        people: most people in a frame.
        joints: share of the main person's joints that were found, in frames with somebody.
    """

    detected: float
    people: int
    joints: float


def check_keypoints(
    root: Path,
    record: ClipRecord,
    images: FrameSource | None,
    size: tuple[int, int] | None,
    layout: SkeletonLayout,
    tally: Tally,
    row: ClipRow | None = None,
) -> PoseFacts | None:
    """Look at the keypoints of a clip; what is wrong goes to `tally`.

    Args:
        root: folder of the data set.
        record: the clip.
        images: its frames, None where there are none to be used.
        size: (width, height) of its frames, None when not known.
        layout: of the keypoints.
        tally: takes the findings.
        row: of the clip in `clips.csv`, if there is one.
    """
    path = root / "poses" / f"{record.name}.npz"
    try:
        source = find_poses(root, record, images, layout, row)
        if source is None:
            text = "is not there, and no .npy files beside the frames"
            tally.add("keypoints_missing", path, text)
            return None
        path = source.path
        poses = source.load()
    except InputError as error:
        kind = next((k for words, k in _FAULTS if words in str(error)), "keypoints_unreadable")
        tally.add(kind, path, without_remedy(str(error).removeprefix(str(path)).strip()))
        return None
    if size is not None and not poses.fits(size):
        own = "{}x{}".format(*(poses.size or size))
        text = f"is for frames of {own}, the clip has {size[0]}x{size[1]}"
        tally.add("keypoints_size", path, text)
    check_tracks(poses, poses.size or size, layout, path, tally)
    return describe_poses(poses)


def describe_poses(poses: Poses) -> PoseFacts:
    """Count people and joints."""
    seen = poses.keypoints[..., 2] > 0  # (N, M, V)
    main = seen[:, 0]
    has_main = main.any(axis=1)
    return PoseFacts(
        detected=float(has_main.mean()),
        people=int(seen.any(axis=2).sum(axis=1).max()),
        joints=float(main[has_main].mean()) if has_main.any() else 0.0,
    )


def check_tracks(
    poses: Poses, size: tuple[int, int] | None, layout: SkeletonLayout, path: Path, tally: Tally
) -> None:
    """Look at how the main person of a clip moves.

    Args:
        poses: of the clip.
        size: (width, height) of the frames that the keypoints are on, None when not known.
        layout: of the keypoints.
        path: for messages.
        tally: takes the findings.
    """
    person = poses.keypoints[:, 0]  # (N, V, 3)
    seen = person[..., 2] > 0  # (N, V)
    rate = float(seen.any(axis=1).mean())
    if rate == 0:
        tally.add("keypoints_empty", path, f"has nobody in any of {len(person)} frames")
        return
    if rate < LEAST_DETECTED:
        tally.add("keypoints_few", path, f"has somebody in {rate:.0%} of {len(person)} frames")
    if size is not None and person[..., :2].max() <= 2 < min(size):
        text = f"has coordinates up to {person[..., :2].max():.2f}: shares of the frame?"
        tally.add("keypoints_scale", path, text)
        return
    if size is not None:
        _check_inside(person, seen, size, path, tally)
    _check_frozen(person, seen, path, tally)
    body = _body_size(person, seen)
    if body > 0:
        _check_jumps(person, seen, body, size, path, tally)
        _check_swaps(person, seen, body, layout, path, tally)


def _check_inside(
    person: np.ndarray, seen: np.ndarray, size: tuple[int, int], path: Path, tally: Tally
) -> None:
    limit = np.array(size, np.float32)
    beyond = np.maximum(-person[..., :2], person[..., :2] - limit) / limit  # (N, V, 2)
    worst = np.where(seen, beyond.max(axis=-1), 0)
    share, far = ((worst > margin).sum() / seen.sum() for margin in (_MARGIN, _FAR_OUTSIDE))
    if share > _OUTSIDE_SHARE or far > _FAR_SHARE:
        text = f"has {share:.0%} of its joints outside of the frame of {size[0]}x{size[1]} pixels"
        text = f"{text}, the farthest by {worst.max():.2g} of it"
        tally.add("keypoints_outside", path, text, int(worst.max(axis=1).argmax()))


def _check_frozen(person: np.ndarray, seen: np.ndarray, path: Path, tally: Tally) -> None:
    same = (person[1:] == person[:-1]).all(axis=(1, 2)) & seen[1:].any(axis=1)
    longest, start = _longest_run(same)
    if longest + 1 >= _FROZEN_FRAMES:
        text = f"has the same pose in {longest + 1} frames, from frame {start} (0-based) on"
        tally.add("keypoints_frozen", path, text, start)


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Return length and start of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    if len(edges) == 0:
        return 0, 0
    starts, stops = edges[::2], edges[1::2]
    best = int((stops - starts).argmax())
    return int(stops[best] - starts[best]), int(starts[best])


def _body_size(person: np.ndarray, seen: np.ndarray) -> float:
    """Return the median extent of the body in pixels, of frames where half of it is seen."""
    whole = seen.sum(axis=1) >= seen.shape[1] / 2
    places = np.where(seen[whole][..., None], person[whole][..., :2], np.nan)
    if len(places) == 0:
        return 0.0
    box = np.nanmax(places, axis=1) - np.nanmin(places, axis=1)
    return float(np.median(box.max(axis=1)))


def _check_jumps(
    person: np.ndarray,
    seen: np.ndarray,
    body: float,
    size: tuple[int, int] | None,
    path: Path,
    tally: Tally,
) -> None:
    """Find neighbouring frames between which all joints that both show are far apart."""
    both = seen[1:] & seen[:-1]  # (N-1, V)
    step = np.linalg.norm(person[1:, :, :2] - person[:-1, :, :2], axis=-1)
    middle = _masked_median(step, both)
    least = max(_JUMP_BODIES * body, _JUMP_FRAME * max(size or (0,)))
    jumps = np.flatnonzero((middle > least) & (both.sum(axis=1) >= _LEAST_PAIRS))
    if len(jumps):
        far = middle[jumps].max() / body
        times = "once, at" if len(jumps) == 1 else f"{len(jumps)} times, first at"
        text = f"has the body jump {times} frame {jumps[0] + 1} (0-based)"
        text = f"{text}, the farthest by {far:.1f} times its height"
        tally.add("keypoints_jump", path, text, int(jumps[0]) + 1)


def _masked_median(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the median of each row of (N, V) where the mask is set, 0 where it is empty."""
    filled = np.where(mask, values, np.nan)
    filled[~mask.any(axis=1)] = 0
    return np.nanmedian(filled, axis=1)


def _check_swaps(
    person: np.ndarray,
    seen: np.ndarray,
    body: float,
    layout: SkeletonLayout,
    path: Path,
    tally: Tally,
) -> None:
    """Find frames that fit the one before far better with left and right exchanged."""
    sides = np.array(layout.flip_pairs).reshape(-1)
    swapped = swap_left_right(person, layout)
    both = (seen[1:] & seen[:-1] & swap_left_right(person, layout)[1:, :, 2].astype(bool))[:, sides]
    keep = np.linalg.norm(person[1:, sides, :2] - person[:-1, sides, :2], axis=-1)
    turn = np.linalg.norm(swapped[1:, sides, :2] - person[:-1, sides, :2], axis=-1)
    count = both.sum(axis=1)
    mean_keep, mean_turn = (
        (d * both).sum(axis=1) / np.maximum(count, 1) for d in (keep, turn)
    )  # each (N-1,)
    is_swap = (mean_turn < _SWAP_GAIN * mean_keep) & (mean_keep > _SWAP_WIDTH * body)
    frames = np.flatnonzero(is_swap & (count >= 2 * _LEAST_PAIRS))
    if len(frames):
        times = "once, at" if len(frames) == 1 else f"{len(frames)} times, first at"
        text = f"changes left and right {times} frame {frames[0] + 1}"
        tally.add("keypoints_swapped", path, f"{text} (0-based)", int(frames[0]) + 1)


def check_boxes(root: Path, record: ClipRecord, tally: Tally) -> None:
    """Look at boxes/<clip>.npy, where it is there: (N, 4) x1 y1 x2 y2, NaN where there is none."""
    path = root / "boxes" / f"{record.name}.npy"
    if not path.is_file():
        return
    try:
        with open_array(path) as stream:
            boxes = read_array(stream, lambda _: "")
        fault = _box_fault(boxes, record.num_frames)
    except Fault as error:
        fault = str(error)
    except UNREADABLE as error:
        fault = f"cannot be read ({str(error)[:200]})"
    if fault:
        tally.add("boxes_unusable", path, fault)


def _box_fault(boxes: np.ndarray, num_frames: int) -> str:
    if boxes.dtype.kind != "f" or boxes.ndim != 2 or boxes.shape[1] != 4:
        return f"holds {boxes.dtype} of shape {boxes.shape}, it should be floats (N, 4)"
    if len(boxes) != num_frames:
        return f"holds {len(boxes)} boxes, the clip has {num_frames} frames"
    there = boxes[~np.isnan(boxes).all(axis=1)]
    if not np.isfinite(there).all() or (there[:, :2] >= there[:, 2:]).any():
        return "holds a box that is partly NaN, or whose corners are not in order x1 y1 x2 y2"
    return ""
