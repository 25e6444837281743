"""Which videos a data set is made of: a folder per class, or a table of labels."""

import csv
import io
import math
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from datasets.sources import refuse_outside
from datasets.video_files import VIDEO_SUFFIXES
from errors import InputError, printable

COLUMNS = ("video", "label", "split", "group", "start_seconds", "end_seconds")
_REQUIRED = COLUMNS[:2]
_DELIMITERS = ",;\t"
_MOST_BYTES = 256 * 2**20
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """One clip that somebody wants: a video or a part of it, and its label.

    Attributes:
        place: what to name in a message: the table's file and line, or the video.
        path: the video.
        key: the video's path below the source, with "/".
        label: as written.
        split: train, val or test; "" where it is not given.
        group: "" where it is not given.
        start: seconds after the first frame; None is the beginning.
        end: seconds after the first frame; None is the end.
    """

    place: str
    path: Path
    key: str
    label: str
    split: str = ""
    group: str = ""
    start: float | None = None
    end: float | None = None

    @property
    def is_part(self) -> bool:
        """Tell whether a part of the video is meant."""
        return self.start is not None or self.end is not None


@dataclass(slots=True)
class Listing:
    """What a folder or table lists.

    Attributes:
        requests: the clips.
        problems: a line for each clip that cannot be had.
        notes: a line for each thing worth knowing.
    """

    requests: list[ClipRequest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts "take 2" before "take 10"."""
    parts = re.split(r"([0-9]+)", text)
    return [(i % 2 == 0, int(part) if i % 2 else 0, part) for i, part in enumerate(parts)]


# ---------------------------------------------------------------- folders


def read_class_folders(source: Path, leave_out: Path) -> Listing:
    """List the videos of a folder with one folder per class.

    Folders called train, val and test on top of the class folders are the splits.

    Args:
        source: the folder.
        leave_out: folder that is not looked into: the data set to write.

    Raises:
        InputError: it is no such folder.
    """
    listing = Listing()
    files = _find_videos(source, leave_out, listing.notes)
    tops = {key.split("/")[0] for key in files if "/" in key}
    has_splits = bool(tops) and all(top.lower() in _SPLIT_NAMES for top in tops)
    depth = 2 if has_splits else 1
    for key, path in sorted(files.items(), key=lambda item: natural_key(item[0])):
        parts = key.split("/")
        if len(parts) <= depth:
            raise InputError(
                f"{path} lies beside the class folders: move it into the folder of its class, or "
                "give a --table of labels"
            )
        split = _SPLIT_NAMES[parts[0].lower()] if has_splits else ""
        listing.requests.append(ClipRequest(str(path), path, key, parts[depth - 1], split))
    if not listing.requests:
        raise InputError(
            f"{source} holds no video ({', '.join(VIDEO_SUFFIXES)}): it should hold a folder with "
            "videos for each class"
        )
    used = {str(PurePosixPath(*r.key.split("/")[:depth])) for r in listing.requests}
    for folder in sorted(_folders_at(source, depth, leave_out) - used):
        listing.notes.append(f"{source / folder} holds no video: it is not taken as a class")
    return listing


def _folders_at(source: Path, depth: int, leave_out: Path) -> set[str]:
    pattern = "/".join("*" * depth)
    return {
        path.relative_to(source).as_posix()
        for path in source.glob(pattern)
        if path.is_dir() and not path.name.startswith(".") and path.resolve() != leave_out.resolve()
    }


def _find_videos(source: Path, leave_out: Path, notes: list[str]) -> dict[str, Path]:
    """Return all videos below a folder: path with "/" -> file. Hidden ones are not looked at."""
    if not source.is_dir():
        raise InputError(f"{source} is no folder: --source should name a folder with videos")
    found, others, skip = {}, 0, leave_out.resolve()
    for folder, folders, names in os.walk(source, onerror=_raise):
        here = Path(folder)
        folders[:] = sorted(f for f in _shown(folders) if (here / f).resolve() != skip)
        for name in (f for f in folders if (here / f).is_symlink()):
            notes.append(f"{here / name} is a link to a folder: it is not followed")
        for name in _shown(names):
            if name.lower().endswith(VIDEO_SUFFIXES):
                found[(here / name).relative_to(source).as_posix()] = here / name
            else:
                others += 1
    if others:
        notes.append(f"{source} holds {others} files that are no videos by their names: not used")
    return found


def _shown(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}): correct its permissions")


# ---------------------------------------------------------------- tables


def read_table(
    path: Path, source: Path | None, renamed: Mapping[str, str], leave_out: Path
) -> Listing:
    """Read a table with the columns `COLUMNS`; others are left alone.

    Args:
        path: CSV text; the delimiter is a comma, a semicolon or a tab.
        source: folder that the videos are named relative to; None is the table's folder.
        renamed: column of ours -> how the table calls it.
        leave_out: folder where no videos are looked for: the data set to write.

    Raises:
        InputError: it is no such table; the message names the line.
    """
    rows = _read_rows(path, renamed)
    base = source or path.absolute().parent
    listing = Listing()
    finder = _Finder(base, leave_out)
    seen: dict[tuple[str, float | None, float | None], str] = {}
    for line, cells in rows:
        place = f"{path}:{line}"
        request = _read_row(place, cells, finder)
        if request is None:
            listing.problems.append(
                f"{place} names video {cells['video']!r}, which is not in {base}: correct the "
                "name, or name the folder of the videos with --source"
            )
            continue
        what = (request.key, request.start, request.end)
        if what in seen:
            raise InputError(
                f"{place} repeats {request.key} of {seen[what]}: remove one of the two"
            )
        seen[what] = place
        listing.requests.append(request)
    _check_splits(listing.requests)
    return listing


def _read_rows(path: Path, renamed: Mapping[str, str]) -> list[tuple[int, dict[str, str]]]:
    """Return (line, cells by our names) of each row that is not blank."""
    text = _read_text(path)
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num} is no line of a table ({error}): mend it"
        ) from None
    lines = [(line, cells) for line, cells in lines if any(cell.strip() for cell in cells)]
    if not lines:
        raise InputError(f"{path} is empty: its first line should be {','.join(_REQUIRED)}")
    header = [name.strip() for name in lines[0][1]]
    columns = _find_columns(f"{path}:{lines[0][0]}", header, renamed)
    for line, cells in lines[1:]:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise InputError(
                f"{path}:{line} has {len(cells)} cells, the first line {len(header)}: put a cell "
                "that holds the delimiter in quotes"
            )
    if len(lines) == 1:
        raise InputError(f"{path} has no line after its first: it needs one for each clip")
    return [(line, _pick(cells, columns)) for line, cells in lines[1:]]


def _pick(cells: Sequence[str], columns: Mapping[str, int]) -> dict[str, str]:
    return {
        name: cells[i].strip() if i is not None and i < len(cells) else ""
        for name, i in ((name, columns.get(name)) for name in COLUMNS)
    }


def _read_text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file: --table should be a table in CSV")
        if status.st_size > _MOST_BYTES:
            raise InputError(
                f"{path} has {status.st_size >> 20} MB, a table may have {_MOST_BYTES >> 20}: "
                "leave out columns that are not needed"
            )
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save the table as CSV in UTF-8") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): --table should be a CSV") from None


def _find_columns(place: str, header: Sequence[str], renamed: Mapping[str, str]) -> dict[str, int]:
    """Return where each column of ours is."""
    columns = {}
    for name in COLUMNS:
        wanted = renamed.get(name, name)
        found = [i for i, title in enumerate(header) if title == wanted] or [
            i for i, title in enumerate(header) if title.lower() == wanted.lower()
        ]
        if len(found) > 1:
            raise InputError(f"{place} names column {wanted!r} {len(found)} times: keep one")
        if found:
            columns[name] = found[0]
        elif name in _REQUIRED or name in renamed:
            raise InputError(
                f"{place} has no column {wanted!r}, it has "
                f"{printable(', '.join(header)[:200])}: add it, or say how the table calls it with "
                f"--columns {name}=..."
            )
    return columns


def _read_row(place: str, cells: Mapping[str, str], finder: "_Finder") -> ClipRequest | None:
    """Return what a row asks for; None where its video is not there."""
    for name in _REQUIRED:
        if not cells[name]:
            raise InputError(f"{place} has no {name}: fill the cell, or remove the line")
    found = finder.find(place, cells["video"])
    split = cells["split"].lower()
    if split and split not in _SPLIT_NAMES:
        raise InputError(f"{place} has split {cells['split']!r}: write train, val or test")
    if found is None:
        return None
    return ClipRequest(
        place=place,
        path=finder.base / found,
        key=found,
        label=cells["label"],
        split=_SPLIT_NAMES.get(split, ""),
        group=cells["group"],
        start=_seconds(place, "start_seconds", cells["start_seconds"]),
        end=_seconds(place, "end_seconds", cells["end_seconds"]),
    )


def _seconds(place: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e7:
        raise InputError(
            f"{place} has {name} {text!r}: write seconds with a decimal point, as in 12.5, or "
            "leave the cell empty"
        )
    return value


def _check_splits(requests: Iterable[ClipRequest]) -> None:
    """Make sure that all rows say their split, or none."""
    lacking = [request for request in requests if not request.split]
    given = [request for request in requests if request.split]
    if lacking and given:
        raise InputError(
            f"{lacking[0].place} has no split, {given[0].place} has {given[0].split}: fill the "
            "column split in every line, or remove it"
        )


class _Finder:
    """Finds the video that a table names, with or without its folder and suffix."""

    def __init__(self, base: Path, leave_out: Path) -> None:
        self.base = base
        self._leave_out = leave_out

    @cached_property
    def _short(self) -> Mapping[str, list[str]]:
        """Paths without suffix, names and names without suffix -> the paths that are meant."""
        short: dict[str, list[str]] = defaultdict(list)
        for key in _find_videos(self.base, self._leave_out, []):
            path = PurePosixPath(key)
            for text in {path.with_suffix("").as_posix(), path.name, path.stem}:
                short[text].append(key)
        return short

    def find(self, place: str, text: str) -> str | None:
        """Return the path below the base of the one video that is meant; None if there is none.

        Raises:
            InputError: the name leads out of the base, or several videos are meant.
        """
        for name in dict.fromkeys((text, text.replace("\\", "/"))):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\0" in name or len(name) > 4000:
                raise InputError(
                    f"{place} has video {text[:200]!r}: name it relative to the folder of the "
                    "table, or of --source, and below it"
                )
            key = path.as_posix()
            if self._is_file(key):
                refuse_outside((self.base / key).parent, self.base)
                return key
            fitting = self._short.get(key, [])
            if len(fitting) > 1:
                raise InputError(
                    f"{place} has video {text!r}, which may be {fitting[0]} or {fitting[1]}: write "
                    "its path with the suffix"
                )
            if fitting:
                return fitting[0]
        return None

    def _is_file(self, key: str) -> bool:
        try:
            return (self.base / key).exists() and not (self.base / key).is_dir()
        except OSError:
            return False
