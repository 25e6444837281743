"""Maps drawn over the frames of a clip, and strips of such pictures as JPEG."""

from collections.abc import Sequence

import cv2
import numpy as np
from torch import Tensor

from datasets.check.strips import Strip
from datasets.drawing import GLOW, draw_bones, join_strip
from ops.skeleton import SkeletonLayout

# Height of a tile; its width follows the field of view, within these, pixels.
TILE_HEIGHT = 80
_LEAST_WIDTH, _MOST_WIDTH = 48, 160
_QUALITY = 75
_SKELETON = (255, 214, 10)
# What lets through, and what turns the sign: they differ in brightness too, for eyes that do not
# see colours.
FOR = np.array((255.0, 176.0, 60.0))
AGAINST = np.array((64.0, 110.0, 255.0))


def tile_size(width: float, height: float) -> tuple[int, int]:
    """Return (width, height) of a tile that shows a field of view, pixels."""
    return int(np.clip(round(TILE_HEIGHT * width / height), _LEAST_WIDTH, _MOST_WIDTH)), TILE_HEIGHT


def as_tiles(frames: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Resize (T, H, W, 3) uint8 frames to tiles."""
    is_smaller = frames.shape[2] > size[0]
    how = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return [cv2.resize(frame, size, interpolation=how) for frame in frames]


def seen_frames(frames: Tensor) -> np.ndarray:
    """Turn frames (T, 3, S, S) uint8 of a batch into pictures (T, S, S, 3)."""
    return frames.movedim(1, -1).numpy()


def with_skeletons(
    tiles: Sequence[np.ndarray], people: np.ndarray, layout: SkeletonLayout
) -> list[np.ndarray]:
    """Draw (T, M, V, 3) keypoints, in pixels of the tiles, over copies of them."""
    drawn = [tile.copy() for tile in tiles]
    for tile, some in zip(drawn, people, strict=True):
        for person in some:
            draw_bones(tile, person, layout, _SKELETON)
    return drawn


def add_glow(tile: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Darken a tile and let a heatmap (h, w) of 0 to 1 glow on it."""
    height, width = tile.shape[:2]
    smooth = cv2.resize(heat.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    dark = 0.25 * (0.5 * tile + 0.5 * tile.mean(axis=-1, keepdims=True))
    return np.clip(dark + smooth[..., None] * GLOW, 0, 255).astype(np.uint8)


def overlay(tile: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Colour a greyed tile by a map (h, w) of values from -1 to 1, scaled up to its size.

    0 leaves the grey, 1 is orange, -1 is blue.
    """
    height, width = tile.shape[:2]
    smooth = cv2.resize(values.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    strength = np.clip(np.abs(smooth), 0, 1)[..., None]
    grey = 0.55 * tile.mean(axis=-1, keepdims=True)
    colour = np.where(smooth[..., None] > 0, FOR, AGAINST)
    # Light and shade of the frame show through the colour.
    shaded = colour * (0.45 + 0.55 * tile.mean(axis=-1, keepdims=True) / 255)
    return np.clip((1 - strength) * grey + strength * shaded, 0, 255).astype(np.uint8)


def draw_importance(
    tile: np.ndarray, people: np.ndarray, importance: np.ndarray, layout: SkeletonLayout
) -> np.ndarray:
    """Draw people over a darkened tile, each detected joint as a disk.

    Args:
        tile: (H, W, 3) uint8.
        people: (V, 3) or (M, V, 3) in pixels of the tile.
        importance: (V,), -1 to 1: area and colour of the disk.
        layout: of the keypoints.
    """
    picture = (0.35 * tile).astype(np.uint8)
    persons = people.reshape(-1, *people.shape[-2:])
    for person in persons:
        draw_bones(picture, person, layout, (150, 150, 150))
    values = np.tile(importance, len(persons))
    for (x, y, confidence), value in zip(persons.reshape(-1, 3), values, strict=True):
        if confidence > 0 and abs(x) < 2000 and abs(y) < 2000:
            colour = tuple((FOR if value > 0 else AGAINST).tolist())
            radius = max(1, round(6 * float(np.sqrt(abs(value)))))
            cv2.circle(picture, (round(float(x)), round(float(y))), radius, colour, -1, cv2.LINE_AA)
    return picture


def encode_strip(caption: str, *rows: Sequence[np.ndarray]) -> Strip:
    """Put rows of tiles below each other and compress them."""
    strips = [join_strip(row) for row in rows]
    gap = np.full((2, strips[0].shape[1], 3), 255, np.uint8)
    picture = np.concatenate([part for strip in strips for part in (strip, gap)][:-1])
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return Strip(caption, encoded.tobytes(), (picture.shape[1], picture.shape[0]))
