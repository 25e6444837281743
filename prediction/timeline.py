"""What is said of a video over time: tables for programs and people, and a picture."""

import csv
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import csv_cell, printable
from files import replacing, write_text
from prediction.lettering import font_families
from prediction.places import TIMELINE_HEADS
from prediction.results import Event, VideoResult, Window
from prediction.style import (
    MOST_CLASSES,
    Colour,
    by_track,
    class_colours,
    clock,
    probability_curve,
    shorten,
    shown_classes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Spreadsheets take what begins with these for a formula.
_MOST_PEOPLE = 6
_WIDTH, _DPI = 12.0, 110  # inches, dots per inch
_COLUMNS = 600  # points that a curve may have across the picture
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_EVENT_TOP, _EVENT_HEIGHT = 1.03, 0.09  # above the curves, in probabilities


# ---------------------------------------------------------------- tables


def write_timeline_csv(path: Path, result: VideoResult) -> None:
    """Write a row for each window and person: times, frames, the likeliest class, all classes.

    Raises:
        OSError: the file cannot be written.
    """
    chances = [f"p_{printable(name)}" for name in result.classes]
    rows = [_window_row(window, result.classes) for window in result.windows]
    _write_csv(path, [[*TIMELINE_HEADS, "probability", *chances], *rows])


def _window_row(window: Window, classes: Sequence[str]) -> list[str]:
    best = likeliest(window)
    return [
        f"{window.start:.3f}",
        f"{window.end:.3f}",
        str(window.first_frame),
        str(window.last_frame),
        str(window.track),
        csv_cell(classes[best]),
        f"{window.probabilities[best]:.6f}",
        *(f"{chance:.6f}" for chance in window.probabilities),
    ]


def write_events_csv(path: Path, result: VideoResult) -> None:
    """Write a row for each event: person, class, start, end, length, highest probability.

    Raises:
        OSError: the file cannot be written.
    """
    heads = ["track", "label", "start_seconds", "end_seconds", "seconds", "probability"]
    rows = [
        [
            str(event.track),
            csv_cell(event.label),
            f"{event.start:.3f}",
            f"{event.end:.3f}",
            f"{event.end - event.start:.3f}",
            f"{event.probability:.6f}",
        ]
        for event in result.events
    ]
    _write_csv(path, [heads, *rows])


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def likeliest(window: Window) -> int:
    """Return the label with the highest probability; what is no number never is."""
    chances = np.nan_to_num(np.array(window.probabilities), nan=-1.0)
    return int(chances.argmax())


def to_json(result: VideoResult) -> dict[str, Any]:
    """Return all of a result but the keypoints as plain values; a number that is none is None."""
    values: dict[str, Any] = {
        "source": printable(result.source),
        "classes": list(result.classes),
        "fps": result.fps,
        "num_frames": result.num_frames,
        "seconds": result.duration,
        "width": result.size[0],
        "height": result.size[1],
        "tracks": list(result.tracks),
        "events": [asdict(event) for event in result.events],
        "windows": [
            {**asdict(window), "label": result.classes[likeliest(window)]}
            for window in result.windows
        ],
        "timings": {**asdict(result.timings), "video_seconds_per_second": result.timings.speed},
        "notes": list(result.notes),
        "fault": result.fault,
    }
    return _plain(values)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- picture


def write_timeline_png(path: Path, result: VideoResult, threshold: float | None = None) -> None:
    """Draw the probability of each class over time, a panel for each person, events above it.

    A curve is the mean of the windows that cover each moment, which events are cut out of. Of many
    people the first are drawn, of many classes those of events and the likeliest; the picture says
    so. Of a long video each point stands for the highest and the lowest value in its stretch.

    Args:
        path: of the PNG.
        result: of a video of any length.
        threshold: of events, drawn as a line; None draws none.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl  # noqa: PLC0415 - takes a second to load
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    style: dict[Any, Any] = {
        "text.parse_math": False,
        "font.family": font_families(),
        "path.simplify": True,
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # A letter that no font here has is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        tracks = by_track(result.windows)
        panels = max(1, min(len(tracks), _MOST_PEOPLE))
        figure = Figure((_WIDTH, 1.35 + 1.75 * panels), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure, result, tracks, threshold)
        with replacing(path) as file:
            figure.savefig(file, format="png")


def _draw(
    figure: "Figure",
    result: VideoResult,
    tracks: dict[int, list[Window]],
    threshold: float | None,
) -> None:
    shown = list(tracks)[:_MOST_PEOPLE]
    labels = shown_classes(result, MOST_CLASSES)
    axes = figure.subplots(max(len(shown), 1), 1, sharex=True, squeeze=False)[:, 0]
    for axis, track in zip(axes, shown, strict=False):
        _draw_curves(axis, result, tracks[track], labels)
        events = [event for event in result.events if event.track == track]
        _draw_events(axis, result, events)
        axis.set_ylabel(f"person {track}" if len(tracks) > 1 else "probability", fontsize=9)
    for axis in axes:
        _finish_panel(axis, threshold)
    if not shown:
        axes[0].text(0.5, 0.5, "no window", ha="center", transform=axes[0].transAxes)
    _time_axis(axes[-1], result.duration)
    figure.suptitle(_title(result, len(tracks), labels), fontsize=10)
    _legend(figure, result, labels)


def _draw_curves(
    axis: "Axes", result: VideoResult, windows: Sequence[Window], labels: Sequence[int]
) -> None:
    colours = class_colours(result)
    edges, values = probability_curve(windows, labels)
    if not len(values):  # all windows are of no length
        return
    edges, low, high = columns(edges, values, result.duration)
    is_reduced = not np.array_equal(low, high, equal_nan=True)
    is_pair = len(result.classes) == 2  # the first class is what the second leaves over
    for place, label in enumerate(labels):
        colour = _share(colours[label])
        is_pale = is_pair and label == 0
        if is_reduced and not is_pale:
            bottom, top = (np.append(side[:, place], side[-1:, place]) for side in (low, high))
            axis.fill_between(edges, bottom, top, step="post", color=colour, alpha=0.25, lw=0)
        axis.stairs(
            (low if is_pale else high)[:, place],
            edges,
            baseline=None,
            color=colour,
            alpha=(0.2 if is_reduced else 0.4) if is_pale else 1.0,
            linewidth=0.9 if is_pale else 1.4,
        )


def columns(
    edges: np.ndarray, values: np.ndarray, seconds: float, most: int = _COLUMNS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reduce a curve to at most `most` stretches, if it has more.

    Args:
        edges: (E + 1,) ascending times.
        values: (E, K) between them; NaN where there is none.
        seconds: length of the video.
        most: stretches to keep, of equal length.

    Returns:
        (C + 1,) times, and the lowest and highest (C, K) value in each stretch.
    """
    if len(values) <= most:
        return edges, values, values
    grid = np.linspace(0, max(seconds, float(edges[-1])), most + 1)
    first = np.clip(np.searchsorted(edges, grid[:-1], side="right") - 1, 0, len(values) - 1)
    last = np.clip(np.searchsorted(edges, grid[1:], side="left"), first + 1, len(values))
    parts = [values[a:b] for a, b in zip(first, last, strict=True)]
    # fmin and fmax leave out NaN where there is a number beside it.
    return (
        grid,
        np.stack([np.fmin.reduce(part) for part in parts]),
        np.stack([np.fmax.reduce(part) for part in parts]),
    )


def _draw_events(axis: "Axes", result: VideoResult, events: Sequence[Event]) -> None:
    colours = class_colours(result)
    least = result.duration / 500  # so that a short event in a long video is seen
    for event in events:
        colour = _share(colours[result.classes.index(event.label)])
        span = (event.start, max(event.end - event.start, least))
        axis.broken_barh([span], (_EVENT_TOP, _EVENT_HEIGHT), color=colour, lw=0)
        axis.broken_barh([span], (0, 1), color=colour, alpha=0.13, lw=0)


def _finish_panel(axis: "Axes", threshold: float | None) -> None:
    if threshold is not None:
        axis.axhline(threshold, color="0.35", linewidth=0.8, linestyle=(0, (5, 4)))
    axis.set_ylim(-0.02, _EVENT_TOP + _EVENT_HEIGHT + 0.03)
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axis.tick_params(labelsize=8)
    axis.grid(visible=True, color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _time_axis(axis: "Axes", seconds: float) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator  # noqa: PLC0415

    length = seconds if math.isfinite(seconds) and seconds > 0 else 1.0
    # From a day on, as many whole days as keep the number of ticks.
    far = 86_400 * max(1, math.ceil(length / (12 * 86_400)))
    step = next((step for step in _STEPS if length / step <= 12), far)
    digits = 1 if step < 1 else 0
    axis.set_xlim(0, length)
    axis.xaxis.set_major_locator(MultipleLocator(step))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value, digits)))
    axis.set_xlabel("time in the video", fontsize=9)


def _title(result: VideoResult, people: int, labels: Sequence[int]) -> str:
    name = result.source.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    parts = [shorten(name, 60), clock(result.duration)]
    parts.append(f"{len(result.events)} event" + "s" * (len(result.events) != 1))
    if people > _MOST_PEOPLE:
        parts.append(f"the first {_MOST_PEOPLE} of {people} people")
    if len(labels) < len(result.classes):
        parts.append(f"{len(labels)} of {len(result.classes)} classes")
    return "  ·  ".join(parts)


def _legend(figure: "Figure", result: VideoResult, labels: Sequence[int]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    colours = class_colours(result)
    lines = [Line2D([], [], color=_share(colours[label]), lw=3) for label in labels]
    # Named afterwards: names that begin with _ would be left out.
    legend = figure.legend(
        lines,
        ["."] * len(labels),
        loc="outside lower center",
        ncols=min(len(labels), 4),
        fontsize=9,
        frameon=False,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(shorten(result.classes[label], 32))


def _share(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
