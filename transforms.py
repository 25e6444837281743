"""Geometry and colour of a clip: frames and keypoints move together.

Coordinates are continuous: pixel i covers [i, i+1), so an image of width W spans [0, W], its
mirror is x -> W - x, and a crop resized by a factor s maps x to s (x - left). Frames are
(T, H, W, 3) uint8 RGB; keypoints (..., V, 3) hold x, y in pixels of those frames and a confidence,
and an undetected joint stays exactly (0, 0, 0) through every change. (torchvision's
`tv_tensors.KeyPoints` knows neither undetected joints nor left and right, so we do not use it.)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as colour

from ops.pixels import RGB_MEAN
from ops.skeleton import COCO17, SkeletonLayout, swap_left_right

# Published recipe: the validation crop is 224 of a short side of 256.
_VAL_SHARE = 224 / 256
CROP_SCALES = (1.0, 0.875, 0.75, 0.66)
# Where training crops may lie: the dark fields of a 5 x 5 chess board.
_PLACES = tuple((i, j) for i in range(5) for j in range(5) if (i + j) % 2 == 0)
# A JPEG can be decoded at these shares of its size.
_REDUCTIONS = (8, 4, 2)

# Crops are squares over the short side, as published, or have the shape of the frame.
FieldOfView = Literal["square", "frame"]


# ---------------------------------------------------------------- geometry


@dataclass(frozen=True, slots=True)
class CropBox:
    """A rectangle of whole pixels, which may reach beyond the frame."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """One crop, one resize to a square, and perhaps a mirror: all that happens to a view.

    Attributes:
        box: in pixels of the frame at its full size.
        out_size: S.
        flip: mirror afterwards.
        reduction: k, frames are given at 1/k of their size. Sides of the box are multiples of it.
    """

    box: CropBox
    out_size: int
    flip: bool = False
    reduction: int = 1

    @property
    def scale(self) -> tuple[float, float]:
        """Factors of x and y."""
        return self.out_size / self.box.width, self.out_size / self.box.height

    @property
    def unflipped(self) -> "Geometry":
        """Return the same without the mirror."""
        return replace(self, flip=False) if self.flip else self

    def reduced(self, reduction: int) -> "Geometry":
        """Return the same for frames at 1/`reduction` of their size: the box moves to their grid.

        It may lose up to `reduction` - 1 pixels of its sides and move by as many to the upper left.
        """
        box = self.box
        sides = (box.left, box.top, box.width, box.height)
        snapped = CropBox(*(side - side % reduction for side in sides))
        return replace(self, box=snapped, reduction=reduction)

    def resize(self, frame: np.ndarray) -> np.ndarray:
        """Cut one frame (H, W, 3) uint8 and resize it to (S, S, 3); the mirror is not applied.

        What the box has beyond the frame is black.
        """
        box, k = self.box, self.reduction
        cut = _cut(frame, CropBox(box.left // k, box.top // k, box.width // k, box.height // k))
        # As pixel after pixel torch's antialiased resize takes 0.16 ms for 340x300 -> 224, plane
        # after plane 0.27; cv2's INTER_AREA, equal to within 3 of 255, 0.77.
        # (A new axis by indexing has stride 0, which torch does not take for that layout.)
        pixels = torch.from_numpy(np.ascontiguousarray(cut).reshape(1, *cut.shape))
        size = (self.out_size, self.out_size)
        small = F.interpolate(
            pixels.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True
        )
        return small[0].permute(1, 2, 0).numpy()

    def apply_to_frames(self, frames: np.ndarray) -> np.ndarray:
        """Turn (T, H, W, 3) uint8 frames into (T, S, S, 3)."""
        out = np.empty((len(frames), self.out_size, self.out_size, 3), np.uint8)
        for frame, place in zip(frames, out, strict=True):
            place[:] = self.resize(frame)
        return mirrored(out) if self.flip else out

    def apply_to_keypoints(
        self, keypoints: np.ndarray, layout: SkeletonLayout = COCO17
    ) -> np.ndarray:
        """Move (..., V, 3) keypoints with the frames; joints may come to lie outside the crop."""
        (scale_x, scale_y), box = self.scale, self.box
        matrix = np.array([[scale_x, 0, -scale_x * box.left], [0, scale_y, -scale_y * box.top]])
        if not self.flip:
            return move_keypoints(keypoints, matrix)
        mirror = np.array([[-1, 0, self.out_size], [0, 1, 0], [0, 0, 1]])
        moved = move_keypoints(keypoints, mirror[:2] @ np.vstack((matrix, (0, 0, 1))))
        return swap_left_right(moved, layout)


def _cut(frame: np.ndarray, box: CropBox) -> np.ndarray:
    """Return the (height, width, 3) pixels of a box, 0 beyond the frame."""
    right, bottom = box.left + box.width, box.top + box.height
    left, top = max(box.left, 0), max(box.top, 0)
    inside = frame[top : max(bottom, top), left : max(right, left)]
    if inside.shape[:2] == (box.height, box.width):
        return inside
    out = np.zeros((box.height, box.width, *frame.shape[2:]), frame.dtype)
    top, left = top - box.top, left - box.left
    out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out


def mirrored(frames: np.ndarray) -> np.ndarray:
    """Return (T, H, W) or (T, H, W, 3) frames mirrored left to right."""
    out = np.empty(frames.shape, frames.dtype)
    for frame, place in zip(frames, out, strict=True):
        cv2.flip(frame, 1, dst=place)  # 25 times faster than numpy on three channels
    return out


def reduce_decoding(geometries: Sequence[Geometry]) -> tuple[Geometry, ...]:
    """Return crops of a frame that is decoded as small as they all allow.

    Where every crop keeps at least the pixels of its output, a JPEG need not be decoded at its
    full size. See docs/PERFORMANCE.md for what that changes.
    """
    for reduction in _REDUCTIONS:
        found = tuple(geometry.reduced(reduction) for geometry in geometries)
        if all(min(g.box.width, g.box.height) >= g.out_size * reduction for g in found):
            return found
    return tuple(geometries)


def move_keypoints(keypoints: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a (2, 3) affine matrix to x, y of (..., V, 3) keypoints; undetected joints stay 0."""
    moved = keypoints.astype(np.float32)
    moved[..., :2] = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    moved[keypoints[..., 2] <= 0] = 0
    return moved


def train_geometry(
    width: int,
    height: int,
    out_size: int,
    rng: np.random.Generator,
    may_flip: bool = True,
    field: FieldOfView = "square",
    scales: Sequence[float] = CROP_SCALES,
) -> Geometry:
    """Draw a multi-scale crop of a frame, and a mirror with probability 1/2.

    Width and height of the crop are those of the field of view (the square over the short side,
    or the frame) times one of `scales`, at most one step of that ladder apart; its place is one of
    13: corners, centre, middles of the edges, and the four points halfway between centre
    and corners.

    Source: Wang et al. 2016, arXiv:1608.00859, section 3.2, with the 13 places of its released
    recipe, which GSF and GSP use.
    """
    pairs = crop_sizes(width, height, field, tuple(scales))
    crop_width, crop_height = pairs[rng.integers(len(pairs))]
    column, row = _PLACES[rng.integers(len(_PLACES))]
    left, top = (width - crop_width) * column // 4, (height - crop_height) * row // 4
    flip = bool(rng.integers(2)) and may_flip
    return Geometry(CropBox(left, top, crop_width, crop_height), out_size, flip)


@lru_cache(maxsize=4096)
def crop_sizes(
    width: int, height: int, field: FieldOfView, scales: tuple[float, ...]
) -> tuple[tuple[int, int], ...]:
    """Return the (width, height) that a training crop may have: one entry a draw."""
    widths, heights = (
        [int(s * scale) or 1 for scale in scales] for s in _whole(width, height, field)
    )
    pairs = ((i, j) for i in range(len(scales)) for j in range(len(scales)) if abs(i - j) <= 1)
    return tuple((widths[i], heights[j]) for i, j in pairs)


def eval_geometries(
    width: int, height: int, out_size: int, crops: int = 1, field: FieldOfView = "square"
) -> tuple[Geometry, ...]:
    """Return the crops of one frame for evaluation.

    With field "square":
    1: the centre, 7/8 of the short side, as resizing the short side to 256 and cutting out 224.
    3: squares of the whole short side at the start, middle and end of the long side.
    5: four corners and the centre, at the size of 1.
    10: those 5 and their mirror images, also for data sets whose labels tell left from right
    (a mirrored view then votes for the wrong side: use 5 there).
    With field "frame" 1 is the whole frame, and the others are boxes of 7/8 of it.
    """
    # The crop count that shows the whole field of view.
    covering = 3 if field == "square" else 1
    share = 1 if crops == covering else _VAL_SHARE
    box = [max(round(side * share), 1) for side in _whole(width, height, field)]
    right, bottom = width - box[0], height - box[1]
    centre = (right // 2, bottom // 2)
    corners = ((0, 0), (right, 0), (0, bottom), (right, bottom))
    places = {
        1: (centre,),
        3: ((0, 0), centre, (right, bottom)),
        5: (*corners, centre),
        10: (*corners, centre),
    }
    if crops not in places:
        raise ValueError(f"test crops are one of {', '.join(map(str, places))}, got {crops}")
    views = tuple(Geometry(CropBox(left, top, *box), out_size) for left, top in places[crops])
    return (*views, *(replace(view, flip=True) for view in views)) if crops == 10 else views


def _whole(width: int, height: int, field: FieldOfView) -> tuple[int, int]:
    short = min(width, height)
    return (width, height) if field == "frame" else (short, short)


# ---------------------------------------------------------------- RandAugment


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What RandAugment does to a clip of any number of channels: heatmaps are drawn afterwards.

    Attributes:
        colours: (name, strength) of operations on RGB, in order.
        matrix: (2, 3) affine map of x, y, measured from the frame's centre in units of its side.
    """

    colours: tuple[tuple[str, float], ...]
    matrix: np.ndarray

    def apply_to_frames(self, frames: np.ndarray) -> np.ndarray:
        """Change (T, S, S, 3) uint8 frames, all alike; what comes in from outside is grey."""
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        for name, strength in self.colours:
            video = _COLOURS[name](video, strength)
        frames = np.ascontiguousarray(video.permute(0, 2, 3, 1).numpy())
        if np.array_equal(self.matrix, np.eye(2, 3)):
            return frames
        size = frames.shape[1]
        # cv2 counts from the centre of the first pixel, we from its corner.
        matrix = self._in_pixels(size, origin=0.5)
        grey = tuple(round(255 * mean) for mean in RGB_MEAN)
        return np.stack(
            [cv2.warpAffine(frame, matrix, (size, size), borderValue=grey) for frame in frames]
        )

    def apply_to_keypoints(self, keypoints: np.ndarray, size: int) -> np.ndarray:
        """Move (..., V, 3) keypoints of frames of side `size` along; joints may leave the frame."""
        return move_keypoints(keypoints, self._in_pixels(size, origin=0.0))

    def _in_pixels(self, size: int, origin: float) -> np.ndarray:
        centre = np.full(2, size / 2 - origin)
        linear, shift = self.matrix[:, :2], self.matrix[:, 2] * size
        return np.column_stack((linear, centre + shift - linear @ centre))


def draw_augmentation(
    rng: np.random.Generator, num_ops: int = 2, magnitude: int = 9
) -> Augmentation:
    """Draw `num_ops` of RandAugment's 14 operations at strength `magnitude` of 30.

    The affine ones are joined into one map, applied after the colours, so that pixels are
    interpolated once.

    Source: Cubuk et al. 2019, arXiv:1909.13719; ranges as in torchvision.
    """
    level = magnitude / 30
    colours: list[tuple[str, float]] = []
    matrix = np.eye(3)
    names = ("identity", *_AFFINE, *_COLOURS)
    for name in (names[i] for i in rng.integers(len(names), size=num_ops)):
        signed = level if rng.integers(2) else -level
        if name in _AFFINE:
            matrix = _AFFINE[name](signed) @ matrix
        elif name in _COLOURS:
            colours.append((name, signed))
    return Augmentation(tuple(colours), matrix[:2])


def _rotation(level: float) -> np.ndarray:
    angle = level * math.radians(30)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _offset(row: int, column: int, range_: float) -> Callable[[float], np.ndarray]:
    """Return a function that puts a strength times its range into one place of the identity."""

    def matrix(level: float) -> np.ndarray:
        affine = np.eye(3)
        affine[row, column] = level * range_
        return affine

    return matrix


_AFFINE: dict[str, Callable[[float], np.ndarray]] = {
    "shear_x": _offset(0, 1, 0.3),
    "shear_y": _offset(1, 0, 0.3),
    "translate_x": _offset(0, 2, 150 / 331),
    "translate_y": _offset(1, 2, 150 / 331),
    "rotate": _rotation,
}

# Explicit parameters only: nothing here touches torch's global generator.
_COLOURS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": lambda video, level: colour.adjust_brightness(video, 1 + 0.9 * level),
    "color": lambda video, level: colour.adjust_saturation(video, 1 + 0.9 * level),
    "contrast": lambda video, level: colour.adjust_contrast(video, 1 + 0.9 * level),
    "sharpness": lambda video, level: colour.adjust_sharpness(video, 1 + 0.9 * level),
    "posterize": lambda video, level: colour.posterize(video, 8 - round(4 * abs(level))),
    "solarize": lambda video, level: colour.solarize(video, 255 * (1 - abs(level))),
    "autocontrast": lambda video, _: colour.autocontrast(video),
    "equalize": lambda video, _: colour.equalize(video),
}
