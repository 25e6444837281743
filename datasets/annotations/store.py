"""Annotation pickles as plain arrays on disk: written once, mapped into memory from then on.

A store is a folder `<pickle>-<sum>` below the cache folder:

- `store.json`: format, sum of the pickle, sizes, and the pickles of single videos that were read;
- `clips.json`: names, splits, faults;
- `table.npy`: a row of `table.ROW` for each clip;
- `arrays.bin`: keypoints and scores exactly as they were, one after the other.

A pickle is known again by its SHA-256; a note beside the stores saves taking the sum of a file
whose size, times and number on disk are the same.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.kinetics import FileNote, attach_files, find_files, note_file
from datasets.annotations.table import ROW, make_table
from datasets.importers.reading import one_line, read_annotations
from datasets.shards.locks import take
from errors import InputError
from files import open_regular, replacing_folder, write_text

_FORMAT = 3
# A change within the same tick of a file system's clock leaves no other time.
_TICK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Store:
    """An opened store.

    Attributes:
        folder: it.
        names: of the clips that have one, each once, in the order of the pickle.
        rows: name -> row of `table`, the first where there are several.
        repeats: name -> how often it is there, of those that are there more than once.
        splits: name -> clips.
        faults: row -> (field, what is wrong).
        table: (R,) of `table.ROW`.
        nameless: rows of annotations without a name.
    """

    folder: Path
    names: tuple[str, ...]
    rows: dict[str, int]
    repeats: dict[str, int]
    splits: dict[str, tuple[str, ...]]
    faults: dict[int, list[tuple[str, str]]]
    table: np.ndarray
    nameless: tuple[int, ...]


def open_store(path: Path, cache: Path, keypoint_files: Path | None = None) -> Store:
    """Open the store of an annotation pickle, and make it where there is none.

    Args:
        path: the pickle.
        cache: folder of the stores.
        keypoint_files: folder below which the pickles of single videos lie; None for that of the
            pickle.

    Raises:
        InputError: the pickle cannot be read, is refused, or changes meanwhile; the cache cannot
            be written.
    """
    root = path.parent if keypoint_files is None else keypoint_files
    digest = _digest_of(path, cache)
    beside = "" if keypoint_files is None else f"-{_short(str(root.resolve()))}"
    folder = cache / f"{path.stem[:100]}-{digest[:16]}{beside}"
    found = _load(folder, digest, root)
    if found is not None:
        return found
    with _alone(cache, folder):
        found = _load(folder, digest, root)  # another process may have made it meanwhile
        if found is None:
            _make(path, folder, digest, root)
            found = _load(folder, digest, root)
    if found is None:
        raise InputError(
            f"{folder} changes while it is read: make sure that nothing else writes there"
        )
    return found


# ---------------------------------------------------------------- reading


def load_store(folder: Path) -> Store:
    """Open a store that this program has opened before, in another process.

    Raises:
        InputError: it is gone.
    """
    try:
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{folder} is gone or damaged: start the program again") from None


def _read(folder: Path) -> Store:
    clips = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    table = np.load(folder / "table.npy", mmap_mode="r", allow_pickle=False)
    if table.dtype != ROW or len(table) != len(clips["names"]):
        raise ValueError("a table of another form")
    return _store(folder, clips, table)


def _load(folder: Path, digest: str, root: Path) -> Store | None:
    """Open a store; None where there is none that is whole and of this content."""
    try:
        about = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        if about["format"] != _FORMAT or about["sha256"] != digest:
            return None
        if (folder / "arrays.bin").stat().st_size != about["bytes"]:
            return None
        if not _are_same(about["videos"], root):
            return None
        return _read(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # half a store, or another program's folder: it is made again


def _store(folder: Path, clips: dict[str, Any], table: np.ndarray) -> Store:
    named: list[str | None] = clips["names"]
    rows: dict[str, int] = {}
    repeats: dict[str, int] = {}
    for row, name in enumerate(named):
        if name is None:
            continue
        if rows.setdefault(name, row) != row:
            repeats[name] = repeats.get(name, 1) + 1
    faults: dict[int, list[tuple[str, str]]] = {}
    for row, field, text in clips["faults"]:
        faults.setdefault(row, []).append((field, text))
    return Store(
        folder=folder,
        names=tuple(rows),
        rows=rows,
        repeats=repeats,
        splits={name: tuple(ids) for name, ids in clips["splits"].items()},
        faults=faults,
        table=table,
        nameless=tuple(row for row, name in enumerate(named) if name is None),
    )


def _are_same(videos: list[list[Any]], root: Path) -> bool:
    return all(note_file(video[0], root) == tuple(video) for video in videos)


# ---------------------------------------------------------------- writing


def _make(path: Path, folder: Path, digest: str, root: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    with replacing_folder(folder) as partial:
        index = read_annotations(path, partial)
        rows = index["annotations"]
        notes = find_files(rows, root)
        _refuse_without_files(path, rows, notes, root)
        attach_files(rows, notes, partial)
        table = make_table(rows, partial / "arrays.bin")
        if _sum(path) != digest:
            raise InputError(f"{path} changed while it was read: start again when it is complete")
        _write(partial, index, table, notes, digest)


def _refuse_without_files(
    path: Path, rows: list[dict[str, Any]], notes: list[FileNote], root: Path
) -> None:
    """Stop before anything is read where no clip has keypoints."""
    if notes and all(note[1] is None for note in notes):
        has_own = any(row["keypoint"] is not None for row in rows)
        if not has_own:
            raise InputError(
                f"{path} has no keypoints, they lie in other files such as {notes[0][0][:200]}, "
                f"of which none is below {root}: name their folder with --keypoint_files"
            )


def _write(
    folder: Path, index: dict[str, Any], table: np.ndarray, notes: list[FileNote], digest: str
) -> None:
    rows = index["annotations"]
    clips = {
        "names": [row["clip"] for row in rows],
        "splits": index["split"] or {},
        "faults": [
            (place, field, one_line(text))
            for place, row in enumerate(rows)
            for field, text in row["faults"]
        ],
    }
    (folder / "clips.json").write_text(json.dumps(clips), encoding="utf-8")
    np.save(folder / "table.npy", table, allow_pickle=False)
    about = {
        "format": _FORMAT,
        "sha256": digest,
        "bytes": (folder / "arrays.bin").stat().st_size,
        "videos": notes,
    }
    (folder / "store.json").write_text(json.dumps(about), encoding="utf-8")
    for name in ("clips.json", "table.npy", "arrays.bin", "store.json"):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _alone(cache: Path, folder: Path) -> Iterator[None]:
    """Keep other processes from making the same store meanwhile; they wait."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = os.open(cache / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"{cache} cannot be written ({error.strerror}), annotations are kept there as plain "
            "arrays: name another cache folder"
        ) from None
    try:
        while not take(lock, exclusive=True):
            time.sleep(0.05)
        yield
    finally:
        os.close(lock)


# ---------------------------------------------------------------- which pickle it is


def _digest_of(path: Path, cache: Path) -> str:
    """Return the SHA-256 of a file, from a note where nothing has touched the file since."""
    identity = _identity(path)
    note = cache / f".{path.stem[:100]}-{_short(str(path.resolve()))}.sum"
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(note.read_text(encoding="utf-8"))
        if kept["identity"] == identity and kept["format"] == _FORMAT:
            return str(kept["sha256"])
    start = time.time()
    digest = _sum(path)
    is_settled = max(identity[1:3]) < (start - _TICK_SECONDS) * 1e9
    if is_settled and _identity(path) == identity:
        with suppress(OSError):
            cache.mkdir(parents=True, exist_ok=True)
            kept = {"format": _FORMAT, "identity": identity, "sha256": digest}
            write_text(note, json.dumps(kept))
    return digest


def _identity(path: Path) -> list[int]:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{str(path)[:300]} cannot be read ({reason}): name an annotation pickle"
        ) from None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _sum(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name an annotation pickle"
        ) from None


def _short(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
