"""RTMPose and RTMO as ONNX files, run by the optional package rtmlib. Licence: Apache-2.0."""

import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from errors import InputError
from models.pose_weights import check_frames, find_weights, reason_of
from ops.people import Detections
from ops.skeleton import COCO17

NUM_JOINTS = len(COCO17.joints)
ADDRESS = "https://github.com/Tau-J/rtmlib#model-zoo"
# A person's box around the joints is larger than they are, by this share of each side.
_MARGIN = 0.1


class RtmlibPose:
    """An estimator: RTMO in one step, or RTMPose on the people that a YOLOX detector finds.

    Args:
        weights: the ONNX file of an RTMO, or of an RTMPose when `detector` is given; 17 joints.
        detector: the ONNX file of a YOLOX person detector, None for RTMO.
        confidence: people found with less are left out.
        device: where to compute: cpu, mps, cuda or cuda:<index> (needs onnxruntime-gpu).

    Raises:
        InputError: the package or a file is not there, or a file is no such model.
    """

    name = "rtmlib"

    def __init__(
        self,
        weights: Path | str,
        detector: Path | str | None = None,
        confidence: float = 0.8,
        device: str = "cpu",
    ) -> None:
        path, detector = Path(weights), None if detector is None else Path(detector)
        hashes = [find_weights(path, "an RTMPose or RTMO model (.onnx)", ADDRESS)]
        if detector is not None:
            hashes.append(find_weights(detector, "a YOLOX person detector (.onnx)", ADDRESS))
        self.weights_hash = "+".join(hashes)
        self.weights = "+".join(file.name for file in (path, detector) if file)
        self.confidence = confidence
        package = _import()
        self.version = str(importlib.import_module("rtmlib.version").__version__)
        if detector is None:
            self._detector = None
            self._pose = _build(package.RTMO, path, device, score_thr=confidence)
        else:
            self._detector = _build(package.YOLOX, detector, device, score_thr=confidence)
            self._pose = _build(package.RTMPose, path, device)

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Find people in each frame, one frame at a time: the package knows no batches.

        Args:
            frames: (T, H, W, 3) uint8, RGB.

        Raises:
            InputError: the model has other joints than COCO's 17.
        """
        check_frames(frames)
        return [self._detect(np.ascontiguousarray(frame[..., ::-1])) for frame in frames]

    def _detect(self, image: np.ndarray) -> Detections:
        """Find people in one BGR image."""
        boxes = None
        if self._detector is not None:
            boxes = np.asarray(self._detector(image), np.float32).reshape(-1, 4)
            if not len(boxes):  # the package would take the whole image for a person
                return Detections(boxes, boxes[:, 0], np.zeros((0, NUM_JOINTS, 3), np.float32))
        places, scores = self._pose(image) if boxes is None else self._pose(image, boxes)
        if scores.shape[1] != NUM_JOINTS:
            raise InputError(
                f"{self.weights} finds {scores.shape[1]} joints: give a model with COCO's "
                f"{NUM_JOINTS}"
            )
        scores = np.clip(scores, 0, 1).astype(np.float32)
        joints = np.concatenate([places.astype(np.float32), scores[..., None]], axis=-1)
        is_person = scores.any(axis=1)  # RTMO says "nobody" with a person of zeros
        if boxes is None:
            boxes = _around(joints)
        return Detections(boxes, scores.mean(axis=1), joints).pick(is_person)


def _around(joints: np.ndarray) -> np.ndarray:
    """Return (P, 4) boxes around people."""
    low, high = joints[..., :2].min(axis=1), joints[..., :2].max(axis=1)
    margin = _MARGIN * (high - low)
    return np.concatenate([low - margin, high + margin], axis=1)


def _import() -> Any:
    try:
        importlib.import_module("onnxruntime")
        return importlib.import_module("rtmlib")
    except ImportError as error:
        raise InputError(
            f"the package rtmlib is not installed ({error}): pip install rtmlib onnxruntime, or "
            "choose another --pose_backend"
        ) from None


def _build(kind: Any, path: Path, device: str, **settings: float) -> Any:
    try:
        with redirect_stdout(io.StringIO()):  # the package tells which file it loads
            tool = kind(str(path), backend="onnxruntime", device=device, **settings)
        height, width = tool.session.get_inputs()[0].shape[2:]
    except Exception as error:  # noqa: BLE001 - a damaged file makes the package raise anything
        raise InputError(
            f"{path} is no {kind.__name__} model, or damaged ({reason_of(error)}): download it "
            f"again from {ADDRESS}"
        ) from None
    if isinstance(height, int) and isinstance(width, int):
        # The package does not ask the file; RTMPose alone puts the width first.
        is_pose = kind.__name__ == "RTMPose"
        tool.model_input_size = (width, height) if is_pose else (height, width)
    return tool
