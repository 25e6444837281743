"""What `process_dataset_FRFS.py` writes: frames, boxes, `clips.csv` and, last, the three lists.

A run that is killed and started again ends with the same files as one that was not: folders and
files appear whole, and the lists when all else is there.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.clip_table import NAME as TABLE_NAME
from datasets.clip_table import ClipRow, write_table
from datasets.leakage import find_overlaps
from datasets.prepare.boxes import encode_boxes
from datasets.prepare.frame_folders import effective_mode, link_frames
from datasets.prepare.frfs import Checked, Download, Tables
from datasets.prepare.label_tables import LabelledClip, refuse_unlearnt_classes, split_validation
from datasets.records import PUBLISHED, ClipRecord, format_list, read_header, write_list
from errors import InputError
from files import LinkMode, alone_in, holds, partial_of, remove_partials, replacing

SPLITS = ("train", "val", "test")
_SCRIPT = "process_dataset_FRFS.py"


def list_path(root: Path, split: str) -> Path:
    """Return where the list of a split lies."""
    return root / f"{split}_videofolder.txt"


@contextmanager
def opened(root: Path) -> Iterator[None]:
    """Make the folder of the data set, and keep other runs out of it.

    What a killed run left half-written is removed.

    Raises:
        InputError: another run is at work there, or a list was not written by this program, which
            would replace it.
    """
    with alone_in(root):
        _tidy(root)
        yield


def _tidy(root: Path) -> None:
    for path in (list_path(root, split) for split in SPLITS):
        if os.path.lexists(path) and read_header(path).get("made_by") != _SCRIPT:
            raise InputError(
                f"{path} was not written by {_SCRIPT}, which would replace it: move it away, or "
                "prepare FR-FS below another --dataset_path"
            )
    (root / "frames").mkdir(parents=True, exist_ok=True)
    remove_partials(root / "frames")
    remove_partials(root / "boxes")
    # Not everything below the folder is ours: the download may lie there.
    for path in (*(list_path(root, split) for split in SPLITS), root / TABLE_NAME):
        partial_of(path).unlink(missing_ok=True)


def choose_mode(download: Download, root: Path, mode: LinkMode) -> LinkMode:
    """Return `mode`, or "copy" where the file system cannot make hard links to the frames."""
    files = (p for folder in download.images.iterdir() if folder.is_dir() for p in folder.iterdir())
    sample = next((path for path in files if path.is_file()), None)
    return effective_mode(sample, root / "frames", mode) if sample else mode


def link_clips(root: Path, checked: Checked, mode: LinkMode) -> tuple[int, int]:
    """Bring all whole clips into frames/.

    Returns:
        How many frames are new, and how many were there as links of another kind.
    """
    new = changed = 0
    for key, frames in checked.frames.items():
        todo = checked.todo[key]
        link_frames(frames, root / "frames" / key, mode, todo)
        new += frames.files.count if todo is None else 0
        changed += len(todo or ())
    return new, changed


def leftovers(root: Path, checked: Checked) -> list[str]:
    """Name the folders of clips that an earlier run linked and this one leaves out."""
    folders = [root / "frames" / key for key in checked.broken]
    return [f"{f} is of an earlier run: no list names it any more" for f in folders if f.is_dir()]


def write_boxes(root: Path, checked: Checked) -> int:
    """Write boxes/<clip>.npy of all clips that have boxes; return how many.

    What an earlier run wrote for a clip whose entry is of no use is removed.
    """
    if checked.boxes:
        (root / "boxes").mkdir(exist_ok=True)
    for key, boxes in checked.boxes.items():
        path = root / "boxes" / f"{key}.npy"
        if boxes.boxes is None:
            path.unlink(missing_ok=True)
            continue
        data = encode_boxes(boxes.boxes)
        if not holds(path, data):
            with replacing(path) as file:
                file.write(data)
    return sum(boxes.boxes is not None for boxes in checked.boxes.values())


# ---------------------------------------------------------------- lists


@dataclass(frozen=True, slots=True)
class ListChoices:
    """What the user decides about the lists.

    Attributes:
        published: val is the test list.
        val_fraction: else the share of each class of the training clips that becomes val.
        seed: of the choice of these clips.
        class_names: in order of the label; None says nothing of the labels' meaning.
        allow_overlap: two lists may hold the same frames.
    """

    published: bool = False
    val_fraction: float = 0.15
    seed: int = 0
    class_names: Sequence[str] | None = None
    allow_overlap: bool = False


@dataclass(frozen=True, slots=True)
class Lists:
    """What is to stand in the lists and in `clips.csv`.

    Attributes:
        records: split -> its clips.
        headers: split -> the header of its list.
        rows: of `clips.csv`.
    """

    records: Mapping[str, Sequence[ClipRecord]]
    headers: Mapping[str, Mapping[str, str]]
    rows: Sequence[ClipRow]


def make_lists(tables: Tables, checked: Checked, choices: ListChoices) -> Lists:
    """Share the whole clips out among the lists.

    Raises:
        InputError: a list or a class would have no clip, or two lists hold the same frames.
    """
    splits = _make_splits(tables, checked, choices)
    records = {
        split: [ClipRecord(c.key, checked.frames[c.key].files.count, c.label) for c in clips]
        for split, clips in splits.items()
    }
    rows = _make_rows(checked)
    if not choices.allow_overlap:
        _refuse_overlap(records, rows, choices.published)
    return Lists(records, _make_headers(tables, checked, choices), rows)


def _make_splits(
    tables: Tables, checked: Checked, choices: ListChoices
) -> dict[str, list[LabelledClip]]:
    train, test = checked.whole(tables.train), checked.whole(tables.test)
    for name, clips in (("training", train), ("test", test)):
        if not clips:
            raise InputError(f"no clip of the {name} table is whole: unpack the download again")
    refuse_unlearnt_classes(train, test)
    if choices.published:
        return {"train": train, "val": test, "test": test}
    train, val = split_validation(train, choices.val_fraction, choices.seed, checked.contents)
    return {"train": train, "val": val, "test": test}


def _make_rows(checked: Checked) -> list[ClipRow]:
    """Return the rows of `clips.csv`; nothing is known of athletes, so clips have no group."""
    return [
        ClipRow(
            clip=key,
            num_frames=frames.files.count,
            width=frames.size[0],
            height=frames.size[1],
            sha256=frames.sha256,
        )
        for key, frames in checked.frames.items()
    ]


def _refuse_overlap(
    records: Mapping[str, Sequence[ClipRecord]], rows: Iterable[ClipRow], published: bool
) -> None:
    for overlap in find_overlaps(records, {row.clip: row for row in rows}):
        if not (published and (overlap.one, overlap.other) == ("val", "test")):
            raise InputError(
                f"the {overlap.one} and the {overlap.other} list {overlap.text()}: a result on "
                "them would be no test; remove one from the tables, or add --allow_overlap"
            )


def _make_headers(
    tables: Tables, checked: Checked, choices: ListChoices
) -> dict[str, dict[str, str]]:
    """Return the header of each list; train and val also say how val was drawn."""
    common = {"made_by": _SCRIPT}
    if choices.published:
        common["protocol"] = PUBLISHED
    if choices.class_names:
        common["classes"] = json.dumps(list(choices.class_names), ensure_ascii=False)
    train_out, test_out = (
        len(clips) - len(checked.whole(clips)) for clips in (tables.train, tables.test)
    )
    left_out = {"train": train_out, "val": test_out if choices.published else 0, "test": test_out}
    draw = {"val_fraction": str(choices.val_fraction), "seed": str(choices.seed)}
    return {
        split: {
            **common,
            "left_out": str(left_out[split]),
            **({} if choices.published or split == "test" else draw),
        }
        for split in SPLITS
    }


def write_lists(root: Path, lists: Lists) -> list[str]:
    """Write `clips.csv` and then the lists.

    Lists of another choice are removed first: a program that is killed never leaves lists of two
    choices side by side.

    Returns:
        One line for each list of an earlier run that was replaced.
    """
    replaced = []
    for split in SPLITS:
        path = list_path(root, split)
        text = format_list(lists.records[split], lists.headers[split])
        if path.is_file() and not holds(path, text.encode("utf-8")):
            said = _described(read_header(path))
            replaced.append(f"replaced {path} of an earlier run ({said})")
            path.unlink()
    write_table(root, lists.rows)
    for split in SPLITS:
        write_list(list_path(root, split), lists.records[split], lists.headers[split])
    return replaced


def _described(header: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in header.items() if key != "made_by")


def summary(root: Path, lists: Lists) -> list[str]:
    """Return a line for each list: how many clips of which class."""
    lines = []
    for split in SPLITS:
        labels = Counter(record.label for record in lists.records[split])
        counts = [labels[label] for label in range(max(labels) + 1)]
        lines.append(
            f"{split}: {labels.total()} clips, per class {counts}: {list_path(root, split)}"
        )
    return lines


def warnings(lists: Lists, checked: Checked) -> list[str]:
    """Return what a result on these lists will not show, one line each."""
    lines = []
    for split in SPLITS:
        labels = {record.label for record in lists.records[split]}
        if len(labels) == 1:
            lines.append(f"all {split} clips have label {max(labels)}: accuracy there says nothing")
    if checked.broken:
        lines.append(f"{len(checked.broken)} damaged clips were left out, named above")
    if lists.headers["val"].get("protocol") == PUBLISHED:
        lines.append("published protocol: val is the test list; accuracies on it are optimistic")
    return lines
