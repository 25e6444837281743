"""A trained model on a video: as in tests, whatever the video, in bounded memory."""

import numpy as np
import pytest
import torch

from datasets.loading import build_eval_loader
from datasets.opening import open_dataset
from datasets.poses import save_poses
from errors import InputError
from options.testing import adopt_options, parse_test_args
from prediction import Predictor, Settings
from prediction.events import EventRule
from prediction.frames import VideoFile
from scoring import evaluate
from tests.making_videos import SIZE, cut, write_video
from tests.scenes import write_scenes
from tests.small_networks import FLAGS, small_network
from tests.test_tracking import body

FACTS = {"dataset": "synthetic", "lists": {}, "clip_frames": 10.0, "clip_seconds": 0.4, "fps": 25.0}


def walking(num_frames=30, size=SIZE, people=1):
    """Return (N, M, 17, 3) keypoints of people side by side."""
    keypoints = np.ones((num_frames, people, 17, 3), np.float32)
    for slot in range(people):
        place = np.linspace((10 + 15 * slot, 24), (20 + 15 * slot, 24), num_frames)[:, None]
        keypoints[:, slot, :, :2] = body(slot) * 20 + place
    return keypoints


@pytest.fixture
def video(tmp_path):
    path = write_video(tmp_path / "a.mp4", 30)
    save_poses(tmp_path / "a.npz", walking(people=2), SIZE, "test")
    return path


def poses_for(network, path):
    return path.with_suffix(".npz") if network.config.input.has_poses else None


def ask(network, path, poses=None, **settings):
    return Predictor(network, Settings(**settings)).predict(path, poses or poses_for(network, path))


def chances(result, track=0):
    return np.array([w.probabilities for w in result.windows if w.track == track])


# ---------------------------------------------------------------- as in tests


@pytest.mark.parametrize("mode", ["rgb", "early", "late", "fast", "pose"])
@pytest.mark.parametrize("views", [(1, 1), (10, 2)])
def test_one_answer_for_a_clip_equals_the_test_of_it(tmp_path, mode, views):
    root = write_scenes(tmp_path / "own", clips=(2, 2, 3))
    crops, num_clips = views
    flags = () if mode == "pose" else ("--input_size", "32")
    given = parse_test_args(
        ["--weights", "x", "--dataset", "own", "--dataset_path", str(tmp_path), "--workers", "0"]
        + ["--num_segments", "4", "--width", "8", "--arch", "resnet18", *flags, *FLAGS[mode]]
        if mode != "pose"
        else ["--weights", "x", "--dataset", "own", "--dataset_path", str(tmp_path)]
        + ["--workers", "0", "--num_segments", "4", "--pose_only"]
    )
    args = adopt_options(given, {})
    network = small_network(mode)
    clips = build_eval_loader(args, open_dataset(args), "test", num_clips, crops)
    tested = evaluate(network.model, clips, torch.device("cpu"), most_rows=2)
    settings = Settings(whole=True, test_crops=crops, num_clips=num_clips)
    for name, row in zip(tested.clips, tested.scores, strict=True):
        poses = root / "poses" if network.config.input.has_poses else None
        (window,) = Predictor(network, settings).predict(root / "frames" / name, poses).windows
        expected = torch.from_numpy(row).double().softmax(0).numpy()
        np.testing.assert_allclose(window.probabilities, expected, atol=1e-6)
        assert np.argmax(window.probabilities) == np.argmax(row)


@pytest.mark.parametrize("mode", ["rgb", "early", "late", "pose"])
def test_a_window_equals_a_video_of_its_frames_alone(tmp_path, video, mode):
    network = small_network(mode, data=FACTS)
    result = ask(network, video)
    assert [(w.first_frame, w.last_frame) for w in result.windows] == [
        (0, 9), (5, 14), (10, 19), (15, 24), (20, 29),
    ]  # fmt: skip
    folder = tmp_path / "part"
    folder.mkdir()
    cv2 = pytest.importorskip("cv2")
    frames = [frame.picture() for frame in VideoFile(video).frames()]
    for number in range(5, 15):
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), frames[number][..., ::-1])
    save_poses(tmp_path / "part.npz", walking(people=2)[5:15], SIZE, "test")
    alone = ask(network, folder, poses_for(network, tmp_path / "part"), whole=True)
    np.testing.assert_allclose(chances(alone)[0], chances(result)[1], atol=1e-6)


# ---------------------------------------------------------------- windows


def test_the_window_is_a_training_clip_in_seconds(video):
    network = small_network(data={"clip_frames": 10.0, "clip_seconds": 0.8, "fps": 12.5})
    result = ask(network, video)
    assert result.windows[0].last_frame == 19
    assert "0.80 s (the median training clip)" in result.notes[0]


def test_without_a_frame_rate_it_is_a_training_clip_in_frames(video):
    network = small_network(data={"clip_frames": 12.0, "clip_seconds": None, "fps": None})
    assert ask(network, video).windows[0].last_frame == 11


def test_a_checkpoint_that_says_nothing_is_noted(video):
    result = ask(small_network(), video)
    assert "4.00 s (the checkpoint does not say" in result.notes[0]
    assert len(result.windows) == 1


def test_variable_frame_rates_have_windows_in_seconds(tmp_path):
    stamps = [*range(0, 400, 40), *range(400, 1400, 100)]
    path = write_video(tmp_path / "v.mkv", len(stamps), pts=stamps)
    result = ask(small_network(), path, window_seconds=0.4, stride_seconds=0.4)
    assert [(w.first_frame, w.last_frame) for w in result.windows[:3]] == [
        (0, 9),
        (10, 13),
        (14, 17),
    ]
    assert result.windows[-1].last_frame == 19


def test_seconds_end_the_video_early(video):
    result = ask(small_network(), video, seconds=0.5, window_seconds=0.2)
    assert result.num_frames == 13
    assert result.duration == pytest.approx(0.52)


def test_stopping_gives_what_was_seen(video):
    asked = []

    def is_stopped():
        asked.append(1)
        return len(asked) > 15

    result = Predictor(small_network(data=FACTS)).predict(video, is_stopped=is_stopped)
    assert result.num_frames == 15
    assert result.windows[-1].last_frame == 14


def test_dense_frames_at_another_rate_are_noted(video):
    network = small_network("rgb", "--frame_interval", "2", data={**FACTS, "fps": 10.0})
    assert any("2 apart and was trained at 10" in note for note in ask(network, video).notes)


# ---------------------------------------------------------------- what is damaged


def test_a_cut_video_gives_a_result_and_the_reason(tmp_path):
    whole = write_video(
        tmp_path / "a.mp4", 150, size=(320, 240), gop=25, container={"movflags": "faststart"}
    )
    path = cut(whole, tmp_path / "b.mp4", 0.55)
    for settings in ({"window_seconds": 0.4}, {"whole": True}):
        result = ask(small_network(), path, **settings)
        assert 20 < result.num_frames < 130
        assert result.windows[-1].last_frame == result.num_frames - 1
        assert "read up to" in result.notes[-1] or "read up to" in result.notes[-2]


def test_an_index_that_lies_costs_time_but_no_answer(video, monkeypatch):
    expected = ask(small_network(data=FACTS), video)
    for lie in ([0.0], [0.05 * n for n in range(17)], None):
        monkeypatch.setattr(VideoFile, "times", lambda _, lie=lie: lie)
        assert ask(small_network(data=FACTS), video).windows == expected.windows
        whole = ask(small_network(), video, whole=True)
        assert whole.windows[0].last_frame == 29


def test_only_frames_that_windows_need_are_cropped(video):
    from transforms import Geometry  # noqa: PLC0415

    seen = []
    original = Geometry.resize
    patch = pytest.MonkeyPatch()
    patch.setattr(Geometry, "resize", lambda s, f: (seen.append(1), original(s, f))[1])
    try:
        ask(small_network(), video, whole=True)
        assert len(seen) == 4
        seen.clear()
        ask(small_network(data=FACTS), video)
        assert len(seen) <= 5 * 4
    finally:
        patch.undo()


# ---------------------------------------------------------------- people


@pytest.mark.parametrize("mode", ["early", "late", "pose"])
def test_each_person_has_a_time_line(video, mode):
    network = small_network(mode, data=FACTS)
    both = ask(network, video, people=None)
    assert both.tracks == (0, 1)
    assert both.poses.num_people == 2
    one = ask(network, video)
    np.testing.assert_allclose(chances(one), chances(both), atol=1e-6)
    assert np.abs(chances(both, 0) - chances(both, 1)).max() > 1e-6
    assert ask(network, video, people=2).windows == both.windows


def test_nobody_there(tmp_path, video):
    save_poses(tmp_path / "a.npz", walking() * 0, SIZE, "test")
    alone = ask(small_network("pose", data=FACTS), video)
    assert alone.windows == alone.events == ()
    assert any("nobody was found in 5 windows: no answer" in note for note in alone.notes)
    for people in (1, None):
        late = ask(small_network("late", data=FACTS), video, people=people)
        assert len(late.windows) == 5
        assert any("the picture alone was asked" in note for note in late.notes)


def in_slots(path, who):
    """Write keypoints of one person of `walking`, who is in slot who[n] of frame n."""
    keypoints = np.zeros((len(who), 2, 17, 3), np.float32)
    keypoints[np.arange(len(who)), who] = walking(len(who))[:, 0]
    save_poses(path, keypoints, SIZE, "test")


@pytest.mark.parametrize("mode", ["early", "late", "pose"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_main_athlete_may_be_in_any_slot(video, mode, whole):
    network = small_network(mode, data=FACTS)
    in_slots(video.with_suffix(".npz"), [0] * 30)
    first = ask(network, video, whole=whole)
    assert not any("person 0" in note for note in first.notes)
    in_slots(video.with_suffix(".npz"), [1] * 30)
    second = ask(network, video, whole=whole)
    assert second.windows == first.windows
    assert second.events == first.events
    for frame in range(30):
        np.testing.assert_array_equal(second.poses.at(frame), first.poses.at(frame))
    assert not any("nobody" in note for note in second.notes)
    assert any(f"no person 0 in {1 if whole else 5} windows" in note for note in second.notes)


def test_who_is_in_slot_0_is_asked_about_as_in_tests(video):
    network = small_network("pose", data=FACTS)
    both = walking(people=2)
    both[:8, 0] = 0  # still there for a moment in the first window
    save_poses(video.with_suffix(".npz"), both, SIZE, "test")
    result = ask(network, video)
    save_poses(video.with_suffix(".npz"), both[:, :1], SIZE, "test")
    assert result.windows == ask(network, video).windows
    assert not any("person 0" in note for note in result.notes)


def test_an_athlete_who_changes_the_slot_is_followed(video):
    network = small_network("pose", data=FACTS)
    in_slots(video.with_suffix(".npz"), [0] * 30)
    steady = ask(network, video)
    in_slots(video.with_suffix(".npz"), [0] * 10 + [1] * 20)
    changed = ask(network, video)
    assert [w.track for w in changed.windows] == [0] * 5
    np.testing.assert_array_equal(chances(changed)[[0, 2, 3, 4]], chances(steady)[[0, 2, 3, 4]])
    np.testing.assert_array_equal(changed.poses.at(29), steady.poses.at(29))
    np.testing.assert_array_equal(changed.poses.at(2), steady.poses.at(2))


class Estimator:
    """Finds the people of `walking` wherever it looks, in turn."""

    name, version, weights, weights_hash = "fake", "1", "none.pt", "0"

    def __init__(self, keypoints):
        self.keypoints, self.place = keypoints, 0

    def detect(self, frames):
        from tests.test_tracking import frame_of  # noqa: PLC0415

        start, self.place = self.place, self.place + len(frames)
        rows = self.keypoints[start : self.place]
        return [frame_of([(person, 0.9) for person in people]) for people in rows]


@pytest.mark.parametrize("people", [1, 2, None])
def test_poses_on_the_fly_equal_given_ones(video, people):
    network = small_network("late", data=FACTS)
    estimator = Estimator(walking(people=2))
    settings = Settings(people=people)
    found = Predictor(network, settings, estimator, pose_batch=7).predict(video)
    given = ask(network, video, people=people)
    assert found.tracks == given.tracks
    # Who is more important is for the tracker to say.
    ours = sorted(
        map(tuple, np.round(np.stack([chances(found, t) for t in found.tracks]), 5)[:, 2])
    )
    theirs = [chances(given, t)[2] for t in ((0, 1) if people != 1 else (0,))]
    if people != 1:
        np.testing.assert_allclose(ours, sorted(map(tuple, np.stack(theirs))), atol=1e-4)
    assert len(found.poses) == 30
    assert found.poses.at(12)[:, :, 2].all()
    assert found.timings.pose > 0


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("mode", "poses", "settings", "message"),
    [
        ("rgb", None, {"people": None}, "sees RGB alone and cannot tell people apart"),
        ("rgb", "a.npz", {}, "sees RGB alone: leave it out"),
        ("pose", None, {}, "give them with --poses FILE.npz or FOLDER, or find them on the fly"),
        ("late", "none.npz", {}, "none.npz is not there"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, video, mode, poses, settings, message):
    network = small_network(mode)
    with pytest.raises(InputError, match=message) as caught:
        Predictor(network, Settings(**settings)).predict(video, poses and tmp_path / poses)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [20, 40])
@pytest.mark.parametrize("seconds", [0.4, None])
def test_keypoints_of_a_longer_or_shorter_video_are_refused_beforehand(video, count, seconds):
    save_poses(video.with_suffix(".npz"), walking(count), SIZE, "test")
    seen = []
    predictor = Predictor(small_network("late", data=FACTS), Settings(seconds=seconds))
    with pytest.raises(InputError, match=f"keypoints of {count} frames, .* has 30: give"):
        predictor.predict(video, video.with_suffix(".npz"), seen.append)
    assert not seen


def test_an_index_that_lies_makes_no_keypoints_wrong(video, monkeypatch):
    network = small_network("late", data=FACTS)
    expected = ask(network, video)
    for lie in ([0.0], [0.04 * n for n in range(50)], None):
        monkeypatch.setattr(VideoFile, "times", lambda _, lie=lie: lie)
        assert ask(network, video).windows == expected.windows
        assert ask(network, video, seconds=0.5).num_frames == 13


def test_a_cut_video_keeps_the_keypoints_of_the_whole(tmp_path):
    whole = write_video(
        tmp_path / "a.mp4", 150, size=(320, 240), gop=25, container={"movflags": "faststart"}
    )
    path = cut(whole, tmp_path / "b.mp4", 0.55)
    save_poses(tmp_path / "b.npz", walking(150), (320, 240), "test")
    result = ask(small_network("late"), path)
    assert result.num_frames < 150
    assert any("read up to" in note for note in result.notes)


def test_videos_of_one_name_are_refused(tmp_path):
    predictor = Predictor(small_network("late"))
    sources = [VideoFile(tmp_path / "x.mp4"), VideoFile(tmp_path / "x.mkv")]
    with pytest.raises(InputError, match="would share x.npz"):
        predictor.check_poses(tmp_path, sources)
    predictor.check_poses(tmp_path, sources[:1])


def test_a_gap_does_not_make_the_video_longer(tmp_path):
    stamps = [*range(0, 600, 40), *range(20_600, 21_200, 40)]
    path = write_video(tmp_path / "gap.mkv", len(stamps), pts=stamps)
    result = ask(small_network(data=FACTS), path)
    assert result.duration == pytest.approx(21.2)
    assert result.windows[-1].end == pytest.approx(21.2)
    assert result.windows[-1].end <= result.duration
    whole = ask(small_network(), path, whole=True)
    assert whole.windows[0].end == whole.duration == result.duration


def test_live_sources_are_seen_once():
    network = small_network("pose")
    with pytest.raises(InputError, match="--whole needs a video that ends"):
        Predictor(small_network(), Settings(whole=True)).predict("0")
    with pytest.raises(InputError, match="take --pose_weights"):
        Predictor(network).predict("0", poses="x")


def test_events_come_from_the_windows(video):
    rule = EventRule(classes=(0, 1), threshold=1e-9)
    result = ask(small_network(data=FACTS), video, events=rule)
    assert [(e.label, e.start, e.end) for e in result.events] == [
        ("landed", 0.0, pytest.approx(1.2)),
        ("fall", 0.0, pytest.approx(1.2)),
    ]
