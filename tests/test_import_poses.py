"""tools/import_poses.py on small data sets: what is written, what is said, what stops it."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.clip_table import ClipRow, load_table, write_table
from datasets.poses import PoseArchive
from datasets.records import PUBLISHED, load_records, read_header
from datasets.scan import find_clips
from errors import InputError
from ops.skeleton import BODY25, COCO17
from tools import import_poses

ROOT = Path(__file__).resolve().parent.parent
CLIPS = [
    f"{split}_{n}" for split, count in (("train", 4), ("val", 2), ("test", 2)) for n in range(count)
]
N = 12


@pytest.fixture
def root(make_dataset):
    """Return a data set of 8 clips of 12 frames without keypoints."""
    return make_dataset(poses=None)


@pytest.fixture
def checked(monkeypatch):
    calls = []
    monkeypatch.setattr(import_poses, "check_prepared", lambda *a, **k: calls.append((a, k)))
    return calls


@pytest.fixture
def run(root, checked):
    def run(kind: str, source: Path, *more: str) -> int:
        return import_poses.main(
            [
                *("--format", kind, "--source", str(source), *more),
                *("--dataset", root.name, "--dataset_path", str(root.parent)),
            ]
        )

    return run


def poses_of(root: Path, clip: str, num_frames: int = N) -> np.ndarray:
    return PoseArchive(root / "poses" / f"{clip}.npz", num_frames, num_frames, 17).load().keypoints


def expected(person) -> dict[str, np.ndarray]:
    """Return clip -> (N, 17, 3) keypoints of its athlete."""
    return {clip: person(N, seed=seed)[:, 0].round(3) for seed, clip in enumerate(CLIPS)}


def dump(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def alphapose(poses: np.ndarray, first: int = 1, pattern: str = "{:05d}.jpg", skip=()) -> list:
    return [
        {"image_id": pattern.format(first + t), "keypoints": pose.ravel().tolist(), "score": 2.0}
        for t, pose in enumerate(poses)
        if t not in skip
    ]


def write_alphapose(folder: Path, people: dict[str, np.ndarray], **choices) -> Path:
    for clip, poses in people.items():
        dump(folder / clip / "alphapose-results.json", alphapose(poses, **choices))
    return folder


def annotation(clip: str, poses: np.ndarray, label: int = 0, **changes) -> dict:
    return {
        "frame_dir": clip,
        "label": label,
        "img_shape": (36, 64),
        "total_frames": len(poses),
        "keypoint": poses[None, ..., :2].astype(np.float32),
        "keypoint_score": poses[None, ..., 2].astype(np.float32),
        **changes,
    }


def write_pickle(path: Path, annotations: list, split=None) -> Path:
    path.write_bytes(pickle.dumps({"split": split or {}, "annotations": annotations}, 2))
    return path


# ---------------------------------------------------------------- every format, the whole way


def write_openpose(folder: Path, people: dict[str, np.ndarray]) -> Path:
    places = [COCO17.joints.index(j) if j in COCO17.joints else None for j in BODY25.joints]
    for clip, poses in people.items():
        for t, pose in enumerate(poses):
            wide = [[0, 0, 0] if place is None else pose[place].tolist() for place in places]
            person = {"person_id": [-1], "pose_keypoints_2d": sum(wide, [])}
            dump(folder / clip / f"{clip}_{t:012d}_keypoints.json", {"people": [person]})
    return folder


def write_one_alphapose(folder: Path, people: dict[str, np.ndarray]) -> Path:
    entries = [
        e for c, poses in people.items() for e in alphapose(poses, pattern=c + "/{:05d}.jpg")
    ]
    return dump(folder / "all.json", entries)


def write_npy(folder: Path, people: dict[str, np.ndarray]) -> Path:
    for clip, poses in people.items():
        (folder / clip).mkdir(parents=True)
        for t, pose in enumerate(poses, start=1):
            np.save(folder / clip / f"{t:05d}.npy", pose)
    return folder


def write_npz(folder: Path, people: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    for clip, poses in people.items():
        np.savez(folder / f"{clip}.npz", keypoints=poses, width=64, height=36)
    return folder


def write_pyskl(folder: Path, people: dict[str, np.ndarray]) -> Path:
    held = [annotation(clip, poses) for clip, poses in people.items()]
    return write_pickle(folder.with_suffix(".pkl"), held)


WRITERS = {
    "alphapose": write_alphapose,
    "alphapose in one file": write_one_alphapose,
    "openpose": write_openpose,
    "npy": write_npy,
    "npz": write_npz,
    "pyskl": write_pyskl,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_keypoints(kind, root, run, checked, person, tmp_path, capsys):
    people = expected(person)
    source = WRITERS[kind](tmp_path / "in", people)
    assert run(kind.split()[0], source) == 8
    for clip, poses in people.items():
        assert np.allclose(poses_of(root, clip)[:, 0], poses, atol=1e-3)
        with np.load(root / "poses" / f"{clip}.npz", allow_pickle=False) as saved:
            assert (int(saved["width"]), int(saved["height"])) == (64, 36)
            assert str(saved["source"]) == f"{kind.split()[0]} {source.name}"
    text = capsys.readouterr().out
    assert "8 clips matched, 0 clips without keypoints, 0 keypoints of no clip" in text
    assert "96 frames, nobody in 0.0% of them; people: 96 with 1" in text
    assert "WARNING" not in text
    assert checked == [
        (("FRFS", root.parent), {"strict": False, "decode": False, "wrote": ("poses",)})
    ]
    # and the data set is one that training reads
    records = load_records(root / "train_videofolder.txt")
    clips, report = find_clips(root, records, has_frames=True, has_poses=True, in_pixels=True)
    assert (len(clips), report.missing) == (4, 0)


def test_frames_with_nobody_people_and_oddities_are_told(root, run, person, tmp_path, capsys):
    people = expected(person)
    entries = alphapose(people["train_0"], skip=(0, 5))
    entries += alphapose(people["train_0"] + (3, 0, 0), skip=range(2, 12))
    entries[0]["keypoints"][0] = float("nan")
    entries[1]["keypoints"][5] = 1.4
    entries[2]["keypoints"][3] = 70.0
    source = tmp_path / "in"
    dump(source / "train_0.json", entries)
    dump(source / "train_9.json", alphapose(people["train_1"]))
    assert run("alphapose", source, "--no_check") == 1
    text = capsys.readouterr().out
    assert "12 frames, nobody in 8.3% of them; people: 1 with 0, 10 with 1, 1 with 2" in text
    assert "1 clips matched, 7 clips without keypoints, 1 keypoints of no clip" in text
    assert "WARNING: clips without keypoints: 7: test_0, test_1, train_1" in text
    assert f"WARNING: keypoints of no clip of the lists: 1: {source / 'train_9.json'}" in text
    assert "1 joints were NaN, infinite or absurdly far away: undetected now" in text
    assert "1 confidences above 1 were set to 1" in text
    assert "1 joints are outside of their frame" in text
    assert "2 people of single frames are in no slot (--people keeps more)" in text
    assert not poses_of(root, "train_0")[5].any()


def test_clips_of_nobody_are_written_and_named(root, run, tmp_path, capsys):
    for clip in CLIPS:
        (tmp_path / "in" / clip).mkdir(parents=True)
        np.save(tmp_path / "in" / clip / "00001.npy", np.zeros((17, 2)))
    assert run("npy", tmp_path / "in") == 8
    assert not poses_of(root, "val_1").any()
    assert "WARNING: nobody in any frame: 8: test_0" in capsys.readouterr().out


def test_further_people_are_kept_on_request(root, run, person, tmp_path):
    people = expected(person)["train_0"]
    small = people * (0.3, 0.3, 1)
    entries = [
        entry for pair in zip(alphapose(small), alphapose(people), strict=True) for entry in pair
    ]
    dump(tmp_path / "train_0.json", entries)
    run("alphapose", tmp_path / "train_0.json", "--people", "2")
    assert np.allclose(poses_of(root, "train_0"), np.stack((people, small), axis=1), atol=1e-3)
    run("alphapose", tmp_path / "train_0.json", "--overwrite")
    assert poses_of(root, "train_0").shape == (N, 1, 17, 3)


def test_the_boxes_of_the_data_set_say_who_the_athlete_is(root, run, person, tmp_path):
    people = expected(person)["train_0"]
    small = people * (0.3, 0.3, 1)
    dump(tmp_path / "train_0.json", alphapose(people) + alphapose(small))
    box = np.concatenate((small[..., :2].min(1), small[..., :2].max(1)), axis=1)
    box[3] = np.nan
    (root / "boxes").mkdir()
    np.save(root / "boxes" / "train_0.npy", box.astype(np.float32))
    run("alphapose", tmp_path / "train_0.json")
    assert np.allclose(poses_of(root, "train_0")[:, 0], small, atol=1e-3)
    np.save(root / "boxes" / "train_0.npy", box[:5])
    with pytest.raises(InputError, match=r"boxes/train_0.npy has the shape \(5, 4\)"):
        run("alphapose", tmp_path / "train_0.json", "--overwrite")


# ---------------------------------------------------------------- numbers and sizes


def test_ambiguous_numbers_are_asked_for_and_the_answer_is_used(root, run, person, tmp_path):
    people = expected(person)
    write_alphapose(tmp_path / "in", people, first=0, pattern="{}.jpg", skip=(0, 11))
    with pytest.raises(InputError, match="fit both: say with --frame_offset"):
        run("alphapose", tmp_path / "in")
    assert not (root / "poses").exists()
    run("alphapose", tmp_path / "in", "--frame_offset", "1")
    assert np.allclose(poses_of(root, "val_0")[1:11, 0], people["val_0"][1:11], atol=1e-3)
    assert not poses_of(root, "val_0")[[0, 11]].any()


def test_numbers_outside_of_a_clip_leave_it_out(root, run, person, tmp_path, capsys):
    people = expected(person)
    write_alphapose(tmp_path / "in", people)
    extra = dict(image_id="00099.jpg", keypoints=people["val_0"][0].ravel().tolist())
    dump(tmp_path / "in" / "val_0" / "alphapose-results.json", [*alphapose(people["val_0"]), extra])
    assert run("alphapose", tmp_path / "in") == 7
    assert not (root / "poses" / "val_0.npz").exists()
    text = capsys.readouterr().out
    assert "val_0/alphapose-results.json has frames 1 to 99" in text
    assert "7 clips written" in text
    assert "1 left out" in text


def test_keypoints_of_other_frames_are_refused_and_a_size_mends_it(root, run, person, tmp_path):
    large = {clip: poses * (10, 10, 1) for clip, poses in expected(person).items()}
    write_alphapose(tmp_path / "in", large)
    with pytest.raises(InputError, match="joints outside of frames of 64x36 pixels.*--frame_size"):
        run("alphapose", tmp_path / "in")
    run("alphapose", tmp_path / "in", "--frame_size", "640x360")
    poses = PoseArchive(root / "poses" / "val_0.npz", N, N, 17).load()
    assert poses.size == (640, 360)
    assert np.allclose(poses.keypoints_at((64, 36))[:, 0], expected(person)["val_0"], atol=1e-2)
    with pytest.raises(
        InputError, match="for frames of 500x500 pixels, the frames of clip .* 64x36"
    ):
        run("alphapose", tmp_path / "in", "--frame_size", "500x500", "--overwrite")


def test_shares_of_the_frame_are_no_pixels(run, person, tmp_path):
    shares = {clip: poses / (64, 36, 1) for clip, poses in expected(person).items()}
    write_alphapose(tmp_path / "in", shares)
    with pytest.raises(InputError, match="they should be pixels, multiply them"):
        run("alphapose", tmp_path / "in")


def test_a_size_the_wrong_way_round_is_said(run, person, tmp_path, capsys):
    people = expected(person)
    held = [annotation(clip, poses, img_shape=(64, 36)) for clip, poses in people.items()]
    with pytest.raises(InputError, match=r"its img_shape seems to be \(width, height\)"):
        run("pyskl", write_pickle(tmp_path / "x.pkl", held))


def test_arrays_of_another_length_are_left_out(root, run, person, tmp_path, capsys):
    held = [annotation(clip, poses) for clip, poses in expected(person).items()]
    held[3] = annotation(CLIPS[3], expected(person)[CLIPS[3]][:7])
    assert run("pyskl", write_pickle(tmp_path / "x.pkl", held)) == 7
    assert "train_3 holds 7 frames, its clip has 12" in capsys.readouterr().out


def test_clips_in_videos_take_their_size_from_the_table(root, run, person, tmp_path):
    rows = [ClipRow(clip, num_frames=N, width=64, height=36) for clip in CLIPS]
    write_table(root, rows)
    for folder in (root / "frames").iterdir():
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    people = expected(person)
    write_alphapose(tmp_path / "in", people, first=0, pattern="{}.jpg")
    run("alphapose", tmp_path / "in")
    assert np.allclose(poses_of(root, "test_1")[:, 0], people["test_1"], atol=1e-3)
    (root / "clips.csv").unlink()
    with pytest.raises(InputError, match="has no frames: give --frame_size"):
        run("alphapose", tmp_path / "in", "--overwrite")


# ---------------------------------------------------------------- policies


def test_damaged_clips_are_named_and_strict_stops_before_anything(
    root, run, person, tmp_path, capsys
):
    people = expected(person)
    write_alphapose(tmp_path / "in", people)
    (tmp_path / "in" / "val_0" / "alphapose-results.json").write_text("[{")
    (root / "frames" / "val_1" / "00003.jpg").unlink()
    with pytest.raises(InputError, match="--strict: 2 findings, nothing was written; the first:"):
        run("alphapose", tmp_path / "in", "--strict")
    assert not (root / "poses").exists()
    assert run("alphapose", tmp_path / "in") == 6
    text = capsys.readouterr().out
    assert f"left out: {tmp_path / 'in' / 'val_0' / 'alphapose-results.json'}:1 is not JSON" in text
    assert f"left out: {root / 'frames' / 'val_1' / '00003.jpg'} is missing" in text
    assert "6 clips written" in text
    assert "2 left out" in text


def test_strict_stops_for_what_matches_nothing(root, run, person, tmp_path):
    people = expected(person)
    write_alphapose(tmp_path / "in", {**people, "other": people["val_0"]})
    with pytest.raises(InputError, match="1 findings, .* is of no clip of the lists"):
        run("alphapose", tmp_path / "in", "--strict")
    write_alphapose(tmp_path / "some", {"val_0": people["val_0"]})
    with pytest.raises(InputError, match="7 findings, .*: clip test_0 has no keypoints"):
        run("alphapose", tmp_path / "some", "--strict")
    write_alphapose(tmp_path / "good", people)
    assert run("alphapose", tmp_path / "good", "--strict") == 8


def test_what_is_there_is_kept_until_overwrite(root, run, person, tmp_path, capsys):
    people = expected(person)
    write_alphapose(tmp_path / "in", people)
    run("alphapose", tmp_path / "in")
    kept = (root / "poses" / "val_0.npz").stat().st_mtime_ns
    (root / "poses" / "val_1.npz").unlink()
    run("alphapose", tmp_path / "in")
    assert "1 clips written" in capsys.readouterr().out.splitlines()[-3]
    assert (root / "poses" / "val_0.npz").stat().st_mtime_ns == kept
    assert (root / "poses" / "val_1.npz").is_file()
    run("alphapose", tmp_path / "in", "--overwrite")
    assert (root / "poses" / "val_0.npz").stat().st_mtime_ns != kept


def test_a_dry_run_writes_nothing(root, run, checked, person, tmp_path, capsys):
    write_alphapose(tmp_path / "in", expected(person))
    before = sorted(root.rglob("*"))
    assert run("alphapose", tmp_path / "in", "--dry_run") == 8
    assert sorted(root.rglob("*")) == before
    assert "8 clips would be written" in capsys.readouterr().out
    assert checked == []


def test_nothing_that_fits_is_an_error(run, root, person, tmp_path):
    write_alphapose(tmp_path / "in", {"x": person(N)[:, 0], "y": person(N)[:, 0]})
    with pytest.raises(InputError, match="for none of the clips, such as test_0; it has such as"):
        run("alphapose", tmp_path / "in")
    for path in root.glob("*_videofolder.txt"):
        path.unlink()
    with pytest.raises(InputError, match="has no clip list"):
        run("alphapose", tmp_path / "in")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "npz", "--frame_offset", "1"], "--frame_offset is for frame numbers"),
        (["--format", "npy", "--make_lists"], "--make_lists needs --format pyskl"),
        (["--format", "pyskl", "--make_lists"], "--make_lists needs --train_split"),
        (["--format", "pyskl", "--test_split", "x"], "--test_split is for --make_lists"),
        (["--format", "bvh"], "invalid choice"),
        (["--format", "npy", "--frame_offset", "1.5"], "must be a whole number"),
        (["--format", "npy", "--frame_size", "640"], "WIDTHxHEIGHT"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        import_poses.main([*options, "--source", "x", "--dataset", "y"])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- skeletons alone


@pytest.fixture
def skeletons(tmp_path, checked, person):
    """Return a function that makes a data set of skeletons alone from a pickle of 10 clips."""
    poses = {f"clip {n}": person(N, seed=n)[:, 0].round(3) for n in range(10)}
    split = {
        "xsub_train": [f"clip {n}" for n in range(6)],
        "xsub_val": ["clip 6", "clip 7"],
        "xsub_test": ["clip 8", "clip 9"],
    }

    def make(*more: str, changes=None, splits=None):
        held = [
            annotation(clip, array, **{"label": n % 2, **(changes or {}).get(clip, {})})
            for n, (clip, array) in enumerate(poses.items())
        ]
        path = write_pickle(tmp_path / "x.pkl", held, splits or split)
        import_poses.main(
            [
                *("--format", "pyskl", "--source", str(path), "--dataset", "sk"),
                *("--dataset_path", str(tmp_path), "--make_lists", *more),
            ]
        )
        return tmp_path / "sk"

    return make


TRAIN, VAL, TEST = (
    ("--train_split", "xsub_train"),
    ("--val_split", "xsub_val"),
    ("--test_split", "xsub_test"),
)


def names(root: Path, split: str) -> list[str]:
    return [record.name for record in load_records(root / f"{split}_videofolder.txt")]


def test_lists_and_table_come_from_splits_and_labels(skeletons, person):
    root = skeletons(*TRAIN, *VAL, *TEST, "--class_names", "landed", "fall")
    assert names(root, "train") == [f"clip {n}" for n in range(6)]
    assert names(root, "val") == ["clip 6", "clip 7"]
    assert names(root, "test") == ["clip 8", "clip 9"]
    records = load_records(root / "train_videofolder.txt")
    assert [record.label for record in records] == [0, 1] * 3
    header = read_header(root / "test_videofolder.txt")
    assert header == {"made_by": "tools/import_poses.py", "classes": '["landed", "fall"]'}
    table = load_table(root)
    assert table["clip 9"] == ClipRow("clip 9", num_frames=N, width=64, height=36)
    assert np.allclose(poses_of(root, "clip 3")[:, 0], person(N, seed=3)[:, 0], atol=1e-3)
    clips, _ = find_clips(root, records, has_frames=False, has_poses=True)
    assert len(clips) == 6


def test_validation_is_cut_from_training_and_one_split_for_both_is_said(skeletons):
    root = skeletons(*TRAIN, "--test_split", "xsub_val", "--val_fraction", "0.3")
    val = names(root, "val")
    assert len(val) == 2
    assert not set(val) & set(names(root, "train"))
    assert {clip.label for clip in load_records(root / "val_videofolder.txt")} == {0, 1}
    root = skeletons(*TRAIN, *VAL, "--test_split", "xsub_val", "--overwrite")
    assert names(root, "val") == names(root, "test")
    for split in ("train", "val", "test"):
        assert read_header(root / f"{split}_videofolder.txt")["protocol"] == PUBLISHED


def test_damaged_annotations_are_left_out_of_the_lists_and_counted(skeletons, capsys):
    changes = {
        "clip 1": {"total_frames": 3},
        "clip 2": {"label": None},
        "clip 3": {"keypoint": np.ones((1, N, 15, 2)), "keypoint_score": None},
        "clip 4": {"frame_dir": "../clip 4"},
    }
    split = {
        "xsub_train": ["clip 0", "clip 1", "clip 2", "clip 3", "../clip 4", "clip 5", "clip 11"],
        "xsub_val": ["clip 6"],
    }
    root = skeletons(*TRAIN, *VAL, changes=changes, splits=split)
    assert names(root, "train") == ["clip 0", "clip 5"]
    assert read_header(root / "train_videofolder.txt")["left_out"] == "5"
    assert not (root / "test_videofolder.txt").exists()
    text = capsys.readouterr().out
    for reason in (
        "'clip 1' has 12 frames of keypoints and total_frames 3",
        "'clip 2' has no label",
        "'clip 3' has 15 joints for each person",
        "'../clip 4' has a name that is no folder below poses/",
        "has no annotation of clip 'clip 11'",
    ):
        assert reason in text
    with pytest.raises(InputError, match="--strict"):
        skeletons(*TRAIN, *VAL, "--strict", "--overwrite", changes=changes, splits=split)


@pytest.mark.parametrize(
    "name", ["", " ", "/", "a\nb", "# a", "a/../../b", "a\0b", "x" * 300, "\ud800"]
)
def test_names_that_are_no_clips_are_refused(skeletons, name, tmp_path):
    changes = {"clip 0": {"frame_dir": name}}
    split = {"xsub_train": [name, "clip 1", "clip 2"], "xsub_val": ["clip 6"]}
    root = skeletons(*TRAIN, *VAL, changes=changes, splits=split)
    assert names(root, "train") == ["clip 1", "clip 2"]
    assert {path.name for path in tmp_path.iterdir()} == {"x.pkl", "sk"}


@pytest.mark.parametrize(("name", "clip"), [(" x", "x"), ("/etc/x", "etc/x"), ("a\\b.mp4", "a/b")])
def test_names_are_put_below_the_data_set(skeletons, name, clip, tmp_path):
    changes = {"clip 0": {"filename": name}} | {
        f"clip {n}": {"filename": f"clip {n}"} for n in range(1, 10)
    }
    split = {"xsub_train": [name, "clip 1", "clip 2"], "xsub_val": ["clip 6"]}
    root = skeletons(*TRAIN, *VAL, changes=changes, splits=split)
    assert names(root, "train") == [clip, "clip 1", "clip 2"]
    assert (root / "poses" / f"{clip}.npz").is_file()


def test_splits_that_are_not_there_or_share_clips_are_refused(skeletons, tmp_path):
    with pytest.raises(InputError, match="has no split 'train': give --train_split one of xsub_tr"):
        skeletons("--train_split", "train")
    shared = {"xsub_train": ["clip 0", "clip 1"], "xsub_val": ["clip 1"]}
    with pytest.raises(InputError, match="1 clips in both the train and the val split, .*clip 1"):
        skeletons(*TRAIN, *VAL, splits=shared)
    with pytest.raises(InputError, match="1 clips in both the train and the val split"):
        skeletons("--train_split", "xsub_val", *VAL, splits=shared)
    assert not (tmp_path / "sk").exists()


def test_lists_that_are_there_are_not_replaced(skeletons):
    root = skeletons(*TRAIN, *VAL)
    before = (root / "val_videofolder.txt").read_bytes()
    with pytest.raises(InputError, match="is there already: give --overwrite"):
        skeletons("--train_split", "xsub_val")
    assert (root / "val_videofolder.txt").read_bytes() == before


def test_a_pickle_without_sizes_needs_one(skeletons):
    changes = {f"clip {n}": {"img_shape": None} for n in range(10)}
    with pytest.raises(InputError, match="give --frame_size"):
        skeletons(*TRAIN, *VAL, changes=changes)
    root = skeletons(*TRAIN, *VAL, "--frame_size", "64x36", changes=changes)
    assert load_table(root)["clip 0"].width == 64


# ---------------------------------------------------------------- as a program


def program(*arguments: str, **more) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "tools" / "import_poses.py"), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def test_a_hostile_pickle_ends_the_program_with_2_and_one_line(root, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'canary'}",)

    path = tmp_path / "evil file.pkl"
    path.write_bytes(pickle.dumps({"annotations": [Evil()]}))
    where = ("--dataset", root.name, "--dataset_path", str(root.parent))
    done = program("--format", "pyskl", "--source", str(path), *where, cwd=tmp_path)
    out, err = done.communicate()
    assert (done.returncode, out) == (2, "")
    assert err == (
        f"error: {path} is refused: it asks for posix.system, which could run a program: give an "
        "annotation pickle\n"
    )
    assert not (tmp_path / "canary").exists()


def test_killed_and_run_again_it_ends_as_if_it_had_not_been(root, person, tmp_path):
    source = write_alphapose(tmp_path / "in", expected(person))
    options = ("--format", "alphapose", "--source", str(source), "--no_check")
    where = ("--dataset", root.name, "--dataset_path", str(root.parent))
    slow = (
        "import sys, time; sys.path.insert(0, sys.argv.pop(1));"
        "from tools import import_poses as p; write = p.write_clip;"
        "p.write_clip = lambda *a: (time.sleep(0.3), write(*a), print(flush=True));"
        "p.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, str(ROOT), *options, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.35)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {path.name for path in (root / "poses").glob("*.npz")}
    assert 1 <= len(done) < 8
    (root / "poses" / ".val_1.npz.partial").write_bytes(b"half")
    again = program(*options, *where)
    out, err = again.communicate()
    assert (again.returncode, err) == (0, "")
    assert f"{8 - len(done)} clips written" in out
    assert sorted(path.name for path in (root / "poses").iterdir()) == sorted(
        f"{clip}.npz" for clip in CLIPS
    )
    for clip, poses in expected(person).items():
        assert np.allclose(poses_of(root, clip)[:, 0], poses, atol=1e-3)
