"""Encoders that see RGB: frames alone, or frames and skeletons mixed segment by segment.

Early fusion needs no class of its own: it is `RGBEncoder` on frames whose fourth channel is the
pose heatmap.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import InputError
from models.classifier import Encoder
from models.pose_encoders import PoseEncoder
from models.resnet_gsf import Backbone
from ops.attention import SegmentAttention
from ops.batch import Batch

NUM_HEADS = 4


class RGBEncoder(Encoder):
    """The backbone on every frame; segments mix where it has GSF."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature_dim = backbone.feature_dim

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T, D)."""
        frames = self._check(batch.frames)
        return self.backbone(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _check(self, frames: Tensor | None) -> Tensor:
        channels, segments = self.backbone.in_channels, self.backbone.num_segments
        if frames is None:
            raise InputError(
                f"the batch has no frames, the model sees RGB: give frames (B, T, {channels}, H, W)"
            )
        if frames.ndim != 5 or frames.shape[2] != channels:
            raise InputError(
                f"the frames are {tuple(frames.shape)}, the model takes (B, T, {channels}, H, W): "
                "give --num_channels that fits the input"
            )
        if segments is not None and frames.shape[1] != segments:
            raise InputError(
                f"the clips have {frames.shape[1]} segments, the GSF modules were built for "
                f"{segments}: give both the same --num_segments"
            )
        return frames


class LateFusion(Encoder):
    """RGB and pose features of each segment: unit length, concatenated, attended, refined.

    Args:
        rgb: the RGB stream, D features.
        pose: the pose stream, 128 features. Where nobody was detected they are replaced by zeros.
        attention: over the E = D + 128 features of the segments; segments without a detected
            person cannot be attended to. None leaves it out (the fast variant).
        dropout: in the refinement.
    """

    def __init__(
        self,
        rgb: RGBEncoder,
        pose: PoseEncoder,
        attention: SegmentAttention | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.rgb = rgb
        self.pose = pose
        self.attention = attention
        dim = rgb.feature_dim + pose.feature_dim
        self.feature_dim = dim // 4
        self.refinement = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.BatchNorm1d(dim // 2),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(dim // 2, dim // 4),
            nn.BatchNorm1d(dim // 4),
            nn.ReLU(inplace=True),
        )  # the dropout of the classifier follows

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T, E // 4)."""
        rgb = self.rgb(batch)
        detected = self.pose.segment_mask(batch)  # (B, T)
        pose = self.pose(batch)
        if pose.shape[:2] != rgb.shape[:2]:
            raise InputError(
                f"the frames are {tuple(rgb.shape[:2])} clips by segments, the keypoints "
                f"{tuple(pose.shape[:2])}: give one set of keypoints per frame"
            )
        pose = torch.where(detected[..., None], pose, 0)
        mixed = torch.cat([F.normalize(rgb, dim=2), F.normalize(pose, dim=2)], dim=2)  # (B, T, E)
        if self.attention is not None:
            mixed = self.attention(mixed, missing=~detected)
        return self.refinement(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])
