"""Gate-Shift-Fuse in the published order of computation, to measure ours against.

Our own words for what is published: every step below is a step of the paper, on tensors of the
size that the published code works on, so it costs what the published module costs. Nothing else
in the project uses it.

Counted by dispatched operations, F being the elements of the gated channels: see
`tests/test_published_gsf.py`, which holds this to the published 31 F moved forward and 4 F saved.
"""

import torch
from torch import Tensor, nn

from ops.gsf import GSF


def published_gsf(gsf: GSF, x: Tensor, *, track: bool = False) -> Tensor:
    """Compute GSF as published, with the parameters of one of our modules.

    Args:
        gsf: whose parameters, statistics and mode (training or evaluation) are used.
        x: (B*T, C, H, W), clip by clip.
        track: update the running statistics in training, as the published module does; without
            it `gsf` stays as it is.

    Returns:
        (B*T, C, H, W).

    Source: Sudhakaran, Escalera, Lanz, TPAMI 2023, arXiv:2203.08897.
    """
    F = gsf.gated_channels
    video = x[:, :F].unflatten(0, (-1, gsf.num_segments)).transpose(1, 2).contiguous()
    gates = torch.tanh(gsf.conv3D(torch.relu(_norm(gsf, video, track))))  # (B, 2, T, H, W)
    sides = ((gsf.channel_conv1, -1), (gsf.channel_conv2, 1))
    halves = [
        _half(gates[:, i : i + 1], video[:, i * F // 2 : (i + 1) * F // 2], fuse, step)
        for i, (fuse, step) in enumerate(sides)
    ]
    out = torch.cat(halves, dim=1).transpose(1, 2).contiguous().flatten(0, 1)
    return torch.cat([out, x[:, F:]], dim=1)


def _norm(gsf: GSF, video: Tensor, track: bool) -> Tensor:
    """Normalise (B, F, T, H, W) per channel."""
    bn = gsf.bn
    mean, var = bn.running_mean, bn.running_var
    if gsf.training and not track:
        mean = var = None
    weight, bias = bn.weight, bn.bias
    return nn.functional.batch_norm(
        video, mean, var, weight, bias, gsf.training, bn.momentum or 0.1, bn.eps
    )


def _half(gate: Tensor, part: Tensor, fuse: nn.Module, step: int) -> Tensor:
    """Gate, shift by `step` segments, fuse and interleave one group (B, F/2, T, H, W)."""
    gated = gate * part
    rest = part - gated
    moved = torch.roll(gated, step, dims=2)
    moved[:, :, -1 if step < 0 else 0] = 0
    means = torch.stack([moved.mean((3, 4)), rest.mean((3, 4))], dim=1)  # (B, 2, F/2, T)
    share = torch.sigmoid(fuse(means))[:, 0, :, :, None, None]
    mixed = share * moved + (1 - share) * rest
    return mixed.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class PublishedGSF(nn.Module):
    """A module of ours that computes as published; it keeps running statistics too."""

    def __init__(self, gsf: GSF) -> None:
        super().__init__()
        self.gsf = gsf

    def forward(self, x: Tensor) -> Tensor:
        """Map (B*T, C, H, W), clip by clip, to the same shape."""
        return published_gsf(self.gsf, x, track=True)
