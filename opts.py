"""The parser of every script, and the rules for combining options.

Published spellings are kept (`--num_segments`, `--batch-size`); new options use underscores.
Functions below the scripts get the values that they need; only `models.build_model`,
`datasets.loading` and the scripts see the namespace.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from option_groups import (
    add_augmentation_options,
    add_data_options,
    add_device_options,
    add_input_options,
    add_model_options,
    add_optim_options,
    add_run_options,
    add_start_options,
    add_test_options,
)
from option_types import OneLineParser

FUSIONS = ("none", "early", "late", "late_fast", "late_attention", "pose")
# What a checkpoint records so that testing rebuilds the same network and the same input.
MODEL_OPTIONS = (
    "fusion",
    "arch",
    "width",
    "num_channels",
    "num_segments",
    "gsf",
    "gsf_ch_ratio",
    "pose_model",
    "attention_scope",
    "dropout",
    "consensus_type",
)
# Those that cannot be changed after training: another value is another network.
FIXED_OPTIONS = (
    "fusion",
    "arch",
    "width",
    "num_channels",
    "gsf",
    "gsf_ch_ratio",
    "pose_model",
)
INPUT_OPTIONS = (
    "input_size",
    "field_of_view",
    "frame_interval",
    "heatmap_sigma",
    "mask_background",
)
POSE_OPTIONS = ("pose_normalize", "missing_pose")
# Where the clips came from; lists are not among them, so the test list is the data set's own.
SOURCE_OPTIONS = (
    "dataset",
    "dataset_path",
    "class_names",
    "synthetic_size",
    "synthetic_clips",
    "synthetic_seed",
)


# ---------------------------------------------------------------- parsers


def train_parser(fusion: str = "none") -> OneLineParser:
    """Build the parser of `main.py` (or, with `fusion` "pose", of `main_only_pose.py`)."""
    script = "main_only_pose.py" if fusion == "pose" else "main.py"
    parser = OneLineParser(
        prog=script,
        description="Train on skeletons alone." if fusion == "pose" else "Train a clip classifier.",
        epilog=f"example: python {script} --dataset synthetic --arch resnet18 --gsf "
        "--pretrained none --epochs 6",
    )
    add_data_options(parser)
    add_input_options(parser)
    add_augmentation_options(parser)
    add_model_options(parser, fusion)
    add_start_options(parser)
    add_optim_options(parser)
    add_run_options(parser)
    add_device_options(parser)
    return parser


def test_parser() -> OneLineParser:
    """Build the parser of `test_models.py`."""
    parser = OneLineParser(
        prog="test_models.py",
        description="Test a checkpoint; the architecture is read from it unless options say it.",
        epilog="example: python test_models.py --weights <run>/best.pth.tar --num_clips 2 "
        "--test_crops 10 --save_scores",
    )
    add_data_options(parser)
    add_input_options(parser)
    add_model_options(parser, "none", pose_only=True)
    add_test_options(parser)
    add_device_options(parser)
    return parser


def parse_train_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `main.py`; exits with 2 on a wrong combination."""
    parser = train_parser()
    args = parser.parse_args(argv)
    _check_training(parser, args)
    return args


def parse_pose_train_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `main_only_pose.py`; exits with 2 on a wrong combination."""
    parser = train_parser("pose")
    args = parser.parse_args(argv)
    if args.fusion != "pose":
        parser.error("main_only_pose.py has no fusion modes: use main.py to add RGB")
    _check_training(parser, args)
    return args


def parse_test_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `test_models.py`; exits with 2 on a wrong option.

    `args.given` holds the names of the options on the command line; `adopt_options` takes the
    others from the checkpoint, then checks the combination.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = test_parser()
    args = parser.parse_args(argv)
    args.given = _given(test_parser(), argv)
    _check_several(parser, args)
    return args


def _check_several(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of ensembles and of the val list that do not fit together."""
    count = len(args.weights or args.scores)
    for name in ("ensemble_weights", "val_scores"):
        values = getattr(args, name)
        if values and len(values) != count:
            parser.error(f"--{name} has {len(values)} values for {count} models: give one for each")
    if count == 1 and (args.ensemble_weights or args.tune_on_val or args.compare):
        parser.error("--ensemble_weights, --tune_on_val and --compare need several models")
    if count > 1 and args.output is None:
        parser.error("several models need --output: the folder of their common report")
    if args.val_scores and not args.scores:
        parser.error("--val_scores goes with --scores: checkpoints score the val list themselves")
    needs_val = args.tune_on_val or args.calibrate
    if args.scores and needs_val != bool(args.val_scores):
        parser.error("--val_scores goes with --scores and --tune_on_val or --calibrate, both ways")
    if needs_val and args.split == "val":
        parser.error("--tune_on_val and --calibrate use the val list: a report on it says nothing")


def adopt_options(
    args: argparse.Namespace, stored: Mapping[str, Any], weights: Path | None = None
) -> argparse.Namespace:
    """Return the options to test a checkpoint with; their `weights` is that one path.

    Args:
        args: what `parse_test_args` returned.
        stored: the options that the checkpoint was trained with; empty for foreign ones.
        weights: the checkpoint; None is the first of `args.weights`.

    Exits with 2 when an option on the command line contradicts the network in the checkpoint,
    or the combination is wrong.
    """
    parser = test_parser()
    weights = weights or args.weights[0]
    for name in FIXED_OPTIONS:
        if name in args.given and name in stored and getattr(args, name) != stored[name]:
            parser.error(
                f"{weights} holds a network with {name} {stored[name]}, the command line "
                f"says {getattr(args, name)}: drop the option, or name another checkpoint"
            )
    adopted = argparse.Namespace(**{**vars(args), "weights": weights})
    for name in (*MODEL_OPTIONS, *INPUT_OPTIONS, *POSE_OPTIONS, *SOURCE_OPTIONS):
        if name in stored and name not in args.given:
            setattr(adopted, name, stored[name])
    if adopted.dataset is None:
        parser.error(f"{weights} does not say its data set: add --dataset")
    if isinstance(adopted.dataset_path, str):
        adopted.dataset_path = Path(adopted.dataset_path)
    check_model(parser, adopted)
    return adopted


def _given(parser: argparse.ArgumentParser, argv: Sequence[str]) -> frozenset[str]:
    """Return the destinations that `argv` names: parse again without any default."""
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return frozenset(vars(parser.parse_args(argv)))


# ---------------------------------------------------------------- rules


def _check_training(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset is None:
        parser.error("--dataset is missing: try --dataset synthetic, which needs no files")
    if (args.finetune or args.feature_extractor) and args.checkpoint_path is None:
        parser.error("--finetune and --feature_extractor need --checkpoint_path")
    if args.checkpoint_path is not None and not (args.finetune or args.feature_extractor):
        parser.error("--checkpoint_path needs --finetune or --feature_extractor")
    if args.evaluate and args.resume in (None, "auto"):
        parser.error("--evaluate needs --resume FILE: the checkpoint to evaluate")
    if (args.start_epoch or 0) >= args.epochs:
        parser.error(f"--start-epoch {args.start_epoch} leaves none of {args.epochs} --epochs")
    _check_name(parser, "--experiment_name", args.experiment_name)
    if args.amp_dtype is not None and not args.with_amp:
        parser.error("--amp_dtype needs --with_amp")
    check_model(parser, args)


def _check_name(parser: argparse.ArgumentParser, option: str, name: str) -> None:
    """Refuse a name that is a path: it becomes one folder."""
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in name:
        parser.error(f"{option} {name!r} must be a plain name, no path")


def fill_defaults(args: argparse.Namespace) -> None:
    """Set the model options whose default depends on the fusion mode."""
    if args.pose_model is None:
        args.pose_model = "conv1d" if args.fusion == "pose" else "mlp"
    if args.num_channels is None:
        args.num_channels = 4 if args.fusion == "early" else 3


def check_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fill in the derived defaults of the model options and refuse contradictions."""
    fill_defaults(args)
    if args.dataset is not None:
        _check_name(parser, "--dataset", args.dataset)
    if args.dataset not in (None, "synthetic") and args.dataset_path is None:
        parser.error(f"--dataset {args.dataset} needs --dataset_path: the folder that holds it")
    if args.fusion == "early" and args.num_channels != 4:
        parser.error("--early_fusion_poses needs --num_channels 4: the heatmap is the 4th channel")
    if args.fusion == "none" and args.num_channels != 3:
        parser.error("--num_channels 4 needs poses: add --early_fusion_poses or a late fusion")
    if args.mask_background and args.fusion == "pose":
        parser.error("--mask_background needs RGB frames: it has no meaning for skeletons alone")
    if args.pose_weights is not None and args.fusion != "late":
        parser.error("--pose_weights needs --late_fusion_poses")
    if args.gsf_ch_ratio > 100:
        parser.error(f"--gsf_ch_ratio {args.gsf_ch_ratio} is a share in per cent: at most 100")


def needs_frames(args: argparse.Namespace) -> bool:
    """Say whether the model sees RGB."""
    return args.fusion != "pose"


def needs_poses(args: argparse.Namespace) -> bool:
    """Say whether the model or its input uses keypoints."""
    return args.fusion != "none" or args.mask_background
