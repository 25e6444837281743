"""People keep their numbers through a video of any length; keypoints reach the right frames."""

import numpy as np
import pytest

from errors import InputError
from ops.people import Detections
from ops.skeleton import COCO17
from ops.tracking import follow_people
from prediction.frames import VideoFile
from prediction.people import Follower, Person, between, rank_people, tracks_of
from prediction.posing import EstimatedPoses, GivenPoses, NoPoses, Seen, check_names
from tests.test_tracking import ATHLETE, PASSER, SIZE, frame_of, scene, walker

LONG = 400


def followed(detections, **pace):
    follower = Follower(SIZE, **pace)
    frames = [people for found in detections for people in follower.add(found)]
    return frames + follower.end()


def numbers_of(frames, path):
    """Return the numbers that somebody has in the frames in which they were seen."""
    found = set()
    for frame, seen in zip(frames, path, strict=True):
        if seen is not None:
            found |= {w for w, p in frame.items() if np.allclose(p.joints, seen[0], atol=1e-3)}
    return found


@pytest.mark.parametrize("pace", [{}, {"step": 4, "ahead": 0}, {"step": 17, "ahead": 50}])
def test_identities_stay_over_the_borders_of_chunks(pace):
    one = walker((200, 380), (1000, 380), LONG, seed=1, absent=tuple(range(150, 170)))
    two = walker((1100, 300), (100, 500), LONG, height=220, seed=2, absent=tuple(range(230, 290)))
    frames = followed(scene(one, two), **pace)
    assert len(frames) == LONG
    assert len(numbers_of(frames, one)) == 1
    assert len(numbers_of(frames, two)) == 1
    assert numbers_of(frames, one) != numbers_of(frames, two)


def test_a_short_video_is_followed_as_a_clip_is():
    detections = scene(ATHLETE, PASSER)
    whole = follow_people(detections, SIZE, 2)
    frames = followed(detections)
    ranked = list(rank_people(frames, SIZE))
    for slot, who in enumerate(ranked[:2]):
        np.testing.assert_array_equal(tracks_of(frames, [who], 17)[:, 0], whole[:, slot])


def test_the_look_ahead_is_bounded():
    follower = Follower(SIZE, step=10, ahead=5)
    done = 0
    for number, found in enumerate(scene(walker((200, 300), (900, 300), 300))):
        done += len(follower.add(found))
        assert number + 1 - done < 15
        assert len(follower._recent) <= 120 + 15


def test_nobody_and_nonsense_are_no_people():
    empty = frame_of([])
    bad = Detections(
        np.full((1, 4), np.nan, np.float32), np.ones(1, np.float32), np.ones((1, 17, 3))
    )
    assert followed([empty, bad, empty]) == [{}, {}, {}]


def person(x):
    joints = np.full((17, 3), x, np.float32)
    return Person(joints, np.float32([x, x, x + 10, x + 10]))


def test_between_two_frames_people_are_on_straight_lines():
    found = between({1: person(1.0), 2: person(5.0)}, {1: person(3.0), 7: person(0.5)}, 0.25)
    assert list(found) == [1]
    np.testing.assert_allclose(found[1].joints, 1.5)
    np.testing.assert_allclose(found[1].box, [1.5, 1.5, 11.5, 11.5])
    hidden = person(3.0)
    hidden.joints[4] = 0
    joints = between({1: person(1.0)}, {1: hidden}, 0.5)[1].joints
    assert not joints[4].any()
    assert joints[5].all()


# ---------------------------------------------------------------- stages


class Walk:
    """An estimator that knows where the athlete is: the picture says which frame it is."""

    def __init__(self, path):
        self.path, self.seen = path, []

    def detect(self, frames):
        self.seen += [int(frame[0, 0, 0]) for frame in frames]
        return [frame_of([self.path[int(frame[0, 0, 0])]]) for frame in frames]


def video(count, every=1):
    for number in range(count):
        picture = np.full((1, 1, 3), number, np.uint8) if number % every == 0 else None
        yield Seen(number, number / 25, SIZE, picture=picture)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("is_live", [False, True])
def test_every_frame_comes_out_once_with_its_people(every, is_live):
    path = walker((200, 380), (1000, 380), 130, seed=1)
    estimator = Walk(path)
    stage = EstimatedPoses(estimator, every, batch_size=7, is_live=is_live)
    frames = list(stage.run(video(130, every)))
    assert [seen.number for seen in frames] == list(range(130))
    assert estimator.seen == list(range(0, 130, every))
    assert all(seen.picture is None for seen in frames)
    last = estimator.seen[-1]
    for seen in frames[: last + 1]:
        (found,) = seen.people.values()
        away = np.abs(found.joints[:, :2] - path[seen.number][0][:, :2]).max()
        assert away <= (1e-3 if seen.number % every == 0 else 12)
    assert all(not seen.people for seen in frames[last + 1 :])
    assert stage.seconds > 0


def test_an_empty_video_has_no_frames():
    assert list(EstimatedPoses(Walk([])).run(iter(()))) == []
    assert list(NoPoses().run(video(3)))[2].number == 2


def archive(path, keypoints, **more):
    np.savez(path, keypoints=np.asarray(keypoints, np.float32), **more)
    return path


def standing(place, count=5):
    """Return (N, 1, 17, 3) keypoints, all joints at one place in pixels."""
    keypoints = np.ones((count, 1, 17, 3), np.float32)
    keypoints[..., :2] = place
    return keypoints


def test_given_keypoints_go_to_their_frames(tmp_path):
    keypoints = np.zeros((5, 2, 17, 3), np.float32)
    keypoints[:, 0] = 10
    keypoints[3, 1] = 20
    keypoints[..., 2] = keypoints[..., 2] > 0
    path = archive(tmp_path / "x.npz", keypoints, width=640, height=360)
    stage = GivenPoses(path, COCO17, "x.mp4")
    frames = list(stage.run(video(5)))
    assert [sorted(seen.people) for seen in frames] == [[0], [0], [0], [0, 1], [0]]
    np.testing.assert_allclose(frames[3].people[1].joints[0], [40, 40, 1])  # 1280x720
    stage.check_length(5)


def test_keypoints_of_another_video_are_refused(tmp_path):
    path = archive(tmp_path / "x.npz", standing(10), width=640, height=360)
    with pytest.raises(InputError, match="5 frames, x.mp4 has more: give the keypoints of this"):
        list(GivenPoses(path, COCO17, "x.mp4").run(video(6)))
    with pytest.raises(InputError, match="5 frames, x.mp4 has 4:"):
        GivenPoses(path, COCO17, "x.mp4").check_length(4)
    tall = archive(tmp_path / "y.npz", np.ones((5, 1, 17, 3)), width=360, height=640)
    with pytest.raises(InputError, match="360x640 pixels, x.mp4 has 1280x720"):
        list(GivenPoses(tall, COCO17, "x.mp4").run(video(5)))


@pytest.mark.parametrize(
    ("place", "size", "message"),
    [
        ((0.4, 0.6), {}, "all joints within 2 pixels of the corner of the frame of x.mp4, 1280x720"
         r" pixels \(it has no size recorded\): give the keypoints of this video in pixels"),
        ((3000, 300), {}, r"100% of its joints outside of the frame .* \(it has no size"),
        ((-200, 300), {"width": 640, "height": 360}, "1280x720 pixels: give the keypoints of this"),
    ],
)  # fmt: skip
def test_keypoints_that_are_not_in_pixels_of_the_video_are_refused(tmp_path, place, size, message):
    path = archive(tmp_path / "x.npz", standing(place), **size)
    with pytest.raises(InputError, match=message) as caught:
        list(GivenPoses(path, COCO17, "x.mp4").run(video(5)))
    assert "\n" not in str(caught.value)


def test_a_body_may_be_cut_off_by_the_border(tmp_path):
    keypoints = standing((1310, 300))
    keypoints[:, :, :8, 0] = 1400  # 8 of 17 joints far outside, the others a little
    keypoints[0] = 0  # not seen
    path = archive(tmp_path / "x.npz", keypoints)
    assert len(list(GivenPoses(path, COCO17, "x.mp4").run(video(5)))) == 5
    corner = standing((1, 1))
    corner[4, 0, 3, :2] = 30
    path = archive(tmp_path / "y.npz", corner)
    assert len(list(GivenPoses(path, COCO17, "x.mp4").run(video(5)))) == 5


def test_videos_of_one_name_share_no_keypoints(tmp_path):
    one, two, other = (VideoFile(tmp_path / name) for name in ("a/x.mp4", "b/x.mp4", "b/y.mkv"))
    with pytest.raises(InputError, match="a/x.mp4 and .*b/x.mp4 have the same name") as caught:
        check_names(tmp_path, [one, other, two])
    assert "x.npz: predict them one by one" in str(caught.value)
    check_names(tmp_path, [one, other, one, VideoFile(tmp_path / "b" / ".." / "a" / "x.mp4")])
    check_names(tmp_path / "x.npz", [one, two])  # a file, which is for one video


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 no archive", {"keypoints": np.zeros((0, 1, 17, 3))}, {"other": np.ones(3)},
     {"keypoints": np.full((5, 17, 3), np.nan)}, {"keypoints": np.ones((5, 1, 9, 3))},
     {"keypoints": np.ones(())}],
)  # fmt: skip
def test_files_that_hold_no_keypoints(tmp_path, content):
    path = tmp_path / "x.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(InputError, match="x.npz") as caught:
        GivenPoses(path, COCO17, "x.mp4")
    assert "\n" not in str(caught.value)
