"""Which run goes on, and whether its checkpoint belongs to what is asked."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import opts
from datasets.clips import ClipDataset
from errors import InputError
from models.weights import read_training_state
from reports import RunFolder

# Options that may differ when a run continues: they change no number of it.
FREE_OPTIONS = frozenset(
    {
        "workers",
        "print_freq",
        "device",
        "gpus",
        "dataset_path",
        "experiment_path",
        "resume",
        "evaluate",
        "pretrained",
    }
)


def runs_folder(args: argparse.Namespace) -> Path:
    """Return the folder that the runs of these options lie in."""
    network = args.arch if opts.needs_frames(args) else args.pose_model
    return args.experiment_path / "experiments" / args.dataset / network


def find_checkpoint(args: argparse.Namespace) -> Path | None:
    """Return the checkpoint to continue from, or None to start anew."""
    if args.resume is None or args.evaluate:
        return None
    if args.resume != "auto":
        path = Path(args.resume)
        if not path.is_file():
            raise InputError(
                f"--resume {path} is not a file: name a last.pth.tar, or use --resume auto"
            )
        run = RunFolder(path.parent)
        if path.name != run.last.name or not (run.path / "args.json").is_file():
            raise InputError(
                f"--resume {path} is not the {run.last.name} of a run folder, where the run would "
                "go on: name that, or start from its weights with --finetune --checkpoint_path"
            )
        return path
    for run in RunFolder.candidates(runs_folder(args), args.experiment_name):
        if read_training_state(run.last)["epoch"] < args.epochs:
            return run.last
    return None


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
    then, now = packed["classes"], list(classes)
    if then != now:
        raise InputError(
            f"{path} was trained on the classes {', '.join(then)}, the data set now has "
            f"{', '.join(now)}: continue with the same, or use --finetune"
        )
    for split, seen in clips.items():
        if not torch.equal(seen, packed["clips"][split]):
            raise InputError(
                f"{path} was trained with another {split} list ({len(packed['clips'][split])} "
                f"clips, now {len(seen)}): continue with the same clips, or use --finetune"
            )


def _check_same(path: Path, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(stored.keys() & now.keys() - FREE_OPTIONS):
        if stored[name] != now[name]:
            raise InputError(
                f"{path} was trained with {name} {stored[name]}, this command says {now[name]}: "
                "give the same options to continue it, or --finetune to start from its weights"
            )


def refuse_seen_clips(
    content: Mapping[str, Any], clips: ClipDataset, path: Path, *, is_published: bool = False
) -> None:
    """Make sure that a network is not tested on clips that it was trained or selected on.

    Args:
        content: the checkpoint.
        clips: to test on.
        path: of the checkpoint, for the message.
        is_published: val may be the test list.

    Raises:
        InputError: it is; the clips are counted.
    """
    for split, seen in content.get("clips", {}).items():
        if is_published and split == "val":
            continue
        shared = np.isin(clips.fingerprints, seen.numpy())
        if shared.any():
            name = clips.clips[int(shared.argmax())].record.name
            raise InputError(
                f"{path} was made with {int(shared.sum())} of these clips in its {split} list, "
                f"such as {name}: a result on them is no test; name another list or add "
                "--allow_overlap"
            )
