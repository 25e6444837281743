"""predict.py: what it writes and says, and how it ends."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch

import predict
from datasets.poses import save_poses
from errors import InputError, Interrupted, run_script
from models.weights import FORMAT, FORMAT_VERSION
from options.predicting import parse_predict_args
from prediction.frames import VideoFile
from prediction.outputs import write_summary
from prediction.places import folder_name, output_folders
from prediction.sources import find_sources
from tests.making_videos import SIZE, write_video
from tests.small_networks import small_network
from tests.test_prediction_predictor import FACTS, Estimator, walking
from tests.test_prediction_sources import FakeCapture

ROOT = Path(__file__).resolve().parent.parent
FILES = {"timeline.csv", "timeline.png", "events.csv", "predictions.json", "annotated.mp4"}


def checkpoint(path, mode="rgb"):
    """Write a checkpoint of a small network as training does."""
    network = small_network(mode, data=FACTS)
    options = {**network.config.options, "class_names": list(network.config.classes)}
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model": network.model.state_dict(),
        "args": options,
        "data": FACTS,
    }
    torch.save(content, path)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with a.mp4, its keypoints a.npz, and rgb.pth, late.pth, pose.pth."""
    monkeypatch.chdir(tmp_path)
    for mode in ("rgb", "late", "pose"):
        checkpoint(tmp_path / f"{mode}.pth", mode)
    write_video(tmp_path / "a.mp4", 30)
    save_poses(tmp_path / "a.npz", walking(people=2), SIZE, "test")
    return tmp_path


def table(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_weights_and_a_video_are_enough(place, capsys):
    (result,) = predict.main(["--weights", "rgb.pth", "--source", "a.mp4"])
    folder = place / "predictions" / "a"
    assert {path.name for path in folder.iterdir()} == FILES
    content = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    assert content["model"]["weights"] == "rgb.pth"
    assert content["model"]["trained_on"] == FACTS
    assert content["options"]["threshold"] == 0.5
    assert content["versions"]["torch"] == torch.__version__
    assert len(content["windows"]) == len(table(folder / "timeline.csv")) == 5
    with av.open(str(folder / "annotated.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 30
    said = capsys.readouterr().out
    assert "a.mp4: 1.20 s, 30 frames of 64x48" in said
    assert "windows of 0.40 s (the median training clip), one every 0.20 s" in said
    assert "video seconds per second" in said
    assert result.timings.output > 0


def test_everything_that_can_be_asked_for(place):
    argv = ["--weights", "late.pth", "--source", "a.mp4", "--poses", "a.npz", "--output", "out"]
    argv += ["--people", "all", "--save_poses", "--no_video", "--threshold", "0.3"]
    argv += ["--event_classes", "landed", "fall", "--window_seconds", "0.6", "--test_crops", "3"]
    (result,) = predict.main(argv)
    assert {path.name for path in Path("out").iterdir()} == FILES - {"annotated.mp4"} | {
        "poses.npz"
    }
    assert result.tracks == (0, 1)
    assert {event.label for event in result.events} <= {"landed", "fall"}
    assert {row["track"] for row in table(Path("out/timeline.csv"))} == {"0", "1"}
    saved = np.load("out/poses.npz")["keypoints"]
    np.testing.assert_allclose(saved, np.load("a.npz")["keypoints"])


def test_saved_poses_can_be_given_again(place):
    base = ["--weights", "pose.pth", "--source", "a.mp4", "--no_video"]
    (first,) = predict.main([*base, "--poses", "a.npz", "--save_poses", "--output", "one"])
    (again,) = predict.main([*base, "--poses", "one/poses.npz", "--output", "two"])
    assert first.windows == again.windows


def test_several_sources_go_on_when_one_cannot_be_read(place, capsys):
    folder = place / "many"
    for name in ("take 2.mp4", "take 10.mp4", "sub/take 2.mp4"):
        write_video(folder / name, 12)
    (folder / "take 3.mp4").write_text("<html>")
    (folder / "=evil.mp4").write_bytes(b"")
    with pytest.raises(InputError, match="2 of 5 sources gave no result"):
        predict.main(["--weights", "rgb.pth", "--source", "many", "--no_video"])
    assert sorted(path.name for path in (place / "predictions").iterdir()) == [
        "summary.csv", "take 10", "take 2", "take 2_2",
    ]  # fmt: skip
    rows = table(place / "predictions" / "summary.csv")
    assert [bool(row["error"]) for row in rows].count(True) == 2
    assert "WARNING" in capsys.readouterr().out


def test_a_folder_of_keypoints_for_a_folder_of_videos(place):
    write_video(place / "many" / "a.mp4", 30)
    write_video(place / "many" / "b.mp4", 30)
    save_poses(place / "poses" / "a.npz", walking(), SIZE, "test")
    argv = ["--weights", "pose.pth", "--source", "many", "--no_video", "--poses"]
    with pytest.raises(InputError, match=r"a\.npz is for one video, there are 2"):
        predict.main([*argv, "a.npz"])
    with pytest.raises(InputError, match=r"1 of 2 .*b\.npz is not there"):
        predict.main([*argv, "poses"])
    assert (place / "predictions" / "a" / "predictions.json").is_file()


def test_the_options_of_the_estimator_reach_it(place, monkeypatch):
    asked = []

    def build(backend, opts):
        asked.append((backend, opts))
        return Estimator(walking(people=2))

    monkeypatch.setattr(predict, "build_estimator", build)
    argv = ["--weights", "late.pth", "--source", "a.mp4", "--no_video", "--pose_weights", "y.pt"]
    (result,) = predict.main([*argv, "--conf", "0.3", "--imgsz", "320", "--pose_batch", "4"])
    ((backend, opts),) = asked
    assert backend == "ultralytics"
    assert (str(opts.weights), opts.confidence, opts.image_size) == ("y.pt", 0.3, 320)
    assert opts.batch_size == 4
    assert len(result.windows) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--whole --window_seconds 2", "leave out --window_seconds"),
        ("--poses a.npz --pose_weights y.pt", "keypoints come from one of them"),
        ("--conf 0.5", "--conf needs --pose_backend or --pose_weights"),
        ("--pose_every 2 --poses a.npz", "--pose_every needs"),
        ("--window_seconds 0", "must be a number above 0"),
        ("--people none", "must be a whole number"),
        ("--threshold 1.5", "above 0 and at most 1"),
    ],
)
def test_options_that_do_not_go_together(more, message, capsys):
    with pytest.raises(SystemExit) as end:
        parse_predict_args(["--weights", "x", "--source", "y", *more.split()])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--weights rgb.pth --source none.mp4", "none.mp4 cannot be read"),
        ("--weights none.pth --source a.mp4", "none.pth"),
        ("--weights rgb.pth --source a.mp4 --event_classes jump", "knows landed, fall"),
        ("--weights rgb.pth --source a.mp4 --people all", "cannot tell people apart"),
        ("--weights rgb.pth --source a.mp4 --poses a.npz", "sees RGB alone"),
        ("--weights late.pth --source a.mp4", "sees poses: give them with --poses"),
        ("--weights rgb.pth --source rgb.pth", "no video that can be read"),
        ("--weights rgb.pth --source a.mp4 --output a.npz", "a.npz"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(place, argv, message, capsys):
    with pytest.raises(SystemExit) as end:
        run_script(lambda: predict.main([*argv.split(), "--no_video"]))
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (place / "predictions").exists()


# ---------------------------------------------------------------- cameras


def test_a_camera_says_changes_and_leaves_a_result(place, monkeypatch, capsys):
    fake = type("Capture", (FakeCapture,), {"count": 60, "pause": 0.01})
    monkeypatch.setattr(cv2, "VideoCapture", fake)
    argv = ["--weights", "rgb.pth", "--source", "0", "--window_seconds", "0.2"]
    (result,) = predict.main(argv)
    said = capsys.readouterr().out
    assert "watching camera 0, Ctrl-C ends it" in said
    assert f" s: {result.classes[np.argmax(result.windows[0].probabilities)]} " in said
    assert "no annotated.mp4: camera 0 cannot be watched a second time" in said
    names = {path.name for path in (place / "predictions" / "camera0").iterdir()}
    assert names == FILES - {"annotated.mp4"}


LIVE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import cv2, predict, errors
from tests.test_prediction_sources import FakeCapture
cv2.VideoCapture = type("Capture", (FakeCapture,), {"count": 10**9, "pause": 0.01})
errors.run_script(predict.main)
"""


def test_ctrl_c_ends_a_camera_with_its_result(place):
    argv = ["--weights", "rgb.pth", "--source", "0", "--window_seconds", "0.2"]
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE, str(ROOT), *argv],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [process.stdout.readline(), process.stdout.readline()]
    assert "watching" in lines[0]
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "wrote predictions/camera0" in rest
    assert json.loads(Path("predictions/camera0/predictions.json").read_text())["windows"]


# ---------------------------------------------------------------- names


def test_folders_are_named_after_their_sources(tmp_path):
    sources = find_sources(["x/a.mp4", "y/A.avi", "z/a_2.mp4", "a.mkv", "a b.mp4", "..mp4"])
    names = [path.name for path in output_folders(tmp_path, sources)]
    assert len({name.casefold() for name in names}) == len(names)
    assert names[0] == "a"
    assert names[4] == "a b"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("..", "video"),
        ("a/b", "a_b"),
        ("con\nx", "con_x"),
        ("日本 <x>", "日本 _x_"),
        ("x" * 400, "x" * 200),
    ],
)
def test_folder_names_are_harmless(stem, name):
    assert folder_name(stem) == name


def test_the_summary_is_no_formula(tmp_path):
    write_summary(tmp_path / "s.csv", [("=1+1.mp4", "-bad\nline")])
    (row,) = table(tmp_path / "s.csv")
    assert row["source"].startswith("'=")
    assert row["error"].startswith("'-bad")
    assert "\n" not in row["error"]


def test_a_signal_before_the_first_frame_is_no_fault_of_the_source(tmp_path, monkeypatch):
    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise InputError("no frame was seen")

    predictor = SimpleNamespace(
        predict=interrupted, network=SimpleNamespace(config=SimpleNamespace(classes=("a", "b")))
    )
    with pytest.raises(Interrupted) as event:
        predict.predict_one(
            predictor, VideoFile(Path("x.mp4")), tmp_path, SimpleNamespace(poses=None), {}
        )
    assert event.value.signum == signal.SIGTERM
