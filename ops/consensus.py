"""How the logits of segments become those of a clip."""

import torch
from torch import Tensor


def to_segments(features: Tensor, num_segments: int) -> Tensor:
    """Average features over time in equal parts: (B, T', D) to (B, T, D).

    Segment i is the mean of the T' that overlap the i-th of T equal parts of the clip, as
    `torch.nn.functional.adaptive_avg_pool1d` takes it; written as a product, which every runtime
    knows for any T and T'.
    """
    length = features.shape[1]
    weights = features.new_zeros(num_segments, length)
    for index in range(num_segments):
        start = index * length // num_segments
        stop = -(-(index + 1) * length // num_segments)
        weights[index, start:stop] = 1 / (stop - start)
    return weights @ features


def average(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Average the segments of each clip.

    Args:
        logits: (B, T, K).
        mask: (B, T) bool, the segments that count; None counts all. A clip with no segment that
            counts gets the plain mean: a guess from nothing, but a finite one.

    Returns:
        (B, K).

    Source: segmental consensus, Wang et al. 2016, arXiv:1608.00859, section 3.1.
    """
    if mask is None:
        return logits.mean(dim=1)
    if mask.shape != logits.shape[:2]:
        raise ValueError(
            f"the mask is {tuple(mask.shape)}, the segments are {tuple(logits.shape[:2])}: "
            "give one entry per segment"
        )
    counts = (mask | ~mask.any(dim=1, keepdim=True))[..., None]  # (B, T, 1)
    return torch.where(counts, logits, 0).sum(dim=1) / counts.sum(dim=1)
