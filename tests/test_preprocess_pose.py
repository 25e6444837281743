"""Keypoint extraction, with an estimator that says where the bright square is."""

import re
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import preprocess_pose
from datasets.clip_table import ClipRow, write_table
from datasets.pose_files import read_notes
from datasets.prepare.pose_jobs import DecodedPart, PoseJob
from errors import InputError
from extraction import Tally, Worker
from ops.people import Detections
from options.poses import parse_pose_args


class FakeEstimator:
    """Every joint at the middle of the bright pixels; nobody in frames without any."""

    name, version, weights, weights_hash = "fake", "1.0", "fake.pt", "ab" * 32

    def __init__(self, opts):
        self.opts = opts

    def detect(self, frames):
        assert len(frames) <= self.opts.batch_size
        return [self.look(frame) for frame in frames]

    def look(self, frame):
        people = []
        for level in (255, 180):  # a second person is a little darker
            y, x = np.nonzero(abs(frame[..., 0].astype(int) - level) < 20)
            if len(x):
                box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
                people.append((box, level / 300, np.full((17, 3), (x.mean(), y.mean(), 0.9))))
        boxes, scores, joints = zip(*people, strict=True) if people else ((), (), ())
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores, np.float32),
            np.array(joints, np.float32).reshape(-1, 17, 3),
        )


def write_clip(folder, second=False):
    folder.mkdir(parents=True)
    for t in range(5):
        frame = np.zeros((20, 30, 3), np.uint8)
        if t:
            frame[4:8, 4 * t : 4 * t + 4] = 255
        if second:
            frame[10:18, 12:20] = 180
        cv2.imwrite(str(folder / f"{t:05d}.png"), frame)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "FRFS"
    for name in ("a", "b c"):
        write_clip(root / "frames" / name)
    (root / "train_videofolder.txt").write_text("# made_by: a test\na 5 0\n")
    (root / "test_videofolder.txt").write_text("b c 5 1\n")
    return root


@pytest.fixture
def run(root, monkeypatch):
    """Return a function that runs the program with the fake estimator."""
    monkeypatch.setattr(preprocess_pose, "build_estimator", lambda name, opts: FakeEstimator(opts))
    monkeypatch.setattr(preprocess_pose, "check_prepared", lambda *a, **k: None)
    base = ["--dataset_path", str(root.parent), "--pose_batch", "2", "--pose_weights", "fake.pt"]
    return lambda *more: preprocess_pose.main([*base, *more])


def keypoints_of(root, name):
    with np.load(root / "poses" / f"{name}.npz", allow_pickle=False) as saved:
        return saved["keypoints"]


def test_every_listed_clip_gets_its_keypoints(root, run, capsys):
    assert run() == 2
    with np.load(root / "poses" / "b c.npz", allow_pickle=False) as saved:
        assert saved["keypoints"].shape == (5, 1, 17, 3)
        assert (int(saved["width"]), int(saved["height"])) == (30, 20)
        assert saved["keypoints"][0].max() == 0
        assert saved["keypoints"][2, 0, 0].tolist() == pytest.approx([9.5, 5.5, 0.9])
        assert str(saved["source"]) == "fake fake.pt"
    assert read_notes(root / "poses" / "a.npz") == {
        "source": "fake fake.pt",
        "detector": "ultralytics",
        "detector_version": "1.0",
        "weights": "fake.pt",
        "weights_sha256": "ab" * 32,
        "conf": "0.8",
        "imgsz": "default",
        "max_people": "1",
        "main_athlete": "auto",
    }
    text = capsys.readouterr().out
    assert "2 clips with 10 frames written" in text
    assert "frames per second" in text
    shares = re.search(
        r"decoding ran (\d+)%, detection (\d+)%, following people and writing (\d+)%, "
        r"and detection waited for decoding (\d+)%\n",
        text,
    )
    assert sum(int(share) for share in shares.groups()[1:]) <= 102
    assert "somebody in 80.0% of frames; 0 clips with nobody" in text


def test_running_again_continues(root, run, capsys):
    run()
    kept = (root / "poses" / "a.npz").stat().st_mtime_ns
    whole = (root / "poses" / "b c.npz").read_bytes()
    (root / "poses" / "b c.npz").unlink()
    (root / "poses" / ".b c.npz.partial").write_bytes(b"half")
    assert run() == 1
    assert (root / "poses" / "a.npz").stat().st_mtime_ns == kept
    assert (root / "poses" / "b c.npz").read_bytes() == whole
    assert sorted(p.name for p in (root / "poses").iterdir()) == ["a.npz", "b c.npz"]
    capsys.readouterr()
    assert run() == 0
    assert capsys.readouterr().out == f"{root}: 2 clips have keypoints, nothing to do\n"


def test_clips_made_with_other_options_are_kept_and_named(root, run, capsys):
    run()
    before = (root / "poses" / "a.npz").read_bytes()
    capsys.readouterr()
    assert run("--conf", "0.3", "--max_people", "2") == 0
    text = capsys.readouterr().out
    assert "2 clips keep keypoints that were made otherwise" in text
    assert "conf 0.8 (now 0.3), max_people 1 (now 2)" in text
    assert (root / "poses" / "a.npz").read_bytes() == before
    assert run("--conf", "0.3", "--max_people", "2", "--overwrite") == 2
    assert keypoints_of(root, "a").shape == (5, 2, 17, 3)


def test_other_weights_of_the_same_name_are_noticed(root, run, tmp_path, monkeypatch, capsys):
    run()
    (tmp_path / "fake.pt").write_bytes(b"other")
    run("--pose_weights", str(tmp_path / "fake.pt"))
    assert f"weights_sha256 {'ab' * 32} (now " in capsys.readouterr().out


def test_keypoints_from_elsewhere_are_kept_and_named(root, run, capsys):
    np.savez(_made(root / "poses") / "a.npz", keypoints=np.zeros((5, 17, 3)), source="AlphaPose")
    assert run() == 1
    assert "such as a: from 'AlphaPose'" in capsys.readouterr().out


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_damaged_keypoints_are_made_again(root, run, capsys):
    run()
    whole = (root / "poses" / "a.npz").read_bytes()
    (root / "poses" / "a.npz").write_bytes(whole[:100])
    np.savez(root / "poses" / "b c.npz", keypoints=np.zeros((4, 1, 17, 3)))
    capsys.readouterr()
    assert run() == 2
    text = capsys.readouterr().out
    assert f"done again: {root / 'poses' / 'a.npz'} is no readable keypoint file" in text
    assert "b c.npz holds 4 poses, its clip has 5 frames\n" in text
    assert (root / "poses" / "a.npz").read_bytes() == whole


def test_published_files_beside_the_frames_count(root, run):
    for name in ("a", "b c"):
        for t in range(5):
            np.save(root / "frames" / name / f"{t:05d}.npy", np.zeros((17, 2)))
    assert run() == 0


def test_the_published_files_are_written_when_asked(root, run, capsys):
    assert run("--per_frame_npy") == 2
    for name in ("a", "b c"):
        expected = keypoints_of(root, name)[:, 0, :, :2]
        for t in range(5):
            pose = np.load(root / "frames" / name / f"{t:05d}.npy", allow_pickle=False)
            assert pose.shape == (17, 2)
            assert np.array_equal(pose, expected[t])
    whole = {path: path.read_bytes() for path in root.rglob("*.npy")}
    assert len(whole) == 10
    (root / "frames" / "a" / "00003.npy").unlink()
    left = root / "frames" / "a" / ".poses.partial" / "all"
    left.mkdir(parents=True)
    (left / "00003.npy").write_bytes(b"half")
    assert run("--per_frame_npy") == 0  # from the .npz, without estimating
    assert {path: path.read_bytes() for path in root.rglob("*.npy")} == whole
    assert not left.parent.exists()


def test_further_people_and_who_is_first(root, run):
    shutil.rmtree(root / "frames" / "a")
    write_clip(root / "frames" / "a", second=True)
    run("--max_people", "2")
    both = keypoints_of(root, "a")
    assert both[:, 0, 0, :2].tolist() == [[15.5, 13.5]] * 5  # large, in the middle, always there
    assert both[1:, 1, 0, 1].tolist() == [5.5] * 4
    run("--main_athlete", "confident", "--overwrite")
    assert keypoints_of(root, "a")[1:, 0, 0, 1].tolist() == [5.5] * 4
    boxes = np.full((5, 4), np.nan, np.float32)
    boxes[0] = (np.nan, 9, 3, 2)  # not known, whatever else it says
    for t in range(1, 5):
        boxes[t] = (4 * t, 4, 4 * t + 4, 8)
    np.save(_made(root / "boxes") / "a.npy", boxes)
    assert run("--overwrite") == 2
    assert keypoints_of(root, "a")[1:, 0, 0, 1].tolist() == [5.5] * 4
    run("--overwrite", "--main_athlete", "track")
    assert keypoints_of(root, "a")[:, 0, 0, 1].tolist() == [13.5] * 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((4, 4)), "its clip needs (5, 4) numbers"),
        (np.full((5, 4), 3.0), "has a box without area"),
        (np.array(["a"] * 5), "its clip needs (5, 4) numbers"),
        (b"no array", "is no readable .npy file"),
        (b"", "is no readable .npy file"),
        (None, "--main_athlete boxes needs it"),
    ],
)
def test_boxes_that_cannot_be_used(root, run, capsys, content, message):
    path = _made(root / "boxes") / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    np.save(root / "boxes" / "b c.npy", np.full((5, 4), np.nan))
    assert run("--main_athlete", "boxes") == 1
    text = capsys.readouterr().out
    assert f"left out a: {path}" in text
    assert message in text
    assert not (root / "poses" / "a.npz").exists()


def damage(root, name, kind):
    folder = root / "frames" / name
    if kind == "missing":
        shutil.rmtree(folder)
    elif kind == "cut":
        path = folder / "00003.png"
        path.write_bytes(path.read_bytes()[:50])
    elif kind == "gap":
        (folder / "00002.png").unlink()
    else:
        cv2.imwrite(str(folder / "00004.png"), np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize("kind", ["missing", "cut", "gap", "size"])
def test_a_damaged_clip_is_named_and_the_others_are_done(root, run, capsys, kind):
    damage(root, "a", kind)
    assert run() == 1
    text = capsys.readouterr().out
    assert text.count("left out a: ") == 1
    assert str(root / "frames" / "a") in text
    assert "1 damaged clips were left out, see above: a" in text
    assert sorted(p.name for p in (root / "poses").iterdir()) == ["b c.npz"]
    with pytest.raises(InputError, match="1 clips are damaged, such as a: "):
        run("--strict")
    damage(root, "b c", "missing")
    (root / "poses" / "b c.npz").unlink()
    with pytest.raises(InputError, match="2 clips are damaged"):
        run()


def test_frames_that_do_not_come_are_noticed(root):
    worker = Worker(root, None, {}, FakeEstimator(None))
    tally = Tally()
    part = DecodedPart(PoseJob("a", SimpleNamespace(count=5, place="a.mp4"), root / "a.npy"))
    worker.end_clip(part, [None] * 4, tally)
    assert tally.damaged["a"].startswith("a.mp4 gave 4 frames, the list says 5: ")
    assert not (root / "poses").exists()


def test_clips_with_nobody_are_named(root, run, capsys):
    for path in (root / "frames" / "a").iterdir():
        cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    run()
    assert "somebody in 40.0% of frames; 1 clips with nobody: a\n" in capsys.readouterr().out
    assert not keypoints_of(root, "a").any()


def test_kept_videos_have_no_place_for_published_files(root, run, capsys):
    shutil.rmtree(root / "frames" / "a")
    (root / "videos").mkdir()
    write_table(root, [ClipRow("a", "a.mp4", num_frames=5, width=30, height=20)])
    assert run("--per_frame_npy") == 1
    assert "left out a: clip a is kept as a video" in capsys.readouterr().out


def test_a_second_call_is_refused(root, run):
    args = parse_pose_args(["--dataset_path", str(root.parent)])
    assert args.main_athlete == "auto"
    with (
        preprocess_pose.claimed(root, preprocess_pose.Ranks()),
        pytest.raises(InputError, match="is being written by another program"),
    ):
        run()
    assert run() == 2


def test_the_check_runs_at_the_end(root, run, monkeypatch):
    calls = []
    monkeypatch.setattr(preprocess_pose, "check_prepared", lambda *a, **k: calls.append((a, k)))
    run("--strict")
    assert calls == [
        (("FRFS", root.parent), {"strict": True, "decode": False, "wrote": ("poses",)})
    ]
    run("--no_check")
    assert len(calls) == 1


def test_no_list(tmp_path):
    (tmp_path / "FRFS").mkdir()
    with pytest.raises(InputError, match="has no clip list"):
        preprocess_pose.main(["--dataset_path", str(tmp_path)])
    assert list((tmp_path / "FRFS").iterdir()) == []


def test_missing_weights_name_the_file(root):
    with pytest.raises(InputError, match="nowhere.pt"):
        preprocess_pose.main(["--dataset_path", str(root.parent), "--pose_weights", "nowhere.pt"])
    assert not list((root / "poses").glob("*"))


@pytest.mark.parametrize(
    "line", ["--max_people 101", "--max_people 0", "--conf 1.5", "--pose_backend yolo", "--imgsz x"]
)
def test_options_out_of_range(line, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_pose_args(line.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
