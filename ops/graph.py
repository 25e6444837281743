"""Graphs of joints as matrices, and features that travel along them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ops.skeleton import Edges, SkeletonLayout


def normalized_adjacency(edges: Sequence[tuple[int, int]], num_joints: int) -> Tensor:
    """Build D^-1/2 (A + I) D^-1/2 of an undirected skeleton.

    Args:
        edges: pairs of joint indices; direction and repetition do not matter.
        num_joints: V.

    Returns:
        (V, V) float32, symmetric; D holds the row sums of A + I.

    Raises:
        ValueError: an edge names a joint outside [0, V).

    Source: Kipf and Welling 2017, arXiv:1609.02907, equation 2.
    """
    adjacency = torch.eye(num_joints)
    for first, second in edges:
        if not (0 <= first < num_joints and 0 <= second < num_joints):
            raise ValueError(f"edge ({first}, {second}) leaves the {num_joints} joints")
        adjacency[first, second] = adjacency[second, first] = 1
    scale = adjacency.sum(dim=1).rsqrt()
    return scale[:, None] * adjacency * scale


# ---------------------------------------------------------------- stacks of published models


def adjacency_stack(
    layout: SkeletonLayout,
    mode: str,
    *,
    max_hop: int = 1,
    num_filter: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Build the graphs that a skeleton model convolves over.

    An edge from joint i to joint j is the entry [j, i]; each column is divided by its sum, and
    features travel as y[w] = sum over v of x[v] A[v, w].

    Args:
        layout: V joints, their inward edges and their centre.
        mode: "spatial": each joint itself, its children, its parent (2s-AGCN, AAGCN, ST-GCN++,
            CTR-GCN). "stgcn_spatial": each joint itself, then for each distance of hops the
            neighbours that are nearer to the centre, or as near, and those further away (ST-GCN).
            "binary_adj": all neighbours, not normalised (MS-G3D). "random": small positive
            numbers to learn from (DG-STGCN).
        max_hop: the furthest neighbours of "stgcn_spatial"; the others know direct ones alone.
        num_filter: K of "random".
        generator: draws "random"; None takes torch's own.

    Returns:
        (K, V, V) float32; K is 3, 1 + 2 max_hop, 1 and `num_filter`.

    Raises:
        ValueError: there is no such mode, the layout has no graph, or a count is below 1.

    Source: Yan et al. 2018, arXiv:1801.07455, section 3.3, and Shi et al. 2019,
        arXiv:1805.07694, section 3.3, as published weights have them.
    """
    if not layout.inward:
        raise ValueError(f"the layout {layout.name} has no inward edges: there is no graph")
    if max_hop < 1 or num_filter < 1:
        raise ValueError(f"max_hop and num_filter are {max_hop} and {num_filter}, below 1")
    if mode == "random":
        drawn = torch.randn(num_filter, len(layout), len(layout), generator=generator)
        return drawn * 0.02 + 0.04
    if mode == "spatial":
        stack = _by_direction(layout)
    elif mode == "stgcn_spatial":
        stack = _by_distance(layout, max_hop)
    elif mode == "binary_adj":
        stack = (
            _adjacency(layout.inward, len(layout)) + _adjacency(_outward(layout), len(layout))
        )[None]
    else:
        raise ValueError(
            f"there is no graph {mode!r}: choose from spatial, stgcn_spatial, binary_adj, random"
        )
    return torch.from_numpy(stack.astype(np.float32))


def _outward(layout: SkeletonLayout) -> Edges:
    return tuple((parent, child) for child, parent in layout.inward)


def _adjacency(edges: Edges, num_joints: int) -> np.ndarray:
    matrix = np.zeros((num_joints, num_joints))
    for source, target in edges:
        matrix[target, source] = 1
    return matrix


def _columns_normalised(matrix: np.ndarray) -> np.ndarray:
    sums = matrix.sum(axis=0)
    return np.divide(matrix, sums, out=np.zeros_like(matrix), where=sums > 0)


def _by_direction(layout: SkeletonLayout) -> np.ndarray:
    num_joints = len(layout)
    inward = _columns_normalised(_adjacency(layout.inward, num_joints))
    outward = _columns_normalised(_adjacency(_outward(layout), num_joints))
    return np.stack([np.eye(num_joints), inward, outward])


def _hops(layout: SkeletonLayout, most: int) -> np.ndarray:
    """Return (V, V): how many edges lie between two joints, infinite beyond `most`."""
    num_joints = len(layout)
    both = _adjacency(layout.inward, num_joints) + _adjacency(_outward(layout), num_joints)
    hops = np.full((num_joints, num_joints), np.inf)
    walks = np.eye(num_joints)
    for distance in range(most + 1):
        hops[(walks > 0) & np.isinf(hops)] = distance
        walks = ((walks @ both) > 0).astype(float)
    return hops


def _by_distance(layout: SkeletonLayout, max_hop: int) -> np.ndarray:
    hops = _hops(layout, max_hop)
    near = _columns_normalised((hops <= max_hop).astype(float))
    # Published: how far the centre is was counted to max_hop too. What lies beyond is infinitely
    # far, and as far as everything else out there: it counts as nearer, never as further away.
    to_centre = hops[:, layout.centre]
    is_nearer = to_centre[:, None] >= to_centre[None, :]
    stack = [np.where(hops == 0, near, 0)]
    for distance in range(1, max_hop + 1):
        at_distance = np.where(hops == distance, near, 0)
        stack += [np.where(is_nearer, at_distance, 0), np.where(is_nearer, 0, at_distance)]
    return np.stack(stack)


# ---------------------------------------------------------------- features along graphs


def along_graph(x: Tensor, graph: Tensor, total: Tensor | None = None) -> Tensor:
    """Let features travel along a graph: y[w] = sum over v of x[v] A[v, w].

    One matrix product of (V, V) by (V, T*C) a sample: in the memory layout that the models of the
    zoo keep, (N, V, T, C), both are there without a copy.

    Args:
        x: (N, C, V, T), best in channels_last.
        graph: (V, W), or (N, V, W) with a graph for each sample.
        total: (N, C, W, T) in channels_last that is added to, in place; None for nothing.

    Returns:
        (N, C, W, T) in channels_last.
    """
    rows = x.permute(0, 2, 3, 1).flatten(2)  # (N, V, T*C)
    reverse = graph.transpose(-1, -2).to(x.dtype).expand(x.shape[0], -1, -1)  # (N, W, V)
    if total is None:
        y = torch.bmm(reverse, rows)
    else:
        y = total.permute(0, 2, 3, 1).flatten(2).baddbmm_(reverse, rows)
    return y.unflatten(2, (x.shape[3], x.shape[1])).permute(0, 3, 1, 2)
