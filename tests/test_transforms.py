import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import resized_crop as torchvision_resized_crop

import transforms
from transforms import (
    Augmentation,
    CropBox,
    Geometry,
    draw_augmentation,
    eval_geometries,
    reduce_decoding,
    train_geometry,
)

NO_CHANGE = np.eye(2, 3)


def one_joint(x: float, y: float) -> np.ndarray:
    """Return (1, 1, 17, 3) keypoints of which only the nose, which has no mirror twin, is seen."""
    keypoints = np.zeros((1, 1, 17, 3), np.float32)
    keypoints[0, 0, 0] = x, y, 1
    return keypoints


def dot(x: float, y: float, width: int, height: int, radius: float = 4) -> np.ndarray:
    """Return (1, H, W, 3) black frames with a soft bright dot centred on (x, y)."""
    columns, rows = np.arange(width) + 0.5 - x, np.arange(height) + 0.5 - y
    image = 255 * np.exp(-(columns**2 + rows[:, None] ** 2) / (2 * radius**2))
    return np.repeat(image[None, ..., None], 3, axis=-1).round().astype(np.uint8)


def find_dot(frames: np.ndarray) -> np.ndarray:
    """Return the centroid (x, y) of the light in the first frame."""
    light = frames[0].mean(axis=-1)
    light = np.where(light > light.max() / 3, light, 0)
    rows, columns = np.indices(light.shape) + 0.5
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()


boxes = st.builds(
    CropBox, st.integers(0, 20), st.integers(0, 20), st.integers(60, 80), st.integers(60, 80)
)


@given(box=boxes, out=st.integers(40, 160), flip=st.booleans(), x=st.floats(30, 53))
def test_defect_05_frames_and_keypoints_go_through_the_same_geometry(box, out, flip, x):
    geometry = Geometry(box, out, flip)
    moved = geometry.apply_to_keypoints(one_joint(x, 50))[0, 0, 0]
    found = find_dot(geometry.apply_to_frames(dot(x, 50, 101, 103)))
    assert found == pytest.approx(moved[:2], abs=0.15)


@given(seed=st.integers(0, 99), out=st.integers(8, 60))
def test_flip_mirrors_frames_exactly_and_exchanges_left_and_right(seed, out):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    keypoints = rng.uniform(1, 30, (2, 1, 17, 3)).astype(np.float32)
    box = CropBox(3, 2, 25, 27)
    plain, mirror = Geometry(box, out), Geometry(box, out, flip=True)
    assert np.array_equal(mirror.apply_to_frames(frames), plain.apply_to_frames(frames)[:, :, ::-1])
    left, right = plain.apply_to_keypoints(keypoints), mirror.apply_to_keypoints(keypoints)
    assert right[..., 11, 0] == pytest.approx(out - left[..., 12, 0], abs=1e-3)
    assert right[..., 11, 1:] == pytest.approx(left[..., 12, 1:], abs=1e-3)


def test_flip_twice_is_identity(person):
    whole = Geometry(CropBox(0, 0, 36, 36), 36, flip=True)
    frames = np.random.default_rng(0).integers(0, 256, (3, 36, 36, 3), dtype=np.uint8)
    twice = whole.apply_to_frames(whole.apply_to_frames(frames))
    assert np.array_equal(twice, frames)
    keypoints = person(3)
    keypoints[1, 0, 4] = 0
    twice = whole.apply_to_keypoints(whole.apply_to_keypoints(keypoints))
    assert np.allclose(twice, keypoints, atol=1e-5)


def test_defect_11_undetected_joints_stay_exactly_zero_under_every_change(person):
    keypoints = person(2)
    keypoints[:, :, 5] = 0
    rng = np.random.default_rng(0)
    for flip in (False, True):
        moved = Geometry(CropBox(7, 5, 20, 30), 50, flip).apply_to_keypoints(keypoints)
        moved = draw_augmentation(rng).apply_to_keypoints(moved, 50)
        assert not moved[:, :, 6 if flip else 5].any()
        assert (moved[..., 2] > 0).sum() == 2 * 16


def test_inputs_are_not_written_to(person):
    keypoints, before = person(2), person(2)
    Geometry(CropBox(0, 0, 10, 10), 5, flip=True).apply_to_keypoints(keypoints)
    assert np.array_equal(keypoints, before)


# ---------------------------------------------------------------- which crops


def test_training_crops_are_the_ten_published_shapes_at_thirteen_places():
    rng = np.random.default_rng(0)
    drawn = [train_geometry(640, 360, 224, rng) for _ in range(3000)]
    shapes = {(g.box.width, g.box.height) for g in drawn}
    assert {side for shape in shapes for side in shape} == {237, 270, 315, 360}
    assert len(shapes) == 10
    assert not {(360, 270), (237, 360)} & shapes
    places = {(g.box.left, g.box.top) for g in drawn if (g.box.width, g.box.height) == (270, 270)}
    assert len(places) == 13
    assert {(0, 0), (370, 0), (0, 90), (370, 90), (185, 45), (92, 22)} <= places
    assert 0.45 < np.mean([g.flip for g in drawn]) < 0.55


@given(
    width=st.integers(1, 700), height=st.integers(1, 700), seed=st.integers(0, 999),
    crops=st.sampled_from([1, 3, 5, 10]),
)  # fmt: skip
def test_no_crop_leaves_the_frame(width, height, seed, crops):
    rng = np.random.default_rng(seed)
    for geometry in (
        train_geometry(width, height, 8, rng),
        *eval_geometries(width, height, 8, crops),
    ):
        box = geometry.box
        assert box.left >= 0
        assert box.top >= 0
        assert box.width >= 1
        assert box.height >= 1
        assert box.left + box.width <= width
        assert box.top + box.height <= height


def test_no_flip_leaves_every_other_draw_as_it_was():
    with_flip = [train_geometry(64, 36, 8, np.random.default_rng(s)) for s in range(50)]
    without = [
        train_geometry(64, 36, 8, np.random.default_rng(s), may_flip=False) for s in range(50)
    ]
    assert any(g.flip for g in with_flip)
    assert not any(g.flip for g in without)
    assert [g.box for g in with_flip] == [g.box for g in without]


def test_validation_crop_is_224_of_a_short_side_of_256():
    (geometry,) = eval_geometries(640, 360, 224)
    assert geometry == Geometry(CropBox(162, 22, 315, 315), 224)


def test_defect_34_three_crops_cover_the_whole_frame():
    covered = np.zeros((360, 640), bool)
    for geometry in eval_geometries(640, 360, 224, 3):
        box = geometry.box
        covered[box.top : box.top + box.height, box.left : box.left + box.width] = True
    assert covered.all()
    assert [g.box.top for g in eval_geometries(30, 90, 8, 3)] == [0, 30, 60]


def test_ten_crops_are_five_and_their_mirror_images():
    five, ten = eval_geometries(640, 360, 224, 5), eval_geometries(640, 360, 224, 10)
    assert {(g.box.left, g.box.top) for g in five} == {
        (0, 0), (325, 0), (0, 45), (325, 45), (162, 22),
    }  # fmt: skip
    assert ten[:5] == five
    assert [g.box for g in ten[5:]] == [g.box for g in five]
    assert [g.flip for g in ten] == [False] * 5 + [True] * 5


def test_another_number_of_crops_is_refused():
    with pytest.raises(ValueError, match="one of 1, 3, 5, 10, got 2"):
        eval_geometries(64, 36, 8, 2)


# ---------------------------------------------------------------- RandAugment


@pytest.mark.parametrize("name", sorted(transforms._AFFINE))
@pytest.mark.parametrize("level", [-0.3, 0.3])
def test_affine_operations_move_frames_and_keypoints_alike(name, level):
    augmentation = Augmentation((), transforms._AFFINE[name](level)[:2])
    frames, keypoints = dot(55, 42, 100, 100), one_joint(55, 42)
    moved = augmentation.apply_to_keypoints(keypoints, 100)[0, 0, 0, :2]
    assert np.abs(moved - (55, 42)).max() > 0.4
    # The grey that comes in from outside is darker than a third of the dot only where black.
    found = find_dot(np.where(augmentation.apply_to_frames(frames) < 130, 0, 200))
    assert found == pytest.approx(moved, abs=0.3)


def test_a_quarter_turn_is_exact_to_the_pixel():
    """Half a pixel between the conventions of frames and keypoints would show here."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    quarter = Augmentation((), transforms._AFFINE["rotate"](3)[:2])
    assert np.array_equal(quarter.apply_to_frames(frames), np.rot90(frames, -1, axes=(1, 2)))
    moved = quarter.apply_to_keypoints(one_joint(1, 2), 9)
    assert moved[0, 0, 0] == pytest.approx((7, 1, 1), abs=1e-5)


def test_a_joined_map_equals_its_parts_one_after_the_other():
    shear, shift = transforms._AFFINE["shear_x"](1), transforms._AFFINE["translate_y"](1)
    joined = Augmentation((), (shift @ shear)[:2])
    keypoints = one_joint(30, 20)
    in_turn = keypoints
    for matrix in (shear, shift):
        in_turn = Augmentation((), matrix[:2]).apply_to_keypoints(in_turn, 64)
    assert np.allclose(joined.apply_to_keypoints(keypoints, 64), in_turn, atol=1e-4)


@pytest.mark.parametrize("name", sorted(transforms._COLOURS))
def test_colours_change_every_frame_alike_and_no_keypoint(name):
    rng = np.random.default_rng(0)
    frame = rng.integers(30, 200, (1, 20, 20, 3), dtype=np.uint8)
    augmentation = Augmentation(((name, 0.3),), NO_CHANGE)
    out = augmentation.apply_to_frames(np.repeat(frame, 3, axis=0))
    assert out.dtype == np.uint8
    assert out.shape == (3, 20, 20, 3)
    assert (out != frame).any()
    assert np.array_equal(out[0], out[2])
    keypoints = one_joint(3, 4)
    assert np.array_equal(augmentation.apply_to_keypoints(keypoints, 20), keypoints)


def test_all_fourteen_operations_are_drawn_and_strengths_stay_at_9_of_30():
    rng = np.random.default_rng(0)
    drawn = [draw_augmentation(rng) for _ in range(1000)]
    assert {name for a in drawn for name, _ in a.colours} == set(transforms._COLOURS)
    assert {abs(level) for a in drawn for _, level in a.colours} == {0.3}
    affine = {a.matrix.tobytes() for a in drawn if not a.colours}
    assert len(affine) > 2 * len(transforms._AFFINE)
    assert any(np.array_equal(a.matrix, NO_CHANGE) and not a.colours for a in drawn)


def test_only_the_given_generator_is_used():
    before, global_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    for seed in range(20):
        one, same = (draw_augmentation(np.random.default_rng(seed)) for _ in range(2))
        assert one.colours == same.colours
        assert np.array_equal(one.apply_to_frames(frames), same.apply_to_frames(frames))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], global_before)  # noqa: NPY002


# ---------------------------------------------------------------- reduced decoding


@given(box=boxes, out=st.integers(8, 90), flip=st.booleans())
def test_frames_are_resized_bit_by_bit_as_before(box, out, flip):
    """One by one they gave what torchvision gave for the whole clip at once."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 103, 101, 3), dtype=np.uint8)
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    expected = torchvision_resized_crop(
        video, box.top, box.left, box.height, box.width, [out, out], antialias=True
    )
    expected = expected.flip(-1) if flip else expected
    found = Geometry(box, out, flip).apply_to_frames(frames)
    assert np.array_equal(found, expected.permute(0, 2, 3, 1).numpy())


@given(
    width=st.integers(40, 1500),
    height=st.integers(40, 1500),
    out=st.integers(8, 224),
    crops=st.sampled_from([1, 3, 5, 10]),
)
def test_crops_move_to_the_grid_of_reduced_frames_and_stay_inside(width, height, out, crops):
    views = eval_geometries(width, height, out, crops)
    reduced = reduce_decoding(views)
    (k,) = {view.reduction for view in reduced}
    if k == 1:
        assert reduced == views
        assert min(views[0].box.width, views[0].box.height) < 2 * out + 2
        return
    for view, before in zip(reduced, views, strict=True):
        box, old = view.box, before.box
        assert all(side % k == 0 for side in (box.left, box.top, box.width, box.height))
        assert min(box.width, box.height) // k >= out
        assert old.left - k < box.left <= old.left
        assert old.top - k < box.top <= old.top
        assert old.width - k < box.width <= old.width
        assert (view.flip, view.out_size) == (before.flip, before.out_size)


@given(
    x=st.floats(60, 190),
    y=st.floats(60, 190),
    k=st.sampled_from([2, 4]),
    left=st.integers(0, 20),
    flip=st.booleans(),
)
def test_keypoints_follow_reduced_frames_exactly(x, y, k, left, flip):
    image = dot(x, y, 250, 243, radius=12)[0]
    height, width = (-(-side // k) for side in image.shape[:2])
    whole = cv2.copyMakeBorder(
        image, 0, -image.shape[0] % k, 0, -image.shape[1] % k, cv2.BORDER_REPLICATE
    )
    small = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    geometry = Geometry(CropBox(left, 7, 221, 230), 50, flip).reduced(k)
    found = find_dot(geometry.apply_to_frames(small[None]))
    moved = geometry.apply_to_keypoints(one_joint(x, y))[0, 0, 0]
    assert found == pytest.approx(moved[:2], abs=0.2)


def test_large_frames_are_decoded_at_an_eighth_and_small_ones_whole():
    def reduction(width: int, height: int, out: int) -> int:
        return reduce_decoding(eval_geometries(width, height, out))[0].reduction

    assert reduction(1280, 720, 224) == 2
    assert reduction(640, 360, 224) == 1
    assert reduction(640, 360, 112) == 2
    assert reduction(3840, 2160, 224) == 8
    assert reduction(512, 512, 224) == 2
    assert reduction(510, 510, 224) == 1


def test_one_small_crop_keeps_all_frames_large():
    large, small = (Geometry(CropBox(0, 0, side, side), 100) for side in (400, 199))
    assert {view.reduction for view in reduce_decoding([large, small])} == {1}
    assert {view.reduction for view in reduce_decoding([large, large])} == {4}
