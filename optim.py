"""The optimiser: which parameters decay, the learning rate of an epoch, class weights."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from errors import InputError


def learning_rate(epoch: int, epochs: int, warmup: int, peak: float) -> float:
    """Return the rate of an epoch: linear from peak/10 for `warmup` epochs, then a half cosine.

    Source: the published schedule (Bianchi & Lanz 2025, arXiv:2503.04470, training recipe).
    """
    if epoch < warmup:
        return peak * (0.1 + 0.9 * epoch / warmup)
    return 0.5 * peak * (1 + math.cos(math.pi * (epoch - warmup) / max(1, epochs - warmup)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters: weights decay; norms and biases (one axis) do not."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def build_optimizer(
    model: nn.Module, method: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build SGD or AdamW over every trainable parameter."""
    groups = parameter_groups(model, weight_decay)
    if method == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum)


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> Tensor:
    """Return (K,) weights N / (K * count): the mean over the training list is 1.

    Raises:
        InputError: a class has no training clip.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        raise InputError(
            f"class {int(np.argmin(counts))} has no clip in the training list, which "
            "--class_weights balanced needs: add clips of it or use --class_weights none"
        )
    return torch.tensor(len(labels) / (num_classes * counts), dtype=torch.float32)
