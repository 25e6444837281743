"""The loss of networks with one classifier or with several."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def classifier_losses(
    logits: Tensor,
    labels: Tensor,
    head_weights: Sequence[float] | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of B clips, and how many of them were right.

    Args:
        logits: (B, K) of one classifier, or (B, P, K) of P, whose losses are added up.
        labels: (B,) int64 classes.
        head_weights: P weights of these losses; None: 1 for each.
        class_weights: (K,) weights of the classes, or None.
        label_smoothing: share of the target that all classes have in equal parts, 0 to 1.

    Returns:
        Two scalars. Several classifiers answer together: by the weighted sum of their softmax.

    Raises:
        ValueError: there are not as many weights as classifiers.
    """
    heads = logits.unbind(1) if logits.ndim == 3 else (logits,)
    weights = head_weights or (1.0,) * len(heads)
    if len(weights) != len(heads):
        raise ValueError(f"{len(weights)} weights for {len(heads)} classifiers")
    losses = [
        weight
        * F.cross_entropy(
            head, labels, class_weights, reduction="sum", label_smoothing=label_smoothing
        )
        for weight, head in zip(weights, heads, strict=True)
    ]
    answer = logits.detach()
    if logits.ndim == 3:
        shares = torch.tensor(weights, device=logits.device)[:, None]
        answer = (answer.softmax(2) * shares).sum(1)
    return torch.stack(losses).sum(), (answer.argmax(1) == labels).sum()
