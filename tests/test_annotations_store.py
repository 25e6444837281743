"""Stores of annotation pickles: exact, made once, whole or not there, and never run."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hostile_files import pickles
from datasets.annotations import store
from datasets.annotations.annotation_set import open_annotations
from errors import InputError
from ops.skeleton import BODY25, COCO17, NTU25
from tests.making_annotations import annotation, opened, write

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def counted(monkeypatch):
    """Count how often a pickle is read."""
    calls = []
    read = store.read_annotations
    monkeypatch.setattr(store, "read_annotations", lambda *a: (calls.append(1), read(*a))[1])
    return calls


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "<i2", "|u1", ">i8"])
@pytest.mark.parametrize("people", [1, 3])
def test_values_are_those_of_the_file(tmp_path, dtype, people):
    held = annotation(frames=5, people=people, dtype=dtype, keypoint_score=None)
    found = opened(tmp_path, [held]).keypoints("a")
    assert found.dtype == np.float32
    assert found.shape == (5, people, 17, 3)
    expected = held["keypoint"].astype(np.float32).transpose(1, 0, 2, 3)
    assert np.array_equal(found[..., :2], expected)
    assert np.array_equal(found[..., 2], (expected != 0).any(-1))


def test_half_precision_is_kept_on_disk(tmp_path):
    found = opened(tmp_path, [annotation(dtype=np.float16)])
    size = (found.store.folder / "arrays.bin").stat().st_size
    assert size == 2 * 4 * 17 * 3 * 2


@pytest.mark.parametrize("order", ["C", "F", "strided"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_every_order_and_protocol_are_read(tmp_path, order, protocol):
    held = annotation(frames=6)
    places = held["keypoint"]
    changed = {
        "C": places,
        "F": np.asfortranarray(places),
        "strided": np.repeat(places, 2, 1)[:, ::2],
    }
    held["keypoint"] = changed[order]
    path = write(tmp_path / "x.pkl", [held], protocol=protocol)
    found = open_annotations(path, None, tmp_path / "cache").keypoints("a")
    assert np.array_equal(found[..., :2], places.transpose(1, 0, 2, 3).astype(np.float32))


def test_undetected_joints_are_exactly_zero(tmp_path):
    held = annotation(dtype=np.float32)
    held["keypoint_score"][0, 1, 2] = 0
    held["keypoint_score"][0, 1, 3] = -0.1
    held["keypoint"][0, 1, 4] = 0
    held["keypoint"][0, 1, 5] = -3  # outside of the frame is a place too
    found = opened(tmp_path, [held]).keypoints("a")
    assert not found[1, 0, [2, 3, 4]].any()
    assert np.array_equal(found[1, 0, 5, :2], [-3, -3])
    assert (found[1, 1, :, 2] > 0).all()


def test_three_dimensions_have_confidence_one(tmp_path):
    held = annotation(dims=3, joints=25, dtype=np.float32, img_shape=None)
    held["keypoint"][1, 0] = 0
    found = opened(tmp_path, [held])
    assert found.layout == NTU25
    assert found.size("a") is None
    tracks = found.keypoints("a")
    assert tracks.shape == (4, 2, 25, 4)
    assert not tracks[0, 1].any()
    assert (tracks[0, 0, :, 3] == 1).all()


def test_facts_of_a_clip(tmp_path):
    held = [
        annotation("a", label=3, frames=9),
        annotation("b", label=None, img_shape=None, frames=1, people=1),
    ]
    found = opened(tmp_path, held, {"train": ["a", "b"], "none": []})
    assert found.names == ("a", "b")
    assert dict(found.splits) == {"train": ("a", "b"), "none": ()}
    assert [found.label(name) for name in "ab"] == [3, None]
    assert [found.num_frames(name) for name in "ab"] == [9, 1]
    assert [found.size(name) for name in "ab"] == [(64, 36), None]
    assert found.keypoints("b").shape == (1, 1, 17, 3)
    with pytest.raises(InputError, match="no annotation of clip 'c'"):
        found.label("c")


def test_the_first_annotation_decides_what_names_clips(tmp_path):
    held = [annotation(str(n), filename=f"v/{n}.mp4") for n in range(2)]
    assert opened(tmp_path, held).names == ("v/0.mp4", "v/1.mp4")


def test_what_is_returned_may_be_changed(tmp_path):
    found = opened(tmp_path, [annotation()])
    first = found.keypoints("a")
    kept = first.copy()
    first[:] = 7
    assert np.array_equal(found.keypoints("a"), kept)


def test_a_set_goes_to_other_processes_without_its_numbers(tmp_path):
    found = opened(tmp_path, [annotation(frames=3000)])
    found.keypoints("a")
    data = pickle.dumps(found)
    assert len(data) < 5000
    assert np.array_equal(pickle.loads(data).keypoints("a"), found.keypoints("a"))


# ---------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("joints", "dims", "message"),
    [(25, 2, "may be of several layouts"), (17, 3, "may be of several"), (19, 2, "no layout")],
)
def test_joints_of_no_sure_layout_need_a_name(tmp_path, joints, dims, message):
    held = [annotation(joints=joints, dims=dims)]
    with pytest.raises(InputError, match=f"{message}.*--skeleton_layout"):
        opened(tmp_path, held)


def test_a_named_layout_takes_the_dimensions_of_the_data(tmp_path):
    assert opened(tmp_path, [annotation(joints=25)], layout=BODY25).layout == BODY25
    flat = opened(tmp_path, [annotation(joints=25)], layout=NTU25).layout
    assert (flat.name, flat.dims) == ("ntu25", 2)
    with pytest.raises(
        InputError, match="has 17 joints in 2 dimensions, ntu25 has 25.* nothing converts"
    ):
        opened(tmp_path, [annotation()], layout=NTU25)


# ---------------------------------------------------------------- made once, whole or not at all


def test_the_second_start_reads_no_pickle_and_takes_no_sum(tmp_path, counted, monkeypatch):
    path = write(tmp_path / "x.pkl", [annotation()])
    os.utime(path, (1e9, 1e9))
    monkeypatch.setattr(store, "_TICK_SECONDS", -10.0)
    first = open_annotations(path, None, tmp_path / "cache")
    monkeypatch.setattr(store, "_sum", lambda path: pytest.fail("a sum was taken"))
    second = open_annotations(path, None, tmp_path / "cache")
    assert len(counted) == 1
    assert np.array_equal(first.keypoints("a"), second.keypoints("a"))


def test_a_file_that_was_just_written_is_not_known_by_its_times(tmp_path):
    opened(tmp_path, [annotation()])
    assert list((tmp_path / "cache").glob("*.sum")) == []


def test_another_pickle_of_the_same_size_and_times_is_seen(tmp_path, counted):
    path = write(tmp_path / "x.pkl", [annotation(label=3)])
    os.utime(path, (1e9, 1e9))
    size = path.stat().st_size
    assert open_annotations(path, None, tmp_path / "cache").label("a") == 3
    write(path, [annotation(label=4)])
    os.utime(path, (1e9, 1e9))
    assert path.stat().st_size == size
    assert open_annotations(path, None, tmp_path / "cache").label("a") == 4
    assert len(counted) == 2


def damage(folder: Path, how: str) -> None:
    about = json.loads((folder / "store.json").read_text())
    if how == "version":
        (folder / "store.json").write_text(json.dumps({**about, "format": 0}))
    elif how == "no object":
        (folder / "store.json").write_text("[1]")
    elif how.startswith("no "):
        (folder / how[3:]).unlink()
    else:
        path = folder / how
        path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize(
    "how",
    ["version", "no object", "no store.json", "no clips.json", "no table.npy", "no arrays.bin"]
    + ["arrays.bin", "clips.json", "table.npy"],
)
def test_half_a_store_is_made_again(tmp_path, counted, how):
    found = opened(tmp_path, [annotation()])
    kept = found.keypoints("a")
    damage(found.store.folder, how)
    assert np.array_equal(opened(tmp_path, [annotation()]).keypoints("a"), kept)
    assert len(counted) == 2
    opened(tmp_path, [annotation()])
    assert len(counted) == 2


def test_a_killed_program_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    path = write(tmp_path / "x.pkl", [annotation()])
    monkeypatch.setattr(store, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        open_annotations(path, None, tmp_path / "cache")
    monkeypatch.undo()
    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []
    # A power cut leaves the folder that was being written.
    (tmp_path / "cache" / ".x-0.partial").mkdir()
    assert open_annotations(path, None, tmp_path / "cache").names == ("a",)


def test_a_pickle_that_changes_meanwhile_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "x.pkl", [annotation()])
    make = store.make_table

    def changing(rows, numbers):
        write(path, [annotation(label=5)])
        return make(rows, numbers)

    monkeypatch.setattr(store, "make_table", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        open_annotations(path, None, tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    path = write(tmp_path / "x.pkl", [annotation()])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/cache cannot be written \(Not a directory\)"):
        open_annotations(path, None, tmp_path / "file" / "cache")


def test_a_store_in_a_read_only_cache_is_used(tmp_path, monkeypatch):
    found = opened(tmp_path, [annotation()])

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    monkeypatch.setattr(store, "write_text", refused)
    monkeypatch.setattr(store, "_sum", lambda _: json.loads(about.read_text())["sha256"])
    about = found.store.folder / "store.json"
    assert open_annotations(found.path, None, tmp_path / "cache").names == ("a",)


def test_two_processes_at_once_make_one_store(tmp_path):
    held = [annotation(f"clip {n}", frames=50) for n in range(200)]
    path = write(tmp_path / "x.pkl", held)
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "from datasets.annotations.annotation_set import open_annotations; "
        "f = open_annotations(Path(sys.argv[2]), None, Path(sys.argv[3])); "
        "print(float(sum(f.keypoints(n).sum(dtype=float) for n in f.names)))"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(path), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1
    assert float(said.pop()) > 0
    assert len([p for p in (tmp_path / "cache").iterdir() if p.is_dir()]) == 1


# ---------------------------------------------------------------- hostile files


def test_hostile_pickles_run_nothing_and_leave_nothing(tmp_path):
    canary = tmp_path / "canary"
    hostile = pickles(canary)
    for name in ("os.system", "builtins.eval", "attrgetter", "newobj", "in a dict key", "runpy"):
        path = tmp_path / "x.pkl"
        path.write_bytes(hostile[name])
        with pytest.raises(InputError, match=str(path)) as error:
            open_annotations(path, None, tmp_path / "cache")
        assert len(str(error.value).splitlines()) == 1
    assert not canary.exists()
    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


class Runs:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("field", ["keypoint", "keypoint_score", "label", "img_shape", "extra"])
def test_nothing_runs_out_of_a_field(tmp_path, field):
    canary = tmp_path / "canary"
    held = annotation(**{field: Runs(f"touch {canary}")})
    with pytest.raises(InputError, match=r"asks for posix\.system"):
        opened(tmp_path, [held])
    assert not canary.exists()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def deep(path: Path) -> None:
    path.write_bytes(b"(l" * 100_000 + b"a" * 99_999 + b".")


@pytest.mark.parametrize("make", [truncated, deep, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_files_are_named_in_one_line(tmp_path, make):
    path = write(tmp_path / "x.pkl", [annotation()])
    make(path)
    start = time.monotonic()
    with pytest.raises(InputError, match=str(path)) as error:
        open_annotations(path, COCO17, tmp_path / "cache")
    assert len(str(error.value).splitlines()) == 1
    assert time.monotonic() - start < 20


def test_a_pipe_or_a_folder_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match=str(path)):
            open_annotations(path, None, tmp_path / "cache")
