"""RGBPose-Conv3D: an RGB network and a skeleton network that talk to each other.

Duan et al. 2022, "Revisiting Skeleton-based Action Recognition", arXiv:2104.13586, section 3.3:
two SlowOnly pathways with lateral connections in both directions. The RGB pathway sees few large
frames, the pose pathway four times as many heatmaps of a quarter of the size.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from errors import InputError
from models.classifier import Classifier
from models.skeleton.posec3d import SIGMA as SIGMA_ALONE
from models.skeleton.posec3d import VolumeDrawing, pose_stages
from models.skeleton.slowonly import SlowOnly, Stage
from ops.batch import Batch
from ops.skeleton import SkeletonLayout

# Heatmaps for each RGB frame, and pixels of a frame for each pixel of a heatmap.
SPEED_RATIO, SCALE_RATIO = 4, 4
SIGMA = 0.7  # of both pathways together; the pose pathway alone is shown those of PoseC3D
STREAMS = ("rgb", "pose")
# Lateral connections see 7 heatmaps, 4 apart, and no neighbouring pixels.
_LATERAL: dict[str, Any] = {
    "kernel_size": (7, 1, 1),
    "stride": (SPEED_RATIO, 1, 1),
    "padding": (3, 0, 0),
    "bias": False,
}


class PoseToRGB(nn.Module):
    """What the RGB pathway hears: a convolution that leaves every fourth heatmap."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, **_LATERAL)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pose: Tensor) -> Tensor:
        """Map (B, C, 4 T, H, W) to (B, C', T, H, W)."""
        return self.conv(pose)  # type: ignore[no-any-return]


class RGBToPose(nn.Module):
    """What the pose pathway hears: a transposed convolution that makes four frames of each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # One more than the formula gives: 4 T frames exactly.
        self.conv = nn.ConvTranspose3d(inputs, outputs, **_LATERAL, output_padding=(3, 0, 0))
        self.bn = nn.BatchNorm3d(outputs)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, rgb: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C', 4 T, H, W)."""
        return torch.relu_(self.bn(self.conv(rgb)))


def rgb_path(is_joint: bool) -> SlowOnly:
    """Build the RGB pathway: SlowOnly-R50, 2048 features."""
    heard = (128, 256) if is_joint else (0, 0)
    stages = [
        Stage(3, spatial_stride=1),
        Stage(4),
        Stage(6, inflated=True, extra=heard[0]),
        Stage(3, inflated=True, extra=heard[1]),
    ]
    path = SlowOnly(3, 64, stages, stride=2)
    if is_joint:
        path.layer2_lateral = PoseToRGB(128, heard[0])
        path.layer3_lateral = PoseToRGB(256, heard[1])
    return path


def pose_path(num_channels: int, is_joint: bool) -> SlowOnly:
    """Build the pose pathway: PoseC3D that keeps all frames, 512 features."""
    heard = (32, 64) if is_joint else (0, 0)
    path = SlowOnly(num_channels, 32, pose_stages((4, 6, 3), (1, 1, 1), (0, *heard)))
    if is_joint:
        path.layer1_lateral = RGBToPose(512, heard[0])
        path.layer2_lateral = RGBToPose(1024, heard[1])
    return path


class RGBPosePaths(nn.Module):
    """Both pathways, or one of them alone.

    Args:
        num_channels: K of the heatmap volumes.
        streams: which of "rgb" and "pose".
        detach: streams whose gradients do not flow into what they hear.
        drop_path: the probability that a stream hears nothing, for the whole of a batch and in
            training alone; for each stream.
    """

    def __init__(
        self,
        num_channels: int,
        streams: tuple[str, ...],
        detach: tuple[str, ...] = (),
        drop_path: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.streams, self.detach = streams, detach
        self.drop_path = dict(drop_path or {})
        is_joint = len(streams) == 2
        if "rgb" in streams:
            self.rgb_path = rgb_path(is_joint)
        if "pose" in streams:
            self.pose_path = pose_path(num_channels, is_joint)

    def forward(self, frames: Tensor | None, volumes: Tensor | None) -> dict[str, Tensor]:
        """Return the features of each stream, averaged over frames and pixels: (B, D).

        Args:
            frames: (B, 3, T, S, S); None without an RGB stream.
            volumes: (B, K, 4 T, S/4, S/4); None without a pose stream.
        """
        if len(self.streams) == 2:
            assert frames is not None
            assert volumes is not None
            rgb, pose = self._both(frames, volumes)
            return {"rgb": rgb.mean(dim=(2, 3, 4)), "pose": pose.mean(dim=(2, 3, 4))}
        (stream,) = self.streams
        path, seen = (self.rgb_path, frames) if stream == "rgb" else (self.pose_path, volumes)
        assert seen is not None
        return {stream: path.encode(seen).mean(dim=1)}

    def _both(self, frames: Tensor, volumes: Tensor) -> tuple[Tensor, Tensor]:
        rgb_path, pose_path = self.rgb_path, self.pose_path
        hears = {stream: self._hears(stream, frames) for stream in STREAMS}
        rgb = rgb_path.stage(2, rgb_path.stage(1, rgb_path.stem(frames)))
        pose = pose_path.stage(1, pose_path.stem(volumes))
        _check_fit(rgb, pose)
        for number in (1, 2):
            of_rgb = rgb.detach() if "pose" in self.detach else rgb
            of_pose = pose.detach() if "rgb" in self.detach else pose
            for_pose = getattr(pose_path, f"layer{number}_lateral")(of_rgb)
            for_rgb = getattr(rgb_path, f"layer{number + 1}_lateral")(of_pose)
            rgb = torch.cat([rgb, _heard(for_rgb, hears["rgb"])], dim=1)
            pose = torch.cat([pose, _heard(for_pose, hears["pose"])], dim=1)
            rgb, pose = rgb_path.stage(number + 2, rgb), pose_path.stage(number + 1, pose)
        return rgb, pose

    def _hears(self, stream: str, frames: Tensor) -> Tensor | None:
        """Draw whether a stream hears the other in this batch: () bool, None for surely."""
        probability = self.drop_path.get(stream, 0.0)
        if not self.training or probability == 0:
            return None
        return torch.rand((), device=frames.device) >= probability


def _heard(features: Tensor, hears: Tensor | None) -> Tensor:
    return features if hears is None else torch.where(hears, features, 0)


def _check_fit(rgb: Tensor, pose: Tensor) -> None:
    """Stop unless the features of both pathways show the same times and places.

    Raises:
        InputError: they do not.
    """
    expected = (SPEED_RATIO * rgb.shape[2], *rgb.shape[3:])
    if tuple(pose.shape[2:]) != tuple(expected):
        raise InputError(
            f"the pathways of RGBPose-Conv3D do not fit: after {rgb.shape[2]} frames the pose "
            f"pathway has features {tuple(pose.shape[2:])} (T, H, W) instead of {expected}: give "
            f"{SPEED_RATIO} skeletons for each frame, and heatmaps whose side is 1/{SCALE_RATIO} "
            "of the frame's"
        )


class StreamHead(nn.Module):
    """A classifier for each stream, each with its own dropout."""

    def __init__(self, widths: Mapping[str, int], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        for stream, width in widths.items():
            linear = nn.Linear(width, num_classes)
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
            setattr(self, stream, linear)

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Map the (B, D) of each stream to (B, K)."""
        return {
            stream: getattr(self, stream)(self.dropout(value)) for stream, value in features.items()
        }


class RGBPoseConv3D(Classifier):
    """The whole classifier: frames and skeletons in, classes out.

    Args:
        num_classes: K.
        layout: the joints of the batch.
        streams: "both", or "rgb" or "pose": that pathway alone, as it is trained first.
        dropout: before each classifier.
        rgb_detach: the gradients of the RGB pathway do not reach the pose pathway.
        pose_detach: nor the other way round.
        rgb_drop_path: the probability that the RGB pathway hears nothing of a batch, in training.
        pose_drop_path: the same of the pose pathway.

    Raises:
        InputError: `streams` or the layout cannot be.
    """

    def __init__(
        self,
        num_classes: int,
        layout: SkeletonLayout,
        streams: str = "both",
        dropout: float = 0.5,
        rgb_detach: bool = False,
        pose_detach: bool = False,
        rgb_drop_path: float = 0.0,
        pose_drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if streams not in ("both", *STREAMS):
            raise InputError(
                f"RGBPose-Conv3D has no streams {streams!r}: choose from both, rgb, pose"
            )
        self.num_classes = num_classes
        self.streams = STREAMS if streams == "both" else (streams,)
        self.drawing: VolumeDrawing | None = None
        if "pose" in self.streams:
            sigma = SIGMA if "rgb" in self.streams else SIGMA_ALONE
            self.drawing = VolumeDrawing(layout, "joint", sigma)
        detached = zip(STREAMS, (rgb_detach, pose_detach), strict=True)
        self.encoder: RGBPosePaths = RGBPosePaths(
            len(layout),
            self.streams,
            tuple(stream for stream, is_detached in detached if is_detached),
            {"rgb": rgb_drop_path, "pose": pose_drop_path},
        )
        widths = {"rgb": 2048, "pose": 512}
        self.head = StreamHead({s: widths[s] for s in self.streams}, num_classes, dropout)

    def stream_logits(self, batch: Batch | Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the (B, K) logits of each stream.

        Args:
            batch: frames (B, T, 3, S, S), skeletons (B, 4 T, M, V, 3) in pixels of heatmaps and
                their size, S/4; of one stream alone only what it sees.

        Raises:
            InputError: the batch lacks what a stream sees, or frames and skeletons do not fit.
        """
        batch = Batch.of(batch).prepared()
        frames = _frames_of(batch) if "rgb" in self.streams else None
        volumes = None if self.drawing is None else self.drawing.draw(batch)
        return self.head(self.encoder(frames, volumes))  # type: ignore[no-any-return]

    def forward(self, batch: Batch | Mapping[str, Any]) -> Tensor:
        """Return what the streams say.

        Args:
            batch: see `stream_logits`.

        Returns:
            In training (B, P, K), the logits of the P streams, each of which has its own loss; in
            evaluation (B, K), the logarithm of the mean of their softmax.
        """
        logits = torch.stack(list(self.stream_logits(batch).values()), dim=1)  # (B, P, K)
        if self.training:
            return logits
        return logits.float().log_softmax(dim=2).logsumexp(dim=1) - math.log(len(self.streams))


def _frames_of(batch: Batch) -> Tensor:
    """Return the frames of a batch as (B, 3, T, S, S)."""
    frames = batch.frames
    if frames is None or frames.ndim != 5 or frames.shape[2] != 3:
        given = "no frames" if frames is None else f"frames {tuple(frames.shape)}"
        raise InputError(
            f"the batch has {given}, the RGB pathway of RGBPose-Conv3D needs (B, T, 3, H, W): "
            "give frames without a heatmap channel"
        )
    return frames.transpose(1, 2)
