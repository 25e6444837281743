"""What pictures of a result share: colours, names and times, the curve that is shown."""

from collections.abc import Sequence

import numpy as np

from errors import printable
from prediction.results import VideoResult, Window

Colour = tuple[int, int, int]

# Ten colours that differ in hue and in lightness and are seen on dark and on light ground.
PALETTE: tuple[Colour, ...] = (
    (40, 150, 235),
    (245, 120, 40),
    (60, 185, 90),
    (225, 65, 90),
    (165, 115, 230),
    (230, 185, 40),
    (35, 190, 190),
    (235, 120, 195),
    (150, 160, 60),
    (150, 120, 100),
)
# Light ones, for lines over a video.
PEOPLE: tuple[Colour, ...] = (
    (90, 235, 255),
    (255, 190, 90),
    (160, 255, 120),
    (255, 140, 200),
    (195, 165, 255),
    (255, 245, 110),
)
GREY: Colour = (130, 130, 130)
MOST_CLASSES = 8  # that a picture shows


def class_colours(result: VideoResult) -> dict[int, Colour]:
    """Return the colour (RGB, 0-255) of each class that may be drawn, by label: no two alike.

    Of more than ten classes only those that `shown_classes` picks have one, the others are grey.
    """
    if len(result.classes) <= len(PALETTE):
        return dict(enumerate(PALETTE[: len(result.classes)]))
    shown = shown_classes(result, MOST_CLASSES)
    return dict.fromkeys(range(len(result.classes)), GREY) | dict(zip(shown, PALETTE, strict=False))


def person_colour(track: int) -> Colour:
    """Return the colour (RGB, 0-255) of a person; they repeat after six."""
    return PEOPLE[track % len(PEOPLE)]


def shorten(name: str, most: int = 28) -> str:
    """Return a name in one line of at most `most` characters that can be drawn."""
    text = printable(name)
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def clock(seconds: float, digits: int = 1) -> str:
    """Return a moment as m:ss.s, or h:mm:ss.s from an hour on."""
    units = round(max(seconds, 0.0) * 10**digits)
    whole, part = divmod(units, 10**digits)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return f"{text}.{part:0{digits}d}" if digits else text


def shown_classes(result: VideoResult, most: int) -> list[int]:
    """Pick the classes to draw: those of events, then the likeliest; in order of the label.

    Args:
        result: with K classes.
        most: how many to pick at most.
    """
    if len(result.classes) <= most:
        return list(range(len(result.classes)))
    has_event = np.isin(result.classes, [event.label for event in result.events])
    highest = np.zeros(len(result.classes))
    for window in result.windows:
        highest = np.fmax(highest, window.probabilities)
    order = np.lexsort((-highest, ~has_event))
    return sorted(order[:most].tolist())


def by_track(windows: Sequence[Window]) -> dict[int, list[Window]]:
    """Return the windows of each person, by number, in the order given."""
    tracks: dict[int, list[Window]] = {}
    for window in windows:
        tracks.setdefault(window.track, []).append(window)
    return dict(sorted(tracks.items()))


def probability_curve(
    windows: Sequence[Window], labels: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Spread the windows of one person to time: the mean of those that cover each moment.

    Args:
        windows: W of one person.
        labels: the K classes to look at; None: all.

    Returns:
        (E + 1,) ascending times in seconds, and (E, K) probabilities between them, NaN where no
        window lies. Windows whose probabilities are no numbers count as none.
    """
    spans = np.array([(window.start, window.end) for window in windows], np.float64)
    chances = np.array([_taken(window.probabilities, labels) for window in windows], np.float64)
    edges = np.unique(spans)
    changes = np.zeros((len(edges), chances.shape[1] + 1))
    is_number = np.isfinite(chances).all(axis=1, keepdims=True)
    weighted = np.where(is_number, np.column_stack([chances, np.ones(len(windows))]), 0.0)
    np.add.at(changes, np.searchsorted(edges, spans[:, 0]), weighted)
    np.subtract.at(changes, np.searchsorted(edges, spans[:, 1]), weighted)
    sums = np.cumsum(changes, axis=0)[:-1]
    counts = np.round(sums[:, -1:])
    values = np.where(counts > 0, sums[:, :-1] / np.maximum(counts, 1), np.nan)
    return edges, values.clip(0, 1)


def _taken(values: Sequence[float], labels: Sequence[int] | None) -> Sequence[float]:
    return values if labels is None else [values[label] for label in labels]
