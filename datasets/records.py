"""Clip lists: text files with one line 'folder num_frames label' per clip.

A list may begin with a header of lines '# key: value'. Keys that programs read:

- `protocol`: PUBLISHED when val and test are the same clips, as in the published evaluation.
- `classes`: the class names in order of the label, as a JSON list.
- `left_out`: how many clips were left out of the list because they were damaged.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from errors import InputError
from files import holds, read_regular, write_text

PUBLISHED = "published (val and test are the same clips)"
# The same, of scores of the last epoch, which nothing chose.
PUBLISHED_LAST = f"{PUBLISHED}, the last epoch"
_LONGEST_NAME = 1000
_HEADER = "# "
# A list of ten million clips; a device file has no end.
_MOST_BYTES = 2**30


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

    def line(self) -> str:
        """Return what `parse` reads."""
        return f"{self.name} {self.num_frames} {self.label}"


def load_records(path: Path, num_classes: int | None = None) -> tuple[ClipRecord, ...]:
    """Read a clip list; its header and blank lines are skipped.

    Args:
        path: the list.
        num_classes: labels must be below it; None accepts any.

    Raises:
        InputError: the list cannot be read or is empty; a line is malformed, repeats a clip, or
            has a label outside the classes.
    """
    lines: dict[str, int] = {}
    records = []
    lines_of_file = _read_text(path).splitlines()
    first = _header_length(lines_of_file)
    for number, line in enumerate(lines_of_file[first:], start=first + 1):
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


def read_header(path: Path) -> dict[str, str]:
    """Return the header of a clip list; empty where there is none.

    Raises:
        InputError: the list cannot be read.
    """
    lines = _read_text(path).splitlines()
    pairs = (line.removeprefix(_HEADER).partition(":") for line in lines[: _header_length(lines)])
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def header_classes(path: Path, header: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the class names that a header gives, None where it gives none.

    Raises:
        InputError: what stands there is not a list of names.
    """
    if "classes" not in header:
        return None
    try:
        names = json.loads(header["classes"])
    except (ValueError, RecursionError):  # also numbers of too many digits
        names = None
    is_list = isinstance(names, list) and names and all(map(_is_name, names))
    if not is_list or len(set(names)) < len(names):
        raise InputError(
            f"{path} has a header line 'classes: {header['classes']:.80}': write distinct names as "
            'a JSON list, such as ["landed", "fall"]'
        )
    return tuple(names)


def write_list(
    path: Path, records: Iterable[ClipRecord], header: Mapping[str, str] | None = None
) -> None:
    """Write a clip list, whole or not at all; a list that says the same already stays as it is.

    Raises:
        InputError: a clip's name cannot stand in a list.
        ValueError: a header entry has a line end or a colon in its key.
    """
    text = format_list(records, header)
    if not holds(path, text.encode("utf-8")):
        write_text(path, text)


def format_list(records: Iterable[ClipRecord], header: Mapping[str, str] | None = None) -> str:
    """Return the text of a clip list, from which `load_records` reads the same records.

    Raises:
        InputError: a clip's name cannot stand in a list.
        ValueError: a header entry has a line end or a colon in its key.
    """
    for key, value in (header or {}).items():
        if ":" in key or len(f"{key}{value}.".splitlines()) != 1:
            raise ValueError(f"a header entry is one line 'key: value', got {key!r}: {value!r}")
    top = [f"{_HEADER}{key}: {value}" for key, value in (header or {}).items()]
    return "".join(f"{line}\n" for line in [*top, *map(_checked_line, records)])


def _checked_line(record: ClipRecord) -> str:
    """Return the line of a clip if it reads as the same clip; a name may hold what ends a line."""
    line = record.line()
    try:
        line.encode("utf-8")
        is_same = ClipRecord.parse(line) == record and len(f"{line}.".splitlines()) == 1
    except ValueError:
        is_same = False
    if not is_same or line.startswith(_HEADER):
        raise InputError(
            f"clip name {record.name[:100]!r} cannot stand in a clip list: rename it to letters, "
            "digits and single signs"
        )
    return line


def _header_length(lines: Sequence[str]) -> int:
    """Count the header lines: those at the top that begin with '# '."""
    return next((n for n, line in enumerate(lines) if not line.startswith(_HEADER)), len(lines))


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
        return read_regular(path, _MOST_BYTES).decode("utf-8-sig")
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


def _is_name(value: object) -> bool:
    """Say whether this is a text that can be written: JSON may hold half a character."""
    return isinstance(value, str) and bool(value) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _inside(folder: str) -> str:
    """Return a folder's one spelling; refuse what leaves the frames folder."""
    path = PurePosixPath(folder)
    if len(folder) > _LONGEST_NAME:
        raise ValueError(f"has a folder of {len(folder)} letters, {_LONGEST_NAME} are the most")
    if path.is_absolute() or ".." in path.parts or "\0" in folder or not path.parts:
        raise ValueError(f"has folder {folder!r}: it must lie below the frames folder")
    return path.as_posix()
