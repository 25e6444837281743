"""What a store knows of each clip without reading its keypoints: a row of numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# How keypoints lie in the store.
BROKEN, TRACKS, LISTED = 0, 1, 2
KINDS = tuple(
    np.dtype(code)
    for code in ("<f2", "<f4", "<f8", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
)
_KIND_NUMBERS = {kind.str: number for number, kind in enumerate(KINDS)}

# One clip: `form` of the keypoints; `people` M and `frames` T (of listed people: the most in one
# frame, and the frames with anybody); `entries` E of listed people; joints V; values C. `*_kind` is
# an index of KINDS, -1 for none, and `*_at` a place in arrays.bin, in bytes. Of the coordinates:
# lowest and highest, x, y, z; how many are no finite numbers; `empty`: the share of frames in which
# no joint is detected, by its place and its score.
ROW = np.dtype(
    [
        ("form", "u1"),
        ("label", "i8"),
        ("total_frames", "i8"),
        ("height", "i4"),
        ("width", "i4"),
        ("people", "i8"),
        ("frames", "i8"),
        ("entries", "i8"),
        ("joints", "i8"),
        ("values", "i1"),
        *((f"{name}_kind", "i1") for name in ("keypoint", "score", "frame_inds", "box")),
        *((f"{name}_at", "i8") for name in ("keypoint", "score", "frame_inds", "box")),
        ("lowest", "f8", (3,)),
        ("highest", "f8", (3,)),
        ("unusable", "i8"),
        ("unusable_scores", "i8"),
        ("lowest_score", "f8"),
        ("highest_score", "f8"),
        ("empty", "f4"),
    ]
)
# label and total_frames of a clip that has none
NONE = -(2**62)
_ARRAYS = {
    "keypoint": "keypoint",
    "score": "keypoint_score",
    "frame_inds": "frame_inds",
    "box": "box_score",
}


def make_table(rows: Sequence[Mapping[str, Any]], numbers: Path) -> np.ndarray:
    """Return (R,) of `ROW`, a row for each annotation; faults of their arrays are noted in them.

    Args:
        rows: annotations as `reader.py` writes them; what is wrong goes to their `faults`.
        numbers: arrays.bin.
    """
    table = np.zeros(len(rows), ROW)
    is_any = numbers.stat().st_size > 0
    data = np.memmap(numbers, np.uint8, "r") if is_any else np.zeros(0, np.uint8)
    for place, row in enumerate(rows):
        _fill(table, place, row)
        if row["keypoint"] is not None:
            _survey(table, place, row, data)
    return table


def array_at(data: np.ndarray, kind: int, place: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of the store as a view."""
    count = int(np.prod(shape))
    if not count:
        return np.zeros(shape, KINDS[kind])
    return np.frombuffer(data, KINDS[kind], count, place).reshape(shape)


def _fill(table: np.ndarray, place: int, row: Mapping[str, Any]) -> None:
    own = table[place]
    own["label"] = NONE if row["label"] is None else row["label"]
    own["total_frames"] = NONE if row["total_frames"] is None else row["total_frames"]
    own["height"], own["width"] = row["img_shape"] or (0, 0)
    for name, field in _ARRAYS.items():
        stored = row[field]
        own[f"{name}_kind"] = -1 if stored is None else _KIND_NUMBERS[stored[0]]
        own[f"{name}_at"] = 0 if stored is None else stored[2]


def _survey(table: np.ndarray, place: int, row: Mapping[str, Any], data: np.ndarray) -> None:
    """Look at the keypoints of a clip once; `form` stays BROKEN where they cannot be read."""
    own, shape = table[place], tuple(row["keypoint"][1])
    own["joints"], own["values"] = shape[-2:]
    is_listed = len(shape) == 3
    if is_listed and not _survey_list(own, row, data, shape[0]):
        return
    keypoint = array_at(data, own["keypoint_kind"], own["keypoint_at"], shape)
    if not is_listed:
        own["people"], own["frames"] = shape[:2]
    places = keypoint[..., :2] if is_listed else keypoint
    own["unusable"], low, high = _bounds(places)
    own["lowest"][: len(low)], own["highest"][: len(high)] = low, high
    score = keypoint[..., 2] if is_listed else None
    if not is_listed and own["score_kind"] >= 0:
        score = array_at(data, own["score_kind"], own["score_at"], shape[:-1])
    if score is not None:
        bounds = _bounds(score[..., None])
        own["unusable_scores"], (own["lowest_score"],), (own["highest_score"],) = bounds
    if places.size:
        is_seen = (places != 0).any(axis=-1)  # of each joint, as `keypoints` sees it
        if score is not None:
            is_seen &= score > 0
        if is_listed:
            frames = array_at(data, own["frame_inds_kind"], own["frame_inds_at"], shape[:1])
            with_people = len(np.unique(frames[is_seen.any(axis=1)]))
            num_frames = abs(row["total_frames"] or 0) or int(own["frames"])
        else:
            with_people, num_frames = int(is_seen.any(axis=(0, 2)).sum()), shape[1]
        own["empty"] = max(0.0, 1 - with_people / num_frames)
    own["form"] = LISTED if is_listed else TRACKS


def _survey_list(own: np.void, row: Mapping[str, Any], data: np.ndarray, entries: int) -> bool:
    """Check the frames and boxes of listed people; say whether they can be used."""
    faults = row["faults"]
    if row["frame_inds"] is None:
        faults.append(["frame_inds", "has a list of people without frame_inds"])
        return False
    for name in ("frame_inds", "box_score"):
        if row[name] is not None and row[name][1] != [entries]:
            faults.append([name, f"has {row[name][1][0]} {name} of {entries} people"])
            return False
    frames = array_at(data, own["frame_inds_kind"], own["frame_inds_at"], (entries,))
    most = row["total_frames"] if row["total_frames"] is not None else 10**9
    if len(frames) and not (int(frames.min()) >= 0 and int(frames.max()) < most):
        faults.append(
            [
                "frame_inds",
                f"has frame_inds {frames.min()} to {frames.max()}, they should be 0 to "
                f"total_frames {most} - 1",
            ]
        )
        return False
    crowd = np.unique(frames, return_counts=True)[1]
    own["entries"], own["frames"], own["people"] = entries, len(crowd), crowd.max(initial=0)
    return True


def _bounds(values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return how many of (..., C) values are not finite, and of the others (C,) least and most."""
    # Each coordinate in one piece: reductions over rows of two or three are slow.
    kind = np.float64 if values.dtype.itemsize > 4 else np.float32
    flat = np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T, kind)
    if not flat.size:
        return 0, np.zeros(len(flat)), np.zeros(len(flat))
    low, high = flat.min(axis=1), flat.max(axis=1)
    if np.isfinite(low).all() and np.isfinite(high).all():
        return 0, low, high
    usable = np.isfinite(flat)
    kept = np.where(usable, flat, 0)
    return int((~usable).sum()), kept.min(axis=1), kept.max(axis=1)
