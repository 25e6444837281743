"""Skeleton encoders: what they read, and what must not matter."""

import pytest
import torch

from errors import InputError
from models.pose_encoders import POSE_ENCODERS, PoseConv1d, PoseGCN
from ops.batch import Batch
from ops.skeleton import COCO17


def keypoints(people: int = 1) -> torch.Tensor:
    """Two clips of three segments, every joint detected."""
    torch.manual_seed(0)
    return torch.cat([torch.randn(2, 3, people, 17, 2), torch.ones(2, 3, people, 17, 1)], dim=-1)


@pytest.fixture(params=POSE_ENCODERS)
def encoder(request):
    torch.manual_seed(1)
    return POSE_ENCODERS[request.param]()


def test_features(encoder):
    features = encoder(Batch(keypoints=keypoints()))
    assert features.shape == (2, 3, encoder.feature_dim) == (2, 3, 128)


def test_undetected_joints_count_as_zero_whatever_they_hold(encoder):
    clean = keypoints()
    clean[0, 1, 0, 5:9] = 0
    dirty = clean.clone()
    dirty[0, 1, 0, 5, :2] = 1e6
    dirty[0, 1, 0, 6, :2] = torch.nan
    assert torch.equal(encoder(Batch(keypoints=clean)), encoder(Batch(keypoints=dirty)))


def test_segments_without_anybody_are_masked(encoder):
    points = keypoints()
    points[1, 2] = 0
    mask = encoder.segment_mask(Batch(keypoints=points))
    assert mask.tolist() == [[True, True, True], [True, True, False]]
    assert encoder(Batch(keypoints=points)).isfinite().all()


def test_only_the_first_person_is_read(encoder):
    two = keypoints(people=2)
    other = two.clone()
    other[:, :, 1] = 7
    assert torch.equal(encoder(Batch(keypoints=two)), encoder(Batch(keypoints=other)))
    other[:, :, 0, 0, 0] += 1
    assert not torch.equal(encoder(Batch(keypoints=two)), encoder(Batch(keypoints=other)))


def test_defect_32_segments_are_encoded_each_for_itself(encoder):
    # Time is left to the average of the classifier; here that is said and tested.
    points = keypoints()
    order = [2, 0, 1]
    features = encoder(Batch(keypoints=points))
    moved = encoder(Batch(keypoints=points[:, order]))
    assert torch.allclose(moved, features[:, order], atol=1e-6)


def test_conv1d_mixes_neighbours_in_the_list_of_joints():
    # Two convolutions of 3 taps: joint 0 reaches joints 0, 1, 2 of the flattened features.
    encoder, reached = PoseConv1d(), []
    encoder.fc.register_forward_pre_hook(lambda _, inputs: reached.append(inputs[0]))
    points = keypoints()
    encoder(Batch(keypoints=points))
    points[..., 0, 0] += 1
    encoder(Batch(keypoints=points))
    changed = (reached[0] != reached[1]).view(6, 64, 17).any(dim=1).any(dim=0)
    assert changed.nonzero().flatten().tolist() == [0, 1, 2]


def test_gcn_equals_its_formula():
    encoder = PoseGCN()
    points = keypoints()
    points[0, 0, 0, 3:] = 0
    xy, seen = points[0, 0, 0, :, :2], points[0, 0, 0, :, 2] > 0
    graph = encoder.adjacency
    hidden = (graph @ (xy @ encoder.gc1.weight.T + encoder.gc1.bias)).relu()
    hidden = (graph @ (hidden @ encoder.gc2.weight.T + encoder.gc2.bias)).relu()
    features = encoder(Batch(keypoints=points))
    assert torch.allclose(features[0, 0], hidden[seen].mean(dim=0), atol=1e-6)


def test_gcn_adjacency_has_the_bones_and_is_no_weight():
    encoder = PoseGCN()
    linked = {(i, j) for i, j in encoder.adjacency.nonzero().tolist() if i < j}
    assert linked == {tuple(sorted(edge)) for edge in COCO17.edges}
    assert "adjacency" not in encoder.state_dict()


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (None, "no keypoints"),
        (torch.zeros(2, 3, 1, 25, 3), "V = 17 joints"),
        (torch.zeros(2, 3, 0, 17, 3), "M >= 1 people"),
        (torch.zeros(2, 3, 17, 3), r"the keypoints are \(2, 3, 17, 3\)"),
        (torch.zeros(2, 3, 1, 17, 2), r"\(B, T, M, V, 3\)"),
    ],
)
def test_wrong_keypoints(encoder, points, reason):
    with pytest.raises(InputError, match=reason):
        encoder(Batch(frames=torch.zeros(1), keypoints=points))
