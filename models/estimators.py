"""Back ends that find people and their joints in frames, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from errors import InputError
from models import pose_torchvision, pose_ultralytics
from models.pose_rtmlib import ADDRESS as RTMLIB_ADDRESS
from models.pose_rtmlib import RtmlibPose
from models.pose_torchvision import TorchvisionPose
from models.pose_ultralytics import UltralyticsPose
from models.pose_weights import sha256_of
from ops.people import Detections

__all__ = ["Estimator", "EstimatorOpts", "UltralyticsPose", "build_estimator", "weights_notes"]


class Estimator(Protocol):
    """Finds people in frames.

    Attributes:
        name: of the back end.
        version: of the package that computes.
        weights: name of the weights file; two joined by "+" where there are two.
        weights_hash: their SHA-256 in hexadecimal, joined in the same way.
    """

    name: str
    version: str
    weights: str
    weights_hash: str

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Find people in each of (T, H, W, 3) uint8 RGB frames, in pixels of the frame."""


@dataclass(frozen=True, slots=True)
class EstimatorOpts:
    """What decides an estimator.

    Attributes:
        weights: file; None is the back end's usual one, in the working folder.
        detector: file of a person detector (rtmlib with RTMPose).
        device: where to compute, in torch's naming.
        confidence: people found with less are left out, 0 to 1.
        image_size: of the network's input, pixels; None is the back end's own.
        batch_size: frames per forward pass.
        download: whether a weights file that is not there may be fetched.
    """

    weights: Path | None = None
    detector: Path | None = None
    device: str = "cpu"
    confidence: float = 0.8
    image_size: int | None = None
    batch_size: int = 16
    download: bool = False


def build_estimator(backend: str, opts: EstimatorOpts) -> Estimator:
    """Build the estimator that `backend` names.

    Raises:
        InputError: there is no such back end, an option is not for it, or its package or weights
            are not there.
    """
    if backend not in BACKENDS:
        raise InputError(f"unknown pose back end {backend!r}: choose from {', '.join(BACKENDS)}")
    if backend != "rtmlib" and opts.detector is not None:
        raise InputError(
            f"--detector_weights {opts.detector} is for --pose_backend rtmlib: {backend} finds "
            "people and joints in one step, drop it"
        )
    return BACKENDS[backend](opts)


def weights_notes(backend: str, weights: Path | None, detector: Path | None) -> dict[str, str]:
    """Return name and, where the files are there, SHA-256 of what `build_estimator` would load.

    The keys are those of keypoint files: weights, weights_sha256.
    """
    usual = _USUAL.get(backend)
    files = [file for file in (weights or (usual and Path(usual)), detector) if file]
    notes = {"weights": "+".join(file.name for file in files)}
    if files and all(file.is_file() for file in files):
        notes["weights_sha256"] = "+".join(map(sha256_of, files))
    return notes


def _in_one_step(
    build: Callable[..., Estimator], usual: str
) -> Callable[[EstimatorOpts], Estimator]:
    """Return what builds a back end that finds people and joints in one step."""
    return lambda opts: build(
        opts.weights or Path(usual),
        confidence=opts.confidence,
        device=opts.device,
        batch_size=opts.batch_size,
        image_size=opts.image_size,
        download=opts.download,
    )


def _rtmlib(opts: EstimatorOpts) -> Estimator:
    if opts.weights is None or opts.download:
        raise InputError(
            "--pose_backend rtmlib has no file that it could take or download by itself: get ONNX "
            f"files from {RTMLIB_ADDRESS}, unpack them, and give --pose_weights (and "
            "--detector_weights for RTMPose)"
        )
    if opts.image_size is not None:
        raise InputError(
            f"--imgsz {opts.image_size} has no effect on --pose_backend rtmlib: an ONNX file has "
            "its own size, drop it"
        )
    return RtmlibPose(opts.weights, opts.detector, opts.confidence, opts.device)


_USUAL = {
    "ultralytics": pose_ultralytics.DEFAULT_WEIGHTS,
    "torchvision": pose_torchvision.DEFAULT_WEIGHTS,
}
BACKENDS: dict[str, Callable[[EstimatorOpts], Estimator]] = {
    "ultralytics": _in_one_step(UltralyticsPose, pose_ultralytics.DEFAULT_WEIGHTS),
    "torchvision": _in_one_step(TorchvisionPose, pose_torchvision.DEFAULT_WEIGHTS),
    "rtmlib": _rtmlib,
}
