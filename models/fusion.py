"""Encoders that see RGB: frames alone, or frames and skeletons mixed segment by segment.

Early fusion needs no class of its own: it is `RGBEncoder` on frames whose fourth channel is the
pose heatmap.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import InputError
from models.classifier import ClipClassifier, Encoder, Head
from models.pose_encoders import PoseEncoder
from models.resnet_gsf import Backbone
from ops.attention import SegmentAttention
from ops.batch import Batch
from ops.consensus import average, to_segments

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
        pose: the pose stream, P features. Where nobody was detected they are replaced by zeros.
            A model of whole clips has T' segments of its own, equal parts of the clip, whose
            average over each of the T parts of the RGB stream is taken.
        attention: over the E = D + P features of the segments; segments without a detected
            person cannot be attended to. None leaves it out (the fast variant).
        dropout: in the refinement.
    """

    def __init__(
        self,
        rgb: RGBEncoder,
        pose: Encoder,
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
        return self.fuse(*self.streams(batch))

    def streams(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return RGB features (B, T, D), pose features (B, T, P), and (B, T) who was detected."""
        rgb = self.rgb(batch)
        pose, detected = self.pose(batch), self._detected(batch, rgb)
        if isinstance(self.pose, PoseEncoder):
            if pose.shape[:2] != rgb.shape[:2]:
                raise InputError(
                    f"the frames are {tuple(rgb.shape[:2])} clips by segments, the keypoints "
                    f"{tuple(pose.shape[:2])}: give one set of keypoints per frame"
                )
        else:
            pose = to_segments(pose, rgb.shape[1])
        return rgb, torch.where(detected[..., None], pose, 0), detected

    def _detected(self, batch: Batch, rgb: Tensor) -> Tensor:
        """Return (B, T) bool: segments in which anybody was detected."""
        if isinstance(self.pose, PoseEncoder):
            return self.pose.segment_mask(batch)
        if batch.present is None:
            return rgb.new_ones(rgb.shape[:2], dtype=torch.bool)
        anybody = batch.present.any(dim=2, keepdim=True).to(rgb.dtype)  # (B, L, 1)
        return to_segments(anybody, rgb.shape[1])[..., 0] > 0

    def fuse(self, rgb: Tensor, pose: Tensor, detected: Tensor) -> Tensor:
        """Mix what `streams` returned: (B, T, E // 4)."""
        mixed = torch.cat([F.normalize(rgb, dim=2), F.normalize(pose, dim=2)], dim=2)  # (B, T, E)
        if self.attention is not None:
            mixed = self.attention(mixed, missing=~detected)
        return self.refinement(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])


class StreamClassifier(ClipClassifier):
    """A late fusion whose streams are also taught by classifiers of their own, in training.

    Where one stream answers most clips early, the loss of the fusion alone leaves little for the
    other to learn from. The heads of the streams are of no use later.

    Attributes:
        head_weights: of the losses of the fusion, the RGB stream, the pose stream.

    Source: gradient blending's observation, Wang et al. 2020, arXiv:1905.12681, section 3, with
    fixed weights.
    """

    def __init__(
        self, encoder: LateFusion, num_classes: int, dropout: float, weight: float
    ) -> None:
        super().__init__(encoder, num_classes, dropout)
        self.head_weights = (1.0, weight, weight)
        self.rgb_head = Head(encoder.rgb.feature_dim, num_classes, dropout)
        self.pose_head = Head(encoder.pose.feature_dim, num_classes, dropout)

    def forward(self, batch: Batch | Mapping[str, Any]) -> Tensor:
        """Return (B, K) logits, in training (B, 3, K): of the fusion, of RGB, of the pose."""
        if not self.training:
            return super().forward(batch)
        encoder, batch = self.encoder, Batch.of(batch).prepared()
        assert isinstance(encoder, LateFusion)
        rgb, pose, detected = encoder.streams(batch)
        heads = (
            (self.head, encoder.fuse(rgb, pose, detected), None),
            (self.rgb_head, rgb, None),
            (self.pose_head, pose, detected),
        )
        return torch.stack([average(head(x), mask) for head, x, mask in heads], dim=1)
