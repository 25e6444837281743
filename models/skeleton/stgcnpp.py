"""ST-GCN++: a learned graph with a way around it, and six reaches over time.

Source: Duan et al. 2022, "PYSKL: Towards Good Practices for Skeleton Action Recognition",
arXiv:2205.09443, section 3.2.
"""

from torch import Tensor, nn

from models.skeleton.stgcn import GraphConv
from models.skeleton.trunk import SkeletonGCN
from ops.temporal import MultiScaleTCN


class LearnedGraphConv(GraphConv):
    """The graph itself is learned; it begins as that of the body."""

    def __init__(self, in_channels: int, out_channels: int, graphs: Tensor) -> None:
        super().__init__(in_channels, out_channels, len(graphs))
        self.A = nn.Parameter(graphs.clone())
        self.down = way_around(in_channels, out_channels)

    def graphs(self) -> Tensor:
        """Return (K, V, V), the strength of each connection."""
        return self.A

    def around(self, x: Tensor) -> Tensor:
        """Return (N, C', V, T), the input in as many channels as the output has."""
        return self.down(x)


def way_around(in_channels: int, out_channels: int) -> nn.Module:
    """Return the identity, or where the widths differ a 1x1 convolution and batch norm."""
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))


class STGCNPlusPlus(SkeletonGCN):
    """ST-GCN++.

    Args:
        layout: the joints and their graph.
        in_channels: C, 3 for each stream.
        num_people: M as published; here any number of people will do.
        pooling: "mean" or "masked", see `SkeletonGCN`.
    """

    def spatial_unit(self, in_channels: int, out_channels: int, graphs: Tensor) -> nn.Module:
        """Make a graph convolution whose graph is learnt."""
        return LearnedGraphConv(in_channels, out_channels, graphs)

    def temporal_unit(self, channels: int, stride: int, is_first: bool) -> nn.Module:  # noqa: ARG002
        """Make a convolution over six scales of time."""
        return MultiScaleTCN(channels, stride)
