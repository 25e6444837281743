"""Pickles for PYSKL and MMAction2: what they say, and that nothing is lost on the way."""

import contextlib
import pickle
import pickletools

import numpy as np
import pytest

from datasets.annotations.annotation_set import open_annotations
from datasets.annotations.exporting import Annotation, write_annotations
from datasets.poses import save_poses
from datasets.records import ClipRecord, write_list
from errors import InputError
from tests.making_annotations import annotation, write
from tools import export_annotations as program
from tools import import_poses


def tracks(frames, people, seed=0, joints=17):
    rng = np.random.default_rng(seed)
    made = rng.uniform(1, 60, (frames, people, joints, 3))
    made[..., 2] = rng.uniform(0.1, 1, (frames, people, joints))
    made[rng.random((frames, people, joints)) < 0.2] = 0
    return made.astype(np.float32)


@pytest.fixture
def made(tmp_path):
    """Make a data set of keypoints, and return its folder and its tracks."""
    root = tmp_path / "own"
    clips = {f"set {n % 2}/clip_{n}": tracks(n + 3, 1 + n % 3, n) for n in range(5)}
    for name, keypoints in clips.items():
        save_poses(root / "poses" / f"{name}.npz", keypoints, (64, 36), "test")
    records = [ClipRecord(name, len(held), n % 2) for n, (name, held) in enumerate(clips.items())]
    write_list(root / "train_videofolder.txt", records[:3])
    write_list(root / "val_videofolder.txt", records[3:])
    write_list(root / "test_videofolder.txt", records[3:])
    return root, clips


def export(root, out, *options):
    where = ["--dataset", root.name, "--dataset_path", str(root.parent), "--output", str(out)]
    return program.main([*where, *options])


def test_keypoints_of_another_layout_are_exported_as_they_are(tmp_path):
    root = tmp_path / "own"
    held = tracks(4, 1, joints=15)
    save_poses(root / "poses" / "a.npz", held, (64, 36), "test")
    write_list(root / "train_videofolder.txt", [ClipRecord("a", 4, 0)])
    out = tmp_path / "own.pkl"
    with pytest.raises(InputError, match="17"):
        export(root, out)
    assert export(root, out, "--skeleton_layout", "jhmdb15") == 1
    assert np.array_equal(open_annotations(out, None, tmp_path / "c").keypoints("a"), held)


def test_coordinates_too_far_for_half_precision_are_refused(tmp_path):
    far = Annotation("a", 0, np.full((4, 1, 17, 3), 70_000, np.float32), (64, 36))
    for dtype in (np.float16, np.float32):
        path = tmp_path / f"{dtype.__name__}.pkl"
        with contextlib.suppress(InputError):
            write_annotations(path, [far], {}, dtype)
        assert path.exists() == (dtype == np.float32)


def test_the_fields_are_those_that_the_toolboxes_read(made, tmp_path):
    root, clips = made
    out = tmp_path / "own.pkl"
    assert export(root, out) == 5
    read = pickle.loads(out.read_bytes())
    assert set(read) == {"split", "annotations"}
    names = list(clips)
    assert read["split"] == {"train": names[:3], "val": names[3:], "test": names[3:]}
    assert [a["frame_dir"] for a in read["annotations"]] == names
    for number, (held, found) in enumerate(zip(clips.values(), read["annotations"], strict=True)):
        N, M = held.shape[:2]
        assert {field: type(value) for field, value in found.items()} == {
            "frame_dir": str,
            "label": int,
            "img_shape": tuple,
            "original_shape": tuple,
            "total_frames": int,
            "keypoint": np.ndarray,
            "keypoint_score": np.ndarray,
        }
        assert found["img_shape"] == found["original_shape"] == (36, 64)
        assert (found["label"], found["total_frames"]) == (number % 2, N)
        assert found["keypoint"].shape == (M, N, 17, 2)
        assert found["keypoint"].dtype == found["keypoint_score"].dtype == np.float32
        assert found["keypoint"].flags.c_contiguous
        assert np.array_equal(found["keypoint"], held[..., :2].transpose(1, 0, 2, 3))
        assert np.array_equal(found["keypoint_score"], held[..., 2].transpose(1, 0, 2))


def test_numpy_1_knows_every_name_in_it(made, tmp_path):
    out = tmp_path / "own.pkl"
    export(made[0], out, "--float16")
    names = {arg for op, arg, _ in pickletools.genops(out.read_bytes()) if op.name == "GLOBAL"}
    assert names == {"numpy ndarray", "numpy dtype", "numpy.core.multiarray _reconstruct"}


def test_from_npz_to_a_store_nothing_changes(made, tmp_path):
    root, clips = made
    export(root, tmp_path / "own.pkl")
    found = open_annotations(tmp_path / "own.pkl", None, tmp_path / "cache")
    assert found.names == tuple(clips)
    for name, held in clips.items():
        assert np.array_equal(found.keypoints(name), held)
        assert found.size(name) == (64, 36)


def test_half_precision_is_as_near_as_it_can_be(made, tmp_path):
    root, clips = made
    export(root, tmp_path / "own.pkl", "--float16")
    found = open_annotations(tmp_path / "own.pkl", None, tmp_path / "cache")
    for name, held in clips.items():
        assert np.array_equal(found.keypoints(name), held.astype(np.float16).astype(np.float32))


def test_from_a_pickle_to_npz_and_back_nothing_changes(tmp_path):
    held = [annotation(f"clip_{n}", frames=n + 2, dtype=np.float32, label=n % 2) for n in range(8)]
    held[3]["keypoint"][1, 2] = held[3]["keypoint_score"][1, 2] = 0
    splits = {"train": [a["frame_dir"] for a in held[:6]], "test": ["clip_6", "clip_7"]}
    path = write(tmp_path / "x.pkl", held, splits)
    import_poses.main(
        ["--format", "pyskl", "--source", str(path), "--dataset", "own", "--dataset_path"]
        + [str(tmp_path), "--make_lists", "--train_split", "train", "--val_split", "test"]
        + ["--no_check"]
    )
    export(tmp_path / "own", tmp_path / "again.pkl")
    found = pickle.loads((tmp_path / "again.pkl").read_bytes())
    assert found["split"] == {"train": splits["train"], "val": splits["test"]}
    for one, other in zip(held, found["annotations"], strict=True):
        assert one.keys() == other.keys()
        for field, value in one.items():
            assert np.array_equal(value, other[field])


def test_three_dimensions_and_clips_without_a_label(tmp_path):
    held = np.random.default_rng(0).normal(size=(7, 2, 25, 4)).astype(np.float32)
    held[..., 3] = 1
    count = write_annotations(
        tmp_path / "deep" / "x.pkl",
        [Annotation("a", None, held), Annotation("b", 3, held[:1])],
        {"train": ["a", "gone"], "none": []},
    )
    assert count == 2
    found = open_annotations(tmp_path / "deep" / "x.pkl", None, tmp_path / "cache")
    assert dict(found.splits) == {"train": ("a",), "none": ()}
    assert found.layout.name == "ntu25"
    assert np.array_equal(found.keypoints("a"), held)
    assert (found.label("a"), found.label("b")) == (None, 3)


def test_memory_holds_one_clip(tmp_path):
    seen = []

    def clips():
        for n in range(3):
            seen.append((tmp_path / ".x.pkl.partial").stat().st_size)
            yield Annotation(str(n), 0, tracks(5000, 2), (64, 36))

    write_annotations(tmp_path / "x.pkl", clips(), {})
    assert seen[2] > seen[1] > 1_000_000


def test_a_pickle_is_there_whole_or_not_at_all(tmp_path):
    def breaking():
        yield Annotation("a", 0, tracks(3, 1), (64, 36))
        raise InputError("stop")

    with pytest.raises(InputError, match="stop"):
        write_annotations(tmp_path / "x.pkl", breaking(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.json", "there.pkl"])
def test_outputs_that_cannot_be(made, tmp_path, name, capsys):
    (tmp_path / "there.pkl").write_bytes(b"kept")
    with pytest.raises(SystemExit) as stop:
        export(made[0], tmp_path / name)
    assert stop.value.code == 2
    assert (tmp_path / "there.pkl").read_bytes() == b"kept"
    assert export(made[0], tmp_path / "there.pkl", "--overwrite", "--splits", "train") == 3


def test_clips_that_cannot_be_exported_are_named(made, tmp_path):
    root, clips = made
    first = next(iter(clips))
    with pytest.raises(InputError, match="has no clip list"):
        export(tmp_path / "other", tmp_path / "x.pkl")
    write_list(root / "test_videofolder.txt", [ClipRecord("set 1/clip_3", 6, 0)])
    with pytest.raises(InputError, match="has clip set 1/clip_3 with 6 frames and label 1"):
        export(root, tmp_path / "x.pkl")
    (root / "test_videofolder.txt").unlink()
    (root / "poses" / f"{first}.npz").unlink()
    with pytest.raises(InputError, match=f"clip {first} of .* has no keypoints"):
        export(root, tmp_path / "x.pkl")
    assert not (tmp_path / "x.pkl").exists()
