"""PoseC3D: a 3-D convolutional network that sees skeletons as heatmap volumes.

Duan et al. 2022, "Revisiting Skeleton-based Action Recognition", arXiv:2104.13586. Each joint (or
limb) is a channel (section 3.2); the network is a narrow SlowOnly without its first stage's
pooling (section 3.3). More people cost nothing: they are drawn into the same volume.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from errors import InputError
from models.classifier import Encoder
from models.skeleton.slowonly import SlowOnly, Stage
from ops.batch import Batch
from ops.heatmap import joint_volumes, limb_volumes, mirror_volumes
from ops.skeleton import SkeletonLayout

# Standard deviation of a drawn joint, in pixels of a volume of 56 x 56 or 64 x 64.
SIGMA = 0.6
STREAMS = ("joint", "limb")


class VolumeDrawing:
    """How the volumes of a model are drawn: what is a channel, and how wide a Gaussian is.

    Args:
        layout: the joints of the batch, in the image.
        stream: "joint" or "limb".
        sigma: pixels.

    Raises:
        InputError: the layout has no such stream.
    """

    def __init__(self, layout: SkeletonLayout, stream: str, sigma: float) -> None:
        if stream not in STREAMS:
            raise InputError(
                f"heatmap volumes have no stream {stream!r}: choose from {', '.join(STREAMS)}"
            )
        if stream == "limb" and not layout.limbs:
            raise InputError(
                f"the layout {layout.name} names no limbs: add them, or take the stream joint"
            )
        if layout.dims != 2:
            raise InputError(
                f"the layout {layout.name} is in {layout.dims} dimensions, heatmap volumes are "
                "drawn from joints in the image: give keypoints in pixels, or choose a graph "
                "network such as stgcnpp"
            )
        self.num_joints = len(layout)
        self.layout = layout.name
        self.limbs = layout.limbs if stream == "limb" else None
        order = layout.limb_mirror_order() if stream == "limb" else layout.mirror_order()
        self.mirror_order: list[int] = order.tolist()
        self.sigma = sigma

    @property
    def num_channels(self) -> int:
        """Return K."""
        return len(self.mirror_order)

    def draw(self, batch: Batch) -> Tensor:
        """Draw the skeletons of a batch, in the mirror where it says so: (B, K, T, H, W).

        Raises:
            InputError: the batch has no skeletons of this layout, or no size to draw them in.
        """
        skeletons = batch.skeletons
        if skeletons is None or batch.volume_size is None:
            raise InputError(
                "the batch has no skeletons to be drawn, the model needs skeletons (B, T, M, "
                f"{self.num_joints}, 3) and volume_size (height, width): give both"
            )
        if skeletons.ndim != 5 or skeletons.shape[3:] != (self.num_joints, 3):
            raise InputError(
                f"the skeletons are {tuple(skeletons.shape)}, the model draws (B, T, M, V, 3) with "
                f"V = {self.num_joints} joints ({self.layout}): choose their --skeleton_layout"
            )
        if self.limbs is None:
            volumes = joint_volumes(skeletons, batch.volume_size, self.sigma)
        else:
            volumes = limb_volumes(skeletons, self.limbs, batch.volume_size, self.sigma)
        if batch.mirrored is None:
            return volumes
        is_mirrored = batch.mirrored.view(-1, 1, 1, 1, 1)
        return torch.where(is_mirrored, mirror_volumes(volumes, self.mirror_order), volumes)


class PoseC3D(SlowOnly, Encoder):
    """Heatmap volumes through a narrow SlowOnly-R50 of three stages.

    Args:
        layout: the joints of the batch.
        stages: bottlenecks of each stage: (4, 6, 3) is published for NTU RGB+D, (3, 4, 6) for
            Kinetics, UCF101 and HMDB51.
        stream: "joint" or "limb", what a channel of a volume shows.
        in_channels: K; None takes it from layout and stream, and nothing else fits.
        temporal_strides: of each stage; (1, 1, 1) is the pose pathway of RGBPose-Conv3D alone.
        base: width of the stem.
        sigma: standard deviation of a drawn joint, pixels.

    Raises:
        InputError: the layout has no such stream, or `in_channels` is another number.
    """

    shares_dropout = True
    head_std = 0.01

    def __init__(
        self,
        layout: SkeletonLayout,
        stages: Sequence[int] = (4, 6, 3),
        stream: str = "joint",
        in_channels: int | None = None,
        temporal_strides: Sequence[int] = (1, 1, 2),
        base: int = 32,
        sigma: float = SIGMA,
    ) -> None:
        drawing = VolumeDrawing(layout, stream, sigma)
        if in_channels not in (None, drawing.num_channels):
            raise InputError(
                f"PoseC3D was asked for {in_channels} channels, the {stream} stream of "
                f"{layout.name} has {drawing.num_channels}: leave the number out"
            )
        super().__init__(drawing.num_channels, base, pose_stages(stages, temporal_strides))
        self.drawing = drawing

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T', D); T' is half of the frames where the last stage has stride 2."""
        return self.encode(self.drawing.draw(batch))


def pose_stages(
    blocks: Sequence[int], temporal_strides: Sequence[int], extra: Sequence[int] = (0, 0, 0)
) -> list[Stage]:
    """Return the stages of a network on heatmap volumes: all but the first see three frames.

    Args:
        blocks: bottlenecks of each stage.
        temporal_strides: of each stage.
        extra: channels that come in from another network, for each stage.
    """
    return [
        Stage(number, 2, stride, inflated=place > 0, extra=added)
        for place, (number, stride, added) in enumerate(
            zip(blocks, temporal_strides, extra, strict=True)
        )
    ]
