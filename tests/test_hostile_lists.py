"""Lists, tables and folders that attack: through the options of main.py to the loaders.

RELIABILITY numbers 19 to 22: odd numbering, fuzzed lists, paths that lead out, wrong labels.
"""

import os
import threading

import numpy as np
import pytest
import torch

import opts
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import check_disjoint, open_dataset
from errors import InputError


def open_all(root, *more):
    """Do what main.py does before the first epoch; return the batches of the first one."""
    args = opts.parse_train_args(
        [
            "--dataset", root.name, "--dataset_path", str(root.parent), "--num_segments", "8",
            "--input_size", "32", "--pretrained", "none", "-j", "0", "--batch-size", "2", *more,
        ]
    )  # fmt: skip
    source = open_dataset(args)
    check_disjoint(source, args)
    loaders = [build_train_loader(args, source), build_eval_loader(args, source, "val")]
    return [batch for loader in loaders for batch in loader]


def complaint(root, *more, seconds=5):
    """Return the one line that refuses a data set, in time."""
    caught = []

    def attempt():
        try:
            open_all(root, *more)
        except InputError as error:
            caught.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "hangs"
    (message,) = caught
    assert len(message.splitlines()) == 1
    assert len(message) < 10_000
    return message


def edit(root, old, new, split="train"):
    path = root / f"{split}_videofolder.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


# ---------------------------------------------------------------- 19: numbering


@pytest.mark.parametrize("num_frames", [1, 3, 7])
def test_fewer_frames_than_segments_repeat(make_dataset, num_frames):
    batches = open_all(make_dataset(num_frames=num_frames, poses=None))
    assert all(torch.isfinite(batch.frames).all() for batch in batches)
    assert batches[0].frames.shape[1] == 8


def renumber(folder, name_of):
    """Give the frames of a clip the names `name_of(0)` on."""
    for index, path in enumerate(sorted(folder.glob("*.jpg"))):
        path.rename(folder / f"_{index}")
    for path in list(folder.glob("_*")):
        path.rename(folder / name_of(int(path.name[1:])))


@pytest.mark.parametrize(
    "name_of",
    [
        lambda n: f"{n:05d}.jpg",
        lambda n: f"{n}.jpg",
        lambda n: f"{n + 1}.jpg",
        lambda n: f"img_{n + 1:05d}.jpg",
    ],
)
def test_numbers_from_0_or_1_give_the_same_batches(dataset, name_of):
    before = open_all(dataset)
    for folder in (dataset / "frames").iterdir():
        renumber(folder, name_of)
    for one, other in zip(before, open_all(dataset), strict=True):
        assert torch.equal(one.frames, other.frames)


def test_an_empty_folder_a_gap_and_a_wrong_prefix_are_named(dataset):
    folder = dataset / "frames" / "train_1"
    (folder / "00005.jpg").rename(folder / "img_00005.jpg")
    assert "train_1/img_00005.jpg breaks the naming" in complaint(dataset)
    (folder / "img_00005.jpg").unlink()
    assert "train_1/00005.jpg is missing" in complaint(dataset)
    for path in folder.iterdir():
        path.unlink()
    assert "train_1 holds no jpg/jpeg/png file" in complaint(dataset)
    folder.rmdir()
    assert "clip train_1 has neither a folder" in complaint(dataset)


# ---------------------------------------------------------------- 16: frames


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"\xff\xd8\xff\xe0"], ids=["empty", "html", "start"]
)
def test_a_damaged_frame_stops_the_epoch_and_is_named(dataset, content):
    for path in (dataset / "frames" / "train_1").glob("*.jpg"):
        path.write_bytes(content)
    assert "train_1/0000" in complaint(dataset)


# ---------------------------------------------------------------- 21: paths


@pytest.mark.parametrize(
    "name",
    [
        "../train_1", "x/../../train_1", "/etc", "..", ".", "a\0b", "x" * 4096, "~/x",
        "/".join(["y" * 200] * 30), "/".join(["z"] * 450),
        "/dev/zero", "nul\0", "frames\\..\\..", "%2e%2e/etc",
    ],
)  # fmt: skip
def test_a_path_that_leads_out_or_nowhere_is_refused(dataset, name):
    edit(dataset, "train_1 ", f"{name} ")
    complaint(dataset)


def test_a_folder_that_is_a_link_out_is_refused(dataset, tmp_path):
    folder = dataset / "frames" / "train_1"
    folder.rename(tmp_path / "secret")
    folder.symlink_to(tmp_path / "secret")
    assert "outside of" in complaint(dataset)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/stdin", "/proc/self/mem", "/dev/full"])
def test_devices_named_as_frames_are_never_read(dataset, name):
    frame = dataset / "frames" / "train_1" / "00003.jpg"
    frame.unlink()
    frame.symlink_to(name)
    complaint(dataset)


def test_a_pipe_named_as_a_frame_never_hangs(dataset):
    frame = dataset / "frames" / "train_1" / "00003.jpg"
    frame.unlink()
    os.mkfifo(frame)
    assert "00003.jpg is missing" in complaint(dataset)


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_a_list_that_is_no_file_never_hangs(dataset, kind):
    path = dataset / "train_videofolder.txt"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert "train_videofolder.txt" in complaint(dataset)


def test_paths_in_clips_csv_are_refused(dataset):
    for video in ("../../etc/passwd", "/dev/zero", "a/../../b"):
        (dataset / "clips.csv").write_text(f"clip,video,num_frames\ntrain_1,{video},12\n")
        assert "clips.csv:2 has video" in complaint(dataset)


def test_odd_names_that_are_fine(dataset):
    odd = "späce  dash-#'\"$&;|*?[x] \U0001f600"
    (dataset / "frames" / "train_1").rename(dataset / "frames" / odd)
    (dataset / "poses" / "train_1.npz").rename(dataset / "poses" / f"{odd}.npz")
    edit(dataset, "train_1 ", f"{odd} ")
    assert len(open_all(dataset, "--late_fusion_poses_fast")) == 4


# ---------------------------------------------------------------- 20: fuzz


@pytest.mark.parametrize("seed", range(4))
def test_mutated_lists_and_tables_are_read_or_refused_in_one_line(dataset, seed):
    rng = np.random.default_rng(seed)
    (dataset / "clips.csv").write_text(
        "clip,num_frames,sha256\n"
        + "".join(f"{p.name},12,{p.name}\n" for p in sorted((dataset / "frames").iterdir()))
    )
    paths = [dataset / "train_videofolder.txt", dataset / "clips.csv"]
    contents = [path.read_bytes() for path in paths]
    for _ in range(10):
        for path, content in zip(paths, contents, strict=True):
            data = bytearray(content)
            for _ in range(rng.integers(0, 3)):
                data[rng.integers(len(data))] = rng.integers(256)
            path.write_bytes(data)
        message = None
        try:
            open_all(dataset)
        except InputError as error:
            message = str(error)
        assert message is None or len(message.splitlines()) == 1


# ---------------------------------------------------------------- 22: labels


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("-1", "train_videofolder.txt:2 has label '-1'"),
        ("2", "train_videofolder.txt:2 has label 2, the data set has 2 classes"),
        ("fall", "train_videofolder.txt:2 has label 'fall'"),
        ("1.0", "train_videofolder.txt:2 has label '1.0'"),
        ("99999999999", "train_videofolder.txt:2 has label"),
        ("", "train_videofolder.txt:2 has 2 fields"),
    ],
)
def test_a_wrong_label_is_named_with_its_line(dataset, label, expected):
    edit(dataset, "train_1 12 1", f"train_1 12 {label}")
    assert expected in complaint(dataset)


def test_a_gap_in_the_labels_of_an_own_data_set_is_refused(make_dataset):
    root = make_dataset("mine")
    edit(root, " 12 1\n", " 12 2\n")
    assert "no clip of class 1: number the classes from 0 without gaps" in complaint(root)


def test_a_validation_label_that_training_lacks_is_refused(make_dataset):
    root = make_dataset("mine")
    edit(root, " 12 1\n", " 12 2\n", split="val")
    assert "has label 2, the data set has 2 classes" in complaint(root)


def test_the_same_content_in_two_lists_is_refused(dataset):
    (dataset / "clips.csv").write_text("clip,sha256\ntrain_1,abc\nval_0,abc\n")
    assert "hold 1 clips with the same content, such as train_1 and val_0" in complaint(dataset)
    assert open_all(dataset, "--allow_overlap")
