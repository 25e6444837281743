"""Training recipes as presets, published ones and one of ours: what `--recipe` sets."""

import argparse
from collections.abc import Sequence
from typing import Any

from options.scaling import AS_PUBLISHED, PUBLISHED_BATCH
from options.skeleton_rules import fill_defaults, sees_part_of_clips, unread_options
from options.skeletons import has_pose_stream, needs_frames

# Steps of the optimiser as PYSKL takes them: every parameter decays, no limit on the gradient.
_NO_LIMIT = 1e9
# Duan et al. 2022, arXiv:2205.09443, table 2 and the configurations of PYSKL: 16 epochs that go
# five times through the list, learning rate 0.1 for 128 clips.
_GCN: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "decay": "all",
    "lr_schedule": "cosine_step",
    "warmup": 0,
    "clip_gradient": _NO_LIMIT,
    "epochs": 16,
    "repeat": 5,
    "batch_size": 16,
    "iter_size": 1,
    "auto_scale_lr": 128,
    "dropout": 0.0,
    "pose_frames": 100,
}
# Duan et al. 2022, arXiv:2104.13586, supplementary: learning rate 0.4 for 256 clips.
_VOLUMES: dict[str, Any] = {
    **_GCN,
    "lr": 0.4,
    "nesterov": False,
    "weight_decay": 3e-4,
    "clip_gradient": 40.0,
    "epochs": 24,
    "repeat": 10,
    "auto_scale_lr": 256,
    "dropout": 0.5,
    "pose_frames": 48,
}
# Ours, for some hundred clips: the published one learns these by heart. Chosen on clips cut off the
# training list of JHMDB (docs/RESULTS.md).
_SMALL: dict[str, Any] = {
    "pose_model": "stgcnpp",
    "optimizer": "adamw",
    "lr": 0.001,
    "auto_scale_lr": 16,
    "weight_decay": 0.05,
    "lr_schedule": "cosine_step",
    "warmup": 0,
    "clip_gradient": 5.0,
    "epochs": 120,
    "batch_size": 16,
    "iter_size": 1,
    "dropout": 0.5,
    "label_smoothing": 0.1,
    "pose_frames": 32,
    "pose_rotate": 15.0,
    "pose_scale": 0.2,
    "pose_shear": 0.1,
    "pose_jitter": 0.01,
    "pose_flip": 0.5,
    "pose_crop": 0.6,
}
_RGBPOSE: dict[str, Any] = {
    **_VOLUMES,
    "fusion": "rgbpose",
    "weight_decay": 1e-4,
    "batch_size": 6,
    "pose_frames": 32,
    "num_segments": 8,
    "epochs": 18,
    "pretrained": "none",
}
RECIPES: dict[str, dict[str, Any]] = {
    **{name: {**_GCN, "pose_model": name} for name in ("stgcn", "agcn", "aagcn", "stgcnpp")},
    # Yan et al. 2018, arXiv:1801.07455: 300 frames, padded with zeros; the rate falls twice.
    "stgcn_vanilla": {
        **_GCN,
        "pose_model": "stgcn",
        "nesterov": False,
        "weight_decay": 1e-4,
        "lr_schedule": "multistep",
        "lr_steps": [2, 10],
        "pose_frames": 300,
        "pose_sampling": "pad_zero",
        "tcn_dropout": 0.5,
    },
    "ctrgcn": {**_GCN, "pose_model": "ctrgcn"},
    "small": _SMALL,
    "posec3d": {**_VOLUMES, "pose_model": "posec3d"},
    # From weights of Kinetics-400 to UCF101 and HMDB51, as PYSKL and MMAction2 configure it.
    "posec3d_finetune": {
        **_VOLUMES,
        "pose_model": "posec3d",
        "posec3d_stages": [3, 4, 6],
        "lr": 0.01,
        "auto_scale_lr": 128,
        "lr_schedule": "multistep",
        "lr_steps": [9, 11],
        "epochs": 12,
        "pose_size": 48,
    },
    # The two streams of RGBPose-Conv3D alone, then both of them, begun from their weights.
    "rgbpose_rgb": {**_RGBPOSE, "lr": 0.15, "auto_scale_lr": 96, "rgbpose_streams": "rgb"},
    "rgbpose_pose": {
        **_RGBPOSE,
        "lr": 0.2,
        "auto_scale_lr": 128,
        "weight_decay": 3e-4,
        "rgbpose_streams": "pose",
    },
    "rgbpose": {
        **_RGBPOSE,
        "lr": 0.0075,
        "auto_scale_lr": 48,
        "lr_schedule": "multistep",
        "lr_steps": [12, 16],
        "epochs": 20,
        "repeat": 1,
        "rgbpose_streams": "both",
    },
}


def is_of_volumes(recipe: str) -> bool:
    """Say whether a recipe was made for networks that see heatmap volumes."""
    values = RECIPES[recipe]
    return values.get("fusion") == "rgbpose" or values.get("pose_model") == "posec3d"


def parse_with_recipe(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, *, only_pose: bool = False
) -> argparse.Namespace:
    """Parse twice if there is a recipe: its values are the defaults of the second time.

    Args:
        parser: of the script; exits with 2 on what does not fit.
        argv: its arguments.
        only_pose: the script trains on skeletons alone.
    """
    args = parser.parse_args(argv)
    _refuse_fusion(parser, args, only_pose)
    if args.recipe is None:
        _refuse_pose_model(parser, args, args.pose_model)
        if args.auto_scale_lr == AS_PUBLISHED:
            args.auto_scale_lr = PUBLISHED_BATCH
        return args
    recipe = RECIPES[args.recipe]
    parser.set_defaults(**recipe)
    found = parser.parse_args(argv)
    _refuse_fusion(parser, found, only_pose)
    _refuse_pose_model(parser, found, args.pose_model)
    if found.auto_scale_lr == AS_PUBLISHED:
        found.auto_scale_lr = recipe["auto_scale_lr"]
    _leave_out(args, found)
    return found


def _refuse_fusion(
    parser: argparse.ArgumentParser, args: argparse.Namespace, only_pose: bool
) -> None:
    if only_pose and RECIPES.get(args.recipe, {}).get("fusion") == "rgbpose":
        parser.error(f"--recipe {args.recipe} is of RGBPose-Conv3D: train it with main.py")
    if only_pose and args.fusion != "pose":
        parser.error("main_only_pose.py has no fusion modes: use main.py to add RGB")


def _leave_out(args: argparse.Namespace, found: argparse.Namespace) -> None:
    """Undo what a recipe says of another choice than the given one.

    Args:
        args: what was given, and defaults.
        found: what was given, and the recipe.
    """
    # What belongs to a choice of the recipe goes with it where another is given.
    if found.lr_schedule != "multistep" and args.lr_steps is None:
        found.lr_steps = None
    if (found.optimizer != "sgd" or found.momentum == 0) and not args.nesterov:
        found.nesterov = False
    if found.fusion.startswith("late"):  # frames in order, beside those of RGB, and its classifier
        found.pose_sampling, found.dropout = args.pose_sampling, args.dropout
    if found.fusion == "rgbpose" and RECIPES[found.recipe].get("fusion") != "rgbpose":
        found.pose_frames = args.pose_frames  # by its frames
    if needs_frames(found):  # skeletons follow the mirror of the frames
        found.pose_flip = args.pose_flip
    fill_defaults(found)
    for name in unread_options(found):
        setattr(found, name, getattr(args, name))
    if args.pose_crop == 1 and not sees_part_of_clips(found):
        found.pose_crop = 1.0


def _refuse_pose_model(
    parser: argparse.ArgumentParser, args: argparse.Namespace, given: str | None
) -> None:
    """Refuse the model of a pose stream where there is none; any network has a default of it."""
    if given is not None and not has_pose_stream(args):
        parser.error(
            f"--pose_model {given} is of a pose stream: add --late_fusion_poses_attention, or use "
            "main_only_pose.py"
        )
