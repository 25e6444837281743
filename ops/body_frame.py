"""Normalisation of keypoints by the frame of reference of the main person's body."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ops.skeleton import COCO17, SkeletonLayout

Normalization = Literal["clip", "frame", "none"]

# Share of the body's extent (head to feet, or arm span) that the torso takes: restores the
# torso's unit where the torso itself was not seen.
_TORSO_SHARE = 1 / 3
# A torso seen end-on has no length; below this share of the extent it is no measure of size.
_LEAST_TORSO_SHARE = 1 / 10


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
