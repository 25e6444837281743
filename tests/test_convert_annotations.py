"""Pickles with the joints of another layout."""

import json

import numpy as np
import pytest

from datasets.annotations.annotation_set import open_annotations
from errors import InputError
from ops.conversion import convert_keypoints
from ops.skeleton import BODY25, COCO17, NTU25
from tests.making_annotations import annotation, write
from tools import convert_annotations as program


def test_clips_labels_and_splits_stay_and_joints_are_converted(tmp_path, capsys):
    clips = [annotation(n, 5, joints=25, label=i, dtype=np.float32) for i, n in enumerate("abc")]
    path = write(tmp_path / "x.pkl", clips, {"train": ["a", "b"], "val": ["c"]})
    out = tmp_path / "out.pkl"
    line = [str(path), "--skeleton_layout", "openpose25", "--to", "coco17", "--output", str(out)]
    assert program.main(line) == 3
    before = open_annotations(path, BODY25, tmp_path / "a")
    after = open_annotations(out, None, tmp_path / "b")
    assert after.layout == COCO17
    assert after.splits == before.splits
    for name in before.names:
        assert (after.label(name), after.size(name)) == (before.label(name), before.size(name))
        expected = convert_keypoints(before.keypoints(name), BODY25, COCO17)
        np.testing.assert_array_equal(after.keypoints(name), expected)
    assert "3 clips, 25 joints of openpose25 to coco17" in capsys.readouterr().out


def test_joints_without_a_source_are_named(tmp_path, capsys):
    path = write(tmp_path / "x.pkl", [annotation(joints=15)])
    program.main([str(path), "--to", "coco17", "--output", str(tmp_path / "o.pkl")])
    assert "undetected everywhere, as jhmdb15 has no place for them: left_eye" in (
        capsys.readouterr().out
    )


def test_three_dimensions_stay_three(tmp_path, capsys):
    path = write(tmp_path / "x.pkl", [annotation(joints=25, dims=3, img_shape=None)])
    out = tmp_path / "o.pkl"
    program.main([str(path), "--to", "jhmdb15", "--output", str(out)])
    source = open_annotations(path, None, tmp_path / "a")
    assert source.layout == NTU25
    found = open_annotations(out, program.layout_of("jhmdb15"), tmp_path / "b")
    assert found.layout.dims == 3
    assert found.keypoints("a").shape == (*source.keypoints("a").shape[:2], 15, 4)
    said = capsys.readouterr().out
    assert "15 joints in 3 dimensions do not tell their layout: give --skeleton_layout jh" in said


def test_joints_that_tell_their_layout_need_no_option(tmp_path, capsys):
    path = write(tmp_path / "x.pkl", [annotation(joints=15)])
    program.main([str(path), "--to", "coco17", "--output", str(tmp_path / "o.pkl")])
    assert "do not tell their layout" not in capsys.readouterr().out


def test_what_cannot_be_converted_leaves_no_file(tmp_path):
    out = tmp_path / "o.pkl"
    path = write(tmp_path / "x.pkl", [annotation()])
    with pytest.raises(InputError, match="there is no conversion between them"):
        program.main([str(path), "--to", "hand21", "--output", str(out)])
    broken = write(tmp_path / "y.pkl", [annotation("a"), annotation("b", keypoint=None)])
    with pytest.raises(InputError, match="clip 'b', keypoint: has no keypoint"):
        program.main([str(broken), "--to", "jhmdb15", "--output", str(out)])
    assert not out.exists()
    program.main([str(broken), "--to", "jhmdb15", "--output", str(out), "--skip_broken"])
    assert open_annotations(out, None, tmp_path / "c").names == ("a",)
    out.write_bytes(b"")
    with pytest.raises(SystemExit):
        program.main([str(path), "--to", "jhmdb15", "--output", str(out)])


@pytest.mark.parametrize("linked", [False, True])
def test_the_file_that_is_read_is_never_replaced(tmp_path, capsys, linked):
    path = output = write(tmp_path / "x.pkl", [annotation(joints=15)])
    before = path.read_bytes()
    if linked:
        output = tmp_path / "link.pkl"
        output.symlink_to(path)
    with pytest.raises(SystemExit) as raised:
        program.main([str(path), "--to", "coco17", "--output", str(output), "--overwrite"])
    assert raised.value.code == 2
    assert "is the file that is read: name another one" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_bare_list_stays_one(tmp_path):
    path = write(tmp_path / "x.pkl", [annotation(joints=25)])
    out = tmp_path / "o.pkl"
    line = [str(path), "--skeleton_layout", "openpose25", "--to", "coco17", "--output", str(out)]
    program.main(line)
    assert open_annotations(out, None, tmp_path / "b").is_bare


def test_clips_that_are_there_twice_are_refused(tmp_path):
    path = write(tmp_path / "x.pkl", [annotation(), annotation(label=1)])
    with pytest.raises(InputError, match="has clip 'a' 2 times"):
        program.main([str(path), "--to", "jhmdb15", "--output", str(tmp_path / "o.pkl")])


def test_numbered_joints_are_not_matched_by_their_numbers(tmp_path):
    path = write(tmp_path / "x.pkl", [annotation(joints=4)])
    lines = []
    chains = ((0, [[1, 0], [2, 1], [3, 2]]), (2, [[0, 1], [1, 2], [3, 2]]))
    for name, (centre, inward) in zip("ab", chains, strict=True):
        described = {"name": name, "num_node": 4, "inward": inward, "center": centre}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(described))
        lines.append(str(file))
    line = [str(path), "--skeleton_layout", lines[0], "--to", lines[1]]
    with pytest.raises(InputError, match="layout b numbers its joints"):
        program.main([*line, "--output", str(tmp_path / "o.pkl")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_frames": 9}, "clip 'bad', total_frames: has 4 frames of keypoints"),
        ({"label": "x"}, "clip 'bad', label: has a label that is no whole number"),
        ({"label": -3}, "clip 'bad', label: has label -3"),
        ({"keypoint": np.full((2, 4, 17, 2), 1e300)}, "clip 'bad', keypoint: has a coordinate of"),
        ({"keypoint": np.ones((2, 4, 18, 2)), "keypoint_score": None}, "clip 'bad', keypoint: has"),
        ({"frame_dir": None}, "the file, frame_dir: annotation 3 has no name"),
    ],
)
def test_broken_clips_are_not_written_as_good_ones(tmp_path, changes, message):
    clips = [annotation("a"), annotation("b"), annotation("bad", **changes)]
    path, out = write(tmp_path / "x.pkl", clips), tmp_path / "o.pkl"
    line = [str(path), "--to", "jhmdb15", "--output", str(out)]
    with pytest.raises(InputError, match=message):
        program.main(line)
    assert not out.exists()
    assert program.main([*line, "--skip_broken"]) == 2
