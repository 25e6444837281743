"""Letters in pictures: of any script that a font of this system has."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Letters that the font at hand does not have are looked for in these, where a system has them.
_OTHER_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans CJK KR",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
    "Noto Sans Devanagari",
    "Nirmala UI",
    "Noto Sans",
    "Segoe UI Emoji",
)


@lru_cache(maxsize=1)
def fonts() -> tuple[Path, ...]:
    """Return the files of fonts to draw with: matplotlib's own, then what else the system has."""
    from matplotlib import font_manager, get_data_path  # noqa: PLC0415 - takes a second to load

    own = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    found = {font.name: Path(font.fname) for font in font_manager.fontManager.ttflist}
    return (own, *(found[name] for name in _OTHER_FONTS if name in found))


def font_families() -> list[str]:
    """Return the names of `fonts`, for matplotlib, which takes each letter where it is found."""
    from matplotlib import font_manager  # noqa: PLC0415 - takes a second to load

    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _OTHER_FONTS if name in there)]


@lru_cache(maxsize=512)
def font_for(text: str) -> Path:
    """Return the first of `fonts` that has all letters of a text, else the one that has most."""
    if text.isascii():
        return fonts()[0]
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415 - takes a second to load

    missing = {}
    for path in fonts():
        face = FT2Font(path)
        missing[path] = sum(face.get_char_index(ord(letter)) == 0 for letter in text)
    return min(missing, key=missing.__getitem__)


@lru_cache(maxsize=16)
def _face(path: Path, pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), pixels)


@lru_cache(maxsize=1024)
def letters(text: str, pixels: int) -> np.ndarray:
    """Return a line of text as (H, W) float32 opacity, 0-1; H depends on the size alone.

    Args:
        text: in one line.
        pixels: size of the font.
    """
    path = font_for(text)
    face = _face(path, pixels)
    height, width = line_height(pixels), max(1, round(face.getlength(text)))
    picture = Image.new("L", (width, height))
    # Fonts differ in height: the baselines are put on one line.
    ImageDraw.Draw(picture).text((0, round(pixels * 0.95)), text, fill=255, font=face, anchor="ls")
    opacity = np.asarray(picture, np.float32) / 255
    opacity.setflags(write=False)
    return opacity


def line_height(pixels: int) -> int:
    """Return the height of a line of text of a font of so many pixels."""
    return round(pixels * 1.25)


def write(
    picture: np.ndarray,
    text: str,
    place: tuple[int, int],
    pixels: int,
    colour: tuple[int, int, int],
) -> None:
    """Write a line of text into a picture (H, W, 3) uint8; what lies outside is cut off.

    Args:
        picture: changed in place.
        text: in one line.
        place: (x, y) of the upper left corner; may lie outside.
        pixels: size of the font.
        colour: RGB, 0-255.
    """
    opacity = letters(text, pixels)
    x, y = place
    left, top = max(0, -x), max(0, -y)
    area = picture[
        max(y, 0) : max(y + opacity.shape[0], 0), max(x, 0) : max(x + opacity.shape[1], 0)
    ]
    part = opacity[top : top + area.shape[0], left : left + area.shape[1], None]
    area[...] = (area + part * (np.array(colour, np.float32) - area) + 0.5).astype(np.uint8)
