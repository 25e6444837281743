"""Gate-Shift-Fuse in operations that every runtime has, for exported graphs.

`ops.gsf.GSF` is written for training: gradients by hand, results in place. Traced, that is 370
nodes for each module, most of them index arithmetic. Here the same numbers come from 55 nodes:
convolutions, slices and products. Shapes are those of `ops/gsf.py`.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops.gsf import GSF


class PlainGSF(nn.Module):
    """What a trained `GSF` computes in evaluation; it shares the weights of `source`."""

    def __init__(self, source: GSF) -> None:
        super().__init__()
        self.num_segments = source.num_segments
        self.gated_channels = source.gated_channels
        self.bn = source.bn
        self.channel_conv1, self.channel_conv2 = source.channel_conv1, source.channel_conv2
        # (2, K, 3, 3, 3) -> (6, K, 3, 3): a 2-D convolution whose outputs are the three taps in
        # time of each group, because runtimes have fast 2-D convolutions alone.
        weight = source.conv3D.weight.detach().transpose(1, 2).flatten(0, 1)
        self.register_buffer("taps_weight", weight.contiguous())
        self.register_buffer("gate_bias", source.conv3D.bias.detach()[:, None, None])  # type: ignore[union-attr]
        self.taps_weight: Tensor
        self.gate_bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map (B*T, C, H, W), clip by clip, to the same shape."""
        _, channels, height, width = x.shape
        gated = x[:, : self.gated_channels]
        active = torch.relu(self.bn(gated))
        taps = F.conv2d(active, self.taps_weight, padding=1, groups=2)  # (N, 6, H, W)
        taps = taps.reshape(-1, self.num_segments, 2, 3, height, width)
        before, here, after = taps.unbind(dim=3)  # (B, T, 2, H, W)
        gate = torch.tanh(_later(before) + here + _earlier(after) + self.gate_bias)
        gate = gate.unsqueeze(3)  # (B, T, 2, 1, H, W)

        groups = gated.reshape(-1, self.num_segments, 2, self.gated_channels // 2, height, width)
        moved = groups * gate  # (B, T, 2, K, H, W)
        stayed = groups - moved
        moved = torch.stack([_earlier(moved[:, :, 0]), _later(moved[:, :, 1])], dim=2)
        share = self._share(moved.mean(dim=(4, 5)), stayed.mean(dim=(4, 5)))
        fused = stayed + share[..., None, None] * (moved - stayed)
        # Channel 2j + i of a group is its channel j of half i.
        fused = fused.reshape(-1, 2, 2, self.gated_channels // 4, height * width).transpose(2, 3)
        fused = fused.reshape(-1, self.gated_channels, height, width)
        if self.gated_channels == channels:
            return fused
        return torch.cat([fused, x[:, self.gated_channels :]], dim=1)

    def _share(self, moved: Tensor, stayed: Tensor) -> Tensor:
        """Return how much of the output is the shifted part, (B, T, 2, K), from (B, T, 2, K)."""
        maps = torch.stack([moved, stayed], dim=1).permute(3, 0, 1, 4, 2)  # (2, B, 2, K, T)
        share = torch.cat([self.channel_conv1(maps[0]), self.channel_conv2(maps[1])], dim=1)
        return torch.sigmoid(share).permute(0, 3, 1, 2)


def _later(values: Tensor) -> Tensor:
    """Give every segment of (B, T, ...) what the one before it has; the first gets 0."""
    return F.pad(values[:, :-1], (0, 0) * (values.ndim - 2) + (1, 0))


def _earlier(values: Tensor) -> Tensor:
    """Give every segment of (B, T, ...) what the one after it has; the last gets 0."""
    return F.pad(values[:, 1:], (0, 0) * (values.ndim - 2) + (0, 1))


def with_plain_gsf(model: nn.Module) -> nn.Module:
    """Return a copy of a model, in evaluation mode, whose GSF modules are `PlainGSF`."""
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, GSF):
                setattr(parent, name, PlainGSF(child))
    return model
