"""ST-GCN++ and heatmap volumes in the published order of computation, in our words.

The network: one contraction over kinds of neighbours and joints for each graph convolution, every
branch over time on its own, features (N, C, T, V). The volumes: one joint of one person in one
frame at a time. They are there to be measured against, with the same weights and the same numbers.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.classifier import Encoder
from models.skeleton.stgcnpp import LearnedGraphConv, STGCNPlusPlus
from models.skeleton.trunk import Block
from ops.batch import Batch
from ops.temporal import MultiScaleTCN, TemporalConv

# A Gaussian ends at this many standard deviations; scores below the least are not drawn.
_REACH, _LEAST_SCORE = 3, 1e-3


class PublishedSTGCNPlusPlus(Encoder):
    """ST-GCN++ as its equations stand.

    Source: Duan et al. 2022, arXiv:2205.09443, section 3.2; Yan et al. 2018, arXiv:1801.07455,
        equation 10.

    Args:
        ours: whose weights it takes, as a copy.
    """

    shares_dropout = True

    def __init__(self, ours: STGCNPlusPlus) -> None:
        super().__init__()
        self.feature_dim = ours.feature_dim
        weights = copy.deepcopy(ours)
        self.data_bn = weights.data_bn
        self.blocks = nn.ModuleList(
            _Block(block)  # type: ignore[arg-type]
            for block in weights.gcn
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T', 256)."""
        assert batch.skeletons is not None
        rows, frames, people, joints, channels = batch.skeletons.shape
        x = batch.skeletons.permute(0, 2, 3, 4, 1)  # (B, M, V, C, T)
        x = self.data_bn(x.reshape(rows * people, joints * channels, frames))
        x = x.view(rows * people, joints, channels, frames).permute(0, 2, 3, 1).contiguous()
        for block in self.blocks:
            x = block(x)  # (B*M, C, T, V)
        return x.unflatten(0, (rows, people)).mean(dim=(1, 4)).transpose(1, 2)


class _Block(nn.Module):
    """ReLU(TCN(GCN(x)) + way around)."""

    def __init__(self, ours: Block) -> None:
        super().__init__()
        self.gcn = _GraphConv(ours.gcn)  # type: ignore[arg-type]
        self.tcn = _MultiScale(ours.tcn)  # type: ignore[arg-type]
        self.around: nn.Module | None = None
        if isinstance(ours.residual, TemporalConv):
            self.around = nn.Sequential(ours.residual.conv, ours.residual.bn)
        self.adds_input = ours._adds_input

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V) to (N, C', T', V)."""
        y = self.tcn(self.gcn(x))
        if self.adds_input:
            y = y + x
        elif self.around is not None:
            y = y + self.around(x)
        return torch.relu(y)


class _GraphConv(nn.Module):
    """ReLU(BN(sum over k of (W_k x) A_k) + way around)."""

    def __init__(self, ours: LearnedGraphConv) -> None:
        super().__init__()
        self.conv, self.bn, self.down, self.A = ours.conv, ours.bn, ours.down, ours.A

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V) to (N, C', T, V)."""
        y = self.conv(x).unflatten(1, (len(self.A), -1))  # (N, K, C', T, V)
        y = torch.einsum("nkctv,kvw->nctw", y, self.A)
        return torch.relu(self.bn(y) + self.down(x))


class _MultiScale(nn.Module):
    """Six branches over time, one after another."""

    def __init__(self, ours: MultiScaleTCN) -> None:
        super().__init__()
        *convolved, greatest, alone = ours.branches
        self.branches = nn.ModuleList(
            nn.Sequential(*branch[:3], branch[3].conv)  # type: ignore[index]
            for branch in convolved
        )
        assert isinstance(greatest, nn.Sequential)
        assert isinstance(alone, nn.Conv2d)
        pool = nn.MaxPool2d((3, 1), (alone.stride[0], 1), (1, 0))
        self.branches += [nn.Sequential(*greatest[:3], pool), alone]
        self.transform, self.bn, self.drop = ours.transform, ours.bn, ours.drop

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, T, V) to (N, C, T', V)."""
        y = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.drop(self.bn(self.transform(y)))  # type: ignore[no-any-return]


# ---------------------------------------------------------------- heatmap volumes


def looped_volumes(
    skeletons: np.ndarray,
    limbs: Sequence[tuple[int, int]] | None,
    size: tuple[int, int],
    sigma: float = 0.6,
) -> np.ndarray:
    """Draw heatmap volumes one joint, or limb, of one person in one frame at a time.

    Source: Duan et al. 2022, arXiv:2104.13586, section 3.2; window, rounding and order of the
        coordinates as in its published volumes.

    Args:
        skeletons: (B, T, M, V, 3) x, y in pixels and score.
        limbs: pairs of joints, a channel each; None: a channel for each joint.
        size: (height, width) of a volume, pixels.
        sigma: standard deviation, pixels.

    Returns:
        (B, K, T, H, W) float32.
    """
    clips, frames, people, joints = skeletons.shape[:4]
    pairs = limbs or [(joint, joint) for joint in range(joints)]
    volumes = np.zeros((clips, len(pairs), frames, *size), np.float32)
    for clip in range(clips):
        for frame in range(frames):
            for channel, (first, last) in enumerate(pairs):
                for person in range(people):
                    ends = skeletons[clip, frame, person, [first, last]]
                    _draw(volumes[clip, channel, frame], ends, sigma)
    return volumes


def _draw(image: np.ndarray, ends: np.ndarray, sigma: float) -> None:
    """Draw what lies between two joints (2, 3) into an image (H, W), or one where they are close.

    What is there already stays where it is higher.
    """
    if not ends[:, 2].min() >= _LEAST_SCORE:
        return
    squared_length = float(((ends[1, :2] - ends[0, :2]) ** 2).sum())
    if squared_length < 1:
        ends = ends[[0, 0]]
    start, end, score = ends[0, :2], ends[1, :2], float(ends[:, 2].min())
    (top, bottom), (left, right) = (
        _window(ends[:, axis], image.shape[1 - axis], _REACH * sigma) for axis in (1, 0)
    )
    if top >= bottom or left >= right:
        return
    y, x = np.arange(top, bottom)[:, None], np.arange(left, right)[None]
    if squared_length < 1:
        squared = (x - start[0]) ** 2 + (y - start[1]) ** 2
    else:
        squared = _squared_distance(x, y, start, end, squared_length)
    patch = np.exp(-squared / (2 * sigma**2)) * score
    place = image[top:bottom, left:right]
    np.maximum(place, patch, out=place, casting="same_kind")


def _window(places: np.ndarray, side: int, reach: float) -> tuple[int, int]:
    low, high = int(places.min() - reach), int(places.max() + reach) + 1
    return max(low, 0), min(high, side)


def _squared_distance(
    x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray, squared_length: float
) -> np.ndarray:
    """Return the squared distances of pixels to a segment."""
    direction = (end - start) / math.sqrt(squared_length)
    along = (x - start[0]) * direction[0] + (y - start[1]) * direction[1]
    across = (x - start[0]) * direction[1] - (y - start[1]) * direction[0]
    beyond = np.maximum(np.maximum(-along, along - math.sqrt(squared_length)), 0)
    return np.asarray(across**2 + beyond**2)
