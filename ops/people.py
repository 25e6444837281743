"""People found in one frame, and what can be said of them: sizes, overlaps, distances.

Distances between people are in sizes (the square root of the box area), so that neither the
resolution nor the distance from the camera matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The same person found twice: boxes and joints that lie on each other.
_SAME_IOU, _SAME_JOINTS = 0.6, 0.1
# Fewer joints in common say less than the boxes.
_LEAST_JOINTS = 3


@dataclass(frozen=True, slots=True)
class Detections:
    """People found in one frame.

    Attributes:
        boxes: (P, 4) float32 x1, y1, x2, y2 in pixels of the frame.
        scores: (P,) float32 confidence in each person, 0 to 1.
        keypoints: (P, V, 3) float32 x, y in pixels and confidence 0-1; (0, 0, 0) = not found.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def pick(self, order: np.ndarray) -> "Detections":
        """Return the people that an index or a mask names."""
        return Detections(self.boxes[order], self.scores[order], self.keypoints[order])


@dataclass(frozen=True, slots=True)
class Track:
    """One person through a clip of N frames.

    Attributes:
        frames: (n,) int64 0-based frames in which the person was found, increasing.
        people: the person in these frames: boxes (n, 4), scores (n,), keypoints (n, V, 3).
    """

    frames: np.ndarray
    people: Detections


def clean(people: Detections) -> Detections:
    """Return the usable people in an order of their own: most confident first, then by place.

    Boxes and scores that are not finite or have no area are dropped, joints that are not finite
    or have no confidence become (0, 0, 0), confidences end at 1.
    """
    boxes = people.boxes.reshape(-1, 4).astype(np.float32)
    scores = people.scores.astype(np.float32)
    is_usable = np.isfinite(boxes).all(1) & np.isfinite(scores) & (areas(boxes) > 0)
    # Exact ties are broken by height in the frame: mirroring does not change it.
    keys = (boxes[:, 0], boxes[:, 3], boxes[:, 1], -areas(boxes), -scores)
    order = np.lexsort(keys)
    order = order[is_usable[order]]
    joints = people.keypoints[order].astype(np.float32)
    is_found = np.isfinite(joints).all(-1) & (joints[..., 2] > 0) & (joints[..., :2] != 0).any(-1)
    joints = np.where(is_found[..., None], joints, np.float32(0))
    joints[..., 2] = np.minimum(joints[..., 2], 1)
    return Detections(boxes[order], scores[order], joints)


def without_doubles(people: Detections) -> Detections:
    """Drop people that were found twice; `people` as `clean` returns them."""
    if len(people) < 2:
        return people
    near = np.triu(ious(people.boxes, people.boxes) > _SAME_IOU, k=1).T
    if not near.any():
        return people
    joints, boxes = people.keypoints, people.boxes
    same = joint_distances(joints, joints, boxes, boxes, near) < _SAME_JOINTS
    kept = np.ones(len(people), bool)
    for index in range(1, len(people)):
        kept[index] = not (same[index, :index] & kept[:index]).any()
    return people.pick(kept)


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Return the people of all parts as one."""
    return Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.keypoints for part in parts]),
    )


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return (P,) areas of (P, 4) boxes, square pixels."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def centres(boxes: np.ndarray) -> np.ndarray:
    """Return (P, 2) middles of (P, 4) boxes."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def sizes(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return (K, P) mean sizes of two sets of boxes, pixels."""
    return np.sqrt(np.sqrt(areas(one)[:, None] * areas(two)[None]))


def centre_distances(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return (K, P) distances of the middles, in sizes."""
    away = np.linalg.norm(centres(one)[:, None] - centres(two)[None], axis=-1)
    return away / sizes(one, two)


def joint_distances(
    one: np.ndarray, two: np.ndarray, one_boxes: np.ndarray, two_boxes: np.ndarray, near: np.ndarray
) -> np.ndarray:
    """Return mean distances of joints that two people both have, in sizes.

    Args:
        one: (K, V, 3) keypoints, with boxes (K, 4).
        two: (P, V, 3) keypoints, with boxes (P, 4).
        one_boxes: of `one`.
        two_boxes: of `two`.
        near: (K, P) the pairs to look at: of a crowd, few are near each other.

    Returns:
        (K, P): the distance of the middles where few joints are shared, inf for other pairs.
    """
    mean = np.where(near, centre_distances(one_boxes, two_boxes), np.inf)
    rows, columns = np.nonzero(near)
    first, second = one[rows], two[columns]
    shared = (first[..., 2] > 0) & (second[..., 2] > 0)  # (n, V)
    away = np.sqrt(((first[..., :2] - second[..., :2]) ** 2).sum(-1))
    count = shared.sum(-1)
    joints = (away * shared).sum(-1) / np.maximum(count, 1)
    joints /= sizes(one_boxes, two_boxes)[rows, columns]
    enough = count >= _LEAST_JOINTS
    mean[rows[enough], columns[enough]] = joints[enough]
    return mean


def displacements(
    before: np.ndarray, after: np.ndarray, boxes: np.ndarray, people: Detections
) -> np.ndarray:
    """Return (n, 2) how far each person moved: the median over joints, which limbs do not pull."""
    moved = centres(people.boxes) - centres(boxes)
    shared = (before[..., 2] > 0) & (after[..., 2] > 0)
    for row in np.flatnonzero(shared.sum(1) >= 3):
        joints = shared[row]
        moved[row] = np.median(after[row, joints, :2] - before[row, joints, :2], axis=0)
    return moved


def moved(
    boxes: np.ndarray, keypoints: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (K, 4) and keypoints (K, V, 3) moved by offsets (K, 2), pixels."""
    moved = keypoints.copy()
    moved[..., :2] += offsets[:, None]
    return boxes + np.tile(offsets, 2), moved


def ious(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return (K, P) intersections over unions."""
    corner = np.maximum(one[:, None, :2], two[None, :, :2])
    opposite = np.minimum(one[:, None, 2:], two[None, :, 2:])
    shared = np.prod(np.maximum(opposite - corner, 0), axis=-1)
    union = areas(one)[:, None] + areas(two)[None] - shared
    return shared / np.maximum(union, 1e-9)
