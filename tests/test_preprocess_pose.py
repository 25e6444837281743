"""Keypoint extraction, with an estimator that says where the bright square is."""

import cv2
import numpy as np
import pytest

import preprocess_pose
from errors import InputError


class FakeEstimator:
    """Every joint at the middle of the bright pixels; nobody in frames without any."""

    def __init__(self, weights, confidence, device, batch_size):
        self.batch_size = batch_size

    def __call__(self, frames):
        assert len(frames) <= self.batch_size
        found = np.zeros((len(frames), 1, 17, 3), np.float32)
        for number, frame in enumerate(frames):
            y, x = np.nonzero(frame[..., 0] > 128)
            if len(x):
                found[number, :] = x.mean(), y.mean(), 0.9
        return found


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "FRFS"
    for name in ("a", "b c"):
        (root / "frames" / name).mkdir(parents=True)
        for t in range(5):
            frame = np.zeros((20, 30, 3), np.uint8)
            if t:
                frame[4:8, 4 * t : 4 * t + 4] = 255
            cv2.imwrite(str(root / "frames" / name / f"{t:05d}.png"), frame)
    (root / "train_videofolder.txt").write_text("a 5 0\n")
    (root / "test_videofolder.txt").write_text("b c 5 1\n")
    return root


@pytest.fixture
def run(root, monkeypatch):
    monkeypatch.setattr(preprocess_pose, "UltralyticsPose", FakeEstimator)
    return lambda: preprocess_pose.main(["--dataset_path", str(root.parent), "--pose_batch", "2"])


def test_every_listed_clip_gets_its_keypoints(root, run):
    assert run() == 2
    with np.load(root / "poses" / "b c.npz", allow_pickle=False) as saved:
        assert saved["keypoints"].shape == (5, 1, 17, 3)
        assert (int(saved["width"]), int(saved["height"])) == (30, 20)
        assert saved["keypoints"][0].max() == 0
        assert saved["keypoints"][2, 0, 0].tolist() == pytest.approx([9.5, 5.5, 0.9])


def test_running_again_continues(root, run):
    run()
    kept = (root / "poses" / "a.npz").stat().st_mtime_ns
    (root / "poses" / "b c.npz").unlink()
    assert run() == 1
    assert (root / "poses" / "a.npz").stat().st_mtime_ns == kept
    assert run() == 0


def test_published_files_beside_the_frames_count(root, run):
    for name in ("a", "b c"):
        for t in range(5):
            np.save(root / "frames" / name / f"{t:05d}.npy", np.zeros((17, 2)))
    assert run() == 0


def test_no_list(tmp_path):
    (tmp_path / "FRFS").mkdir()
    with pytest.raises(InputError, match="has no clip list"):
        preprocess_pose.main(["--dataset_path", str(tmp_path)])


def test_missing_weights_name_the_file(root):
    with pytest.raises(InputError, match="nowhere.pt"):
        preprocess_pose.main(["--dataset_path", str(root.parent), "--pose_weights", "nowhere.pt"])
    assert not (root / "poses").exists()
