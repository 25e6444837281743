"""ST-GCN: convolutions over the graph of the joints, then over time.

Source: Yan et al. 2018, "Spatial Temporal Graph Convolutional Networks for Skeleton-Based Action
Recognition", arXiv:1801.07455.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.skeleton.trunk import SkeletonGCN
from ops.graph import along_graph
from ops.skeleton import SkeletonLayout
from ops.temporal import TemporalConv


class GraphConv(nn.Module):
    """Every joint gathers what its neighbours say, with own weights for each kind of neighbour.

    f_out = ReLU(BN(sum over k of (W_k f_in + b_k) A_k + way around)).

    Args:
        in_channels: C.
        out_channels: C'.
        num_graphs: K, kinds of neighbours.

    Source: section 3.3, equation 10.
    """

    def __init__(self, in_channels: int, out_channels: int, num_graphs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels * num_graphs, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def graphs(self) -> Tensor:
        """Return (K, V, V), the strength of each connection."""
        raise NotImplementedError

    def around(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return what goes past the convolution, (N, C', V, T); None for nothing."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C', V, T)."""
        y = self.bn(self._gathered(x, self.graphs()))
        around = self.around(x)
        return torch.relu(y) if around is None else torch.relu_(y + around)

    def _gathered(self, x: Tensor, graphs: Tensor) -> Tensor:
        weights = self.conv.weight.unflatten(0, (len(graphs), -1))  # (K, C', C, 1, 1)
        assert self.conv.bias is not None
        biases = self.conv.bias.view(len(graphs), -1)  # (K, C')
        if len(graphs) * x.shape[1] < weights.shape[1]:
            # The same sum with the few channels of the input gathered, not the many behind W.
            gathered = torch.cat([along_graph(x, graph) for graph in graphs], dim=1)
            bias = biases.T @ graphs.sum(dim=1)  # (C', V)
            return F.conv2d(gathered, weights.transpose(0, 1).flatten(1, 2)) + bias[..., None]
        y = None
        for weight, bias, graph in zip(weights, biases, graphs, strict=True):
            y = along_graph(F.conv2d(x, weight, bias), graph, y)
        assert y is not None
        return y


class ImportanceGraphConv(GraphConv):
    """A fixed graph whose edges have a learned importance: A * PA.

    Source: section 3.4, "learnable edge importance weighting".
    """

    def __init__(self, in_channels: int, out_channels: int, graphs: Tensor) -> None:
        super().__init__(in_channels, out_channels, len(graphs))
        self.register_buffer("A", graphs.clone())
        self.A: Tensor
        self.PA = nn.Parameter(torch.ones_like(graphs))

    def graphs(self) -> Tensor:
        """Return (K, V, V), the strength of each connection."""
        return self.A * self.PA


class STGCN(SkeletonGCN):
    """ST-GCN, its kinds of neighbours by the distance to the centre of the body.

    Args:
        layout: the joints and their graph.
        in_channels: C, 3 for each stream.
        num_people: M as published; here any number of people will do.
        pooling: "mean" or "masked", see `SkeletonGCN`.
        dropout: after each convolution over time but the first; 0.5 in the first publication, 0
            in later ones.
    """

    graph = "stgcn_spatial"

    def __init__(
        self,
        layout: SkeletonLayout,
        in_channels: int = 3,
        num_people: int = 2,
        pooling: str = "mean",
        *,
        dropout: float = 0.0,
    ) -> None:
        self._dropout = dropout  # the blocks are made with it
        super().__init__(layout, in_channels, num_people, pooling)

    def spatial_unit(self, in_channels: int, out_channels: int, graphs: Tensor) -> nn.Module:
        """Make a graph convolution whose edges have a learnt importance."""
        return ImportanceGraphConv(in_channels, out_channels, graphs)

    def temporal_unit(self, channels: int, stride: int, is_first: bool) -> nn.Module:
        """Make a convolution over nine frames."""
        dropout = 0.0 if is_first else self._dropout
        return TemporalConv(channels, channels, stride=stride, dropout=dropout)
