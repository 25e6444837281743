"""Weights of PYSKL and MMAction2: their names, and what names and shapes say of a network.

Both toolboxes (Duan et al. 2022, arXiv:2205.09443; the OpenMMLab contributors 2020) name the
tensors of a network alike, inside of `backbone.` as our encoders do (but for the blocks of
CTR-GCN); they differ in the name of the classifier of graph networks.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ops.skeleton import LAYOUTS

# Theirs and ours. The classifier is `fc_cls` in PYSKL and in all of PoseC3D, `fc` in MMAction2's
# graph networks.
TOOLBOX_PREFIXES = (
    ("backbone.", "encoder."),
    ("cls_head.fc_cls.", "head.linear."),
    ("cls_head.fc.", "head.linear."),
    ("cls_head.fc_rgb.", "head.rgb."),
    ("cls_head.fc_pose.", "head.pose."),
)
# The blocks of CTR-GCN alone have names of their own.
_CTRGCN_BLOCK = re.compile(r"^encoder\.net\.(\d+)\.(?:(gcn|tcn)1|(residual))\.")
# Constants of MMAction2's input, no weights: the pixels' mean and deviation.
_NO_WEIGHTS = "data_preprocessor."
TITLES = {
    "stgcn": "ST-GCN",
    "agcn": "2s-AGCN",
    "aagcn": "AAGCN",
    "stgcnpp": "ST-GCN++",
    "ctrgcn": "CTR-GCN",
    "posec3d": "PoseC3D",
    "rgbpose": "RGBPose-Conv3D",
}
# Channels of one stream: x, y and confidence, or x, y and z.
STREAM_CHANNELS = 3
# Blocks of the pose pathway of RGBPose-Conv3D.
PATHWAY_STAGES = (4, 6, 3)
# Joints of the layouts that the toolboxes know -> our names.
_LAYOUT_OF_JOINTS = {17: "coco17", 18: "openpose18", 21: "hand21", 25: "ntu25"}


def is_toolbox(state: Mapping[str, Any]) -> bool:
    """Say whether the names of a state dict are those of PYSKL or MMAction2."""
    return any(name.startswith(theirs) for name in state for theirs, _ in TOOLBOX_PREFIXES)


def our_name(name: str) -> str:
    """Translate a name of PYSKL or MMAction2 to that of a pose-only model; others stay."""
    for theirs, ours in TOOLBOX_PREFIXES:
        if name.startswith(theirs):
            return _CTRGCN_BLOCK.sub(r"encoder.gcn.\1.\2\3.", ours + name.removeprefix(theirs))
    return name


def weights_alone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what MMAction2 keeps among the weights and no model has."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(_NO_WEIGHTS)}


def as_pathway(given: dict[str, str], own: Collection[str]) -> dict[str, str]:
    """Name the tensors of a network of one stream as one pathway of RGBPose-Conv3D does.

    Args:
        given: their names in a file by the published names of `models.anatomy`.
        own: the names of the model, so too; unless it is one pathway, nothing is changed.
    """
    paths = {path for path in ("rgb", "pose") if f"pose_model.{path}_path.conv1.conv.weight" in own}
    if len(paths) != 1 or "pose_model.conv1.conv.weight" not in given:
        return given
    (path,) = paths
    starts = (("pose_model.", f"pose_model.{path}_path."), ("new_fc.", f"head.{path}."))
    renamed = {}
    for name, in_file in given.items():
        old, new = next((pair for pair in starts if name.startswith(pair[0])), ("", ""))
        target = new + name.removeprefix(old)
        # Where the file has that name as well, this tensor is for nothing.
        renamed[name if target in given else target] = in_file
    return renamed


# ---------------------------------------------------------------- by names and shapes


@dataclass(frozen=True, slots=True)
class SkeletonNetwork:
    """A network of the skeleton zoo as far as its tensors show it.

    Attributes:
        name: a key of `TITLES`; those of graph networks and "posec3d" are `--pose_model`.
        joints: V of graph networks; of PoseC3D the joints or limbs K of its volumes. None where
            the tensors do not say.
        channels: C of its input: 3 for each stream of a graph network. None for the others.
        people: M where the first batch norm has its own numbers for each person, otherwise None.
        stages: blocks of each stage, of PoseC3D alone.
        streams: of RGBPose-Conv3D: "both", "rgb" or "pose".
    """

    name: str
    joints: int | None = None
    channels: int | None = None
    people: int | None = None
    stages: tuple[int, ...] = ()
    streams: str = ""

    @property
    def title(self) -> str:
        """Return its name in texts."""
        return TITLES[self.name]

    @property
    def is_graph(self) -> bool:
        """Say whether it convolves over a graph, whose parameters fit one layout alone."""
        return self.channels is not None

    @property
    def layout(self) -> str | None:
        """Return the layout of V joints in the toolboxes, by our name; None if they have none."""
        return _LAYOUT_OF_JOINTS.get(self.joints or 0)

    def __str__(self) -> str:
        """Describe it, as in "ST-GCN++ of 17 joints"."""
        parts = [self.title]
        if self.joints is not None:
            parts.append(f"of {self.joints} {'joints' if self.is_graph else 'channels'}")
        if self.is_graph and self.channels != STREAM_CHANNELS:
            parts.append(f"with {self.channels} numbers a joint")
        if self.people is not None:
            parts.append(f"for {self.people} people")
        if self.streams in ("rgb", "pose"):
            parts[0] += f" ({self.streams} pathway alone)"
        if self.stages:
            parts.append(f"in {'-'.join(map(str, self.stages))} blocks")
        return " ".join(parts)

    def fits(self, other: "SkeletonNetwork") -> bool:
        """Say whether the weights of one are for the other: they are the same, but for K.

        PoseC3D and the pose pathway of RGBPose-Conv3D alone have the same tensors.
        """
        alike = {("posec3d", ""), ("rgbpose", "pose")}
        if {(self.name, self.streams), (other.name, other.streams)} == alike:
            stages = self.stages or other.stages
            return self.joints == other.joints and stages == PATHWAY_STAGES
        return self == other

    def is_pathway_of(self, other: "SkeletonNetwork | None") -> bool:
        """Say whether the other is RGBPose-Conv3D with both pathways, and this may be one."""
        is_alone = self.streams in ("rgb", "pose") or self.name == "posec3d"
        return is_alone and other is not None and other.streams == "both"

    def ways_from(self, other: "SkeletonNetwork | None") -> list[str]:
        """List the options that make `other` this network."""
        if self.name == "rgbpose":
            return self._ways_of_pathways(other)
        is_other = other is None or other.name != self.name
        ways = [f"--pose_model {self.name}"] if is_other else []
        if other is None or self.is_graph != other.is_graph:
            return ways
        return ways + self._ways_of_joints(other) + ([] if is_other else self._ways_of_shape(other))

    def _ways_of_joints(self, other: "SkeletonNetwork") -> list[str]:
        if self.joints == other.joints:
            return []
        if not self.is_graph:
            return [f"a layout or stream of {self.joints} channels, not {other.joints}"]
        return [
            f"--skeleton_layout {_layouts_of(self)} and keypoints in that layout (converted from "
            f"the {other.joints} joints of {_layouts_of(other)})"
        ]

    def _ways_of_shape(self, other: "SkeletonNetwork") -> list[str]:
        ways = []
        if self.channels != other.channels:
            ways.append(f"--pose_streams with {_streams_of(self)} instead of {_streams_of(other)}")
        if self.people != other.people:
            ways.append(f"--num_people {self.people or 2}")
        if self.stages != other.stages:
            ways.append(f"--posec3d_stages {' '.join(map(str, self.stages))}")
        return ways

    def _ways_of_pathways(self, other: "SkeletonNetwork | None") -> list[str]:
        if other is None or self.streams != other.streams:
            return [f"--rgbpose_conv3d --rgbpose_streams {self.streams}"]
        if self.joints != other.joints:
            return [f"--skeleton_layout {_layouts_of(self)} and keypoints in that layout"]
        return []


def _layouts_of(network: SkeletonNetwork) -> str:
    names = [name for name, layout in LAYOUTS.items() if len(layout) == network.joints]
    return " or ".join(names) or f"of {network.joints} joints"


def _streams_of(network: SkeletonNetwork) -> str:
    count, rest = divmod(network.channels or 0, STREAM_CHANNELS)
    return f"{network.channels} channels" if rest else f"{count} stream{'s' * (count != 1)}"


def recognise(encoder: Mapping[str, Tensor]) -> SkeletonNetwork | None:
    """Say which network of the zoo tensors belong to.

    Args:
        encoder: tensors by their names inside of an encoder, such as `gcn.0.gcn.A`.

    Returns:
        What it is, or None if it is none of the zoo.
    """
    if any(name.startswith(("rgb_path.", "pose_path.")) for name in encoder):
        return _rgbpose(encoder)
    stem = encoder.get("conv1.conv.weight")
    if stem is not None and stem.ndim == 5:
        return _volume_network(encoder, stem)
    for name, mark, first in _GRAPH_NETWORKS:
        if any(re.search(mark, key) for key in encoder):
            return _graph_network(name, encoder, first)
    return None


# What tells graph networks apart, from the most special to the plain one, and the convolution that
# reads the input.
_GRAPH_NETWORKS = (
    ("ctrgcn", r"^gcn\.\d+\.gcn\.convs\.", r"^gcn\.0\.gcn\.convs\.0\.conv1\.weight$"),
    ("aagcn", r"^gcn\.\d+\.gcn\.conv_sa\.weight$", r"^gcn\.0\.gcn\.conv_d\.0\.weight$"),
    ("agcn", r"^gcn\.\d+\.gcn\.conv_d\.", r"^gcn\.0\.gcn\.conv_d\.0\.weight$"),
    ("stgcnpp", r"^gcn\.\d+\.tcn\.branches\.", r"^gcn\.0\.gcn\.conv\.weight$"),
    ("stgcn", r"^gcn\.\d+\.gcn\.PA$", r"^gcn\.0\.gcn\.conv\.weight$"),
)


# Networks with batch norm of its own for each person: their number is part of the network.
_NORMS_PEOPLE = ("agcn", "aagcn", "ctrgcn")


def _graph_network(name: str, encoder: Mapping[str, Tensor], first: str) -> SkeletonNetwork:
    stacks = (tensor for key, tensor in encoder.items() if key.rpartition(".")[2] in ("A", "PA"))
    joints = next((stack.shape[-1] for stack in stacks if stack.ndim >= 2), None)
    convs = (tensor for key, tensor in encoder.items() if re.search(first, key))
    channels = next((conv.shape[1] for conv in convs if conv.ndim == 4), STREAM_CHANNELS)
    norm = encoder.get("data_bn.weight")
    people = None
    if norm is not None and joints and channels:
        count = norm.numel() // (joints * channels)
        people = count if count != 1 or name in _NORMS_PEOPLE else None
    return SkeletonNetwork(name, joints, channels, people)


def _volume_network(encoder: Mapping[str, Tensor], stem: Tensor) -> SkeletonNetwork:
    blocks = {m.groups() for key in encoder if (m := re.match(r"layer(\d)\.(\d+)\.", key))}
    stages = tuple(sum(stage == str(i) for stage, _ in blocks) for i in (1, 2, 3, 4))
    if stem.shape[1] == 3:
        return SkeletonNetwork("rgbpose", streams="rgb")
    counts = tuple(count for count in stages if count)
    return SkeletonNetwork("posec3d", joints=stem.shape[1], stages=counts)


def _rgbpose(encoder: Mapping[str, Tensor]) -> SkeletonNetwork:
    stem = encoder.get("pose_path.conv1.conv.weight")
    joints = stem.shape[1] if stem is not None and stem.ndim == 5 else None
    paths = [p for p in ("rgb", "pose") if any(k.startswith(f"{p}_path.") for k in encoder)]
    return SkeletonNetwork("rgbpose", joints, streams=paths[0] if len(paths) == 1 else "both")
