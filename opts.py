"""The parser of every script, and the rules for combining options.

Published spellings are kept (`--num_segments`, `--batch-size`); new options use underscores.
Functions below the scripts get the values that they need; only `models.build_model`,
`datasets.loading` and the scripts see the namespace.
"""

import argparse
from collections.abc import Sequence

from options.annotations import add_annotation_options
from options.caching import add_cache_options, check_cache
from options.groups import (
    add_augmentation_options,
    add_data_options,
    add_device_options,
    add_input_options,
    add_model_options,
)
from options.recipes import parse_with_recipe
from options.scaling import add_fault_options, add_scaling_options
from options.shards import add_shard_options, check_shards
from options.skeleton_rules import check_zoo, fill_defaults
from options.skeletons import (
    FRAME_MODELS,
    ZOO_FIXED_OPTIONS,
    ZOO_INPUT_OPTIONS,
    ZOO_MODEL_OPTIONS,
    add_rgbpose_options,
    needs_frames,
    sees_whole_clips,
)
from options.training import add_optim_options, add_run_options, add_start_options
from options.types import OneLineParser

FUSIONS = ("none", "early", "late", "late_fast", "late_attention", "pose", "rgbpose")
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
    *ZOO_MODEL_OPTIONS,
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
    *ZOO_FIXED_OPTIONS,
)
INPUT_OPTIONS = (
    "input_size",
    "field_of_view",
    "frame_interval",
    "heatmap_sigma",
    "mask_background",
    *ZOO_INPUT_OPTIONS,
)
POSE_OPTIONS = ("pose_normalize", "missing_pose")
FOLD_OPTIONS = ("fold", "fold_seed", "fold_val")
PICKLE_OPTIONS = (
    "annotations",
    "keypoint_files",
    "min_box_score",
    "skip_broken",
    "train_split",
    "val_split",
    "test_split",
)
# Where the clips came from; lists are not among them, so the test list is the data set's own.
SOURCE_OPTIONS = (
    "dataset",
    "dataset_path",
    "class_names",
    "synthetic_size",
    "synthetic_clips",
    "synthetic_seed",
    *FOLD_OPTIONS,
    *PICKLE_OPTIONS,
)
# Of frames, of their backbone, or of two streams: published command lines of skeletons alone give
# some of them, so they are read there, but not offered.
_FRAME_OPTIONS = (
    "arch",
    "width",
    "num_channels",
    "gsf",
    "gsf_ch_ratio",
    "attention_scope",
    "stream_losses",
    "pretrained",
    "stream_checkpoints",
    "heatmap_sigma",
    "mask_background",
    "pose_weights",
    "pose_backend",
    "cache",
    "cache_dir",
    "cache_short_side",
    "channels_last",
)


# ---------------------------------------------------------------- parsers


def train_parser(fusion: str = "none") -> OneLineParser:
    """Build the parser of `main.py` (or, with `fusion` "pose", of `main_only_pose.py`)."""
    script = "main_only_pose.py" if fusion == "pose" else "main.py"
    parser = OneLineParser(
        prog=script,
        description="Train on skeletons alone. Options of a backbone, such as --arch and --gsf in "
        "published command lines, are read and change nothing."
        if fusion == "pose"
        else "Train a clip classifier.",
        epilog=f"example: python {script} --dataset synthetic "
        + (
            "--epochs 6"
            if fusion == "pose"
            else "--arch resnet18 --gsf --pretrained none --epochs 6"
        ),
    )
    add_data_options(parser)
    add_annotation_options(parser)
    add_cache_options(parser)
    add_shard_options(parser)
    add_input_options(parser)
    add_augmentation_options(parser)
    add_model_options(parser, fusion)
    if fusion != "pose":
        add_rgbpose_options(parser)
    add_start_options(parser)
    add_optim_options(parser)
    add_scaling_options(parser)
    add_run_options(parser)
    add_fault_options(parser)
    add_device_options(parser)
    if fusion == "pose":
        parser.hide(_FRAME_OPTIONS)
    return parser


def parse_train_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `main.py`; exits with 2 on a wrong combination."""
    parser = train_parser()
    args = parse_with_recipe(parser, argv)
    _check_training(parser, args)
    return args


def parse_pose_train_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `main_only_pose.py`; exits with 2 on a wrong combination."""
    parser = train_parser("pose")
    args = parse_with_recipe(parser, argv, only_pose=True)
    _check_training(parser, args)
    return args


# ---------------------------------------------------------------- rules


def _check_training(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.dataset is None and args.annotations is not None:
        args.dataset = args.annotations.stem
    if args.dataset is None:
        parser.error("--dataset is missing: try --dataset synthetic, which needs no files")
    if (args.finetune or args.feature_extractor) and args.checkpoint_path is None:
        parser.error("--finetune and --feature_extractor need --checkpoint_path")
    if args.checkpoint_path is not None and not (args.finetune or args.feature_extractor):
        parser.error("--checkpoint_path needs --finetune or --feature_extractor")
    if args.evaluate and args.resume in (None, "auto", "none"):
        parser.error("--evaluate needs --resume FILE: the checkpoint to evaluate")
    if (args.start_epoch or 0) >= args.epochs:
        parser.error(f"--start-epoch {args.start_epoch} leaves none of {args.epochs} --epochs")
    check_name(parser, "--experiment_name", args.experiment_name)
    if args.amp_dtype is not None and not args.with_amp:
        parser.error("--amp_dtype needs --with_amp")
    check_fold(parser, args)
    check_fold_options(parser, args)
    check_model(parser, args)
    _check_pickle_options(parser, args)
    _check_rgbpose(parser, args)
    _check_combinations(parser, args)


def _check_pickle_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for name in ("keypoint_files", "min_box_score", "skip_broken"):
        if args.annotations is None and getattr(args, name):
            parser.error(f"--{name} needs --annotations: it is of annotation pickles")


def _check_rgbpose(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of a ResNet and of its crops beside a network that has its own."""
    if args.fusion != "rgbpose":
        return
    names = ("arch", "width", "field_of_view", "crop_scales")
    given = [name for name in names if getattr(args, name) != parser.get_default(name)]
    if args.pretrained not in ("imagenet", "none"):
        given.append("pretrained")
    if given:
        parser.error(
            f"--{given[0]} is not of --rgbpose_conv3d, whose network and crops are its own: drop "
            "it (weights to begin from: --stream_checkpoints, or --checkpoint_path --finetune)"
        )


def _check_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.lr_schedule == "multistep" and not args.lr_steps:
        parser.error("--lr_schedule multistep needs --lr_steps: the epochs where the rate falls")
    if args.lr_steps and args.lr_schedule != "multistep":
        parser.error("--lr_steps needs --lr_schedule multistep")
    if args.nesterov and (args.optimizer != "sgd" or args.momentum == 0):
        parser.error("--nesterov needs --optimizer sgd and a --momentum above 0")
    if args.stream_checkpoints and (args.fusion != "rgbpose" or args.rgbpose_streams != "both"):
        parser.error("--stream_checkpoints are of --rgbpose_conv3d with both of its streams")
    if args.stream_checkpoints and (args.finetune or args.feature_extractor):
        parser.error("--stream_checkpoints, --finetune, --feature_extractor: give one of them")
    if args.sync_bn and args.micro_batch is not None:
        parser.error("--sync_bn and --micro_batch contradict each other: drop one of them")
    _check_skeletons_alone(parser, args)


def _check_skeletons_alone(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what changes nothing where no frames are seen, and published lines do not give."""
    if needs_frames(args):
        return
    if sees_whole_clips(args) and args.frame_interval is not None:
        parser.error(
            "--frame_interval is of single frames: which ones whole-clip skeleton models see is "
            "for --pose_frames, --pose_sampling and --pose_crop to say: drop it"
        )
    if args.cache != "none":
        parser.error(f"--cache {args.cache} has no meaning for skeletons alone: drop it")


def check_name(parser: argparse.ArgumentParser, option: str, name: str) -> None:
    """Refuse a name that is a path: it becomes one folder."""
    if name in {"", ".", ".."} or "/" in name or "\\" in name or "\0" in name:
        parser.error(f"{option} {name!r} must be a plain name, no path")


def check_fold(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse lists beside `--fold`, which brings its own."""
    lists = [f"--{s}_list" for s in ("train", "val", "test") if getattr(args, f"{s}_list")]
    if args.fold is not None and lists:
        parser.error(f"--fold {args.fold} has lists of its own: drop {' and '.join(lists)}")


def check_fold_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of a fold without one."""
    for name in FOLD_OPTIONS[1:]:
        if args.fold is None and getattr(args, name) is not None:
            parser.error(f"--{name} needs --fold k/K")


def check_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fill in the derived defaults of the model options and refuse contradictions."""
    fill_defaults(args)
    if args.dataset is not None:
        check_name(parser, "--dataset", args.dataset)
    check_shards(parser, args)
    has_place = any(
        getattr(args, name, None) is not None for name in ("dataset_path", "shards", "annotations")
    )
    if args.dataset not in (None, "synthetic") and not has_place:
        parser.error(
            f"--dataset {args.dataset} needs --dataset_path, the folder that holds it, or --shards"
        )
    if args.fusion == "early" and args.num_channels != 4:
        parser.error("--early_fusion_poses needs --num_channels 4: the heatmap is the 4th channel")
    if args.fusion == "none" and args.num_channels != 3:
        parser.error("--num_channels 4 needs poses: add --early_fusion_poses or a late fusion")
    if args.mask_background and not needs_frames(args):
        parser.error("--mask_background needs RGB frames: it has no meaning for skeletons alone")
    if args.gsf_ch_ratio > 100:
        parser.error(f"--gsf_ch_ratio {args.gsf_ch_ratio} is a share in per cent: at most 100")
    check_zoo(parser, args)
    _check_fusion(parser, args)
    check_annotations(parser, args)
    check_cache(parser, args)
    _check_layout(parser, args)


def _check_fusion(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.pose_weights is not None and args.fusion != "late":
        parser.error("--pose_weights needs --late_fusion_poses")
    if args.pose_weights is not None and sees_whole_clips(args):
        parser.error(
            f"--pose_weights finds keypoints in single frames, --pose_model {args.pose_model} sees "
            "whole clips: run preprocess_pose.py first, and drop it"
        )
    if args.stream_losses and not args.fusion.startswith("late"):
        parser.error("--stream_losses is of late fusions: it has no meaning for one stream")
    if args.rgbpose_streams != "both" and args.fusion != "rgbpose":
        parser.error("--rgbpose_streams needs --rgbpose_conv3d")
    heard = getattr(args, "rgbpose_drop_path", (0.0, 0.0))
    is_alone = args.fusion != "rgbpose" or args.rgbpose_streams != "both"
    if is_alone and (any(heard) or getattr(args, "rgbpose_detach", ())):
        parser.error(
            "--rgbpose_detach and --rgbpose_drop_path are of --rgbpose_conv3d with both streams"
        )
    if args.fusion == "rgbpose" and (args.gsf or args.num_channels != 3 or args.mask_background):
        parser.error(
            "--rgbpose_conv3d has a backbone of its own: drop --gsf, --num_channels 4 and "
            "--mask_background"
        )


def check_annotations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what an annotation pickle brings itself, and splits without one."""
    if getattr(args, "annotations", None) is None:
        names = [n for n in ("train", "val", "test") if getattr(args, f"{n}_split", None)]
        if names:
            parser.error(f"--{names[0]}_split needs --annotations: the pickle that has the split")
        return
    others = ("train_list", "val_list", "test_list", "fold", "shards")
    given = [name for name in others if getattr(args, name, None) is not None]
    if given:
        lists = "make lists of it with tools/import_poses.py --format pyskl --make_lists"
        way = f", or {lists}" if given[0] == "fold" else ""
        parser.error(f"--annotations brings its own clips: drop --{given[0]}{way}")
    if args.dataset == "synthetic":
        parser.error("--annotations and --dataset synthetic: give one of them")
    if args.fusion == "pose" and args.pose_model in FRAME_MODELS and args.skeleton_layout is None:
        return  # the layout of the file decides
    if needs_frames(args) and args.dataset_path is None:
        parser.error("--annotations beside RGB needs --dataset_path: where <dataset>/frames lies")


def _check_layout(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    # Programs that only describe a network have no options of speed.
    if getattr(args, "channels_last", "auto") == "on" and not needs_frames(args):
        parser.error("--channels_last on needs RGB frames: drop it for skeletons alone")


def needs_poses(args: argparse.Namespace) -> bool:
    """Say whether the model or its input uses keypoints."""
    return args.fusion != "none" or args.mask_background
