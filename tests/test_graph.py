"""The adjacency of a skeleton."""

import numpy as np
import pytest
import torch

from ops.conversion import find_layout, layout_from
from ops.graph import adjacency_stack, along_graph, normalized_adjacency
from ops.skeleton import COCO17, JHMDB15, LAYOUTS, SkeletonLayout
from tests.golden_zoo import FOLDER, needs_golden


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


# ---------------------------------------------------------------- stacks of published models

GRAPHS = FOLDER / "graphs.npz"
CHECKSUMS = {
    ("coco", "spatial"): ((17, 16, 16), 2018.75),
    ("coco", "stgcn_spatial"): ((17, 22, 10), 841.016667),
    ("nturgb+d", "spatial"): ((25, 24, 24), 3479.5),
    ("nturgb+d", "stgcn_spatial"): ((25, 40, 8), 1124.466667),
    ("openpose", "spatial"): ((18, 17, 17), 2315.333333),
    ("openpose", "stgcn_spatial"): ((18, 25, 9), 940.916667),
}
# A chain: 0 - 1 - 2 - 3, its centre at 1.
CHAIN = layout_from({"num_node": 4, "inward": [[0, 1], [2, 1], [3, 2]], "center": 1})


@pytest.mark.parametrize(("name", "mode"), CHECKSUMS)
def test_stacks_have_the_published_checksums(name, mode):
    counts, checksum = CHECKSUMS[name, mode]
    stack = adjacency_stack(find_layout(name), mode)
    assert stack.dtype == torch.float32
    assert tuple((stack != 0).sum(dim=(1, 2)).tolist()) == counts
    values = stack.double().numpy().ravel()
    assert (values * (np.arange(values.size) % 97 + 1)).sum() == pytest.approx(checksum, rel=1e-6)


@needs_golden
@pytest.mark.parametrize(("name", "mode"), CHECKSUMS)
def test_stacks_are_the_published_ones(name, mode):
    with np.load(GRAPHS) as graphs:
        expected = torch.from_numpy(graphs[f"{name}|{mode}"].astype(np.float32))
    assert torch.equal(adjacency_stack(find_layout(name), mode), expected)


def test_spatial_is_itself_parent_and_children():
    itself, inward, outward = adjacency_stack(CHAIN, "spatial")
    assert torch.equal(itself, torch.eye(4))
    assert inward[1].tolist() == [1, 0, 1, 0]
    assert outward[:, 1].tolist() == [0.5, 0, 0.5, 0]


def test_distance_is_counted_to_max_hop():
    near = adjacency_stack(CHAIN, "stgcn_spatial")
    assert near[0].diagonal().tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 3, 1 / 2])
    # Joint 2 hears joint 1, which is nearer to the centre. Joint 3 is infinitely far from the
    # centre: it counts as nearer wherever it does not listen to what is nearer.
    assert near[1][2, 1] > 0
    assert near[2][1, 2] > 0
    assert near[1][3, 2] > 0
    assert near[2][2, 3] > 0
    far = adjacency_stack(CHAIN, "stgcn_spatial", max_hop=2)
    assert far.shape == (5, 4, 4)
    assert torch.allclose(far.sum(dim=(0, 1)), torch.ones(4))
    assert far[3:].sum(dim=0)[0, 2] > 0


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_every_layout_has_every_graph(layout):
    for mode in ("spatial", "stgcn_spatial"):
        stack = adjacency_stack(layout, mode)
        assert stack.shape == (3, len(layout), len(layout))
        assert torch.isfinite(stack).all()
        # Every column is divided by its sum.
        sums = stack.sum(dim=(0, 1)) if mode == "stgcn_spatial" else stack[2].sum(dim=0)
        assert ((sums - 1).abs() < 1e-6).logical_or(sums == 0).all()
    binary = adjacency_stack(layout, "binary_adj")
    assert binary.shape[0] == 1
    assert torch.equal(binary[0], binary[0].T)


def test_random_graphs_are_drawn_by_their_generator():
    def draw():
        generator = torch.Generator().manual_seed(3)
        return adjacency_stack(JHMDB15, "random", num_filter=50, generator=generator)

    assert draw().shape == (50, 15, 15)
    assert torch.equal(draw(), draw())
    assert draw().mean() == pytest.approx(0.04, abs=1e-3)
    assert draw().std() == pytest.approx(0.02, abs=1e-3)


@pytest.mark.parametrize(
    ("layout", "mode", "choices", "message"),
    [
        (COCO17, "star", {}, "no graph 'star'"),
        (SkeletonLayout("dots", ("a", "b"), (), ()), "spatial", {}, "dots has no inward edges"),
        (COCO17, "stgcn_spatial", {"max_hop": 0}, "below 1"),
        (COCO17, "random", {"num_filter": 0}, "below 1"),
    ],
)
def test_graphs_that_cannot_be(layout, mode, choices, message):
    with pytest.raises(ValueError, match=message):
        adjacency_stack(layout, mode, **choices)


@pytest.mark.parametrize("per_sample", [False, True])
def test_features_travel_from_v_to_w(per_sample):
    generator = torch.Generator().manual_seed(0)
    x, total = (torch.randn(3, 6, 5, 7, generator=generator) for _ in range(2))
    graph = torch.rand((3, 5, 5) if per_sample else (5, 5), generator=generator)
    expected = torch.einsum("ncvt,nvw->ncwt", x, graph.expand(3, 5, 5))
    last = {"memory_format": torch.channels_last}
    for given in (x, x.contiguous(**last)):
        y = along_graph(given, graph)
        assert torch.allclose(y, expected, atol=1e-5)
        assert y.is_contiguous(**last)
    added = along_graph(x, graph, total.contiguous(**last))
    assert torch.allclose(added, expected + total, atol=1e-5)


def test_a_layout_may_say_that_it_has_no_sides():
    joints = ["middle", "left_hand", "right_hand"]
    described = {"joints": joints, "inward": [[1, 0], [2, 0]], "center": 0}
    assert layout_from(described).flip_pairs == ((1, 2),)
    assert layout_from({**described, "flip_pairs": []}).flip_pairs == ()
