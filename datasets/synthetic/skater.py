"""Drawing the skater: shaded round cones with a depth buffer, anti-aliased, motion-blurred.

Each part of the body is a cone with round ends. Its outline is that of the two projected end
circles; inside it a surface normal and a depth are known for every pixel, so parts are lit and
hide each other as solid bodies would. S instants of one exposure are drawn at once.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic.body import HEAD_RADIUS, REFERENCE_HEIGHT, Joint
from datasets.synthetic.textures import Colour, muted_colour

# Towards the lamps in camera axes: from the upper left, in front.
_LIGHT = np.array([-0.42, -0.72, -0.55], np.float32)
_AMBIENT, _DIFFUSE, _BOUNCE, _RIM = 0.60, 0.46, 0.07, 0.30


@dataclass(frozen=True, slots=True)
class Look:
    """Colours (RGB, 0-255) and cut of the costume."""

    skin: Colour
    hair: Colour
    top: Colour
    sleeves: Colour
    legs: Colour
    boots: Colour
    skirt: Colour | None
    bun: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Look":
        """Draw a costume that could be worn: muted colours, tights or trousers, skirt or none."""
        skin = np.array([226.0, 184.0, 160.0]) * rng.uniform(0.42, 1.0) * rng.uniform(0.97, 1.03, 3)
        top = np.array(muted_colour(rng, value=(55, 225), saturation=(0.1, 0.65)))
        dark = np.array([36.0, 36.0, 42.0]) * rng.uniform(0.7, 1.4)
        wears_skirt = bool(rng.random() < 0.5)
        legs = skin * 0.96 if wears_skirt and rng.random() < 0.8 else dark
        if not wears_skirt and rng.random() < 0.25:
            legs = top * 0.55
        other = np.array(muted_colour(rng, value=(50, 220), saturation=(0.1, 0.6)))
        skirt = top * 0.88 if rng.random() < 0.65 else other
        sleeves = top if rng.random() < 0.6 else skin
        hair = np.array([58.0, 42.0, 32.0]) * rng.uniform(0.35, 2.4)
        boots = np.array([236.0, 234.0, 230.0]) if rng.random() < 0.55 else dark * 0.9
        return cls(
            skin=tuple(skin),
            hair=tuple(hair),
            top=tuple(top),
            sleeves=tuple(sleeves),
            legs=tuple(legs),
            boots=tuple(boots),
            skirt=tuple(skirt) if wears_skirt else None,
            bun=bool(rng.random() < (0.8 if wears_skirt else 0.15)),
        )
