"""Compressed annotations: lists of people, in the file or in pickles of single videos."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from datasets.annotated import open_annotated
from datasets.annotations.checks import check_annotations
from datasets.annotations.choosing import choose_clips
from datasets.annotations.kinetics import Decompression, decompress, note_file
from errors import InputError
from opts import parse_pose_train_args, parse_train_args
from tests.making_annotations import opened, write

V = 17


def people(entries, seed=0, dtype=np.float16):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        (rng.uniform(1, 30, (entries, V, 2)), rng.uniform(0.1, 1, (entries, V, 1))), axis=-1
    ).astype(dtype)


def listed(name="a", frames=(0, 0, 2, 5), total=8, **changes):
    made = {
        "frame_dir": name,
        "label": 0,
        "img_shape": (36, 64),
        "total_frames": total,
        "raw_file": "data/k400/kpfiles/0.pkl",
        "frame_inds": np.array(frames, np.int16),
        "box_score": np.linspace(0.5, 1, len(frames)).astype(np.float16),
        "valid": {0.5: 3},
        **changes,
    }
    return {field: value for field, value in made.items() if value is not None}


def write_files(folder: Path, content, name="kpfiles/0.pkl"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content, 4))


def by_loop(entries, frames, num_frames, most):
    """Fill slot by slot, then order the people of each frame where there are too many."""
    found = [[] for _ in range(num_frames)]
    for frame, person in zip(frames, entries, strict=True):
        found[frame].append(person)
    slots = max(1, max(map(len, found)))
    if slots > most:
        found = [sorted(f, key=lambda p: -p[:, 2].astype(np.float32).sum()) for f in found]
    out = np.zeros((num_frames, min(slots, most), V, 3), entries.dtype)
    for frame, persons in enumerate(found):
        for slot, person in enumerate(persons[:most]):
            out[frame, slot] = person
    return out


@pytest.mark.parametrize("most", [1, 2, 10])
@pytest.mark.parametrize("entries", [0, 1, 40])
def test_slots_are_those_of_a_loop(most, entries):
    rng = np.random.default_rng(entries)
    frames, persons = rng.integers(0, 9, entries), people(entries, most)
    found = decompress(persons, frames, 12, most)
    assert np.array_equal(found, by_loop(persons, frames, 12, most))


def test_people_keep_the_order_of_the_file_unless_there_are_too_many():
    persons = people(3)
    persons[:, :, 2] = np.array([0.2, 0.9, 0.5])[:, None]
    kept = decompress(persons, np.zeros(3, int), 1, 3)
    assert np.array_equal(kept[0], persons)
    best = decompress(persons, np.zeros(3, int), 1, 2)
    assert np.array_equal(best[0], persons[[1, 2]])


@pytest.mark.parametrize("layout", ["pyskl", "mmaction2", "bare", "inline"])
def test_keypoints_are_found_wherever_they_lie(tmp_path, layout):
    persons, other = people(4), people(4, seed=1)
    held = [listed("a"), listed("b")]
    if layout == "pyskl":  # one file of several clips, below folders of another machine
        write_files(tmp_path, {"a": {"keypoint": persons}, "b": {"keypoint": other}})
    elif layout == "inline":
        held = [{**held[0], "keypoint": persons}, {**held[1], "keypoint": other}]
    else:
        for one, values in zip(held, (persons, other), strict=True):
            del one["raw_file"]
            content = {"keypoint": values} if layout == "mmaction2" else values
            write_files(tmp_path, content, f"{one['frame_dir']}.pkl")
    found = opened(tmp_path, held, {"train": ["a"], "val": ["b"]})
    assert found.layout.name == "coco17"
    tracks = found.keypoints("a")
    assert tracks.shape == (3, 2, V, 3)
    assert np.array_equal(tracks[0], persons[:2].astype(np.float32))
    assert np.array_equal(tracks[1:, 0], persons[2:].astype(np.float32))
    assert not tracks[1:, 1].any()
    assert np.array_equal(found.keypoints("b")[2, 0], other[3].astype(np.float32))
    assert found.num_frames("a") == 3
    assert [f for f in check_annotations(found) if f.severity == "error"] == []
    chosen = choose_clips(found, {"train": "train", "val": "val"})
    assert chosen.records["train"][0].num_frames == 3


def test_tracks_of_single_videos_are_taken_as_they_are(tmp_path):
    tracks = np.arange(2 * 5 * V * 2, dtype=np.float32).reshape(2, 5, V, 2) + 1
    held = listed("a", raw_file=None, frame_inds=None, box_score=None, total=5)
    write_files(tmp_path, {"keypoint": tracks, "keypoint_score": tracks[..., 0]}, "a.pkl")
    found = opened(tmp_path, [held]).keypoints("a")
    assert np.array_equal(found[..., :2], tracks.transpose(1, 0, 2, 3))
    assert np.array_equal(found[..., 2], tracks[..., 0].transpose(1, 0, 2))


def test_forms(tmp_path):
    held = [{**listed("a"), "keypoint": people(4)}]
    loose = opened(tmp_path, held, form=Decompression(squeeze=False))
    assert loose.num_frames("a") == len(loose.keypoints("a")) == 8
    assert np.flatnonzero(loose.keypoints("a").any(axis=(1, 2, 3))).tolist() == [0, 2, 5]
    few = opened(tmp_path, held, form=Decompression(min_box_score=0.8))
    assert few.num_frames("a") == len(few.keypoints("a")) == 2
    none = opened(tmp_path, held, form=Decompression(min_box_score=2))
    assert none.num_frames("a") == 1
    assert none.keypoints("a").shape == (1, 1, V, 3)
    assert opened(tmp_path, held, form=Decompression(max_people=1)).keypoints("a").shape[1] == 1


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"frame_inds": np.zeros(3, int)}, "frame_inds", "has 3 frame_inds of 4 people"),
        ({"box_score": np.zeros(5)}, "box_score", "has 5 box_score of 4 people"),
        ({"frame_inds": np.array([0, 1, 2, 8])}, "frame_inds", "has frame_inds 0 to 8"),
        ({"frame_inds": np.array([-1, 1, 2, 3])}, "frame_inds", "has frame_inds -1 to 3"),
        ({"frame_inds": np.zeros(4)}, "frame_inds", "are not whole numbers"),
        ({"frame_inds": np.zeros((4, 1), int)}, "frame_inds", r"of shape (4, 1)"),
        ({"frame_inds": None}, "frame_inds", "a list of people without frame_inds"),
        ({"raw_file": 3}, "raw_file", "that is no name of a file"),
        ({"raw_file": "gone.pkl"}, "raw_file", "in gone.pkl, which is not there"),
        ({"raw_file": "../0.pkl"}, "raw_file", "in ../0.pkl, which is not there"),
    ],
)
def test_broken_lists_are_named(tmp_path, changes, field, message):
    write_files(tmp_path, {name: {"keypoint": people(4)} for name in "ab"})
    write_files(tmp_path.parent, {"b": {"keypoint": people(4)}}, "0.pkl")
    found = opened(tmp_path, [listed("a"), listed("b", **changes)])
    findings = [f for f in check_annotations(found) if f.severity == "error"]
    assert {f.sample for f in findings} == {"b"}
    assert any(f.field == field and message in f.text for f in findings)
    assert found.keypoints("a").shape == (3, 2, V, 3)
    with pytest.raises(InputError, match="clip 'b' has no usable keypoints"):
        found.keypoints("b")


def test_files_may_lie_in_another_folder(tmp_path):
    other = tmp_path / "elsewhere"
    write_files(other, {"a": {"keypoint": people(4)}})
    with pytest.raises(InputError, match=r"of which none is below .*--keypoint_files"):
        opened(tmp_path, [listed()])
    found = opened(tmp_path, [listed()], keypoint_files=other)
    assert found.num_frames("a") == 3
    with pytest.raises(InputError, match="--keypoint_files"):
        opened(tmp_path, [listed()])


def test_files_that_change_or_come_later_are_read_again(tmp_path):
    held = [listed("a"), listed("b", raw_file="1.pkl")]
    write_files(tmp_path, {"a": {"keypoint": people(4)}})
    assert "error" in {f.severity for f in check_annotations(opened(tmp_path, held))}
    write_files(tmp_path, {"b": {"keypoint": people(4)}}, "1.pkl")
    found = opened(tmp_path, held)
    assert {f.severity for f in check_annotations(found)} == {"warning"}
    changed = people(4, seed=5)
    write_files(tmp_path, {"a": {"keypoint": changed}})
    os.utime(tmp_path / "kpfiles" / "0.pkl", (1e9, 1e9))
    again = opened(tmp_path, held).keypoints("a")
    assert np.array_equal(again[0], changed[:2].astype(np.float32))


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_hostile_files_run_nothing_and_the_others_are_read(tmp_path):
    canary = tmp_path / "canary"
    bad = {
        "runs": pickle.dumps({"runs": Runs(f"touch {canary}")}),
        "bomb": b"\x80\x04\x8e" + (2**33).to_bytes(8, "little") + b"abc.",
        "hash": b"}N" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns.",
        "text": b"<html>",
        "none": pickle.dumps({"keypoint": np.ones(3)}),
    }
    good = ("first", "last")
    held = [listed(n, raw_file=f"{n}.pkl") for n in ("first", *bad, "last")]
    for name, content in bad.items():
        (tmp_path / f"{name}.pkl").write_bytes(content)
    for name in good:
        write_files(tmp_path, {name: {"keypoint": people(4)}}, f"{name}.pkl")
    found = opened(tmp_path, held)
    errors = [f for f in check_annotations(found) if f.severity == "error"]
    assert {f.sample: f.field for f in errors} == dict.fromkeys(bad, "raw_file")
    text = {f.sample: f.text for f in errors}
    assert "asks for posix.system" in text["runs"]
    assert "far more memory" in text["bomb"]
    assert "broke the process that read it" in text["hash"]
    assert not canary.exists()
    for name in good:
        assert found.num_frames(name) == 3


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../x.pkl", "\0", "", "/", "c:\\x.pkl"])
def test_names_of_files_lead_nowhere_else(tmp_path, name):
    folder = tmp_path / "root"
    folder.mkdir()
    write(tmp_path / "x.pkl", [])
    assert note_file(name, folder)[1] is None


def test_people_in_unlikely_boxes_may_be_left_out_of_training(tmp_path):
    path = write(tmp_path / "k.pkl", [{**listed("a"), "keypoint": people(4)}], {"train": ["a"]})
    counts = {}
    for least in ("0", "0.8"):
        line = ["--annotations", str(path), "--pose_model", "stgcn", "--min_box_score", least]
        line += ["--skeleton_layout", "coco17", "--train_split", "train", "--val_split", "train"]
        found = open_annotated(parse_pose_train_args(line), tmp_path / "cache")
        counts[least] = len(found.found.keypoints("a"))
    assert counts == {"0": 3, "0.8": 2}


def test_clips_with_nobody_left_are_broken_ones(tmp_path):
    held = [{**listed(name), "keypoint": people(4)} for name in ("a", "b")]
    held[1]["box_score"] = np.full(4, 0.3, np.float16)
    splits = {"train": ["a", "b"]}
    found = opened(tmp_path, held, splits, form=Decompression(min_box_score=0.8))
    errors = [finding for finding in check_annotations(found) if finding.severity == "error"]
    assert [(one.sample, one.field) for one in errors] == [("b", "box_score")]
    with pytest.raises(InputError, match="clip 'b' has nobody with a box_score of at least 0.8"):
        choose_clips(found, {"train": "train", "val": "train"})
    chosen = choose_clips(found, {"train": "train", "val": "train"}, skip=True)
    assert chosen.left_out == {"train": ("b",), "val": ("b",)}


def test_a_least_box_score_of_a_file_without_any_is_told(tmp_path):
    held = [{**listed("a", box_score=None), "keypoint": people(4)}]
    found = opened(tmp_path, held, form=Decompression(min_box_score=0.5))
    assert "no box_score" in " ".join(finding.text for finding in check_annotations(found))


def test_frames_beside_a_compressed_file_keep_their_places(tmp_path):
    clip = {**listed("a"), "keypoint": people(4)}
    unknown = {**listed("b", total=None), "keypoint": people(4, seed=1)}
    path = write(tmp_path / "k.pkl", [clip, unknown], {"train": ["a", "b"]})
    line = ["--annotations", str(path), "--dataset_path", str(tmp_path), "--late_fusion_poses"]
    line += ["--pose_model", "stgcnpp", "--train_split", "train", "--val_split", "train"]
    found = open_annotated(parse_train_args(line), tmp_path / "cache").found
    for name, frames in (("a", 8), ("b", 6)):
        tracks = found.keypoints(name)
        assert found.num_frames(name) == len(tracks) == frames
        assert np.flatnonzero(tracks.any(axis=(1, 2, 3))).tolist() == [0, 2, 5]


@pytest.mark.parametrize("shape", [(4, V, 2), (4, V), (2, 2, V, 4)])
def test_lists_of_people_without_their_scores_are_faults(tmp_path, shape):
    write_files(tmp_path, {"a": {"keypoint": np.ones(shape, np.float16)}})
    write_files(tmp_path, {"b": {"keypoint": people(4)}}, "kpfiles/1.pkl")
    held = [listed("a"), listed("b", raw_file="kpfiles/1.pkl")]
    found = opened(tmp_path, held, {"train": ["a"], "val": ["b"]})
    errors = [finding for finding in check_annotations(found) if finding.severity == "error"]
    assert [(one.sample, one.field) for one in errors] == [("a", "raw_file")]
    assert "it should be (people, V, 3)" in errors[0].text


def test_a_broken_clip_leaves_the_others_of_its_file(tmp_path):
    write_files(tmp_path, {"a": {"keypoint": people(4)}, "b": {"keypoint": np.ones(3)}})
    found = opened(tmp_path, [listed("a"), listed("b")])
    errors = [finding for finding in check_annotations(found) if finding.severity == "error"]
    assert [(one.sample, one.field) for one in errors] == [("b", "raw_file")]
    assert "has a keypoint of shape (3,), it should be (people, V, 3) in" in errors[0].text
    assert len(found.keypoints("a"))


def test_scores_of_the_annotation_fit_the_keypoints_of_its_file(tmp_path):
    for name in ("a", "b"):
        write_files(tmp_path, {"keypoint": np.ones((1, 8, V, 2), np.float16)}, f"{name}.pkl")
    shapes = {"a": (1, 2, V), "b": (1, 8, V)}
    made = [
        {"frame_dir": name, "label": 0, "total_frames": 8, "img_shape": (36, 64),
         "keypoint_score": np.full(shape, 0.5)}
        for name, shape in shapes.items()
    ]  # fmt: skip
    found = opened(tmp_path, made)
    errors = [finding for finding in check_annotations(found) if finding.severity == "error"]
    assert [(one.sample, one.field) for one in errors] == [("a", "keypoint_score")]
    assert f"of shape (1, 2, {V}) beside a keypoint of (1, 8, {V}, 2)" in errors[0].text
    assert (found.keypoints("b")[..., 2] == 0.5).all()
