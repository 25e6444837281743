"""What the graph convolutional networks of the zoo share: input norm, ten blocks, pooling.

Inside, features are (N, C, V, T) in channels_last: joints, then frames, then channels in memory.
Graphs then are products of large matrices, and convolutions over time run along memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import InputError
from models.classifier import Encoder
from ops.batch import Batch
from ops.graph import adjacency_stack
from ops.skeleton import SkeletonLayout
from ops.temporal import TemporalConv

# (width, stride over time) of the ten blocks: Yan et al. 2018, arXiv:1801.07455, section 4.1.
BLOCKS = (
    (64, 1), (64, 1), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1),
)  # fmt: skip
POOLINGS = ("mean", "masked")


class Block(nn.Module):
    """A graph convolution, a convolution over time, and a way around both.

    Source: Yan et al. 2018, arXiv:1801.07455, section 3.4.
    """

    def __init__(
        self, gcn: nn.Module, tcn: nn.Module, channels: tuple[int, int], stride: int, first: bool
    ) -> None:
        super().__init__()
        self.gcn = gcn
        self.tcn = tcn
        self.residual: nn.Module | None = None
        self._adds_input = not first and channels[0] == channels[1] and stride == 1
        if not first and not self._adds_input:
            self.residual = TemporalConv(*channels, kernel_size=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C', V, T')."""
        y = self.tcn(self.gcn(x))
        if self._adds_input:
            return torch.relu_(y + x)
        return torch.relu(y) if self.residual is None else torch.relu_(y + self.residual(x))


class SkeletonGCN(Encoder):
    """Skeletons through ten blocks, averaged over joints and people.

    A network says which graph it takes and of what its blocks are made.

    Args:
        layout: the joints and their graph.
        in_channels: C of the batch, 3 for each stream.
        num_people: M of the batch where `norms_people`, else any M will do.
        pooling: "mean": the published plain mean, in which missing people are as good as others.
            "masked": people count in the frames in which they were detected.

    Attributes:
        feature_dim: D.
        shares_dropout: a head must drop the same features of all segments of a clip.
        graph: the `mode` of `ops.graph.adjacency_stack`.
        keeps_graph: published weights hold the graph once more, as `A`, which nothing reads.
        norms_people: each person has batch norm of its own: a batch must have exactly M.
    """

    feature_dim = BLOCKS[-1][0]
    shares_dropout = True
    head_std = 0.01
    graph = "spatial"
    norms_people = False
    keeps_graph = False

    def __init__(
        self,
        layout: SkeletonLayout,
        in_channels: int = 3,
        num_people: int = 2,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"unknown pooling {pooling!r}: choose from {', '.join(POOLINGS)}")
        self.layout = layout
        self.in_channels = in_channels
        self.num_people = num_people if self.norms_people else None
        self.pooling = pooling
        folded = num_people if self.norms_people else 1
        self.data_bn = nn.BatchNorm1d(folded * len(layout) * in_channels)
        graphs = adjacency_stack(layout, self.graph)
        if self.keeps_graph:
            self.register_buffer("A", graphs)
        self.gcn = nn.ModuleList()
        channels = in_channels
        for index, (width, stride) in enumerate(BLOCKS):
            is_first = index == 0
            gcn = self.spatial_unit(channels, width, graphs)
            tcn = self.temporal_unit(width, stride, is_first)
            self.gcn.append(Block(gcn, tcn, (channels, width), stride, first=is_first))
            channels = width

    def spatial_unit(self, in_channels: int, out_channels: int, graphs: Tensor) -> nn.Module:
        """Make the graph convolution of a block, (N, C, V, T) to (N, C', V, T)."""
        raise NotImplementedError

    def temporal_unit(self, channels: int, stride: int, is_first: bool) -> nn.Module:
        """Make the convolution over time of a block, (N, C, V, T) to (N, C, V, T')."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T', 256), T' a quarter of the frames, rounded up."""
        skeletons = self._checked(batch)
        rows, _, people = skeletons.shape[:3]
        x = self._normalised(skeletons)  # (B*M, C, V, T)
        for block in self.gcn:
            x = block(x)
        x = x.mean(dim=2).unflatten(0, (rows, people)).transpose(2, 3)  # (B, M, T', D)
        present = self._present(batch, x.shape[2])
        if present is None:
            return x.mean(dim=1)
        counts = present.transpose(1, 2)[..., None]  # (B, M, T', 1)
        return torch.where(counts, x, 0).sum(dim=1) / counts.sum(dim=1).clamp(min=1)

    def segment_mask(self, batch: Batch) -> Tensor | None:
        """Return (B, T') bool: whether anybody is there; None where everything counts."""
        if self.pooling != "masked" or batch.present is None:
            return None
        present = self._present(batch, _after_strides(batch.present.shape[1]))
        return None if present is None else present.any(dim=2)

    def _checked(self, batch: Batch) -> Tensor:
        skeletons = batch.skeletons
        joints, channels = len(self.layout), self.in_channels
        if skeletons is None:
            raise InputError(
                "the batch has no skeletons, the model convolves over them: give skeletons "
                f"(B, L, M, {joints}, {channels})"
            )
        if skeletons.ndim != 5 or 0 in skeletons.shape:
            raise InputError(
                f"the skeletons are {tuple(skeletons.shape)}, the model needs (B, L, M, V, C) "
                "with at least one frame and person"
            )
        if skeletons.shape[3] != joints:
            raise InputError(
                f"the skeletons have {skeletons.shape[3]} joints, the model has {joints} "
                f"({self.layout.name}): give the layout of the data as --skeleton_layout"
            )
        if skeletons.shape[4] != channels:
            raise InputError(
                f"the skeletons have {skeletons.shape[4]} channels a joint, the model has "
                f"{channels}, 3 for each stream: give as many --pose_streams as it was built for"
            )
        if batch.present is not None and batch.present.shape != skeletons.shape[:3]:
            raise InputError(
                f"the batch says for {tuple(batch.present.shape)} who is present, its skeletons "
                f"are {tuple(skeletons.shape[:3])} (clips, frames, people): give one entry each"
            )
        if self.num_people not in (None, skeletons.shape[2]):
            raise InputError(
                f"the skeletons are of {skeletons.shape[2]} people, the model norms each of "
                f"{self.num_people} on its own: give skeletons of {self.num_people}, or take "
                "--pose_model stgcn or stgcnpp"
            )
        return skeletons

    def _normalised(self, skeletons: Tensor) -> Tensor:
        """Map (B, L, M, V, C) to (B*M, C, V, L) in channels_last."""
        rows, frames, people, joints, channels = skeletons.shape
        x = skeletons.permute(0, 2, 3, 4, 1)  # (B, M, V, C, L)
        x = self.data_bn(x.reshape(-1, self.data_bn.num_features, frames))
        x = x.reshape(rows * people, joints, channels, frames)
        return x.transpose(1, 2).contiguous(memory_format=torch.channels_last)

    def _present(self, batch: Batch, length: int) -> Tensor | None:
        """Return (B, T', M) bool: who was seen in one of the frames of a segment."""
        if self.pooling != "masked" or batch.present is None:
            return None
        missing = 4 * length - batch.present.shape[1]
        padded = F.pad(batch.present, (0, 0, 0, missing))
        return padded.unflatten(1, (length, 4)).any(dim=2)


def _after_strides(frames: int) -> int:
    for _, stride in BLOCKS:
        frames = -(-frames // stride)
    return frames
