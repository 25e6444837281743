"""The rink: a top view of the ice and a front view of boards and crowd, drawn once and reused.

Both are planes of the world. A texture says where it lies, so a camera needs no other fact to put
it in place.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[float, ...]

POOL_SIZE = 24  # rinks that all clips of a data set share, tinted anew for each clip
ICE_HALF_LENGTH, ICE_NEAR, ICE_FAR = 21.0, 9.0, -11.0  # metres: |x|, then z
WALL_HALF_LENGTH, WALL_HEIGHT = 21.0, 6.0
BOARDS = 1.15  # metres
_REFLECTION = 1.3  # metres below the ice line in which the boards are mirrored
_ICE_DETAIL, _WALL_DETAIL = 25, 40  # pixels per metre at detail 1


@dataclass(frozen=True, slots=True)
class Rink:
    """Textures of one rink, RGB.

    `ice` (rows from z = ICE_FAR to ICE_NEAR, columns along x) is uint8 (h, w, 3). `wall` (rows
    from y = WALL_HEIGHT down, through 0, to the mirrored boards) is uint8 (h, w, 4); its alpha is
    255 above the ice and fades below, where the ice reflects it.
    """

    ice: np.ndarray
    ice_scale: float  # pixels per metre
    wall: np.ndarray
    wall_scale: float


@lru_cache(maxsize=POOL_SIZE)
def load_rink(seed: int, index: int, detail: int) -> Rink:
    """Draw rink `index` of the pool of `seed`; once per process, then from memory.

    Args:
        seed: the data set's.
        index: in [0, POOL_SIZE).
        detail: 1 for frames of about 90 rows, 2 for twice as fine.
    """
    rng = np.random.default_rng([seed, index, 0x1CE])
    return Rink(
        ice=draw_ice(rng, detail),
        ice_scale=float(_ICE_DETAIL * detail),
        wall=draw_wall(rng, detail),
        wall_scale=float(_WALL_DETAIL * detail),
    )


def draw_ice(rng: np.random.Generator, detail: int) -> np.ndarray:
    """Draw the ice from above: clouding, painted lines, blade scratches, glow of the lamps."""
    scale = _ICE_DETAIL * detail
    width = int(2 * ICE_HALF_LENGTH * scale)
    height = int((ICE_NEAR - ICE_FAR) * scale)
    base = np.array([205.0, 214.0, 221.0]) + rng.uniform(-10, 8) + rng.uniform(-4, 4, 3)
    shade = sum(
        strength * _cloud(rng, width, height, columns)
        for strength, columns in ((7, 8), (4, 36), (2, 190))
    )
    ice = np.clip(base + np.asarray(shade)[..., None], 0, 255).astype(np.uint8)
    _paint_lines(ice, rng, scale)
    _scratch(ice, rng, scale)
    return ice


def _cloud(rng: np.random.Generator, width: int, height: int, columns: int) -> np.ndarray:
    """Return (height, width) smooth noise on a grid of `columns` cells."""
    cells = rng.normal(size=(max(2, columns * height // width), columns)).astype(np.float32)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def _paint_lines(ice: np.ndarray, rng: np.random.Generator, scale: int) -> None:
    """Paint, under the ice, what a hockey rink has: a line across, sometimes a circle."""
    height, width = ice.shape[:2]
    paint = ice.copy()
    red, blue = (186, 92, 96), (86, 112, 168)
    if rng.random() < 0.6:
        x = int(rng.uniform(0.2, 0.8) * width)
        thickness = int(rng.uniform(0.2, 0.32) * scale)
        colour = red if rng.random() < 0.5 else blue
        cv2.line(paint, (x, 0), (x, height), colour, thickness, cv2.LINE_AA)
    if rng.random() < 0.45:
        centre = (int(rng.uniform(0.25, 0.75) * width), int(rng.uniform(0.3, 0.7) * height))
        cv2.circle(paint, centre, int(4.5 * scale), blue, max(1, int(0.06 * scale)), cv2.LINE_AA)
        cv2.circle(paint, centre, max(1, int(0.3 * scale)), blue, -1, cv2.LINE_AA)
    paint = cv2.GaussianBlur(paint, (0, 0), 0.04 * scale)
    ice[:] = cv2.addWeighted(ice, 0.35, paint, 0.65, 0)


def _scratch(ice: np.ndarray, rng: np.random.Generator, scale: int) -> None:
    """Leave the arcs of other skaters' blades."""
    height, width = ice.shape[:2]
    marks = np.zeros((height, width), np.uint8)
    for _ in range(260):
        centre = tuple(int(c) for c in rng.uniform((0, 0), (width, height)))
        radius = rng.uniform(0.8, 9) * scale
        axes = (int(radius), int(radius * rng.uniform(0.4, 1)))
        start = rng.uniform(0, 360)
        cv2.ellipse(
            marks, centre, axes, rng.uniform(0, 180), start, start + rng.uniform(10, 70),
            int(rng.uniform(40, 150)), 1, cv2.LINE_AA,
        )  # fmt: skip
    bright = ice.astype(np.float32) + 0.16 * marks[..., None]
    ice[:] = np.clip(bright, 0, 255).astype(np.uint8)


def draw_wall(rng: np.random.Generator, detail: int) -> np.ndarray:
    """Draw crowd and boards from the front, with the boards' reflection hung below."""
    scale = _WALL_DETAIL * detail
    width, height = int(2 * WALL_HALF_LENGTH * scale), int(WALL_HEIGHT * scale)
    boards = int(BOARDS * scale)
    wall = np.empty((height, width, 3), np.uint8)
    _draw_crowd(wall[: height - boards], rng, scale)
    _draw_boards(wall[height - boards :], rng, scale)
    wall[:] = cv2.GaussianBlur(wall, (0, 0), 0.02 * scale)  # the skater is in focus, not this

    depth = int(_REFLECTION * scale)
    mirrored = cv2.GaussianBlur(wall[::-1][:depth], (0, 0), 0.05 * scale)
    colour = np.concatenate([wall, mirrored])
    fade = 90.0 * np.linspace(1, 0, depth) ** 1.5
    alpha = np.concatenate([np.full(height, 255.0), fade]).astype(np.uint8)
    return np.dstack([colour, np.broadcast_to(alpha[:, None], colour.shape[:2])])


def _draw_crowd(stand: np.ndarray, rng: np.random.Generator, scale: int) -> None:
    """Fill `stand` with rows of seated people in a darkened hall, out of focus."""
    height, width = stand.shape[:2]
    light = rng.uniform(0.4, 0.75)
    hall = np.array([64.0, 66.0, 78.0]) * light * rng.uniform(0.9, 1.1, 3)
    stand[:] = hall.astype(np.uint8)
    row_height, seat = 0.52 * scale, 0.46 * scale
    for row in range(int(height / row_height) + 1):
        y = int(row * row_height)
        step = tuple(hall * 0.7)
        cv2.rectangle(stand, (0, y + int(0.8 * row_height)), (width, y + int(row_height)), step, -1)
        full = rng.uniform(0.7, 0.95)
        for x in np.arange(rng.uniform(0, seat), width, seat):
            if rng.random() < full:
                _draw_spectator(stand, (x + rng.normal(0, 0.05 * scale), y), scale, light, rng)
    stand[:] = cv2.GaussianBlur(stand, (0, 0), 0.05 * scale)
    falloff = np.linspace(0.45, 1.0, height)[:, None, None]  # the back rows sit in the dark
    stand[:] = (stand * falloff).astype(np.uint8)


def _draw_spectator(
    stand: np.ndarray, at: tuple[float, float], scale: int, light: float, rng: np.random.Generator
) -> None:
    grey, tint = rng.uniform(40, 190), rng.uniform(0.86, 1.14, 3)
    clothes = tuple(np.clip(grey * tint * light, 0, 255))
    skin = tuple(np.array([214.0, 172.0, 148.0]) * rng.uniform(0.45, 1.0) * light)
    x, y = int(at[0]), int(at[1] + rng.uniform(0.0, 0.08) * scale)
    shoulders, head = (x, y + int(0.38 * scale)), (x, y + int(0.12 * scale))
    cv2.ellipse(stand, shoulders, (int(0.19 * scale), int(0.22 * scale)), 0, 0, 360, clothes, -1)
    cv2.circle(stand, head, max(1, int(0.1 * scale)), skin, -1, cv2.LINE_AA)


def _draw_boards(boards: np.ndarray, rng: np.random.Generator, scale: int) -> None:
    """Paint white boards with adverts, a coloured rail on top and a kick plate below."""
    height, width = boards.shape[:2]
    boards[:] = np.clip(rng.uniform(196, 232) + rng.uniform(-6, 6, 3), 0, 255).astype(np.uint8)
    x = 0
    while x < width:
        advert = int(rng.uniform(2.0, 5.0) * scale)
        if rng.random() < 0.8:
            _draw_advert(boards[:, x : x + advert], rng, scale)
        x += advert
    rail, kick = int(0.09 * scale), int(0.2 * scale)
    boards[:rail] = muted_colour(rng, value=(110, 200))
    boards[-kick:] = (206, 184, 92) if rng.random() < 0.5 else (78, 104, 160)
    boards[-kick - max(1, scale // 40) : -kick] = (120, 124, 130)


def _draw_advert(panel: np.ndarray, rng: np.random.Generator, scale: int) -> None:
    height, width = panel.shape[:2]
    ground = muted_colour(rng, value=(40, 215)) if rng.random() < 0.65 else (232.0, 233.0, 235.0)
    ink = (238.0, 239.0, 240.0) if sum(ground) < 400 else muted_colour(rng, value=(30, 110))
    gap = max(1, int(0.04 * scale))
    top, bottom = int(0.13 * scale), height - int(0.24 * scale)
    cv2.rectangle(panel, (gap, top), (width - gap, bottom), ground, -1)
    letters = "".join(rng.choice(list("ABCDEFGHIKLMNOPRSTUVXZ"), int(rng.integers(3, 8))))
    font = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX)[rng.integers(2)]
    size, stroke = 0.017 * scale, max(1, int(0.055 * scale))
    (text_width, text_height), _ = cv2.getTextSize(letters, font, size, stroke)
    origin = ((width - text_width) // 2, (top + bottom + text_height) // 2)
    cv2.putText(panel, letters, origin, font, size, ink, stroke, cv2.LINE_AA)


def muted_colour(
    rng: np.random.Generator,
    value: tuple[float, float],
    saturation: tuple[float, float] = (0.1, 0.5),
) -> Colour:
    """Draw an RGB colour (0-255) of any hue, never a garish one."""
    hue, grey = rng.uniform(0, 6), rng.uniform(*value)
    strength = rng.uniform(*saturation)
    distance = np.abs((hue - np.array([0.0, 2.0, 4.0]) + 3) % 6 - 3)
    return tuple(float(c) for c in grey * (1 - strength * np.clip(distance - 1, 0, 1)))
