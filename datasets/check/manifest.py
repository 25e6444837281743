"""`manifest.csv` of a data set: size and SHA-256 of each of its files, to see later what changed.

A flipped bit in the picture data of a JPEG mostly decodes in any decoder; only its sum tells.
The file is written and compared as a stream, in order of the paths, so memory stays flat.
"""

import csv
import hashlib
import io
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from datasets.check.findings import Finding
from datasets.check.images import inspect_bytes
from datasets.check.pool import Workers, batched
from datasets.clip_table import NAME as TABLE
from datasets.frames import IMAGE_SUFFIXES
from errors import InputError
from files import replacing

NAME = "manifest.csv"
FOLDERS = ("boxes", "folds", "frames", "poses", "videos")
_LIST_END = "_videofolder.txt"
_CHUNK = 2**20
_BATCH = 500
_MOST_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One file.

    Attributes:
        path: relative to the data set's folder, with '/'.
        size: bytes; -1 when it could not be read.
        sha256: of its content, hexadecimal; "" when it could not be read.
        width: of an image, pixels; 0 for other files.
        height: likewise.
    """

    path: str
    size: int
    sha256: str
    width: int = 0
    height: int = 0

    @property
    def order(self) -> tuple[str, ...]:
        """Return what manifests are sorted by: the path, part by part."""
        return tuple(self.path.split("/"))


COLUMNS = tuple(field.name for field in fields(ManifestRow))


def write_manifest(
    root: Path,
    path: Path | None = None,
    workers: int | Workers | None = None,
    wrote: Collection[str] | None = None,
) -> int:
    """Write the manifest of a data set, whole or not at all; return how many files it names.

    Args:
        root: folder of the data set.
        path: of the manifest; None for `manifest.csv` in `root`.
        workers: processes that read; None for as many as there are cores.
        wrote: folders of the data set that a program has just written. Only these, files of the
            data set's own folder and files that the manifest does not know are then read: what
            the manifest says of the others stays, also when they have changed or gone since.
            None reads everything.

    Raises:
        InputError: a file, or the manifest to go on from, cannot be read.
    """
    path = path or root / NAME
    if wrote is None or not path.is_file():
        tasks: Iterator[str | ManifestRow] = _paths(root)
    else:
        tasks = _merge(read_manifest(path), _paths(root), set(wrote))
    count = 0
    with replacing(path) as file:
        file.write(_line(COLUMNS))
        for row in _measured(root, tasks, workers):
            if row.size < 0:
                raise InputError(
                    f"{root / row.path} cannot be read: make it readable, or remove it, and write "
                    f"{NAME} again"
                )
            file.write(_line(astuple(row)))
            count += 1
    return count


def verify_manifest(
    root: Path, path: Path | None = None, workers: int | Workers | None = None
) -> Iterator[Finding]:
    """Compare the files of a data set with its manifest; yield what changed.

    Args:
        root: folder of the data set.
        path: of the manifest; None for `manifest.csv` in `root`.
        workers: processes that read; None for as many as there are cores.
    """
    path = path or root / NAME
    told: dict[str, int] = {}
    try:
        for finding in _compare(root, read_manifest(path), scan_files(root, workers)):
            told[finding.kind] = told.get(finding.kind, 0) + 1
            if told[finding.kind] <= _MOST_FINDINGS:
                yield finding
    except InputError as error:
        text = str(error).removeprefix(str(path)).strip()
        yield Finding("manifest_unreadable", "", str(path), text)
    for kind, count in told.items():
        if count > _MOST_FINDINGS:
            text = f"differs in {count - _MOST_FINDINGS} more files in this way"
            yield Finding(kind, "", str(path), text)


def read_manifest(path: Path) -> Iterator[ManifestRow]:
    """Yield the rows of a manifest as they are read.

    Raises:
        InputError: it is not there, or is no manifest.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there: write it with tools/check_dataset.py")
    last: tuple[str, ...] = ()
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True)
            if tuple(next(lines, ())) != COLUMNS:
                raise ValueError(f"the first line is not {','.join(COLUMNS)}")
            for cells in lines:
                row = _parse(cells)
                if row.order <= last:
                    raise ValueError(f"line {lines.line_num} is not in order")
                last = row.order
                yield row
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a manifest ({error}): restore it, or write it again with "
            "--update_manifest"
        ) from None


def scan_files(root: Path, workers: int | Workers | None = None) -> Iterator[ManifestRow]:
    """Yield a row for each file of a data set, in order of the paths.

    Lists, clips.csv and everything in boxes/, folds/, frames/, poses/ and videos/, but no hidden
    files; links to folders are not followed below those.
    """
    return _measured(root, _paths(root), workers)


# ---------------------------------------------------------------- parts


def _merge(
    told: Iterator[ManifestRow], there: Iterator[str], wrote: set[str]
) -> Iterator[str | ManifestRow]:
    """Yield, in order of the paths, the row of a file that stays, or the path of one to read."""

    def stays(row: ManifestRow | None) -> bool:
        return row is not None and "/" in row.path and row.order[0] not in wrote

    old = next(told, None)
    for path in there:
        order = tuple(path.split("/"))
        while old is not None and old.order < order:
            if stays(old):
                yield old
            old = next(told, None)
        if old is not None and old.order == order:
            yield old if stays(old) else path
            old = next(told, None)
        else:
            yield path
    while old is not None:
        if stays(old):
            yield old
        old = next(told, None)


def _measured(
    root: Path, tasks: Iterable[str | ManifestRow], workers: int | Workers | None
) -> Iterator[ManifestRow]:
    """Yield rows in the order of the tasks: those that are rows, and what reading a path gives."""
    batches = batched(((str(root), task) for task in tasks), _BATCH)
    if isinstance(workers, Workers):
        for rows in workers.map(_measure_all, batches):
            yield from rows
        return
    with Workers(workers) as own:
        for rows in own.map(_measure_all, batches):
            yield from rows


def _line(cells: tuple[object, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _parse(cells: list[str]) -> ManifestRow:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"a line has {len(cells)} cells: {','.join(cells)[:60]!r}")
    size, width, height = (int(cells[i]) for i in (1, 3, 4))
    return ManifestRow(cells[0], size, cells[2], width, height)


def _compare(
    root: Path, told: Iterator[ManifestRow], there: Iterator[ManifestRow]
) -> Iterator[Finding]:
    """Walk through both in order, as one merges sorted lists."""
    old, new = next(told, None), next(there, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.order < new.order):
            assert old is not None
            yield Finding("manifest_gone", "", str(root / old.path), "is gone")
            old = next(told, None)
        elif old is None or new.order < old.order:
            yield Finding("manifest_new", "", str(root / new.path), "is new")
            new = next(there, None)
        else:
            if (old.size, old.sha256) != (new.size, new.sha256):
                yield Finding("manifest_changed", "", str(root / new.path), _change(old, new))
            old, new = next(told, None), next(there, None)


def _change(old: ManifestRow, new: ManifestRow) -> str:
    if new.size < 0:
        return "can no longer be read"
    if old.size != new.size:
        return f"has {new.size} bytes, it had {old.size}"
    return f"has {new.size} bytes as before, with other content"


def _paths(root: Path) -> Iterator[str]:
    """Yield the relative paths of the files, sorted part by part."""
    names = sorted(entry.name for entry in os.scandir(root))
    for name in names:
        path = root / name
        if name in FOLDERS and path.is_dir():
            yield from _below(path, name)
        elif (name.endswith(_LIST_END) or name == TABLE) and path.is_file():
            yield name


def _below(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as found:
        entries = sorted(
            ((e.name, e.is_dir(follow_symlinks=False), e.is_file()) for e in found),
        )
    for name, is_folder, is_file in entries:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _below(folder / name, f"{prefix}/{name}")
        elif is_file:
            yield f"{prefix}/{name}"


def _measure_all(tasks: list[tuple[str, str | ManifestRow]]) -> list[ManifestRow]:
    return [
        task if isinstance(task, ManifestRow) else _measure(Path(root), task)
        for root, task in tasks
    ]


def _measure(root: Path, path: str) -> ManifestRow:
    total, size, head = hashlib.sha256(), 0, b""
    try:
        with (root / path).open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                head = head or chunk
                total.update(chunk)
                size += len(chunk)
    except OSError:
        return ManifestRow(path, -1, "")
    shown = None
    if path.lower().endswith(IMAGE_SUFFIXES):
        shown = inspect_bytes(head)[0].size
    width, height = shown or (0, 0)
    return ManifestRow(path, size, total.hexdigest(), width, height)
