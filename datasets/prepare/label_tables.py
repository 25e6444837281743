"""The label tables of FR-FS, and what of the training table becomes the validation list.

A table has a header row, the key of a clip in column 0 and its label in column 1, as TSA-Net's
release has it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from errors import InputError

_READER = Path(__file__).with_name("sheet_reader.py")
_MOST_BYTES = 100 * 2**20
_MOST_SECONDS = 60
_LONGEST_KEY = 200
_KEY = re.compile(r"\w[\w.\- ]*")
_NEED = "it needs a header row, then a row 'key, label' for each clip"


@dataclass(frozen=True, slots=True)
class LabelledClip:
    """A row of a label table.

    Attributes:
        key: name of the clip and of its folder.
        label: class index.
        row: 1-based number of its row in the table.
    """

    key: str
    label: int
    row: int = field(default=0, compare=False)


def read_label_table(path: Path, num_classes: int = 2) -> list[LabelledClip]:
    """Read an .xls or .xlsx table with columns key and label: its Sheet1, or else its first sheet.

    Args:
        path: the table.
        num_classes: labels must be below it.

    Raises:
        InputError: no such file, not a spreadsheet, no header row, or a row that is not a key and
            a label, or that repeats a key.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: put the label table of the download there")
    rows = _read_rows(path)
    _check_header(path, rows)
    clips: dict[str, LabelledClip] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not any(str(value).strip() for _, value in row):
            continue
        clip = _parse_row(f"{path}, row {number}", number, row)
        if clip.label >= num_classes:
            raise InputError(
                f"{path}, row {number} has label {clip.label}: FR-FS has {num_classes} classes, "
                f"number them 0 to {num_classes - 1}"
            )
        if clip.key in clips:
            raise InputError(
                f"{path}, row {number} repeats clip {clip.key} of row {clips[clip.key].row}: "
                "remove one of the two"
            )
        clips[clip.key] = clip
    if not clips:
        raise InputError(f"{path} has no rows below its header: {_NEED}")
    return list(clips.values())


Cell = tuple[str, Any]


def _read_rows(path: Path) -> list[list[Cell]]:
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise InputError(f"{path} has {size} bytes, a label table has a few thousand: replace it")
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(_READER), str(path.absolute())],
            capture_output=True,
            timeout=_MOST_SECONDS,
            check=False,
            env={**os.environ, "RUST_BACKTRACE": "0"},
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{path} cannot be read in {_MOST_SECONDS} s: save the table again as .xlsx"
        ) from None
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        known = last.partition("CalamineError: ")[2] or last.partition("Error: ")[2]
        reason = f"{known:.100}" if known else "damaged"
        raise InputError(
            f"{path} is not a readable .xls or .xlsx table ({reason}; {size} bytes): save the "
            "table again, or unpack the download again"
        )
    return json.loads(done.stdout)


def _check_header(path: Path, rows: Sequence[Sequence[Cell]]) -> None:
    if not rows:
        raise InputError(f"{path} has no rows: {_NEED}")
    first = rows[0]
    if len(first) > 1 and first[1][0] in ("int", "float"):
        raise InputError(
            f"{path}, row 1 holds {_shown(first)}: its first row must name the columns, such as "
            "video, label"
        )


def _parse_row(place: str, number: int, row: Sequence[Cell]) -> LabelledClip:
    """Read a key, which a spreadsheet may have made a number, and a whole label."""
    label = _whole(row[1]) if len(row) > 1 else None
    if label is None:
        raise InputError(
            f"{place}: {_shown(row)} must be a clip key and a label, a whole number of at least 0"
        )
    kind, value = row[0]
    if kind not in ("str", "int", "float"):
        raise InputError(
            f"{place}: the spreadsheet made a {kind} of the key ({value}): format the column as "
            "text and write the key again"
        )
    name = str(int(value)) if kind == "float" and value.is_integer() else str(value).strip()
    if not _KEY.fullmatch(name) or len(name.encode()) > _LONGEST_KEY:
        raise InputError(f"{place}: {name[:100]!r} is no folder name below Images/")
    return LabelledClip(name, label, number)


def _whole(cell: Cell) -> int | None:
    """Return a label, None if the cell holds none; digits kept as text are one."""
    kind, value = cell
    if kind == "str":
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
    if kind not in ("int", "float") or not 0 <= value < 1e9:
        return None
    return int(value) if value == int(value) else None


def _shown(row: Sequence[Cell]) -> str:
    return f"{[value for _, value in row]!r:.120}"


# ---------------------------------------------------------------- choices


def refuse_shared_keys(train: Iterable[LabelledClip], test: Iterable[LabelledClip]) -> None:
    """Make sure that no clip is in both tables.

    Raises:
        InputError: one is.
    """
    rows = {clip.key: clip.row for clip in train}
    shared = [clip for clip in test if clip.key in rows]
    if shared:
        clip = shared[0]
        raise InputError(
            f"clip {clip.key} is in row {rows[clip.key]} of the training table and in row "
            f"{clip.row} of the test table, {len(shared)} clips in all: a result on them would be "
            "no test; remove one row of each"
        )


def refuse_unlearnt_classes(train: Iterable[LabelledClip], test: Iterable[LabelledClip]) -> None:
    """Make sure that there are two classes to learn, and that the test asks for no other.

    Raises:
        InputError: the training clips are all of one class, or lack a class of the test clips.
    """
    learnt = {clip.label for clip in train}
    for clip in test:
        if clip.label not in learnt:
            raise InputError(
                f"test clip {clip.key} has label {clip.label}, of which no training clip is left: "
                "correct the tables"
            )
    if len(learnt) < 2:
        raise InputError(
            f"all training clips have label {learnt.pop()}: there is nothing to learn; correct "
            "the labels of the training table"
        )


def split_validation(
    clips: Sequence[LabelledClip],
    fraction: float,
    seed: int,
    contents: Mapping[str, str] | None = None,
) -> tuple[list[LabelledClip], list[LabelledClip]]:
    """Take `fraction` of each class out of the training clips, at least one, for validation.

    A clip's place in the draw depends on the seed and its own key alone: leaving out one clip
    moves no more than one other clip of its class from one side to the other.

    Args:
        clips: the training clips.
        fraction: share of each class, 0 to 1.
        seed: of the draw.
        contents: key -> what the clip holds: clips with the same stay on one side.

    Returns:
        The remaining training clips and the validation clips, both in the given order.

    Raises:
        InputError: a class has a single clip, so it cannot be on both sides.
    """
    groups: dict[str, list[LabelledClip]] = {}
    for clip in clips:
        groups.setdefault((contents or {}).get(clip.key, clip.key), []).append(clip)
    held_out: set[str] = set()
    for label in sorted({clip.label for clip in clips}):
        members = [group for group in groups.values() if group[0].label == label]
        if len(members) < 2:
            raise InputError(
                f"class {label} has a single training clip: a validation list needs two at least"
            )
        held_out |= _draw(members, fraction, seed)
    train = [clip for clip in clips if clip.key not in held_out]
    return train, [clip for clip in clips if clip.key in held_out]


def _draw(groups: Sequence[Sequence[LabelledClip]], fraction: float, seed: int) -> set[str]:
    """Choose whole groups with about `fraction` of their clips; return the keys of these clips."""
    drawn = sorted(groups, key=lambda group: _rank(seed, group[0].key))
    total = sum(len(group) for group in groups)
    room = min(max(1, round(fraction * total)), total - 1)
    keys: set[str] = set()
    for group in drawn:
        if len(keys) + len(group) <= room:
            keys |= {clip.key for clip in group}
    return keys or {clip.key for clip in min(drawn, key=len)}


def _rank(seed: int, key: str) -> bytes:
    return blake2b(key.encode(), digest_size=8, salt=seed.to_bytes(16, "little")).digest()
