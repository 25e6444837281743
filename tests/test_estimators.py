"""Pose estimation back ends: what comes out, and what they must not do."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from errors import InputError
from models.estimators import UltralyticsPose, pick_people

ROOT = Path(__file__).resolve().parent.parent

# Runs in a process of its own: the package reads its settings when it is first imported.
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from models import estimators

with estimators._quiet_import():
    from ultralytics import YOLO
    from ultralytics.utils import AUTOINSTALL, ONLINE, SETTINGS
weights = Path("random.pt")
YOLO("yolo11n-pose.yaml").save(weights)  # random weights
frames = np.random.default_rng(0).integers(0, 255, (3, 90, 160, 3), dtype=np.uint8)

found = estimators.UltralyticsPose(weights, confidence=1e-9, max_people=2, batch_size=2)(frames)
assert found.shape == (3, 2, 17, 3), found.shape
assert found.dtype == np.float32
assert (found[..., 2] > 0).any() and (found[..., 2] <= 1).all()
assert (found[..., 0] <= 160).all() and (found[..., 1] <= 90).all() and (found >= 0).all()

sure = estimators.UltralyticsPose(weights)(frames)  # random weights are sure of nothing
assert sure.shape == (3, 1, 17, 3) and not sure.any()

YOLO("yolo11n.yaml").save("boxes.pt")
try:
    estimators.UltralyticsPose("boxes.pt")
except estimators.InputError as error:
    assert "give a pose model" in str(error), error
else:
    raise AssertionError("a box model was taken")

assert not ONLINE and not AUTOINSTALL
assert "YOLO_CONFIG_DIR" not in os.environ and "YOLO_OFFLINE" not in os.environ
assert not list(Path.home().rglob("*")), list(Path.home().rglob("*"))
"""


def test_a_pose_model_runs_offline_and_leaves_no_trace(tmp_path):
    pytest.importorskip("ultralytics", reason="ultralytics is not installed")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "XDG_"))}
    environment = clean | {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=work, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""


def test_the_most_confident_people_come_first_and_gaps_are_zero():
    people = np.random.default_rng(0).uniform(1, 9, (3, 17, 3)).astype(np.float32)
    picked = pick_people(people, np.array([0.3, 0.9, 0.5]), max_people=2)
    assert np.array_equal(picked, people[[1, 2]])
    few = pick_people(people[:1], np.array([0.3]), max_people=2)
    assert np.array_equal(few[0], people[0])
    assert not few[1].any()
    assert not pick_people(people[:0], np.zeros(0), max_people=2).any()


def test_joints_that_were_not_found_are_zero_in_all_three_values():
    person = np.ones((1, 17, 3), dtype=np.float32)
    person[0, 3] = (0, 0, 0.4)
    person[0, 4] = (5, 5, 0)
    picked = pick_people(person, np.ones(1), max_people=1)[0]
    assert not picked[[3, 4]].any()
    assert picked[[0, 1, 2, *range(5, 17)]].all()


class Recorder:
    """Stands for a model: keeps the images it is given, finds somebody at its mean colour."""

    def __init__(self):
        self.batches = []

    def predict(self, images, conf, device, verbose):
        self.batches.append(images)
        people = [np.full((1, 17, 3), 1.0, np.float32) * image.mean() for image in images]
        return [
            SimpleNamespace(
                keypoints=SimpleNamespace(data=torch.from_numpy(person)),
                boxes=SimpleNamespace(conf=torch.ones(1)),
            )
            for person in people
        ]


def test_frames_go_in_as_bgr_in_batches_and_come_out_in_order():
    estimator = UltralyticsPose.__new__(UltralyticsPose)
    estimator.confidence, estimator.max_people, estimator.device = 0.8, 1, "cpu"
    estimator.batch_size, estimator._model = 2, Recorder()
    frames = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    frames[..., 0] += 10  # red
    found = estimator(frames)
    assert [len(images) for images in estimator._model.batches] == [2, 2, 1]
    assert np.array_equal(estimator._model.batches[0][0][0, 0], [1, 1, 11])
    assert np.allclose(found[:, 0, 0, 0], frames.mean(axis=(1, 2, 3)))


def test_missing_weights_name_the_address(tmp_path):
    with pytest.raises(InputError, match="github.com/ultralytics/assets") as caught:
        UltralyticsPose(tmp_path / "yolo11x-pose.pt")
    assert "AGPL-3.0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 8, 8, 3))])
def test_wrong_frames(frames):
    estimator = UltralyticsPose.__new__(UltralyticsPose)  # the check needs no model
    with pytest.raises(ValueError, match="uint8 RGB"):
        estimator(frames)
