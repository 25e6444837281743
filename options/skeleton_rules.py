"""Defaults of skeleton models that depend on one another, and what does not fit together."""

import argparse
from typing import Any

from ops.skeleton import COCO17
from options.skeletons import (
    GCN_MODELS,
    RGBPOSE_GRID,
    RGBPOSE_RATIO,
    STREAMS,
    VOLUME_STREAMS,
    ZOO_MODELS,
    draws_volumes,
    has_pose_stream,
    layout_of,
    needs_frames,
    sees_whole_clips,
)

# Options that single models read -> these, and the default.
_OWN_OPTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "tcn_dropout": (("stgcn",), 0.0),
    "posec3d_stages": (("posec3d",), None),
    "pose_size": (("posec3d",), 56),
    "people_padding": (GCN_MODELS, "zero"),
}
# What models of whole clips read, and the defaults for those that see single frames.
_WHOLE_CLIP_OPTIONS = {"people_order": "given", "pose_frames": 100, "pose_sampling": "uniform"}


def fill_defaults(args: argparse.Namespace) -> None:
    """Set the model options whose default depends on the fusion mode."""
    if args.pose_model is None:
        args.pose_model = "conv1d" if args.fusion == "pose" else "mlp"
    if args.num_channels is None:
        args.num_channels = 4 if args.fusion == "early" else 3
    _fill_zoo_defaults(args)


def _fill_zoo_defaults(args: argparse.Namespace) -> None:
    """Set the options whose default depends on the model."""
    is_zoo, is_volume = sees_whole_clips(args), draws_volumes(args)
    is_late = is_zoo and args.fusion not in ("pose", "rgbpose")
    frame_of_reference = "none" if is_volume else "image"
    is_rgbpose = args.fusion == "rgbpose"
    volume_frames = RGBPOSE_RATIO * args.num_segments if is_rgbpose else 48
    in_windows = is_rgbpose and needs_frames(args) and args.frame_interval is not None
    is_gcn_alone = args.fusion == "pose" and args.pose_model in GCN_MODELS
    defaults = {
        # Volumes show everybody; published data hold 10 people at most.
        "num_people": 10 if is_volume else 2 if is_zoo else 1,
        "pose_streams": ["joint"],
        "pose_normalize": frame_of_reference if is_zoo else "clip",
        "pose_frames": volume_frames if is_volume else 100,
        "pose_sampling": "spread" if is_late or in_windows else "uniform",
        "dropout": 0.0 if is_gcn_alone else 0.5,
        "pose_flip": 0.5 if is_volume and not needs_frames(args) else 0.0,
    }
    for name, value in defaults.items():
        if getattr(args, name, value) is None:
            setattr(args, name, value)


def check_zoo(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of whole-clip skeleton models that do not fit together."""
    is_zoo, is_volume = sees_whole_clips(args), draws_volumes(args)
    for name in unread_options(args):
        parser.error(f"--{name} is of --pose_model {' and '.join(_OWN_OPTIONS[name][0])}: drop it")
    if not is_zoo:
        _check_frame_model(parser, args)
        return
    wanted: tuple[str, ...] = VOLUME_STREAMS if is_volume else STREAMS
    if args.fusion == "rgbpose":
        wanted = VOLUME_STREAMS[:1]
    unfit = [stream for stream in args.pose_streams if stream not in wanted]
    if unfit or len(set(args.pose_streams)) < len(args.pose_streams):
        parser.error(
            f"--pose_streams {' '.join(args.pose_streams)}: name each once, out of "
            f"{', '.join(wanted)}"
        )
    if is_volume and len(args.pose_streams) > 1:
        parser.error("posec3d sees one of --pose_streams joint and limb: train two, and mix them")
    _check_views_of_clips(parser, args, is_volume=is_volume)


def _check_views_of_clips(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *, is_volume: bool
) -> None:
    """Refuse what no model of whole clips can be shown."""
    _check_sampling(parser, args)
    if args.pose_normalize == "frame" or (is_volume and args.pose_normalize != "none"):
        text = "none, for heatmap volumes" if is_volume else "another value for whole clips"
        parser.error(f"--pose_normalize {args.pose_normalize}: give {text}")
    if is_volume and args.pose_pooling == "masked":
        parser.error("--pose_pooling masked has no meaning for heatmap volumes: drop it")
    if getattr(args, "pose_flip", 0.0) and needs_frames(args):
        parser.error("--pose_flip: beside RGB skeletons follow the mirror of the frames: drop it")
    if args.fusion == "rgbpose":
        _check_rgbpose(parser, args)
    if getattr(args, "rand_augment", False):
        parser.error(
            "--rand_augment does not move the skeletons of whole clips: drop it, or use a pose "
            "model of single frames"
        )


def _check_sampling(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse frames of skeletons that are not those of RGB."""
    if needs_frames(args) and args.pose_sampling.startswith("pad"):
        parser.error(
            f"--pose_sampling {args.pose_sampling} shows the first frames, RGB all of the clip: "
            "give spread beside it"
        )
    has_windows = needs_frames(args) and args.frame_interval is not None
    if has_windows and args.pose_sampling != "spread":
        parser.error(
            f"--pose_sampling {args.pose_sampling}: with --frame_interval skeletons are spread "
            "over the frames of RGB: drop it"
        )
    if getattr(args, "pose_crop", 1.0) < 1 and not sees_part_of_clips(args):
        parser.error(
            "--pose_crop needs --pose_sampling uniform, and beside RGB no --frame_interval: drop it"
        )


def _check_rgbpose(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what makes the pathways of RGBPose-Conv3D differ in time or in place."""
    if args.input_size % RGBPOSE_GRID:
        parser.error(
            f"--input_size {args.input_size}: --rgbpose_conv3d needs a multiple of {RGBPOSE_GRID}, "
            "such as 224, for volumes and frames to fit in training and in tests"
        )
    wanted = RGBPOSE_RATIO * args.num_segments
    if args.pose_frames != wanted:
        parser.error(
            f"--pose_frames {args.pose_frames} for --num_segments {args.num_segments}: "
            f"--rgbpose_conv3d sees {RGBPOSE_RATIO} skeletons for each frame: give --pose_frames "
            f"{wanted}, or leave it out"
        )


def _check_frame_model(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of whole-clip models for those that see single frames."""
    if getattr(args, "recipe", None) is not None:
        parser.error(
            f"--recipe {args.recipe} is of whole-clip skeleton models, and none is trained here: "
            "use main_only_pose.py, add --late_fusion_poses, or choose another --pose_model"
        )
    if args.pose_streams != ["joint"] or args.num_people != 1 or args.pose_pooling != "mean":
        parser.error(
            "--pose_streams, --num_people and --pose_pooling are of whole-clip skeleton models: "
            f"give --pose_model {', '.join(ZOO_MODELS[:-1])} or {ZOO_MODELS[-1]}"
        )
    read = [n for n, default in _WHOLE_CLIP_OPTIONS.items() if getattr(args, n) != default]
    if read:
        parser.error(
            f"--{read[0]} is of whole-clip skeleton models: give a --pose_model such as stgcnpp"
        )
    if args.pose_normalize not in ("clip", "frame", "none"):
        parser.error(
            f"--pose_normalize {args.pose_normalize} is of whole-clip skeleton models: give clip, "
            "frame or none"
        )
    changes = ("pose_flip", "pose_rotate", "pose_scale", "pose_shear", "pose_jitter", "pose_drop")
    given = [name for name in changes if getattr(args, name, 0.0)]
    if given or getattr(args, "pose_crop", 1.0) < 1:
        parser.error(
            f"--{given[0] if given else 'pose_crop'} changes the skeletons of whole clips: it has "
            "no meaning without a whole-clip --pose_model"
        )
    layout = layout_of(args.skeleton_layout)
    if layout is not None and layout.name != COCO17.name and has_pose_stream(args):
        parser.error(
            f"--pose_model {args.pose_model} knows the joints of coco17 alone: give a whole-clip "
            "model such as stgcnpp"
        )


def unread_options(args: argparse.Namespace) -> list[str]:
    """Return the options of single models that are set, and that this one does not read."""
    model = args.pose_model if has_pose_stream(args) else ""
    return [
        name
        for name, (models, default) in _OWN_OPTIONS.items()
        if model not in models and getattr(args, name, default) != default
    ]


def sees_part_of_clips(args: argparse.Namespace) -> bool:
    """Say whether training can show a random part of a clip, `--pose_crop`."""
    has_windows = needs_frames(args) and args.frame_interval is not None
    return args.pose_sampling == "uniform" and not has_windows
