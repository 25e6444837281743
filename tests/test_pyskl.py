"""Annotation pickles as keypoints to import: what is read, what is named as damaged."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets.importers.pyskl import open_annotations
from errors import InputError
from tests import making_annotations
from tests.making_annotations import write

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ROOT = Path(__file__).resolve().parent.parent


def annotation(name="a", **changes):
    return making_annotations.annotation(name, **{"label": 1, **changes})


def read(path: Path):
    with open_annotations(path) as annotations:
        return {key: annotations.load(key) for key in annotations.aliases}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_annotations_come_back(protocol, tmp_path):
    held = [annotation("a b/\u00e9", dtype=np.float32), annotation("c", frames=7, people=1)]
    path = write(
        tmp_path / "x.pkl",
        held,
        {"train": ["c"], "test": ["a b/\u00e9"]},
        protocol,
    )
    with open_annotations(path) as annotations:
        assert annotations.splits == {"train": ("c",), "test": ("a b/\u00e9",)}
        assert annotations.labels == {"a b/\u00e9": 1, "c": 1}
        assert annotations.size("c") == (64, 36)
        for given_one in held:
            people = annotations.load(given_one["frame_dir"])
            M, T = given_one["keypoint"].shape[:2]
            found = np.zeros((M, T, 17, 3), np.float32)
            found[people.tracks, people.frames] = people.keypoints
            assert np.allclose(found[..., :2], given_one["keypoint"])
            assert np.allclose(found[..., 2], given_one["keypoint_score"])


def test_a_bare_list_without_scores_and_splits_is_read(tmp_path):
    held = annotation()
    del held["keypoint_score"], held["label"], held["img_shape"], held["total_frames"]
    held["keypoint"][1, 2] = 0
    with open_annotations(write(tmp_path / "x.pkl", [held])) as annotations:
        assert annotations.labels == {"a": None}
        assert annotations.splits == {}
        assert annotations.size("a") is None
        people = annotations.load("a")
    assert len(people.frames) == 7  # one of eight is zeros: nobody
    assert set(np.unique(people.keypoints[..., 2])) == {1}


def test_the_name_of_a_clip_is_its_filename_where_there_is_one(tmp_path):
    held = [annotation(str(n), filename=f"fall/video {n}.mp4") for n in range(2)]
    with open_annotations(write(tmp_path / "x.pkl", held)) as annotations:
        assert annotations.aliases["fall/video 1.mp4"] == ("fall/video 1.mp4", "fall/video 1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_frames": 5}, "has 4 frames of keypoints and total_frames 5"),
        ({"label": -1}, "has label -1"),
        ({"label": "fall"}, "has a label that is no whole number"),
        ({"label": True}, "has a label that is no whole number"),
        ({"label": 2**70}, "has a label that is no whole number"),
        ({"img_shape": (0, 5)}, r"img_shape that is not \(height, width\)"),
        ({"img_shape": "36x64"}, r"img_shape that is not \(height, width\)"),
        ({"keypoint": np.zeros((2, 4, 17, 3)), "keypoint_score": None}, "has 3-D keypoints"),
        ({"keypoint": np.zeros((4, 17, 2))}, r"keypoint of shape \(4, 17, 2\)"),
        ({"keypoint": None}, "keypoint of shape None"),
        ({"keypoint": [[1, 2]]}, "a keypoint that is no array of numbers"),
        ({"keypoint": np.array([["a"]])}, "a keypoint that is no array of numbers"),
        ({"keypoint_score": np.zeros((2, 5, 17))}, "has a keypoint_score of shape"),
        ({"keypoint": np.zeros((101, 4, 17, 2)), "keypoint_score": None}, "has 101 people"),
        ({"keypoint": np.zeros((0, 4, 17, 2)), "keypoint_score": None}, "has 0 people"),
        (
            {"keypoint": np.zeros((1, 0, 17, 2)), "keypoint_score": None, "total_frames": 0},
            "0 frames",
        ),
        ({"keypoint": np.ones((2, 4, 15, 2)), "keypoint_score": None}, "has 15 joints"),
    ],
)
def test_a_damaged_annotation_is_named_and_the_others_are_read(changes, message, tmp_path):
    held = [annotation("bad", **changes), annotation("good")]
    path = write(tmp_path / "x.pkl", held)
    with open_annotations(path) as annotations:
        with pytest.raises(InputError, match=message) as error:
            annotations.load("bad")
        assert f"{path}, annotation 'bad'" in str(error.value)
        assert len(annotations.load("good").frames) == 8


def test_the_compressed_kinetics_form_is_refused_by_name(tmp_path):
    held = {"frame_dir": "a", "raw_file": "a.pkl", "frame_inds": np.arange(3), "total_frames": 3}
    with (
        open_annotations(write(tmp_path / "x.pkl", [held])) as annotations,
        pytest.raises(InputError, match="compressed Kinetics form"),
    ):
        annotations.load("a")


def test_what_is_wrong_as_a_whole_is_said(tmp_path):
    held = {
        "split": {"train1": ["a", "b", "gone"], "test1": ["b"], "test2": ["a"], "all": ["a", "b"]},
        "annotations": [
            annotation("a", label=0),
            annotation("b", label=4),
            annotation(None),
            annotation("d"),
            annotation("d"),
        ],
    }
    path = write(tmp_path / "x.pkl", held)
    with open_annotations(path) as annotations:
        assert annotations.findings == [
            f"{path} has 1 annotations without a name",
            f"{path} has labels up to 4 but no clip of class 1: number the classes "
            "without gaps, or name all of them",
            f"{path} has no annotation of 1 clips of split 'train1', such as 'gone'",
            f"{path} has 1 clips in both 'train1' and 'test1', such as 'b'",
        ]
        with pytest.raises(InputError, match="is there 2 times"):
            annotations.load("d")


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with open_annotations(write(tmp_path / "x.pkl", [annotation()])) as annotations:
        assert len(list((tmp_path / "scratch").iterdir())) == 1
        assert annotations.load("a")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_pipe_a_device_or_a_folder_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match=str(path)):
            read(path)


def test_jhmdb_is_read_and_its_15_joints_are_refused():
    path = ROOT.parent / "shared" / "data" / "jhmdb" / "jhmdb14_split1.pkl"
    if not path.is_file():
        pytest.skip("../shared/data is not part of the project: no JHMDB pickle")
    with open_annotations(path) as annotations:
        assert {name: len(clips) for name, clips in annotations.splits.items()} == {
            "train": 433,
            "test": 176,
        }
        assert set(annotations.labels.values()) == set(range(14))
        assert annotations.findings == []
        first = annotations.splits["train"][0]
        assert 15 <= annotations.span(first).last + 1 <= 40
        with pytest.raises(InputError, match="has 15 joints for each person"):
            annotations.load(first)
