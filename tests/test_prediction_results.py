"""Keypoints of a video of any length."""

import numpy as np
import pytest

from prediction.results import PoseTrack, Timings


def joints(value):
    return np.full((17, 3), value, np.float32)


def track_of(frames):
    poses = PoseTrack(17)
    for people in frames:
        poses.append({who: joints(value) for who, value in people.items()})
    return poses


def test_each_person_is_shown_in_its_slot():
    poses = track_of([{7: 0.1}, {}, {7: 0.2, 3: 0.3, 9: 0.9}])
    poses.assign({3: 0, 7: 1})
    assert len(poses) == 3
    assert poses.num_people == 2
    np.testing.assert_array_equal(poses.at(0)[:, 0, 0], np.float32([0, 0.1]))
    np.testing.assert_array_equal(poses.at(1), np.zeros((2, 17, 3)))
    np.testing.assert_array_equal(poses.at(2)[:, 0, 0], np.float32([0.3, 0.2]))


def test_one_slot_may_follow_another_person_in_each_frame():
    poses = track_of([{0: 0.1, 1: 0.2}] * 4)
    poses.follow(np.array([0, 1, -1, 0]))
    shown = [float(poses.at(frame)[0, 0, 0]) for frame in range(4)]
    assert shown == pytest.approx([0.1, 0.2, 0, 0.1])


def test_reading_between_writing_loses_nothing():
    poses = track_of([{0: 0.1}])
    poses.assign({0: 0})
    assert poses.at(0)[0, 0, 0] == np.float32(0.1)
    poses.append({0: joints(0.5)})
    assert [float(poses.at(n)[0, 0, 0]) for n in (0, 1)] == pytest.approx([0.1, 0.5])


@pytest.mark.parametrize("frame", [-1, 2])
def test_other_frames_are_refused(frame):
    with pytest.raises(IndexError):
        track_of([{}, {}]).at(frame)


def test_speeds_are_in_video_seconds_per_second():
    timings = Timings(video=60, decode=6, pose=0, network=30, total=40)
    assert timings.speed == 1.5
    assert timings.stage_speeds() == {"decode": 10, "network": 2}
    assert Timings(60, 0, 0, 0).speed == 0
