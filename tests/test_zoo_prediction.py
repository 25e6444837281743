"""Models of whole clips on videos: as in tests, whoever else is in the window."""

import argparse
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from datasets.loading import build_eval_loader
from datasets.opening import open_dataset
from datasets.poses import save_poses
from errors import InputError
from ops.conversion import convert_keypoints, describe_layout
from ops.skeleton import BODY18, COCO17, NTU25
from options.testing import adopt_options, parse_test_args
from prediction import Predictor, Settings
from prediction.people import Person
from prediction.posing import EstimatedPoses
from scoring import evaluate
from tests.making_zoo import CPU, ZOO, zoo_network
from tests.scenes import SIZE, walker, write_scenes

FACTS = {"dataset": "own", "lists": {}, "clip_frames": 10.0, "clip_seconds": 0.4, "fps": 25.0}
# COCO-17 in the image: what `walker` draws.
FLAT = [name for name in ZOO if name not in ("ntu", "openpose")]


def crowd(seed: int, people: int, num_frames: int = 20) -> np.ndarray:
    """Return (N, M, 17, 3): person 1 leaves for a while, the last slot is always empty."""
    tracks = np.concatenate([walker(seed + 7 * m, num_frames) for m in range(people)], axis=1)
    for slot in range(people):
        tracks[:, slot, :, 0] += 9 * slot - 6
        tracks[:, slot, :, 1] *= 1 - 0.1 * slot
    tracks[:, 0, 3:5] = 0
    if people > 1:
        tracks[5:12, 1] = 0
        tracks[:, -1] = 0
    return tracks


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return the folder of a data set whose test clips have one to four people."""
    folder = tmp_path_factory.mktemp("data")
    root = write_scenes(folder / "own", clips=(2, 2, 3))
    for number in range(3):
        save_poses(root / "poses" / f"test_{number}.npz", crowd(number, number + 1), SIZE, "test")
    return root


def loader_options(network, root) -> argparse.Namespace:
    argv = ["--weights", "x", "--dataset", "own", "--dataset_path", str(root.parent)]
    given = parse_test_args([*argv, "--workers", "0"])
    return adopt_options(given, dict(network.config.options))


def chances(result, track=0):
    return np.array([w.probabilities for w in result.windows if w.track == track])


# ---------------------------------------------------------------- as in tests


@pytest.mark.parametrize("views", [(1, 1), (3, 3)])
@pytest.mark.parametrize("name", FLAT)
def test_one_answer_for_a_clip_equals_the_test_of_it(own, name, views):
    num_clips, crops = views
    network = zoo_network(name)
    args = loader_options(network, own)
    if not network.config.input.has_frames or network.config.options["fusion"] == "rgbpose":
        crops = 1  # they see no other
    loader = build_eval_loader(args, open_dataset(args), "test", num_clips, crops)
    tested = evaluate(network.model, loader, CPU)
    assert np.abs(np.diff(tested.scores, axis=0)).max() > 1e-4  # clips can be told apart
    settings = Settings(whole=True, num_clips=num_clips, test_crops=crops)
    for clip, row in zip(tested.clips, tested.scores, strict=True):
        predictor = Predictor(network, settings)
        (window,) = predictor.predict(own / "frames" / clip, own / "poses").windows
        expected = torch.from_numpy(row).double().softmax(0).numpy()
        np.testing.assert_allclose(window.probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["streams", "late", "posec3d", "rgbpose"])
def test_a_window_equals_a_video_of_its_frames_alone(tmp_path, own, name):
    network = zoo_network(name, FACTS)
    tracks = crowd(2, 3)
    save_poses(tmp_path / "a.npz", tracks, SIZE, "test")
    frames = sorted((own / "frames" / "test_2").iterdir())
    result = Predictor(network, Settings()).predict(own / "frames" / "test_2", tmp_path / "a.npz")
    assert [(w.first_frame, w.last_frame) for w in result.windows] == [(0, 9), (5, 14), (10, 19)]
    part = tmp_path / "part"
    part.mkdir()
    for path in frames[5:15]:
        (part / path.name).write_bytes(path.read_bytes())
    save_poses(tmp_path / "part.npz", tracks[5:15], SIZE, "test")
    alone = Predictor(network, Settings(whole=True)).predict(part, tmp_path / "part.npz")
    np.testing.assert_allclose(chances(alone)[0], chances(result)[1], atol=1e-6)


def test_shared_frames_change_no_answer_of_a_late_fusion(tmp_path, own):
    save_poses(tmp_path / "a.npz", crowd(1, 3), SIZE, "test")
    answers = []
    for share in (True, False):
        network = zoo_network("late", FACTS)
        predictor = Predictor(network, Settings(share=share, people=None))
        answers.append(predictor.predict(own / "frames" / "test_1", tmp_path / "a.npz"))
    shared, alone = answers
    assert any("were computed for the" in note for note in shared.notes)
    assert shared.tracks == alone.tracks == (0, 1)
    for track in shared.tracks:
        np.testing.assert_allclose(chances(shared, track), chances(alone, track), atol=1e-6)


# ---------------------------------------------------------------- who is seen


def test_the_others_of_a_window_are_seen_beside_the_main_athlete_and_not_with_everybody(
    tmp_path, own
):
    network, clip = zoo_network("stgcnpp"), own / "frames" / "test_2"
    tracks = crowd(2, 3)[:, :2]

    def answers(keypoints, people):
        save_poses(tmp_path / "a.npz", keypoints, SIZE, "test")
        settings = Settings(whole=True, people=people)
        return Predictor(network, settings).predict(clip, tmp_path / "a.npz")

    both, first = answers(tracks, 1), answers(tracks[:, :1], 1)
    assert np.abs(chances(both) - chances(first)).max() > 1e-4
    everybody = answers(tracks, None)
    assert everybody.tracks == (0, 1)
    np.testing.assert_allclose(chances(everybody, 0), chances(first), atol=1e-6)
    second = answers(tracks[:, 1:], 1)
    np.testing.assert_allclose(chances(everybody, 1), chances(second), atol=1e-6)


def test_a_window_without_the_main_athlete_is_of_who_is_there(tmp_path, own):
    tracks = crowd(2, 3)
    tracks[:, 0] = 0
    save_poses(tmp_path / "a.npz", tracks, SIZE, "test")
    save_poses(tmp_path / "b.npz", tracks[:, 1:2], SIZE, "test")
    clip, predictor = own / "frames" / "test_2", Predictor(
        zoo_network("stgcnpp"), Settings(whole=True)
    )  # fmt: skip
    one, two = (predictor.predict(clip, tmp_path / name) for name in ("a.npz", "b.npz"))
    np.testing.assert_allclose(chances(one), chances(two), atol=1e-6)
    assert any("no person 0" in note for note in one.notes)


def test_with_nobody_a_picture_is_asked_and_skeletons_say_nothing(tmp_path, own):
    save_poses(tmp_path / "a.npz", np.zeros((20, 2, 17, 3), np.float32), SIZE, "test")
    for name, count in (("stgcnpp", 0), ("posec3d", 0), ("late", 1), ("rgbpose", 1)):
        predictor = Predictor(zoo_network(name), Settings(whole=True))
        result = predictor.predict(own / "frames" / "test_0", tmp_path / "a.npz")
        assert len(result.windows) == count
        assert np.isfinite(chances(result)).all()


class Walker:
    """Finds the people of given tracks, as an estimator does."""

    def __init__(self, tracks):
        self.tracks, self.seen = tracks, 0

    def detect(self, frames):
        from ops.people import Detections

        found = []
        for row in self.tracks[self.seen : self.seen + len(frames)]:
            joints = row[row[..., 2].max(axis=1) > 0]
            low = np.where(joints[..., 2:] > 0, joints[..., :2], np.inf).min(axis=1)
            high = joints[..., :2].max(axis=1)
            boxes = np.concatenate([low, high], axis=1).astype(np.float32)
            found.append(Detections(boxes, np.ones(len(joints), np.float32), joints))
        self.seen += len(frames)
        return found


def test_estimated_people_are_seen_in_order_of_their_rank(own):
    """The same people, found by an estimator in another order, give the same answer."""
    clip, tracks = own / "frames" / "test_1", crowd(0, 3)[:, :2]
    tracks[5:12, 1] = walker(7)[5:12, 0] + (3, 0, 0)
    network = zoo_network("stgcnpp")
    found = []
    for order in ([0, 1], [1, 0]):
        predictor = Predictor(network, Settings(whole=True), Walker(tracks[:, order]))
        found.append(chances(predictor.predict(clip)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("name", ["posec3d", "rgbpose", "late_volumes"])
def test_windows_of_more_and_fewer_people_are_asked_together(own, name):
    tracks = crowd(0, 3)
    tracks[:10, 1:] = 0  # one person, then two of three
    network, clip = zoo_network(name, FACTS), own / "frames" / "test_2"
    found = []
    for size in (1, 8):
        settings = Settings(0.3, 0.2, batch_size=size)
        result = Predictor(network, settings, Walker(tracks)).predict(clip)
        assert len(result.windows) > 2
        found.append(chances(result))
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("name", ["stgcnpp", "posec3d", "rgbpose"])
def test_crops_that_a_network_does_not_see_are_refused(name):
    with pytest.raises(InputError, match="--test_crops 3: .* leave it out"):
        Predictor(zoo_network(name), Settings(test_crops=3))
    Predictor(zoo_network("late"), Settings(test_crops=3))


# ---------------------------------------------------------------- layouts


def test_a_layout_of_ours_in_two_dimensions_is_watched(tmp_path, own):
    flat = describe_layout(replace(NTU25, dims=2))
    network = zoo_network("stgcnpp", skeleton_layout=flat)
    tracks = convert_keypoints(walker(0), COCO17, replace(NTU25, dims=2))
    save_poses(tmp_path / "a.npz", tracks, SIZE, "test")
    result = Predictor(network, Settings(whole=True)).predict(
        own / "frames" / "test_0", tmp_path / "a.npz"
    )
    assert np.isfinite(chances(result)).all()


def test_pose_files_of_another_layout_in_the_image_are_taken(tmp_path, own):
    network, clip = zoo_network("openpose"), own / "frames" / "test_0"
    predictor = Predictor(network, Settings(whole=True))
    assert predictor.layout == BODY18
    save_poses(tmp_path / "a.npz", convert_keypoints(walker(0), COCO17, BODY18), SIZE, "test")
    result = predictor.predict(clip, tmp_path / "a.npz")
    assert len(result.windows) == 1
    assert result.poses.at(0).shape == (1, 18, 3)
    save_poses(tmp_path / "coco.npz", walker(0), SIZE, "test")
    with pytest.raises(InputError, match=r"should be \(N, M, 18, 3\)"):
        predictor.predict(clip, tmp_path / "coco.npz")
    estimated = Predictor(network, Settings(whole=True), Walker(walker(0))).predict(clip)
    np.testing.assert_allclose(chances(estimated), chances(result), atol=1e-6)


def test_estimated_joints_become_those_of_the_network():
    stage = EstimatedPoses(Walker(walker(0)), layout=BODY18)
    person = Person(walker(0)[0, 0], np.zeros(4, np.float32))
    ((number, found),) = stage._converted([{4: person}])[0].items()
    assert number == 4
    np.testing.assert_array_equal(found.joints, convert_keypoints(person.joints, COCO17, BODY18))


def test_joints_that_no_video_or_no_estimator_gives_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"3 dimensions \(ntu25\), a video shows 2") as caught:
        Predictor(zoo_network("ntu"), Settings())
    assert "\n" not in str(caught.value)
    hand = zoo_network("stgcnpp", skeleton_layout="hand21")
    with pytest.raises(InputError, match="of the 21 of hand21") as caught:
        Predictor(hand, Settings(), Walker(walker(0)))
    assert "\n" not in str(caught.value)
    Predictor(hand, Settings())


def test_a_real_video_is_watched(tmp_path, own):
    frames = [cv2.imread(str(path)) for path in sorted((own / "frames" / "test_2").iterdir())]
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, SIZE)
    for frame in frames:
        writer.write(frame)
    writer.release()
    save_poses(tmp_path / "v.npz", crowd(2, 3), SIZE, "test")
    for name in ("rgbpose", "late_volumes"):
        result = Predictor(zoo_network(name, FACTS), Settings()).predict(path, tmp_path / "v.npz")
        assert len(result.windows) == 3
        assert np.abs(np.diff(chances(result), axis=0)).max() > 0
