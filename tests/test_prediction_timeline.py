"""Tables and pictures of a result hold what the result says, whatever names and numbers it has."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from prediction.events import spread
from prediction.results import Event, Timings, VideoResult, Window
from prediction.style import (
    class_colours,
    clock,
    probability_curve,
    shorten,
    shown_classes,
)
from prediction.timeline import (
    columns,
    to_json,
    write_events_csv,
    write_timeline_csv,
    write_timeline_png,
)

ODD = (
    "$\\frac{$",
    "日本語",
    "_hidden",
    "<script>alert(1)</script>",
    "=1+1",
    "long " * 30,
    "é\udcff\n",
)


def make_result(seconds=10.0, classes=("landed", "fall"), tracks=1, stride=0.5, length=2.0):
    rng = np.random.default_rng(len(classes))
    windows, events = [], []
    for track in range(tracks):
        for start in np.arange(0, seconds - length + 1e-9, stride).tolist():
            chances = tuple(rng.dirichlet(np.ones(len(classes))).tolist())
            first = round(start * 25)
            windows.append(Window(track, start, start + length, first, first + 49, chances))
        events.append(Event(track, classes[-1], 1.0, 2.5, 0.9))
    return VideoResult(
        "folder/a video.mp4", tuple(classes), 25.0, round(seconds * 25), seconds, (64, 48),
        tuple(windows), tuple(events), None, Timings(seconds, 1, 2, 3, 4, 5), ("a note",),
    )  # fmt: skip


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_row_for_each_window(tmp_path):
    result = make_result(tracks=2)
    write_timeline_csv(tmp_path / "t.csv", result)
    head, *rows = read(tmp_path / "t.csv")
    assert head == [
        "start_seconds", "end_seconds", "first_frame", "last_frame", "track", "label",
        "probability", "p_landed", "p_fall",
    ]  # fmt: skip
    assert len(rows) == len(result.windows)
    for row, window in zip(rows, result.windows, strict=True):
        values = dict(zip(head, row, strict=True))
        assert float(values["start_seconds"]) == pytest.approx(window.start, abs=1e-3)
        assert (int(values["first_frame"]), int(values["track"])) == (
            window.first_frame,
            window.track,
        )
        assert values["label"] == result.classes[int(np.argmax(window.probabilities))]
        assert float(values["probability"]) == pytest.approx(max(window.probabilities), abs=1e-6)
        assert [float(v) for v in row[7:]] == pytest.approx(list(window.probabilities), abs=1e-6)


def test_a_row_for_each_event(tmp_path):
    write_events_csv(tmp_path / "e.csv", make_result(tracks=2))
    head, *rows = read(tmp_path / "e.csv")
    assert head == ["track", "label", "start_seconds", "end_seconds", "seconds", "probability"]
    assert rows == [[str(track), "fall", "1.000", "2.500", "1.500", "0.900000"] for track in (0, 1)]


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", " =1"])
def test_no_cell_is_a_formula(tmp_path, name):
    result = make_result(classes=("plain", name))
    certain = replace(result.windows[0], probabilities=(0.0, 1.0))
    result = replace(result, windows=(certain,))
    write_timeline_csv(tmp_path / "t.csv", result)
    write_events_csv(tmp_path / "e.csv", result)
    cells = [c for path in tmp_path.glob("*.csv") for row in read(path) for c in row]
    assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
    assert any(cell.startswith("'") for cell in cells)


def test_json_holds_everything_and_is_valid():
    result = make_result(classes=ODD[:6], tracks=2)
    broken = replace(result.windows[0], probabilities=(math.nan,) * 6)
    result = replace(result, windows=(broken, *result.windows[1:]), fps=math.inf)
    value = json.loads(json.dumps(to_json(result), allow_nan=False))
    assert value["fps"] is None
    assert value["windows"][0]["probabilities"] == [None] * 6
    assert value["windows"][1]["probabilities"] == list(result.windows[1].probabilities)
    assert value["events"][1] == {
        "track": 1, "label": ODD[5], "start": 1.0, "end": 2.5, "probability": 0.9,
    }  # fmt: skip
    assert (value["width"], value["height"], value["seconds"]) == (64, 48, 10.0)
    assert value["timings"]["video_seconds_per_second"] == pytest.approx(2.0)
    assert value["notes"] == ["a note"]
    assert value["tracks"] == [0, 1]


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"classes": ODD},
        {"classes": tuple(f"class {i}" for i in range(60)), "tracks": 2},
        {"seconds": 7200.0, "tracks": 9},
        {"seconds": 0.2, "length": 0.2},
        {"seconds": 1.0},  # no window
    ],
    ids=["two", "odd names", "sixty", "two hours", "short", "none"],
)
def test_picture_of_any_result(tmp_path, choices):
    write_timeline_png(tmp_path / "t.png", make_result(**choices), threshold=0.5)
    image = cv2.imread(str(tmp_path / "t.png"))
    assert image.shape[1] > 1000
    assert image.std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ["t.png"]


def test_picture_shows_where_the_events_are(tmp_path):
    result = replace(make_result(), events=())
    write_timeline_png(tmp_path / "without.png", result)
    event = Event(0, "fall", 5.0, 10.0, 0.9)
    write_timeline_png(tmp_path / "with.png", replace(result, events=(event,)))
    both = [cv2.imread(str(tmp_path / name)) for name in ("without.png", "with.png")]
    height, width, _ = both[0].shape
    body = slice(int(height * 0.1), int(height * 0.7))  # without title and axis
    is_changed = (both[0] != both[1]).any(axis=2)[body].mean(axis=0)
    assert is_changed[: int(width * 0.5)].max() == 0
    assert (is_changed[int(width * 0.56) : int(width * 0.96)] > 0.5).all()


def test_numbers_that_are_none_and_no_length(tmp_path):
    result = make_result()
    broken = replace(result.windows[3], probabilities=(math.nan, math.nan))
    windows = (*result.windows[:3], broken)
    write_timeline_png(tmp_path / "a.png", replace(result, windows=windows, duration=0.0))
    write_timeline_csv(tmp_path / "t.csv", replace(result, windows=windows))
    assert read(tmp_path / "t.csv")[4][7:] == ["nan", "nan"]
    instant = replace(result.windows[0], end=result.windows[0].start)
    write_timeline_png(tmp_path / "b.png", replace(result, windows=(instant,)))


# ---------------------------------------------------------------- the curve


def test_curve_is_what_events_are_cut_from():
    rng = np.random.default_rng(3)
    starts = rng.uniform(0, 20, 30)
    windows = [
        Window(0, s, s + d, 0, 1, tuple(rng.dirichlet(np.ones(3)).tolist()))
        for s, d in zip(starts.tolist(), rng.uniform(0, 2, 30).tolist(), strict=True)
    ]
    edges, values = probability_curve(windows)
    for label in range(3):
        pieces = spread([(w.start, w.end, w.probabilities[label]) for w in windows])
        found = {
            (a, b): v
            for a, b, v in zip(edges, edges[1:], values[:, label], strict=False)
            if not np.isnan(v)
        }
        assert found == pytest.approx({(p.start, p.end): p.probability for p in pieces})


def test_what_is_no_number_spoils_nothing_else():
    windows = [Window(0, i, i + 2, 0, 1, (0.25, 0.75)) for i in range(6)]
    windows[2] = replace(windows[2], probabilities=(math.nan, math.nan))
    _, values = probability_curve(windows)
    assert np.allclose(values, [0.25, 0.75])
    _, values = probability_curve([windows[0], replace(windows[2], start=4, end=5)])
    assert np.isnan(values[1:]).all()
    assert values[0].tolist() == [0.25, 0.75]


def test_long_curves_keep_their_peaks_and_pits():
    edges = np.linspace(0, 100, 10_001)
    values = np.full((10_000, 1), 0.5)
    values[1234], values[8765] = 0.9, 0.1
    values[5000:5300] = np.nan
    times, low, high = columns(edges, values, 100.0, most=100)
    assert len(times) == 101
    assert high[12] == 0.9
    assert low[87] == 0.1
    assert np.isnan(high[51]).all()
    assert high[53] == 0.5
    assert (np.delete(high, [12, 50, 51, 52, 53], 0) == 0.5).all()
    same, low, high = columns(edges[:51], values[:50], 100.0, most=100)
    assert len(same) == 51
    assert np.array_equal(low, high)


def test_columns_see_all_that_lies_in_their_stretch():
    rng = np.random.default_rng(0)
    edges = np.concatenate([[0], np.sort(rng.uniform(0, 50, 300)), [50]])
    values = rng.random((301, 2))
    times, low, high = columns(edges, values, 50.0, most=40)
    for column, (start, end) in enumerate(zip(times, times[1:], strict=False)):
        inside = values[(edges[:-1] < end) & (edges[1:] > start)]
        assert np.array_equal(low[column], inside.min(axis=0))
        assert np.array_equal(high[column], inside.max(axis=0))


# ---------------------------------------------------------------- names, times, colours


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [
        (0, 1, "0:00.0"), (59.96, 1, "1:00.0"), (61.24, 1, "1:01.2"), (3599.99, 0, "1:00:00"),
        (7325.5, 1, "2:02:05.5"), (-1, 1, "0:00.0"),
    ],
)  # fmt: skip
def test_clock(seconds, digits, text):
    assert clock(seconds, digits) == text


def test_names_are_shortened_in_the_middle():
    assert shorten("fall") == "fall"
    short = shorten("a" * 50 + "z" * 50, 20)
    assert (len(short), short[0], short[-1]) == (20, "a", "z")
    assert shorten("a\nb\udcff") == "a\\nb\\udcff"


def test_shown_classes_are_those_of_events_then_the_likeliest():
    classes = tuple(f"class {i}" for i in range(60))
    result = make_result(classes=classes)
    chances = np.zeros(60)
    chances[[40, 7, 20]] = 0.5, 0.3, 0.2
    result = replace(
        result,
        windows=(Window(0, 0, 1, 0, 1, tuple(chances.tolist())),),
        events=(Event(0, "class 3", 0, 1, 0.1),),
    )
    assert shown_classes(result, 3) == [3, 7, 40]
    colours = class_colours(result)
    assert len({colours[label] for label in shown_classes(result, 8)}) == 8
    assert len(colours) == 60
