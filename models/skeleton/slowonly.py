"""SlowOnly ResNet-50 on volumes: what PoseC3D and RGBPose-Conv3D are made of.

The slow pathway of SlowFast (Feichtenhofer et al. 2019, arXiv:1812.03982, section 3.1): time has
few frames and is convolved in late stages alone. PoseC3D (Duan et al. 2022, arXiv:2104.13586,
section 3.3 and table 8) gives it half the width and three stages instead of four.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ops.conv3d import Triple, convolve, innermost_channels, max_pool

# A bottleneck's output has this many times the width of its middle.
EXPANSION = 4


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of bottlenecks.

    Attributes:
        blocks: how many.
        spatial_stride: of the first one, in H and W.
        temporal_stride: of the first one, in T.
        inflated: whether the first convolution of each sees three frames instead of one.
        extra: channels that come in beside those of the stage before.
    """

    blocks: int
    spatial_stride: int = 2
    temporal_stride: int = 1
    inflated: bool = False
    extra: int = 0


class ConvNorm(nn.Module):
    """Convolution, batch norm and, if wanted, ReLU.

    In evaluation both are one convolution: the norm is a factor and an offset of each channel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        relu: bool = True,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(outputs)
        self.stride = stride
        self.relu = relu
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T, H, W) to (B, outputs, T', H', W')."""
        weight, bias = (self.conv.weight, None) if self.bn.training else self._folded()
        x = convolve(x, weight, bias, self.stride)
        if self.bn.training:
            x = self.bn(x)
        return x.relu_() if self.relu else x

    def _folded(self) -> tuple[Tensor, Tensor]:
        bn = self.bn
        assert bn.running_mean is not None
        assert bn.running_var is not None
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        weight = self.conv.weight * scale.view(-1, 1, 1, 1, 1)
        return weight, bn.bias - bn.running_mean * scale


class Bottleneck(nn.Module):
    """1x1 (or 3 frames), 3x3, 1x1, each with its norm, around a residual; ReLU after the sum."""

    def __init__(
        self, inputs: int, width: int, stride: Triple, inflated: bool, widens: bool
    ) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = ConvNorm(inputs, width, (3 if inflated else 1, 1, 1))
        self.conv2 = ConvNorm(width, width, (1, 3, 3), stride)
        self.conv3 = ConvNorm(width, outputs, (1, 1, 1), relu=False)
        self.downsample = (
            ConvNorm(inputs, outputs, (1, 1, 1), stride, relu=False) if widens else None
        )
        # The block begins as its residual (Goyal et al. 2017, arXiv:1706.02677, section 5.1).
        nn.init.zeros_(self.conv3.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T, H, W) to (B, 4 * width, T', H', W')."""
        residual = x if self.downsample is None else self.downsample(x)
        return torch.relu_(self.conv3(self.conv2(self.conv1(x))) + residual)


class SlowOnly(nn.Module):
    """A stem and stages of bottlenecks under the published names: conv1, layer1, layer2 ...

    Args:
        in_channels: K of the volumes.
        base: width of the stem and of the first stage; it doubles with each stage.
        stages: of bottlenecks.
        stride: of the stem's convolution and of its pooling, in H and W.

    Attributes:
        feature_dim: D, the channels of the last stage.
    """

    def __init__(
        self, in_channels: int, base: int, stages: Sequence[Stage], stride: int = 1
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, base, (1, 7, 7), (1, stride, stride))
        self.stem_stride = stride
        channels = base
        for number, stage in enumerate(stages):
            width = base * 2**number
            setattr(self, f"layer{number + 1}", _bottlenecks(channels + stage.extra, width, stage))
            channels = EXPANSION * width
        self.num_stages = len(stages)
        self.feature_dim = channels

    def stem(self, volumes: Tensor) -> Tensor:
        """Map (B, K, T, H, W) to (B, base, T, H', W')."""
        return max_pool(self.conv1(innermost_channels(volumes)), 3, self.stem_stride)

    def stage(self, number: int, features: Tensor) -> Tensor:
        """Send features through a stage, 1-based."""
        return getattr(self, f"layer{number}")(features)  # type: ignore[no-any-return]

    def encode(self, volumes: Tensor) -> Tensor:
        """Map volumes (B, K, T, H, W) to the features of their frames (B, T', D)."""
        features = self.stem(volumes)
        for number in range(1, self.num_stages + 1):
            features = self.stage(number, features)
        return frame_features(features)


def _bottlenecks(inputs: int, width: int, stage: Stage) -> nn.Sequential:
    stride = (stage.temporal_stride, stage.spatial_stride, stage.spatial_stride)
    first = Bottleneck(inputs, width, stride, stage.inflated, widens=True)
    others = (
        Bottleneck(EXPANSION * width, width, (1, 1, 1), stage.inflated, widens=False)
        for _ in range(stage.blocks - 1)
    )
    return nn.Sequential(first, *others)


def frame_features(features: Tensor) -> Tensor:
    """Average (B, D, T, H, W) over the pixels: (B, T, D)."""
    return features.mean(dim=(3, 4)).transpose(1, 2)
