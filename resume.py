"""Which run goes on, and whether its checkpoint belongs to what is asked."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import opts
from checkpoints import CheckpointFolder
from console import warn
from datasets.catalogue import find_row
from datasets.clip_table import ClipRow, load_table
from datasets.clips import ClipDataset
from datasets.facts import hash_records
from datasets.leakage import find_overlaps
from datasets.opening import SPLITS, DataSource
from datasets.records import ClipRecord, fingerprints
from errors import InputError
from files import read_regular
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
    network = args.arch if opts.needs_frames(args) else args.pose_model
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
    return [name for name in shared if stored[name] != now[name]]


# ---------------------------------------------------------------- clips that it has seen


@dataclass(frozen=True, slots=True)
class SeenClips:
    """Which of N clips a checkpoint was made with.

    Attributes:
        sure: list of the checkpoint -> (N,) bool, clips that were in it.
        named: the same of clips that have the name of one in it, in a data set of another name;
            nothing says whether they are the same.
    """

    sure: Mapping[str, np.ndarray]
    named: Mapping[str, np.ndarray]

    def phrases(self, split: str) -> list[str]:
        """Return what was found, for `overlap_protocol`; `split` is what the clips are of."""
        return [
            f"{seen.sum()} of {len(seen)} {split} clips were in the {name} list of the checkpoint"
            for name, seen in self.sure.items()
            if seen.any()
        ]

    def name_phrases(self, split: str) -> list[str]:
        """Return the same of names that coincide, for `names_protocol`."""
        return [
            f"{seen.sum()} of {len(seen)} {split} clips have the names of clips in the {name} list "
            "of the checkpoint, whose data set has another name"
            for name, seen in self.named.items()
            if seen.any()
        ]


def find_seen_clips(
    content: Any, source: DataSource, split: str, clips: ClipDataset, lists: Sequence[str]
) -> SeenClips:
    """Find the clips that a checkpoint was made with.

    In the data set that it was trained on names tell. In one of another name they prove nothing,
    since many are called 00001: there the same list, or the same contents by the `clips.csv` of
    both data sets, are proof, and other contents prove the contrary.

    Args:
        content: the checkpoint; a foreign one knows no clips.
        source: the data set of `clips`.
        split: the list that they are of.
        clips: N.
        lists: out of "train" and "val", those of the checkpoint to look at.
    """
    known = (content.get("clips") if isinstance(content, Mapping) else None) or {}
    seen = {name: known[name].numpy() for name in lists if name in known}
    has_name = {name: np.isin(clips.fingerprints, one) for name, one in seen.items()}
    stored = content.get("args", {}) if seen else {}
    if stored.get("dataset") == source.row.name:
        return SeenClips(has_name, {})
    theirs = _table_of(stored)
    marks = fingerprints([ClipRecord(name, 1, 0) for name in theirs])
    own = load_table(source.root)
    hashes = (content.get("data") or {}).get("lists") or {} if seen else {}
    own_hash = hash_records(source.records(split)) if hashes else ""
    sure, named = {}, {}
    for name, one in seen.items():
        trained = zip(theirs.values(), np.isin(marks, one).tolist(), strict=True)
        contents = {_content(row) for row, is_in in trained if is_in} - {""}
        keys = [_content(own.get(clip.record.name)) for clip in clips.clips]
        is_same = np.array([key in contents for key in keys], bool)
        is_same |= bool(own_hash) and hashes.get(name, {}).get("sha256") == own_hash
        is_other = np.array([
            bool(key) and _content(theirs.get(clip.record.name)) not in ("", key)
            for key, clip in zip(keys, clips.clips, strict=True)
        ], bool)  # fmt: skip
        sure[name] = is_same
        named[name] = has_name[name] & ~is_same & ~is_other
    return SeenClips(sure, named)


def _table_of(stored: Mapping[str, Any]) -> dict[str, ClipRow]:
    """Return the `clips.csv` that a checkpoint was trained with, if it can still be read."""
    name, place = stored.get("dataset"), stored.get("dataset_path")
    if not isinstance(name, str) or not isinstance(place, str):
        return {}
    try:
        return load_table(Path(place) / find_row(name).folder)
    except (InputError, OSError):
        return {}


def _content(row: ClipRow | None) -> str:
    return f"{row.sha256} {row.first_frame}" if row is not None and row.sha256 else ""


def refuse_seen_clips(seen: SeenClips, source: DataSource, clips: ClipDataset, path: Path) -> None:
    """Make sure that a network is not tested on clips that it was trained or selected on.

    Args:
        seen: of `clips`.
        source: the data set; val may be the test list where it says so.
        clips: to test on.
        path: of the checkpoint, for the message.

    Raises:
        InputError: it is; the clips are counted.
    """
    for split, shared in seen.sure.items():
        if source.is_published and split == "val":
            continue
        if shared.any():
            name = clips.clips[int(shared.argmax())].record.name
            raise InputError(
                f"{path} was made with {int(shared.sum())} of these clips in its {split} list, "
                f"such as {name}: a result on them is no test; name another list or add "
                "--allow_overlap"
            )


def shared_by_lists(source: DataSource, clips: ClipDataset) -> list[str]:
    """Return what the other lists share with the tested clips: names, contents or groups."""
    records = {s: source.records(s) for s in SPLITS if s != "test" and source.has(s)}
    records["test"] = tuple(clip.record for clip in clips.clips)
    found: dict[str, str] = {}
    for overlap in find_overlaps(records, load_table(source.root)):
        if overlap.other == "test":
            found.setdefault(overlap.one, f"the {overlap.one} and test lists {overlap.text()}")
    return list(found.values())
