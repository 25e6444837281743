"""Weights that a run begins from: what becomes of each stream, and of the clips they have seen."""

import argparse
from functools import partial
from pathlib import Path

import pytest
import torch

import test_models as tester
from errors import InputError
from models import build_model
from models.weights import read_checkpoint
from opts import parse_train_args
from starts import initial_model
from tests.small_zoo_runs import score, train, write_moves


@pytest.fixture
def pickle(tmp_path: Path, monkeypatch):
    """Return what writes a pickle of three splits; stores go below the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return partial(write_moves, tmp_path)


def test_clips_of_the_weights_it_began_from_are_no_test(pickle, capsys):
    model = ["--pose_model", "stgcnpp"]
    first = train(pickle(), *model)
    turned = ["--train_split", "test", "--val_split", "val", "--test_split", "train"]
    start = ["--finetune", "--checkpoint_path", first / "last.pth.tar"]
    second = train(pickle(), *model, *turned, *start)
    lists = read_checkpoint(second / "last.pth.tar")["clips"]
    assert len(lists["start"]) == 12
    with pytest.raises(InputError, match="12 of these clips in the train list of the weights"):
        score(second)
    assert score(second, "--allow_overlap").total == 12
    # It goes on in a run that is stopped, and in one that begins from this one.
    train(pickle(), *model, *turned, *start, "--resume", second / "last.pth.tar")
    again = read_checkpoint(second / "last.pth.tar")["clips"]["start"]
    assert torch.equal(again, lists["start"])
    third = ["--train_split", "val", "--val_split", "test", "--test_split", "train"]
    start = ["--finetune", "--checkpoint_path", second / "last.pth.tar"]
    last = train(pickle(), *model, *third, *start, "--experiment_name", "third")
    assert "trained on 6 of 6 validation clips" in capsys.readouterr().out
    with pytest.raises(InputError, match="12 of these clips"):
        score(last)


def test_clean_splits_stay_tests(pickle):
    first = train(pickle(), "--pose_model", "stgcnpp")
    start = ["--finetune", "--checkpoint_path", first / "last.pth.tar"]
    second = train(pickle(), "--pose_model", "stgcnpp", *start, "--experiment_name", "second")
    assert score(second).total == 6


def test_rgb_beside_weights_of_skeletons_begins_as_it_is_asked_to(pickle, tmp_path):
    skeletons = train(pickle(), "--pose_model", "stgcnpp", "--num_people", 2)
    line = ["--dataset", "synthetic", "--arch", "resnet18", "--width", "8"]
    line += ["--late_fusion_poses_fast", "--pose_model", "stgcnpp"]
    args = parse_train_args([*line, "--pretrained", "none"])
    torch.manual_seed(5)
    backbone = build_model(args, 2).encoder.rgb.backbone.state_dict()
    file = tmp_path / "rgb.pth"
    torch.save({**backbone, "fc.weight": torch.zeros(2, 64), "fc.bias": torch.zeros(2)}, file)
    start = ["--finetune", "--checkpoint_path", str(skeletons / "last.pth.tar")]
    asked = parse_train_args([*line, "--pretrained", str(file), *start])
    source = argparse.Namespace(classes=("a", "b"))
    asked.skeleton_layout = "coco17"
    model = initial_model(asked, source, fresh=True)
    given = read_checkpoint(skeletons / "last.pth.tar")["model"]["encoder.data_bn.weight"]
    assert torch.equal(model.encoder.pose.data_bn.weight, given)
    for name, tensor in model.encoder.rgb.backbone.state_dict().items():
        assert torch.equal(tensor, backbone[name]), name


def test_what_is_not_trained_is_not_frozen(pickle):
    skeletons = train(pickle(), "--pose_model", "stgcnpp", "--num_people", 2)
    line = ["--dataset", "synthetic", "--arch", "resnet18", "--width", "8", "--pretrained", "none"]
    line += ["--pose_model", "stgcnpp", "--late_fusion_poses_attention", "--feature_extractor"]
    args = parse_train_args([*line, "--checkpoint_path", str(skeletons / "last.pth.tar")])
    args.skeleton_layout = "coco17"
    source = argparse.Namespace(classes=("a", "b"))
    with pytest.raises(InputError, match="has no weights of the RGB stream and the fusion: train"):
        initial_model(args, source, fresh=True)


def test_joints_of_another_layout_are_told(pickle, tmp_path, capsys):
    first = train(pickle(joints=25), "--pose_model", "stgcnpp", "--skeleton_layout", "ntu25")
    start = ["--finetune", "--checkpoint_path", first / "last.pth.tar", "--resume", "none"]
    for layout, is_told in (("openpose25", True), ("ntu25", False)):
        capsys.readouterr()
        train(pickle(joints=25), "--pose_model", "stgcnpp", "--skeleton_layout", layout, *start)
        text = capsys.readouterr().out
        assert ("trained on the joints of ntu25, this run has those of openpose25" in text) == (
            is_told
        )


def test_weights_of_joints_in_other_dimensions_are_no_start(pickle):
    first = train(pickle(joints=17, dims=2), "--pose_model", "stgcnpp")
    start = ["--skeleton_layout", "coco17", "--finetune", "--checkpoint_path"]
    with pytest.raises(InputError, match=r"in 2 dimensions \(coco17\), this run has joints in 3"):
        train(pickle(joints=17, dims=3), "--pose_model", "stgcnpp", *start, first / "last.pth.tar")


def test_a_checkpoint_finds_its_pickle_from_any_folder(pickle, tmp_path, monkeypatch):
    file = pickle()
    monkeypatch.chdir(tmp_path)
    run = train(Path(file.name), "--pose_model", "stgcnpp").resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert score(run).total == 6
    more = ["--pose_model", "stgcnpp", "--experiment_path", tmp_path / "out"]
    assert train(file, *more, "--resume", run / "last.pth.tar") == run


def test_a_foreign_file_that_does_not_say_its_stream_is_told_of(pickle, tmp_path, capsys):
    run = train(pickle(), "--pose_model", "stgcnpp", "--num_people", 2)
    state = read_checkpoint(run / "last.pth.tar")["model"]
    names = {
        key.replace("encoder.", "backbone.").replace("head.linear", "cls_head.fc_cls"): value
        for key, value in state.items()
    }
    line = ["--annotations", pickle(), "--output", tmp_path / "report"]
    for name, is_told in (("foo", False), ("b", True)):
        file = tmp_path / f"{name}.pth"
        torch.save({"state_dict": names}, file)
        capsys.readouterr()
        tester.main(list(map(str, ["--weights", file, "--no_report", *line])))
        assert ("does not say which stream it sees: joint" in capsys.readouterr().out) != is_told
