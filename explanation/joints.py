"""Which joints a skeleton model leans on: what it says when one is taken away."""

from dataclasses import replace

import torch
from torch import Tensor

from models.classifier import ClipClassifier
from ops.batch import Batch
from results.metrics import class_evidence


@torch.no_grad()
def joint_importance(model: ClipClassifier, batch: Batch, label: Tensor) -> Tensor:
    """Return how much each joint speaks for a class.

    A joint is made undetected in all frames of a clip; its importance is by how much the log-odds
    of the class fall then. Below 0 the joint speaks against the class. Joints that stand in for
    each other show as unimportant, both.

    Source: occlusion, Zeiler and Fergus 2014, arXiv:1311.2901, with joints in place of patches.

    Args:
        model: in evaluation mode, on the device of `batch`.
        batch: B clips with keypoints (B, T, M, V, 3).
        label: (B,) the class to explain.

    Returns:
        (B, V) float32 on the CPU.

    Raises:
        ValueError: the batch has no keypoints.
    """
    if batch.keypoints is None:
        raise ValueError("joints can be taken away only where there are keypoints")
    whole = _evidence(model, batch, label)
    falls = []
    for joint in range(batch.keypoints.shape[3]):
        keypoints = batch.keypoints.clone()
        keypoints[:, :, :, joint] = 0
        falls.append(whole - _evidence(model, replace(batch, keypoints=keypoints), label))
    return torch.stack(falls, dim=1)


def _evidence(model: ClipClassifier, batch: Batch, label: Tensor) -> Tensor:
    """Return (B,) log-odds of the classes."""
    odds = torch.from_numpy(class_evidence(model(batch).double().cpu().numpy(), "logits"))
    return odds.gather(1, label.cpu()[:, None])[:, 0].float()
