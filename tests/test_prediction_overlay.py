"""The annotated video shows what the result says, when it says it, and is whole or not there."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from errors import InputError
from ops.skeleton import COCO17
from prediction import lettering, overlay, video_writer
from prediction.lettering import letters, line_height, write
from prediction.overlay import Painter, Panel, draw_skeleton, write_annotated
from prediction.results import Event, Timings, VideoResult, Window
from prediction.style import PEOPLE, class_colours, person_colour

ROOT = Path(__file__).resolve().parent.parent
GREY = 90


class People:
    """Keypoints of M people: (N, M, 17, 3), as `PoseTrack` gives them."""

    def __init__(self, keypoints):
        self.keypoints = keypoints

    def __len__(self):
        return len(self.keypoints)

    def at(self, frame):
        return self.keypoints[frame]


def make_result(seconds=2.0, fps=10.0, size=(64, 48), classes=("landed", "fall"), tracks=1):
    windows = []
    for track in range(tracks):
        for start in np.arange(0, seconds, 0.5).tolist():
            rising = min(start / seconds + 0.1, 1.0)
            chances = [(1 - rising) / (len(classes) - 1)] * (len(classes) - 1) + [rising]
            windows.append(Window(track, start, start + 0.5, 0, 1, tuple(chances)))
    event = Event(0, classes[-1], seconds / 2, seconds * 0.75, 0.87)
    return VideoResult(
        "a.mp4", tuple(classes), fps, round(seconds * fps), seconds, size,
        tuple(windows), (event,), None, Timings(seconds, 1, 1, 1),
    )  # fmt: skip


def grey_frames(times, size=(64, 48)):
    for time in times:
        yield time, np.full((size[1], size[0], 3), GREY, np.uint8)


def read_back(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        seconds = float(stream.duration * stream.time_base)
        frames = [(f.time, f.to_ndarray(format="rgb24")) for f in file.decode(stream)]
        return stream.codec_context.name, stream.codec_context.pix_fmt, seconds, frames


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_time_stamps_and_length_are_kept(tmp_path, monkeypatch, encoder):
    """A variable frame rate too: no frame moves, the last is shown to the video's end."""
    monkeypatch.setattr(video_writer, "best_encoder", lambda: encoder)
    times = [0.0, 0.04, 0.1, 0.5, 0.51, 1.7]
    count = write_annotated(tmp_path / "a.mp4", grey_frames(times), make_result())
    _, pixels, seconds, frames = read_back(tmp_path / "a.mp4")
    assert count == len(frames) == 6
    assert [time for time, _ in frames] == pytest.approx(times, abs=1e-4)
    assert seconds == pytest.approx(2.0, abs=1e-3)
    assert pixels == "yuv420p"


def test_one_frame(tmp_path):
    write_annotated(tmp_path / "a.mp4", grey_frames([0.0]), make_result(seconds=0.1))
    name, _, seconds, frames = read_back(tmp_path / "a.mp4")
    assert (name, len(frames)) == ("h264", 1)
    assert seconds == pytest.approx(0.1, abs=1e-3)


def test_times_that_do_not_rise_are_moved(tmp_path):
    write_annotated(tmp_path / "a.mp4", grey_frames([0.0, 0.2, 0.2, 0.1, 0.3]), make_result())
    times = [time for time, _ in read_back(tmp_path / "a.mp4")[3]]
    assert len(times) == 5
    assert all(a < b for a, b in zip(times, times[1:], strict=False))


@pytest.mark.parametrize(
    "size", [(64, 48), (65, 49), (91, 161), (1, 1), (2000, 20), (20, 1000), (4000, 300)]
)
def test_every_shape_is_even_and_legible(tmp_path, size):
    result = make_result(seconds=0.1, size=size)
    write_annotated(tmp_path / "a.mp4", grey_frames([0.0], size), result)
    picture = read_back(tmp_path / "a.mp4")[3][0][1]
    height, width, _ = picture.shape
    assert (height % 2, width % 2) == (0, 0)
    assert width >= 320
    assert width <= overlay.LARGEST
    assert max(width, height) >= overlay.SMALLEST
    assert np.abs(picture.astype(int) - GREY).max(axis=2).min() < 8  # the frame is there


def test_colours_come_back(tmp_path):
    def frames():
        yield 0.0, np.full((360, 640, 3), (200, 60, 30), np.uint8)

    write_annotated(tmp_path / "a.mp4", frames(), make_result(seconds=0.1, size=(640, 360)))
    picture = read_back(tmp_path / "a.mp4")[3][0][1]
    assert np.abs(picture[200, 300].astype(int) - (200, 60, 30)).max() < 6


def test_frames_that_change_their_size(tmp_path):
    def frames():
        for number, size in enumerate([(64, 48), (128, 96), (32, 48)]):
            yield number / 10, np.full((size[1], size[0], 3), GREY, np.uint8)

    assert write_annotated(tmp_path / "a.mp4", frames(), make_result()) == 3
    assert len({frame.shape for _, frame in read_back(tmp_path / "a.mp4")[3]}) == 1


def test_frames_are_taken_one_by_one(tmp_path):
    """Never more than two frames are alive here: one is painted, the next says how long."""
    alive, most = set(), 0

    class Frame(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def frames():
        nonlocal most
        for number in range(40):
            frame = np.full((48, 64, 3), GREY, np.uint8).view(Frame)
            alive.add(id(frame))
            most = max(most, len(alive))
            yield number / 10, frame
            del frame

    write_annotated(tmp_path / "a.mp4", frames(), make_result(seconds=4.0))
    assert most <= 4


# ---------------------------------------------------------------- faults


def test_no_frame_is_one_line_and_no_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.mp4 has no frame"):
        write_annotated(tmp_path / "a.mp4", iter(()), make_result())
    assert list(tmp_path.iterdir()) == []


def test_a_fault_on_the_way_leaves_what_was_there(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")

    def frames():
        yield from grey_frames([0.0, 0.1, 0.2])
        raise InputError("the video is cut short")

    with pytest.raises(InputError, match="cut short"):
        write_annotated(tmp_path / "a.mp4", frames(), make_result())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_no_folder_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No such file") as caught:
        write_annotated(tmp_path / "no" / "a.mp4", grey_frames([0.0]), make_result())
    assert str(caught.value.filename) == str(tmp_path / "no" / "a.mp4")


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from errors import run_script
from prediction.overlay import write_annotated
from tests.test_prediction_overlay import make_result
def frames():
    rng = np.random.default_rng(0)
    for number in range(60):
        yield number / 10, rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
run_script(lambda: write_annotated(Path(sys.argv[1]), frames(), make_result(seconds=6.0)))
"""


def test_a_full_disk_is_one_line_and_no_file(tmp_path):
    """A limit on the size of files stands in for the disk."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "a.mp4")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"error: {tmp_path / 'a.mp4'}: File too large\n"
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is painted


def has(picture, colour, tolerance=2):
    return (np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance).any()


def paint(result, seconds, number=0, size=(640, 360), threshold=None):
    painter = Painter(result, size, COCO17, threshold)
    frame = np.full((size[1], size[0], 3), GREY, np.uint8)
    return painter.paint(number, seconds, frame).copy()


def test_banner_is_there_while_the_event_runs():
    result = make_result(size=(640, 360))
    colour = class_colours(result)[1]
    shown = {t: has(paint(result, t)[:360], colour) for t in (0.0, 0.99, 1.0, 1.49, 1.5, 1.9)}
    assert shown == {0.0: False, 0.99: False, 1.0: True, 1.49: True, 1.5: False, 1.9: False}


def test_a_long_event_runs_on_after_short_ones():
    events = (
        Event(0, "landed", 0, 9, 0.9),
        *(Event(0, "fall", i, i + 0.1, 0.9) for i in range(1, 6)),
    )
    result = replace(make_result(seconds=10.0, size=(640, 360)), events=events)
    assert has(paint(result, 8.0)[:360], class_colours(result)[0])


def test_skeletons_are_where_the_keypoints_are_in_the_colour_of_the_person():
    keypoints = np.zeros((1, 2, 17, 3), np.float32)
    keypoints[0, 0, [5, 6]] = (100, 200, 1), (160, 200, 1)
    keypoints[0, 1, [5, 6]] = (300, 100, 1), (300, 160, 1)
    result = replace(make_result(size=(640, 360)), poses=People(keypoints), events=())
    picture = paint(result, 0.0)
    assert tuple(picture[200, 130]) == PEOPLE[0]
    assert tuple(picture[130, 300]) == PEOPLE[1]
    assert (picture[250:350, 50:600] == GREY).all()  # nowhere else
    larger = paint(replace(result, size=(1280, 720)), 0.0, size=(1280, 720))
    assert tuple(larger[200, 130]) == PEOPLE[0]


def test_skeletons_are_scaled_with_a_small_video():
    keypoints = np.zeros((1, 1, 17, 3), np.float32)
    keypoints[0, 0, [5, 6]] = (16, 24, 1), (48, 24, 1)
    result = replace(make_result(), poses=People(keypoints), events=())
    picture = paint(result, 0.0, size=(64, 48))
    assert tuple(picture[240, 320]) == PEOPLE[0]


def test_people_outside_or_beyond_the_poses():
    keypoints = np.zeros((1, 1, 17, 3), np.float32)
    keypoints[0, 0, :, :2], keypoints[0, 0, :, 2] = -1e9, 1
    result = replace(make_result(size=(640, 360)), poses=People(keypoints), events=())
    paint(result, 0.0)
    assert (paint(result, 0.5, number=1)[:360] == GREY).all()


def test_bars_are_as_long_as_the_probabilities_and_the_cursor_moves():
    result = replace(make_result(size=(640, 360)), events=())
    colour = class_colours(result)[1]
    lengths, cursors = [], []
    for seconds in (0.0, 0.5, 1.0, 1.5):
        panel = paint(result, seconds)[360:]
        is_bar = (panel == colour).all(axis=2)
        lengths.append(is_bar.sum(axis=1).max())
        line = panel[-14]
        cursors.append(int((line[:520] == 235).all(axis=1).argmax()))
    assert np.allclose(
        np.array(lengths) / lengths[1], [0.1 / 0.35, 1, 0.6 / 0.35, 0.85 / 0.35], atol=0.05
    )
    assert cursors == sorted(set(cursors))
    assert np.ptp(np.diff(cursors)) <= 2


def test_a_panel_says_the_same_whatever_was_drawn_before():
    result = make_result(size=(640, 360), classes=tuple("abcdefg"), tracks=2)
    painter = Painter(result, (640, 360), COCO17)
    frame = np.full((360, 640, 3), GREY, np.uint8)
    order = (0.0, 0.1, 1.2, 0.6, 1.2, 1.9, 0.0)
    for seconds in order:
        assert np.array_equal(painter.paint(0, seconds, frame), paint(result, seconds))


@pytest.mark.parametrize("classes", [("a", "b"), tuple(f"class {i}" for i in range(60))])
@pytest.mark.parametrize("tracks", [0, 1, 3, 9])
def test_panels_of_any_number_of_people_and_classes(classes, tracks):
    result = make_result(classes=classes, tracks=tracks)
    for seconds in (-1.0, 0.0, 1.2, 2.0, 99.0):
        panel = Panel(result, 640, 14, 0.5)
        area = np.zeros((panel.height, 640, 3), np.uint8)
        panel.draw(area, seconds)
        assert area.any()


def test_many_events_at_once():
    events = tuple(Event(0, "fall", 0, 2, 0.5) for _ in range(7))
    paint(replace(make_result(size=(640, 360)), events=events), 1.0)
    paint(replace(make_result(size=(1, 1)), events=events), 1.0, size=(1, 1))


def test_broken_numbers_are_drawn_as_none():
    result = make_result(size=(640, 360))
    windows = tuple(replace(w, probabilities=(np.nan, np.nan)) for w in result.windows)
    paint(replace(result, windows=windows, duration=0.0, fps=0.0), 1.0)


# ---------------------------------------------------------------- letters


@pytest.mark.parametrize("text", ["fall", "日本語", "Ünï", "", " ", "a" * 500, "$x$", "ع"])
def test_letters_of_any_script(text):
    opacity = letters(text, 20)
    assert opacity.shape[0] == line_height(20)
    assert 0 <= opacity.min() <= opacity.max() <= 1
    assert bool(opacity.any()) == bool(text.strip())


def test_what_lies_outside_is_cut_off():
    whole = np.zeros((60, 200, 3), np.uint8)
    write(whole, "fall", (50, 20), 20, (255, 255, 255))
    assert whole.any()
    for x, y in [(-20, 5), (190, 5), (5, -10), (5, 50), (-500, 0), (0, 500), (500, -500)]:
        part = np.zeros((60, 200, 3), np.uint8)
        write(part, "fall", (x, y), 20, (255, 255, 255))
        moved = np.zeros((1200, 1400, 3), np.uint8)
        write(moved, "fall", (x + 600, y + 600), 20, (255, 255, 255))
        assert np.array_equal(part, moved[600:660, 600:800])


def test_a_text_is_drawn_once():
    letters.cache_clear()
    result = make_result(size=(640, 360))
    painter = Painter(result, (640, 360), COCO17)
    frame = np.full((360, 640, 3), GREY, np.uint8)
    for _ in range(20):
        painter.paint(0, 0.3, frame)
    before = lettering.letters.cache_info().misses
    for _ in range(20):
        painter.paint(0, 0.3, frame)
    assert lettering.letters.cache_info().misses == before


def test_bones_lie_between_found_joints_alone():
    picture = np.zeros((50, 50, 3), np.uint8)
    places = np.full((17, 2), 25.0)
    places[6] = 45, 25
    seen = np.zeros(17, bool)
    seen[5] = True
    draw_skeleton(picture, places, seen, COCO17, person_colour(0), 1)
    assert not picture[25, 32:].any()
    seen[6] = True
    draw_skeleton(picture, places, seen, COCO17, person_colour(0), 1)
    assert picture[24:26, 32:44].any(axis=(0, 2)).all()
