"""The published data path of early fusion, in our own words, to measure ours against.

Every frame is decoded whole by Pillow and resized to 640 x 360; the joints become a heatmap of
that size, which is packed with the frame as an RGBA picture; pictures are cropped and resized one
by one; all are stacked, made a tensor and normalised. Nothing else in the project uses it. Each
step is a function of its own, so that each can be timed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from transforms import train_geometry

FRAME = (640, 360)
SIGMA = 10
_REACH = 30  # pixels to each side of a joint
_SHORT_SIDE = 256  # of the frame that evaluation crops are cut from
_MEAN = (0.485, 0.456, 0.406, 0.5)
_STD = (0.229, 0.224, 0.225, 0.5)

Pictures = list[Image.Image]


def published_train_clip(
    paths: Sequence[Path], joints: np.ndarray, size: int, rng: np.random.Generator
) -> Tensor:
    """Load a training view: (T, 4, S, S) float32, normalised.

    Args:
        paths: of the T frames.
        joints: (T, V, 2) x, y in pixels of a 640 x 360 frame.
        size: of the crop, S.
        rng: draws crop and mirror.
    """
    return normalise(stack(crop_for_training(_packed(paths, joints), size, rng)))


def published_test_view(paths: Sequence[Path], joints: np.ndarray, size: int, view: int) -> Tensor:
    """Load one of the 10 crops of a clip by itself: (T, 4, S, S) float32, normalised."""
    return normalise(stack(crop_for_test(_packed(paths, joints), size, view)))


def _packed(paths: Sequence[Path], joints: np.ndarray) -> Pictures:
    return [
        pack(fit(decode(path)), draw_heatmap(points))
        for path, points in zip(paths, joints, strict=True)
    ]


# ---------------------------------------------------------------- steps


def decode(path: Path) -> Image.Image:
    """Read a frame."""
    with Image.open(path) as image:
        return image.convert("RGB")


def fit(image: Image.Image) -> Image.Image:
    """Resize a frame to 640 x 360, Pillow's default way (bicubic)."""
    return image.resize(FRAME)


def draw_heatmap(joints: np.ndarray) -> np.ndarray:
    """Add a patch of 61 x 61 pixels for each joint of (V, 2): (360, 640) float32 in [0, 1]."""
    width, height = FRAME
    heatmap = np.zeros((height, width), np.float32)
    steps = np.arange(-_REACH, _REACH + 1, dtype=float)
    for x, y in joints:
        if not (0 < x < width and 0 < y < height):
            continue
        patch = np.exp(-(steps[:, None] ** 2 + steps**2) / (2 * SIGMA**2))
        column, row = int(x), int(y)
        left, right = max(column - _REACH, 0), min(column + _REACH + 1, width)
        top, bottom = max(row - _REACH, 0), min(row + _REACH + 1, height)
        rows = slice(top - row + _REACH, bottom - row + _REACH)
        columns = slice(left - column + _REACH, right - column + _REACH)
        heatmap[top:bottom, left:right] += patch[rows, columns]
    return np.clip(heatmap, 0, 1)


def pack(image: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Make the heatmap the alpha plane of its frame."""
    plane = (heatmap * 255).astype(np.uint8)
    return Image.fromarray(np.dstack([np.asarray(image), plane]))


def crop_for_training(images: Pictures, size: int, rng: np.random.Generator) -> Pictures:
    """Cut one multi-scale crop out of all frames of a clip, resize it, perhaps mirror it."""
    view = train_geometry(*FRAME, size, rng)
    box = view.box
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    crops = [image.crop(corners) for image in images]
    crops = [crop.resize((size, size), Image.Resampling.BILINEAR) for crop in crops]
    return [_mirrored(crop) for crop in crops] if view.flip else crops


def crop_for_test(images: Pictures, size: int, view: int) -> Pictures:
    """Resize the short side to 256, cut out a corner (0 to 3) or the centre (4); 5 to 9 mirror."""
    width = round(FRAME[0] * _SHORT_SIDE / FRAME[1])
    images = [i.resize((width, _SHORT_SIDE), Image.Resampling.BILINEAR) for i in images]
    right, bottom = width - size, _SHORT_SIDE - size
    corners = ((0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2))
    left, top = corners[view % 5]
    crops = [image.crop((left, top, left + size, top + size)) for image in images]
    return crops if view < 5 else [_mirrored(crop) for crop in crops]


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def stack(images: Pictures) -> np.ndarray:
    """Join the pictures of a clip along their channels: (S, S, 4 T) uint8."""
    return np.concatenate([np.asarray(image) for image in images], axis=2)


def normalise(pixels: np.ndarray) -> Tensor:
    """Turn (S, S, 4 T) into (T, 4, S, S) float32, each channel by its own constants."""
    video = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div(255)
    for channel, plane in enumerate(video):
        plane.sub_(_MEAN[channel % 4]).div_(_STD[channel % 4])
    return video.unflatten(0, (-1, 4))
