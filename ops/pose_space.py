"""The space that skeletons live in: normalised, cut to the people, resized, mirrored; who is who.

Tracks are (N, M, V, D): N frames, M people, V joints, and x, y, confidence (D = 3, pixels) or
x, y, z, confidence (D = 4, metres). Joints that were not detected are 0 everywhere and, where no
docstring says otherwise, stay so; as in the published transforms, a coordinate that is exactly 0
counts as not detected. All functions return new float32 arrays. Sizes are (width, height).

Boxes and sizes are returned and taken, never kept: frames can be cut along.
"""

import math
from typing import Literal, NamedTuple

import numpy as np

from ops.skeleton import NTU25, SkeletonLayout

# Below this length, metres, or sine of an angle an axis has no direction.
_LEAST_AXIS = 1e-6


class Box(NamedTuple):
    """A rectangle in pixels, which may reach beyond the frame."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.right - self.left, self.bottom - self.top


def detected(tracks: np.ndarray) -> np.ndarray:
    """Return (N, M, V) bool: which joints of (N, M, V, D) tracks lie anywhere but at 0.

    In three dimensions a joint at the origin that has a confidence counts too: there the spine
    comes to lie. In pixels, files of others leave confidences at (0, 0).
    """
    # Column by column: `any` over so short an axis takes 5 times as long.
    found = (tracks[..., 0] != 0) | (tracks[..., 1] != 0)
    for column in range(2, 4 if tracks.shape[-1] == 4 else 2):
        found |= tracks[..., column] != 0
    return found


# ---------------------------------------------------------------- normalised coordinates


def prenormalize_2d(
    tracks: np.ndarray,
    size: tuple[float, float],
    missing: Literal["zero", "keep"] = "zero",
    threshold: float = 0.01,
) -> np.ndarray:
    """Measure x, y from the middle of the frame, in halves of its sides: -1 to 1.

    Args:
        tracks: (N, M, V, 3) in pixels.
        size: (width, height) of the frame, pixels.
        missing: "zero" puts joints of a confidence up to `threshold` to 0, as PYSKL does. "keep"
            treats them like others, as MMAction2 does: those not detected come to lie at -1.
        threshold: see `missing`.

    Raises:
        ValueError: a side is not above 0, or `missing` is unknown.
    """
    _check_size(size)
    if missing not in ("zero", "keep"):
        raise ValueError(f"missing joints are zero or keep, got {missing!r}")
    half = np.array([side / 2 for side in size], np.float32)
    return _rescaled(tracks, half, half, threshold if missing == "zero" else None)


def prenormalize_2d_auto(
    tracks: np.ndarray, threshold: float = 0.01, least_side: float = 10.0
) -> np.ndarray:
    """Measure x, y in the box of all joints that were seen, which becomes -1 to 1.

    Each axis by itself. Joints of a confidence up to `threshold` become 0. Where a side of the
    box is not above `least_side` (pixels) coordinates stay as they are.
    """
    seen = tracks[..., 2] > threshold
    middle, half = np.zeros(2, np.float32), np.ones(2, np.float32)
    if seen.any():
        columns = [tracks[..., axis][seen] for axis in (0, 1)]
        least, most = np.array([(c.min(), c.max()) for c in columns], np.float32).T
        if (most - least > max(least_side, 0)).all():
            middle, half = (most + least) / 2, (most - least) / 2
    return _rescaled(tracks, middle, half, threshold)


def _rescaled(
    tracks: np.ndarray, middle: np.ndarray, half: np.ndarray, threshold: float | None
) -> np.ndarray:
    out = tracks.astype(np.float32)
    seen = None if threshold is None else tracks[..., 2] > threshold
    # Column by column: numpy takes 4 times as long for pairs (x, y) in the last axis.
    for axis in (0, 1):
        column = out[..., axis]
        column -= middle[axis]
        column /= half[axis]
        if seen is not None:
            column *= seen
    return out


def prenormalize_3d(tracks: np.ndarray, layout: SkeletonLayout = NTU25) -> np.ndarray:
    """Put the main person upright at the origin, shoulders along x, and the others along.

    The person seen in most frames becomes the first, and frames without that person go. The
    middle of the spine in the first frame becomes the origin; one turn takes the spine of that
    frame, upwards, to z, another the shoulders, left to right, to x. An axis
    without length turns nothing.

    Args:
        tracks: (N, M, V, 4) in metres.
        layout: of joints mid_hip and spine_mid, as the NTU's; of others the spine runs from the
            middle of the hips, the origin, to that of the shoulders; without hips and shoulders
            the centre joint is the origin, and nothing turns.

    Returns:
        (N', M, V, 4) with 1 <= N' <= N; the tracks as they are if nobody is in them.

    Source: the preparation of NTU RGB+D in Shahroudy et al. 2016, arXiv:1604.02808,
    by the first frame alone as Shi et al. 2019 released it, arXiv:1805.07694.
    """
    if tracks.shape[-1] != 4 or tracks.shape[2] != len(layout):
        raise ValueError(f"{layout.name} takes (N, M, {len(layout)}, 4), got {tracks.shape}")
    out = tracks.astype(np.float32)
    # As published, what is within 1e-8 of 0 is nobody.
    seen = np.abs(out[..., :3]).max(axis=(2, 3), initial=0) > 1e-8  # (N, M)
    if not seen.any():
        return out
    order = np.arange(out.shape[1])
    main = int(seen.sum(axis=0).argmax())
    order[[0, main]] = main, 0
    out = np.take(out[seen[:, main]], order, axis=1)
    points = out[..., :3].reshape(-1, 3).astype(np.float64)
    found = (points != 0).any(axis=-1)
    first = points[: out.shape[2]]  # the main person in the first frame, a view
    points -= _landmarks(first, layout)[0].copy()
    points *= found[:, None]
    for target in (2, 0):
        _, spine, shoulders = _landmarks(first, layout)
        turn = _turn_to(spine if target == 2 else shoulders, target)
        if turn is not None:
            points[:] = points @ turn.T
    out[..., :3] = points.reshape(*out.shape[:3], 3)
    return out


def _landmarks(
    person: np.ndarray, layout: SkeletonLayout
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the origin, the spine (upwards) and the shoulders (left to right) of (V, 3) joints."""
    nothing = np.zeros(3, np.float32)
    across = nothing
    if layout.shoulders:
        left, right = layout.shoulders
        across = person[right] - person[left]
    if {"mid_hip", "spine_mid"} <= set(layout.joints):
        origin = person[layout.joints.index("spine_mid")]
        return origin, origin - person[layout.joints.index("mid_hip")], across
    if layout.hips and layout.shoulders:
        origin = person[list(layout.hips)].mean(axis=0)
        return origin, person[list(layout.shoulders)].mean(axis=0) - origin, across
    return person[layout.centre], nothing, nothing


def _turn_to(vector: np.ndarray, axis: int) -> np.ndarray | None:
    """Return the (3, 3) smallest turn that takes a vector to an axis, None where there is none.

    A vector that points the opposite way has no smallest turn and stays, as published.
    """
    length = float(np.linalg.norm(vector))
    if length < _LEAST_AXIS:
        return None
    start, target = vector.astype(np.float64) / length, np.eye(3)[axis]
    normal = np.cross(start, target)
    sine = float(np.linalg.norm(normal))
    if sine < _LEAST_AXIS:
        return None
    x, y, z = normal / sine
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + sine * cross + (1 - start @ target) * cross @ cross  # Rodrigues


# ---------------------------------------------------------------- boxes


def compact_box(
    tracks: np.ndarray,
    padding: float = 0.25,
    threshold: float = 10.0,
    hw_ratio: float | tuple[float, float] | None = 1.0,
    allow_pad: bool = True,
    size: tuple[int, int] | None = None,
) -> Box | None:
    """Return the box around everybody in a clip: what heatmap models see.

    Args:
        tracks: (N, M, V, 3) in pixels.
        padding: share by which the box grows, half of it on each side.
        threshold: pixels; a smaller side means that nothing worth a box was seen.
        hw_ratio: height by width that the box grows to; or the least and the most; None: any.
        allow_pad: the box may leave the frame.
        size: of the frame; needed where the box may not leave it.

    Returns:
        The box, in whole pixels; None where too little was seen: leave the frame as it is.

    Raises:
        ValueError: a ratio is not above 0, or `size` is needed and missing.

    Source: PoseC3D's subjects-centred cropping, Duan et al. 2022, arXiv:2104.13586, section 3.2.
    """
    if not allow_pad and size is None:
        raise ValueError("a box that stays in the frame needs the frame's size")
    spans = []
    for axis in (0, 1):
        values = tracks[..., axis]
        values = values[values != 0]
        if not values.size or float(values.max()) - float(values.min()) < threshold:
            return None
        spans.append((float(values.min()), float(values.max())))
    half_width, half_height = ((high - low) / 2 * (1 + padding) for low, high in spans)
    halves = _grown(half_width, half_height, hw_ratio)
    middles = [(low + high) / 2 for low, high in spans]
    corner = [middle - half for middle, half in zip(middles, halves, strict=True)]
    opposite = [middle + half for middle, half in zip(middles, halves, strict=True)]
    if not allow_pad and size is not None:
        corner = [max(value, 0) for value in corner]
        opposite = [min(value, side) for value, side in zip(opposite, size, strict=True)]
    box = Box(*(int(value) for value in (*corner, *opposite)))  # towards 0, as published
    return box if min(box.size) > 0 else None


def _grown(
    width: float, height: float, hw_ratio: float | tuple[float, float] | None
) -> tuple[float, float]:
    """Return width and height, the one that is too small for the ratio grown."""
    if hw_ratio is None:
        return width, height
    least, most = hw_ratio if isinstance(hw_ratio, tuple) else (hw_ratio, hw_ratio)
    if not 0 < least <= most:
        raise ValueError(f"height by width is above 0, the least first, got {hw_ratio}")
    height = max(least * width, height)
    return max(height / most, width), height


def draw_crop(
    size: tuple[int, int],
    rng: np.random.Generator,
    area: tuple[float, float] = (0.56, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    attempts: int = 10,
) -> Box:
    """Draw a box in a frame by its share of the area and its width by height.

    The share is drawn evenly, the ratio evenly in its logarithm, and both sides are rounded to
    pixels. The first of 10 such draws that fits into the frame is placed in it at random; if
    none fits, the square over the short side is cut out of the middle.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6, with PoseC3D's ranges.
    """
    _check_size(size)
    width, height = size
    ratios = np.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]), size=attempts))
    areas = rng.uniform(*area, size=attempts) * (width * height)
    widths = np.rint(np.sqrt(areas * ratios)).astype(int).clip(1)
    heights = np.rint(np.sqrt(areas / ratios)).astype(int).clip(1)
    fits = np.flatnonzero((widths <= width) & (heights <= height))
    if not len(fits):
        return center_crop(size, (min(size), min(size)))
    box_width, box_height = int(widths[fits[0]]), int(heights[fits[0]])
    left = int(rng.integers(width - box_width + 1))
    top = int(rng.integers(height - box_height + 1))
    return Box(left, top, left + box_width, top + box_height)


def center_crop(size: tuple[int, int], crop: tuple[int, int]) -> Box:
    """Return the box of size `crop` in the middle of a frame; it may be the larger one."""
    left, top = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    return Box(left, top, left + crop[0], top + crop[1])


def short_side_size(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Return the size of a frame whose short side becomes `short`, its shape kept."""
    _check_size(size)
    scale = short / min(size)
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


# ---------------------------------------------------------------- tracks moved


def crop_tracks(tracks: np.ndarray, box: Box) -> np.ndarray:
    """Move x, y of (N, M, V, 3) tracks into a box, whose `size` is that of the new frame.

    Joints may come to lie outside.
    """
    out = tracks.astype(np.float32)
    for axis, start in ((0, box.left), (1, box.top)):
        column = out[..., axis]
        column -= np.float32(start) * (column != 0)
    return out


def resize_tracks(
    tracks: np.ndarray, size: tuple[float, float], new_size: tuple[float, float]
) -> np.ndarray:
    """Move x, y of (N, M, V, 3) tracks as a resize of their frame does."""
    _check_size(size)
    out = tracks.astype(np.float32)
    for axis in (0, 1):
        out[..., axis] *= new_size[axis] / size[axis]
    return out


def flip_tracks(tracks: np.ndarray, width: float, layout: SkeletonLayout) -> np.ndarray:
    """Mirror (N, M, V, 3) tracks of a frame of this width: left and right joints change places."""
    out = tracks.astype(np.float32)
    column = out[..., 0]
    np.subtract(np.float32(width), column, out=column, where=column != 0)
    return np.take(out, layout.mirror_order(), axis=2)


# ---------------------------------------------------------------- people


PeoplePadding = Literal["zero", "loop"]
PeopleOrder = Literal["joints", "area"]


def fit_people(tracks: np.ndarray, num_people: int, mode: PeoplePadding = "zero") -> np.ndarray:
    """Return (N, num_people, V, D) of (N, M, V, D): the first people, in their order.

    Args:
        tracks: any M, also 0.
        num_people: how many a model takes.
        mode: what fills the places left: "zero" nobody, "loop" the same people again.
    """
    num_frames, people, *rest = tracks.shape
    if num_people < 1 or mode not in ("zero", "loop"):
        raise ValueError(f"places are >= 1, filled by zero or loop, got {num_people}, {mode!r}")
    if mode == "loop" and people:
        return np.take(tracks, np.arange(num_people) % people, axis=1).astype(np.float32)
    out = np.zeros((num_frames, num_people, *rest), np.float32)
    kept = min(people, num_people)
    out[:, :kept] = tracks[:, :kept]
    return out


def without_empty_places(tracks: np.ndarray) -> np.ndarray:
    """Return (N, M', V, D) of (N, M, V, D) tracks: the places after the last person are gone."""
    is_there = np.flatnonzero((tracks != 0).any(axis=(0, 2, 3)))
    return tracks[:, : is_there[-1] + 1] if len(is_there) else tracks[:, :1]


def order_people(tracks: np.ndarray, by: PeopleOrder = "joints") -> np.ndarray:
    """Return (N, M, V, D) tracks with the people seen most, or largest, first.

    Args:
        tracks: any M; of equals the earlier stays before the later.
        by: "joints": how many joints were detected in all frames; "area": the sum over the
            frames of the area of the box around the person's joints, by x and y.
    """
    found = detected(tracks)
    if by == "joints":
        rank = found.sum(axis=(0, 2)).astype(np.float64)
    elif by == "area":
        points = tracks[..., :2].astype(np.float64)
        low = np.where(found[..., None], points, math.inf).min(axis=2)
        high = np.where(found[..., None], points, -math.inf).max(axis=2)
        rank = np.where(found.any(axis=2), np.prod(high - low, axis=-1), 0).sum(axis=0)
    else:
        raise ValueError(f"people are ordered by joints or area, got {by!r}")
    return np.take(tracks, np.argsort(-rank, kind="stable"), axis=1).astype(np.float32)


def _check_size(size: tuple[float, float]) -> None:
    if min(size) <= 0:
        raise ValueError(f"a frame has sides above 0, got (width, height) {size}")
