"""Frames with the keypoints of a person drawn over them, and strips of such pictures."""

from collections.abc import Sequence

import cv2
import numpy as np

from ops.heatmap import joint_heatmap
from ops.skeleton import SkeletonLayout

GLOW = np.array([255.0, 150.0, 60.0])
BONE = (255, 244, 224)
# Width of the line between pictures, pixels.
GAP = 2
_SHIFT = 4  # cv2 draws in 1/16 pixels


def draw_bones(
    picture: np.ndarray,
    person: np.ndarray,
    layout: SkeletonLayout,
    colour: tuple[int, int, int] = BONE,
) -> None:
    """Draw the bones between detected joints (V, 3), in pixels of `picture`, into it."""
    seen = person[:, 2] > 0
    # A joint far outside would not fit in 16 bits; its line points the same way.
    places = np.clip(person[:, :2], -2000, 4000)
    points = (places * 16 - 8).round().astype(int).tolist()
    for a, b in layout.edges:
        if seen[a] and seen[b]:
            cv2.line(picture, points[a], points[b], colour, 1, cv2.LINE_AA, _SHIFT)


def glow(tile: np.ndarray, people: np.ndarray, layout: SkeletonLayout, sigma: float) -> np.ndarray:
    """Darken a picture (H, W, 3) and draw the keypoints (M, V, 3) as heatmap and skeletons."""
    height, width = tile.shape[:2]
    heat = joint_heatmap(people[None], height, width, sigma)[0, ..., None]
    grey = tile.mean(axis=-1, keepdims=True)
    dark = 0.25 * (0.5 * tile + 0.5 * grey)
    picture = np.clip(dark + heat * GLOW, 0, 255).astype(np.uint8)
    for person in people:
        draw_bones(picture, person, layout)
    return picture


def join_strip(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures of one height side by side, with a white line between them."""
    gap = np.full((tiles[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)
