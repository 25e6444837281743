"""What models of whole clips see: frames, frames of reference, mirrors, people."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.pose_views import SkeletonSpec, people_geometry, skeleton_views, volume_test_side
from ops.pose_augment import SkeletonAugmentation
from ops.pose_space import prenormalize_2d
from ops.skeleton import COCO17, NTU25
from ops.streams import skeleton_streams
from tests.golden_zoo import FOLDER, needs_golden
from transforms import CropBox, Geometry

SIZE = (160, 90)
SPEC = SkeletonSpec(length=12)


def walk(num_frames=30, people=2, seed=0, joints=17, dims=2):
    """Return tracks of people who move, the second in the first half of the clip alone."""
    rng = np.random.default_rng(seed)
    body = rng.uniform(20, 60, (1, people, joints, dims))
    path = np.cumsum(rng.normal(0, 0.5, (num_frames, people, 1, dims)), axis=0)
    seen = np.ones((num_frames, people, joints, 1))
    if people > 1:
        seen[num_frames // 2 :, 1] = 0
    return (np.concatenate((body + path, seen), axis=-1) * seen).astype(np.float32)


def views(spec=SPEC, tracks=None, layout=COCO17, **options):
    return skeleton_views(spec, walk() if tracks is None else tracks, SIZE, layout, **options)


def test_streams_are_made_of_the_whole_clip_before_frames_are_picked():
    tracks = walk()
    spec = replace(SPEC, streams=("joint", "bone_motion"), sampling="spread")
    found = views(spec, tracks)
    whole = skeleton_streams(prenormalize_2d(tracks, SIZE), COCO17, spec.streams)
    picks = (2 * np.arange(12) + 1) * 30 // 24
    assert np.array_equal(found.skeletons[0].numpy(), whole[picks])
    assert found.skeletons.shape == (1, 12, 2, 17, 6)
    assert found.volume_size is None
    assert found.mirrored is None


def test_people_are_present_where_a_joint_of_theirs_was_detected():
    found = views(replace(SPEC, sampling="spread"))
    assert found.present[0, :, 0].all()
    assert found.present[0, :6, 1].all()
    assert not found.present[0, 6:, 1].any()
    assert not found.skeletons[0, 6:, 1].any()


@pytest.mark.parametrize("people", [1, 2, 5])
def test_there_are_as_many_people_as_the_model_takes(people):
    spec = replace(SPEC, num_people=3, sampling="spread")
    found = views(spec, walk(people=people))
    assert found.skeletons.shape[2] == 3
    assert not found.skeletons[:, :, people:].any()
    assert not found.present[:, :, people:].any()


def test_the_largest_or_the_clearest_people_may_come_first():
    tracks = walk(people=3)
    tracks[:, 1, :, :2] *= 2  # the largest
    tracks[:, :2, :5] = 0  # the third has the most joints
    for order, main in (("given", 0), ("area", 1), ("joints", 2)):
        spec = replace(SPEC, num_people=1, people_order=order)
        alone = views(SPEC, tracks[:, main : main + 1], num_clips=2).skeletons[:, :, :1]
        assert torch.equal(views(spec, tracks, num_clips=2).skeletons, alone)


def test_places_left_over_may_show_the_same_person_again():
    spec = replace(SPEC, num_people=3, people_padding="loop")
    found = views(spec, walk(people=1))
    assert torch.equal(found.skeletons[:, :, 0], found.skeletons[:, :, 2])
    assert found.present.all()


def test_ten_samplings_are_ten_views_and_tests_are_deterministic():
    one, other = (views(num_clips=10) for _ in range(2))
    assert one.skeletons.shape[0] == 10
    assert torch.equal(one.skeletons, other.skeletons)
    assert not torch.equal(one.skeletons[0], one.skeletons[5])


def test_training_draws_by_its_generator_alone():
    spec = replace(
        SPEC, augmentation=SkeletonAugmentation(rotate=20, scale=0.2, flip=0.5), crop=0.5
    )
    one, same, other = (
        views(spec, rng=np.random.default_rng(seed)).skeletons for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(views(spec).skeletons, views().skeletons)  # tests are not changed


def test_a_short_clip_that_is_padded_ends_in_empty_frames():
    found = views(replace(SPEC, length=40, sampling="pad_zero"))
    assert found.skeletons[0, :30, 0].any(dim=(1, 2)).all()
    assert not found.skeletons[0, 30:].any()
    assert not found.present[0, 30:].any()
    looped = views(replace(SPEC, length=40, sampling="pad_loop")).skeletons[0]
    assert torch.equal(looped[30:], looped[:10])


def test_skeletons_follow_the_crop_and_the_mirror_of_frames():
    spec = replace(SPEC, moves_with_frames=True, sampling="spread")
    plain = Geometry(CropBox(10, 5, 80, 80), 64)
    crops = [plain, replace(plain, flip=True)]
    straight, mirrored = views(spec, crops=crops).skeletons
    order = torch.from_numpy(COCO17.mirror_order())
    expected = straight[:, :, order].clone()
    expected[..., 0] = torch.where(expected[..., 2] > 0, -expected[..., 0], 0)
    assert torch.allclose(mirrored, expected, atol=1e-6)


def test_several_crops_of_several_samplings_lie_as_frames_do():
    spec = replace(SPEC, moves_with_frames=True, sampling="spread")
    crops = [Geometry(CropBox(left, 0, 90, 90), 64) for left in (0, 35, 70)]
    found = views(spec, crops=crops, num_clips=2).skeletons
    alone = [views(spec, crops=[crop], num_clips=2).skeletons for crop in crops]
    for row in range(6):
        assert torch.equal(found[row], alone[row % 3][row // 3])


def test_windows_of_rgb_segments_bound_the_frames():
    tracks = walk(people=1)
    tracks[..., 0] = np.arange(30)[:, None, None] + 1
    spec = replace(SPEC, normalize="none", sampling="spread")
    found = views(spec, tracks, num_clips=2, windows=np.array([[3, 9], [20, 29]]))
    frames = found.skeletons[:, :, 0, 0, 0] - 1
    assert (frames[0].min(), frames[0].max()) == (3, 9)
    assert 20 <= frames[1].min() <= frames[1].max() <= 29


def test_three_dimensions_are_turned_upright_and_changed_around_the_body():
    tracks = walk(joints=25, dims=3)
    spec = replace(SPEC, sampling="spread")
    found = views(spec, tracks, NTU25)
    assert found.skeletons.shape == (1, 12, 2, 25, 3)
    spine = found.skeletons[0, 0, 0, 1]
    assert spine.abs().max() < 5  # of the first frame shown, near the origin of the first frame
    changed = views(
        replace(spec, augmentation=SkeletonAugmentation(rotate=15)),
        tracks,
        NTU25,
        rng=np.random.default_rng(0),
    )
    lengths = [v.skeletons[0, 0, 0].norm(dim=1).numpy() for v in (found, changed)]
    assert np.allclose(*lengths, rtol=0.2, atol=3)


# ---------------------------------------------------------------- volumes

VOLUME = SkeletonSpec(length=12, is_volume=True, normalize="none")


def test_volumes_hold_everybody_and_are_larger_in_tests():
    tested, trained = views(VOLUME), views(VOLUME, rng=np.random.default_rng(0))
    assert (tested.volume_size, trained.volume_size) == ((64, 64), (56, 56))
    seen = tested.skeletons[tested.skeletons[..., 2] > 0]
    assert 0 <= seen[:, :2].min() <= seen[:, :2].max() <= 64


def test_joints_in_shares_of_the_frame_are_seen_as_those_in_pixels():
    tracks = walk()
    shares = tracks.copy()
    shares[..., :2] /= 256
    pixels = skeleton_views(VOLUME, tracks, (512, 512), COCO17)
    found = skeleton_views(VOLUME, shares, (2, 2), COCO17)
    assert found.volume_size == pixels.volume_size
    torch.testing.assert_close(found.skeletons, pixels.skeletons)


def test_double_flip_shows_every_view_twice():
    found = views(replace(VOLUME, double=True), num_clips=3)
    assert found.skeletons.shape[0] == 6
    assert found.mirrored.tolist() == [False, True] * 3
    assert torch.equal(found.skeletons[0], found.skeletons[1])


def test_nobody_is_shown_as_nobody():
    nobody = np.zeros((30, 1, 17, 3), np.float32)
    for spec in (SPEC, VOLUME):
        found = views(spec, nobody)
        assert not found.skeletons.any()
        assert not found.present.any()


@needs_golden
def test_the_published_pipeline_of_volumes():
    with np.load(FOLDER / "transforms.npz") as golden:
        keypoints, score = golden["anno_keypoint"], golden["anno_score"]
        height, width = golden["anno_shape"].tolist()
        expected = golden["resize_kp"]  # (M, L, V, 2)
    tracks = np.concatenate((keypoints, score[..., None]), axis=-1).swapaxes(0, 1)
    spec = replace(VOLUME, length=48)
    found = skeleton_views(spec, np.ascontiguousarray(tracks), (width, height), COCO17)
    assert np.abs(found.skeletons[0, ..., :2].numpy().swapaxes(0, 1) - expected).max() < 1e-4


# ---------------------------------------------------------------- RGBPose-Conv3D


def standing(left, top, right, bottom):
    """Return one frame of one person whose joints lie on a diagonal."""
    tracks = np.ones((1, 1, 17, 3), np.float32)
    tracks[0, 0, :, 0] = np.linspace(left, right, 17)
    tracks[0, 0, :, 1] = np.linspace(top, bottom, 17)
    return tracks


def test_frames_are_cropped_to_the_square_around_the_people():
    geometry = people_geometry((320, 240), standing(100, 40, 140, 200), 56, None, may_flip=True)
    # 160 high by a quarter more is 200, around (120, 120).
    assert geometry.box == CropBox(20, 20, 200, 200)
    assert geometry.out_size == 64
    assert not geometry.flip


def test_what_the_square_has_beyond_the_frame_is_black():
    tracks = standing(20, 100, 300, 140)
    geometry = people_geometry((320, 240), tracks, 56, None, may_flip=False)
    assert geometry.box == CropBox(-15, -55, 350, 350)
    (seen,) = geometry.apply_to_frames(np.full((1, 240, 320, 3), 200, np.uint8))
    rows, columns = (np.arange(64) + 0.5) * 350 / 64 - 55, (np.arange(64) + 0.5) * 350 / 64 - 15
    inside = ((rows > 6) & (rows < 234))[:, None] & ((columns > 6) & (columns < 314))
    outside = ((rows < -6) | (rows > 246))[:, None] | ((columns < -6) | (columns > 326))
    assert (seen[inside] == 200).all()
    assert (seen[outside] == 0).all()
    joints = geometry.apply_to_keypoints(tracks, COCO17)[0, 0]
    assert joints[0, :2] == pytest.approx([35 * 64 / 350, 155 * 64 / 350])
    assert ((joints[:, :2] > 0) & (joints[:, :2] < 64)).all()


def test_a_square_aside_of_the_frame_is_all_black():
    frame = np.full((1, 240, 320, 3), 200, np.uint8)
    for box in (CropBox(-90, 10, 80, 80), CropBox(330, 10, 80, 80), CropBox(10, 250, 80, 80)):
        assert (Geometry(box, 32).apply_to_frames(frame) == 0).all()


def test_a_joint_that_lies_anywhere_makes_no_huge_square():
    tracks = standing(100, 40, 140, 200)
    tracks[0, 0, 0, :2] = 1e9
    box = people_geometry((320, 240), tracks, 56, None, may_flip=False).box
    assert max(box.width, box.height) < 4 * 320


def test_a_clip_without_anybody_is_cropped_to_the_middle():
    box = people_geometry((320, 240), np.zeros((2, 1, 17, 3)), 56, None, may_flip=False).box
    assert box == CropBox(40, 0, 240, 240)


def test_volumes_follow_the_crop_of_the_frames():
    tracks = walk(people=1)
    geometry = people_geometry(SIZE, tracks, 56, None, may_flip=True)
    spec = replace(VOLUME, moves_with_frames=True, frame_share=1 / 4, length=len(tracks))
    found = views(spec, tracks, crops=[geometry])
    assert found.volume_size == (16, 16)
    moved = geometry.apply_to_keypoints(tracks, COCO17)[..., :2] / 4
    assert found.skeletons[0, ..., :2].numpy() == pytest.approx(moved, abs=1e-3)


def test_training_draws_a_part_of_the_people_s_crop():
    tracks = walk(people=1)
    whole = people_geometry(SIZE, tracks, 56, None, may_flip=False).box
    for seed in range(20):
        drawn = people_geometry(SIZE, tracks, 56, np.random.default_rng(seed), may_flip=False)
        box = drawn.box
        assert whole.left <= box.left <= box.left + box.width <= whole.left + whole.width
        assert whole.top <= box.top <= box.top + box.height <= whole.top + whole.height
        assert box.width * box.height >= 0.5 * whole.width * whole.height
        assert drawn.out_size == 56
        assert not drawn.flip


def test_sides_of_volumes_in_tests_are_the_published_ones():
    assert [volume_test_side(side) for side in (48, 56, 28)] == [56, 64, 32]
    assert all(volume_test_side(side) >= side for side in range(1, 200))


def test_places_for_people_who_never_come_are_filled_by_those_who_do():
    tracks = walk()[:, :1]
    spec = replace(SPEC, num_people=2, people_padding="loop", normalize="image_keep")
    alone = views(spec, tracks)
    with_places = views(spec, np.concatenate((tracks, np.zeros_like(tracks)), axis=1))
    assert torch.equal(alone.skeletons[:, :, 0], alone.skeletons[:, :, 1])
    assert torch.equal(alone.skeletons, with_places.skeletons)
    assert torch.equal(alone.present, with_places.present)
