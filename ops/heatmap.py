"""Heatmaps of joints: one image channel for networks that see RGB, volumes for skeleton models."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from torch import Tensor

# Beyond this many standard deviations a Gaussian is exactly 0. Its tail would be 1 % of the peak,
# and further out denormal numbers, which made the product below 7 times slower.
_REACH = 3.0


def joint_heatmap(
    keypoints: np.ndarray,
    height: int,
    width: int,
    sigma: float | tuple[float, float],
    truncate: bool = False,
) -> np.ndarray:
    """Draw a Gaussian of peak 1 at every joint of every person, summed and clipped to 1.

    Each Gaussian is cut at 3 sigma to a rectangle. Pixel (i, j) covers [j, j+1) x [i, i+1) and is
    measured at its centre. A joint that is undetected, or not inside the image, is not drawn.

    Args:
        keypoints: (T, M, V, 3) x, y in pixels of the image and confidence; 0 is undetected.
        height: H, pixels.
        width: W, pixels.
        sigma: standard deviation in pixels, or one each for x and y.
        truncate: put every joint at the centre of its pixel, as the published heatmap does (half
            a pixel of error on average); for comparisons.

    Returns:
        (T, H, W) float32 in [0, 1].

    Source: Bianchi & Lanz 2025, arXiv:2503.04470, early fusion.
    """
    sigma_x, sigma_y = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
    joints = keypoints.reshape(len(keypoints), -1, 3)  # (T, M*V, 3)
    x, y, confidence = joints[..., 0], joints[..., 1], joints[..., 2]
    is_drawn = (confidence > 0) & (x > 0) & (x < width) & (y > 0) & (y < height)
    if truncate:
        x, y = np.floor(x) + 0.5, np.floor(y) + 0.5
    # A Gaussian in two dimensions is the product of two in one: all joints are one matrix product.
    columns = _gaussians(x, width, sigma_x)  # (T, M*V, W)
    rows = _gaussians(y, height, sigma_y)  # (T, M*V, H)
    rows *= is_drawn[..., None]
    heatmap = rows.swapaxes(1, 2) @ columns  # (T, H, W)
    torch.from_numpy(heatmap).clamp_(max=1)  # 5 times faster than numpy's minimum
    return heatmap


def _gaussians(centre: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Sample one Gaussian per centre (T, J) at `size` pixel centres: (T, J, size) float32."""
    pixel = np.arange(size, dtype=np.float32) + np.float32(0.5)
    distance = pixel - centre[..., None].astype(np.float32)
    distance /= np.float32(sigma)
    is_near = np.abs(distance) <= _REACH
    exponent = np.square(distance, out=distance)
    exponent *= np.float32(-0.5)
    # Far away it would be denormal numbers, which are slow to make even if nobody uses them.
    np.maximum(exponent, np.float32(-0.5 * (_REACH + 1) ** 2), out=exponent)
    gaussians = np.exp(exponent, out=exponent)
    gaussians *= is_near
    return gaussians


# ---------------------------------------------------------------- volumes of skeleton models

# Scores below it are not drawn, as in published volumes.
_LEAST_SCORE = 1e-3
# No coordinate is taken for further out, pixels; and a distance, beyond any between such, where
# every Gaussian and its gradient are exactly 0.
_OUTMOST, _FAR = 1e4, 1e6
# How many pixels are drawn at a time: with what is computed on the way, some hundred megabytes.
_MOST_PIXELS = 2**25

Limbs = Sequence[tuple[int, int]]


def joint_volumes(
    skeletons: Tensor,
    size: tuple[int, int],
    sigma: float = 0.6,
    *,
    with_scores: bool = True,
    scaling: float = 1.0,
) -> Tensor:
    """Draw a heatmap volume for every joint: a Gaussian as high as the joint's score.

    Unlike in `joint_heatmap` each joint is a channel, people are combined by their maximum, and the
    Gaussian of x = 5 peaks at pixel 5, because published weights have seen it so. Its window is
    the published one too: [int(x - 3 sigma), int(x + 3 sigma)], where int rounds towards 0.

    Args:
        skeletons: (B, T, M, V, 3) x, y in pixels and score. Scores below 0.001, and joints with
            NaN, are not drawn.
        size: (height, width) of the image that x and y belong to.
        sigma: standard deviation, pixels of the volume.
        with_scores: False draws all those joints as high as 1.
        scaling: of coordinates and size, before anything is drawn.

    Returns:
        (B, V, T, H, W) float32, on the device of the skeletons.

    Raises:
        ValueError: the skeletons have another shape, or size or sigma is not positive.

    Source: Duan et al. 2022, arXiv:2104.13586, section 3.2.
    """
    joints = [(joint, joint) for joint in range(skeletons.shape[-2])]
    return _draw(skeletons, joints, size, sigma, with_scores, scaling)


def limb_volumes(
    skeletons: Tensor,
    limbs: Limbs,
    size: tuple[int, int],
    sigma: float = 0.6,
    *,
    with_scores: bool = True,
    scaling: float = 1.0,
) -> Tensor:
    """Draw a heatmap volume for every limb: a Gaussian of the distance to the segment.

    A limb is as high as the lower score of its ends. One shorter than a pixel is drawn as its
    first joint alone, with that joint's score. The window is the box of both ends, grown as that
    of a joint.

    Args:
        skeletons: as for `joint_volumes`.
        limbs: L pairs of joints, in the order of the channels.
        size: as for `joint_volumes`, and so are sigma, with_scores and scaling.
        sigma: standard deviation, pixels of the volume.
        with_scores: see there.
        scaling: see there.

    Returns:
        (B, L, T, H, W) float32, on the device of the skeletons.

    Raises:
        ValueError: as `joint_volumes`, or there are no limbs.

    Source: Duan et al. 2022, arXiv:2104.13586, section 3.2.
    """
    return _draw(skeletons, limbs, size, sigma, with_scores, scaling)


def mirror_volumes(volumes: Tensor, order: np.ndarray | Sequence[int]) -> Tensor:
    """Mirror (B, K, T, H, W) volumes: left and right change places, as pixels and as channels.

    Args:
        volumes: of joints or limbs.
        order: (K,) the channel that takes each place: `SkeletonLayout.mirror_order` or
            `limb_mirror_order`.
    """
    places = torch.as_tensor(np.asarray(order), device=volumes.device)
    return volumes.index_select(1, places).flip(-1)


def _draw(
    skeletons: Tensor,
    limbs: Limbs,
    size: tuple[int, int],
    sigma: float,
    with_scores: bool,
    scaling: float,
) -> Tensor:
    if skeletons.ndim != 5 or skeletons.shape[-1] != 3 or not limbs or skeletons.shape[2] < 1:
        raise ValueError(
            f"volumes need skeletons (B, T, M, V, 3) of M >= 1 people and at least one channel, "
            f"got {tuple(skeletons.shape)} and {len(limbs)}"
        )
    height, width = (int(side * scaling + 0.5) for side in size)
    if min(height, width) < 1 or sigma <= 0:
        raise ValueError(f"a volume needs a size and a sigma above 0, got {size} and {sigma}")
    segments = Segments.of(skeletons, limbs, sigma, with_scores, scaling)
    if skeletons.device.type == "cpu" and not _is_traced() and not skeletons.requires_grad:
        loop = _compiled_loop()
        if loop is not None:
            return loop(segments, height, width, sigma)  # type: ignore[no-any-return]
    return _draw_whole(segments, height, width, sigma)


@cache
def _compiled_loop() -> Callable[..., Tensor] | None:
    """Import the loop for CPUs when it is first needed; None where numba does not work."""
    try:
        return importlib.import_module("ops.heatmap_cpu").draw_windows  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 - a broken installation raises anything
        return None  # whole images are drawn instead: the same numbers, slower


def _is_traced() -> bool:
    """Say whether a graph is being made, which no number of the input may steer."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


@dataclass(frozen=True, slots=True)
class Segments:
    """What is drawn, in pixels: segments; those of joints have no length. S is any shape.

    Attributes:
        middle: (2, *S) x and y.
        direction: (2, *S) from end to end, of length 1.
        half: (*S) half of the length.
        low: (2, *S) the first column and row of the window, maybe outside of the volume.
        high: (2, *S) the last ones.
        peak: (*S) the height of the Gaussian; 0 where there is nothing to be drawn.
    """

    middle: Tensor
    direction: Tensor
    half: Tensor
    low: Tensor
    high: Tensor
    peak: Tensor

    @classmethod
    def of(
        cls, skeletons: Tensor, limbs: Limbs, sigma: float, with_scores: bool, scaling: float
    ) -> "Segments":
        """Take the segments of limbs from skeletons (B, T, M, V, 3); S is (M, B, L, T)."""
        ends = torch.tensor(limbs, device=skeletons.device).t()  # (2, L)
        found = skeletons.float().permute(4, 2, 0, 3, 1)  # (3, M, B, V, T)
        xy = (found[:2] * scaling).clamp(-_OUTMOST, _OUTMOST)  # NaN stays NaN
        score = torch.where(xy.isnan().any(dim=0), 0, found[2])
        first, last = (score.index_select(2, joints) for joints in ends)
        start, end = (xy.index_select(3, joints) for joints in ends)
        is_drawn = torch.minimum(first, last) >= _LEAST_SCORE  # False for NaN
        start, span = torch.where(is_drawn, start, 0), torch.where(is_drawn, end - start, 0)

        square = (span * span).sum(dim=0)
        is_point = square < 1
        length = torch.where(is_point, 1, square).sqrt()
        span = torch.where(is_point, 0, span)
        along_x = span.new_tensor([1.0, 0.0]).view(2, 1, 1, 1, 1)
        peak = torch.where(is_point, first, torch.minimum(first, last))
        peak = peak if with_scores else torch.ones_like(peak)
        reach = 3 * sigma
        return cls(
            middle=start + span / 2,
            direction=torch.where(is_point, along_x, span / length),
            half=torch.where(is_point, 0, length / 2),
            low=torch.trunc(start + span.clamp(max=0) - reach),
            high=torch.trunc(start + span.clamp(min=0) + reach),
            peak=torch.where(is_drawn, peak, 0),
        )

    def map(self, change: Callable[[Tensor], Tensor]) -> "Segments":
        """Return the segments with all tensors changed, which have S as their last axes."""
        return Segments(*(change(getattr(self, field.name)) for field in fields(self)))

    def gaussians(self, left: Tensor, top: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
        """Return (*S, h, w): what each segment draws on h x w pixels that begin at left, top."""
        (across_x, along_x), (across_y, along_y) = (
            self._distances(axis, corner, side)
            for axis, corner, side in ((0, left, size[1]), (1, top, size[0]))
        )
        beyond = (along_y[..., :, None] + along_x[..., None, :]).abs_()  # (*S, h, w)
        beyond = beyond.sub_(self.half[..., None, None]).clamp_(min=0)
        across = across_y[..., :, None] + across_x[..., None, :]
        square = across.square_().addcmul_(beyond, beyond)
        return square.mul_(-0.5 / sigma**2).exp_() * self.peak[..., None, None]

    def _distances(self, axis: int, corner: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return what one axis adds to the distances across and along the segment: (*S, side)."""
        pixel = corner[..., None] + torch.arange(side, device=corner.device)
        offset = pixel - self.middle[axis][..., None]
        is_inside = (pixel >= self.low[axis][..., None]) & (pixel <= self.high[axis][..., None])
        normal = self.direction[0] if axis else -self.direction[1]
        across = torch.where(is_inside, offset * normal[..., None], _FAR)
        return across, offset * self.direction[axis][..., None]


def _draw_whole(segments: Segments, height: int, width: int, sigma: float) -> Tensor:
    """Draw (B, L, T, H, W), every segment on all pixels: for GPUs, for graphs and for gradients."""
    frames = at_once = max(1, segments.peak.shape[-1])
    if not _is_traced():
        in_a_frame = segments.peak.numel() // frames * height * width
        at_once = max(1, _MOST_PIXELS // max(1, in_a_frame))
    volumes = []
    for start in range(0, frames, at_once):
        chunk = segments.map(lambda tensor, at=start: tensor[..., at : at + at_once])  # type: ignore[misc]
        corner = torch.zeros_like(chunk.half)
        volumes.append(chunk.gaussians(corner, corner, (height, width), sigma).amax(dim=0))
    return volumes[0] if len(volumes) == 1 else torch.cat(volumes, dim=2)
