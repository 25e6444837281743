"""The built-in data set: a body that moves as bodies do, seen right, and no label in disguise."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from datasets.synthetic import FALL, FPS, LANDED, render_clip, simulate_clip
from datasets.synthetic.body import (
    MIRRORED_JOINTS,
    NUM_KEYPOINTS,
    Joint,
    Physique,
    joint_positions,
    lowest_point,
)
from datasets.synthetic.choreography import (
    GRAVITY,
    flight,
    mirror,
    perform,
    plan_jump,
    plan_outcome,
)
from datasets.synthetic.clip import EXPOSURE
from datasets.synthetic.detector import MISSING_RATE, has_burst
from datasets.synthetic.poses import DIRECTIONS, Pose
from datasets.synthetic.scene import render_background
from datasets.synthetic.skater import Look, build_solids, draw_skater, project_solids
from datasets.synthetic.textures import POOL_SIZE, load_rink
from ops.skeleton import COCO17

SIZE = (160, 90)
NUM_CLIPS = 400
# Under no difference, the AUC of 200 against 200 clips has a standard error of
# sqrt((200 + 200 + 1) / (12 * 200 * 200)) = 0.029, an accuracy one of sqrt(0.25 / 400) = 0.025.
# Bands are 3.3 of these: 1 in 1000 honest generators would fall outside.
AUC_BAND, ACCURACY_BAND = 0.095, 0.083

LIMBS = [
    (Joint.PELVIS, Joint.NECK),
    (Joint.NECK, Joint.HEAD),
    (Joint.LEFT_SHOULDER, Joint.LEFT_ELBOW),
    (Joint.LEFT_ELBOW, Joint.LEFT_WRIST),
    (Joint.RIGHT_SHOULDER, Joint.RIGHT_ELBOW),
    (Joint.RIGHT_ELBOW, Joint.RIGHT_WRIST),
    (Joint.LEFT_HIP, Joint.LEFT_KNEE),
    (Joint.LEFT_KNEE, Joint.LEFT_ANKLE),
    (Joint.LEFT_ANKLE, Joint.LEFT_TOE),
    (Joint.RIGHT_HIP, Joint.RIGHT_KNEE),
    (Joint.RIGHT_KNEE, Joint.RIGHT_ANKLE),
    (Joint.RIGHT_ANKLE, Joint.RIGHT_TOE),
    (Joint.LEFT_HIP, Joint.RIGHT_HIP),
    (Joint.LEFT_SHOULDER, Joint.RIGHT_SHOULDER),
]


@pytest.fixture(scope="module")
def clips():
    """400 clips without pixels, half of them falls."""
    return [simulate_clip(SIZE, (1, number), number % 2) for number in range(NUM_CLIPS)]


@pytest.fixture(scope="module")
def labels(clips):
    return np.array([clip.label for clip in clips])


def landing_frame(clip) -> int:
    """The first frame whose exposure sees the touch-down or what follows."""
    return int(np.ceil((clip.jump.landing - EXPOSURE / 2) * FPS))


# ---------------------------------------------------------------- body and motion


@pytest.mark.parametrize("label", [LANDED, FALL])
def test_limbs_keep_their_length(label):
    for seed in range(10):
        joints = simulate_clip(SIZE, seed, label).joints
        for a, b in LIMBS:
            length = np.linalg.norm(joints[:, a] - joints[:, b], axis=-1)
            assert np.ptp(length) < 1e-9, (a.name, b.name)


@pytest.mark.parametrize("label", [LANDED, FALL])
def test_something_always_rests_on_the_ice_but_in_flight(label):
    for seed in range(10):
        clip = simulate_clip(SIZE, seed, label)
        times = np.arange(len(clip.joints)) / FPS
        lowest = lowest_point(clip.joints, clip.physique.height)
        in_flight = (times > clip.jump.takeoff) & (times < clip.jump.landing)
        assert np.abs(lowest[~in_flight]).max() < 1e-9
        assert lowest[in_flight].min() > 0


def test_the_flight_is_a_parabola_that_reaches_the_apex():
    jump = plan_jump(np.random.default_rng(0))
    times = np.linspace(jump.takeoff, jump.landing, 101)
    height = flight(jump, times)
    assert height.max() == pytest.approx(jump.apex)
    np.testing.assert_allclose(np.diff(height, 2) / np.diff(times)[0] ** 2, -GRAVITY, rtol=1e-6)


def test_the_body_turns_as_often_as_the_jump_says():
    jump = replace(plan_jump(np.random.default_rng(3)), spin_error=0.0, mirrored=False)
    outcome = plan_outcome(jump, LANDED, np.random.default_rng(3))
    times = np.linspace(jump.takeoff - 0.12, jump.landing + 0.05, 400)
    joints = perform(jump, outcome, Physique(1.65, 0.05, 0.09), times)
    across = joints[:, Joint.LEFT_HIP] - joints[:, Joint.RIGHT_HIP]
    angle = np.unwrap(np.arctan2(across[:, 0], across[:, 2]))
    assert (angle[-1] - angle[0]) / (2 * np.pi) == pytest.approx(jump.rotations, abs=0.06)


def test_mirrored_joints_are_those_of_the_coco_layout():
    np.testing.assert_array_equal(MIRRORED_JOINTS[:NUM_KEYPOINTS], COCO17.mirror_order())
    names = [joint.name.lower() for joint in Joint][:NUM_KEYPOINTS]
    assert tuple(names) == COCO17.joints


def test_a_mirrored_jump_is_the_mirror_image_of_the_jump():
    jump = replace(plan_jump(np.random.default_rng(1)), mirrored=False)
    outcome = plan_outcome(jump, FALL, np.random.default_rng(2))
    physique, times = Physique(1.65, 0.05, 0.09), np.arange(40) / FPS
    joints = perform(jump, outcome, physique, times)
    mirrored = perform(replace(jump, mirrored=True), outcome, physique, times)
    np.testing.assert_array_equal(mirror(joints), mirrored)
    np.testing.assert_array_equal(mirror(mirrored), joints)
    assert np.abs(mirrored - joints).max() > 0.1


def test_left_is_to_the_left_of_where_the_nose_points_mirrored_or_not(clips):
    assert 0.4 < np.mean([clip.jump.mirrored for clip in clips]) < 0.6
    for clip in clips[:40]:
        leftwards = clip.joints[:, Joint.LEFT_SHOULDER] - clip.joints[:, Joint.RIGHT_SHOULDER]
        upwards = clip.joints[:, Joint.HEAD] - clip.joints[:, Joint.NECK]
        ahead = clip.joints[:, Joint.NOSE] - clip.joints[:, Joint.HEAD]
        assert (np.cross(leftwards, upwards) * ahead).sum(axis=-1).min() > 0


def test_a_skater_who_faces_the_camera_shows_the_left_hand_on_the_right():
    clip = simulate_clip(SIZE, 0, LANDED)
    body = joint_positions(DIRECTIONS[Pose.GLIDE][None], clip.physique)  # looks along +z
    camera = clip.scene.camera.take(np.array([0]))
    facing = body + [camera.position[0], 0, 0]
    pixels, _ = camera.project(facing)
    assert pixels[0, Joint.LEFT_WRIST, 0] > pixels[0, Joint.NOSE, 0] + 5
    assert pixels[0, Joint.RIGHT_WRIST, 0] < pixels[0, Joint.NOSE, 0] - 5
    assert pixels[0, Joint.HEAD, 1] < pixels[0, Joint.PELVIS, 1] - 5


def test_a_plane_is_seen_where_its_points_are():
    camera = simulate_clip(SIZE, 0, LANDED).scene.camera
    origin, across, along = np.array([1.0, 0, -2]), np.array([0.04, 0, 0]), np.array([0, 0, 0.04])
    homography = camera.plane_to_pixels(7, origin, across, along)
    u, v = 30.0, 55.0
    x, y, w = homography @ [u, v, 1]
    expected, _ = camera.take(np.array([7])).project((origin + u * across + v * along)[None, None])
    np.testing.assert_allclose([x / w, y / w], expected[0, 0], rtol=1e-9)


# ---------------------------------------------------------------- pixels


def test_keypoints_lie_on_the_skater_who_is_drawn():
    for seed in range(6):
        clip = simulate_clip(SIZE, seed, seed % 2)
        solids = build_solids(
            clip.joints, clip.physique.height, Look.draw(np.random.default_rng(seed))
        )
        view = project_solids(solids, clip.scene.camera)
        for index in range(0, len(clip.joints), 6):
            picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            draw_skater(picture, solids, view.take(np.array([index])))
            drawn = np.pad(picture.any(axis=-1), 1)
            x, y, inside = clip.keypoints_exact[index].T
            column, row = np.floor(x).astype(int), np.floor(y).astype(int)
            for joint in np.flatnonzero(inside):
                near = drawn[row[joint] : row[joint] + 3, column[joint] : column[joint] + 3]
                assert near.any(), (seed, index, joint)
            assert drawn.mean() < 0.2


def test_one_seed_gives_the_same_pixels_and_another_does_not():
    first, again = (render_clip((64, 36), 5, FALL) for _ in range(2))
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    other = render_clip((64, 36), 6, FALL)
    shared = min(len(first.frames), len(other.frames))
    assert (first.frames[:shared] != other.frames[:shared]).mean() > 0.5


def test_the_generator_still_makes_what_its_version_promises():
    clip = render_clip(SIZE, (0, 0, 0), LANDED)
    assert len(clip.frames) == 41
    np.testing.assert_allclose(
        clip.keypoints_exact[[0, 20, -1], Joint.LEFT_ANKLE, :2],
        [[72.76, 67.25], [83.14, 58.6], [86.2, 42.91]],
        atol=0.05,
        err_msg="a seed gives another clip than it did: raise VERSION in the writer",
    )
    np.testing.assert_allclose(clip.frames.mean(axis=(0, 1, 2)), [142.2, 150.5, 168.4], atol=1.0)


# ---------------------------------------------------------------- the label is in the exit alone


@pytest.mark.parametrize("seed", range(3))
def test_landing_and_fall_of_one_seed_are_the_same_film_until_the_touch_down(seed):
    landed, fallen = (render_clip(SIZE, seed, label) for label in (LANDED, FALL))
    landing = landing_frame(landed.facts)
    np.testing.assert_array_equal(landed.frames[:landing], fallen.frames[:landing])
    np.testing.assert_array_equal(landed.keypoints[:landing], fallen.keypoints[:landing])
    assert (landed.frames[-1] != fallen.frames[-1]).any()


@pytest.mark.parametrize("seed", range(3))
def test_landing_and_fall_of_one_seed_have_the_same_background_to_the_end(seed):
    landed, fallen = (simulate_clip(SIZE, seed, label).scene for label in (LANDED, FALL))
    rink = load_rink(0, 0, 1)
    for index in range(0, len(landed.camera.focal), 5):
        np.testing.assert_array_equal(
            render_background(landed, rink, index, EXPOSURE),
            render_background(fallen, rink, index, EXPOSURE),
        )


PROPERTIES = {
    "clip length": lambda clip: clip.jump.num_frames,
    "take-off time": lambda clip: clip.jump.takeoff,
    "air time": lambda clip: clip.jump.landing - clip.jump.takeoff,
    "rotations": lambda clip: clip.jump.rotations,
    "low entry": lambda clip: clip.jump.low_entry,
    "missing joints": lambda clip: (clip.keypoints[..., 2] == 0).mean(),
    "missing joints after landing": lambda clip: (
        clip.keypoints[landing_frame(clip) :, :, 2] == 0
    ).mean(),
    "burst": lambda clip: has_burst(clip.keypoints),
    "confidence": lambda clip: clip.keypoints[..., 2].sum() / (clip.keypoints[..., 2] > 0).sum(),
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_of_the_clip_does_not_tell_the_label(clips, labels, name):
    values = [PROPERTIES[name](clip) for clip in clips]
    assert abs(roc_auc_score(labels, values) - 0.5) < AUC_BAND


def accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Five-fold accuracy of a regularised linear classifier."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    return float(cross_val_score(model, np.asarray(features), labels, cv=5).mean())


def pose_features(clip, frame: int) -> np.ndarray:
    """Exact pose of one frame about the pelvis, and where in the picture it is."""
    pose = clip.joints[frame] - clip.joints[frame, Joint.PELVIS] * [1, 0, 1]
    return np.concatenate([pose.ravel(), clip.keypoints_exact[frame].ravel()])


def test_one_frame_before_the_touch_down_the_exact_pose_tells_nothing(clips, labels):
    features = [pose_features(clip, landing_frame(clip) - 1) for clip in clips]
    assert abs(accuracy(features, labels) - 0.5) < ACCURACY_BAND


def test_the_last_pose_tells_the_label(clips, labels):
    assert accuracy([pose_features(clip, -1) for clip in clips], labels) > 0.75


def test_the_background_of_the_whole_clip_tells_nothing(clips, labels):
    features, rinks = [], np.random.default_rng(0).integers(POOL_SIZE, size=NUM_CLIPS)
    for clip, number in zip(clips, rinks.tolist(), strict=True):
        rink = load_rink(0, number, 1)
        frames = np.linspace(0, len(clip.joints) - 1, 6).astype(int)
        shown = [render_background(clip.scene, rink, index, EXPOSURE) for index in frames]
        features.append([(p.mean(axis=(0, 1)), p.std(axis=(0, 1))) for p in shown])
    features = np.array(features).reshape(NUM_CLIPS, -1)
    assert abs(accuracy(features, labels) - 0.5) < ACCURACY_BAND


# ---------------------------------------------------------------- the detector's mistakes


def test_detected_keypoints_are_as_bad_as_they_should_be(clips):
    found = [clip.keypoints[..., 2] > 0 for clip in clips]
    nobody = np.concatenate([~f.any(axis=1) for f in found])
    joints_missing = 1 - np.concatenate(found)[~nobody].mean()
    assert joints_missing == pytest.approx(MISSING_RATE, abs=0.02)
    assert np.mean([has_burst(clip.keypoints) for clip in clips]) == pytest.approx(0.5, abs=0.08)
    for clip, seen in zip(clips[:50], found, strict=False):
        assert not clip.keypoints[~seen].any()
        error = (clip.keypoints - clip.keypoints_exact)[seen][:, :2]
        metre = clip.scene.camera.focal.mean() / np.linalg.norm(clip.scene.camera.position)
        relative = error.std() / (metre * clip.physique.height)
        assert 0.02 < relative < 0.055


def test_skaters_stay_in_the_picture(clips):
    inside = np.concatenate([clip.keypoints_exact[..., 2].ravel() for clip in clips])
    assert inside.mean() > 0.99
