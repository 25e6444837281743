"""Gate-Shift-Fuse in operations that every compiler and runtime has, and its weights as a record.

`torch.compile`, `torch.export`, ONNX and anything that differentiates twice see this form: no
gradients by hand, nothing in place; slices, products and 2-D convolutions, because compilers and
runtimes have fast 2-D convolutions alone. Shapes: N = B*T frames (clip by clip), 2 groups, K
channels in each, F = 2K.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class GSFWeights(NamedTuple):
    """What a GSF module has learned, as tensors.

    Attributes:
        bn_weight: (F,) of the norm before the gates.
        bn_bias: (F,).
        running: mean and variance, (F,) each, to be used as constants; None: those of the batch.
        eps: added to the variance.
        taps_weight: (2, K, 3, 3, 3): taps in time, height and width of each group's gate.
        gate_bias: (2,).
        fuse_weight: (2, 1, 2, 3, 3): for each group a 3x3 over (K, T) of two maps.
        fuse_bias: (2, 1).
    """

    bn_weight: Tensor
    bn_bias: Tensor
    running: tuple[Tensor, Tensor] | None
    eps: float
    taps_weight: Tensor
    gate_bias: Tensor
    fuse_weight: Tensor
    fuse_bias: Tensor


def plain_gate(active: Tensor, weights: GSFWeights, num_segments: int) -> Tensor:
    """Return the gates (B, T, 2, H, W), in (-1, 1), of normed and rectified (N, F, H, W)."""
    # (2, K, 3, 3, 3) -> (6, K, 3, 3): one output for each group and tap in time.
    kernel = weights.taps_weight.to(active.dtype).transpose(1, 2).flatten(0, 1)
    taps = F.conv2d(active, kernel, padding=1, groups=2)  # (N, 6, H, W)
    taps = taps.reshape(-1, num_segments, 2, 3, *active.shape[2:])
    before, here, after = taps.unbind(dim=3)  # (B, T, 2, H, W)
    bias = weights.gate_bias.to(active.dtype)[:, None, None]
    return torch.tanh(_later(before) + here + _earlier(after) + bias)


def plain_gsf(
    x: Tensor, norm: Callable[[Tensor], Tensor], weights: GSFWeights, num_segments: int
) -> Tensor:
    """Gate, shift and fuse the gated channels.

    Args:
        x: (N, F, H, W), clip by clip.
        norm: the norm before the gates; `weights.running` is not read.
        weights: of the module.
        num_segments: T.

    Returns:
        (N, F, H, W), channels shuffled.
    """
    _, channels, height, width = x.shape
    gate = plain_gate(torch.relu(norm(x)), weights, num_segments).unsqueeze(3)
    groups = x.reshape(-1, num_segments, 2, channels // 2, height, width)
    moved = groups * gate  # (B, T, 2, K, H, W)
    stayed = groups - moved
    moved = torch.stack([_earlier(moved[:, :, 0]), _later(moved[:, :, 1])], dim=2)
    share = _share(moved.mean(dim=(4, 5)), stayed.mean(dim=(4, 5)), weights).to(x.dtype)
    fused = stayed + share[..., None, None] * (moved - stayed)
    # Channel 2j + i of a group is its channel j of half i.
    fused = fused.reshape(-1, 2, 2, channels // 4, height * width).transpose(2, 3)
    return fused.reshape(-1, channels, height, width)


def _share(moved: Tensor, stayed: Tensor, weights: GSFWeights) -> Tensor:
    """Return how much of the output is the shifted part, (B, T, 2, K), from (B, T, 2, K)."""
    maps = torch.stack([moved, stayed], dim=1).permute(3, 0, 1, 4, 2)  # (2, B, 2, K, T)
    maps = maps.to(weights.fuse_weight.dtype)
    kernels, biases = weights.fuse_weight, weights.fuse_bias
    first = F.conv2d(maps[0], kernels[0], biases[0], padding=1)
    second = F.conv2d(maps[1], kernels[1], biases[1], padding=1)
    return torch.sigmoid(torch.cat([first, second], dim=1)).permute(0, 3, 1, 2)


def _later(values: Tensor) -> Tensor:
    """Give every segment of (B, T, ...) what the one before it has; the first gets 0."""
    return F.pad(values[:, :-1], (0, 0) * (values.ndim - 2) + (1, 0))


def _earlier(values: Tensor) -> Tensor:
    """Give every segment of (B, T, ...) what the one after it has; the last gets 0."""
    return F.pad(values[:, 1:], (0, 0) * (values.ndim - 2) + (0, 1))


def refuse_double_backward() -> None:
    """Stop a gradient by hand that is itself to be differentiated: call it in `backward`.

    Raises:
        RuntimeError: it is.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "this GSF can be differentiated once; for gradients of gradients run the model within "
            '`with ops.gsf.formulation("plain"):`'
        )
