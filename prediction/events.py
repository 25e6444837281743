"""From the answers for windows to events: when something happened, from when to when."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from prediction.results import Event, Window


@dataclass(frozen=True, slots=True)
class EventRule:
    """What makes an event.

    Attributes:
        classes: labels to look for; None: label 1 of two classes, all of more.
        threshold: least mean probability of the windows that cover a moment.
        merge_seconds: longest pause within one event.
        min_seconds: events that are shorter are dropped.
    """

    classes: tuple[int, ...] | None = None
    threshold: float = 0.5
    merge_seconds: float = 0.5
    min_seconds: float = 0.0

    def labels(self, num_classes: int) -> tuple[int, ...]:
        """Return the labels to look for among K classes."""
        if self.classes is not None:
            return self.classes
        return (1,) if num_classes == 2 else tuple(range(num_classes))


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time that the same windows cover.

    Attributes:
        start: seconds.
        end: seconds.
        probability: mean of these windows.
    """

    start: float
    end: float
    probability: float


def find_events(
    windows: Sequence[Window], classes: Sequence[str], rule: EventRule
) -> tuple[Event, ...]:
    """Find the events of every track and class.

    A moment belongs to an event when the mean probability of the windows that cover it reaches the
    threshold. Stretches of such moments with short pauses between them are one event.

    Args:
        windows: of any tracks, in any order.
        classes: names, K.
        rule: what makes an event.

    Returns:
        The events in order of track, start and label. Those of one track and class are disjoint.
    """
    by_track = defaultdict(list)
    for window in windows:
        by_track[window.track].append(window)
    found: list[tuple[int, float, int, Event]] = []
    for track, own in by_track.items():
        for label in rule.labels(len(classes)):
            scores = [(w.start, w.end, w.probabilities[label]) for w in own]
            for start, end in stretches(spread(scores), rule):
                best = max(p for s, e, p in scores if s < end and e > start)
                event = Event(track, classes[label], start, end, best)
                found.append((track, start, label, event))
    return tuple(event for *_, event in sorted(found, key=lambda row: row[:3]))


def spread(scores: Sequence[tuple[float, float, float]]) -> list[Piece]:
    """Spread the probabilities of windows over time.

    Args:
        scores: (start, end, probability) of each window.

    Returns:
        Pieces in order of time, disjoint; where no window is there is none.
    """
    edges = sorted({edge for start, end, _ in scores for edge in (start, end)})
    waiting = sorted(scores)[::-1]
    open_now: list[tuple[float, float, float]] = []
    pieces = []
    for start, end in pairwise(edges):
        open_now = [window for window in open_now if window[1] > start]
        while waiting and waiting[-1][0] <= start:
            window = waiting.pop()
            if window[1] > start:
                open_now.append(window)
        if open_now:
            mean = sum(p for _, _, p in open_now) / len(open_now)
            pieces.append(Piece(start, end, mean))
    return pieces


def stretches(pieces: Sequence[Piece], rule: EventRule) -> list[tuple[float, float]]:
    """Return (start, end) of what reaches the threshold, short pauses bridged, in order."""
    joined: list[tuple[float, float]] = []
    for piece in pieces:
        if piece.probability < rule.threshold:
            continue
        if joined and piece.start - joined[-1][1] <= rule.merge_seconds:
            joined[-1] = (joined[-1][0], piece.end)
        else:
            joined.append((piece.start, piece.end))
    return [(start, end) for start, end in joined if end - start >= rule.min_seconds]
