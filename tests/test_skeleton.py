from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.body_frame import normalize_keypoints
from ops.conversion import to_coco17
from ops.skeleton import BODY18, BODY25, COCO17, HAND21, JHMDB15, swap_left_right

LEFT_HIP, RIGHT_HIP = COCO17.hips


def test_coco_layout_is_consistent():
    assert len(COCO17.joints) == 17
    assert len(set(COCO17.edges)) == 19
    assert {joint for edge in COCO17.edges for joint in edge} == set(range(17))
    for left, right in COCO17.flip_pairs:
        assert COCO17.joints[left].removeprefix("left_") == COCO17.joints[right].removeprefix(
            "right_"
        )
    unpaired = set(range(17)) - {joint for pair in COCO17.flip_pairs for joint in pair}
    assert [COCO17.joints[joint] for joint in unpaired] == ["nose"]
    assert {COCO17.joints[j] for j in (*COCO17.hips, *COCO17.shoulders)} == {
        f"{side}_{part}" for side in ("left", "right") for part in ("hip", "shoulder")
    }


def test_limbs_of_volumes_stand_in_the_order_of_the_published_weights():
    named = [tuple(COCO17.joints[joint] for joint in limb) for limb in COCO17.limbs]
    assert named == [
        ("nose", "left_shoulder"),
        ("nose", "right_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
        ("right_shoulder", "right_hip"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_hip", "right_hip"),
    ]
    lefts, rights = zip(*COCO17.limb_flip_pairs, strict=True)
    assert lefts == (0, 2, 3, 6, 7, 8, 12, 14)
    assert rights == (1, 4, 5, 9, 10, 11, 13, 15)


def test_joints_of_jhmdb_hang_together_as_its_authors_draw_them():
    chains = (
        "belly neck face",
        "neck {}_shoulder {}_elbow {}_wrist",
        "belly {}_hip {}_knee {}_ankle",
    )
    drawn = {
        frozenset(pair)
        for chain in chains
        for side in ("left", "right")
        for pair in pairwise(chain.format(side, side, side).split())
    }
    inward = JHMDB15.inward
    assert {frozenset(JHMDB15.joints[joint] for joint in edge) for edge in inward} == drawn
    assert len(inward) == 14
    assert JHMDB15.flip_pairs == ((4, 3), (6, 5), (8, 7), (10, 9), (12, 11), (14, 13))
    assert JHMDB15.joints[JHMDB15.centre] == "belly"


def test_a_hand_is_a_wrist_with_five_fingers_of_four_joints():
    fingers = [(0, *range(start, start + 4)) for start in (1, 5, 9, 13, 17)]
    chains = [(child, parent) for finger in fingers for parent, child in pairwise(finger)]
    assert HAND21.inward == tuple(chains)
    assert HAND21.centre == 0


def test_edges_are_symmetric_in_a_mirror():
    order = COCO17.mirror_order()
    edges = {frozenset(edge) for edge in COCO17.edges}
    assert {frozenset((order[a], order[b])) for a, b in COCO17.edges} == edges


def test_swapping_moves_left_to_right_and_twice_is_identity(person):
    keypoints = person(3)
    swapped = swap_left_right(keypoints)
    assert np.array_equal(swapped[..., RIGHT_HIP, :], keypoints[..., LEFT_HIP, :])
    assert np.array_equal(swap_left_right(swapped), keypoints)


def middle(keypoints: np.ndarray, joints: tuple[int, int]) -> np.ndarray:
    return keypoints[:, 0, joints, :2].mean(axis=1)


def test_clip_mode_puts_median_hips_at_0_and_median_torso_at_1(person):
    normalized = normalize_keypoints(person(9), "clip")
    hips, shoulders = middle(normalized, COCO17.hips), middle(normalized, COCO17.shoulders)
    assert np.allclose(np.median(hips, axis=0), 0, atol=1e-5)
    assert np.median(np.linalg.norm(shoulders - hips, axis=1)) == pytest.approx(1, abs=1e-5)


def test_frame_mode_does_so_in_every_frame(person):
    normalized = normalize_keypoints(person(9), "frame")
    hips, shoulders = middle(normalized, COCO17.hips), middle(normalized, COCO17.shoulders)
    assert np.allclose(hips, 0, atol=1e-5)
    assert np.allclose(np.linalg.norm(shoulders - hips, axis=1), 1, atol=1e-5)


def test_a_fall_shows_per_clip_and_not_per_frame(person):
    keypoints = person(10)
    keypoints[5:, ..., 1] += 20
    drop = {
        mode: float(np.ptp(middle(normalize_keypoints(keypoints, mode), COCO17.hips)[:, 1]))
        for mode in ("clip", "frame")
    }
    assert drop["clip"] > 1
    assert drop["frame"] < 1e-4


@given(
    scale=st.floats(0.1, 20),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    mode=st.sampled_from(["clip", "frame"]),
    seed=st.integers(0, 99),
)
def test_place_and_size_in_the_image_do_not_matter(scale, shift, mode, seed):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(10, 90, (6, 1, 17, 3))
    keypoints[..., 2] = rng.random((6, 1, 17)) < 0.7
    keypoints *= keypoints[..., 2:]
    moved = keypoints.copy()
    moved[..., :2] = (keypoints[..., :2] * scale + shift) * keypoints[..., 2:]
    expected = normalize_keypoints(keypoints, mode)
    assert np.allclose(normalize_keypoints(moved, mode), expected, atol=1e-3)


def test_defect_11_undetected_joints_stay_exactly_zero(person):
    keypoints = person(6)
    keypoints[2] = 0
    keypoints[4, 0, [LEFT_HIP, 9]] = 0
    for mode in ("clip", "frame", "none"):
        normalized = normalize_keypoints(keypoints, mode)
        missing = keypoints[..., 2] == 0
        assert not normalized[missing].any()
        assert normalized[~missing][:, 2].all()


@pytest.mark.parametrize("mode", ["clip", "frame", "none"])
def test_a_clip_without_any_detection_is_all_zero(mode):
    assert not normalize_keypoints(np.zeros((4, 1, 17, 3)), mode).any()


@pytest.mark.parametrize("mode", ["clip", "frame"])
@pytest.mark.parametrize("unseen", [COCO17.hips, COCO17.shoulders, (*COCO17.hips, 5, 6)])
def test_an_unseen_torso_leaves_the_unit_near_the_torso(person, mode, unseen):
    keypoints = person(8)
    reference = normalize_keypoints(keypoints, mode)
    keypoints[:, :, list(unseen)] = 0
    normalized = normalize_keypoints(keypoints, mode)
    height = [np.mean(k[:, 0, 15, 1] - k[:, 0, 0, 1]) for k in (normalized, reference)]
    assert height[0] / height[1] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("mode", ["clip", "frame"])
def test_one_joint_alone_or_a_torso_seen_end_on_does_not_explode(person, mode):
    alone = np.zeros((3, 1, 17, 3), np.float32)
    alone[1, 0, 9] = 30, 20, 1
    assert np.abs(normalize_keypoints(alone, mode)).max() <= 1
    end_on = person(5)
    end_on[:, 0, COCO17.shoulders] = end_on[:, 0, COCO17.hips] + (0.001, 0, 0)
    assert np.abs(normalize_keypoints(end_on, mode)[..., :2]).max() < 20


def test_one_frame_with_a_wrong_detection_moves_nothing_else(person):
    keypoints = person(9)
    wrong = keypoints.copy()
    wrong[4, ..., :2] *= 3
    right_frames = np.arange(9) != 4
    expected = normalize_keypoints(keypoints, "clip")[right_frames]
    assert np.allclose(normalize_keypoints(wrong, "clip")[right_frames], expected, atol=0.15)


def test_other_people_share_the_frame_of_the_main_person(person):
    pair = np.concatenate((person(5), person(5, seed=1) + (10, 0, 0)), axis=1)
    normalized = normalize_keypoints(pair, "clip")
    assert np.array_equal(normalized[:, :1], normalize_keypoints(pair[:, :1], "clip"))
    unit = np.linalg.norm(np.diff(normalized[0, 0, :2, :2], axis=0)) / np.linalg.norm(
        np.diff(pair[0, 0, :2, :2], axis=0)
    )
    gap = (normalized[0, 1] - normalized[0, 0])[:, 0] / (pair[0, 1] - pair[0, 0])[:, 0]
    assert np.allclose(gap, unit, rtol=1e-3)


def test_none_leaves_pixels(person):
    keypoints = person(3)
    assert np.array_equal(normalize_keypoints(keypoints, "none"), keypoints)


@pytest.mark.parametrize("layout", [BODY18, BODY25], ids=lambda layout: layout.name)
def test_openpose_layouts_are_consistent(layout):
    V = len(layout.joints)
    assert V == len(set(layout.joints)) == int(layout.name.removeprefix("openpose"))
    assert len(set(layout.edges)) == V - 1  # a tree over all joints
    reached = {1}
    for _ in range(V):
        reached |= {joint for edge in layout.edges if reached & set(edge) for joint in edge}
    assert reached == set(range(V))
    for left, right in layout.flip_pairs:
        assert layout.joints[left] == layout.joints[right].replace("right_", "left_")
    unpaired = set(range(V)) - {joint for pair in layout.flip_pairs for joint in pair}
    assert {layout.joints[joint] for joint in unpaired} <= {"nose", "neck", "mid_hip"}
    for part, pair in (("shoulder", layout.shoulders), ("hip", layout.hips)):
        assert [layout.joints[joint] for joint in pair] == [f"left_{part}", f"right_{part}"]


@pytest.mark.parametrize("layout", [BODY18, BODY25], ids=lambda layout: layout.name)
def test_openpose_joints_keep_their_names_in_coco17(layout):
    numbers = np.arange(len(layout.joints))[:, None]
    taken = to_coco17(np.broadcast_to(numbers, (2, 3, len(numbers), 1)))
    assert taken.shape == (2, 3, 17, 1)
    for row in taken.reshape(6, 17):
        assert tuple(layout.joints[joint] for joint in row) == COCO17.joints


@pytest.mark.parametrize("layout", [BODY18, BODY25], ids=lambda layout: layout.name)
def test_mirroring_before_or_after_the_conversion_is_the_same(layout):
    keypoints = np.random.default_rng(0).uniform(0, 99, (4, len(layout.joints), 3))
    mirrored = to_coco17(swap_left_right(keypoints, layout))
    assert np.array_equal(mirrored, swap_left_right(to_coco17(keypoints)))


@pytest.mark.parametrize("num_joints", [17, 26, 68, 133, 136])
def test_layouts_that_begin_with_coco17_are_cut(num_joints):
    keypoints = np.random.default_rng(0).uniform(0, 99, (4, num_joints, 3))
    assert np.array_equal(to_coco17(keypoints), keypoints[:, :17])


@pytest.mark.parametrize("num_joints", [0, 1, 14, 15, 16, 19, 21, 137])
def test_joints_of_another_layout_are_refused(num_joints):
    with pytest.raises(ValueError, match=f"has {num_joints} joints .*known: 17, 18, 25, 26"):
        to_coco17(np.zeros((2, num_joints, 3)))
