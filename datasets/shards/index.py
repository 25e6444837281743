"""What shards hold: `index.json` names the files, `index.npz` says where each clip lies.

Nothing that an index says becomes a path or a part of a command unless it is one of the plain
names below; offsets are checked against the length of each shard before anything is read.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from datasets.arrays import Fault, blaming, read_member, unless
from datasets.images import MOST_PIXELS
from errors import InputError
from files import read_regular

FORMAT = "gate-shift-pose shards"
VERSION = 1
INDEX = "index.json"
ARRAYS = "index.npz"
# Every member of a tar file begins with a header of one block and is filled up to whole blocks.
BLOCK = 512
MOST_INDEX_BYTES = 64 * 2**20
MOST_FILE_BYTES = 2**30

# Kinds of frames, as `ShardIndex.kind` counts them.
KINDS = ("jpg", "png", "video")
VIDEO = KINDS.index("video")

_SHARD_NAME = re.compile(r"(train|val|test)-[0-9]{6}\.tar", re.ASCII)
_FILE_NAME = re.compile(
    r"index\.npz|clips\.csv|(folds/[0-9]{1,9}of[0-9]{1,9}/)?(train|val|test)_videofolder\.txt",
    re.ASCII,
)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_REMEDY = "pack the data set again, or name another place with --shards"
# Columns of `index.npz` with a number for each clip, and the least of each.
_COLUMNS = {
    "shard": (np.int32, 0),
    "start": (np.int64, 0),
    "kind": (np.uint8, 0),
    "num_frames": (np.int32, 1),
    "found": (np.int32, 1),
    "first": (np.int64, 0),
    "width": (np.int32, 1),
    "height": (np.int32, 1),
    "pose_width": (np.int32, 0),
    "pose_height": (np.int32, 0),
    "has_poses": (np.uint8, 0),
    "first_frame": (np.int64, 0),
    "members": (np.int32, 2),
    "name_bytes": (np.int32, 1),
}
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file beside an index.

    Attributes:
        name: relative to the index, one of the plain names.
        num_bytes: its length.
        sha256: of its content, hexadecimal.
        num_clips: in it; 0 where it is no shard.
    """

    name: str
    num_bytes: int
    sha256: str
    num_clips: int = 0


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """All clips of all shards, as arrays: 100,000 of them take some megabytes.

    Attributes:
        dataset: name of the data set.
        shards: files that hold clips.
        files: the other files: lists, `clips.csv`, `index.npz`.
        names: UTF-8 names of all clips, one after the other.
        name_ends: (N,) where each ends.
        columns: see `_COLUMNS`; each (N,).
        lengths: (all members,) uint32 bytes of each member: JSON, frames or video, keypoints.
        member_ends: (N,) where those of each clip end.
    """

    dataset: str
    shards: tuple[StoredFile, ...]
    files: tuple[StoredFile, ...]
    names: np.ndarray
    name_ends: np.ndarray
    columns: Mapping[str, np.ndarray]
    lengths: np.ndarray
    member_ends: np.ndarray

    def __len__(self) -> int:
        return len(self.name_ends)

    def name(self, row: int) -> str:
        """Return the name of a clip."""
        start = int(self.name_ends[row - 1]) if row else 0
        return self.names[start : int(self.name_ends[row])].tobytes().decode("utf-8")

    def rows(self) -> dict[str, int]:
        """Return clip -> row, made anew for each call."""
        return {self.name(row): row for row in range(len(self))}

    def value(self, column: str, row: int) -> int:
        """Return a number about a clip."""
        return int(self.columns[column][row])

    def spans(self, row: int) -> np.ndarray:
        """Return (members, 2) int64: where in its shard each member of a clip begins, its length.

        The first is the JSON, then come the frames or the one video, the last are the keypoints
        where `has_poses` says so.
        """
        first = int(self.member_ends[row - 1]) if row else 0
        lengths = self.lengths[first : int(self.member_ends[row])].astype(np.int64)
        ends = np.cumsum(BLOCK + padded(lengths))
        starts = self.value("start", row) + ends - padded(lengths)
        return np.stack((starts, lengths), axis=1)


def padded(lengths: np.ndarray) -> np.ndarray:
    """Return lengths filled up to whole blocks."""
    return -(-lengths // BLOCK) * BLOCK


def is_shard_name(name: str) -> bool:
    """Say whether a name is that of a shard."""
    return _SHARD_NAME.fullmatch(name) is not None


# ---------------------------------------------------------------- index.json


def read_index(
    place: str, data: bytes
) -> tuple[str, tuple[StoredFile, ...], tuple[StoredFile, ...]]:
    """Read the bytes of an `index.json`; returns data set, shards, other files.

    Args:
        place: where it comes from, for messages.
        data: its content.

    Raises:
        InputError: it is none, or of a newer version, or names what it may not.
    """
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it is no index of shards")
        if type(content.get("version")) is not int or content["version"] != VERSION:
            raise ValueError(f"it is of version {content.get('version')!r:.20}, not {VERSION}")
        dataset = content["dataset"]
        if not isinstance(dataset, str) or not 0 < len(dataset) < 200:
            raise ValueError("it names no data set")
        shards = tuple(_stored(entry, _SHARD_NAME) for entry in _list_of(content, "shards"))
        files = tuple(_stored(entry, _FILE_NAME) for entry in _list_of(content, "files"))
        names = [file.name for file in (*shards, *files)]
        if not shards or len(set(names)) < len(names) or ARRAYS not in names:
            raise ValueError("it lacks a file, or names one twice")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
        raise InputError(f"{place} cannot be used ({reason}): {_REMEDY}") from None
    return dataset, shards, files


def _list_of(content: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(content.get(name), list):
        raise ValueError(f"its {name!r} are no list")
    return content[name]


def _stored(entry: Any, pattern: re.Pattern[str]) -> StoredFile:
    if not isinstance(entry, dict):
        raise ValueError("a file in it is no record")
    name, num_bytes, sha256, clips = (
        entry.get(key, 0) for key in ("file", "bytes", "sha256", "clips")
    )
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise ValueError(f"it names the file {name!r:.80}, which is none of a packed data set")
    whole = all(type(number) is int and 0 <= number < 2**50 for number in (num_bytes, clips))
    if not whole or not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"it has no length and SHA-256 of {name}")
    return StoredFile(name, num_bytes, sha256, clips)


def index_json(
    dataset: str,
    shards: Sequence[StoredFile],
    files: Sequence[StoredFile],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of an `index.json`; `facts` are for people and other programs."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "dataset": dataset,
        **facts,
        "shards": [
            {"file": s.name, "bytes": s.num_bytes, "sha256": s.sha256, "clips": s.num_clips}
            for s in shards
        ],
        "files": [{"file": f.name, "bytes": f.num_bytes, "sha256": f.sha256} for f in files],
    }


# ---------------------------------------------------------------- index.npz


def pack_arrays(clips: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the bytes of an `index.npz`; equal clips make equal bytes.

    Args:
        clips: for each `name`, `lengths` of its members, and the columns but the last two.
    """
    names = [clip["name"].encode("utf-8") for clip in clips]
    values = {
        "members": [len(clip["lengths"]) for clip in clips],
        "name_bytes": [len(name) for name in names],
    }
    arrays = {
        column: np.array(values.get(column) or [clip[column] for clip in clips], dtype)
        for column, (dtype, _) in _COLUMNS.items()
    }
    arrays["lengths"] = np.array([n for clip in clips for n in clip["lengths"]], np.uint32)
    arrays["names"] = np.frombuffer(b"".join(names), np.uint8)
    return npz_bytes(arrays)


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return an .npz; equal arrays make equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
            with archive.open(entry, "w") as stream:
                npy.write_array(stream, array, allow_pickle=False)
    return buffer.getvalue()


def load_index(folder: Path) -> ShardIndex:
    """Read the index in a folder.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    path = folder / INDEX
    try:
        data = read_regular(path, MOST_INDEX_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): --shards should name a folder that "
            "tools/pack_dataset.py has written to its end"
        ) from None
    dataset, shards, files = read_index(str(path), data)
    stored = {file.name: file for file in files}[ARRAYS]
    return _load_arrays(folder / ARRAYS, stored, dataset, shards, files)


def _load_arrays(
    path: Path,
    stored: StoredFile,
    dataset: str,
    shards: tuple[StoredFile, ...],
    files: tuple[StoredFile, ...],
) -> ShardIndex:
    with blaming(path, _REMEDY, "index of shards"):
        data = read_regular(path, MOST_FILE_BYTES)
        if len(data) != stored.num_bytes or hashlib.sha256(data).hexdigest() != stored.sha256:
            raise Fault(f"is not the file that {INDEX} describes")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(shard.num_clips for shard in shards)
            columns = {name: _read_column(archive, name, total) for name in _COLUMNS}
            lengths = _read(archive, "lengths", int(columns["members"].sum()), np.uint32)
            names = _read(archive, "names", int(columns["name_bytes"].sum()), np.uint8)
        index = ShardIndex(
            dataset,
            shards,
            files,
            names,
            np.cumsum(columns["name_bytes"], dtype=np.int64),
            columns,
            lengths,
            np.cumsum(columns["members"], dtype=np.int64),
        )
        _check_places(index)
    return index


def _read_column(archive: zipfile.ZipFile, name: str, total: int) -> np.ndarray:
    dtype, least = _COLUMNS[name]
    column = _read(archive, name, total, dtype)
    if total and int(column.min()) < least:
        raise Fault(f"holds {int(column.min())} in {name!r}")
    return column


def _read(archive: zipfile.ZipFile, name: str, length: int, dtype: type) -> np.ndarray:
    array = read_member(archive, name, unless(lambda s: s == (length,), f"({length},)"))
    if array is None or array.dtype != dtype:
        raise Fault(f"holds no {name!r} of type {np.dtype(dtype)}")
    return array


def _check_places(index: ShardIndex) -> None:
    """Make sure that every clip lies inside its shard and has the members that it should have."""
    columns, shard = index.columns, index.columns["shard"]
    if int(shard.max()) >= len(index.shards) or int(columns["kind"].max()) > VIDEO:
        raise Fault("names a shard or a kind of frames that there is not")
    frames = np.where(columns["kind"] == VIDEO, 1, columns["num_frames"].astype(np.int64))
    if (1 + frames + (columns["has_poses"] > 0) != columns["members"]).any():
        raise Fault("does not have a member for each frame")
    sums = np.concatenate(([0], np.cumsum(BLOCK + padded(index.lengths.astype(np.int64)))))
    firsts = np.concatenate(([0], index.member_ends[:-1]))
    lengths = sums[index.member_ends] - sums[firsts]
    sizes = np.array([stored.num_bytes for stored in index.shards], np.int64)
    # Not as a sum of start and length, which could be too large for its type.
    if (columns["start"] > sizes[shard] - lengths).any() or (columns["start"] % BLOCK).any():
        raise Fault("says that a clip goes beyond the end of its shard")
    if (columns["width"].astype(np.int64) * columns["height"] > MOST_PIXELS).any():
        raise Fault(f"claims frames of more than {MOST_PIXELS:,} pixels")
    index.names.tobytes().decode("utf-8")
    if len(index.rows()) != len(index):
        raise Fault("names a clip twice")
