"""Which run goes on, and whether its checkpoint belongs to what is asked."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints import CheckpointFolder
from console import warn
from errors import InputError
from files import read_regular
from options.skeletons import needs_frames
from reports import RunFolder, plain

_MOST_BYTES = 2**24
# Options that may differ when a run continues: they change no number of it.
FREE_OPTIONS = frozenset(
    {
        "workers",
        "print_freq",
        "device",
        "gpus",
        "dataset_path",
        "keypoint_files",
        "cache_dir",
        "experiment_path",
        "resume",
        "evaluate",
        "pretrained",
        "save_every_minutes",
        "skip_nonfinite",
        "worker_timeout",
        "rank_timeout",
        "gradient_sum",
        # It may be lowered when memory is short, as the program does by itself.
        "micro_batch",
        "shards",
        "shard_cache",
        "shard_cache_gb",
    }
)


def runs_folder(args: argparse.Namespace) -> Path:
    """Return the folder that the runs of these options lie in."""
    network = args.arch if needs_frames(args) else args.pose_model
    if args.fusion == "rgbpose":  # it has a backbone of its own
        network = "rgbpose_conv3d"
    return args.experiment_path / "experiments" / args.dataset / network


def find_run(args: argparse.Namespace) -> Path | None:
    """Return the folder of the run that goes on, or None to start anew.

    Without `--resume` it is the newest unfinished one of this name with the same options.

    Raises:
        InputError: `--resume` names no checkpoint to go on from.
    """
    if args.resume == "none" or args.evaluate:
        return None
    if args.resume not in (None, "auto"):
        return _named_run(Path(args.resume))
    for run in RunFolder.candidates(runs_folder(args), args.experiment_name):
        if not _is_same(run, args):
            continue
        # Killed before its first checkpoint, a run of these options begins again where it is.
        if (args.resume is None or run.has_checkpoint) and _is_unfinished(run, args):
            return run.path
    return None


def _named_run(path: Path) -> Path:
    run = RunFolder(path.parent)
    if path.name != run.last.name or not (run.path / "args.json").is_file():
        what = "not there" if not path.exists() else f"not the {run.last.name} of a run folder"
        raise InputError(
            f"--resume {path} is {what}: name the {run.last.name} of the run that is to go on, or "
            "start from its weights with --finetune --checkpoint_path"
        )
    return run.path


def _is_same(run: RunFolder, args: argparse.Namespace) -> bool:
    """Say whether a run has this name and, without `--resume auto`, options of the same numbers."""
    try:
        stored = json.loads(read_regular(run.path / "args.json", _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return args.resume is not None
    if not isinstance(stored, dict) or stored.get("experiment_name") != args.experiment_name:
        return False
    return args.resume is not None or not different_options(stored, plain(vars(args)))


def _is_unfinished(run: RunFolder, args: argparse.Namespace) -> bool:
    if run.is_finished or not run.has_checkpoint:
        return not run.is_finished
    try:
        content = CheckpointFolder(run.path).read_last().content
    except InputError as error:
        if args.resume is not None:
            raise
        warn(f"an unfinished run cannot go on, a new one begins: {error}")
        return False
    # Runs of older releases have no manifest, and write nothing when they are finished.
    return content["epoch"] < args.epochs or CheckpointFolder(run.path).manifest.is_file()


def check_continues(
    path: Path,
    packed: Mapping[str, Any],
    options: Mapping[str, Any],
    classes: Sequence[str],
    clips: Mapping[str, Tensor],
) -> None:
    """Make sure that a run goes on with what its checkpoint was made with.

    Args:
        path: of the checkpoint, for the message.
        packed: its content.
        options: of this command, as JSON values.
        classes: names of the classes now.
        clips: list -> fingerprints of its clips now.

    Raises:
        InputError: options, classes or clips differ.
    """
    _check_same(path, packed["args"], options)
    lists = packed.get("clips")
    if not isinstance(packed.get("classes"), list) or not isinstance(lists, Mapping):
        raise InputError(
            f"{path} does not say its classes and clips, so it cannot be continued: to start from "
            f"its weights use --finetune --checkpoint_path {path}"
        )
    then, now = packed["classes"], list(classes)
    if then != now:
        raise InputError(
            f"{path} was trained on the classes {', '.join(then)}, the data set now has "
            f"{', '.join(now)}: continue with the same, or use --finetune"
        )
    for split, seen in clips.items():
        if split not in lists or not torch.equal(seen, torch.as_tensor(lists[split])):
            raise InputError(
                f"{path} was trained with another {split} list ({len(lists.get(split, ()))} "
                f"clips, now {len(seen)}): continue with the same clips, start anew with "
                "--resume none, or use --finetune"
            )


def _check_same(path: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in different_options(stored, now):
        raise InputError(
            f"{path} was trained with {name} {stored[name]}, this command says {now[name]}: "
            "give the same options to continue it, --resume none to start anew, or --finetune to "
            "start from its weights"
        )


def different_options(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the options in which two commands differ so that their numbers do too."""
    shared = sorted(stored.keys() & now.keys() - FREE_OPTIONS)
    return [name for name in shared if _told(name, stored[name]) != _told(name, now[name])]


def _told(name: str, value: Any) -> Any:
    """Return what is compared of an option: of a file that may have moved, its name."""
    return Path(value).name if name == "annotations" and isinstance(value, str) else value
