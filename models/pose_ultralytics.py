"""Ultralytics pose models. Note the licence: AGPL-3.0, also for what is built on it.

The package is imported here alone, and only when a model is built.
"""

import atexit
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from errors import InputError
from models.pose_weights import check_frames, find_weights, reason_of
from ops.people import Detections
from ops.skeleton import COCO17

NUM_JOINTS = len(COCO17.joints)
DEFAULT_WEIGHTS = "yolo11x-pose.pt"
ADDRESS = "https://github.com/ultralytics/assets/releases"
# Files that can be fetched: those of YOLO11.
_RELEASE = ADDRESS + "/download/v8.3.0/"
_FETCHED = re.compile(r"yolo11[nsmlx]-pose\.pt")
# The network halves its input five times.
_STRIDE = 32

# Ultralytics reads these while it is imported: nothing is sent, fetched, installed or printed,
# and of a weights file only known classes are built.
_QUIET = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",
}


class UltralyticsPose:
    """An estimator: YOLO11 and other pose models with COCO's 17 joints.

    Args:
        weights: a pose model, such as yolo11x-pose.pt.
        confidence: people found with less are left out.
        device: where to compute, in torch's naming.
        batch_size: frames per forward pass.
        image_size: longer side of the network's input, pixels; None is the package's own.
        download: whether a known weights file that is not there may be fetched.

    Raises:
        InputError: the package or the file is not there, or the file is no such model.
    """

    name = "ultralytics"

    def __init__(
        self,
        weights: Path | str,
        confidence: float = 0.8,
        device: str = "cpu",
        batch_size: int = 16,
        image_size: int | None = None,
        download: bool = False,
    ) -> None:
        path = Path(weights)
        if image_size is not None and image_size % _STRIDE:
            raise InputError(
                f"--imgsz {image_size} is no multiple of {_STRIDE}, which {self.name} needs: take "
                f"{round(image_size / _STRIDE) * _STRIDE or _STRIDE}"
            )
        can_fetch = download and _FETCHED.fullmatch(path.name)
        self.weights_hash = find_weights(
            path,
            "an Ultralytics pose model (AGPL-3.0)",
            f"{_RELEASE}{path.name}" if _FETCHED.fullmatch(path.name) else ADDRESS,
            url=_RELEASE + path.name if can_fetch else None,
        )
        self.weights = path.name
        self.confidence = confidence
        self.device = device
        self.batch_size = batch_size
        self._size = {} if image_size is None else {"imgsz": image_size}
        self._model, self.version = _load(path)

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Find people in each frame.

        Args:
            frames: (T, H, W, 3) uint8, RGB.
        """
        check_frames(frames)
        found = []
        for start in range(0, len(frames), self.batch_size):
            images = [np.ascontiguousarray(f[..., ::-1]) for f in frames[start:][: self.batch_size]]
            results = self._model.predict(
                images, conf=self.confidence, device=self.device, verbose=False, **self._size
            )
            found += [
                Detections(
                    result.boxes.xyxy.cpu().numpy().reshape(-1, 4),
                    result.boxes.conf.cpu().numpy().reshape(-1),
                    result.keypoints.data.cpu().numpy().reshape(-1, NUM_JOINTS, 3),
                )
                for result in results
            ]
        return found


def _refuse_unsafe(package: Any) -> None:
    """Let the package build only known classes, also where it was imported before us.

    Raises:
        InputError: this release cannot: there a weights file can run code.
    """
    tasks: Any = importlib.import_module("ultralytics.nn.tasks")
    if not (hasattr(tasks, "SAFE_LOAD") and getattr(tasks._SafeLoad, "SUPPORTED", False)):
        raise InputError(
            f"ultralytics {package.__version__} loads weights by running what is in them: pip "
            "install --upgrade ultralytics, or choose another --pose_backend"
        )
    tasks.SAFE_LOAD = True


def _load(weights: Path) -> tuple[Any, str]:
    """Load a model without letting the package reach for the network; return its version too."""
    try:
        with _quiet_import():
            package = importlib.import_module("ultralytics")
            yolo = package.YOLO
    except ImportError as error:
        raise InputError(
            f"the package ultralytics is not installed ({error}): pip install ultralytics, or "
            "give keypoint files"
        ) from error
    _refuse_unsafe(package)
    try:
        model = yolo(weights)
        joints = tuple(model.model.yaml["kpt_shape"]) if model.task == "pose" else None
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        raise InputError(
            f"{weights} is no Ultralytics model, or damaged ({reason_of(error)}): download it "
            f"again from {ADDRESS}"
        ) from error
    if joints != (NUM_JOINTS, 3):
        raise InputError(
            f"{weights} is a model for {model.task} with keypoints {joints}: give a pose model "
            f"with COCO's {NUM_JOINTS} joints, such as {DEFAULT_WEIGHTS}"
        )
    return model, str(package.__version__)


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
