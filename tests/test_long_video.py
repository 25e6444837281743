"""The long video holds what its parts hold, when they say it; the benchmark counts right."""

import argparse
import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks import long_video
from benchmarks.joined_clips import (
    Clip,
    choose_clips,
    gmdcsa24_clips,
    join_clips,
    synthetic_clips,
)
from benchmarks.long_video import Memory, parse, run, score_all, score_rule, tables
from datasets.records import ClipRecord
from datasets.synthetic import FALL, FPS, LANDED, SyntheticSpec, ensure_synthetic, simulate_clip
from errors import InputError
from prediction.events import EventRule

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "gmdcsa24"


def records(falls, others, frames=40):
    labels = [FALL] * falls + [LANDED] * others
    return [ClipRecord(f"clip_{i}", frames, label) for i, label in enumerate(labels)]


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_falls_are_apart_and_as_many_as_asked_for(share):
    chosen = choose_clips(records(30, 30), 3600, share, np.random.default_rng(0))
    is_fall = np.array([record.label == FALL for record in chosen])
    assert not (is_fall[1:] & is_fall[:-1]).any()
    assert is_fall.mean() == pytest.approx(share, abs=0.05)
    length = sum(record.num_frames for record in chosen) / FPS
    assert 3600 <= length + 1e-6 < 3600 + 40 / FPS + 1e-3


def test_clips_repeat_only_when_all_have_been_used():
    pool = records(30, 80)
    chosen = choose_clips(pool, 60 * 40 / FPS, 0.3, np.random.default_rng(1))
    assert len({record.name for record in chosen}) == len(chosen)
    chosen = choose_clips(pool, 300 * 40 / FPS, 0.3, np.random.default_rng(1))
    for label in (FALL, LANDED):
        names = [record.name for record in chosen if record.label == label]
        counts = [names.count(record.name) for record in pool if record.label == label]
        assert max(counts) - min(counts) <= 1


def test_the_seed_decides_the_order():
    one, same, other = (
        [r.name for r in choose_clips(records(9, 9), 60, 0.3, np.random.default_rng(seed))]
        for seed in (0, 0, 1)
    )
    assert one == same != other


def test_a_class_without_clips_is_refused():
    with pytest.raises(InputError, match="no clip of class 1"):
        choose_clips(records(0, 3), 10, 0.3, np.random.default_rng(0))


# ---------------------------------------------------------------- joining


def marked_clip(name, fps, size, count, fall=None):
    """Return a clip with a white square, on whose middle all joints lie, and its grey level."""
    x, y = size[0] // 4, size[1] // 2
    keypoints = np.zeros((count, 17, 3))
    keypoints[:] = x, y, 1
    keypoints[0, 3] = 0  # not found

    def frames():
        for number in range(count):
            picture = np.full((size[1], size[0], 3), 60 + 10 * (number % 8), np.uint8)
            side = size[1] // 8
            picture[y - side : y + side, x - side : x + side] = 255
            yield picture

    return Clip(name, fps, fall is not None, fall, keypoints, frames)


@pytest.fixture
def joined(tmp_path):
    clips = [
        marked_clip("a", 10, (160, 90), 10),
        marked_clip("b", 25, (160, 120), 50, (0.5, 2.0)),
        marked_clip("a", 10, (160, 90), 10),
        marked_clip("c", 12.5, (90, 160), 25, (1.0, 1.5)),
    ]
    return join_clips(clips, tmp_path / "new" / "a.mp4", (160, 120))


def test_each_clip_keeps_its_frame_rate(joined):
    with av.open(str(joined.video)) as file:
        stream = file.streams.video[0]
        times = [frame.time for frame in file.decode(stream)]
        length = float(stream.duration * stream.time_base)
    expected = [
        *(np.arange(10) / 10), *(1 + np.arange(50) / 25), *(3 + np.arange(10) / 10),
        *(4 + np.arange(25) / 12.5),
    ]  # fmt: skip
    assert times == pytest.approx(expected, abs=1e-4)
    assert length == pytest.approx(joined.seconds, abs=1e-3) == pytest.approx(6.0)


def test_the_truth_is_in_seconds_of_the_whole(joined):
    assert joined.fall_clips.tolist() == [[1.0, 3.0], [4.0, 6.0]]
    assert joined.falls.tolist() == [[1.5, 3.0], [5.0, 5.5]]
    assert (joined.clips, joined.different) == (4, 3)


def test_keypoints_lie_on_the_picture(joined):
    """Clips of other shapes are fitted in: their keypoints move along."""
    with np.load(joined.poses) as archive:
        keypoints = archive["keypoints"]
    with av.open(str(joined.video)) as file:
        pictures = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert keypoints.shape == (95, 1, 17, 3)
    for picture, person in zip(pictures, keypoints[:, 0], strict=True):
        assert picture.shape == (120, 160, 3)
        ys, xs = np.nonzero(picture[..., 0] > 200)
        assert person[0, :2] == pytest.approx([xs.mean() + 0.5, ys.mean() + 0.5], abs=0.6)
        assert person[0, 2] == 1
    for first in (0, 10, 60, 70):
        assert keypoints[first, 0, 3].tolist() == [0, 0, 0]


# ---------------------------------------------------------------- sources


def test_a_fall_begins_where_the_clip_differs_from_a_landed_one(tmp_path):
    root = ensure_synthetic(SyntheticSpec((64, 36), (1, 2, 6)), tmp_path, workers=1)
    clips = synthetic_clips(root, "test", 12, 0.5, 0)
    falls = [clip for clip in clips if clip.is_fall]
    assert falls
    for clip in clips:
        assert (clip.fall is not None) == clip.is_fall
        assert sum(1 for _ in clip.frames()) == len(clip.keypoints)
        picture = cv2.imread(str(root / "frames" / clip.name / "00001.jpg"))[..., ::-1]
        assert np.array_equal(next(clip.frames()), picture)
    for clip in falls:
        seed = (0, 2, int(clip.name[-4:]) - 1)
        fallen, landed = (simulate_clip((64, 36), seed, label) for label in (FALL, LANDED))
        differs = (fallen.joints != landed.joints).any(axis=(1, 2))
        first = int(differs.argmax()) / FPS
        assert clip.fall[0] == pytest.approx(first, abs=1.5 / FPS)
        assert clip.fall[1] == pytest.approx(clip.seconds)


def test_clips_of_another_seed_are_refused(tmp_path):
    root = ensure_synthetic(SyntheticSpec((64, 36), (1, 1, 4), seed=5), tmp_path, workers=1)
    with pytest.raises(InputError, match="not of the data set with seed 0"):
        synthetic_clips(root, "test", 12, 0.5, 0)


def test_real_clips_say_when_they_fall():
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not part of the project")
    clips = {s: gmdcsa24_clips(SHARED, s, 0) for s in ("1", "2", "3", "4")}
    every = [clip for some in clips.values() for clip in some]
    assert len(every) == 26
    assert sum(clip.is_fall for clip in every) == 14
    for clip in every:
        assert (clip.fall is not None) == clip.is_fall
        if clip.fall:
            assert 0 <= clip.fall[0] < clip.fall[1] <= clip.seconds + 1e-9
    falls = {clip.name: clip.fall for clip in every}
    assert falls["subject2_fall_13"] == (2.5, 8.0)
    assert sum(1 for _ in clips["3"][0].frames()) == len(clips["3"][0].keypoints)
    with pytest.raises(InputError, match="no subject '9'"):
        gmdcsa24_clips(SHARED, "9", 0)


# ---------------------------------------------------------------- counting


def test_memory_at_tenths_of_watching():
    memory = Memory(tuple(np.arange(0, 21.0)), tuple(np.arange(100, 121.0)))
    assert memory.at_tenths(10, 20) == list(range(111, 121))
    assert memory.peak == 120
    assert Memory((), ()).at_tenths(0, 1) == []
    assert math.isnan(Memory((), ()).peak)


def test_memory_of_a_process_is_seen():
    memory, seconds = run(["tools/make_synthetic.py", "--help"])
    assert seconds > 0
    assert not memory.values or 1 < memory.peak < 10_000


def test_a_run_that_fails_says_why():
    with pytest.raises(InputError, match="--nonsense"):
        run(["tools/make_synthetic.py", "--nonsense"])


def said(chances):
    """Return what predict.py says of a video of windows of a second each."""
    windows = [
        {
            "track": 0, "start": float(i), "end": i + 1.0, "first_frame": i, "last_frame": i,
            "probabilities": [1 - p, p],
        }
        for i, p in enumerate(chances)
    ]  # fmt: skip
    return {"windows": windows, "classes": ["landed", "fall"]}


def test_rules_are_scored_as_predict_would_apply_them(joined):
    prediction = said([0.1, 0.9, 0.9, 0.1, 0.1, 0.6])
    sharp = score_rule(prediction, EventRule(None, 0.5, 0.0, 0.0), joined)
    assert (sharp.found, sharp.matched) == (2, 2)
    strict = score_rule(prediction, EventRule(None, 0.7, 0.0, 0.0), joined)
    assert (strict.found, strict.matched, strict.recall) == (1, 1, 0.5)


def test_the_best_on_val_is_chosen(joined, monkeypatch, tmp_path):
    """The window that sees the falls and the threshold that keeps both."""
    seen = []

    def watch(weights, video, has_poses, output, settings, args, more=()):
        seen.append((video, settings["window_seconds"]))
        good = settings["window_seconds"] == 2.0
        return said([0.1, 0.9, 0.9, 0.1, 0.1, 0.6] if good else [0.9] * 6), None, 1.0

    monkeypatch.setattr(long_video, "watch", watch)
    options = "--weights a --work b --window_seconds 1 2 --threshold 0.95 0.7 0.5 --merge_seconds 0"
    best, tried = long_video.choose(Path("a"), joined, True, tmp_path, parse(options.split()))
    assert best == {
        "window_seconds": 2.0, "stride_seconds": None, "threshold": 0.5, "merge_seconds": 0.0,
        "min_seconds": 0.0,
    }  # fmt: skip
    assert len(tried) == 6
    assert seen == [(joined, 1.0), (joined, 2.0)]


def test_without_a_choice_nothing_is_watched_before(tmp_path):
    args = parse(["--weights", "a", "--work", "b", "--threshold", "0.7"])
    settings, tried = long_video.choose(Path("a"), None, True, tmp_path, args)
    assert settings["threshold"] == 0.7
    assert tried == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--fall_share 0.6", "0.5 at most"),
        ("--gmdcsa x --threshold 0.3 0.5", "no val clips"),
        ("--minutes 0", "--minutes"),
    ],
)
def test_options_that_contradict(options, words, capsys):
    with pytest.raises((SystemExit, InputError, argparse.ArgumentError)) as caught:
        parse(["--weights", "a", "--work", "b", *options.split()])
    assert words in capsys.readouterr().err + str(caught.value)


def test_models_of_a_kind_are_told_apart():
    kinds = [("none", "a"), ("early", "b"), ("early", "c")]
    rows = [{"fusion": fusion, "weights": weights} for fusion, weights in kinds]
    long_video.name_rows(rows)
    assert [row["name"] for row in rows] == ["rgb", "early b", "early c"]


def test_tables_hold_the_numbers(joined):
    found = np.array([[1.4, 3.0], [10.0, 11.0]])
    row = {
        "name": "early",
        "fusion": "early",
        "weights": "x/best.pth.tar",
        "settings": {"window_seconds": None, "threshold": 0.5},
        "timings": {"video": 6.0, "total": 3.0, "decode": 1.0, "pose": 0.0, "network": 2.0,
                    "output": 1.0},
        "memory_mb": {"watching": [500.0] * 10, "output": [], "peak": 512.3},
        "scores": {"falls": score_all(joined.falls, found, joined)},
    }  # fmt: skip
    text = tables([long_video.plain(row)])
    assert "| early | falls | 0.1 | 0.50 (1 of 2) | 0.50 (1 of 2) | 0.50 | 0.94 |" in text
    assert "| early | threshold 0.5 | 2.0 | 6.0 | – | 3.0 | 6.0 |" in text
    assert f"| early | {' '.join(['500'] * 10)} | 512 | – |" in text
