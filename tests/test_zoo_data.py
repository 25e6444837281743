"""What pickles, options and weights that do not fit come to in the training of skeleton models."""

import json
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import main
import main_only_pose
import test_models as tester
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import open_dataset
from datasets.order import SampleKey
from datasets.poses import save_poses
from errors import InputError
from models import build_model
from models.weights import checkpoint_options, read_checkpoint
from opts import parse_pose_train_args, parse_train_args
from tests.making_annotations import annotation, write
from tests.small_zoo_runs import SPLITS, clip, newest, score, train, write_moves


@pytest.fixture
def pickle(tmp_path: Path, monkeypatch):
    """Return what writes a pickle of three splits; stores go below the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return partial(write_moves, tmp_path)


def loader_of(file: Path, *more: str):
    line = ["--annotations", str(file), "--pose_frames", "8", "-b", "4", *more]
    args = parse_pose_train_args(line)
    return build_train_loader(args, open_dataset(args))


def with_frames(file: Path, size: tuple[int, int], make_frames) -> list[str]:
    """Give the clips of a pickle frames of a size; return the options of a late fusion."""
    for split, count in SPLITS.items():
        for number in range(count):
            name = f"{split}{number}"
            make_frames(file.parent / "moves" / "frames" / name, 10 + len(name), size=size)
    line = ["--annotations", file, "--dataset_path", file.parent, "--late_fusion_poses_fast"]
    line += ["--pose_model", "stgcnpp", "--pose_frames", 8, "--num_segments", 2, "--epochs", 1]
    line += ["--arch", "resnet18", "--width", 8, "--input_size", 32, "--pretrained", "none"]
    return list(map(str, [*line, "-b", 4, "-j", 0, "--threads", 1]))


def test_frames_go_with_the_keypoints_of_a_pickle(pickle, make_frames, tmp_path):
    line = with_frames(pickle(), (64, 36), make_frames)
    assert 0 <= main.main([*line, "--experiment_path", str(tmp_path / "out")]) <= 1


def test_three_dimensions_do_not_follow_crops_of_frames(pickle, make_frames):
    line = with_frames(pickle(joints=25, dims=3), (64, 36), make_frames)
    with pytest.raises(InputError, match="3 dimensions, which do not follow"):
        main.main(line)


def test_keypoints_of_frames_of_another_shape_are_refused(pickle, make_frames):
    line = with_frames(pickle(img_shape=(64, 36)), (64, 36), make_frames)
    with pytest.raises(InputError, match="36x64 pixels, those that were found have 64x36"):
        main.main(line)


def test_clips_without_frames_are_named(pickle, make_frames, tmp_path):
    line = with_frames(pickle(), (64, 36), make_frames)
    (tmp_path / "moves" / "frames" / "val3").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="clip val3 has neither a folder"):
        main.main(line)


def test_volumes_show_everybody_and_batches_are_filled_up(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names = [f"clip{number}" for number in range(4)]
    clips = [annotation(n, 9, people=i + 1, label=i % 2) for i, n in enumerate(names)]
    file = write(tmp_path / "crowd.pkl", clips, {"train": names})
    (batch,) = loader_of(file, "--pose_model", "posec3d", "--val_split", "train")
    assert batch.skeletons.shape[:4] == (4, 8, 4, 17)
    people = batch.present.any(dim=1).sum(dim=1)
    expected = [int(name.removeprefix("clip")) + 1 for name in batch.clips]
    assert people.tolist() == expected
    (graph,) = loader_of(file, "--pose_model", "stgcnpp", "--val_split", "train")
    assert graph.skeletons.shape[2] == 2


@pytest.mark.parametrize("dataset", ["moves", "something-v1"])
def test_clips_that_may_not_be_mirrored_are_not(pickle, dataset):
    file = pickle()
    more = ["--pose_model", "posec3d", "--dataset", dataset]
    more += ["--no_flip"] * (dataset == "moves")
    spec = loader_of(file, *more).dataset.spec.skeleton
    assert spec.augmentation.flip == 0
    plain = loader_of(file, "--pose_model", "posec3d").dataset.spec.skeleton
    assert plain.augmentation.flip == 0.5


def test_a_layout_without_sides_is_told_of_before_it_is_mirrored(pickle, tmp_path, capsys):
    (tmp_path / "star.json").write_text(
        '{"num_node": 7, "center": 0, "inward": [[1, 0], [2, 0], [3, 0], [4, 0], [5, 0], [6, 0]]}'
    )
    more = ["--pose_model", "stgcnpp", "--skeleton_layout", str(tmp_path / "star.json")]
    loader_of(pickle(joints=7), *more, "--pose_flip", "0.5")
    assert "names no left and right" in capsys.readouterr().out


def test_a_mirror_of_frames_needs_sides_of_skeletons_as_well(pickle, make_frames, tmp_path, capsys):
    star = {"num_node": 7, "center": 0, "inward": [[n, 0] for n in range(1, 7)]}
    (tmp_path / "star.json").write_text(json.dumps(star))
    line = with_frames(pickle(joints=7), (64, 36), make_frames)
    line += ["--skeleton_layout", str(tmp_path / "star.json")]
    for more, is_told in (([], True), (["--no_flip"], False)):
        args = parse_train_args([*line, *more])
        build_train_loader(args, open_dataset(args))
        text = capsys.readouterr().out
        assert ("names no left and right" in text and "--no_flip" in text) == is_told


def test_models_of_single_frames_refuse_other_joints_at_once(pickle, tmp_path):
    with pytest.raises(InputError, match="sees those of coco17 in pixels alone"):
        train(pickle(joints=18), "--pose_model", "conv1d", "--pose_frames", 100)
    assert not (tmp_path / "out").exists()


def test_a_bare_list_is_trained_on_and_tested_whole_by_another_model(pickle, tmp_path):
    run = train(pickle(), "--pose_model", "stgcnpp")
    names = [f"other{number}" for number in range(12)]
    clips = [annotation(name, 9, 1, label=number % 2) for number, name in enumerate(names)]
    bare = write(tmp_path / "bare.pkl", clips)
    assert score(run, "--annotations", bare, "--dataset", "bare").total == 12
    options = ["--pose_model", "stgcnpp", "--experiment_path", tmp_path / "bare"]
    own = train(bare, *options)
    assert own.parent.parent.name in ("bare", "moves")


def published(folder: Path, num_people: int = 2, model: str = "stgcnpp", note: str = "") -> Path:
    """Write weights of two classes under published names."""
    line = ["--dataset", "synthetic", "--pose_model", model, "--num_people", str(num_people)]
    state = build_model(parse_pose_train_args(line), 2).state_dict()
    names = {
        key.replace("encoder.", "backbone.").replace("head.linear", "cls_head.fc_cls"): value
        for key, value in state.items()
    }
    torch.save({"meta": {"config": note}, "state_dict": names}, folder / "j.pth")
    return folder / "j.pth"


def test_published_weights_are_tested_on_a_pickle_without_further_options(pickle, tmp_path):
    line = ["--weights", published(tmp_path), "--annotations", pickle(), "--output", tmp_path / "o"]
    metrics = tester.main(list(map(str, [*line, "--num_clips", 2, "--softmax", "--no_report"])))
    assert metrics.total == SPLITS["test"]


@pytest.mark.parametrize("joints", [17, 25])
@pytest.mark.parametrize("frame", ["image", "image_keep", "auto", "spine", "clip", "none"])
def test_frames_of_reference_are_of_so_many_dimensions(pickle, joints, frame):
    dims = 3 if joints == 25 else 2
    refused = {2: ["spine"], 3: ["auto", "clip"]}[dims]
    file = pickle(joints=joints, dims=dims)
    options = ["--pose_model", "stgcnpp", "--pose_normalize", frame]
    if frame in refused:
        with pytest.raises(InputError, match=f"--pose_normalize {frame} is of {5 - dims}-D"):
            loader_of(file, *options)
    else:
        batch = next(iter(loader_of(file, *options)))
        assert batch.skeletons.isfinite().all()


def test_no_volumes_of_three_dimensions(pickle):
    with pytest.raises(InputError, match="in 3-D, heatmap volumes are drawn of 2-D"):
        loader_of(pickle(joints=25, dims=3), "--pose_model", "posec3d")


def test_fine_tuning_says_where_it_shows_skeletons_otherwise(pickle, tmp_path, capsys):
    note = "pyskl GenSkeFeat(dataset='coco', feats=['b'])"
    weights = published(tmp_path, note=note)
    line = ["--pose_model", "stgcnpp", "--finetune", "--checkpoint_path", weights]
    train(pickle(), *line)
    said = capsys.readouterr().out
    assert "trained with --pose_streams bone, this run has joint: give --pose_streams bone" in said
    train(pickle(), *line, "--pose_streams", "bone", "--resume", "none")
    assert "the weights were trained with" not in capsys.readouterr().out


def test_the_people_of_published_weights_are_told(tmp_path):
    assert checkpoint_options(published(tmp_path, 1, "agcn"))["num_people"] == 1
    assert checkpoint_options(published(tmp_path, 3, "aagcn"))["num_people"] == 3
    for note, people in (("num_person=0", 2), ("num_person=4", 4), ("num_person=99", 2)):
        assert checkpoint_options(published(tmp_path, note=note))["num_people"] == people


def test_options_beside_a_recipe_win():
    base = ["--dataset", "synthetic"]
    found = parse_pose_train_args([*base, "--recipe", "stgcnpp", "--optimizer", "adamw"])
    assert (found.optimizer, found.nesterov, found.repeat) == ("adamw", False, 5)
    line = [*base, "--recipe", "stgcn_vanilla", "--lr_schedule", "cosine_step", "--epochs", "3"]
    found = parse_pose_train_args(line)
    assert (found.lr_schedule, found.lr_steps, found.epochs) == ("cosine_step", None, 3)
    assert (found.pose_frames, found.tcn_dropout) == (300, 0.5)


@pytest.mark.parametrize(
    "recipe", ["stgcn", "agcn", "ctrgcn", "posec3d", "posec3d_finetune", "stgcn_vanilla", "small"]
)
def test_recipes_of_skeletons_make_a_network(recipe):
    found = parse_pose_train_args(["--dataset", "synthetic", "--recipe", recipe])
    assert isinstance(found, Namespace)
    assert sum(p.numel() for p in build_model(found, 60).parameters()) > 1e6


@pytest.mark.parametrize("recipe", ["rgbpose", "rgbpose_rgb", "rgbpose_pose"])
def test_recipes_of_frames_and_skeletons_make_a_network(recipe):
    found = parse_train_args(["--dataset", "synthetic", "--recipe", recipe])
    assert found.fusion == "rgbpose"
    streams = {"rgbpose": 2}.get(recipe, 1)
    assert len(build_model(found, 2).streams) == streams
    assert found.pose_flip == (0.5 if recipe == "rgbpose_pose" else 0.0)


def test_the_last_epoch_of_a_run_on_two_splits_is_not_called_chosen(pickle, capsys):
    run = train(pickle(splits={"train": 8, "val": 4}), "--pose_model", "stgcnpp")
    capsys.readouterr()
    score(run)
    printed = capsys.readouterr().out
    assert "the clips chose no epoch" in printed
    assert "these clips chose the epoch" not in printed
    line = ["--weights", str(run / "best.pth.tar"), "--no_report"]
    tester.main(line)
    assert "these clips chose the epoch" in capsys.readouterr().out


def test_tracks_of_a_pickle_reach_the_network_as_they_are(pickle):
    file = pickle()
    options = ["--pose_model", "stgcnpp", "--pose_normalize", "none", "--pose_sampling", "pad_zero"]
    batch = next(iter(loader_of(file, *options, "--pose_frames", "40")))
    assert batch.skeletons.shape[1] == 40
    assert np.isfinite(batch.skeletons.numpy()).all()
    assert (batch.skeletons[:, -1] == 0).all()


def test_nothing_else_than_a_pickle_is_opened(tmp_path):
    with pytest.raises(InputError, match="is not there|cannot be read|No such file"):
        main_only_pose.main(
            ["--annotations", str(tmp_path / "no.pkl"), "--pose_model", "stgcnpp", "--epochs", "1"]
        )


@pytest.mark.parametrize("model", ["stgcnpp", "posec3d"])
def test_keypoint_files_of_another_layout_are_in_pixels(tmp_path, model):
    root = tmp_path / "jumps"
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        names = [f"{split}{number}" for number in range(4)]
        for name in names:
            tracks = rng.uniform(1, 30, (9, 1, 25, 3)).astype(np.float32) / [1, 1, 30]
            save_poses(root / "poses" / f"{name}.npz", tracks, (64, 36), "test")
        lines = [f"{name} 9 {number % 2}\n" for number, name in enumerate(names)]
        (root / f"{split}_videofolder.txt").write_text("".join(lines))
    line = ["--dataset", "jumps", "--dataset_path", str(tmp_path), "--pose_model", model]
    line += ["--skeleton_layout", "ntu25", "--experiment_path", str(tmp_path / "out")]
    line += ["--epochs", "1", "-b", "4", "-j", "0", "--threads", "1", "--pose_frames", "8"]
    line += ["--pose_size", "16"] * (model == "posec3d")
    main_only_pose.main(line)
    assert score(newest(tmp_path / "out")).total == 4


def test_a_model_of_named_splits_is_tested_on_other_files(pickle, tmp_path):
    names = {"xsub_train": 12, "xsub_val": 6}
    options = ["--train_split", "xsub_train", "--val_split", "xsub_val"]
    run = train(pickle(splits=names), "--pose_model", "stgcnpp", *options)
    clips = [annotation(f"other{n}", 9, 1, label=n % 2) for n in range(6)]
    bare = write(tmp_path / "bare.pkl", clips)
    assert score(run, "--annotations", bare).total == 6
    halves = write(tmp_path / "halves.pkl", clips, {"test": ["other0", "other1"]})
    assert score(run, "--annotations", halves).total == 2
    with pytest.raises(InputError, match="no split 'xsub_val'"):
        score(run, "--annotations", halves, "--test_split", "xsub_val")
    # What is not tested need not be usable.
    clips[0]["total_frames"] = 3
    spoilt = write(tmp_path / "spoilt.pkl", clips, {"train": ["other0"], "test": ["other1"]})
    assert score(run, "--annotations", spoilt).total == 1


def test_val_clips_cut_off_a_bare_list_are_scored(pickle, tmp_path):
    clips = [clip(f"c{n}", n % 2, 17, 2) for n in range(20)]
    run = train(write(tmp_path / "bare.pkl", clips), "--pose_model", "stgcnpp")
    held = read_checkpoint(run / "last.pth.tar")["clips"]
    assert score(run, "--split", "val").total == len(held["val"]) > 0


def test_other_dimensions_than_in_training_are_refused(pickle, tmp_path):
    flat = pickle(joints=25)
    run = train(flat, "--pose_model", "stgcnpp", "--skeleton_layout", "ntu25")
    assert checkpoint_options(run / "last.pth.tar")["skeleton_layout"]["dims"] == 2
    assert score(run, "--skeleton_layout", "ntu25").total == SPLITS["test"]
    solid = [annotation(f"other{n}", 9, 1, 25, 3, label=n % 2) for n in range(4)]
    other = write(tmp_path / "solid.pkl", solid)
    with pytest.raises(InputError, match="in 3 dimensions, the model was trained with .* in 2"):
        score(run, "--annotations", other)


def test_skeletons_stand_still_where_frames_do(tmp_path, monkeypatch, make_frames):
    """Behind the end of a clip that is shorter than its window both show the last frame."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clips = [clip(f"train{n}", n % 2, 17, 2) for n in range(SPLITS["train"])]
    for held in clips:
        times = np.linspace(0.1, 1, held["total_frames"])
        held["keypoint_score"] = times[None, :, None] * np.ones((1, len(times), 17))
    times = np.linspace(0.1, 1, 16)  # of the first clip
    file = write(tmp_path / "moves.pkl", clips, {"train": [held["frame_dir"] for held in clips]})
    line = with_frames(file, (64, 36), make_frames)
    line += ["--frame_interval", "4", "--num_segments", "8", "--pose_frames", "32"]
    args = parse_train_args([*line, "--val_split", "train"])
    dataset = build_eval_loader(args, open_dataset(args), "val", batch_size=1).dataset
    scores = dataset[SampleKey(0, 0)].skeletons.skeletons[0, :, 0, 0, 2].numpy()
    of_rgb = times[np.minimum(4 * np.arange(8), 15)]
    two_frames = 2 * (times[1] - times[0]) + 1e-3
    assert np.abs(scores.reshape(8, 4).mean(axis=1) - of_rgb).max() < two_frames
