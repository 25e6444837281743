"""What a sheet of pictures holds; `sheets.py` draws it, and takes seconds to load for that."""

from dataclasses import dataclass

from datasets.check.findings import Finding


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures side by side.

    Attributes:
        caption: what they show.
        jpeg: bytes of the picture.
        size: (width, height), pixels.
    """

    caption: str
    jpeg: bytes
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One clip in pictures.

    Attributes:
        clip: its name.
        split: the list that names it.
        label: name of its class.
        num_frames: N.
        findings: what is wrong with it.
        strips: pictures; none when it cannot be opened.
        trouble: why there are no, or fewer, pictures.
    """

    clip: str
    split: str
    label: str
    num_frames: int
    findings: tuple[Finding, ...]
    strips: tuple[Strip, ...]
    trouble: str
