import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.pose_augment import SkeletonAugmentation
from ops.pose_space import detected, flip_tracks
from ops.skeleton import BODY18, COCO17, HAND21, NTU25

EVERYTHING = SkeletonAugmentation(20, 0.2, 0.1, 0.1, 0.02, 0.5, 0.3)


def some_tracks(layout=COCO17, frames=6, people=2, missing=0.2, seed=0):
    """Return tracks of the layout's dimensions, some of whose joints were not detected."""
    rng = np.random.default_rng(seed)
    tracks = rng.uniform(50, 200, (frames, people, len(layout), layout.dims + 1))
    tracks[..., -1] /= 200
    if layout.dims == 3:
        tracks[..., :3] = (tracks[..., :3] - 125) / 100
    tracks[rng.random(tracks.shape[:3]) < missing] = 0
    return tracks.astype(np.float32)


def generator(seed=0):
    return np.random.default_rng(seed)


def distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.parametrize("layout", [COCO17, NTU25])
def test_nothing_asked_nothing_changed(layout):
    tracks = some_tracks(layout)
    found = SkeletonAugmentation().apply(tracks, layout, generator())
    assert np.array_equal(found, tracks)
    assert found is not tracks


@given(
    layout=st.sampled_from((COCO17, BODY18, HAND21, NTU25)),
    frames=st.integers(1, 6),
    people=st.integers(1, 3),
    missing=st.sampled_from((0.0, 0.3, 1.0)),
    dtype=st.sampled_from((np.float16, np.float32, np.float64)),
    seed=st.integers(0, 99),
)
def test_joints_not_detected_stay_so_whatever_is_drawn(
    layout, frames, people, missing, dtype, seed
):
    tracks = some_tracks(layout, frames, people, missing, seed).astype(dtype)
    before = tracks.copy()
    still = dataclasses.replace(EVERYTHING, time_scale=0)
    change = still.draw(tracks.shape, generator(seed))
    found = change.apply(tracks, layout, 320)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    expected = detected(tracks) & ~change.dropped
    if change.mirror:
        expected = expected[:, :, layout.mirror_order()]
    assert np.array_equal(detected(found), expected)
    assert not found[~expected].any()
    found[:] = -1
    assert np.array_equal(tracks, before)
    moved = EVERYTHING.apply(tracks, layout, generator(seed))
    assert np.isfinite(moved).all()
    assert not moved[~detected(moved)].any()


def test_the_same_draw_gives_the_same_and_another_another():
    tracks = some_tracks()
    one, two, other = (EVERYTHING.apply(tracks, COCO17, generator(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, two)
    assert one.shape != other.shape or not np.allclose(one, other)


def test_one_attribute_does_not_change_what_the_others_draw():
    shape = (10, 2, 17, 3)
    whole = EVERYTHING.draw(shape, generator())
    for name in ("rotate", "jitter", "time_scale", "drop_joints"):
        part = dataclasses.replace(EVERYTHING, **{name: 0.0}).draw(shape, generator())
        assert part.mirror == whole.mirror
        assert name == "drop_joints" or np.array_equal(part.dropped, whole.dropped)
        assert name == "rotate" or np.array_equal(part.matrix, whole.matrix)
        assert name == "time_scale" or np.array_equal(part.places, whole.places)


@pytest.mark.parametrize("layout", [COCO17, NTU25])
def test_a_turn_keeps_the_shape_and_the_middle(layout):
    tracks = some_tracks(layout)
    seen = detected(tracks)
    found = SkeletonAugmentation(rotate=90).apply(tracks, layout, generator())
    before, after = (values[seen][:, :-1].astype(float) for values in (tracks, found))
    assert np.abs(before - after).max() > 0.1
    assert np.allclose(distances(before), distances(after), atol=1e-3)
    if layout.dims == 2:
        assert np.allclose(before.mean(0), after.mean(0), atol=1e-3)
    else:  # around the origin
        assert np.allclose(np.linalg.norm(before, axis=-1), np.linalg.norm(after, axis=-1))
    assert np.array_equal(found[..., -1], tracks[..., -1])


@pytest.mark.parametrize("dims", [2, 3])
def test_how_far_bodies_are_turned_and_stretched(dims):
    shape = (1, 1, 17, dims + 1)
    rng = generator()
    turns = [SkeletonAugmentation(rotate=30).draw(shape, rng).matrix for _ in range(500)]
    assert all(np.allclose(turn @ turn.T, np.eye(dims)) for turn in turns)
    assert all(np.linalg.det(turn) == pytest.approx(1) for turn in turns)
    if dims == 2:
        angles = [math.degrees(math.atan2(turn[1, 0], turn[0, 0])) for turn in turns]
        assert -30 <= min(angles) < -28
        assert 28 < max(angles) <= 30
    scales = np.array(
        [np.diag(SkeletonAugmentation(scale=0.1).draw(shape, rng).matrix) for _ in range(500)]
    )
    assert (np.abs(scales - 1) <= 0.1).all()
    assert (scales.min(0) < 0.91).all()
    assert (scales.max(0) > 1.09).all()
    assert np.ptp(scales, axis=1).max() > 0.1  # each axis by itself
    leaning = SkeletonAugmentation(shear=0.5).draw(shape, rng).matrix
    assert np.array_equal(np.diag(leaning), np.ones(dims))
    assert 0 < np.abs(leaning - np.eye(dims)).max() <= 0.5


def test_three_dimensional_turns_are_about_all_three_axes():
    rng = generator()
    strong = SkeletonAugmentation(rotate=math.degrees(0.3), scale=0.1)
    draws = np.stack([strong.draw((1, 1, 25, 4), rng).matrix for _ in range(2000)])
    for one, two in ((1, 2), (0, 2), (0, 1)):
        assert 0.25 < np.abs(draws[:, one, two]).max() < 0.45
        assert abs(draws[:, one, two].mean()) < 0.02


def test_dropped_joints_are_gone_in_all_frames_as_often_as_asked():
    tracks = some_tracks(missing=0)
    found = SkeletonAugmentation(drop_joints=0.5).apply(tracks, COCO17, generator())
    seen = detected(found)
    assert np.array_equal(seen.all(0), seen.any(0))
    assert not found[~seen].any()
    assert np.array_equal(found[seen], tracks[seen])
    rng = generator()
    share = np.mean(
        [SkeletonAugmentation(drop_joints=0.1).draw(tracks.shape, rng).dropped for _ in range(300)]
    )
    assert share == pytest.approx(0.1, abs=0.01)
    assert not detected(SkeletonAugmentation(drop_joints=1).apply(tracks, COCO17, rng)).any()


@pytest.mark.parametrize("layout", [COCO17, NTU25])
def test_noise_is_a_share_of_the_body_at_any_scale(layout):
    tracks = some_tracks(layout, frames=200)
    seen = detected(tracks)
    for scale in (0.01, 1, 10):
        sized = tracks.copy()
        sized[..., :-1] *= scale
        found = SkeletonAugmentation(jitter=0.05).apply(sized, layout, generator())
        spread = (found - sized)[seen][:, :-1].std()
        points = np.where(seen[..., None], sized[..., :-1], np.nan)
        size = np.nanmedian((np.nanmax(points, 2) - np.nanmin(points, 2)).max(-1))
        assert spread == pytest.approx(0.05 * size, rel=0.05)
        assert np.array_equal(found[..., -1], sized[..., -1])


@pytest.mark.parametrize("layout", [COCO17, BODY18, NTU25])
@pytest.mark.parametrize("width", [None, 320])
def test_mirrored_twice_is_the_same(layout, width):
    tracks = some_tracks(layout)
    mirror = SkeletonAugmentation(flip=1)
    once = mirror.apply(tracks, layout, generator(), width)
    assert np.abs(once - tracks).max() > 0.1
    assert np.allclose(mirror.apply(once, layout, generator(), width), tracks, atol=1e-3)


def test_a_mirror_in_the_frame_is_that_of_the_frame():
    tracks = some_tracks()
    found = SkeletonAugmentation(flip=1).apply(tracks, COCO17, generator(), 320)
    assert np.allclose(found, flip_tracks(tracks, 320, COCO17), atol=1e-4)


def test_a_mirror_without_a_frame_keeps_the_body_where_it_is():
    tracks = some_tracks()
    found = SkeletonAugmentation(flip=1).apply(tracks, COCO17, generator())
    middle, moved = (values[detected(values)][:, :2].mean(0) for values in (tracks, found))
    assert np.allclose(middle, moved, atol=1e-2)


def test_a_three_dimensional_mirror_stands_across_the_shoulders():
    """Whichever way a body faces, its mirrored self faces the same way."""
    left, right = NTU25.shoulders
    tracks = some_tracks(NTU25, missing=0)
    tracks[:, :, left, :3], tracks[:, :, right, :3] = (1, 0, 1), (0, 0, 0)
    found = SkeletonAugmentation(flip=1).apply(tracks, NTU25, generator())
    across = found[:, 0, left, :3] - found[:, 0, right, :3]
    assert np.allclose(across, (1, 0, 1), atol=1e-5)
    order = NTU25.mirror_order()
    assert np.allclose(found[..., 1], tracks[:, :, order, 1], atol=1e-5)  # heights stay
    before, after = (values[0, 0, :, :3].astype(float) for values in (tracks[:, :, order], found))
    assert np.allclose(distances(before), distances(after), atol=1e-4)
    signs = [np.linalg.det(values[[3, 5, 13]] - values[0]) for values in (before, after)]
    assert signs[0] * signs[1] < 0  # a mirror, not a turn
    for lonely in (left, right):
        tracks[:, :, lonely] = 0
        assert np.isfinite(SkeletonAugmentation(flip=1).apply(tracks, NTU25, generator())).all()


def test_speed_changes_the_length_and_the_motion_but_not_the_path():
    frames = np.arange(101, dtype=np.float32)
    tracks = np.ones((101, 1, 17, 3), np.float32)
    tracks[..., 0] = 10 + frames[:, None, None]
    rng, lengths = generator(), set()
    for _ in range(50):
        found = SkeletonAugmentation(time_scale=0.5).apply(tracks, COCO17, rng)
        lengths.add(len(found))
        x = found[:, 0, 0, 0]
        assert (x[0], x[-1]) == (10, pytest.approx(110, abs=1e-3))
        steps = np.diff(x)
        assert 0.49 < steps.min() <= steps.max() < 1.52
        assert np.allclose(np.diff(steps), np.diff(steps).mean(), atol=1e-3)  # evenly
    assert min(lengths) < 85
    assert max(lengths) > 125


def test_between_frames_joints_are_blended_only_if_both_frames_have_them():
    tracks = np.ones((2, 1, 17, 3), np.float32)
    tracks[..., 0] = [[[10]], [[20]]]
    tracks[1, 0, 5] = tracks[0, 0, 6] = 0
    change = SkeletonAugmentation(time_scale=0.5).draw(tracks.shape, generator())
    found = dataclasses.replace(change, places=np.array([0, 0.25, 0.75, 1])).apply(tracks, COCO17)
    assert found[:, 0, 0, 0].tolist() == [10, 12.5, 17.5, 20]
    assert found[:, 0, 5, 0].tolist() == [10, 10, 0, 0]
    assert found[:, 0, 6, 0].tolist() == [0, 0, 20, 20]


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_keep_a_frame(frames):
    tracks = some_tracks(frames=frames, missing=0)
    for seed in range(20):
        found = SkeletonAugmentation(time_scale=0.99).apply(tracks, COCO17, generator(seed))
        assert len(found) >= 1
        assert np.isfinite(found).all()
        assert np.allclose(found[0], tracks[0], atol=1e-3)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(SkeletonAugmentation)])
@pytest.mark.parametrize("value", [-0.1, 181, math.nan, math.inf])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} of skeletons is 0 to"):
        SkeletonAugmentation(**{name: value})


def test_a_shape_of_no_tracks_is_refused():
    with pytest.raises(ValueError, match="tracks are"):
        EVERYTHING.draw((5, 2, 17, 2), generator())
