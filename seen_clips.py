"""Which clips a checkpoint was made with, and what a result on them is called."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.catalogue import find_row
from datasets.clip_table import ClipRow, load_table
from datasets.clips import ClipDataset
from datasets.facts import hash_records
from datasets.leakage import find_overlaps
from datasets.opening import SPLITS, DataSource
from datasets.records import PUBLISHED, PUBLISHED_LAST, ClipRecord, fingerprints
from errors import InputError
from models.reading import is_ours
from models.weights import read_checkpoint
from results.selection import names_protocol, overlap_protocol


def published_protocol(args: argparse.Namespace) -> str:
    """Return the protocol of scores on a test list that is the val list, too."""
    content = read_checkpoint(args.weights)
    epoch = content.get("epoch") if is_ours(content) else None
    # A finished run stands before an epoch that it will not see: the last state was not chosen.
    is_last = epoch is not None and epoch == (content.get("args") or {}).get("epochs")
    return PUBLISHED_LAST if is_last and not args.weights.name.startswith("best") else PUBLISHED


def check_seen(args: argparse.Namespace, source: DataSource, split: str, clips: ClipDataset) -> str:
    """Refuse test clips that the model has seen; with `--allow_overlap` count them instead.

    Val clips chose the epoch, and are only counted where they were trained on.

    Returns:
        What of the clips is in other lists, as the `protocol` of scores; "" when they are apart.

    Raises:
        InputError: the model has seen test clips, and may not.
    """
    content = read_checkpoint(args.weights)
    lists = ("train", "val", START) if split == "test" else ("train", START)
    seen = find_seen_clips(content, source, split, clips, lists)
    if split == "val":
        return overlap_protocol(seen.phrases(split))
    if not args.allow_overlap:
        refuse_seen_clips(seen, source, clips, args.weights)
        return names_protocol(seen.name_phrases(split))
    found = seen.phrases(split) or shared_by_lists(source, clips)
    if not found:
        return names_protocol(seen.name_phrases(split))
    return overlap_protocol([*found, *seen.name_phrases(split)])


def is_chosen_by_training(path: Path) -> bool:
    """Say whether clips of the val list of a checkpoint are in its train list."""
    content = read_checkpoint(path)
    lists = content.get("clips") if isinstance(content, dict) else None
    if not lists or not {"train", "val"} <= lists.keys():
        return False
    return bool(np.isin(lists["val"].numpy(), lists["train"].numpy()).any())


# In a checkpoint, beside its train and val list: what the weights it began from were trained on.
START = "start"


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
            f"{seen.sum()} of {len(seen)} {split} clips were in {_list_of(name)}"
            for name, seen in self.sure.items()
            if seen.any()
        ]

    def name_phrases(self, split: str) -> list[str]:
        """Return the same of names that coincide, for `names_protocol`."""
        return [
            f"{seen.sum()} of {len(seen)} {split} clips have the names of clips in "
            f"{_list_of(name)}, whose data set has another name"
            for name, seen in self.named.items()
            if seen.any()
        ]


def _list_of(name: str, who: str = "the checkpoint") -> str:
    if name == START:
        return f"the train list of the weights that {who} began from"
    return f"its {name} list" if who == "it" else f"the {name} list of {who}"


def clips_of_start(paths: Sequence[Path], dataset: str) -> np.ndarray:
    """Return which clips the weights were trained on that a run begins from.

    Args:
        paths: of their checkpoints.
        dataset: name of the run's data set: clips of others cannot be told by their names.

    Returns:
        (n,) int64 fingerprints, n is 0 where nothing is known.
    """
    found = [np.zeros(0, np.int64)]
    for content in map(read_checkpoint, paths):
        if is_ours(content) and (content.get("args") or {}).get("dataset") == dataset:
            lists = content.get("clips") or {}
            found += [lists[name].numpy() for name in ("train", START) if name in lists]
    return np.unique(np.concatenate(found))


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
        lists: out of "train", "val" and `START`, those of the checkpoint to look at.
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
                f"{path} was made with {int(shared.sum())} of these clips in "
                f"{_list_of(split, 'it')}, such as {name}: a result on them is no test; name "
                "another list or add --allow_overlap"
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
