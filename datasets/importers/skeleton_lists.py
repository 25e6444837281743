"""Clip lists of a data set of skeletons alone, from the splits and labels of a pickle."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.clip_table import ClipRow, load_table, write_table
from datasets.importers.importing import Damaged
from datasets.importers.pyskl import Annotations
from datasets.prepare.splits import SPLITS, cut_validation
from datasets.records import PUBLISHED, ClipRecord, write_list
from errors import InputError

# Bytes of a name that leave room for what is put around it, of the 255 that file systems take.
_LONGEST = 230
Lists = dict[str, tuple[ClipRecord, ...]]


def choose_lists(
    annotations: Annotations,
    chosen: Mapping[str, str | None],
    val_fraction: float = 0.15,
    seed: int = 0,
) -> tuple[Lists, list[Damaged]]:
    """Return the lists of the chosen splits, and the clips that cannot be in them.

    Args:
        annotations: of the pickle.
        chosen: of train, val and test, the name of the split in the pickle, None for no list; val
            is cut from train then.
        val_fraction: share of train that is cut off.
        seed: chooses among equally good cuts.

    Raises:
        InputError: the pickle has no such split; two lists would share clips; one would be empty.
    """
    lists: Lists = {}
    damaged: dict[str, Damaged] = {}
    for split, name in chosen.items():
        if name is None:
            continue
        if name not in annotations.splits:
            known = ", ".join(annotations.splits) or "none at all"
            raise InputError(
                f"{annotations.path} has no split {name!r}: give --{split}_split one of {known}"
            )
        records = []
        for clip in dict.fromkeys(annotations.splits[name]):
            found = _record(annotations, clip)
            if isinstance(found, Damaged):
                damaged[clip] = found
            else:
                records.append(found)
        if not records:
            first = next(
                (damaged[clip].reason for clip in annotations.splits[name]), "it names none"
            )
            raise InputError(
                f"{annotations.path} has no usable clip in split {name!r}; the first: {first}"
            )
        lists[split] = tuple(records)
    _refuse_shared(annotations.path, lists)
    if "val" not in lists:
        lists |= _cut(lists["train"], val_fraction, seed)
    return {split: lists[split] for split in SPLITS if split in lists}, list(damaged.values())


def _cut(records: Sequence[ClipRecord], val_fraction: float, seed: int) -> Lists:
    # Nobody knows which clips are of one athlete: each is its own group.
    labels, names = [record.label for record in records], [record.name for record in records]
    sides = cut_validation(labels, names, val_fraction, seed)
    pairs = list(zip(records, sides, strict=True))
    return {split: tuple(record for record, side in pairs if side == split) for split in SPLITS[:2]}


def _record(annotations: Annotations, clip: str) -> ClipRecord | Damaged:
    if clip not in annotations.aliases:
        return Damaged(clip, f"{annotations.path} has no annotation of clip {clip[:80]!r}")
    place = f"{annotations.path}, annotation {clip[:80]!r}"
    try:
        num_frames = annotations.span(clip).last + 1
    except InputError as error:
        return Damaged(clip, str(error))
    label = annotations.labels[clip]
    if label is None:
        return Damaged(clip, f"{place} has no label")
    name = annotations.aliases[clip][-1]
    record = ClipRecord(name, num_frames, label)
    if not _can_be_listed(record):
        return Damaged(clip, f"{place} has a name that is no folder below poses/: rename it")
    return record


def _can_be_listed(record: ClipRecord) -> bool:
    line = record.line()
    is_one_line = len(line.splitlines()) == 1 and not line.startswith("#")
    try:
        is_short = all(len(part.encode()) <= _LONGEST for part in record.name.split("/"))
        return is_one_line and is_short and ClipRecord.parse(line) == record
    except ValueError:
        return False


def _refuse_shared(path: Path, lists: Lists) -> None:
    """Make sure that no clip is in two lists, but for val and test that are the same.

    Raises:
        InputError: there is one; the message names it.
    """
    names = {split: {record.name for record in records} for split, records in lists.items()}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = sorted(names.get(one, set()) & names.get(other, set()))
        is_published = (one, other) == ("val", "test") and names.get(one) == names.get(other)
        if shared and not is_published:
            raise InputError(
                f"{path} has {len(shared)} clips in both the {one} and the {other} split, such as "
                f"{shared[0]}: choose splits that share none"
            )


def write_lists(
    root: Path,
    lists: Lists,
    sizes: Mapping[str, tuple[int, int]],
    left_out: int,
    header: Mapping[str, str],
) -> None:
    """Write `clips.csv`, then the lists: the data set is there when the last of them is.

    Args:
        root: folder of the data set.
        lists: of each split; clips without a size had no usable keypoints and are left out.
        sizes: clip -> (width, height) of its frames.
        left_out: clips that are not in the lists because they were damaged.
        header: further lines of the lists' header.
    """
    kept = {
        split: tuple(record for record in records if record.name in sizes)
        for split, records in lists.items()
    }
    rows = {
        record.name: ClipRow(
            record.name,
            num_frames=record.num_frames,
            width=sizes[record.name][0],
            height=sizes[record.name][1],
        )
        for records in kept.values()
        for record in records
    }
    write_table(root, {**load_table(root), **rows}.values())
    top = dict(header)
    if left_out:
        top["left_out"] = str(left_out)
    if "val" in kept and kept.get("val") == kept.get("test"):
        top["protocol"] = PUBLISHED
    for split, records in kept.items():
        write_list(root / f"{split}_videofolder.txt", records, top)


def existing_lists(root: Path) -> Sequence[Path]:
    """Return the lists and the table that `write_lists` would replace."""
    paths = [*(root / f"{split}_videofolder.txt" for split in SPLITS), root / "clips.csv"]
    return [path for path in paths if path.exists()]
