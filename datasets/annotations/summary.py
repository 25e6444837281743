"""What an annotation pickle holds, in numbers and in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.annotation_set import AnnotationSet
from datasets.annotations.table import BROKEN, NONE
from errors import printable

_SHOWN = 20


def summary_of(found: AnnotationSet) -> dict[str, Any]:
    """Return counts of clips, classes and splits, and the ranges of shapes.

    The ranges are [lowest, highest] of people M, frames T, joints V and coordinates of clips whose
    keypoints could be read; null where there are none.
    """
    rows = [found.store.rows[name] for name in found.names]
    table = found.store.table[rows]
    readable = table[table["form"] != BROKEN]
    labels = table["label"][(table["label"] != NONE) & (table["label"] >= 0)]
    ranges = {
        name: [int(readable[column].min()), int(readable[column].max())] if len(readable) else None
        for name, column in (("people", "people"), ("frames", "frames"), ("joints", "joints"))
    }
    return {
        "clips": len(found.names),
        "readable": len(readable),
        "classes": len(np.unique(labels)),
        "splits": {name: len(clips) for name, clips in found.splits.items()},
        "layout": found.layout.name if found.has_layout else None,
        "coordinates": found.layout.dims if found.has_layout else None,
        **ranges,
    }


def summary_lines(path: Path, summary: Mapping[str, Any]) -> list[str]:
    """Return a summary in words, a line each."""
    splits = list(summary["splits"].items())
    shown = ", ".join(f"{printable(name)} {count}" for name, count in splits[:_SHOWN])
    more = f" and {len(splits) - _SHOWN} more" if len(splits) > _SHOWN else ""
    lines = [
        f"{path}: {summary['clips']} clips, {summary['readable']} of them readable, "
        f"{summary['classes']} classes",
        f"splits: {shown}{more}" if splits else "splits: none",
    ]
    if summary["joints"]:
        layout = summary["layout"] or "not known"
        lines.append(
            f"layout {layout}; joints {_range(summary['joints'])}, people "
            f"{_range(summary['people'])}, frames {_range(summary['frames'])}"
        )
    return lines


def _range(ends: list[int]) -> str:
    low, high = ends
    return str(low) if low == high else f"{low} to {high}"
