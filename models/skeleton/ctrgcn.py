"""CTR-GCN: every channel has a graph of its own, refined from a shared one.

Source: Chen et al. 2021, "Channel-wise Topology Refinement Graph Convolution for Skeleton-Based
Action Recognition", arXiv:2107.12213.
"""

import torch
from torch import Tensor, nn

from models.skeleton.stgcnpp import way_around
from models.skeleton.trunk import SkeletonGCN
from ops.temporal import DilatedTCN, init_conv


class Refinement(nn.Module):
    """One graph, refined for each channel by how joints differ from each other in this clip.

    R = A + alpha xi(tanh(psi(x)_v - phi(x)_w)); z[w] = sum over v of R[v, w] W x[v]. That is the
    paper's graph with rows for columns, as in the weights of PYSKL and MMAction2.

    Args:
        in_channels: C.
        out_channels: C'.

    Source: section 3.2, equations 4 to 7: model M_1, an eighth of the channels inside.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        related = max(8, in_channels // 8)
        self.conv1 = nn.Conv2d(in_channels, related, 1)  # psi
        self.conv2 = nn.Conv2d(in_channels, related, 1)  # phi
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)  # W
        self.conv4 = nn.Conv2d(related, out_channels, 1)  # xi
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            init_conv(conv)

    def graphs(self, mean: Tensor, shared: Tensor, alpha: Tensor) -> Tensor:
        """Refine a graph.

        Args:
            mean: (N, C, V, 1), joints averaged over time.
            shared: (V, W), A[v, w]: from v to w.
            alpha: (1,), how much the clip has to say.

        Returns:
            (N, C', W, V), R[v, w] for each channel, turned for a product with features.
        """
        difference = self.conv1(mean).transpose(2, 3) - self.conv2(mean)  # (N, E, W, V)
        return self.conv4(torch.tanh(difference)) * alpha + shared.T


class RefinedGraphConv(nn.Module):
    """Graph convolution over K refined graphs, added up.

    Source: section 3.4, figure 3.
    """

    def __init__(self, in_channels: int, out_channels: int, graphs: Tensor) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Refinement(in_channels, out_channels) for _ in graphs)
        self.A = nn.Parameter(graphs.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.down = way_around(in_channels, out_channels)
        if isinstance(self.down, nn.Sequential):
            init_conv(self.down[0])  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(out_channels)
        nn.init.constant_(self.bn.weight, 1e-6)  # at first a block is its way around

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to (N, C', V, T)."""
        mean = x.mean(dim=3, keepdim=True)
        graphs = [c.graphs(mean, a, self.alpha) for c, a in zip(self._parts(), self.A, strict=True)]
        # All K at once, as one sum over (k, v): R (W, K*V) by W x (K*V, T) for each channel.
        graph = torch.stack(graphs, dim=3).flatten(3).flatten(0, 1)  # (N*C', V, K*V)
        y = torch.bmm(graph, self._transformed(x))  # (N*C', V, T)
        y = y.unflatten(0, (x.shape[0], -1)).contiguous(memory_format=torch.channels_last)
        return torch.relu_(self.bn(y) + self.down(x))

    def _parts(self) -> list[Refinement]:
        return list(self.convs)  # type: ignore[arg-type]

    def _transformed(self, x: Tensor) -> Tensor:
        """Map (N, C, V, T) to W_k x_v as (N*C', K*V, T)."""
        weight = torch.stack([conv.conv3.weight.flatten(1) for conv in self._parts()], dim=1)
        bias = torch.stack([_bias(conv.conv3) for conv in self._parts()], dim=1)  # (C', K)
        rows = x.permute(0, 2, 3, 1).flatten(1, 2).transpose(1, 2)  # (N, C, V*T)
        y = torch.baddbmm(
            bias.flatten()[:, None].to(x.dtype),
            weight.flatten(0, 1).to(x.dtype).expand(x.shape[0], -1, -1),
            rows,
        )  # (N, C'*K, V*T), in plain memory order
        return y.view(-1, len(self.convs) * x.shape[2], x.shape[3])


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


class CTRGCN(SkeletonGCN):
    """CTR-GCN.

    Args:
        layout: the joints and their graph.
        in_channels: C, 3 for each stream.
        num_people: M, each with batch norm of its own: a batch must have exactly as many.
        pooling: "mean" or "masked", see `SkeletonGCN`.
    """

    norms_people = True
    keeps_graph = True

    def spatial_unit(self, in_channels: int, out_channels: int, graphs: Tensor) -> nn.Module:
        """Make a graph convolution whose graph is refined for each channel."""
        return RefinedGraphConv(in_channels, out_channels, graphs)

    def temporal_unit(self, channels: int, stride: int, is_first: bool) -> nn.Module:  # noqa: ARG002
        """Make a convolution over four scales of time."""
        return DilatedTCN(channels, stride)
