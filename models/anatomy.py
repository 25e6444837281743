"""What the names and shapes of a state dict say about the model that it belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.resnet import Bottleneck

from models.resnet_gsf import LAYOUTS, STEM_WIDTH

# Our prefixes and the published ones, the first that matches. The same stream has one published
# name wherever it stands here, so the names also serve to compare models of different fusion.
PUBLISHED_PREFIXES = (
    ("encoder.backbone.", "base_model."),
    ("encoder.rgb.backbone.", "base_model."),
    ("encoder.pose.", "pose_model."),
    ("encoder.attention.layer.", "attention_layer."),
    ("encoder.refinement.", "feature_refinement_layer."),
    ("encoder.", "pose_model."),
    ("head.linear.", "new_fc."),
)


def published_name(key: str) -> str:
    """Translate a name of ours; published names stay."""
    for ours, published in PUBLISHED_PREFIXES:
        if key.startswith(ours):
            return published + key.removeprefix(ours)
    return key


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Say whether the names are the published ones."""
    return any(key.startswith(published) for key in state for _, published in PUBLISHED_PREFIXES)


STREAM_OPTIONS = {
    "frames alone": "no fusion option",
    "early fusion": "--early_fusion_poses",
    "late fusion with attention": "--late_fusion_poses_attention",
    "late fusion without attention": "--late_fusion_poses_fast",
    "skeletons alone": "main_only_pose.py (--pose_only in tests)",
}


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A model as far as its state dict shows it.

    Attributes:
        classes: K, None without a classifier.
        streams: which streams, and how they are fused: a key of `STREAM_OPTIONS`.
        arch: name of the backbone; None without one, or if torchvision has none like it.
        width: channels of its first layer.
        channels: input channels.
        gsf: whether the backbone has GSF modules; None without a backbone.
    """

    classes: int | None
    streams: str
    arch: str | None
    width: int | None
    channels: int | None
    gsf: bool | None

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "Anatomy":
        """Look at a state dict in our naming, the published one or torchvision's."""
        names = {published_name(key): tensor for key, tensor in state.items()}
        backbone = {
            key.removeprefix("base_model."): tensor
            for key, tensor in names.items()
            if key.startswith(("base_model.", "conv1.", "layer"))
        }
        stem = backbone.get("conv1.weight")
        head = names.get("new_fc.weight")
        return cls(
            classes=None if head is None else head.shape[0],
            streams=_streams(names, None if stem is None else stem.shape[1]),
            arch=_arch(backbone),
            width=None if stem is None else stem.shape[0],
            channels=None if stem is None else stem.shape[1],
            gsf=any(".gsf." in key for key in backbone) if backbone else None,
        )

    def __str__(self) -> str:
        """Describe it, as in "a 2-class resnet50 with 4 channels, with GSF, early fusion"."""
        classes = "" if self.classes is None else f"{self.classes}-class "
        if self.channels is None:
            return f"a {classes}model of {self.streams}"
        width = "" if self.width == STEM_WIDTH else f" of width {self.width}"
        backbone = f"{self.arch or 'unknown backbone'}{width} with {self.channels} channels"
        return f"a {classes}{backbone}, with{'' if self.gsf else 'out'} GSF, {self.streams}"

    def way_from(self, other: "Anatomy") -> str:
        """Say which options turn the model `other` into this one."""
        parts = (
            (self.streams, other.streams, STREAM_OPTIONS[self.streams]),
            (self.channels, other.channels, f"--num_channels {self.channels}"),
            (self.arch, other.arch, f"--arch {self.arch}"),
            (self.width, other.width, f"--width {self.width}"),
            (self.gsf, other.gsf, "--gsf" if self.gsf else "no --gsf"),
            (self.classes, other.classes, f"lists with {self.classes} classes (or --finetune)"),
        )
        wanted = [option for mine, theirs, option in parts if mine is not None and mine != theirs]
        return "give " + (" and ".join(wanted) or "the options that it was trained with")


def _streams(names: Mapping[str, Tensor], channels: int | None) -> str:
    if channels is None:
        return "skeletons alone"
    if any(key.startswith("attention_layer.") for key in names):
        return "late fusion with attention"
    if any(key.startswith("feature_refinement_layer.") for key in names):
        return "late fusion without attention"
    return "frames alone" if channels == 3 else "early fusion"


def _arch(backbone: Mapping[str, Tensor]) -> str | None:
    """Name the torchvision network that has these stages, groups and widths."""
    first, second = (backbone.get(f"layer1.0.conv{i}.weight") for i in (1, 2))
    if first is None or second is None:
        return None
    found = {m.groups() for key in backbone if (m := re.match(r"layer(\d)\.(\d+)\.", key))}
    stages = tuple(sum(stage == str(i) for stage, _ in found) for i in (1, 2, 3, 4))
    is_bottleneck = "layer1.0.conv3.weight" in backbone
    inner, per_group = second.shape[:2]
    for arch, (block, blocks, groups, width_per_group) in LAYOUTS.items():
        expected = first.shape[1] * width_per_group // STEM_WIDTH * groups
        same_stages = (block is Bottleneck, blocks) == (is_bottleneck, stages)
        if same_stages and (inner, groups * per_group) == (expected, inner):
            return arch
    return None
