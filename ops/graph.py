"""Graphs of joints as matrices."""

from collections.abc import Sequence

import torch
from torch import Tensor


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
