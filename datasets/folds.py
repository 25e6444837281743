"""Folds of cross-validation: which clips are trained on, validated on and tested.

Folds that `process_dataset_videos.py --folds` wrote are used as they are. Where there are none, all
clips of the data set's lists are dealt anew: the same folds for any order of the lists, and no
group (athlete, event, video) and no content on two sides of a fold.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.clip_table import ClipRow, load_table
from datasets.facts import hash_records
from datasets.prepare.splits import (
    SPLITS,
    cut_fold,
    deal_folds,
    deal_single_groups,
    join_groups,
)
from datasets.records import ClipRecord, load_records, write_list
from errors import InputError

# As process_dataset_videos.py does.
VAL_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class FoldChoice:
    """What `--fold`, `--fold_seed` and `--fold_val` ask for.

    Attributes:
        text: "k/K" or "k/groups", k counted from 1.
        seed: chooses among equally good folds; None where it is not given.
        val_share: share of all clips for validation, 0 for none; None where it is not given.
    """

    text: str
    seed: int | None = None
    val_share: float | None = None

    @property
    def number(self) -> int:
        """The fold that is tested, counted from 1."""
        return int(self.text.partition("/")[0])

    @property
    def count(self) -> int | None:
        """How many folds there are; None leaves one group out at a time."""
        count = self.text.partition("/")[2]
        return None if count == "groups" else int(count)


@dataclass(frozen=True, slots=True)
class Fold:
    """The lists of one fold.

    Attributes:
        records: "train", "val" and "test" -> clips.
        number: of the fold, counted from 1.
        count: how many there are.
        paths: split -> list that was read; empty where the fold was dealt anew.
        note: what the user should know about where the lists come from.
    """

    records: Mapping[str, tuple[ClipRecord, ...]]
    number: int
    count: int
    paths: Mapping[str, Path]
    note: str

    @property
    def is_validated_apart(self) -> bool:
        """Say whether the validation clips are not those of training."""
        return self.records["val"] != self.records["train"]


def find_fold(
    root: Path, lists: Mapping[str, Path], choice: FoldChoice, classes: Sequence[str]
) -> Fold:
    """Return the lists of a fold: those in `root`/folds/, or else dealt anew.

    Args:
        root: folder of the data set.
        lists: split -> the data set's own list; not every one need be there.
        choice: which fold.
        classes: names of the classes.

    Raises:
        InputError: there is no such fold, or a list or `clips.csv` cannot be read.
    """
    paths = written_lists(root, choice)
    if paths:
        return _read_fold(paths, choice, len(classes))
    return _deal_fold(root, lists, choice, classes)


def written_lists(root: Path, choice: FoldChoice) -> dict[str, Path]:
    """Return the lists of a fold that were written with the data set, split -> path; or none."""
    if choice.count is None:
        return {}
    folder = root / "folds" / f"{choice.number}of{choice.count}"
    paths = {split: folder / f"{split}_videofolder.txt" for split in SPLITS}
    return paths if any(path.is_file() for path in paths.values()) else {}


def count_folds(
    root: Path, lists: Mapping[str, Path], choice: FoldChoice, classes: Sequence[str]
) -> int:
    """Return how many folds there are, K.

    Raises:
        InputError: see `find_fold`.
    """
    if choice.count is not None:
        return choice.count
    return find_fold(root, lists, choice, classes).count


def write_fold(folder: Path, fold: Fold, classes: Sequence[str]) -> None:
    """Write the lists of a fold, to see later what a run was made with."""
    folder.mkdir(parents=True, exist_ok=True)
    names = json.dumps(list(classes), ensure_ascii=False)
    top = {"classes": names, "fold": f"{fold.number} of {fold.count}"}
    for split, records in fold.records.items():
        write_list(folder / f"{split}_videofolder.txt", records, top)


def hash_folds(folds: Sequence[Fold]) -> str:
    """Return the SHA-256 of all lists of all folds, whatever the order of their lines."""
    lines = (hash_records(fold.records[split]) for fold in folds for split in SPLITS)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_groups(table: Mapping[str, ClipRow], records: Sequence[ClipRecord]) -> str:
    """Return the SHA-256 of what each clip belongs to, whatever the order of the clips."""
    pairs = zip((record.name for record in records), group_clips(table, records)[0], strict=True)
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


# ---------------------------------------------------------------- written folds


def _read_fold(paths: Mapping[str, Path], choice: FoldChoice, num_classes: int) -> Fold:
    folder = paths["test"].parent
    given = {"--fold_seed": choice.seed, "--fold_val": choice.val_share or None}
    for option, value in given.items():
        if value is not None:
            raise InputError(
                f"{option} {value} is for folds that are dealt anew, and {folder} holds the lists "
                f"of --fold {choice.text}: drop the option, or choose another number of folds"
            )
    records = {split: load_records(path, num_classes) for split, path in paths.items()}
    note = f"fold {choice.number} of {choice.count}: the lists in {folder}"
    if choice.val_share == 0:
        both = _united([records["train"], records["val"]], [paths["train"], paths["val"]])
        records = {"train": both, "val": both, "test": records["test"]}
    return Fold(records, choice.number, choice.count or 0, paths, note + _validated(choice))


# ---------------------------------------------------------------- dealt anew


def _deal_fold(
    root: Path, lists: Mapping[str, Path], choice: FoldChoice, classes: Sequence[str]
) -> Fold:
    records = pool_lists(root, lists, len(classes))
    labels = [record.label for record in records]
    groups, is_known = group_clips(load_table(root), records)
    val_share = VAL_SHARE if choice.val_share is None else choice.val_share
    seed, least = choice.seed or 0, 3 if val_share else 2
    fold_of = _fold_of(root, labels, groups, choice, classes, is_known=is_known, least=least)
    count = max(fold_of) + 1
    if choice.number > count:
        raise InputError(
            f"--fold {choice.text}: the clips of {root} belong to {count} groups: choose a fold "
            f"from 1/groups to {count}/groups"
        )
    is_tested = [fold == choice.number - 1 for fold in fold_of]
    if val_share:
        splits = cut_fold(labels, groups, is_tested, val_share, seed, classes)
    else:
        splits = ["test" if tested else "train" for tested in is_tested]
    found = {
        split: tuple(r for r, its in zip(records, splits, strict=True) if its == split)
        for split in SPLITS
    }
    if not val_share:
        found["val"] = found["train"]
    unit = "one group left out, " if choice.count is None else ""
    note = (
        f"fold {choice.number} of {count}: {unit}dealt anew from all {len(records)} clips of "
        f"{root}, by {'group' if is_known else 'clip, as no groups are known'}, seed {seed}; the "
        "data set's own split is not used"
    )
    return Fold(found, choice.number, count, {}, note + _validated(choice))


def _validated(choice: FoldChoice) -> str:
    if choice.val_share != 0:
        return ""
    return "; no clips are kept for validation: val accuracies are those of the training clips"


def _fold_of(
    root: Path,
    labels: Sequence[int],
    groups: Sequence[str],
    choice: FoldChoice,
    classes: Sequence[str],
    *,
    is_known: bool,
    least: int,
) -> list[int]:
    """Return the fold of each clip, 0 to K - 1."""
    if choice.count is not None:
        seed = choice.seed or 0
        return deal_folds(labels, groups, choice.count, seed, classes, least=least)
    if not is_known:
        raise InputError(
            f"--fold {choice.text} leaves one group out, and no groups are known of the clips of "
            f"{root}: name them in the column 'group' of {root / 'clips.csv'}, or choose a number "
            "of folds, as in 1/5"
        )
    return deal_single_groups(labels, groups, classes, least=least)


def pool_lists(
    root: Path, lists: Mapping[str, Path], num_classes: int | None = None
) -> tuple[ClipRecord, ...]:
    """Return the clips of all lists that are there, each once, sorted by name.

    Raises:
        InputError: no list is there, one cannot be read, or two disagree about a clip.
    """
    paths = [path for path in lists.values() if path.is_file()]
    if not paths:
        raise InputError(
            f"{root} has no clip list to make folds of: it needs train_videofolder.txt with lines "
            "'folder num_frames label'"
        )
    return _united([load_records(path, num_classes) for path in paths], paths)


def _united(parts: Sequence[Sequence[ClipRecord]], paths: Sequence[Path]) -> tuple[ClipRecord, ...]:
    """Return the clips of several lists, each once, sorted by name."""
    found: dict[str, tuple[ClipRecord, Path]] = {}
    for records, path in zip(parts, paths, strict=True):
        for record in records:
            other, where = found.setdefault(record.name, (record, path))
            if other != record:
                raise InputError(
                    f"{path} says '{record.line()}', {where} says '{other.line()}': correct one "
                    "of the two lists"
                )
    return tuple(found[name][0] for name in sorted(found))


def group_clips(
    table: Mapping[str, ClipRow], records: Sequence[ClipRecord]
) -> tuple[list[str], bool]:
    """Return what each clip belongs to, and whether any group or video is known.

    Its group, else its video, else itself; those that hold the same content are one.

    Args:
        table: `clips.csv` of the data set; may be empty.
        records: N clips.
    """
    rows = [table.get(record.name, ClipRow(record.name)) for record in records]
    groups = [_group_of(row) for row in rows]
    # Intervals of one video have its sum in common: they are of one content as of one video.
    contents = [row.sha256 or f"clip {row.clip}" for row in rows]
    return join_groups(groups, contents), any(row.group or row.video for row in rows)


def _group_of(row: ClipRow) -> str:
    if row.group:
        return f"group {row.group}"
    return f"video {row.video}" if row.video else f"clip {row.clip}"
