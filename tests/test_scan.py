import numpy as np
import pytest

from datasets import frames, scan
from datasets.records import load_records
from datasets.scan import find_clips
from errors import InputError


def find(root, **choices):
    records = load_records(root / "train_videofolder.txt")
    return find_clips(root, records, **({"has_frames": True, "has_poses": True} | choices))


def complaint(root, **choices) -> str:
    with pytest.raises(InputError) as caught:
        find(root, **choices)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_clips_come_in_the_order_of_the_list_with_frames_poses_and_size(dataset, person):
    clips, report = find(dataset)
    assert [clip.record.name for clip in clips] == [f"train_{i}" for i in range(4)]
    assert all(clip.size == (64, 36) and clip.images.count == 12 for clip in clips)
    assert np.array_equal(clips[3].keypoints, person(12, seed=3))
    assert report.text() == ""


def test_what_is_not_asked_for_is_not_looked_at(dataset):
    for folder in (dataset / "poses").iterdir():
        folder.unlink()
    clips, _ = find(dataset, has_poses=False)
    assert clips[0].poses is None
    assert clips[0].images is not None


def test_defect_31_skeletons_alone_open_no_image(dataset, make_dataset, monkeypatch):
    monkeypatch.setattr(frames, "image_size", lambda path: pytest.fail(f"opened {path}"))
    without_size = make_dataset("npy", poses="npy")
    for root in (dataset, without_size):
        clips, _ = find(root, has_frames=False)
        assert clips[0].images is None
        assert clips[0].keypoints.shape == (12, 1, 17, 3)


def test_pixels_without_a_recorded_size_need_one_header(make_dataset):
    root = make_dataset(poses="npy", size=(80, 40))
    clips, _ = find(root, has_frames=False, in_pixels=True)
    assert clips[0].size == (80, 40)


def test_defect_05_keypoints_made_at_another_size_are_scaled_or_refused(
    dataset, make_archive, person
):
    path = dataset / "poses" / "train_1.npz"
    make_archive(path, person(12, size=(640, 360)), size=(640, 360))
    clips, _ = find(dataset)
    assert np.allclose(clips[1].keypoints[..., :2], person(12, size=(640, 360))[..., :2] / 10)
    make_archive(path, person(12), size=(64, 48))
    message = complaint(dataset)
    assert f"{path} is for frames of 64x48 pixels, the clip has 64x36" in message


def test_a_clip_without_keypoints_stops_or_is_dropped_or_kept(dataset):
    for number in (1, 2):
        (dataset / "poses" / f"train_{number}.npz").unlink()
    message = complaint(dataset)
    assert "poses/train_1.npz nor .npy files beside its frames are there" in message
    assert message.startswith("2 of 4 clips have no keypoints")
    assert "choose --missing_pose skip or zero" in message

    clips, report = find(dataset, missing_pose="skip")
    assert [clip.record.name for clip in clips] == ["train_0", "train_3"]
    assert report.text() == ("2 of 4 clips had no keypoint file: dropped (--missing_pose skip)")
    for policy, words in (("zero", "every joint undetected"), ("estimate", "--pose_weights")):
        clips, report = find(dataset, missing_pose=policy)
        assert [clip.poses is None for clip in clips] == [False, True, True, False]
        assert words in report.text()


def test_dropping_every_clip_is_an_error(make_dataset):
    root = make_dataset(poses=None)
    assert "has no keypoints for any clip" in complaint(root, missing_pose="skip")


def test_a_wrong_clip_is_found_before_anything_runs(dataset):
    for number in range(2, 13):
        (dataset / "frames" / "train_2" / f"{number:05d}.jpg").unlink()
    assert "train_2 holds 1 jpg files, the list says 12 frames" in complaint(dataset)


def test_keypoints_beyond_the_memory_limit_are_read_when_needed(dataset, monkeypatch, person):
    monkeypatch.setattr(scan, "_MEMORY_BYTES", 2 * person(12).nbytes)
    clips, _ = find(dataset)
    assert [clip.keypoints is None for clip in clips] == [False, False, True, True]
