"""Windows of a video by its time stamps, found while the frames come in."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low
from typing import Protocol

from prediction.frames import USUAL_RATE

# Containers round time stamps to a millisecond.
_ROUNDING = 1e-3
# Frames that say how long the last one is shown.
RECENT = 250


@dataclass(frozen=True, slots=True)
class Span:
    """The frames that one answer is about.

    Attributes:
        start: seconds in the video.
        end: seconds in the video, exclusive.
        first: number of the first frame, 0-based.
        last: number of the last frame, inclusive.
    """

    start: float
    end: float
    first: int
    last: int


class Cutter(Protocol):
    """Finds windows while frames come in."""

    @property
    def oldest(self) -> int:
        """Return the first frame that a window to come may hold."""

    def add(self, seconds: float) -> list[Span]:
        """Take the time stamp of the next frame; return the windows that end before it."""

    def end(self, duration: float) -> list[Span]:
        """Return the windows that are left of a video of `duration` seconds."""


class SlidingWindows:
    """Windows of `length` seconds, one every `stride` seconds.

    The last one ends with the video, so that every frame is in one; a video that is shorter than a
    window is one window. Where no frame lies in a window, as in a gap of the time stamps, there is
    none.

    Args:
        length: seconds.
        stride: seconds.
    """

    def __init__(self, length: float, stride: float) -> None:
        if not (length > 0 and stride > 0):
            raise ValueError(f"windows have a length and a stride, got {length} and {stride}")
        self.length, self.stride = length, stride
        self._next = 0  # number of the next window
        self._count = 0  # frames so far
        self._seconds: deque[float] = deque()  # of the newest frames
        self._covered = -math.inf  # end of the last window

    @property
    def oldest(self) -> int:
        """Return the first frame that a window to come may hold."""
        return self._count - len(self._seconds)

    def add(self, seconds: float) -> list[Span]:
        """Take the time stamp of the next frame, later than the one before.

        Returns:
            The windows that end before it.
        """
        spans = self._until(seconds + _ROUNDING)
        if not self._frames_from(self._start()):
            # Nothing is waiting: the first window that is not over yet.
            self._next = max(self._next, math.floor((seconds - self.length) / self.stride) + 1)
        self._seconds.append(seconds)
        self._count += 1
        keep = min(self._start(), seconds - self.length) - _ROUNDING
        while self._seconds[0] < keep:
            self._seconds.popleft()
        return spans

    def end(self, duration: float) -> list[Span]:
        """Return the windows that are left of a video of `duration` seconds."""
        if not self._seconds:
            return []
        # Half a frame more or less is no reason for another window.
        tolerance = max(0.5 * (duration - self._seconds[-1]), _ROUNDING)
        spans = [
            replace(span, end=min(span.end, duration)) for span in self._until(duration + tolerance)
        ]
        if self._covered < duration - tolerance:
            spans += self._span(max(0.0, duration - self.length), duration)
        return spans

    def _start(self) -> float:
        return self._next * self.stride

    def _until(self, seconds: float) -> list[Span]:
        """Return the windows that end up to `seconds`."""
        spans: list[Span] = []
        while self._start() + self.length <= seconds and self._frames_from(self._start()):
            spans += self._span(self._start(), self._start() + self.length)
            self._next += 1
        return spans

    def _frames_from(self, start: float) -> bool:
        return bool(self._seconds) and self._seconds[-1] >= start - _ROUNDING

    def _span(self, start: float, end: float) -> list[Span]:
        inside = [
            number
            for number, seconds in enumerate(self._seconds, start=self.oldest)
            if start - _ROUNDING <= seconds < end - _ROUNDING
        ]
        self._covered = max(self._covered, end)
        return [Span(start, end, inside[0], inside[-1])] if inside else []


class WholeVideo:
    """One window, of all frames."""

    oldest = 0

    def __init__(self) -> None:
        self._count = 0

    def add(self, _seconds: float) -> list[Span]:
        """Take the next frame; nothing ends before the video does."""
        self._count += 1
        return []

    def end(self, duration: float) -> list[Span]:
        """Return the one window."""
        return [Span(0.0, duration, 0, self._count - 1)] if self._count else []


def video_length(recent: Sequence[float]) -> float:
    """Return the seconds from the first frame of a video to the end of its last.

    Args:
        recent: where the newest frames begin, `RECENT` of them at most. The last one is taken to be
            shown as long as most of them are: a mean would take gaps for frames.
    """
    steps = [two - one for one, two in pairwise(recent)]
    return recent[-1] + (median_low(steps) if steps else 1 / USUAL_RATE)
