"""What a data set was when a model was trained on it, in numbers that a checkpoint can keep."""

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.catalogue import DatasetRow
from datasets.clip_table import load_table
from datasets.records import ClipRecord
from ops.conversion import layout_value


def data_facts(
    row: DatasetRow, root: Path, lists: Mapping[str, Sequence[ClipRecord]]
) -> dict[str, Any]:
    """Describe the lists that a model was trained and selected on.

    Args:
        row: of the catalogue.
        root: folder of the data set.
        lists: split -> its clips; "train" is among them.

    Returns:
        `dataset`; `layout`: name or description of the joint layout; `lists`: split -> number of
        clips and SHA-256 of its lines; `clip_frames`: the median length of a training clip;
        `clip_seconds` and `fps`: medians over the training clips whose frame rate is known, None
        where none is.
    """
    table = load_table(root)
    rates = {name: found.fps for name, found in table.items() if found.fps > 0}
    train = [
        (record.num_frames, rates.get(record.name, row.fps or 0.0)) for record in lists["train"]
    ]
    known = [(frames, fps) for frames, fps in train if fps]
    return {
        "dataset": row.name,
        "layout": layout_value(row.layout),
        "lists": {
            split: {"clips": len(records), "sha256": hash_records(records)}
            for split, records in lists.items()
        },
        "clip_frames": float(statistics.median(frames for frames, _ in train)),
        "clip_seconds": statistics.median(frames / fps for frames, fps in known) if known else None,
        "fps": statistics.median(fps for _, fps in known) if known else None,
    }


def hash_records(records: Sequence[ClipRecord]) -> str:
    """Return the SHA-256 of the lines of a list, whatever their order."""
    lines = sorted(record.line() for record in records)
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
