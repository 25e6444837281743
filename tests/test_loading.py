import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import opts
from datasets import loaders, opening
from datasets.clip_table import ClipRow, write_table
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import cache_folder, check_disjoint, open_dataset
from datasets.records import PUBLISHED, load_records, write_list
from errors import InputError, one_line
from ops.batch import Batch

SMALL = ("--num_segments", "4", "--input_size", "16", "--batch-size", "2", "--device", "cpu")


def options(root: Path, *argv: str, name: str = "FRFS", workers: int = 0) -> argparse.Namespace:
    where = ("--dataset", name, "--dataset_path", str(root.parent), "--workers", str(workers))
    return opts.parse_train_args([*where, *SMALL, *argv])


def complaint(act) -> str:
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def train_loader(args: argparse.Namespace) -> DataLoader:
    return build_train_loader(args, open_dataset(args))


def equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.clips == b.clips
        and torch.equal(a.frames, b.frames)
        and torch.equal(a.keypoints, b.keypoints)
        and torch.equal(a.label, b.label)
        for a, b in zip(one, other, strict=True)
    )


# ---------------------------------------------------------------- which data set


def test_a_data_set_of_the_catalogue(dataset):
    source = open_dataset(options(dataset))
    assert source.root == dataset
    assert source.classes == ("class 0", "class 1")
    assert source.lists["val"] == dataset / "val_videofolder.txt"


def test_class_names_are_taken_and_counted(dataset):
    args = options(dataset, "--class_names", "good", "bad")
    assert open_dataset(args).classes == ("good", "bad")
    args = options(dataset, "--class_names", "good", "bad", "worse")
    assert "--class_names has 3 names, FRFS has 2 classes" in complaint(lambda: open_dataset(args))


def test_a_data_set_of_the_users_own_counts_its_classes(make_dataset):
    root = make_dataset("my jumps")
    assert open_dataset(options(root, name="my jumps")).classes == ("class 0", "class 1")
    (root / "train_videofolder.txt").write_text("train_0 12 0\ntrain_1 12 2\n")
    args = options(root, name="my jumps")
    assert "no clip of class 1" in complaint(lambda: open_dataset(args))
    args = options(root, "--class_names", "a", "b", "c", name="my jumps")
    assert open_dataset(args).classes == ("a", "b", "c")
    for split in opening.SPLITS:
        (root / f"{split}_videofolder.txt").unlink()
    args = options(root, name="my jumps")
    assert "train_videofolder.txt is not there" in complaint(lambda: open_dataset(args))


def test_a_missing_folder_is_named_with_the_way_out(tmp_path):
    message = complaint(lambda: open_dataset(options(tmp_path / "FRFS")))
    assert f"{tmp_path / 'FRFS'} is not there" in message
    assert "--dataset synthetic" in message


def test_defect_12_and_13_each_split_has_its_own_list(dataset, tmp_path):
    args = options(dataset)
    source = open_dataset(args)
    names = {
        split: [clip for batch in build_eval_loader(args, source, split) for clip in batch.clips]
        for split in opening.SPLITS
    }
    assert names == {
        "train": [f"train_{i}" for i in range(4)],
        "val": ["val_0", "val_1"],
        "test": ["test_0", "test_1"],
    }
    (tmp_path / "mine.txt").write_text("test_1 12 1\n")
    args = options(dataset, "--val_list", str(tmp_path / "mine.txt"))
    assert next(iter(build_eval_loader(args, open_dataset(args), "val"))).clips == ("test_1",)
    (dataset / "test_videofolder.txt").unlink()
    message = complaint(lambda: build_eval_loader(args, source, "test"))
    assert "test_videofolder.txt is not there" in message


def test_lists_that_share_a_clip_are_refused_unless_allowed(dataset):
    args = options(dataset)
    source = open_dataset(args)
    check_disjoint(source, args)
    with (dataset / "test_videofolder.txt").open("a") as stream:
        stream.write("train_3 12 1\n")
    message = complaint(lambda: check_disjoint(source, args))
    assert "share 1 clips, such as train_3" in message
    assert "train_videofolder.txt" in message
    assert "test_videofolder.txt" in message
    check_disjoint(source, options(dataset, "--allow_overlap"))
    (dataset / "test_videofolder.txt").unlink()
    check_disjoint(source, args)


def test_what_clips_csv_knows_is_compared_too(dataset):
    """Same athlete, or the same files under another name, on both sides of a split."""
    args = options(dataset)
    source = open_dataset(args)
    rows = {
        name: ClipRow(name, num_frames=12, group=f"athlete {name}", sha256=name)
        for split in ("train", "val", "test")
        for name in (record.name for record in source.records(split))
    }
    write_table(dataset, rows.values())
    check_disjoint(source, args)

    same_group = replace(rows["val_1"], group="athlete train_2")
    write_table(dataset, [*(rows | {"val_1": same_group}).values()])
    message = complaint(lambda: check_disjoint(source, args))
    assert "such as athlete train_2 in train_2 and val_1" in message

    same_files = replace(rows["test_0"], sha256="train_0")
    write_table(dataset, [*(rows | {"test_0": same_files}).values()])
    message = complaint(lambda: check_disjoint(source, args))
    assert "1 clips with the same content, such as train_0 and test_0" in message
    check_disjoint(source, options(dataset, "--allow_overlap"))

    # Parts of one video have its sum in common: other frames are other content.
    parts = replace(same_files, first_frame=40)
    write_table(dataset, [*(rows | {"test_0": parts}).values()])
    check_disjoint(source, args)


def test_the_published_protocol_shares_val_and_test_and_nothing_else(dataset):
    args = options(dataset)
    source = open_dataset(args)
    test_clips = source.records("test")
    header = {"protocol": PUBLISHED}
    write_list(dataset / "val_videofolder.txt", test_clips)
    write_list(dataset / "test_videofolder.txt", test_clips, header)
    assert not source.is_published
    assert "share 2 clips" in complaint(lambda: check_disjoint(source, args))
    write_list(dataset / "val_videofolder.txt", test_clips, header)
    assert source.is_published
    check_disjoint(source, args)
    write_list(dataset / "train_videofolder.txt", [*source.records("train"), *test_clips])
    assert "share 2 clips" in complaint(lambda: check_disjoint(source, args))


def test_class_names_come_from_the_headers_of_the_lists(dataset):
    args = options(dataset)
    records = load_records(dataset / "train_videofolder.txt")
    for split in ("train", "val"):
        names = load_records(dataset / f"{split}_videofolder.txt")
        write_list(dataset / f"{split}_videofolder.txt", names, {"classes": '["up", "down"]'})
    assert open_dataset(args).classes == ("up", "down")
    assert open_dataset(options(dataset, "--class_names", "a", "b")).classes == ("a", "b")
    write_list(dataset / "train_videofolder.txt", records, {"classes": '["down", "up"]'})
    assert "correct their first lines" in complaint(lambda: open_dataset(args))
    write_list(dataset / "train_videofolder.txt", records, {"classes": '["x", "y", "z"]'})
    (dataset / "val_videofolder.txt").unlink()
    assert "has 3 names, FRFS has 2 classes" in complaint(lambda: open_dataset(args))
    write_list(dataset / "train_videofolder.txt", records, {"classes": "up, down"})
    assert "as a JSON list" in complaint(lambda: open_dataset(args))


def test_the_built_in_data_set_is_made_where_it_is_asked_for(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(
        opening,
        "ensure_synthetic",
        lambda spec, root, name="synthetic", progress=None: (
            made.append((spec, root, name)) or root / name
        ),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    size = (
        "--synthetic_size",
        "64x36",
        "--synthetic_clips",
        "4",
        "2",
        "3",
        "--synthetic_seed",
        "7",
    )
    args = opts.parse_train_args(["--dataset", "synthetic", *size])
    source = open_dataset(args)
    spec, root, name = made[0]
    assert (spec.size, spec.clips, spec.seed) == ((64, 36), (4, 2, 3), 7)
    assert root == cache_folder() == tmp_path / "gate-shift-pose"
    assert source.classes == ("landed", "fall")
    # Another choice may not meet the first in the cache, and is refused by name elsewhere.
    open_dataset(opts.parse_train_args(["--dataset", "synthetic"]))
    assert made[1][2] != name
    args = opts.parse_train_args(["--dataset", "synthetic", "--dataset_path", str(tmp_path / "d")])
    assert open_dataset(args).root == tmp_path / "d" / "synthetic"


# ---------------------------------------------------------------- which input


@pytest.mark.parametrize(
    ("argv", "channels", "has_keypoints"),
    [
        ([], 3, False),
        (["--early_fusion_poses"], 4, True),
        (["--early_fusion_poses", "--mask_background"], 4, True),
        (["--mask_background"], 3, True),
        (["--late_fusion_poses"], 3, True),
        (["--late_fusion_poses_fast"], 3, True),
        (["--late_fusion_poses_attention"], 3, True),
        (["--late_fusion_poses_attention", "--num_channels", "4"], 4, True),
        (["--rand_augment"], 3, False),
        (["--early_fusion_poses", "--rand_augment_4ch"], 4, True),
    ],
)
def test_options_decide_the_input(dataset, argv, channels, has_keypoints):
    batch = next(iter(train_loader(options(dataset, *argv))))
    assert batch.frames.dtype == torch.uint8
    assert batch.prepared().frames.shape == (2, 4, channels, 16, 16)
    assert (batch.keypoints is not None) is has_keypoints


def test_pose_only_needs_no_frames_at_all(dataset):
    shutil.rmtree(dataset / "frames")
    where = ("--dataset", "FRFS", "--dataset_path", str(dataset.parent), "--workers", "0")
    batch = next(iter(train_loader(opts.parse_pose_train_args([*where, *SMALL]))))
    assert batch.frames is None
    assert batch.keypoints.shape == (2, 4, 1, 17, 3)


def test_training_draws_and_flips_as_told(dataset, make_dataset):
    views = train_loader(options(dataset, "--rand_augment")).dataset.views
    assert (views.train, views.may_flip, views.rand_augment) == (True, True, True)
    assert not train_loader(options(dataset, "--no_flip")).dataset.views.may_flip
    root = make_dataset("something-v2")
    assert not train_loader(options(root, name="something-v2")).dataset.views.may_flip


def test_evaluation_takes_views_batches_and_the_first_clips(dataset):
    args = options(dataset)
    source = open_dataset(args)
    loader = build_eval_loader(args, source, "test", num_clips=2, test_crops=10, batch_size=2)
    (batch,) = loader
    assert (len(batch), batch.views, len(batch.frames)) == (2, 20, 40)
    args.max_num = 1
    assert len(build_eval_loader(args, source, "train").dataset) == 1


def test_labels_and_missing_keypoints_are_at_hand(dataset):
    (dataset / "poses" / "train_0.npz").unlink()
    loader = train_loader(options(dataset, "--late_fusion_poses", "--missing_pose", "skip"))
    assert loader.dataset.labels.tolist() == [1, 0, 1]
    assert loader.dataset.report.text().startswith("1 of 4 clips had no keypoint file")
    args = options(dataset, "--late_fusion_poses")
    assert "poses/train_0.npz nor .npy" in complaint(lambda: train_loader(args))
    loader = build_train_loader(
        args, open_dataset(args), estimate=lambda f: np.ones((len(f), 1, 17, 3))
    )
    assert "estimated while loading" in loader.dataset.report.text()


def test_a_label_outside_the_classes_is_named(dataset):
    (dataset / "train_videofolder.txt").write_text("train_0 12 0\ntrain_1 12 2\n")
    message = complaint(lambda: train_loader(options(dataset)))
    assert "train_videofolder.txt:2 has label 2, the data set has 2 classes" in message


# ---------------------------------------------------------------- the loader


def test_batches_do_not_depend_on_the_number_of_workers(dataset):
    def epochs(workers: int) -> list[Batch]:
        args = options(dataset, "--early_fusion_poses", "--rand_augment", workers=workers)
        loader = train_loader(args)
        assert loader.num_workers == min(workers, loaders.num_cores(), 2)
        batches = []
        for epoch in range(3):
            loader.batch_sampler.start(epoch)
            batches += list(loader)
        return batches

    alone = epochs(0)
    assert len({batch.frames.numpy().tobytes() for batch in alone}) == 6
    assert equal(epochs(2), alone)


def test_an_epoch_continues_in_its_middle(dataset):
    loader = train_loader(options(dataset, "--early_fusion_poses"))
    loader.batch_sampler.start(5)
    whole = list(loader)
    later = train_loader(options(dataset, "--early_fusion_poses"))
    later.batch_sampler.start(5, first_batch=1)
    assert equal(list(later), whole[1:])
    assert len(later) == len(whole) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_generators_alone(dataset, workers):
    loader = train_loader(options(dataset, "--rand_augment", workers=workers))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(loader)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_damaged_frame_is_one_line_also_from_a_worker(dataset):
    path = dataset / "frames" / "train_1" / "00003.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    args = options(dataset, "--num_segments", "12", workers=1)
    loader = train_loader(args)
    with pytest.raises(InputError) as caught:
        list(loader)
    assert one_line(caught.value).startswith(f"{path} is damaged")
    # Left to the garbage of the traceback, the loader would wait 5 seconds for its worker.
    loader.close()


@pytest.mark.parametrize("name", ["something-v1", "kinetics400", "diving48", "meccano"])
def test_defect_28_published_data_sets_load(make_dataset, name):
    root = make_dataset(name)
    args = options(root, name=name)
    assert len(next(iter(train_loader(args)))) == 2
    assert len(open_dataset(args).classes) in (48, 61, 174, 400)
