"""Which frame of a clip a source means by its frame numbers.

OpenPose counts the frames of a video from 0, ffmpeg names images from 1, AlphaPose does the one or
the other. Nothing is guessed: of the ways to count, those that some clip rules out are dropped, and
exactly one must be left for all clips. Numbers in the very names of the frame images decide too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from datasets.importers.people import Span
from errors import InputError

_ASK = (
    "say with --frame_offset what to add to the source's numbers to get those of the frames "
    "(1 where the source counts from 0 and the frames from 1)"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The frames of a clip that keypoints are wanted for.

    Attributes:
        clip: its name.
        count: frames of the clip, N.
        found: frames on disk, N or more.
        first: number of the first on disk; 0 where the data set has no frames.
        has_frames: whether it has.
        first_stem: file name of the first frame image without its ending, "" where there is none.
        size: (width, height) of the frames, None when nobody knows.
    """

    clip: str
    count: int
    found: int
    first: int = 0
    has_frames: bool = False
    first_stem: str = ""
    size: tuple[int, int] | None = None

    def fits(self, span: Span, offset: int) -> bool:
        """Say whether all numbers of a source are frames once `offset` is added."""
        last = self.first + self.found - 1
        return self.first <= span.first + offset and span.last + offset <= last

    def offsets(self, span: Span) -> dict[str, int]:
        """Return the ways to count that fit: way -> offset."""
        ways = {"from 0": self.first, "from 1": self.first - 1}
        if self.has_frames:
            ways["as on disk"] = 0
        return {way: offset for way, offset in ways.items() if self.fits(span, offset)}

    def names_frame(self, span: Span) -> bool:
        """Say whether the source's lowest number stands in the very name of a frame image.

        A bare number, without zeros in front or a word, could be any program's own.
        """
        number = str(span.first)
        if not self.first_stem or span.sample == number or not self.fits(span, 0):
            return False
        digits = len(self.first_stem) - len(self.first_stem.rstrip("0123456789"))
        prefix = self.first_stem[: len(self.first_stem) - digits]
        return span.sample == f"{prefix}{number:0>{digits}}"


def choose_offsets(
    targets: Mapping[str, Target], spans: Mapping[str, Span], given: int | None = None
) -> tuple[dict[str, int], dict[str, str]]:
    """Find what to add to the numbers of a source to get those on disk.

    Args:
        targets: clip -> its frames.
        spans: clip -> what the source has; the clips of `targets`.
        given: the offset that the user said, None to find it.

    Returns:
        clip -> offset, and clip -> what is wrong, for clips that no way to count fits.

    Raises:
        InputError: more than one way to count fits all clips, or clips contradict each other.
    """
    offsets, faults = {}, {}
    ways: dict[str, dict[str, int]] = {}
    for clip, span in spans.items():
        target = targets[clip]
        if span.is_array:
            offsets[clip] = target.first
            if span.last + 1 not in (target.count, target.found):
                faults[clip] = _wrong_length(target, span)
        elif given is not None:
            offsets[clip] = given
            if not target.fits(span, given):
                faults[clip] = _wrong_numbers(target, span, f"with --frame_offset {given} they")
        elif fitting := target.offsets(span):
            ways[clip] = fitting
        else:
            faults[clip] = _wrong_numbers(target, span, "these")
    named = all(targets[clip].names_frame(spans[clip]) for clip in ways)
    offsets |= _agree(ways, targets, spans, named)
    return {clip: offset for clip, offset in offsets.items() if clip not in faults}, faults


def _agree(
    ways: Mapping[str, Mapping[str, int]],
    targets: Mapping[str, Target],
    spans: Mapping[str, Span],
    named: bool,
) -> dict[str, int]:
    """Return the offset of each clip by the one way to count that fits them all."""
    left = {way for way in ("as on disk", "from 0", "from 1")}
    seen: dict[str, str] = {}
    for clip, fitting in ways.items():
        for way in left - fitting.keys():
            seen[way] = clip
        if not left & fitting.keys():
            other = next(seen[way] for way in fitting if way in seen)
            raise InputError(
                f"the frames of clip {clip} are numbered {_words(spans[clip])} and those of "
                f"{other} {_words(spans[other])}, which no one way of counting explains: import "
                "them one by one with --frame_offset"
            )
        left &= fitting.keys()
    if named and "as on disk" in left:
        left = {"as on disk"}
    for clip, fitting in ways.items():
        if len({fitting[way] for way in left}) > 1:
            target = targets[clip]
            raise InputError(
                f"the keypoints of clip {clip} are of frames {_words(spans[clip])}, its frames are "
                f"numbered {target.first} to {target.first + target.found - 1}, and in every clip "
                f"{' and '.join(sorted(left))} fit both: {_ASK}"
            )
    return {clip: next(fitting[way] for way in left) for clip, fitting in ways.items()}


def _words(span: Span) -> str:
    return f"{span.first} to {span.last}"


def _wrong_length(target: Target, span: Span) -> str:
    return f"holds {span.last + 1} frames, its clip has {target.count}"


def _wrong_numbers(target: Target, span: Span, what: str) -> str:
    return (
        f"has frames {_words(span)}; {what} should be among the clip's, {target.first} to "
        f"{target.first + target.found - 1}: {_ASK}"
    )
