"""Every fault of an annotation pickle is named with its clip and its field."""

import json

import numpy as np
import pytest

from errors import InputError
from tests.making_annotations import annotation, found_in, opened, write
from tools import check_annotations as program


def keypoints(change=None, joints=17, **shape):
    values = annotation(joints=joints, dtype=np.float32, **shape)["keypoint"]
    if change:
        change(values)
    return values


def put(value, *place):
    def change(values):
        values[place] = value

    return change


NONE = None
CASES = {
    "text label": ({"label": "x"}, "error", "label", "has a label that is no whole number"),
    "bool label": ({"label": True}, "error", "label", "has a label that is no whole number"),
    "negative": ({"label": -1}, "error", "label", "has label -1, it should be at least 0"),
    "huge label": ({"label": 10**9}, "error", "label", "it should be below 100000"),
    "no label": ({"label": NONE}, "error", "label", "has no label"),
    "frames": ({"total_frames": 5}, "error", "total_frames", "has 4 frames of keypoints and"),
    "no frames": ({"total_frames": NONE}, "warning", "total_frames", "has no total_frames"),
    "half frames": ({"total_frames": 4.5}, "error", "total_frames", "that is no whole number"),
    "zero size": ({"img_shape": (0, 5)}, "error", "img_shape", "is not (height, width)"),
    "float size": ({"img_shape": (3.5, 5)}, "error", "img_shape", "is not (height, width)"),
    "one side": ({"img_shape": (36,)}, "error", "img_shape", "is not (height, width)"),
    "no size": ({"img_shape": NONE}, "warning", "img_shape", "has no img_shape"),
    "swapped": (
        {"img_shape": (64, 36), "keypoint": keypoints(put(60, 0, 0, 0, 0))},
        "error",
        "img_shape",
        "height comes first",
    ),
    "swapped, one joint beyond both": (
        {"img_shape": (64, 36), "keypoint": keypoints(put(65, 0, 0, 0, 0))},
        "error",
        "img_shape",
        "height comes first",
    ),
    "swapped, upright": (
        {"keypoint": keypoints() * (1, 2)},  # in a frame that is higher than wide
        "error",
        "img_shape",
        "height comes first",
    ),
    "feet below the frame": (
        {"keypoint": keypoints(put(40, 0, 0, 0, 1))},
        "warning",
        "img_shape",
        "height comes first",
    ),
    "scores of 0": (
        {"keypoint_score": np.zeros((2, 4, 17), np.float32)},
        "error",
        "keypoint_score",
        "all of them with a keypoint_score of 0",
    ),
    "scores of 0 in most frames": (
        {"keypoint_score": np.eye(4)[None, :, :1] * np.ones((2, 4, 17))},
        "warning",
        "keypoint",
        "has nobody in 75% of its frames",
    ),
    "half of a letter pair": (
        {"frame_dir": "\ud800"},
        "error",
        "frame_dir",
        "has no name in its field frame_dir",
    ),
    "objects": (
        {"keypoint": np.array([[1, 2], [3]], object), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has a keypoint that is no array of numbers",
    ),
    "frames between frames": (
        {"frame_inds": [0.9, 3.7], "keypoint": np.ones((2, 17, 3)), "keypoint_score": NONE},
        "error",
        "frame_inds",
        "has frame_inds that are not whole numbers",
    ),
    "a file that no name can be of": (
        {"raw_file": "x" * 300, "keypoint": NONE, "keypoint_score": NONE},
        "error",
        "raw_file",
        "which is not there",
    ),
    "a crowd of joints": (
        {"keypoint": np.ones((0, 4, 2**33, 2)), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has 8589934592 joints, it should have 1 to 1000",
    ),
    "far outside": (
        {"keypoint": keypoints(put(900, 0, 0, 0, 0))},
        "warning",
        "keypoint",
        "far outside of the frame",
    ),
    "far to the left": (
        {"keypoint": keypoints(put(-500, 0, 0, 0, 0))},
        "warning",
        "keypoint",
        "far outside of the frame",
    ),
    "negative scores": (
        {"keypoint_score": np.full((2, 4, 17), -0.5, np.float32)},
        "error",
        "keypoint_score",
        "has keypoint_score -0.5 to -0.5, it should be 0 to 1",
    ),
    "a score below 0": (
        {"keypoint_score": np.linspace(-0.1, 1, 2 * 4 * 17).reshape(2, 4, 17)},
        "warning",
        "keypoint_score",
        "has keypoint_score down to -0.1: such joints count as undetected",
    ),
    "a bit outside": (
        {"img_shape": (64, 36), "keypoint": keypoints(put(37, 0, 0, 0, 0))},
        "warning",
        "img_shape",
        "height comes first",
    ),
    "NaN": (
        {"keypoint": keypoints(put(np.nan, 1, 2, 3))},
        "error",
        "keypoint",
        "has 2 values in keypoint that are NaN or infinite",
    ),
    "infinite half": (
        {"keypoint": keypoints(put(-np.inf, 0, 0, 0, 1)).astype(np.float16)},
        "error",
        "keypoint",
        "has 1 values in keypoint",
    ),
    "far": (
        {"keypoint": keypoints(put(2e6, 0, 0, 0, 0))},
        "error",
        "keypoint",
        "a coordinate of 2e+06",
    ),
    "NaN score": (
        {"keypoint_score": np.full((2, 4, 17), np.nan)},
        "error",
        "keypoint_score",
        "has 136 values in keypoint_score",
    ),
    "per cent": (
        {"keypoint_score": np.full((2, 4, 17), 90)},
        "error",
        "keypoint_score",
        "has keypoint_score 90 to 90, it should be 0 to 1",
    ),
    "no scores": ({"keypoint_score": NONE}, "warning", "keypoint_score", "has no keypoint_score"),
    "score shape": (
        {"keypoint_score": np.ones((2, 4))},
        "error",
        "keypoint_score",
        "has a keypoint_score of shape (2, 4) beside a keypoint of (2, 4, 17, 2)",
    ),
    "text score": (
        {"keypoint_score": np.array(["a"])},
        "error",
        "keypoint_score",
        "is no array of numbers",
    ),
    "flat keypoint": (
        {"keypoint": np.zeros((4, 34)), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has a keypoint of shape (4, 34), it should be (M, T, V, 2)",
    ),
    "lists": ({"keypoint": [[1]]}, "error", "keypoint", "is no array of numbers"),
    "joints": (
        {"keypoint": np.ones((2, 4, 15, 2)), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has 15 joints, it should have 17",
    ),
    "dims": (
        {"keypoint": np.ones((2, 4, 17, 3)), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has keypoints of 3 values, the others have 2",
    ),
    "nobody": (
        {"keypoint": np.ones((0, 4, 17, 2)), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has 0 people and 4 frames",
    ),
    "crowd": (
        {"keypoint": np.ones((101, 4, 17, 2)), "keypoint_score": NONE},
        "error",
        "keypoint",
        "has 101 people",
    ),
    "no moment": (
        {"keypoint": np.ones((2, 0, 17, 2)), "keypoint_score": NONE, "total_frames": 0},
        "error",
        "keypoint",
        "and 0 frames",
    ),
    "zeros": (
        {"keypoint": keypoints(put(0, slice(None), slice(3)))},
        "warning",
        "keypoint",
        "has nobody in 75% of its frames",
    ),
    "no keypoint": (
        {"keypoint": NONE, "keypoint_score": NONE},
        "error",
        "keypoint",
        "has no keypoint, and bad.pkl is not there either",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_named_with_clip_and_field(case, tmp_path):
    changes, *expected = CASES[case]
    held = [annotation("one"), annotation("bad", **changes), annotation("two")]
    found = found_in(tmp_path, held)
    name = "" if "frame_dir" in changes else "bad"
    assert {sample for _, sample, _, _ in found} <= {"", name}
    assert [row for row in found if row[:3] == (expected[0], name, expected[1])]
    assert any(expected[2] in text for _, sample, _, text in found if sample == name)


def test_confidences_in_place_of_z_are_told(tmp_path):
    joined = np.ones((1, 4, 25, 3)) * (60, 30, 0.9)
    found = found_in(tmp_path, [annotation("a", joints=25, dims=3, keypoint=joined)])
    assert "give them as keypoint_score" in " ".join(text for *_, text in found)
    metres = np.ones((1, 4, 25, 3)) * (0.6, 1.3, 0.9)
    clip = annotation("b", joints=25, dims=3, keypoint=metres, img_shape=None)
    assert not found_in(tmp_path, [clip])


def test_good_annotations_have_no_finding(tmp_path):
    outside = keypoints(put(60, 0, 0, 0, slice(None)))  # of either orientation
    held = [
        annotation("e", img_shape=(64, 36), keypoint=outside),
        annotation("a", people=1),
        annotation("b", people=3, frames=1),
        annotation("c", dtype=np.float64, label=1),
        annotation("d", img_shape=np.array([36, 64]), label=np.int64(1)),
    ]
    assert found_in(tmp_path, held, {"train": ["a", "b"], "val": ["c", "d"]}) == []


def test_shapes_are_compared_with_the_layout_that_is_named(tmp_path):
    from ops.skeleton import JHMDB15

    held = [annotation("a"), annotation("b"), annotation("c", joints=15)]
    with pytest.raises(
        InputError, match="has 17 joints in 2 dimensions, jhmdb15 has 15.* convert the file"
    ):
        opened(tmp_path, held, layout=JHMDB15)


def test_labels_of_a_file(tmp_path):
    held = [annotation("a"), annotation("b", label=4), annotation("c", label=2)]
    (found,) = found_in(tmp_path, held)
    assert found[:3] == ("warning", "", "label")
    assert "up to 4 but no clip of class 1 and 1 more" in found[3]
    (found, _) = found_in(tmp_path, held, num_classes=4)
    assert found[0] == "warning"
    found = [f for f in found_in(tmp_path, held, num_classes=4) if f[1]]
    assert found == [
        ("error", "b", "label", "has label 4, it should be below 4, the number of classes")
    ]
    (found,) = found_in(tmp_path, [annotation("a", label=None)])
    assert found[3].startswith("has no labels")


def test_names(tmp_path):
    held = [annotation("a"), annotation("a"), annotation(None), annotation("b")]
    held[2]["frame_dir"] = 3
    assert found_in(tmp_path, held) == [
        ("error", "", "frame_dir", "annotation 3 has no name in its field frame_dir"),
        ("error", "a", "frame_dir", "is there 2 times: leave one"),
    ]


# ---------------------------------------------------------------- the program


def test_the_program_says_all_and_ends_with_2_where_there_are_errors(tmp_path, capsys):
    held = [annotation(str(n), label=-1 if n % 2 else 0) for n in range(40)]
    path = write(tmp_path / "x.pkl", held, {"train": [str(n) for n in range(40)]})
    with pytest.raises(SystemExit) as stop:
        program.main([str(path), "--json", str(tmp_path / "out.json"), "--shown", "3"])
    assert stop.value.code == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "error: clip '1', label: has label -1, it should be at least 0"
    assert said[3] == "... and 17 more of the kind: negative label"
    assert said[-4:] == [
        f"{path}: 40 clips, 40 of them readable, 1 classes",
        "splits: train 40",
        "layout coco17; joints 17, people 2, frames 4",
        "20 errors, 0 warnings",
    ]
    kept = json.loads((tmp_path / "out.json").read_text())
    assert len(kept["findings"]) == 20
    assert kept["summary"]["splits"] == {"train": 40}
    assert {p.name for p in tmp_path.iterdir()} == {"x.pkl", "out.json"}


def test_the_program_looks_at_joints_of_no_known_layout(tmp_path, capsys):
    path = write(tmp_path / "x.pkl", [annotation("a", joints=19), annotation("b", joints=25)])
    with pytest.raises(SystemExit):
        program.main([str(path)])
    said = capsys.readouterr().out
    assert "error: clip 'b', keypoint: has 25 joints, it should have 19" in said
    assert "which is no layout that we know" in said
    described = {"num_node": 25, "inward": [[1, 0]], "center": 0}
    (tmp_path / "own.json").write_text(json.dumps(described))
    with pytest.raises(SystemExit):
        program.main([str(path), "--layout", str(tmp_path / "own.json")])
    assert "error: clip 'a', keypoint: has 19 joints, it should have 25" in capsys.readouterr().out


def test_joints_that_training_would_ask_for_are_an_error(tmp_path, capsys):
    path = write(tmp_path / "x.pkl", [annotation("a", joints=25)])
    with pytest.raises(SystemExit) as stopped:
        program.main([str(path)])
    assert stopped.value.code == 2
    assert "may be of several layouts: name it with --skeleton_layout" in capsys.readouterr().out
    assert program.main([str(path), "--skeleton_layout", "openpose25"]) == []


def test_the_program_is_content_with_the_jhmdb_pickle(capsys):
    path = program.ROOT.parent / "shared" / "data" / "jhmdb" / "jhmdb14_split1.pkl"
    if not path.is_file():
        pytest.skip("../shared/data is not part of the project: no JHMDB pickle")
    assert program.main([str(path)]) == []
    said = capsys.readouterr().out
    assert "609 clips, 609 of them readable, 14 classes" in said
    assert "layout jhmdb15; joints 15, people 1, frames 15 to 40" in said
