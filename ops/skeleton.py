"""Joint layouts, mirroring and normalisation of keypoints."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Normalization = Literal["clip", "frame", "none"]

# Share of the body's extent (head to feet, or arm span) that the torso takes: restores the
# torso's unit where the torso itself was not seen.
_TORSO_SHARE = 1 / 3
# A torso seen end-on has no length; below this share of the extent it is no measure of size.
_LEAST_TORSO_SHARE = 1 / 10


@dataclass(frozen=True, slots=True)
class SkeletonLayout:
    """Which joint has which index.

    Attributes:
        name: as in reports.
        joints: V joint names, in order of the index.
        edges: pairs of joints that a bone connects.
        flip_pairs: (left, right) pairs that change places in a mirror.
        shoulders: left and right; their middle is the torso's upper end.
        hips: left and right; their middle is the torso's lower end.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    shoulders: tuple[int, int]
    hips: tuple[int, int]

    def mirror_order(self) -> np.ndarray:
        """Return (V,) int64: the joint that takes each place in a mirror image."""
        order = np.arange(len(self.joints))
        for left, right in self.flip_pairs:
            order[[left, right]] = right, left
        return order


COCO17 = SkeletonLayout(
    name="coco17",
    joints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    # The 19 limbs of the COCO keypoint annotation, Lin et al. 2014, arXiv:1405.0312.
    edges=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    shoulders=(5, 6),
    hips=(11, 12),
)


_BODY18_JOINTS = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)

# OpenPose's two body models, Cao et al. 2018, arXiv:1812.08008. Right comes before left.
BODY18 = SkeletonLayout(
    name="openpose18",
    joints=_BODY18_JOINTS,
    edges=(
        (1, 2),
        (2, 3),
        (3, 4),
        (1, 5),
        (5, 6),
        (6, 7),
        (1, 8),
        (8, 9),
        (9, 10),
        (1, 11),
        (11, 12),
        (12, 13),
        (1, 0),
        (0, 14),
        (14, 16),
        (0, 15),
        (15, 17),
    ),
    flip_pairs=((5, 2), (6, 3), (7, 4), (11, 8), (12, 9), (13, 10), (15, 14), (17, 16)),
    shoulders=(5, 2),
    hips=(11, 8),
)

BODY25 = SkeletonLayout(
    name="openpose25",
    joints=(
        *_BODY18_JOINTS[:8],
        "mid_hip",
        *_BODY18_JOINTS[8:],
        "left_big_toe",
        "left_small_toe",
        "left_heel",
        "right_big_toe",
        "right_small_toe",
        "right_heel",
    ),
    edges=(
        (1, 2),
        (2, 3),
        (3, 4),
        (1, 5),
        (5, 6),
        (6, 7),
        (1, 8),
        (8, 9),
        (9, 10),
        (10, 11),
        (8, 12),
        (12, 13),
        (13, 14),
        (1, 0),
        (0, 15),
        (15, 17),
        (0, 16),
        (16, 18),
        (14, 19),
        (19, 20),
        (14, 21),
        (11, 22),
        (22, 23),
        (11, 24),
    ),
    flip_pairs=(
        (5, 2),
        (6, 3),
        (7, 4),
        (12, 9),
        (13, 10),
        (14, 11),
        (16, 15),
        (18, 17),
        (19, 22),
        (20, 23),
        (21, 24),
    ),
    shoulders=(5, 2),
    hips=(12, 9),
)


def _coco17_places(layout: SkeletonLayout) -> tuple[int, ...]:
    return tuple(layout.joints.index(joint) for joint in COCO17.joints)


# Joints V -> the place of each COCO-17 joint. Those that begin with COCO-17 and add feet, head,
# face or hands: Halpe-26, -68 and -136 (Fang et al. 2022, arXiv:2211.03375), COCO-WholeBody's 133
# (Jin et al. 2020, arXiv:2007.11858).
_COCO17_PLACES = {
    18: _coco17_places(BODY18),
    25: _coco17_places(BODY25),
    **dict.fromkeys((17, 26, 68, 133, 136), tuple(range(17))),
}


def to_coco17(keypoints: np.ndarray) -> np.ndarray:
    """Take the COCO-17 joints out of a larger layout, known by its number of joints.

    OpenPose's neck, middle of the hips and feet are dropped: COCO-17 does not have them. No joint
    is made up: the mean of two joints never stands for a third.

    Args:
        keypoints: (..., V, D) with V = 17, 18 (OpenPose COCO), 25 (OpenPose body), 26, 68 or 136
            (Halpe), or 133 (COCO-WholeBody).

    Returns:
        (..., 17, D) keypoints.

    Raises:
        ValueError: no layout has V joints; the message follows the name of the file.
    """
    num_joints = keypoints.shape[-2]
    if num_joints not in _COCO17_PLACES:
        known = ", ".join(map(str, sorted(_COCO17_PLACES)))
        raise ValueError(
            f"has {num_joints} joints for each person, which is no layout that holds the 17 of "
            f"COCO (known: {known} joints)"
        )
    return keypoints[..., _COCO17_PLACES[num_joints], :]


def swap_left_right(keypoints: np.ndarray, layout: SkeletonLayout = COCO17) -> np.ndarray:
    """Exchange left and right joints of (..., V, D) keypoints, as a mirror does."""
    return keypoints[..., layout.mirror_order(), :]


def normalize_keypoints(
    keypoints: np.ndarray, mode: Normalization, layout: SkeletonLayout = COCO17
) -> np.ndarray:
    """Put keypoints into the frame of reference of the main person's body.

    The origin is the middle of the hips and the unit the torso, mid-hip to mid-shoulder. Mode
    "clip" takes the median of both over all frames, which keeps the path of the body through the
    clip (a fall moves down); mode "frame" takes each frame's own, which removes it. Where the hips
    were not seen the middle of all seen joints stands in, where the torso was not seen a third
    of the body's extent.

    Args:
        keypoints: (N, M, V, 3) x, y in pixels and confidence; person 0 is the main one; a joint
            with confidence 0 is undetected.
        mode: "clip", "frame", or "none": unchanged.
        layout: names hips and shoulders.

    Returns:
        (N, M, V, 3) float32, undetected joints exactly (0, 0, 0).
    """
    if mode == "none":
        return keypoints.astype(np.float32)
    if mode == "clip":
        body = BodyTrack.of(keypoints, layout)
        origin, unit = body.origin[None], np.full((1, 1), body.unit())
    else:
        origin, unit = _frames_of_reference(keypoints[:, 0].astype(np.float64), layout)
    placed = (keypoints[..., :2] - origin[:, None, None]) / unit[:, None, None]
    seen = keypoints[..., 2:] > 0
    return np.where(seen, np.concatenate((placed, keypoints[..., 2:]), axis=-1), 0.0).astype(
        np.float32
    )


@dataclass(frozen=True, slots=True)
class BodyTrack:
    """What decides the frame of reference of a clip, whatever crop of its frames is looked at.

    A crop moves and stretches x and y, each for itself, and perhaps mirrors x: the origin moves
    along, and the unit follows from the two factors. So a clip is measured once, not in each epoch.

    Attributes:
        origin: (2,) float64 x, y: median middle of the hips, or of all seen joints; NaN where
            nobody was seen.
        spans: (N, 2) float64 x, y from the hips to the shoulders, NaN where one was not seen.
        extents: (N, 2) float64 width and height of the seen joints, NaN where there are none.
    """

    origin: np.ndarray
    spans: np.ndarray
    extents: np.ndarray

    @classmethod
    def of(cls, keypoints: np.ndarray, layout: SkeletonLayout = COCO17) -> "BodyTrack":
        """Measure the main person of (N, M, V, 3) keypoints."""
        person = keypoints[:, 0].astype(np.float64)
        hips, middle = (_median_of_clip(points)[0] for points in _places(person, layout))
        return cls(np.where(np.isnan(hips), middle, hips), *_spans(person, layout))

    def unit(self, scale: tuple[float, float] = (1.0, 1.0)) -> float:
        """Return the median length of the torso, or its guess, in frames stretched by `scale`."""
        return float(self.units(np.array([scale]))[0])

    def units(self, scales: np.ndarray) -> np.ndarray:
        """Return the units (S,) in frames stretched by each of `scales` (S, 2)."""
        torso, body = _lengths(self.spans, self.extents, (scales[:, :1], scales[:, 1:]))
        units = _median_of_numbers(torso)
        guessed = np.isnan(units)
        if guessed.any():
            units[guessed] = _median_of_numbers(body[guessed])
        return np.where(units > 0, units, 1.0)


def _median_of_numbers(lengths: np.ndarray) -> np.ndarray:
    """Return the median (S,) of each row of (S, N) that is not NaN; NaN where all are."""
    ordered = np.sort(lengths, axis=1)  # NaN comes last
    rows, count = np.arange(len(ordered)), (~np.isnan(ordered)).sum(axis=1)
    return (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2]) / 2


def _frames_of_reference(
    person: np.ndarray, layout: SkeletonLayout
) -> tuple[np.ndarray, np.ndarray]:
    """Return the origin (N, 2) and the unit (N, 1) of each frame for itself."""
    hips, middle = _places(person, layout)
    torso, body = _lengths(*_spans(person, layout))
    unit = np.where(np.isnan(torso), body, torso)
    return np.where(np.isnan(hips), middle, hips), np.where(unit > 0, unit, 1.0)[:, None]


def _places(person: np.ndarray, layout: SkeletonLayout) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of the hips and of all joints, each (N, 2), NaN where unseen."""
    return _middle(person[:, layout.hips]), _middle(person)


def _spans(person: np.ndarray, layout: SkeletonLayout) -> tuple[np.ndarray, np.ndarray]:
    """Return x, y from hips to shoulders and the size of the seen joints' box, each (N, 2)."""
    span = _middle(person[:, layout.shoulders]) - _middle(person[:, layout.hips])
    seen = np.where(person[..., 2:] > 0, person[..., :2], np.nan)
    return span, np.fmax.reduce(seen, axis=1) - np.fmin.reduce(seen, axis=1)


def _lengths(
    spans: np.ndarray, extents: np.ndarray, scale: tuple[Any, Any] = (1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Return the torso's length and its guess from the body's extent, each (N,), NaN if unseen.

    For factors x, y of shape (S, 1) each (S, N).
    """
    (scale_x, scale_y), (x, y) = scale, spans.T
    extent = np.maximum(scale_x * extents[:, 0], scale_y * extents[:, 1])
    torso = np.sqrt((scale_x * x) ** 2 + (scale_y * y) ** 2)
    return np.where(torso > _LEAST_TORSO_SHARE * extent, torso, np.nan), _TORSO_SHARE * extent


def _middle(joints: np.ndarray) -> np.ndarray:
    """Return the mean (N, 2) of the detected ones among (N, J, 3) joints, NaN if there is none."""
    seen = joints[..., 2:] > 0
    count = seen.sum(axis=1)
    total = (joints[..., :2] * seen).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _median_of_clip(values: np.ndarray) -> np.ndarray:
    """Return the median (1, D) of the rows of (N, D) that are measured, NaN if none is."""
    measured = values[~np.isnan(values).any(axis=1)]
    return np.median(measured, axis=0, keepdims=True) if len(measured) else values[:1]
