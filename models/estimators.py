"""Back ends that find people and their joints in frames."""

import atexit
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from errors import InputError
from ops.skeleton import COCO17

NUM_JOINTS = len(COCO17.joints)
WEIGHTS_ADDRESS = "https://github.com/ultralytics/assets/releases"

# Ultralytics reads these while it is imported: nothing is sent, fetched, installed or printed,
# and of a weights file only known classes are built. Releases before 8.4 know no safe loading:
# there a weights file can run code, so use files that you trust.
_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",
}


class UltralyticsPose:
    """An Ultralytics pose model. Note its licence: AGPL-3.0, also for what is built on it.

    Args:
        weights: a pose model with COCO's 17 joints, such as yolo11x-pose.pt.
        confidence: people found with less are left out.
        max_people: M, people kept per frame, the most confident first.
        device: where to compute, in torch's naming.
        batch_size: frames per forward pass.

    Raises:
        InputError: the package or the file is not there, or the file is no such model.
    """

    def __init__(
        self,
        weights: Path | str,
        confidence: float = 0.8,
        max_people: int = 1,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        self.confidence = confidence
        self.max_people = max_people
        self.device = device
        self.batch_size = batch_size
        self._model = _load(Path(weights))

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Find people in each frame.

        Args:
            frames: (T, H, W, 3) uint8, RGB.

        Returns:
            (T, M, 17, 3) float32: x, y in pixels of the frame and confidence 0-1; all 0 where
            nobody, or no such joint, was found.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
            raise ValueError(
                f"the frames are {frames.shape} {frames.dtype}, the estimator takes (T, H, W, 3) "
                "uint8 RGB"
            )
        found = np.zeros((len(frames), self.max_people, NUM_JOINTS, 3), dtype=np.float32)
        for start in range(0, len(frames), self.batch_size):
            images = [np.ascontiguousarray(f[..., ::-1]) for f in frames[start:][: self.batch_size]]
            results = self._model.predict(
                images, conf=self.confidence, device=self.device, verbose=False
            )
            for index, result in enumerate(results, start):
                people = result.keypoints.data.cpu().numpy()
                scores = result.boxes.conf.cpu().numpy()
                found[index] = pick_people(people, scores, self.max_people)
        return found


def pick_people(people: np.ndarray, scores: np.ndarray, max_people: int) -> np.ndarray:
    """Keep the most confident people; fill up with zeros.

    Args:
        people: (N, V, 3): x, y, confidence. Joints at (0, 0) count as not found.
        scores: (N,) confidence in each person.
        max_people: M.

    Returns:
        (M, V, 3) float32.
    """
    best = np.argsort(-scores, kind="stable")[:max_people]
    picked = np.zeros((max_people, NUM_JOINTS, 3), dtype=np.float32)
    picked[: len(best)] = people[best]
    is_found = (picked[..., 2] > 0) & picked[..., :2].any(axis=-1)
    return np.where(is_found[..., None], picked, np.float32(0))


def _load(weights: Path) -> Any:
    """Load a model without letting the package reach for the network."""
    if not weights.is_file():  # the package would try to download it
        raise InputError(
            f"{weights} is not there: download {weights.name} from {WEIGHTS_ADDRESS} "
            "(AGPL-3.0) and give its path"
        )
    try:
        with _quiet_import():
            yolo = importlib.import_module("ultralytics").YOLO
    except ImportError as error:
        raise InputError(
            f"the package ultralytics is not installed ({error}): pip install ultralytics, or "
            "give keypoint files"
        ) from error
    try:
        model = yolo(weights)
        joints = tuple(model.model.yaml["kpt_shape"]) if model.task == "pose" else None
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{weights} is no Ultralytics model, or damaged ({reason}): download it again from "
            f"{WEIGHTS_ADDRESS}"
        ) from error
    if joints != (NUM_JOINTS, 3):
        raise InputError(
            f"{weights} is a model for {model.task} with keypoints {joints}: give a pose model "
            f"with COCO's {NUM_JOINTS} joints, such as yolo11x-pose.pt"
        )
    return model


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Set what ultralytics reads on import, its settings in a folder that goes with the process."""
    if "ultralytics" in sys.modules:
        yield
        return
    folder = tempfile.mkdtemp(prefix="ultralytics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings = {**_QUIET, "YOLO_CONFIG_DIR": folder}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
