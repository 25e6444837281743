import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.conversion import layout_from
from ops.pose_space import prenormalize_2d
from ops.skeleton import BODY18, COCO17, HAND21, JHMDB15, NTU25
from ops.streams import STREAMS, skeleton_streams

# Children and the joints that their bones begin at, as published.
PARENTS = {
    "ntu25": "0:1 1:20 2:20 3:2 4:20 5:4 6:5 7:6 8:20 9:8 10:9 11:10 12:0 13:12 14:13 15:14 16:0 "
    "17:16 18:17 19:18 20:20 21:22 22:7 23:24 24:11",
    "openpose18": "0:0 1:0 2:1 3:2 4:3 5:1 6:5 7:6 8:2 9:8 10:9 11:5 12:11 13:12 14:0 15:0 16:14 "
    "17:15",
    "coco17": "0:0 1:0 2:0 3:1 4:2 5:0 6:0 7:5 8:6 9:7 10:8 11:0 12:0 13:11 14:12 15:13 16:14",
}


def random_tracks(layout, dims=2, frames=7, people=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((frames, people, len(layout), dims + 1), np.float32) + 0.1


def test_streams_equal_the_published_arrays(golden):
    file = golden.parent / "zoo" / "transforms.npz"
    if not file.is_file():
        pytest.skip("no golden vectors of the zoo")
    with np.load(file) as arrays:
        score = arrays["anno_score"][..., None]
        tracks = np.concatenate((arrays["anno_keypoint"], score), -1).swapaxes(0, 1)
        height, width = arrays["anno_shape"]
        parts = [arrays[f"feat_{key}"].swapaxes(0, 1) for key in ("j", "b", "jm", "bm")]
    tracks = prenormalize_2d(tracks, (width, height), missing="keep")
    for name, expected in zip(STREAMS, parts, strict=True):
        assert np.abs(skeleton_streams(tracks, COCO17, [name]) - expected).max() < 1e-5, name
    together = skeleton_streams(tracks, COCO17, STREAMS)
    assert np.abs(together - np.concatenate(parts, -1)).max() < 1e-5


@pytest.mark.parametrize(("layout", "dims"), [(COCO17, 2), (BODY18, 2), (NTU25, 3)])
def test_bones_and_motion_joint_by_joint(layout, dims):
    tracks = random_tracks(layout, dims)
    bones, motion, bone_motion = (
        skeleton_streams(tracks, layout, [name]) for name in ("bone", "joint_motion", "bone_motion")
    )
    pairs = [[int(part) for part in pair.split(":")] for pair in PARENTS[layout.name].split()]
    assert len(pairs) == len(layout)
    for child, parent in pairs:
        expected = tracks[:, :, child, :3] - tracks[:, :, parent, :3]
        if dims == 2:
            expected[..., 2] = (tracks[:, :, child, 2] + tracks[:, :, parent, 2]) / 2
        assert np.allclose(bones[:, :, child], expected, atol=1e-6)
    for values, moved in ((tracks[..., :3], motion), (bones, bone_motion)):
        for frame in range(len(tracks) - 1):
            expected = values[frame + 1] - values[frame]
            if dims == 2:
                expected[..., 2] = (values[frame + 1][..., 2] + values[frame][..., 2]) / 2
            assert np.allclose(moved[frame], expected, atol=1e-6)
        assert not moved[-1].any()


@pytest.mark.parametrize("layout", [COCO17, HAND21, JHMDB15])
def test_nobody_moves_in_a_clip_that_stands_still(layout):
    tracks = np.repeat(random_tracks(layout, frames=1), 5, axis=0)
    for name in ("joint_motion", "bone_motion"):
        assert not skeleton_streams(tracks, layout, [name])[..., :2].any()


def test_bones_do_not_see_where_the_body_is_and_motion_does_not_see_where_it_was():
    tracks = random_tracks(COCO17)
    away = tracks + np.float32((3, -2, 0))
    for name in STREAMS[1:]:
        near, far = (skeleton_streams(t, COCO17, [name]) for t in (tracks, away))
        assert np.allclose(near, far, atol=1e-5), name


@given(
    frames=st.integers(1, 6),
    people=st.integers(0, 3),
    dims=st.sampled_from((2, 3)),
    dtype=st.sampled_from((np.float16, np.float32, np.float64)),
    streams=st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4),
)
def test_any_shape_any_streams(frames, people, dims, dtype, streams):
    layout = layout_from({"num_node": 3, "inward": [[1, 0], [2, 1]], "center": 0, "dims": dims})
    tracks = random_tracks(layout, dims, frames, people).astype(dtype)
    before = tracks.copy()
    for missing in ("keep", "zero"):
        found = skeleton_streams(tracks, layout, streams, missing)
        assert found.shape == (frames, people, 3, 3 * len(streams))
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        found[:] = 9
        assert np.array_equal(tracks, before)
    # Differences are not rounded to the precision of what comes in.
    exact = skeleton_streams(tracks.astype(np.float32), layout, streams)
    assert np.array_equal(skeleton_streams(tracks, layout, streams), exact)
    # Views that do not lie in one piece are taken as well.
    wide = np.repeat(tracks, 2, axis=0)[::2]
    assert np.array_equal(
        skeleton_streams(wide, layout, streams), skeleton_streams(before, layout, streams)
    )


@pytest.mark.parametrize(("layout", "dims"), [(COCO17, 2), (NTU25, 3)])
def test_joints_not_detected_neither_have_bones_nor_move_if_asked(layout, dims):
    tracks = random_tracks(layout, dims)
    tracks[3, 0, 7] = 0
    tracks[:, 1] = 0
    streams = {name: skeleton_streams(tracks, layout, [name], missing="zero") for name in STREAMS}
    children = [child for child, parent in enumerate(layout.parents) if 7 in (child, parent)]
    for child in children:
        assert not streams["bone"][3, 0, child].any()
        assert not streams["bone_motion"][2:4, 0, child].any()
        assert streams["bone_motion"][1, 0, child].any()
    assert not streams["joint_motion"][2:4, 0, 7].any()
    assert streams["joint_motion"][4, 0, 7].any()
    assert not any(values[:, 1].any() for values in streams.values())
    # Everything else is as published.
    whole = skeleton_streams(tracks, layout, ["bone"])
    others = [joint for joint in range(len(layout)) if joint not in children]
    assert np.array_equal(streams["bone"][:, :, others], whole[:, :, others])


@pytest.mark.parametrize(
    "choose",
    [
        lambda tracks: skeleton_streams(tracks, COCO17, ["limb"]),
        lambda tracks: skeleton_streams(tracks, COCO17, []),
        lambda tracks: skeleton_streams(tracks, COCO17, "bone"),
        lambda tracks: skeleton_streams(tracks[..., :2], COCO17),
        lambda tracks: skeleton_streams(tracks[:0], COCO17),
        lambda tracks: skeleton_streams(tracks[0], COCO17),
    ],
)
def test_nonsense_is_refused(choose):
    with pytest.raises(ValueError, match="got"):
        choose(random_tracks(COCO17))


def test_tracks_of_another_layout_are_refused():
    with pytest.raises(ValueError, match="ntu25 has 25 joints"):
        skeleton_streams(random_tracks(COCO17), NTU25)
