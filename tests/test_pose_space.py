import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from ops.pose_space import (
    Box,
    center_crop,
    compact_box,
    crop_tracks,
    detected,
    draw_crop,
    fit_people,
    flip_tracks,
    order_people,
    prenormalize_2d,
    prenormalize_2d_auto,
    resize_tracks,
    short_side_size,
    without_empty_places,
)
from ops.skeleton import BODY18, COCO17, HAND21

SIZE = (320, 240)


@pytest.fixture
def published(golden):
    """Return the published arrays, as tracks and sizes (width, height)."""
    file = golden.parent / "zoo" / "transforms.npz"
    if not file.is_file():
        pytest.skip("no golden vectors of the zoo")
    with np.load(file) as stored:
        found = {
            key: stored[key][::-1] if key.endswith("shape") else stored[key] for key in stored.files
        }
    score = found["anno_score"][..., None]
    found["tracks"] = np.concatenate((found["anno_keypoint"], score), -1).swapaxes(0, 1)
    for key in ("prenorm2d", "compact_kp", "resize_kp"):
        found[key] = found[key].swapaxes(0, 1)
    return found


def some_tracks(people=2, frames=6, layout=COCO17, missing=0.2, seed=0):
    """Return tracks in a frame of `SIZE`, some of whose joints were not detected."""
    rng = np.random.default_rng(seed)
    tracks = rng.uniform(1, 200, (frames, people, len(layout), 3)).astype(np.float32)
    tracks[..., 2] = tracks[..., 2] / 250 + 0.1
    tracks[rng.random(tracks.shape[:3]) < missing] = 0
    return tracks


def test_normalised_coordinates_equal_the_published_ones(published):
    found = prenormalize_2d(published["tracks"], published["anno_shape"], missing="keep")
    assert np.abs(found[..., :2] - published["prenorm2d"]).max() < 1e-5
    assert np.array_equal(found[..., 2], published["tracks"][..., 2])


def test_the_box_around_people_equals_the_published_one(published):
    tracks = published["tracks"][published["frame_inds48"]]
    box = compact_box(tracks)
    assert box.size == tuple(published["compact_shape"])
    moved = crop_tracks(tracks, box)
    assert np.abs(moved[..., :2] - published["compact_kp"]).max() < 1e-5
    small = resize_tracks(moved, box.size, published["resize_shape"])
    assert np.abs(small[..., :2] - published["resize_kp"]).max() < 1e-5


def test_the_frame_becomes_minus_1_to_1_and_joints_unseen_the_middle_or_not():
    tracks = np.array([[[[0, 240, 1], [320, 0, 1], [160, 120, 1], [0, 0, 0], [9, 9, 0.01]]]])
    kept = prenormalize_2d(tracks, SIZE, missing="keep")
    assert kept[0, 0, :4, :2].tolist() == [[-1, 1], [1, -1], [0, 0], [-1, -1]]
    zero = prenormalize_2d(tracks, SIZE)
    assert np.array_equal(zero[0, 0, :3], kept[0, 0, :3])
    assert not zero[0, 0, 3:, :2].any()
    assert zero[0, 0, 4, 2] == np.float32(0.01)  # the confidence itself stays
    assert prenormalize_2d(tracks, SIZE, threshold=0.001)[0, 0, 4, :2].all()


def test_the_box_of_all_joints_becomes_minus_1_to_1():
    tracks = some_tracks()
    found = prenormalize_2d_auto(tracks)
    seen = detected(tracks)
    for axis in (0, 1):
        assert found[seen][:, axis].min() == pytest.approx(-1, abs=1e-6)
        assert found[seen][:, axis].max() == pytest.approx(1, abs=1e-6)
    assert not found[~seen].any()
    # Joints nobody is sure of do not stretch the box.
    tracks[0, 0, 0] = (9000, 9000, 0.005)
    assert np.abs(prenormalize_2d_auto(tracks)[..., :2]).max() < 1.001
    small = tracks * np.float32((0.01, 1, 1))
    small[0, 0, 0] = 0
    assert np.array_equal(prenormalize_2d_auto(small), small)  # 2 pixels wide
    assert prenormalize_2d_auto(small, least_side=1)[..., 0].max() == pytest.approx(1)
    nobody = np.zeros((3, 2, 17, 3), np.float32)
    assert not prenormalize_2d_auto(nobody, least_side=0).any()


def test_a_box_has_its_padding_and_ratio_and_leaves_the_frame_or_not():
    tracks = np.zeros((4, 1, 17, 3), np.float32)
    tracks[1, 0, 3], tracks[2, 0, 5] = (100, 50, 1), (140, 130, 1)
    assert compact_box(tracks, padding=0, hw_ratio=None) == Box(100, 50, 140, 130)
    assert compact_box(tracks, hw_ratio=None) == Box(95, 40, 145, 140)
    assert compact_box(tracks) == Box(70, 40, 170, 140)
    assert compact_box(tracks, hw_ratio=(1.0, 4.0)) == Box(95, 40, 145, 140)
    assert compact_box(tracks, hw_ratio=(3.0, 3.0)) == Box(95, 15, 145, 165)
    assert compact_box(tracks, padding=2) == Box(0, -30, 240, 210)
    assert compact_box(tracks, padding=2, allow_pad=False, size=(200, 150)) == Box(0, 0, 200, 150)


def test_people_too_small_for_a_box_leave_the_frame_as_it_is():
    tracks = np.zeros((4, 1, 17, 3), np.float32)
    assert compact_box(tracks) is None
    tracks[0, 0, :2] = [(100, 50, 1), (140, 59, 1)]
    assert compact_box(tracks) is None
    assert compact_box(tracks, threshold=5) is not None
    assert compact_box(tracks / 1000, threshold=0) is None  # less than a pixel
    assert compact_box(tracks, threshold=5, allow_pad=False, size=(90, 40)) is None  # outside
    with pytest.raises(ValueError, match="needs the frame's size"):
        compact_box(tracks, allow_pad=False)
    with pytest.raises(ValueError, match="above 0"):
        compact_box(tracks, threshold=5, hw_ratio=0)


@given(width=st.integers(1, 300), height=st.integers(1, 300), seed=st.integers(0, 999))
def test_drawn_boxes_lie_in_the_frame_and_have_their_share_of_it(width, height, seed):
    box = draw_crop((width, height), np.random.default_rng(seed))
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    box_width, box_height = box.size
    if box_width == box_height == min(width, height):
        return  # the way out of a frame that no draw fits into
    # Both sides are rounded to pixels.
    slack = box_width + box_height
    assert 0.56 * width * height - slack <= box_width * box_height <= width * height
    assert (box_width - 1) / (box_height + 1) <= 4 / 3
    assert (box_width + 1) / max(box_height - 1, 0.1) >= 3 / 4


def test_drawn_boxes_reach_every_side_and_differ_in_size():
    rng = np.random.default_rng(0)
    boxes = [draw_crop((64, 64), rng) for _ in range(500)]
    assert len({box.size for box in boxes}) > 100
    assert {min(box.left for box in boxes), min(box.top for box in boxes)} == {0}
    assert max(box.right for box in boxes) == max(box.bottom for box in boxes) == 64
    assert any(box.left > 0 and box.right == 64 for box in boxes)
    assert any(box.top > 0 and box.bottom == 64 for box in boxes)
    assert draw_crop((640, 8), rng) == Box(316, 0, 324, 8)


def test_sizes():
    assert center_crop((64, 64), (64, 64)) == Box(0, 0, 64, 64)
    assert center_crop((90, 64), (64, 64)) == Box(13, 0, 77, 64)
    assert center_crop((10, 10), (14, 14)) == Box(-2, -2, 12, 12)
    assert short_side_size((320, 240), 64) == (85, 64)
    assert short_side_size((240, 320), 64) == (64, 85)
    for call in (
        lambda: short_side_size((0, 5), 64),
        lambda: prenormalize_2d(some_tracks(), (0, 240)),
        lambda: resize_tracks(some_tracks(), (320, 0), (64, 64)),
        lambda: draw_crop((0, 64), np.random.default_rng()),
    ):
        with pytest.raises(ValueError, match="sides above 0"):
            call()


def test_crop_and_resize_move_joints_as_they_move_pixels():
    tracks = some_tracks()
    box = Box(-20, 30, 180, 130)
    moved = resize_tracks(crop_tracks(tracks, box), box.size, (50, 75))
    seen = detected(tracks)
    expected = (tracks[seen][:, :2] - (-20, 30)) * (50 / 200, 75 / 100)
    assert np.allclose(moved[seen][:, :2], expected, atol=1e-4)
    assert np.array_equal(moved[..., 2], tracks[..., 2])
    assert not moved[~seen].any()


@pytest.mark.parametrize("layout", [COCO17, BODY18, HAND21])
def test_a_mirror_exchanges_left_and_right_and_undoes_itself(layout):
    tracks = some_tracks(layout=layout)
    mirrored = flip_tracks(tracks, 320, layout)
    for left, right in layout.flip_pairs:
        seen = detected(tracks)[:, :, left]
        assert np.allclose(mirrored[:, :, right, 0][seen], 320 - tracks[:, :, left, 0][seen])
        assert np.array_equal(mirrored[:, :, right, 1:], tracks[:, :, left, 1:])
        assert not mirrored[:, :, right][~seen].any()
    assert np.allclose(flip_tracks(mirrored, 320, layout), tracks, atol=1e-4)


def test_a_model_gets_as_many_people_as_it_takes():
    tracks = some_tracks(people=3)
    assert np.array_equal(fit_people(tracks, 3), tracks)
    assert np.array_equal(fit_people(tracks, 2), tracks[:, :2])
    five = fit_people(tracks, 5)
    assert np.array_equal(five[:, :3], tracks)
    assert not five[:, 3:].any()
    assert np.array_equal(fit_people(tracks, 5, "loop"), tracks[:, [0, 1, 2, 0, 1]])
    alone = fit_people(tracks[:, :1], 2, "loop")
    assert np.array_equal(alone[:, 0], alone[:, 1])
    for mode in ("zero", "loop"):
        assert fit_people(tracks[:, :0], 2, mode).shape == (6, 2, 17, 3)
    kept = fit_people(tracks, 2)
    kept[:] = -1
    assert tracks.min() >= 0
    half_empty = np.concatenate((tracks, np.zeros_like(tracks)), axis=1)
    assert np.array_equal(without_empty_places(half_empty), tracks)
    assert not without_empty_places(np.zeros_like(tracks)).any()
    assert without_empty_places(half_empty[:, :0]).shape[1] == 0
    for bad in ((0, "zero"), (2, "twice")):
        with pytest.raises(ValueError, match="places are >= 1"):
            fit_people(tracks, *bad)


def test_people_are_ordered_by_what_was_seen_of_them_or_by_size():
    tracks = np.zeros((6, 3, 17, 3), np.float32)
    tracks[:2, 0] = some_tracks(1, 2, missing=0)[:, 0] * (10, 10, 1)  # large, seen for a moment
    tracks[:, 2] = some_tracks(1, 6, missing=0)[:, 0]
    assert np.array_equal(order_people(tracks), tracks[:, [2, 0, 1]])
    assert np.array_equal(order_people(tracks, by="area"), tracks[:, [0, 2, 1]])
    equal = some_tracks(people=40, missing=0)
    assert np.array_equal(order_people(equal), equal)
    with pytest.raises(ValueError, match="joints or area"):
        order_people(tracks, by="age")


@given(
    tracks=arrays_of.arrays(
        st.sampled_from((np.float16, np.float32, np.float64)),
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.just(17), st.just(3)),
        elements=st.sampled_from((0, 0.5, 1, 17, 300)),
        fill=st.just(0),
    )
)
def test_nothing_is_changed_in_place_and_all_results_are_finite_float32(tracks):
    tracks[(tracks[..., :2] == 0).all(-1)] = 0
    before = tracks.copy()
    results = [
        prenormalize_2d(tracks, SIZE),
        prenormalize_2d_auto(tracks),
        crop_tracks(tracks, Box(3, 4, 50, 60)),
        resize_tracks(tracks, SIZE, (64, 64)),
        flip_tracks(tracks, 320, COCO17),
        fit_people(tracks, 2),
        order_people(tracks, "area"),
    ]
    box = compact_box(tracks)
    assert box is None or min(box.size) > 0
    for result in results:
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        result[:] = -1
    assert np.array_equal(tracks, before)
