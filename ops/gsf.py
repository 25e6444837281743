"""Gate-Shift-Fuse: gated channels move one frame back or forth in time and are fused with the rest.

Source: Sudhakaran, Escalera, Lanz, TPAMI 2023, arXiv:2203.08897. The numbers and the parameter
names are the published ones; the order of computation is not, because on most machines the
published 3-D convolution, with its single output channel per group, costs more than the rest of
the network. What is done instead, each step exact:

- the convolution to one gate map per group is a product with its 27 taps followed by shifted sums
  over those 27 small maps (separable: along the width, the height, then time);
- the spatial means of gate * x and x are one product of x with [gate, 1];
- shift, fusion and channel shuffle are written straight to the output (`_Fuse`).

Shapes: N = B*T frames (clip by clip), 2 groups, K channels in each, P = H*W pixels, T segments.
Every tensor is only ever split or transposed, so `channels_last` inputs need no copy.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from errors import InputError


class GSF(nn.Module):
    """Gate-Shift-Fuse on the first `gsf_ch_ratio` per cent of the channels; the others pass.

    Args:
        channels: C of the input.
        num_segments: T, frames per clip.
        gsf_ch_ratio: share of the channels, per cent. They must be a multiple of 4: two groups,
            each interleaved in two halves.

    Raises:
        InputError: the share is no positive multiple of 4 channels.
    """

    def __init__(self, channels: int, num_segments: int, gsf_ch_ratio: int = 100) -> None:
        super().__init__()
        self.num_segments = num_segments
        self.gated_channels = gated_channels(channels, gsf_ch_ratio)
        self.conv3D = nn.Conv3d(self.gated_channels, 2, kernel_size=3, padding=1, groups=2)
        # The statistics over (B*T, H, W) are those of the published BatchNorm3d over (B, T, H, W).
        self.bn = nn.BatchNorm2d(self.gated_channels)
        self.channel_conv1 = nn.Conv2d(2, 1, kernel_size=3, padding=1)
        self.channel_conv2 = nn.Conv2d(2, 1, kernel_size=3, padding=1)

    def extra_repr(self) -> str:
        """Show what the submodules do not."""
        return f"num_segments={self.num_segments}, gated_channels={self.gated_channels}"

    def forward(self, x: Tensor) -> Tensor:
        """Map (B*T, C, H, W), clip by clip, to the same shape."""
        if x.shape[0] % self.num_segments:
            raise ValueError(
                f"GSF got {x.shape[0]} frames, no multiple of num_segments {self.num_segments}: "
                "give whole clips"
            )
        # Types are set by hand: large maps keep the type of x, small ones are at least float32.
        with _own_types(x.device.type):
            gated = x[:, : self.gated_channels]
            groups = gated.flatten(2).unflatten(1, (2, -1))  # (N, 2, K, P)
            gate = self._gate(gated)
            pooled, groups = _Pool.apply(groups, gate)
            share = self._share(pooled).to(x.dtype)
            fused = _Fuse.apply(groups, gate, share, self.num_segments)
            fused = fused.flatten(1, 2).unflatten(2, x.shape[2:])
        rest = x[:, self.gated_channels :]
        return torch.cat([fused, rest], dim=1) if rest.shape[1] else fused

    def gate(self, x: Tensor) -> Tensor:
        """Return the gates of (B*T, C, H, W): (B*T, 2, H, W) in (-1, 1), for pictures of them.

        What passes the gate of group 0 goes to the segment before, that of group 1 to the next.
        """
        with _own_types(x.device.type):
            return self._gate(x[:, : self.gated_channels]).unflatten(2, x.shape[2:])

    def _gate(self, gated: Tensor) -> Tensor:
        """Return the gate of each pixel and group, (N, 2, P), in (-1, 1)."""
        active = torch.relu_(self.bn(gated)).flatten(2).unflatten(1, (2, -1))  # (N, 2, K, P)
        weight = self.conv3D.weight.to(active.dtype).flatten(2).transpose(1, 2)  # (2, 27, K)
        taps = (weight @ active).to(torch.promote_types(active.dtype, torch.float32))
        taps = taps.unflatten(0, (-1, self.num_segments))
        taps = taps.unflatten(3, (3, 3, 3)).unflatten(6, gated.shape[2:])  # (B,T,2,3,3,3,H,W)
        rows = _sum_shifted(taps, tap_dim=5, dim=-1)
        planes = _sum_shifted(rows, tap_dim=4, dim=-2)
        total = _sum_shifted(planes, tap_dim=3, dim=1).flatten(0, 1).flatten(2)  # (N, 2, P)
        assert self.conv3D.bias is not None
        return torch.tanh(total + self.conv3D.bias[:, None]).to(gated.dtype)

    def _share(self, pooled: Tensor) -> Tensor:
        """Return how much of the output is the shifted part, (N, 2, K), in (0, 1).

        Args:
            pooled: (N, 2, 2, K): spatial means of gate * x and of x in each group.
        """
        moved, everything = pooled.to(self.channel_conv1.weight.dtype).unbind(dim=2)
        maps = torch.stack([_to_target(moved, self.num_segments), everything - moved])
        maps = maps.unflatten(1, (-1, self.num_segments)).permute(3, 1, 0, 4, 2)  # (2, B, 2, K, T)
        share = torch.cat([self.channel_conv1(maps[0]), self.channel_conv2(maps[1])], dim=1)
        return torch.sigmoid(share).permute(0, 3, 1, 2).flatten(0, 1)


def gated_channels(channels: int, gsf_ch_ratio: int) -> int:
    """Return how many of `channels` go through GSF.

    Raises:
        InputError: the number is no positive multiple of 4.
    """
    count = channels * gsf_ch_ratio // 100
    if 0 < count <= channels and count % 4 == 0:
        return count
    valid = [r for r in range(1, 101) if (f := channels * r // 100) and f % 4 == 0]
    # Shares without rounding first: they also fit the later stages, with 2, 4, 8 times as many.
    valid = [r for r in valid if channels * r % 400 == 0] or valid
    nearest = min(valid, key=lambda r: abs(r - gsf_ch_ratio), default=None)
    way_out = "use a wider backbone" if nearest is None else f"use --gsf_ch_ratio {nearest}"
    raise InputError(
        f"--gsf_ch_ratio {gsf_ch_ratio} of {channels} channels is {count} channels, GSF needs a "
        f"positive multiple of 4: {way_out}"
    )


def _own_types(device_type: str) -> AbstractContextManager[object]:
    """Switch autocast off where the device has it ("meta", for counting, has not)."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


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
    @once_differentiable
    def backward(ctx: Any, grad_means: Tensor, grad_x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x and gate."""
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
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of x, gate and share."""
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
