"""The built-in data set: procedural figure-skating jumps, landed or fallen, with keypoints.

It needs no download. Everything follows from a seed: `render_clip` gives one clip in memory,
`ensure_synthetic` writes the whole set to disk in the layout of FR-FS.
"""

from datasets.synthetic.choreography import FALL, FPS, LANDED
from datasets.synthetic.clip import RenderedClip, SimulatedClip, render_clip, simulate_clip
from datasets.synthetic.writer import CLASS_NAMES, VERSION, SyntheticSpec, ensure_synthetic

__all__ = [
    "CLASS_NAMES",
    "FALL",
    "FPS",
    "LANDED",
    "VERSION",
    "RenderedClip",
    "SimulatedClip",
    "SyntheticSpec",
    "ensure_synthetic",
    "render_clip",
    "simulate_clip",
]
