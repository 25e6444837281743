"""The adjacency of a skeleton."""

import numpy as np
import pytest
import torch

from ops.graph import normalized_adjacency
from ops.skeleton import COCO17


def test_equals_the_formula():
    edges = [(0, 1), (1, 2), (1, 3)]
    plain = np.eye(4)
    for i, j in edges:
        plain[i, j] = plain[j, i] = 1
    scale = np.diag(plain.sum(axis=1) ** -0.5)
    expected = torch.from_numpy((scale @ plain @ scale).astype(np.float32))
    assert torch.allclose(normalized_adjacency(edges, 4), expected)


def test_direction_order_and_repetition_of_edges_do_not_matter():
    edges = list(COCO17.edges)
    reversed_twice = [(j, i) for i, j in reversed(edges)] * 2
    once = normalized_adjacency(edges, 17)
    assert torch.equal(once, normalized_adjacency(reversed_twice, 17))
    assert torch.equal(once, once.T)


def test_no_signal_grows():
    # The largest eigenvalue of the normalised adjacency with self loops is exactly 1.
    eigenvalues = torch.linalg.eigvalsh(normalized_adjacency(COCO17.edges, 17))
    assert eigenvalues.max() == pytest.approx(1, abs=1e-5)
    assert eigenvalues.min() > -1


def test_an_edge_to_a_joint_that_is_not_there():
    with pytest.raises(ValueError, match=r"edge \(0, 4\) leaves the 4 joints"):
        normalized_adjacency([(0, 4)], 4)
