"""What the names and shapes of a state dict say about the model that it belongs to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from torchvision.models.resnet import Bottleneck

from models.resnet_gsf import LAYOUTS, STEM_WIDTH
from models.skeleton.notes import toolbox_of
from models.skeleton.published import SkeletonNetwork, our_name, recognise

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
    """Translate a name of ours, of PYSKL or of MMAction2; published names stay."""
    key = our_name(key)
    for ours, published in PUBLISHED_PREFIXES:
        if key.startswith(ours):
            return published + key.removeprefix(ours)
    return key


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Say whether the names are the published ones."""
    return any(key.startswith(published) for key in state for _, published in PUBLISHED_PREFIXES)


_POSE = "pose_model."
# Of the networks of RGBPose-Conv3D, by its pathways.
_PATHWAYS = {"both": "frames and heatmaps", "rgb": "frames as a volume", "pose": "heatmaps alone"}
STREAM_OPTIONS = {
    "frames alone": "no fusion option",
    "early fusion": "--early_fusion_poses",
    "late fusion with attention": "--late_fusion_poses_attention",
    "late fusion without attention": "--late_fusion_poses_fast",
    "skeletons alone": "main_only_pose.py (--pose_only in tests)",
    # The network's own options follow.
    **dict.fromkeys(_PATHWAYS.values(), ""),
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
        skeleton: the network of the skeleton zoo in it; None without one.
        toolbox: "PYSKL" or "MMAction2" where one of these wrote the file; "" elsewhere.
    """

    classes: int | None
    streams: str
    arch: str | None
    width: int | None
    channels: int | None
    gsf: bool | None
    skeleton: SkeletonNetwork | None = None
    toolbox: str = ""

    @classmethod
    def of(cls, state: Mapping[str, Tensor], meta: object = None) -> "Anatomy":
        """Look at a state dict.

        Args:
            state: in our naming, the published one, that of PYSKL and MMAction2, or torchvision's.
            meta: what a file of PYSKL or MMAction2 says beside it.
        """
        names = {published_name(key): tensor for key, tensor in state.items()}
        backbone = {
            key.removeprefix("base_model."): tensor
            for key, tensor in names.items()
            if key.startswith(("base_model.", "conv1.", "layer"))
        }
        stem = backbone.get("conv1.weight")
        skeleton = recognise(
            {
                key.removeprefix(_POSE): tensor
                for key, tensor in names.items()
                if key.startswith(_POSE)
            }
        )
        return cls(
            classes=_classes(names),
            streams=_streams(names, None if stem is None else stem.shape[1], skeleton),
            arch=_arch(backbone),
            width=None if stem is None else stem.shape[0],
            channels=None if stem is None else stem.shape[1],
            gsf=any(".gsf." in key for key in backbone) if backbone else None,
            skeleton=skeleton,
            toolbox=toolbox_of(state, meta, skeleton),
        )

    def __str__(self) -> str:
        """Describe it, as in "a 2-class resnet50 with 4 channels, with GSF, early fusion"."""
        classes = "" if self.classes is None else f"{self.classes}-class "
        writer = f" ({self.toolbox})" if self.toolbox else ""
        if self.channels is None:
            article = "an" if not classes and str(self.skeleton).startswith("A") else "a"
            model = f"model of {self.streams}" if self.skeleton is None else str(self.skeleton)
            return f"{article} {classes}{model}{writer}"
        width = "" if self.width == STEM_WIDTH else f" of width {self.width}"
        backbone = f"{self.arch or 'unknown backbone'}{width} with {self.channels} channels"
        poses = "" if self.skeleton is None else f" and {self.skeleton}"
        gsf = f"with{'' if self.gsf else 'out'} GSF"
        return f"a {classes}{backbone}, {gsf}, {self.streams}{poses}{writer}"

    def has_features_of(self, other: "Anatomy") -> bool:
        """Say whether a classifier of one is a classifier of the other's features."""
        if self.skeleton is not None and other.skeleton is not None:
            is_single = self.channels is other.channels is None
            return is_single and self.skeleton.fits(other.skeleton) or self.streams == other.streams
        return self.streams == other.streams

    def way_from(self, other: "Anatomy") -> str:
        """Say which options turn the model `other` into this one."""
        if self.skeleton is not None and self.skeleton.is_pathway_of(other.skeleton):
            return "give --stream_checkpoints RGB POSE, a file for each of its pathways"
        parts = (
            (self.streams, other.streams, STREAM_OPTIONS[self.streams]),
            (self.channels, other.channels, f"--num_channels {self.channels}"),
            (self.arch, other.arch, f"--arch {self.arch}"),
            (self.width, other.width, f"--width {self.width}"),
            (self.gsf, other.gsf, "--gsf" if self.gsf else "no --gsf"),
        )
        wanted = [option for mine, theirs, option in parts if mine not in (None, theirs) and option]
        wanted += [] if self.skeleton is None else self.skeleton.ways_from(other.skeleton)
        if self.classes is not None and self.classes != other.classes:
            wanted.append(f"lists or --class_names of {self.classes} classes (or --finetune)")
        return "give " + (" and ".join(wanted) or "the options that it was trained with")


def _classes(names: Mapping[str, Tensor]) -> int | None:
    heads = (names.get(f"{head}.weight") for head in ("new_fc", "head.rgb", "head.pose"))
    return next((head.shape[0] for head in heads if head is not None and head.ndim), None)


def _streams(
    names: Mapping[str, Tensor], channels: int | None, skeleton: SkeletonNetwork | None
) -> str:
    if channels is None:
        return _PATHWAYS.get(skeleton.streams if skeleton else "", "skeletons alone")
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
