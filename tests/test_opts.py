"""Options: the published command lines parse as they stand; contradictions end in one line."""

import re
import shlex
from pathlib import Path

import pytest

import opts
from options.predicting import parse_predict_args
from options.testing import adopt_options, parse_test_args, parser_of_tests

PUBLISHED_TRAIN = {
    "early": "--early_fusion_poses --num_channels 4",
    "late_attention": "--late_fusion_poses_attention --num_channels 3",
}
RECIPE = (
    "--arch resnet50 --batch-size 4 --num_segments 16 --lr 0.01 --epochs 120 --dropout 0.5 "
    "--weight-decay 5e-4 --warmup 10 --gsf --gsf_ch_ratio 100 --dataset FRFS --dataset_path data "
    "--experiment_path runs --experiment_name name "
)


def error_of(capsys, parse, line):
    with pytest.raises(SystemExit) as stop:
        parse(shlex.split(line))
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


@pytest.mark.parametrize("fusion", PUBLISHED_TRAIN)
def test_published_training_lines(fusion):
    args = opts.parse_train_args(shlex.split(RECIPE + PUBLISHED_TRAIN[fusion]))
    assert args.fusion == fusion
    assert (args.iter_size, args.momentum, args.clip_gradient) == (2, 0.9, 20.0)
    assert args.optimizer == "sgd"


def test_published_pose_only_line():
    line = RECIPE.replace("--lr 0.01", "--lr 0.001") + "--num_channels 3"
    args = opts.parse_pose_train_args(shlex.split(line))
    assert (args.fusion, args.pose_model) == ("pose", "conv1d")


def test_published_test_line():
    args = parse_test_args(
        shlex.split(
            "--arch resnet50 --num_channels 4 --num_segments 32 --early_fusion_poses --num_clips 2 "
            "--test_crops 10 --gsf --gsf_ch_ratio 100 --dataset FRFS --dataset_path data "
            "--weights best.pth.tar -j 8"
        )
    )
    assert (args.num_clips, args.test_crops, args.workers) == (2, 10, 8)
    assert {"arch", "fusion", "num_segments"} <= args.given
    assert "dropout" not in args.given


def test_other_published_options_are_known():
    opts.parse_train_args(
        shlex.split(
            "--dataset diving48 --dataset_path d --consensus_type avg --iter_size 1 --momentum 0.8 "
            "--gd 10 --with_amp -p 5 -ef 2 -j 0 --start-epoch 1 --gpus 0 --frame_interval 2 "
            "--rand_augment_4ch --resume x.pth.tar -e"
        )
    )
    opts.parse_train_args(
        shlex.split("--dataset meccano --dataset_path d --finetune --checkpoint_path x.pth.tar")
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "--dataset is missing"),
        ("--dataset FRFS", "--dataset FRFS needs --dataset_path"),
        ("--dataset synthetic --early_fusion_poses --num_channels 3", "needs --num_channels 4"),
        ("--dataset synthetic --num_channels 4", "needs poses"),
        ("--dataset synthetic --early_fusion_poses --late_fusion_poses_fast", "not allowed with"),
        ("--dataset synthetic --finetune", "need --checkpoint_path"),
        ("--dataset synthetic --checkpoint_path x", "needs --finetune or --feature_extractor"),
        ("--dataset synthetic --finetune --feature_extractor --checkpoint_path x", "not allowed"),
        ("--dataset synthetic --evaluate", "needs --resume"),
        ("--dataset synthetic --amp_dtype bf16", "needs --with_amp"),
        ("--dataset synthetic --pose_weights yolo.pt", "needs --late_fusion_poses"),
        ("--dataset synthetic --gsf --gsf_ch_ratio 120", "at most 100"),
        ("--dataset synthetic --synthetic_size 160", "write WIDTHxHEIGHT"),
        ("--dataset synthetic --epochs 0", "at least 1"),
        ("--dataset synthetic --lr nan", "above 0"),
        ("--dataset synthetic --dropout 1", "below 1"),
        ("--dataset synthetic --weight-decay -1", "at least 0"),
        ("--dataset a/b --dataset_path d", "must be a plain name"),
        ("--dataset synthetic --experiment_name ../x", "must be a plain name"),
        ("--dataset synthetic --start-epoch 5 --epochs 5", "leaves none"),
        ("--dataset synthetic --evaluate --resume auto", "--resume FILE"),
        ("--dataset synthetic --seed 4294967296", "below 2^32"),
        ("--dataset synthetic --nonsense", "unrecognized arguments"),
        ("--dataset synthetic --fold 0/5", "'0/5' is no fold"),
        ("--dataset synthetic --fold 6/5", "'6/5' is no fold"),
        ("--dataset synthetic --fold 1/1", "'1/1' is no fold"),
        ("--dataset synthetic --fold 2", "'2' is no fold"),
        ("--dataset synthetic --fold ../5", "'../5' is no fold"),
        ("--dataset synthetic --fold \u00b2/5", "is no fold"),
        ("--dataset synthetic --fold 1/group", "'1/group' is no fold"),
        ("--dataset synthetic --fold 1/2 --test_list x --val_list y", "drop --val_list and --test"),
        ("--dataset synthetic --fold_seed 3", "--fold_seed needs --fold"),
        ("--dataset synthetic --fold_val 0.1", "--fold_val needs --fold"),
        ("--dataset synthetic --fold 1/2 --fold_val 1", "below 1"),
    ],
)
def test_wrong_options_end_in_one_line(capsys, line, message):
    assert message in error_of(capsys, opts.parse_train_args, line)


def test_pose_only_has_no_fusion(capsys):
    line = "--dataset synthetic --early_fusion_poses"
    assert "no fusion modes" in error_of(capsys, opts.parse_pose_train_args, line)


def stored(**changes):
    args = opts.parse_train_args(["--dataset", "synthetic", "--early_fusion_poses", "--gsf"])
    return {**vars(args), "dataset_path": "some/where", **changes}


def test_testing_takes_the_network_and_the_data_from_the_checkpoint():
    args = parse_test_args(["--weights", "x", "--num_segments", "4"])
    adopted = adopt_options(args, stored(num_segments=16, pose_normalize="frame"))
    assert (adopted.fusion, adopted.gsf, adopted.num_channels) == ("early", True, 4)
    assert (adopted.num_segments, adopted.pose_normalize) == (4, "frame")
    assert (adopted.dataset, str(adopted.dataset_path)) == ("synthetic", "some/where")


def test_testing_takes_the_fold_from_the_checkpoint(capsys):
    held = stored(fold="2/5", fold_seed=3, fold_val=0.2)

    def adopt(line, stored=held):
        args = parse_test_args(shlex.split(f"--weights x {line}"))
        adopted = adopt_options(args, stored)
        return adopted.fold, adopted.fold_seed, adopted.fold_val

    assert adopt("") == adopt("--dataset synthetic") == ("2/5", 3, 0.2)
    assert adopt("--test_list mine.txt") == ("2/5", 3, 0.2)
    assert adopt("--fold 03/5") == ("3/5", 3, 0.2)
    # A fold is one of its data set.
    assert adopt("--dataset jumps --dataset_path d") == (None, None, None)
    assert adopt("", stored()) == (None, None, None)
    for line in ("--fold 1/5 --test_list x", "--dataset jumps --dataset_path d --fold_seed 1"):
        with pytest.raises(SystemExit) as stop:
            adopt(line)
        assert stop.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_testing_takes_a_pickle_from_the_checkpoint_unless_other_clips_are_named():
    held = stored(
        fusion="pose", gsf=False, num_channels=3, dataset="moves", annotations="moves.pkl",
        val_split="v", dataset_path=None,
    )  # fmt: skip

    def adopt(line, stored=held):
        adopted = adopt_options(parse_test_args(shlex.split(f"--weights x {line}")), stored)
        return adopted.dataset, adopted.annotations and str(adopted.annotations), adopted.val_split

    assert adopt("") == adopt("--dataset moves") == ("moves", "moves.pkl", "v")
    assert adopt("--annotations b.pkl") == ("moves", "b.pkl", "v")
    # Lists are no clips of the pickle.
    assert adopt("--dataset jumps --dataset_path d") == ("jumps", None, None)
    assert adopt("--dataset_path d") == ("moves", None, None)
    assert adopt("--dataset_path d --test_list t.txt") == ("moves", None, None)
    # Beside RGB a path is where the frames of the pickle lie.
    beside = {**held, "fusion": "late"}
    assert adopt("--dataset_path d", beside) == ("moves", "moves.pkl", "v")
    # A pickle is no fold of the lists that a network was trained with, nor of their data set.
    lists = {**held, "dataset": "synthetic", "annotations": None, "val_split": None}
    folded = {**lists, "fold": "2/5", "fold_seed": None, "fold_val": None}
    assert adopt("--annotations b.pkl", folded) == ("b", "b.pkl", None)


def test_testing_another_network_than_the_checkpoint_holds(capsys):
    args = parse_test_args(["--weights", "x.pth.tar", "--arch", "resnet18"])
    with pytest.raises(SystemExit):
        adopt_options(args, stored())
    text = capsys.readouterr().err
    assert "x.pth.tar holds a network with arch resnet50, the command line says resnet18" in text


def test_testing_a_foreign_checkpoint_needs_a_data_set(capsys):
    args = parse_test_args(["--weights", "x.pth.tar"])
    with pytest.raises(SystemExit):
        adopt_options(args, {})
    assert "add --dataset" in capsys.readouterr().err


def test_a_foreign_checkpoint_of_no_known_network_cannot_be_tested_on_skeletons(capsys):
    args = parse_test_args(["--weights", "x.pth", "--annotations", "a.pkl"])
    with pytest.raises(SystemExit):
        adopt_options(args, {})
    assert "x.pth does not say its network, and its tensors are of no" in capsys.readouterr().err


def every_option(parser):
    return {a.dest for a in parser._actions} - {"help"}


def test_stored_groups_name_real_options():
    known = every_option(opts.train_parser()) | {"fusion"}
    groups = (opts.MODEL_OPTIONS, opts.INPUT_OPTIONS, opts.POSE_OPTIONS, opts.SOURCE_OPTIONS)
    assert {name for group in groups for name in group} <= known
    assert set(opts.FIXED_OPTIONS) <= set(opts.MODEL_OPTIONS)


@pytest.mark.parametrize("build", [opts.train_parser, parser_of_tests])
def test_no_option_does_nothing(build):
    """Every destination is read somewhere outside opts.py and options/."""
    root = Path(opts.__file__).parent
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in (".", "datasets", "models", "pages")
        for path in (root / folder).glob("*.py")
        if path.name != "opts.py"
    )
    lists = {f"{split}_list" for split in ("train", "val", "test")}  # read in a loop over splits
    assert "{split}_list" in code
    # Fusion has one consensus; its option is kept for the published lines.
    unread = {d for d in every_option(build()) if not re.search(rf"\b{d}\b", code)}
    assert unread <= lists | {"consensus_type"}


@pytest.mark.parametrize("build", [opts.train_parser, parser_of_tests])
def test_every_option_has_help_in_a_group(build):
    parser = build()
    for action in parser._actions:
        assert action.help, action.dest
    assert "example: python" in parser.format_help()


@pytest.mark.parametrize(
    "line",
    ["--threads 100000", "--num_clips 1000000000", "--imgsz 100000 --pose_weights x.pt"],
)
def test_numbers_that_no_machine_can_serve_are_refused(line, capsys):
    with pytest.raises(SystemExit) as end:
        parse_predict_args(["--weights", "x", "--source", "y", *line.split()])
    assert end.value.code == 2
    assert "must be at most" in capsys.readouterr().err


def test_help_shows_defaults_as_they_are_typed():
    text = " ".join(opts.train_parser().format_help().split())
    assert "WIDTHxHEIGHT (default: 160x90)" in text
    assert "(default: 320 80 160)" in text
    assert "(default: [" not in text
    assert "(default: (" not in text


def test_skeletons_alone_are_offered_no_option_of_frames():
    parser = opts.train_parser("pose")
    words = parser.format_help().partition("options:")[2].split()
    hidden = ("--arch", "--gsf", "--pretrained", "--cache", "--attention_scope", "--pose_weights")
    assert not set(words) & set(hidden)
    # What published command lines give is read all the same.
    args = parser.parse_args(["--arch", "resnet18", "--gsf", "--gsf_ch_ratio", "50"])
    assert (args.arch, args.gsf, args.gsf_ch_ratio) == ("resnet18", True, 50)
    assert "--arch" in opts.train_parser().format_help()
