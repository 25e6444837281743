"""Skeleton models from an annotation pickle to a tested ensemble, by the scripts' own functions."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

import main
import main_only_pose
from assembly import open_data
from datasets.loading import build_train_loader
from datasets.order import SampleKey
from models import build_model
from models.weights import read_checkpoint
from ops.skeleton import JHMDB15
from options.testing import adopt_options, parse_test_args
from opts import parse_pose_train_args, parse_train_args
from tests.small_runs import same
from tests.small_zoo_runs import SPLITS, newest, score, train, write_moves


@pytest.fixture
def pickle(tmp_path: Path, monkeypatch):
    """Return what writes a pickle of three splits; stores go below the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return partial(write_moves, tmp_path)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("stgcnpp", ["--pose_streams", "joint", "bone_motion", "--pose_pooling", "masked"]),
        ("agcn", ["--num_people", "2"]),
        ("posec3d", ["--pose_size", "14", "--pose_streams", "limb"]),
    ],
)
def test_a_model_trains_on_a_pickle_and_is_tested_with_ten_clips(pickle, model, more):
    run = train(pickle(), "--pose_model", model, *more)
    views = ["--num_clips", "10", "--softmax"] + ["--double_flip"] * (model == "posec3d")
    metrics = score(run, *views, "--save_scores")
    assert metrics.total == SPLITS["test"]
    assert run.parent.name == model
    assert (run / "scores_test.npz").is_file()


def test_joints_and_dimensions_are_those_of_the_pickle(pickle):
    run = train(pickle(joints=25, dims=3), "--pose_model", "stgcn")
    assert score(run).total == SPLITS["test"]
    content = read_checkpoint(run / "last.pth.tar")
    assert content["data"]["layout"] == "ntu25"
    assert content["model"]["encoder.data_bn.weight"].shape == (75,)


def test_a_layout_of_the_users_own_goes_with_the_checkpoint(pickle, tmp_path):
    layout = {"num_node": 7, "inward": [[i, 0] for i in range(1, 7)], "center": 0, "name": "star"}
    (tmp_path / "star.json").write_text(json.dumps(layout))
    file = pickle(joints=7)
    with pytest.raises(Exception, match="--skeleton_layout"):
        train(file, "--pose_model", "stgcnpp")
    run = train(file, "--pose_model", "stgcnpp", "--skeleton_layout", tmp_path / "star.json")
    (tmp_path / "star.json").unlink()
    assert score(run).total == SPLITS["test"]


def test_without_a_val_split_clips_are_cut_off_train(pickle):
    run = train(pickle(splits={"train": 20, "test": 4}), "--pose_model", "stgcnpp")
    lists = read_checkpoint(run / "last.pth.tar")["clips"]
    assert len(lists["train"]) + len(lists["val"]) == 20
    assert len(lists["val"]) > 0


def test_the_val_clips_of_a_pickle_are_the_same_for_every_seed(pickle):
    file = pickle(splits={"train": 20, "test": 4})
    runs = [train(file, "--pose_model", "stgcnpp", "--seed", seed) for seed in (0, 7)]
    cuts = [read_checkpoint(run / "last.pth.tar")["clips"]["val"] for run in runs]
    assert torch.equal(*cuts)
    assert score(runs[1], "--split", "val").total == len(cuts[1])


def test_a_layout_of_ours_may_be_in_other_dimensions(pickle):
    run = train(pickle(joints=25), "--pose_model", "stgcnpp", "--skeleton_layout", "ntu25")
    assert score(run).total == SPLITS["test"]


def test_training_clips_may_be_named_as_the_val_split(pickle, capsys):
    run = train(pickle(), "--pose_model", "stgcnpp", "--val_split", "train")
    lists = read_checkpoint(run / "last.pth.tar")["clips"]
    assert torch.equal(lists["train"], lists["val"])
    assert score(run).total == SPLITS["test"]


def test_a_pickle_of_two_splits_is_tested_on_val_and_says_so(pickle, capsys):
    run = train(pickle(splits={"train": 8, "val": 4}), "--pose_model", "stgcnpp")
    assert "val is the test list" in capsys.readouterr().out
    assert score(run).total == 4


def test_a_run_that_stops_goes_on_with_the_same_bits(pickle):
    file = pickle()
    options = ["--pose_model", "stgcnpp", "--pose_rotate", "9", "--pose_crop", "0.6", "--repeat", 2]
    whole = train(file, *options, "--epochs", 2, "--experiment_name", "whole")
    state = read_checkpoint(whole / "last.pth.tar")["model"]
    other = ["--experiment_name", "halves", "--epochs", 2]
    out = file.parent / "out"
    line = ["--annotations", file, "--experiment_path", out, "--threads", 1, "-b", 4]
    line += ["--iter_size", 1, "--pose_frames", 8, "--num_people", 1, *options, *other]
    args = list(map(str, line))
    stopped = _stopped_after_one_epoch(args, out)
    main_only_pose.main(args)
    assert same(read_checkpoint(stopped / "last.pth.tar")["model"], state)


def _stopped_after_one_epoch(args, out) -> Path:
    import session

    class StopError(Exception):
        pass

    real, calls = session.train_one_epoch, []

    def once(*a, **k):
        calls.append(1)
        if len(calls) == 2:
            raise StopError
        return real(*a, **k)

    session.train_one_epoch = once
    try:
        with pytest.raises(StopError):
            main_only_pose.main(args)
    finally:
        session.train_one_epoch = real
    return next(p for p in out.rglob("*_halves"))


def test_published_names_start_a_training_and_another_number_of_joints_is_refused(pickle, tmp_path):
    args = parse_pose_train_args(["--dataset", "synthetic", "--pose_model", "stgcnpp"])
    model = build_model(args, 60)
    names = {
        f"backbone.{key.removeprefix('encoder.')}"
        if key.startswith("encoder.")
        else key.replace("head.linear", "cls_head.fc_cls"): value
        for key, value in model.state_dict().items()
    }
    torch.save({"meta": {"epoch": 3}, "state_dict": names}, tmp_path / "j.pth")
    options = ["--pose_model", "stgcnpp", "--finetune", "--checkpoint_path", tmp_path / "j.pth"]
    run = train(pickle(), *options)
    assert score(run).total == SPLITS["test"]
    with pytest.raises(Exception, match="15 joints|of 15|jhmdb15"):
        train(pickle(joints=len(JHMDB15)), *options, "--resume", "none")


def test_classes_are_balanced_and_the_list_repeats(pickle):
    run = train(pickle(), "--pose_model", "stgcnpp", "--balanced_sampling", "--repeat", 3)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines
    args = json.loads((run / "args.json").read_text())
    assert (args["repeat"], args["balanced_sampling"]) == (3, True)


def refusal(parse, line: str, capsys) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(line.split())
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--dataset synthetic --pose_model stgcnpp --frame_interval 4", "of single frames"),
        ("--dataset synthetic --recipe rgbpose_pose --pose_model stgcnpp", "train it with main"),
        ("--annotations a.pkl --fold 1/5", "import_poses.py --format pyskl --make_lists"),
        ("--dataset synthetic --pose_model mlp --pose_streams bone", "whole-clip"),
        ("--dataset synthetic --pose_model posec3d --pose_streams bone", "joint, limb"),
        ("--dataset synthetic --pose_model stgcnpp --pose_streams limb", "joint, bone"),
        ("--dataset synthetic --pose_model stgcnpp --pose_streams bone bone", "each once"),
        ("--dataset synthetic --pose_model stgcnpp --rand_augment", "--rand_augment"),
        ("--dataset synthetic --pose_model stgcnpp --pose_normalize frame", "another value"),
        ("--dataset synthetic --pose_model mlp --pose_rotate 5", "--pose_rotate"),
        ("--dataset synthetic --pose_model stgcnpp --pose_rotate 270", "from 0 to 180"),
        ("--dataset synthetic --pose_model mlp --skeleton_layout ntu25", "coco17 alone"),
        ("--dataset synthetic --pose_model stgcnpp --skeleton_layout ntu26", "ntu25"),
        ("--dataset synthetic --pose_model mlp --recipe small", "whole-clip"),
        ("--dataset synthetic --train_split a", "--annotations"),
        ("--annotations a.pkl --train_list b.txt", "--train_list"),
        ("--annotations a.pkl --dataset synthetic", "one of them"),
        ("--dataset synthetic --lr_schedule multistep", "--lr_steps"),
        ("--dataset synthetic --nesterov --momentum 0", "--momentum"),
        ("--dataset synthetic --min_box_score 0.5", "--annotations"),
        ("--dataset synthetic --skip_broken", "--annotations"),
        ("--dataset synthetic --keypoint_files x", "--annotations"),
        ("--dataset synthetic --pose_model stgcnpp --pose_crop 0.5 --pose_sampling spread", "drop"),
        ("--dataset synthetic --people_order area", "whole-clip"),
        ("--dataset synthetic --pose_model mlp --pose_frames 64", "whole-clip"),
        ("--dataset synthetic --pose_model gcn --pose_sampling spread", "whole-clip"),
        ("--dataset synthetic --people_padding loop", "--people_padding is of"),
        ("--dataset synthetic --pose_model posec3d --people_padding loop", "--people_padding"),
        ("--dataset synthetic --pose_model stgcnpp --tcn_dropout 0.5", "--pose_model stgcn: drop"),
        ("--dataset synthetic --pose_model stgcnpp --posec3d_stages 3 4 6", "posec3d: drop"),
        ("--dataset synthetic --pose_model stgcnpp --pose_size 48", "posec3d: drop"),
        ("--dataset synthetic --pose_model posec3d --num_people 101", "at most 100"),
        ("--dataset synthetic --pose_model posec3d --posec3d_stages 4 51 3", "at most 50"),
        ("--dataset synthetic --pose_model posec3d --pose_size 1025", "at most 1024"),
    ],
)
def test_options_that_do_not_fit_end_with_one_line(line, words, capsys):
    text = refusal(parse_pose_train_args, line, capsys)
    assert words in text
    assert text.count("\n") == 1


def test_options_of_fusions_that_do_not_fit(capsys):
    base = "--dataset synthetic "
    for line, words in (
        ("--rgbpose_conv3d --gsf", "backbone of its own"),
        ("--rgbpose_streams rgb", "--rgbpose_conv3d"),
        ("--stream_losses 0.5", "late fusions"),
        ("--late_fusion_poses --pose_model posec3d --pose_pooling masked", "volumes"),
        ("--late_fusion_poses --pose_model stgcnpp --pose_weights y.pt", "preprocess_pose.py"),
        ("--late_fusion_poses --pose_model stgcnpp --pose_crop 0.5", "--pose_sampling uniform"),
        ("--rgbpose_conv3d --pose_streams limb", "out of joint"),
        ("--rgbpose_conv3d --arch resnet18", "--arch is not of --rgbpose_conv3d"),
        ("--rgbpose_conv3d --crop_scales 1", "--crop_scales is not"),
        ("--rgbpose_conv3d --pretrained x.pth", "--pretrained is not"),
        ("--pose_model stgcnpp", "pose stream"),
        ("--rgbpose_conv3d --pose_model aagcn", "pose stream"),
        ("--early_fusion_poses --pose_model mlp", "pose stream"),
        ("--late_fusion_poses --pose_model stgcnpp --pose_sampling pad_zero", "give spread"),
        (
            "--late_fusion_poses --pose_model stgcn --pose_sampling uniform --frame_interval 2",
            "spread over the frames of RGB",
        ),
        ("--rgbpose_conv3d --frame_interval 2 --pose_crop 0.5", "no --frame_interval"),
        ("--rgbpose_conv3d --frame_interval 2 --pose_sampling uniform", "over the frames of RGB"),
        ("--rgbpose_conv3d --num_segments 16 --pose_frames 32", "give --pose_frames 64"),
        ("--rgbpose_conv3d --pose_flip 0.5", "follow the mirror of the frames"),
        ("--late_fusion_poses --pose_model stgcnpp --pose_flip 0.9", "the mirror of the frames"),
        ("--rgbpose_conv3d --stream_checkpoints a b --rgbpose_streams rgb", "both of its streams"),
    ):
        assert words in refusal(parse_train_args, base + line, capsys)


def test_a_recipe_crops_in_time_only_where_skeletons_are_alone():
    line = "--dataset synthetic --recipe small --pose_model stgcnpp"
    assert parse_pose_train_args(line.split()).pose_crop == 0.6
    assert parse_train_args(f"{line} --late_fusion_poses".split()).pose_crop == 1
    spread = f"{line} --pose_sampling pad_loop".split()
    assert parse_pose_train_args(spread).pose_crop == 1


# Rate, for so many clips, momentum, decay, limit on the gradient, rounds through the list, frames:
# the configurations of PYSKL and MMAction2.
PUBLISHED_RECIPES = {
    **dict.fromkeys(
        ("stgcn", "agcn", "aagcn", "stgcnpp", "ctrgcn"), (0.1, 128, 0.9, 5e-4, None, 80, 100)
    ),
    "stgcn_vanilla": (0.1, 128, 0.9, 1e-4, None, 80, 300),
    "posec3d": (0.4, 256, 0.9, 3e-4, 40, 240, 48),
    "posec3d_finetune": (0.01, 128, 0.9, 3e-4, 40, 120, 48),
    "rgbpose_rgb": (0.15, 96, 0.9, 1e-4, 40, 180, 32),
    "rgbpose_pose": (0.2, 128, 0.9, 3e-4, 40, 180, 32),
    "rgbpose": (0.0075, 48, 0.9, 1e-4, 40, 20, 32),
}


@pytest.mark.parametrize("recipe", PUBLISHED_RECIPES)
def test_recipes_set_the_published_values(recipe):
    is_rgb = recipe.startswith("rgbpose")
    parse = parse_train_args if is_rgb else parse_pose_train_args
    args = parse(["--dataset", "synthetic", "--recipe", recipe])
    rate, clips, momentum, decay, limit, rounds, frames = PUBLISHED_RECIPES[recipe]
    assert (args.lr, args.auto_scale_lr, args.momentum) == (rate, clips, momentum)
    assert args.weight_decay == decay
    assert args.clip_gradient == limit if limit else args.clip_gradient > 1e6
    assert args.epochs * args.repeat == rounds
    assert args.pose_frames == frames
    assert args.nesterov == ((rate, decay) == (0.1, 5e-4))
    assert args.warmup == 0
    steps = {"stgcn_vanilla": [2, 10], "posec3d_finetune": [9, 11], "rgbpose": [12, 16]}
    assert args.lr_schedule == ("multistep" if recipe in steps else "cosine_step")
    assert recipe not in steps or args.lr_steps == steps[recipe]


def test_recipes_give_way():
    def alone(line):
        return parse_pose_train_args(f"--dataset synthetic {line}".split())

    # Without a number the rate is scaled by the batch that it was published for.
    assert alone("--recipe stgcnpp --auto_scale_lr").auto_scale_lr == 128
    assert alone("--recipe stgcnpp --auto_scale_lr 64").auto_scale_lr == 64
    assert alone("--auto_scale_lr").auto_scale_lr == 8
    assert alone("").auto_scale_lr is None
    assert alone("--recipe stgcnpp").nesterov
    assert not alone("--recipe stgcnpp --no-nesterov").nesterov
    assert not alone("--recipe stgcnpp --momentum 0").nesterov
    vanilla = "--recipe stgcn_vanilla"
    assert (alone(vanilla).tcn_dropout, alone(vanilla).pose_sampling) == (0.5, "pad_zero")
    assert alone(f"{vanilla} --pose_model stgcnpp").tcn_dropout == 0
    other = alone("--recipe posec3d_finetune --pose_model stgcnpp")
    assert (other.posec3d_stages, other.pose_size) == (None, 56)
    late = parse_train_args(f"--dataset synthetic --late_fusion_poses {vanilla}".split())
    assert (late.pose_sampling, late.dropout) == ("spread", 0.5)
    for recipe in ("posec3d", "small", "rgbpose"):
        line = f"--dataset synthetic --rgbpose_conv3d --recipe {recipe}"
        both = parse_train_args(line.split())
        assert (both.pose_frames, both.pose_flip) == (4 * both.num_segments, 0)
    many = parse_train_args(["--dataset", "synthetic", "--rgbpose_conv3d", "--num_segments", "16"])
    assert (many.pose_frames, many.pose_sampling) == (64, "uniform")
    windows = parse_train_args(
        ["--dataset", "synthetic", "--rgbpose_conv3d", "--frame_interval", "2"]
    )
    assert windows.pose_sampling == "spread"


@pytest.mark.parametrize(
    ("fusion", "line", "words"),
    [
        ("rgbpose", "--double_flip", "--double_flip"),
        ("late", "--double_flip --pose_model posec3d", "--double_flip"),
        ("rgbpose", "--test_crops 3", "--test_crops 1"),
        ("pose", "--test_crops 3 --pose_model posec3d", "whole skeletons"),
    ],
)
def test_views_that_a_network_does_not_know_are_refused(fusion, line, words, capsys):
    stored = {"fusion": fusion, "dataset": "synthetic"}

    def adopt(line):
        return adopt_options(parse_test_args(["--weights", "x", *line]), stored)

    assert words in refusal(adopt, line, capsys)
    alone = ["--weights", "x", "--double_flip", "--pose_model", "posec3d"]
    assert adopt_options(parse_test_args(alone), {**stored, "fusion": "pose"}).double_flip


def test_streams_of_a_late_fusion_are_taught_alone_as_well():
    line = "--dataset synthetic --late_fusion_poses_attention --pose_model stgcnpp --arch resnet18 "
    args = parse_train_args(f"{line}--width 16 --pretrained none --stream_losses 0.5".split())
    model = build_model(args, 3)
    assert model.head_weights == (1.0, 0.5, 0.5)
    frames, skeletons = torch.rand(2, 8, 3, 32, 32), torch.rand(2, 24, 2, 17, 3)
    batch = {"frames": frames, "skeletons": skeletons}
    assert model.train()(batch).shape == (2, 3, 3)
    assert model.eval()(batch).shape == (2, 3)


def test_rgbpose_begins_with_its_two_streams(dataset, tmp_path):
    line = ["--dataset", "FRFS", "--dataset_path", dataset.parent, "--rgbpose_conv3d"]
    line += ["--pretrained", "none", "--num_segments", 2, "--pose_frames", 8, "--input_size", 28]
    line += ["--epochs", 1, "-b", 2, "--iter_size", 1, "--threads", 1, "-j", 0]
    runs = []
    for stream in ("rgb", "pose"):
        out = tmp_path / stream
        main.main([*map(str, line), "--rgbpose_streams", stream, "--experiment_path", str(out)])
        runs.append(str(newest(out) / "last.pth.tar"))
    out = tmp_path / "both"
    options = ["--stream_checkpoints", *runs, "--experiment_path", str(out)]
    main.main([*map(str, line), *options])
    alone = read_checkpoint(Path(runs[0]))["model"]
    both = read_checkpoint(newest(out) / "best.pth.tar")["model"]
    assert both["encoder.rgb_path.conv1.conv.weight"].shape == (
        alone["encoder.rgb_path.conv1.conv.weight"].shape
    )
    assert score(newest(out), "--split", "val").total > 0


def test_the_pose_pathway_of_rgbpose_trains_and_is_tested_without_frames(pickle):
    small = ["--num_segments", 2, "--input_size", 56, "--repeat", 1]
    run = train(pickle(), "--recipe", "rgbpose_pose", *small, script=main)
    assert run.parent.name == "rgbpose_conv3d"
    views = ["--num_clips", "3", "--softmax", "--double_flip"]
    assert score(run, *views).total == SPLITS["test"]


def test_the_pose_pathway_alone_is_shown_what_posec3d_is(pickle):
    options = ["--annotations", str(pickle()), "--pose_frames", "8"]
    pathway = ["--rgbpose_conv3d", "--rgbpose_streams", "pose", "--num_segments", "2"]
    args = parse_train_args([*options, *pathway, "--input_size", "56"])
    other = parse_pose_train_args([*options, "--pose_model", "posec3d", "--pose_size", "14"])
    assert (args.pose_flip, args.pose_size) == (0.5, 56)
    seen = [build_train_loader(a, open_data(a)).dataset for a in (args, other)]
    assert [data.spec.has_frames for data in seen] == [False, False]
    keys = [SampleKey(epoch=0, index=index) for index in range(4)]
    for key in keys:
        ours, theirs = (data[key].skeletons for data in seen)
        assert ours.volume_size == theirs.volume_size == (14, 14)
        assert torch.equal(ours.skeletons, theirs.skeletons)


@pytest.mark.parametrize(
    ("recipe", "model", "said"),
    [("posec3d", "stgcn", True), ("small", "stgcn", False), ("posec3d", "posec3d", False)],
)
def test_a_recipe_of_the_other_kind_is_said(pickle, capsys, recipe, model, said):
    volumes = ["--pose_size", 16, "--repeat", 1] if model == "posec3d" else []
    train(pickle(), "--recipe", recipe, "--pose_model", model, *volumes)
    note = f"note: --recipe {recipe} was made for heatmap volumes, which"
    assert (note in capsys.readouterr().out) == said
