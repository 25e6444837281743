"""Turn the FR-FS download into frames and clip lists.

python process_dataset_FRFS.py                       # dataset/FRFS
python process_dataset_FRFS.py --dataset_path <folder that holds FRFS/>

Reads FRFS/Images/<key>/*.jpg, FRFS/Train.xls and FRFS/Test.xls. Writes FRFS/frames/ (hard links)
and the train, val and test lists; val is cut from train, so that test chooses nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import data_opts
from datasets.frfs import LabelledClip, link_frames, read_label_table, split_validation
from datasets.records import ClipRecord, write_list
from errors import InputError, run_script
from reports import say

SPLITS = ("train", "val", "test")


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data set, or say that it is prepared."""
    args = data_opts.parse_frfs_args(argv)
    root = args.dataset_path / "FRFS"
    if not (root / "Images").is_dir():
        return check_prepared(root)
    train, val = split_validation(
        read_table(root, "Train"), args.val_fraction, np.random.default_rng(args.seed)
    )
    splits = dict(zip(SPLITS, (train, val, read_table(root, "Test")), strict=True))
    refuse_shared(splits)
    rows = {split: [link(root, clip) for clip in clips] for split, clips in splits.items()}
    for split in SPLITS:
        write_list(list_path(root, split), rows[split])
        labels = np.bincount([clip.label for clip in splits[split]])
        say(f"{split}: {labels.sum()} clips, per class {labels.tolist()}: {list_path(root, split)}")
    return None


def link(root: Path, clip: LabelledClip) -> ClipRecord:
    """Link a clip's frames and return its record."""
    num_frames = link_frames(root / "Images" / clip.key, root / "frames" / clip.key)
    return ClipRecord(clip.key, num_frames, clip.label)


def list_path(root: Path, split: str) -> Path:
    """Return where the list of a split lies."""
    return root / f"{split}_videofolder.txt"


def check_prepared(root: Path) -> None:
    """Accept a data set that already has its lists; else explain what is needed."""
    if not all(list_path(root, split).is_file() for split in SPLITS):
        raise InputError(
            f"{root} has neither Images/ nor the three clip lists: unpack FR-FS there (Images/, "
            "Train.xls, Test.xls), or name its place with --dataset_path"
        )
    say(f"{root} is already prepared: it has its clip lists, and no Images/ to read again")


def read_table(root: Path, name: str) -> list[LabelledClip]:
    """Read Train or Test, as .xls or .xlsx."""
    modern = root / f"{name}.xlsx"
    return read_label_table(modern if modern.is_file() else root / f"{name}.xls")


def refuse_shared(splits: dict[str, list[LabelledClip]]) -> None:
    """Stop when a key is named twice: a clip belongs to one list, once."""
    seen: dict[str, str] = {}
    for split, clips in splits.items():
        for clip in clips:
            if clip.key in seen:
                raise InputError(
                    f"clip {clip.key} is in {seen[clip.key]} and in {split}: remove one row from "
                    "Train.xls or Test.xls"
                )
            seen[clip.key] = split


if __name__ == "__main__":
    run_script(main)
