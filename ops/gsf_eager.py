"""Gate-Shift-Fuse in PyTorch's own operations: any device, floating type and memory format.

The order of computation is not the published one, because on most machines the published 3-D
convolution, with its single output channel per group, costs more than the rest of the network.
What is done instead, each step exact:

- the convolution to one gate map per group is a product with its 27 taps followed by shifted sums
  over those 27 small maps (separable: along the width, the height, then time);
- the spatial means of gate * x and x are one product of x with [gate, 1];
- shift, fusion and channel shuffle are written straight to the output (`_Fuse`).

Shapes: N = B*T frames (clip by clip), 2 groups, K channels in each, P = H*W pixels, T segments.
Every tensor is only ever split or transposed, so `channels_last` inputs need no copy.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ops.gsf_plain import GSFWeights, refuse_double_backward


def eager_gsf(
    x: Tensor, norm: Callable[[Tensor], Tensor], weights: GSFWeights, num_segments: int
) -> Tensor:
    """Gate, shift and fuse the gated channels; differentiable once.

    Args:
        x: (N, F, H, W), clip by clip.
        norm: the norm before the gates; `weights.running` is not read.
        weights: of the module.
        num_segments: T.

    Returns:
        (N, F, H, W), channels shuffled.
    """
    groups = x.flatten(2).unflatten(1, (2, -1))  # (N, 2, K, P)
    gate = eager_gate(torch.relu_(norm(x)), weights, num_segments)
    pooled, groups = _Pool.apply(groups, gate)
    share = _share(pooled, weights, num_segments).to(x.dtype)
    fused = _Fuse.apply(groups, gate, share, num_segments)
    return fused.flatten(1, 2).unflatten(2, x.shape[2:])  # type: ignore[no-any-return]


def eager_gate(active: Tensor, weights: GSFWeights, num_segments: int) -> Tensor:
    """Return the gate of each pixel and group, (N, 2, P), in (-1, 1).

    Args:
        active: (N, F, H, W), normed and rectified.
        weights: of the module.
        num_segments: T.
    """
    groups = active.flatten(2).unflatten(1, (2, -1))  # (N, 2, K, P)
    weight = weights.taps_weight.to(active.dtype).flatten(2).transpose(1, 2)  # (2, 27, K)
    taps = (weight @ groups).to(torch.promote_types(active.dtype, torch.float32))
    taps = taps.unflatten(0, (-1, num_segments))
    taps = taps.unflatten(3, (3, 3, 3)).unflatten(6, active.shape[2:])  # (B,T,2,3,3,3,H,W)
    rows = _sum_shifted(taps, tap_dim=5, dim=-1)
    planes = _sum_shifted(rows, tap_dim=4, dim=-2)
    total = _sum_shifted(planes, tap_dim=3, dim=1).flatten(0, 1).flatten(2)  # (N, 2, P)
    return torch.tanh(total + weights.gate_bias[:, None]).to(active.dtype)


def _share(pooled: Tensor, weights: GSFWeights, num_segments: int) -> Tensor:
    """Return how much of the output is the shifted part, (N, 2, K), in (0, 1).

    `pooled` (N, 2, 2, K) are the spatial means of gate * x and of x in each group.
    """
    moved, everything = pooled.to(weights.fuse_weight.dtype).unbind(dim=2)
    maps = torch.stack([_to_target(moved, num_segments), everything - moved])
    maps = maps.unflatten(1, (-1, num_segments)).permute(3, 1, 0, 4, 2)  # (2, B, 2, K, T)
    parts = zip(maps, weights.fuse_weight, weights.fuse_bias, strict=True)
    share = torch.cat([F.conv2d(m, weight, bias, padding=1) for m, weight, bias in parts], dim=1)
    return torch.sigmoid(share).permute(0, 3, 1, 2).flatten(0, 1)


class _Pool(torch.autograd.Function):
    """Spatial means of gate * x and of x; x passes through.

    Because x passes, its gradient arrives here once and the part from the means is added by the
    same product that computes it: no second full-size tensor, no second sum.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """Map x (N, 2, K, P) and gate (N, 2, P) to the means (N, 2, 2, K) and x."""
        weights = torch.stack([gate, torch.ones_like(gate)], dim=2) / x.shape[-1]  # (N, 2, 2, P)
        ctx.save_for_backward(x, weights)
        return weights @ x.transpose(2, 3), x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_means: Tensor, grad_x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x and gate."""
        refuse_double_backward()
        x, weights = ctx.saved_tensors
        grad_gate = _row_times(grad_means[:, :, 0], x) / x.shape[-1]
        grad_means = grad_means.transpose(2, 3).flatten(0, 1)
        total = torch.baddbmm(grad_x.flatten(0, 1), grad_means, weights.flatten(0, 1))
        return total.view_as(x), grad_gate


class _Fuse(torch.autograd.Function):
    """out[t] = share[t] * moved[t] + (1 - share[t]) * (1 - gate[t]) * x[t], channels shuffled.

    moved[t] is gate * x of frame t+1 in the first group and of frame t-1 in the second, zero
    where that frame does not exist. By hand because autograd would keep and sum five full-size
    tensors; here x alone is kept and three buffers serve the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, share: Tensor, num_segments: int) -> Tensor:
        """Map x (N, 2, K, P), gate (N, 2, P) and share (N, 2, K) to (N, 2, K, P)."""
        ctx.save_for_backward(x, gate, share)
        ctx.num_segments = num_segments
        moved = x * _to_source(share, num_segments)[..., None]
        moved *= gate[:, :, None]
        moved = _halves(moved).unflatten(0, (-1, num_segments))
        out = torch.empty_like(x)
        mixed = _interleaved(out).copy_(_halves(x))
        mixed *= _halves(1 - share)[..., None]
        mixed *= (1 - gate)[:, :, None, None]
        mixed = mixed.unflatten(0, (-1, num_segments))
        mixed[:, :-1, 0] += moved[:, 1:, 0]
        mixed[:, 1:, 1] += moved[:, :-1, 1]
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of x, gate and share."""
        refuse_double_backward()
        x, gate, share = ctx.saved_tensors
        stayed = torch.empty_like(x)
        _halves(stayed).copy_(_interleaved(grad_out))
        product = x * stayed
        grad_gate = -_row_times(1 - share, product)
        grad_share = -_row_times(1 - gate, product.transpose(2, 3))

        # What moved is indexed by the frame that it came from.
        moved = _to_source(stayed, ctx.num_segments)
        share_moved = _to_source(share, ctx.num_segments)
        torch.mul(x, moved, out=product)
        grad_gate += _row_times(share_moved, product)
        grad_share += _to_target(_row_times(gate, product.transpose(2, 3)), ctx.num_segments)

        stayed *= (1 - share)[..., None]
        stayed *= (1 - gate)[:, :, None]
        moved *= share_moved[..., None]
        moved *= gate[:, :, None]
        return stayed.add_(moved), grad_gate, grad_share, None


def _row_times(row: Tensor, matrix: Tensor) -> Tensor:
    """Return row (..., I) times matrix (..., I, J); on a CPU 10 times as fast as the transpose."""
    return (row[..., None, :] @ matrix).squeeze(-2)


def _halves(x: Tensor) -> Tensor:
    """View (N, 2, K, ...) as (N, 2, 2, K/2, ...): the halves of each group."""
    return x.unflatten(2, (2, -1))


def _interleaved(x: Tensor) -> Tensor:
    """View shuffled channels in the order of `_halves`: channel j of half i is 2j + i."""
    return x.unflatten(2, (-1, 2)).transpose(2, 3)


def _shift(values: Tensor, num_segments: int, back: int) -> Tensor:
    """Move group `back` of (N, 2, ...) one segment back and the other forth, filling with 0."""
    forth = 1 - back
    clips = values.unflatten(0, (-1, num_segments))
    moved = torch.empty_like(clips)
    moved[:, :-1, back] = clips[:, 1:, back]
    moved[:, -1, back] = 0
    moved[:, 1:, forth] = clips[:, :-1, forth]
    moved[:, 0, forth] = 0
    return moved.flatten(0, 1)


def _to_target(values: Tensor, num_segments: int) -> Tensor:
    """Take values of each frame to where its gated channels go."""
    return _shift(values, num_segments, back=0)


def _to_source(values: Tensor, num_segments: int) -> Tensor:
    """Take values of each frame to where its shifted channels came from."""
    return _shift(values, num_segments, back=1)


def _sum_shifted(taps: Tensor, tap_dim: int, dim: int) -> Tensor:
    """Sum three taps along `tap_dim`: out[i] = tap0[i-1] + tap1[i] + tap2[i+1] along `dim`."""
    before, here, after = taps.unbind(tap_dim)
    last = here.shape[dim] - 1
    total = here.clone()
    total.narrow(dim, 1, last).add_(before.narrow(dim, 0, last))
    total.narrow(dim, 0, last).add_(after.narrow(dim, 1, last))
    return total
