"""Convolutions of joints over time.

Features are (N, C, V, T) in channels_last, so that a joint's frames lie side by side in memory;
published weights are those of (N, C, T, V), so kernels are (k, 1) and are turned when used.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Apply a published convolution, made for (N, C, T, V), to (N, C, V, T)."""
    (stride, _), (dilation, _) = conv.stride, conv.dilation
    padding = conv.padding[0]
    assert isinstance(padding, int)
    weight = conv.weight.transpose(2, 3)
    return F.conv2d(x, weight, conv.bias, (1, stride), (0, padding), (1, dilation))


def init_conv(conv: nn.Conv1d | nn.Conv2d) -> None:
    """Draw the weights as He et al. 2015, arXiv:1502.01852, by the outputs; biases are 0."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class TemporalConv(nn.Module):
    """Convolution over the frames of each joint, batch norm, dropout.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: frames that an output sees.
        stride: frames from one output to the next: T' = ceil(T / stride).
        dilation: frames between the taps.
        norm: whether batch norm follows.
        dropout: probability.

    Source: Yan et al. 2018, arXiv:1801.07455, section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 9,
        stride: int = 1,
        *,
        dilation: int = 1,
        norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            (kernel_size, 1),
            (stride, 1),
            (dilation * (kernel_size - 1) // 2, 0),
            (dilation, 1),
        )
        init_conv(self.conv)
        self.bn = nn.BatchNorm2d(out_channels) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C', V, T')."""
        return self.drop(self.bn(convolve(x, self.conv)))


class _MaxOverTime(nn.Module):
    """The greatest of three frames."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, (1, 3), (1, self._stride), (0, 1))


def _branch(in_channels: int, width: int, *last: nn.Module) -> nn.Sequential:
    """Return a 1x1 convolution to few channels, batch norm, ReLU, and what comes last."""
    norm = nn.BatchNorm2d(width)
    return nn.Sequential(nn.Conv2d(in_channels, width, 1), norm, nn.ReLU(inplace=True), *last)


def _reduced(x: Tensor, convs: Sequence[nn.Module]) -> list[Tensor]:
    """Apply 1x1 convolutions, the first of each branch, as one: many narrow ones are slow.

    Their strides are left to the caller.
    """
    y = F.conv2d(x, torch.cat([c.weight for c in convs]), torch.cat([c.bias for c in convs]))  # type: ignore[misc]
    parts = y.split([len(conv.weight) for conv in convs], dim=1)  # type: ignore[arg-type]
    return [part.contiguous(memory_format=torch.channels_last) for part in parts]


class MultiScaleTCN(nn.Module):
    """Six branches of different reach over time, joined by a 1x1 convolution (ST-GCN++).

    Source: Duan et al. 2022, arXiv:2205.09443, section 3.2; widths as its published weights.
    """

    def __init__(self, channels: int, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        width = channels // 6
        widths = [channels - 5 * width, *[width] * 5]  # the first takes what is left
        self.branches = nn.ModuleList(
            _branch(channels, w, TemporalConv(w, w, 3, stride, dilation=dilation, norm=False))
            for dilation, w in enumerate(widths[:4], start=1)
        )
        self.branches.append(_branch(channels, width, _MaxOverTime(stride)))
        self.branches.append(nn.Conv2d(channels, width, 1, (stride, 1)))
        self.transform = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )
        self.bn = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(dropout)
        self._stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C, V, T')."""
        *scaled, last = self.branches
        *parts, plain = _reduced(x, [*(branch[0] for branch in scaled), last])  # type: ignore[index]
        outs = [branch[1:](part) for branch, part in zip(scaled, parts, strict=True)]  # type: ignore[index]
        y = torch.cat([*outs, plain[..., :: self._stride]], dim=1)
        return self.drop(self.bn(self.transform(y)))


class DilatedTCN(nn.Module):
    """Four branches, each with batch norm, side by side, then ReLU (CTR-GCN).

    Two convolutions of 5 frames, one of them dilated, the greatest of three frames, and one frame
    alone.

    Source: Chen et al. 2021, arXiv:2107.12213, section 3.4, after Liu et al. 2020,
        arXiv:2003.14111, section 3.3; without the inner residual, as CTR-GCN's blocks have theirs,
        and with ReLU at the end, as published weights were trained.
    """

    def __init__(self, channels: int, stride: int = 1, dilations: Sequence[int] = (1, 2)) -> None:
        super().__init__()
        width = channels // (len(dilations) + 2)
        self.branches = nn.ModuleList(
            _branch(channels, width, TemporalConv(width, width, 5, stride, dilation=dilation))
            for dilation in dilations
        )
        self.branches.append(_branch(channels, width, _MaxOverTime(stride), nn.BatchNorm2d(width)))
        rest = channels - width * len(self.branches)
        alone = nn.Conv2d(channels, rest, 1, (stride, 1))
        self.branches.append(nn.Sequential(alone, nn.BatchNorm2d(rest)))
        self._stride = stride
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv(module)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C, V, T')."""
        *parts, plain = _reduced(x, [branch[0] for branch in self.branches])  # type: ignore[index]
        parts.append(plain[..., :: self._stride])
        outs = [b[1:](part) for b, part in zip(self.branches, parts, strict=True)]  # type: ignore[index]
        return torch.relu_(torch.cat(outs, dim=1))
