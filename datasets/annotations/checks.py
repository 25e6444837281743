"""What is wrong with the annotations of a pickle, by clip and field."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np

from datasets.annotations.annotation_set import AnnotationSet, coordinates
from datasets.annotations.table import BROKEN, LISTED, NONE

Severity = Literal["error", "warning"]

MOST_PEOPLE = 100
_MOST_CLASSES = 100_000
_FARTHEST = 1e6
# Peaks of heatmaps reach a little over 1; more is per cent, or no confidence at all.
_MOST_SCORE = 10.0
_MOSTLY = 0.5
_MOST_METRES = 20.0
# Joints are found a little outside of the frame now and then.
_OUTSIDE = 1.05
# Legs below the frame are found more often, as far as the box of a person is widened.
_OUTSIDE_BELOW = 1.25
_ROLE = re.compile(
    "(?P<train>train(?:ing)?)|(?P<test>test(?:ing)?|evaluation|eval)"
    "|(?P<val>val(?:id(?:ation)?)?|dev)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Attributes:
        severity: an error cannot be trained on; a warning may be as it should be.
        sample: name of the clip, "" for the file as a whole.
        field: of the annotation.
        text: what is wrong, to follow the name of the clip or of the file.
        kind: short name of what is wrong, the same for all clips.
        splits: splits that it concerns, where it is about splits.
    """

    severity: Severity
    sample: str
    field: str
    text: str
    kind: str
    splits: tuple[str, ...] = ()


def check_annotations(found: AnnotationSet, num_classes: int | None = None) -> list[Finding]:
    """Return everything that is wrong, clip by clip in the order of the pickle, then the splits.

    Args:
        found: the annotations.
        num_classes: labels must be below it; None accepts any.
    """
    findings = [
        *_unreadable(found),
        *_of_labels(found, num_classes),
        *_of_shapes(found),
        *_of_boxes(found),
        *_of_values(found),
        *_of_scores(found),
        *_of_empty_frames(found),
        *_of_frames(found),
    ]
    places = found.store.rows
    findings.sort(key=lambda finding: places.get(finding.sample, -1))
    return findings + list(_of_splits(found.splits, places))


# ---------------------------------------------------------------- single clips


def _error(sample: str, field: str, kind: str, text: str) -> Finding:
    return Finding("error", sample, field, text, kind)


def _warning(sample: str, field: str, kind: str, text: str) -> Finding:
    return Finding("warning", sample, field, text, kind)


def _unreadable(found: AnnotationSet) -> Iterator[Finding]:
    store = found.store
    for row in store.nameless:
        for field, text in store.faults[row]:
            yield _error("", field, "unreadable", f"annotation {row + 1} {text}")
    for name, row in store.rows.items():
        for field, text in store.faults.get(row, ()):
            yield _error(name, field, "unreadable", text)
        if name in store.repeats:
            times = store.repeats[name]
            yield _error(name, "frame_dir", "repeated", f"is there {times} times: leave one")
        if store.table[row]["form"] == BROKEN and row not in store.faults:
            yield _error(name, "keypoint", "missing", "has no keypoint")


def _of_labels(found: AnnotationSet, num_classes: int | None) -> Iterator[Finding]:
    most = _MOST_CLASSES if num_classes is None else num_classes
    names, table = _named(found)
    labels = table["label"]
    has_label = labels != NONE
    if not has_label.any():
        yield _warning("", "label", "no labels", "has no labels: nothing can be trained with it")
        return
    for place in np.flatnonzero(~has_label):
        if not _is_broken(found, names[place], "label"):
            yield _error(names[place], "label", "no label", "has no label")
    for place in np.flatnonzero(has_label & (labels < 0)):
        text = f"has label {labels[place]}, it should be at least 0"
        yield _error(names[place], "label", "negative label", text)
    for place in np.flatnonzero(labels >= most):
        text = f"has label {labels[place]}, it should be below {most}, the number of classes"
        yield _error(names[place], "label", "label beyond the classes", text)
    used = np.unique(labels[has_label & (labels >= 0) & (labels < most)])
    gaps = sorted(set(range(int(used.max(initial=-1)) + 1)) - set(used.tolist()))
    if gaps:
        text = (
            f"has labels up to {used.max()} but no clip of class {gaps[0]}"
            + (f" and {len(gaps) - 1} more" if len(gaps) > 1 else "")
            + ": number the classes from 0 without gaps, or leave it if they are meant to be empty"
        )
        yield _warning("", "label", "gap in the labels", text)


def _of_shapes(found: AnnotationSet) -> Iterator[Finding]:
    names, table = _named(found)
    readable = table["form"] != BROKEN
    joints, dims = _usual_shape(found, table[readable])
    for place in np.flatnonzero(readable & (table["joints"] != joints)):
        text = f"has {table['joints'][place]} joints, it should have {joints}"
        yield _error(names[place], "keypoint", "number of joints", text)
    for place in np.flatnonzero(readable & (coordinates(table) != dims)):
        text = f"has keypoints of {coordinates(table)[place]} values, the others have {dims}"
        yield _error(names[place], "keypoint", "number of values", text)
    crowded = (table["form"] != LISTED) & (table["people"] > MOST_PEOPLE)
    is_empty = (table["people"] < 1) | (table["frames"] < 1)
    for place in np.flatnonzero(readable & (crowded | is_empty)):
        people, frames = table["people"][place], table["frames"][place]
        text = (
            f"has {people} people and {frames} frames, it should have 1 to {MOST_PEOPLE} people "
            "and at least 1 frame"
        )
        yield _error(names[place], "keypoint", "people and frames", text)
    flat = readable & (coordinates(table) == 2) & (table["form"] != LISTED)
    for place in np.flatnonzero(flat & (table["score_kind"] < 0)):
        if _is_broken(found, names[place], "keypoint_score"):
            continue
        text = "has no keypoint_score: every joint that is not at (0, 0) gets confidence 1"
        yield _warning(names[place], "keypoint_score", "no scores", text)


def _of_boxes(found: AnnotationSet) -> Iterator[Finding]:
    """Find clips of which the least score of a box leaves nobody."""
    least = found.form.min_box_score
    if least <= 0:
        return
    names, table = _named(found)
    has_scores = (table["form"] == LISTED) & (table["box_kind"] >= 0)
    if not has_scores.any():
        text = f"has no box_score: a least one of {least:g} leaves nobody out"
        yield _warning("", "box_score", "no box scores", text)
    for place in np.flatnonzero(has_scores & (table["people"] > 0)):
        if not found.has_people(names[place]):
            text = f"has nobody with a box_score of at least {least:g}"
            yield _error(names[place], "box_score", "no box of this score", text)


def _of_values(found: AnnotationSet) -> Iterator[Finding]:
    names, table = _named(found)
    for field, column in (("keypoint", "unusable"), ("keypoint_score", "unusable_scores")):
        for place in np.flatnonzero(table[column] > 0):
            text = f"has {table[column][place]} values in {field} that are NaN or infinite"
            yield _error(names[place], field, "NaN or infinite", text)
    far = np.maximum(np.abs(table["lowest"]), np.abs(table["highest"])).max(axis=1)
    for place in np.flatnonzero(far > _FARTHEST):
        text = f"has a coordinate of {far[place]:.4g} in keypoint, which is no place"
        yield _error(names[place], "keypoint", "far away", text)
    # Metres are small numbers; pixels beside values of 0 to 1 are of somebody who joined scores.
    is_confidence = (table["lowest"][:, 2] >= 0) & (table["highest"][:, 2] <= 1)
    is_pixels = table["highest"][:, :2].max(axis=1) > _MOST_METRES
    is_tracks = (table["form"] != BROKEN) & (coordinates(table) == 3)
    for place in np.flatnonzero(is_tracks & is_confidence & is_pixels):
        text = (
            f"has joints up to {table['highest'][place, :2].max():.5g} and third values of 0 to 1: "
            "if these are confidences, give them as keypoint_score, not as z"
        )
        yield _warning(names[place], "keypoint", "confidences as z", text)


def _of_scores(found: AnnotationSet) -> Iterator[Finding]:
    names, table = _named(found)
    low, high = table["lowest_score"], table["highest_score"]
    # Estimators that read scores off a heatmap give a joint in its dark a value below 0.
    for place in np.flatnonzero((low < 0) & (high > 0) & (high <= _MOST_SCORE)):
        text = f"has keypoint_score down to {low[place]:.4g}: such joints count as undetected"
        yield _warning(names[place], "keypoint_score", "scores below 0", text)
    for place in np.flatnonzero((high > _MOST_SCORE) | ((low < 0) & (high <= 0))):
        text = (
            f"has keypoint_score {low[place]:.4g} to {high[place]:.4g}, it should be 0 to 1: "
            "divide it first, and write 0 for what was not detected"
        )
        yield _error(names[place], "keypoint_score", "scores are no confidences", text)


def _of_empty_frames(found: AnnotationSet) -> Iterator[Finding]:
    names, table = _named(found)
    low, high = table["lowest_score"], table["highest_score"]
    is_empty = (table["form"] != BROKEN) & (table["empty"] > _MOSTLY)
    has_places = (table["lowest"] != 0).any(axis=1) | (table["highest"] != 0).any(axis=1)
    is_dark = is_empty & (table["empty"] == 1) & has_places & (low == 0) & (high == 0)
    for place in np.flatnonzero(is_dark):
        text = (
            "has joints, all of them with a keypoint_score of 0, which is nobody: give scores "
            "above 0 to what was detected, or leave the field out"
        )
        yield _error(names[place], "keypoint_score", "scores of 0 alone", text)
    for place in np.flatnonzero(is_empty & ~is_dark):
        text = f"has nobody in {table['empty'][place]:.0%} of its frames"
        yield _warning(names[place], "keypoint", "mostly zeros", text)


def _of_frames(found: AnnotationSet) -> Iterator[Finding]:
    names, table = _named(found)
    readable = table["form"] != BROKEN
    total, known = table["total_frames"], table["total_frames"] != NONE
    tracks = readable & (table["form"] != LISTED)
    for place in np.flatnonzero(tracks & known & (total != table["frames"])):
        text = f"has {table['frames'][place]} frames of keypoints and total_frames {total[place]}"
        yield _error(names[place], "total_frames", "number of frames", text)
    for place in np.flatnonzero(readable & ~known):
        if not _is_broken(found, names[place], "total_frames"):
            yield _warning(names[place], "total_frames", "no total_frames", "has no total_frames")
    flat = readable & (coordinates(table) == 2)
    for place in np.flatnonzero(flat & (table["width"] == 0)):
        if not _is_broken(found, names[place], "img_shape"):
            text = "has no img_shape: what scales keypoints by the size of the frame needs it"
            yield _warning(names[place], "img_shape", "no img_shape", text)
    flat &= table["width"] > 0
    is_swapped = _swapped(table, flat)
    yield from _of_swaps(names, table, is_swapped)
    size = np.stack((table["width"], table["height"]), axis=1)
    beyond = (table["highest"][:, :2] > 2 * size) | (table["lowest"][:, :2] < -size)
    for place in np.flatnonzero(flat & ~is_swapped & beyond.any(axis=1)):
        low, high = table["lowest"][place, :2], table["highest"][place, :2]
        text = (
            f"has img_shape ({size[place, 1]}, {size[place, 0]}) and joints from x {low[0]:.5g}, "
            f"y {low[1]:.5g} to x {high[0]:.5g}, y {high[1]:.5g}: far outside of the frame"
        )
        yield _warning(names[place], "keypoint", "far outside of the frame", text)


def _swapped(table: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return which clips have joints that would fit a frame of the other orientation only."""
    x, y = table["highest"][:, 0], table["highest"][:, 1]
    width, height = table["width"], table["height"]
    fits = (y <= _OUTSIDE * width) & (x <= _OUTSIDE * height)
    is_outside = (x > width) | (y > _OUTSIDE * height)
    return np.asarray(flat & (width != height) & is_outside & fits)


def _of_swaps(
    names: tuple[str, ...], table: np.ndarray, is_swapped: np.ndarray
) -> Iterator[Finding]:
    x, y = table["highest"][:, 0], table["highest"][:, 1]
    width, height = table["width"], table["height"]
    for place in np.flatnonzero(is_swapped):
        text = (
            f"has img_shape ({height[place]}, {width[place]}) and joints up to x {x[place]:.5g}, "
            f"y {y[place]:.5g}: height comes first, the two seem to be swapped"
        )
        is_clear = x[place] > _OUTSIDE * width[place] or y[place] > _OUTSIDE_BELOW * height[place]
        make = _error if is_clear else _warning
        yield make(names[place], "img_shape", "img_shape swapped", text)


def _named(found: AnnotationSet) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and their rows of the table, in the same order."""
    store = found.store
    if len(store.rows) == len(store.table):
        return store.names, store.table
    return store.names, store.table[np.fromiter(store.rows.values(), np.int64, len(store.rows))]


def _usual_shape(found: AnnotationSet, table: np.ndarray) -> tuple[int, int]:
    """Return V and the coordinates of a joint that a clip should have."""
    if found.has_layout:
        return len(found.layout), found.layout.dims
    if not len(table):
        return 0, 0
    joints, counts = np.unique(table["joints"], return_counts=True)
    return int(joints[counts.argmax()]), int(np.bincount(coordinates(table)).argmax())


def _is_broken(found: AnnotationSet, name: str, field: str) -> bool:
    """Say whether a field of a clip could not be read, which is a finding of its own."""
    faults = found.store.faults.get(found.store.rows[name], ())
    return any(own == field for own, _ in faults)


# ---------------------------------------------------------------- splits


def _of_splits(
    splits: Mapping[str, tuple[str, ...]], known: Mapping[str, int]
) -> Iterator[Finding]:
    for split, clips in splits.items():
        if not clips:
            text = f"has no clip in split {split!r}"
            yield Finding("error", "", "split", text, "empty split", (split,))
        for clip in dict.fromkeys(clip for clip in clips if clip not in known):
            text = f"is in split {split!r}, but has no annotation"
            yield Finding("error", clip, "split", text, "no annotation", (split,))
        if len(set(clips)) < len(clips):
            text = f"names {len(clips) - len(set(clips))} clips of split {split!r} twice"
            yield Finding("warning", "", "split", text, "repeated in a split", (split,))
    sets = {split: set(clips) for split, clips in splits.items()}
    for one, other in _disjoint_pairs(splits):
        shared = sets[one] & sets[other]
        if not shared:
            continue
        is_same = sets[one] == sets[other] and "train" not in f"{one} {other}".lower()
        text = (
            f"has {len(shared)} clips in both split {one!r} and {other!r}, such as "
            f"{min(shared)[:80]!r}"
        )
        severity: Severity = "warning" if is_same else "error"
        yield Finding(severity, "", "split", text, "shared by splits", (one, other))


def _disjoint_pairs(splits: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of splits that may not share a clip, by their names.

    Those are splits of different roles that are otherwise called alike: train1 and test1,
    xsub_train and xsub_val; not train1 and test2. A split without such a counterpart belongs to
    those that are called by their role alone: train and test1.
    """
    roles = {split: frozenset(m.lastgroup for m in _ROLE.finditer(split)) for split in splits}
    families: dict[str, list[str]] = defaultdict(list)
    for split in splits:
        families[_ROLE.sub("", split)].append(split)
    bare = families.get("", [])
    for rest, family in families.items():
        pairs = [*_of_two_roles(combinations(family, 2), roles)]
        alone = rest and not pairs
        yield from _of_two_roles(product(bare, family), roles) if alone else pairs


def _of_two_roles(
    pairs: Iterable[tuple[str, str]], roles: Mapping[str, frozenset[str | None]]
) -> Iterator[tuple[str, str]]:
    for one, other in pairs:
        if roles[one] and roles[other] and not roles[one] & roles[other]:
            yield one, other
