"""Clip lists: text files with one line 'folder num_frames label' per clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from errors import InputError


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One line of a clip list.

    Attributes:
        name: the clip's folder, relative to the frames folder of its data set.
        num_frames: frames of the clip, N.
        label: class index.
    """

    name: str
    num_frames: int
    label: int

    @classmethod
    def parse(cls, line: str) -> "ClipRecord":
        """Read '<folder> <num_frames> <label>'; the folder may hold spaces.

        Raises:
            ValueError: the line is none; the message says why, to follow the line's place.
        """
        fields = line.rsplit(maxsplit=2)
        if len(fields) != 3:
            raise ValueError(f"has {len(fields)} fields: write 'folder num_frames label'")
        folder, num_frames, label = fields
        if not _is_whole(num_frames) or int(num_frames) < 1:
            raise ValueError(f"has {num_frames!r} frames: write a whole number of at least 1")
        if not _is_whole(label):
            raise ValueError(f"has label {label!r}: write a whole number of at least 0")
        return cls(_inside(folder.strip()), int(num_frames), int(label))


def load_records(path: Path, num_classes: int | None = None) -> tuple[ClipRecord, ...]:
    """Read a clip list; blank lines are skipped.

    Args:
        path: the list.
        num_classes: labels must be below it; None accepts any.

    Raises:
        InputError: the list cannot be read or is empty; a line is malformed, repeats a clip, or
            has a label outside the classes.
    """
    lines: dict[str, int] = {}
    records = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = ClipRecord.parse(line)
        except ValueError as error:
            raise InputError(f"{path}:{number} {error}") from None
        if record.name in lines:
            raise InputError(
                f"{path}:{number} repeats clip {record.name} of line {lines[record.name]}: "
                "remove one of the two"
            )
        if num_classes is not None and record.label >= num_classes:
            raise InputError(
                f"{path}:{number} has label {record.label}, the data set has {num_classes} "
                f"classes, 0 to {num_classes - 1}: correct the label or give --class_names"
            )
        lines[record.name] = number
        records.append(record)
    if not records:
        raise InputError(f"{path} is empty: it needs a line 'folder num_frames label' per clip")
    return tuple(records)


def fingerprints(records: Sequence[ClipRecord]) -> np.ndarray:
    """Return one number for each clip of a list, (N,) int64: equal for equal names.

    A checkpoint keeps them in place of the names, to tell later whether a clip was trained on.
    """
    digests = (blake2b(record.name.encode(), digest_size=8).digest() for record in records)
    return np.array([int.from_bytes(digest, "little", signed=True) for digest in digests], np.int64)


def count_classes(path: Path, records: Sequence[ClipRecord]) -> int:
    """Return K of a list that uses the labels 0 to K-1.

    Raises:
        InputError: a label between 0 and the largest is not used.
    """
    labels = {record.label for record in records}
    # Not a range up to the largest label: that may be any number somebody mistyped.
    missing = next(label for label in range(len(labels) + 1) if label not in labels)
    if missing < max(labels):
        raise InputError(
            f"{path} has labels up to {max(labels)} but no clip of class {missing}: number the "
            "classes from 0 without gaps, or name all of them with --class_names"
        )
    return len(labels)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: it should be a list of lines 'folder num_frames label'; write "
            "it, or name another list with --train_list, --val_list or --test_list"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save the clip list as UTF-8") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): it should be a list of lines "
            "'folder num_frames label'"
        ) from None


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _inside(folder: str) -> str:
    """Return a folder's one spelling; refuse what leaves the frames folder."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or "\0" in folder or not path.parts:
        raise ValueError(f"has folder {folder!r}: it must lie below the frames folder")
    return path.as_posix()
