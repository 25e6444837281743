"""A picture of the data set: clips in rows, and below some the keypoints that a model is given."""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.drawing import GAP, glow, join_strip
from datasets.synthetic.choreography import FALL, FPS, LANDED
from datasets.synthetic.clip import RenderedClip, render_clip
from ops.skeleton import COCO17


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One clip of the sheet, and whether its keypoints are shown in a second row."""

    seed: int
    label: int
    with_keypoints: bool = False


# First one jump with both its ends, then a landing that looks like a fall, and another fall.
ROWS = (
    SheetRow(seed=45, label=LANDED, with_keypoints=True),
    SheetRow(seed=45, label=FALL, with_keypoints=True),
    SheetRow(seed=2, label=LANDED),
    SheetRow(seed=11, label=FALL),
)
_TILE = (240, 135)  # width, height in pixels; five make 1200
_OVERSAMPLING = 2  # drawn larger, then averaged
_CAPTIONS = {LANDED: ("LANDED", (24, 110, 62)), FALL: ("FALL", (176, 42, 42))}


def draw_contact_sheet(rows: tuple[SheetRow, ...] = ROWS) -> np.ndarray:
    """Return (H, 1208, 3) uint8 RGB: for each row the clip from approach to exit."""
    strips = []
    for row in rows:
        size = (_TILE[0] * _OVERSAMPLING, _TILE[1] * _OVERSAMPLING)
        clip = render_clip(size, row.seed, row.label, noise=False)
        moments = key_moments(clip)
        tiles = [_shrink(clip.frames[i]) for i in moments]
        glowing = [_glow(tile, clip, i) for tile, i in zip(tiles, moments, strict=True)]
        _caption(tiles[0], *_CAPTIONS[row.label])
        strips.append(join_strip(tiles))
        if row.with_keypoints:
            strips.append(join_strip(glowing))
    gap = np.full((GAP, strips[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for strip in strips for part in (strip, gap)][:-1])


def key_moments(clip: RenderedClip) -> list[int]:
    """Return frames that tell the story: approach, take-off, flight, touch-down, what follows."""
    jump, last = clip.facts.jump, len(clip.frames) - 1
    air = jump.landing - jump.takeoff
    seconds = (
        jump.takeoff - 0.55,
        jump.takeoff - 0.06,
        jump.takeoff + 0.55 * air,
        jump.landing + 0.4,
        jump.landing + 0.95,
    )
    return [int(np.clip(round(s * FPS), 0, last)) for s in seconds]


def _shrink(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, _TILE, interpolation=cv2.INTER_AREA)


def _glow(tile: np.ndarray, clip: RenderedClip, index: int) -> np.ndarray:
    """Darken a tile and draw the detected keypoints as heatmap and skeleton."""
    keypoints = clip.keypoints[index] / (_OVERSAMPLING, _OVERSAMPLING, 1)
    return glow(tile, keypoints[None], COCO17, sigma=_TILE[1] / 36)


def _caption(tile: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 0.5, 1)
    cv2.rectangle(tile, (0, 0), (width + 14, height + 12), colour, -1)
    cv2.putText(
        tile, text, (7, height + 6), cv2.FONT_HERSHEY_DUPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
    )
