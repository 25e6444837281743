"""2s-AGCN and AAGCN: each clip has graphs of its own; AAGCN attends to joints, frames, channels.

Sources: Shi et al. 2019, "Two-Stream Adaptive Graph Convolutional Networks for Skeleton-Based
Action Recognition", arXiv:1805.07694, section 4; Shi et al. 2020, "Skeleton-Based Action
Recognition with Multi-Stream Adaptive Graph Convolutional Networks", arXiv:1912.06971, section 3.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.skeleton.stgcnpp import way_around
from models.skeleton.trunk import SkeletonGCN
from ops.graph import along_graph
from ops.temporal import TemporalConv, init_conv


class AdaptiveGraphConv(nn.Module):
    """Graph convolution over a learned graph plus one of how alike joints move in this clip.

    f_out = ReLU(BN(sum over k of W_k f_in (A_k + alpha S_k)) + way around), with
    S_k = tanh(a_k(f_in)^T b_k(f_in) / (E T)).

    Args:
        in_channels: C.
        out_channels: C'.
        graphs: (K, V, V), where the learned graph begins.
        attention: whether joints, frames and channels are weighted afterwards (AAGCN).

    Source: arXiv:1912.06971, section 3.2, equation 3.
    """

    def __init__(
        self, in_channels: int, out_channels: int, graphs: Tensor, *, attention: bool
    ) -> None:
        super().__init__()
        embedded = out_channels // 4  # E
        self.A = nn.Parameter(graphs.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.conv_a = _convs(len(graphs), in_channels, embedded)
        self.conv_b = _convs(len(graphs), in_channels, embedded)
        self.conv_d = _convs(len(graphs), in_channels, out_channels)
        for conv in self.conv_d:
            deviation = math.sqrt(2 / (out_channels * in_channels * len(graphs)))
            nn.init.normal_(conv.weight, std=deviation)  # type: ignore[arg-type]
        self.down = way_around(in_channels, out_channels)
        if isinstance(self.down, nn.Sequential):
            init_conv(self.down[0])  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, 1e-6)  # at first a block is its way around
        self.attends = attention
        if attention:
            self._add_attention(out_channels, graphs.shape[1])

    def _add_attention(self, channels: int, joints: int) -> None:
        span = joints - 1 + joints % 2  # odd, so that the middle joint has a middle
        self.conv_sa = nn.Conv1d(channels, 1, span, padding=span // 2)
        self.conv_ta = nn.Conv1d(channels, 1, 9, padding=4)
        self.fc1c = nn.Linear(channels, channels // 2)
        self.fc2c = nn.Linear(channels // 2, channels)
        nn.init.xavier_normal_(self.conv_sa.weight)
        nn.init.kaiming_normal_(self.fc1c.weight)
        for weight in (self.conv_ta.weight, self.fc2c.weight):
            nn.init.zeros_(weight)
        for layer in (self.conv_sa, self.conv_ta, self.fc1c, self.fc2c):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C', V, T)."""
        graphs = self.A + self.alpha * self._likeness(x)  # (N, K, V, V)
        y: Tensor | None = None
        for conv, graph in zip(self.conv_d, graphs.unbind(1), strict=True):
            part = conv(along_graph(x, graph))
            y = part if y is None else y + part
        assert y is not None
        y = torch.relu_(self.bn(y) + self.down(x))
        return self._attended(y) if self.attends else y

    def _likeness(self, x: Tensor) -> Tensor:
        """Return S (N, K, V, V)."""
        first, second = (_embedded(x, convs) for convs in (self.conv_a, self.conv_b))
        return torch.tanh(first @ second.transpose(2, 3) / first.shape[3])

    def _attended(self, y: Tensor) -> Tensor:
        """Weight joints, then frames, then channels.

        Source: arXiv:1912.06971, section 3.3, equations 5 to 7.
        """
        joints = torch.sigmoid(self.conv_sa(y.mean(dim=3)))  # (N, 1, V)
        y = y * (1 + joints[..., None])
        frames = torch.sigmoid(self.conv_ta(y.mean(dim=2)))  # (N, 1, T)
        y = y * (1 + frames[:, :, None])
        channels = torch.sigmoid(self.fc2c(F.relu(self.fc1c(y.mean(dim=(2, 3))))))  # (N, C)
        return y * (1 + channels[..., None, None])


def _convs(count: int, in_channels: int, out_channels: int) -> nn.ModuleList:
    convs = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in range(count))
    for conv in convs:
        init_conv(conv)  # type: ignore[arg-type]
    return convs


def _embedded(x: Tensor, convs: nn.ModuleList) -> Tensor:
    """Return (N, K, V, T*E): what K embeddings say of each joint, over all frames."""
    weight = torch.cat([conv.weight for conv in convs])  # type: ignore[misc]
    bias = torch.cat([conv.bias for conv in convs])  # type: ignore[misc]
    y = F.conv2d(x, weight, bias).unflatten(1, (len(convs), -1))  # (N, K, E, V, T)
    return y.permute(0, 1, 3, 4, 2).flatten(3)


class AGCN(SkeletonGCN):
    """One stream of 2s-AGCN.

    Args:
        layout: the joints and their graph.
        in_channels: C, 3 for each stream.
        num_people: M, each with batch norm of its own: a batch must have exactly as many.
        pooling: "mean" or "masked", see `SkeletonGCN`.
    """

    norms_people = True
    keeps_graph = True
    attends = False

    def spatial_unit(self, in_channels: int, out_channels: int, graphs: Tensor) -> nn.Module:
        """Make a graph convolution whose graph is learnt, and depends on the data."""
        return AdaptiveGraphConv(in_channels, out_channels, graphs, attention=self.attends)

    def temporal_unit(self, channels: int, stride: int, is_first: bool) -> nn.Module:  # noqa: ARG002
        """Make a convolution over nine frames."""
        return TemporalConv(channels, channels, stride=stride)


class AAGCN(AGCN):
    """AAGCN: AGCN with attention to joints, frames and channels."""

    attends = True
