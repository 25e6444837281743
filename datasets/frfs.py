"""Raw FR-FS (Images/, Train.xls, Test.xls) to frames and clip lists.

The layout of the download is that of TSA-Net's release: `Images/<key>/*.jpg`, and two tables with
a header row, the key in column 0 and the label in column 1.
"""

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from python_calamine import CalamineError, CalamineWorkbook

from errors import InputError

_IMAGE = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A row of a label table."""

    key: str
    label: int


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Order names as people do: frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts if p)


def read_label_table(path: Path) -> list[LabelledClip]:
    """Read the first sheet of an .xls or .xlsx table with columns key and label.

    Raises:
        InputError: no such file, not a spreadsheet, or a row that is not a key and a label.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: put the label table of the download there")
    try:
        sheet = CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except (CalamineError, OSError) as error:
        raise InputError(f"{path} is not a readable .xls or .xlsx table ({error})") from error
    rows = sheet.to_python()[1:]
    clips = [_parse_row(path, number, row) for number, row in enumerate(rows, start=2)]
    if not clips:
        raise InputError(f"{path} has no rows below its header: it needs key and label columns")
    return clips


def _parse_row(path: Path, number: int, row: Sequence[object]) -> LabelledClip:
    """Read a key, which a spreadsheet may have made a number, and a whole label."""
    try:
        key, label = row[0], float(row[1])  # type: ignore[arg-type]
        whole = label.is_integer() and label >= 0
    except (IndexError, TypeError, ValueError):
        whole = False
    if not whole:
        raise InputError(f"{path}, row {number}: {list(row)!r} must be a clip key and a label")
    name = str(int(key)) if isinstance(key, float) and key.is_integer() else str(key).strip()
    if not re.fullmatch(r"[\w.\- ]+", name) or name in {".", ".."}:
        raise InputError(f"{path}, row {number}: {name!r} is no folder name below Images/")
    return LabelledClip(name, int(label))


def split_validation(
    clips: Sequence[LabelledClip], fraction: float, rng: np.random.Generator
) -> tuple[list[LabelledClip], list[LabelledClip]]:
    """Take `fraction` of each class out of the training clips, at least one, for validation.

    Returns:
        The remaining training clips and the validation clips, both in the given order.

    Raises:
        InputError: a class has a single clip, so it cannot be on both sides.
    """
    held_out: set[int] = set()
    labels = np.array([clip.label for clip in clips])
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise InputError(
                f"class {label} has a single training clip: a validation list needs two at least"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out |= set(rng.permutation(members)[:count].tolist())
    train = [clip for i, clip in enumerate(clips) if i not in held_out]
    return train, [clip for i, clip in enumerate(clips) if i in held_out]


def link_frames(source: Path, target: Path) -> int:
    """Give the images of a folder the names 00001.jpg, 00002.jpg, ... in another; return how many.

    Hard links where the file system allows, else copies; the source is left as it is. The folder
    appears whole or not at all.

    Raises:
        InputError: no such folder, or no image in it.
    """
    images = (
        sorted(
            (p for p in source.iterdir() if p.suffix.lower() in _IMAGE),
            key=lambda p: natural_key(p.name),
        )
        if source.is_dir()
        else []
    )
    if not images:
        raise InputError(
            f"{source} holds no .jpg or .png frames: unpack the download's images there"
        )
    if target.is_dir():
        return _count_linked(target, len(images))
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for number, image in enumerate(images, start=1):
        _link(image, partial / f"{number:05d}{image.suffix.lower()}")
    partial.rename(target)
    return len(images)


def _count_linked(target: Path, expected: int) -> int:
    found = sum(p.suffix.lower() in _IMAGE for p in target.iterdir())
    if found != expected:
        raise InputError(
            f"{target} holds {found} frames, the source has {expected}: move this folder away and "
            "run again"
        )
    return found


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
