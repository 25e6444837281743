"""Weights that a run begins from: ImageNet's, those of another run, of one stream or of two."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from console import say, warn
from datasets.clips import ClipDataset
from datasets.opening import DataSource
from errors import InputError
from models import Network, build_model
from models.anatomy import Anatomy
from models.downloads import resolve_weights
from models.skeleton.rgbpose_conv3d import RGBPoseConv3D
from models.skeleton.rgbpose_start import initialise_from_streams
from models.weights import (
    CLASSIFIER_PART,
    RGB_PART,
    LoadReport,
    checkpoint_options,
    find_state,
    load_for_finetune,
    read_checkpoint,
)
from options.skeletons import layout_of, sees_whole_clips
from seen_clips import START, clips_of_start


def start_clips(args: argparse.Namespace, val_clips: ClipDataset) -> dict[str, torch.Tensor]:
    """Return the clips that the weights of `--finetune` and the like were trained on, if any."""
    start = clips_of_start(_start_files(args), args.dataset)
    if not len(start):
        return {}
    seen = np.isin(val_clips.fingerprints, start)
    if seen.any():
        warn(
            f"the weights that this run begins from were trained on {seen.sum()} of {len(seen)} "
            "validation clips: their accuracy says little, and tests on them are refused"
        )
    return {START: torch.from_numpy(start)}


def _start_files(args: argparse.Namespace) -> list[Path]:
    """Return the checkpoints that a run begins from; they may be downloaded."""
    if args.finetune or args.feature_extractor:
        return [resolve_weights(str(args.checkpoint_path))]
    return [resolve_weights(str(path)) for path in args.stream_checkpoints or ()]


def initial_model(args: argparse.Namespace, source: DataSource, *, fresh: bool) -> Network:
    """Build the model; weights that a checkpoint will replace are not looked for."""
    start = _start_files(args) if fresh else []
    states = [find_state(read_checkpoint(path), path) for path in start]
    # ImageNet has no part in a network whose weights are there; beside those of a skeleton network
    # the RGB stream begins as it is asked to.
    has_rgb = args.stream_checkpoints or any(Anatomy.of(state).gsf is not None for state in states)
    if not fresh or has_rgb:
        args = argparse.Namespace(**{**vars(args), "pretrained": "none"})
    model = build_model(args, len(source.classes))
    if len(start) == 1:
        report = load_for_finetune(model, start[0])
        say(str(report))
        if args.feature_extractor:
            _refuse_noise(args, report)
        _say_other_views(args, start[0])
    elif start:
        assert isinstance(model, RGBPoseConv3D)
        say(str(initialise_from_streams(model, *states)))
    if args.feature_extractor:
        model.freeze_encoder()
    return model


def _refuse_noise(args: argparse.Namespace, report: LoadReport) -> None:
    """Refuse to freeze what is not trained.

    Raises:
        InputError: a part of the network beside its classifier would stay as it was drawn.
    """
    trained = {CLASSIFIER_PART} | ({RGB_PART} if args.pretrained != "none" else set())
    drawn = [part for part in report.anew if part not in trained]
    if drawn:
        raise InputError(
            f"--feature_extractor trains the classifier alone, and {report.path} has no weights of "
            f"{' and '.join(drawn)}: train with --finetune, or give weights of the whole network"
        )


def _say_other_views(args: argparse.Namespace, weights: Path) -> None:
    """Say where this run shows skeletons otherwise than the weights were trained on.

    Fine-tuning takes weights alone: what the network sees is for the options to say.

    Raises:
        InputError: skeletons are in other dimensions.
    """
    if not sees_whole_clips(args):
        return
    told = checkpoint_options(weights)
    _check_joints(args, told.get("skeleton_layout"))
    for name in ("pose_streams", "pose_normalize"):
        theirs, ours = told.get(name), getattr(args, name)
        if theirs is not None and theirs != ours and not _is_of_other_dims(args, theirs):
            shown, wanted = _written(ours), _written(theirs)
            say(
                f"note: the weights were trained with --{name} {wanted}, this run has {shown}: "
                f"give --{name} {wanted} to go on as they were"
            )


def _is_of_other_dims(args: argparse.Namespace, normalize: object) -> bool:
    """Say whether a frame of reference is none for keypoints of these dimensions."""
    layout = layout_of(args.skeleton_layout)
    return normalize == "spine" and layout is not None and layout.dims == 2


def _check_joints(args: argparse.Namespace, told: "str | dict[str, Any] | None") -> None:
    """Refuse joints in other dimensions than the weights'; tell of others that are as many.

    Raises:
        InputError: they are in other dimensions, so that no number means what it did.
    """
    theirs, ours = layout_of(told), layout_of(args.skeleton_layout)
    if theirs is None or ours is None:
        return
    if theirs.dims != ours.dims:
        raise InputError(
            f"the weights were trained on joints in {theirs.dims} dimensions ({theirs.name}), this "
            f"run has joints in {ours.dims}: start from others, or from none"
        )
    if set(theirs.inward) == set(ours.inward):
        return
    warn(
        f"the weights were trained on the joints of {theirs.name}, this run has those of "
        f"{ours.name}: convert the keypoints with tools/convert_annotations.py, or start from "
        "others"
    )


def _written(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
