"""Skeletons in three dimensions: `ops.pose_space.prenormalize_3d`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ops.conversion import layout_from
from ops.pose_space import detected, prenormalize_3d
from ops.skeleton import COCO17, NTU25

HIP, SPINE, LEFT, RIGHT = 0, 1, 4, 8
CLOSE = 1e-5


def bodies(people=2, frames=5, seed=0, joints=25):
    """Return (N, M, V, 4) joints around a place in front of a camera."""
    rng = np.random.default_rng(seed)
    tracks = np.ones((frames, people, joints, 4), np.float32)
    tracks[..., :3] = rng.normal((1, 2, 3), 0.5, (frames, people, joints, 3))
    return tracks


def distances(points):
    flat = points[..., :3].reshape(len(points), -1, 3).astype(np.float64)
    return np.linalg.norm(flat[:, :, None] - flat[:, None], axis=-1)


@given(seed=st.integers(0, 999), people=st.integers(1, 3), frames=st.integers(1, 4))
def test_upright_at_the_origin_and_of_the_same_shape(seed, people, frames):
    tracks = bodies(people, frames, seed)
    found = prenormalize_3d(tracks)
    assert found.shape == tracks.shape
    first = found[0, 0, :, :3].astype(np.float64)
    assert not first[SPINE].any()
    shoulders = first[RIGHT] - first[LEFT]
    assert np.abs(shoulders[1:]).max() < CLOSE
    assert shoulders[0] > 0
    assert np.allclose(distances(found), distances(tracks), atol=1e-4)
    assert np.array_equal(found[..., 3], tracks[..., 3])


def test_two_turns_each_the_smallest_one():
    """The spine to z first; then the shoulders, as they then lie, to x."""
    tracks = bodies()
    points = tracks[..., :3].astype(np.float64) - tracks[0, 0, SPINE, :3]
    for start, end, target in ((HIP, SPINE, (0, 0, 1)), (LEFT, RIGHT, (1, 0, 0))):
        vector = points[0, 0, end] - points[0, 0, start]
        axis = np.cross(vector, target)
        angle = np.arccos(vector @ target / np.linalg.norm(vector))
        points = points @ Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix().T
        turned = points[0, 0, end] - points[0, 0, start]
        assert np.allclose(turned, np.linalg.norm(vector) * np.array(target))
    assert np.abs(prenormalize_3d(tracks)[..., :3] - points).max() < CLOSE


def test_the_person_seen_longer_comes_first_and_frames_without_it_go():
    tracks = bodies(frames=6)
    tracks[[0, 3, 4], 0] = 0
    tracks[2, 1] = 0
    found = prenormalize_3d(tracks)
    assert found.shape[0] == 5
    assert np.array_equal(detected(found).any(-1)[:, 1], [False, True, False, False, True])
    assert np.allclose(distances(found[:, :1]), distances(tracks[[0, 1, 3, 4, 5], 1:]), atol=1e-4)
    tracks = bodies(people=3, frames=6)
    tracks[:3, :2] = 0
    assert len(prenormalize_3d(tracks)) == 6
    tracks = bodies(frames=6)
    tracks[0] = 0  # equally long: the first stays the first
    assert np.allclose(distances(prenormalize_3d(tracks)), distances(tracks[1:]), atol=1e-4)


def test_joints_not_detected_stay_so_and_nobody_stays_nobody():
    tracks = bodies()
    tracks[2, 0, 7] = tracks[:, 1, 9] = 0
    found = prenormalize_3d(tracks)
    assert not found[2, 0, 7].any()
    assert not found[:, 1, 9].any()
    assert detected(found).sum() == detected(tracks).sum()  # also the spine's, at the origin
    nobody = np.zeros((4, 2, 25, 4), np.float32)
    assert np.array_equal(prenormalize_3d(nobody), nobody)
    assert prenormalize_3d(nobody[:, :0]).shape == (4, 0, 25, 4)


@pytest.mark.parametrize("joints", [(HIP, SPINE), (LEFT, RIGHT), (HIP, SPINE, LEFT, RIGHT)])
def test_an_axis_without_a_length_turns_nothing(joints):
    tracks = bodies()
    tracks[0, 0, joints] = tracks[0, 0, joints[0]]
    found = prenormalize_3d(tracks)
    assert np.isfinite(found).all()
    assert np.allclose(distances(found), distances(tracks), atol=1e-4)
    if len(joints) == 4:
        assert np.allclose(found[..., :3], tracks[..., :3] - tracks[0, 0, SPINE, :3], atol=CLOSE)


def test_who_already_stands_or_stands_on_the_head_is_not_turned():
    for sign in (1, -1):
        tracks = bodies()
        tracks[0, 0, HIP, :3], tracks[0, 0, SPINE, :3] = (0, 0, 1), (0, 0, 1 + sign)
        tracks[0, 0, LEFT, :3], tracks[0, 0, RIGHT, :3] = (2, 2, 2), (2 + sign, 2, 2)
        found = prenormalize_3d(tracks)
        assert np.allclose(found[..., :3], tracks[..., :3] - (0, 0, 1 + sign), atol=CLOSE)


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 2e-6])
def test_almost_on_the_head_keeps_the_shape(gap):
    tracks = bodies()
    tracks[0, 0, HIP, :3], tracks[0, 0, SPINE, :3] = (0, 0, 1), (gap, 0, 0)
    found = prenormalize_3d(tracks)
    assert np.allclose(distances(found), distances(tracks), atol=1e-4)


def test_layouts_of_other_joints():
    torso = layout_from(
        {
            "joints": ["left_shoulder", "right_shoulder", "left_hip", "right_hip", "head"],
            "inward": [[0, 4], [1, 4], [2, 0], [3, 1]],
            "center": 4,
            "shoulders": [0, 1],
            "hips": [2, 3],
            "dims": 3,
        }
    )
    tracks = bodies(joints=5)
    first = prenormalize_3d(tracks, torso)[0, 0, :, :3]
    assert np.abs(first[[2, 3]].mean(0)).max() < CLOSE  # between the hips
    assert np.abs((first[1] - first[0])[1:]).max() < CLOSE
    plain = layout_from({"num_node": 5, "inward": [[0, 4]], "center": 4, "dims": 3})
    found = prenormalize_3d(tracks, plain)
    assert np.allclose(found[..., :3], tracks[..., :3] - tracks[0, 0, 4, :3], atol=CLOSE)


def test_tracks_that_do_not_fit_are_refused():
    for tracks in (np.ones((3, 1, 17, 4)), np.ones((3, 1, 25, 3))):
        with pytest.raises(ValueError, match="ntu25 takes"):
            prenormalize_3d(tracks)
    with pytest.raises(ValueError, match="coco17 takes"):
        prenormalize_3d(np.ones((3, 1, 17, 3)), COCO17)
    assert prenormalize_3d(np.ones((3, 1, 25, 4), np.float16), NTU25).dtype == np.float32
