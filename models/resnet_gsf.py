"""Torchvision's residual networks with Gate-Shift-Fuse, any width and any number of channels."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from errors import InputError
from ops.gsf import GSF, After, has_hooks

Block = type[BasicBlock] | type[Bottleneck]

STEM_WIDTH = 64

# Block, blocks per stage, groups and width per group: torchvision's own definitions.
LAYOUTS: dict[str, tuple[Block, tuple[int, int, int, int], int, int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8),
    "wide_resnet50_2": (Bottleneck, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": (Bottleneck, (3, 4, 23, 3), 1, 128),
}


class Backbone(ResNet):
    """A torchvision ResNet without its classifier, with `width` channels in its first layer.

    Every stage has `width` / 64 of its usual channels. Names and, at width 64 and 3 channels,
    shapes are torchvision's. Maps (N, C, H, W) to (N, `feature_dim`).
    """

    def __init__(self, arch: str, in_channels: int = 3, width: int = STEM_WIDTH) -> None:
        block, blocks, groups, width_per_group = LAYOUTS[arch]
        self.width = width  # read by `_make_layer`, which the next line calls
        super().__init__(block, list(blocks), groups=groups, width_per_group=width_per_group)
        self.arch = arch
        self.in_channels = in_channels
        self.num_segments: int | None = None  # set where GSF fixes it
        self.feature_dim = self.inplanes
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Identity()

    def _make_layer(
        self, block: Block, planes: int, blocks: int, stride: int = 1, dilate: bool = False
    ) -> nn.Sequential:
        if planes == STEM_WIDTH:
            self.inplanes = self.width
        scaled = planes * self.width // STEM_WIDTH
        return super()._make_layer(block, scaled, blocks, stride, dilate)


class GSFBasicBlock(nn.Module):
    """A torchvision BasicBlock with GSF between its last convolution and its last norm.

    Adopts the submodules of `block` under their names, so weights load as before.
    """

    def __init__(self, block: BasicBlock, num_segments: int, gsf_ch_ratio: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = block.conv1, block.bn1, block.relu
        self.conv2, self.bn2 = block.conv2, block.bn2
        self.downsample = block.downsample
        self.gsf = GSF(block.conv2.out_channels, num_segments, gsf_ch_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B*T, C, H, W) to the block's output."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.conv2(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return _finish(self.gsf, self.bn2, self.relu, out, shortcut)


class GSFBottleneck(nn.Module):
    """A torchvision Bottleneck with GSF between its last convolution and its last norm.

    Adopts the submodules of `block` under their names, so weights load as before.
    """

    def __init__(self, block: Bottleneck, num_segments: int, gsf_ch_ratio: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = block.conv1, block.bn1, block.relu
        self.conv2, self.bn2 = block.conv2, block.bn2
        self.conv3, self.bn3 = block.conv3, block.bn3
        self.downsample = block.downsample
        self.gsf = GSF(block.conv3.out_channels, num_segments, gsf_ch_ratio)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B*T, C, H, W) to the block's output."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.conv3(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return _finish(self.gsf, self.bn3, self.relu, out, shortcut)


def _finish(gsf: GSF, norm: nn.Module, relu: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
    """Return relu(norm(gsf(x)) + shortcut): in evaluation, where possible, in one pass over x."""
    if _is_constant(norm) and not has_hooks(gsf, norm, relu) and _is_like(shortcut, x):
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        if gsf.can_fold(x):
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            offset = norm.bias - norm.running_mean * scale
            return gsf(x, After(scale, offset, shortcut, relu=True))  # type: ignore[no-any-return]
    out = norm(gsf(x))
    out += shortcut
    return relu(out)  # type: ignore[no-any-return]


def _is_constant(norm: nn.Module) -> bool:
    """Return whether a norm is a factor and an offset for each channel."""
    return type(norm) is nn.BatchNorm2d and not norm.training and norm.running_var is not None


def _is_like(shortcut: Tensor, x: Tensor) -> bool:
    return shortcut.dtype == x.dtype and shortcut.shape == x.shape


def insert_gsf(network: ResNet, num_segments: int, gsf_ch_ratio: int = 100) -> None:
    """Replace every residual block of `network`, in place, by one with GSF.

    GSF shuffles its channels, so the norm after it meets them in another order than the one that
    its pretrained statistics were taken in. Published models have it so; training mends it.

    Args:
        network: any torchvision ResNet; its weights stay.
        num_segments: T; the network then takes (B*T, C, H, W), clip by clip.
        gsf_ch_ratio: share of the channels that GSF works on, per cent.

    Raises:
        InputError: the share is no multiple of 4 channels in some block.
        ValueError: a block is neither torchvision's BasicBlock nor its Bottleneck.
    """
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for name, block in stage.named_children():
            stage.register_module(name, _with_gsf(block, num_segments, gsf_ch_ratio))


def _with_gsf(block: nn.Module, num_segments: int, gsf_ch_ratio: int) -> nn.Module:
    if isinstance(block, BasicBlock):
        return GSFBasicBlock(block, num_segments, gsf_ch_ratio)
    if isinstance(block, Bottleneck):
        return GSFBottleneck(block, num_segments, gsf_ch_ratio)
    raise ValueError(f"GSF goes into BasicBlock and Bottleneck, not into {type(block).__name__}")


def build_resnet(
    arch: str,
    *,
    in_channels: int = 3,
    width: int = STEM_WIDTH,
    gsf: bool,
    gsf_ch_ratio: int = 100,
    num_segments: int,
    weights: Mapping[str, Tensor] | None = None,
) -> Backbone:
    """Build a backbone, load its weights, insert GSF.

    Args:
        arch: a key of `LAYOUTS`.
        in_channels: C. Channels 0-2 take the RGB weights; the others keep their initialisation,
            normal with Kaiming's fan-out deviation, as the published early fusion has it.
        width: channels of the first layer, a multiple of 4.
        gsf: whether to insert GSF, one module in each residual block.
        gsf_ch_ratio: share of the channels that GSF works on, per cent.
        num_segments: T.
        weights: a state dict in torchvision's naming for 3 channels (or C); `fc.*` is ignored.
            None leaves the random initialisation.

    Raises:
        InputError: a width or ratio that cannot be, or weights of another network.
    """
    if arch not in LAYOUTS:
        raise InputError(f"unknown backbone {arch!r}: choose from {', '.join(LAYOUTS)}")
    _check_width(arch, width)
    network = Backbone(arch, in_channels, width)
    if weights is not None:
        _load_torchvision(network, weights)
    if gsf:
        insert_gsf(network, num_segments, gsf_ch_ratio)
        network.num_segments = num_segments
    return network


def _check_width(arch: str, width: int) -> None:
    _, _, groups, width_per_group = LAYOUTS[arch]
    if width < 4 or width % 4:
        raise InputError(f"--width {width} is no positive multiple of 4: try {max(4, width & ~3)}")
    least = STEM_WIDTH // width_per_group
    if groups > 1 and width < least:
        raise InputError(f"--width {width} leaves {arch} empty groups: use {least} or more")


def _load_torchvision(network: Backbone, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict in torchvision's naming, before GSF is inserted."""
    own = network.state_dict()
    given = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    stem = given.get("conv1.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3 < network.in_channels:
        given["conv1.weight"] = torch.cat([stem, own["conv1.weight"][:, 3:]], dim=1)
    wrong = next((key for key in own if not _fits(given.get(key), own[key], key)), None)
    wrong = wrong or next((key for key in given if key not in own), None)
    if wrong is not None:
        raise InputError(
            f"the pretrained weights do not fit {network.arch} of width {network.width}: "
            f"{wrong} is {_shape(given.get(wrong))}, the network has {_shape(own.get(wrong))}: "
            "give weights of that backbone in torchvision's naming, or use --pretrained none"
        )
    network.load_state_dict(given, strict=False)


def _fits(given: Tensor | None, own: Tensor, key: str) -> bool:
    if given is None:  # torchvision's older files lack the counters, which nothing reads
        return key.endswith("num_batches_tracked")
    return given.shape == own.shape


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(tuple(tensor.shape))
