"""Random changes of skeletons for training: turned, stretched, sheared, mirrored, noisy, partial.

Tracks are (N, M, V, D): x, y, confidence in pixels (D = 3) or x, y, z, confidence in metres
(D = 4). One change holds for all frames and people of a clip, so that bodies stay bodies; joints
that were not detected stay 0 everywhere.
"""

from dataclasses import dataclass

import numpy as np

from ops.pose_space import detected
from ops.skeleton import SkeletonLayout

# Below this length across the shoulders, metres, a body does not say where its sides are.
_LEAST_AXIS = 1e-6


@dataclass(frozen=True, slots=True)
class SkeletonChange:
    """One draw of `SkeletonAugmentation`: what happens to a clip.

    Attributes:
        matrix: (D - 1, D - 1) linear map of coordinates.
        mirror: left becomes right.
        places: (N',) the moments that the new frames show, in frames of the clip; None: as it is.
        dropped: (M, V) bool, the joints that become undetected in all frames.
        noise: (N', M, V, D - 1), in units of the body's size; None: none.
    """

    matrix: np.ndarray
    mirror: bool
    places: np.ndarray | None
    dropped: np.ndarray
    noise: np.ndarray | None

    def apply(
        self, tracks: np.ndarray, layout: SkeletonLayout, width: float | None = None
    ) -> np.ndarray:
        """Return (N', M, V, D) float32 changed tracks, a new array.

        Args:
            tracks: of the shape that was drawn for. In two dimensions the map is around the
                middle of all detected joints, in three around the origin: normalise before.
            layout: of V joints, to exchange left and right.
            width: of the frame, pixels: where a mirror stands in two dimensions. None: in the
                middle of the detected joints. In three it stands across the shoulders.
        """
        out = tracks.astype(np.float32) if self.places is None else _resampled(tracks, self.places)
        found = detected(out)
        if not found.any():
            return out
        points = out[..., :-1]
        if not np.array_equal(self.matrix, np.eye(len(self.matrix))):
            centre = points[found].mean(axis=0) if len(self.matrix) == 2 else np.float32(0)
            rows = (points - centre).reshape(-1, len(self.matrix))  # one product, not N M small
            points[:] = (rows @ self.matrix.T.astype(np.float32)).reshape(points.shape) + centre
        if self.noise is not None:
            points += self.noise * _body_size(points, found)
        if self.mirror:
            _mirror(points, found, layout, width)
        out[~found] = 0
        out[:, self.dropped] = 0
        return np.take(out, layout.mirror_order(), axis=2) if self.mirror else out


@dataclass(frozen=True, slots=True)
class SkeletonAugmentation:
    """How far skeletons are changed at random; 0 everywhere leaves them as they are.

    Attributes:
        rotate: most degrees, in the plane or about each of three axes.
        scale: most that each axis grows or shrinks, as a share.
        shear: most that each axis leans to another, as a share.
        drop_joints: probability of each joint of each person to be undetected in the whole clip.
        jitter: deviation of each coordinate in each frame, as a share of the body's size.
        flip: probability of a mirror. Not for classes that tell left from right.
        time_scale: most that the speed of the clip's start and of its end, each by itself,
            differs from the recorded one, as a share; in between it changes evenly.

    Raises:
        ValueError: a value is out of its range.

    Source: rotation about each axis and scale of each side as PYSKL, arXiv:2205.09443, offers them
    for upright tracks in three dimensions (its recipes for NTU RGB+D use neither); shear as in
    Rao et al. 2021, arXiv:2008.00188.
    """

    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    drop_joints: float = 0.0
    jitter: float = 0.0
    flip: float = 0.0
    time_scale: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (
            ("rotate", 180), ("scale", 0.99), ("shear", 10), ("drop_joints", 1), ("jitter", 1),
            ("flip", 1), ("time_scale", 0.99),
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name} of skeletons is 0 to {most}, got {value}")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> SkeletonChange:
        """Draw what happens to tracks of this shape (N, M, V, D).

        All but the noise is always drawn, so that one attribute does not change what the others
        do to a clip.
        """
        num_frames, people, joints, dims = *shape[:3], shape[3] - 1
        if dims not in (2, 3):
            raise ValueError(f"tracks are (N, M, V, 3 or 4), got {shape}")
        speeds = 1 + rng.uniform(-self.time_scale, self.time_scale, 2)
        angles = np.radians(rng.uniform(-self.rotate, self.rotate, 1 if dims == 2 else 3))
        stretch = 1 + rng.uniform(-self.scale, self.scale, dims)
        leaning = rng.uniform(-self.shear, self.shear, (dims, dims))
        np.fill_diagonal(leaning, 1)
        mirror = bool(rng.random() < self.flip)
        dropped = rng.random((people, joints)) < self.drop_joints
        places = _moments(num_frames, *speeds) if self.time_scale else None
        noise = None
        if self.jitter:
            rows = num_frames if places is None else len(places)
            noise = rng.standard_normal((rows, people, joints, dims), np.float32)
            noise *= np.float32(self.jitter)
        matrix = _turn(angles) @ np.diag(stretch) @ leaning
        return SkeletonChange(matrix, mirror, places, dropped, noise)

    def apply(
        self,
        tracks: np.ndarray,
        layout: SkeletonLayout,
        rng: np.random.Generator,
        width: float | None = None,
    ) -> np.ndarray:
        """Draw a change and return the tracks changed, see `SkeletonChange.apply`."""
        return self.draw(tracks.shape, rng).apply(tracks, layout, width)


def _turn(angles: np.ndarray) -> np.ndarray:
    """Return the (2, 2) turn in the plane, or the (3, 3) turns about x, then y, then z."""
    cos, sin = np.cos(angles), np.sin(angles)
    if len(angles) == 1:
        return np.array([[cos[0], -sin[0]], [sin[0], cos[0]]])
    matrix = np.eye(3)
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = cos[axis]
        turn[one, two], turn[two, one] = -sin[axis], sin[axis]
        matrix = turn @ matrix
    return matrix


def _moments(num_frames: int, first: float, last: float) -> np.ndarray:
    """Return the (N',) moments of a clip played at a speed that goes evenly from one to another."""
    mean = (first + last) / 2
    count = max(round(num_frames / mean), 1)
    share = np.linspace(0, 1, count)
    return (num_frames - 1) * share * (first + (last - first) / 2 * share) / mean


def _resampled(tracks: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return (N', M, V, D) tracks at moments between frames; what one frame lacks is not blended.

    A joint that was seen in one of two frames only is taken from the nearer one, as it is there.
    """
    before = np.minimum(places.astype(np.int64), len(tracks) - 1)
    after = np.minimum(before + 1, len(tracks) - 1)
    weight = (places - before).astype(np.float32)[:, None, None, None]
    one, two = tracks[before].astype(np.float32), tracks[after].astype(np.float32)
    both = (detected(one) & detected(two))[..., None]
    return np.where(both, one + (two - one) * weight, np.where(weight < 0.5, one, two))


def _body_size(points: np.ndarray, found: np.ndarray) -> np.float32:
    """Return the larger side of the box of a person in a frame, the median over all of them."""
    seen = found[..., None]
    low = np.where(seen, points, np.inf).min(axis=2)
    high = np.where(seen, points, -np.inf).max(axis=2)
    return np.float32(np.median((high - low)[found.any(axis=2)].max(axis=-1)))


def _mirror(
    points: np.ndarray, found: np.ndarray, layout: SkeletonLayout, width: float | None
) -> None:
    """Reflect (N, M, V, D - 1) points in place; left and right keep their places."""
    if points.shape[-1] == 2:
        middle = width / 2 if width is not None else points[..., 0][found].mean()
        np.subtract(np.float32(2 * middle), points[..., 0], out=points[..., 0])
        return
    across, middle = _shoulder_axis(points, found, layout), points[found].mean(axis=0)
    points -= 2 * ((points - middle) @ across)[..., None] * across


def _shoulder_axis(points: np.ndarray, found: np.ndarray, layout: SkeletonLayout) -> np.ndarray:
    """Return the (3,) mean direction from right to left shoulder of the first person, else x."""
    axis = np.array([1, 0, 0], np.float32)
    if not layout.shoulders:
        return axis
    left, right = layout.shoulders
    both = found[:, 0, left] & found[:, 0, right]
    if not both.any():
        return axis
    across = (points[:, 0, left] - points[:, 0, right])[both].mean(axis=0)
    length = np.linalg.norm(across)
    return across / length if length > _LEAST_AXIS else axis
