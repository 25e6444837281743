"""One shard: a tar file of clips, the same bytes for the same clips."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from datasets.clip_table import ClipRow
from datasets.frames import FrameSource
from datasets.pose_files import read_notes
from datasets.poses import PoseArchive, PoseSource, find_poses
from datasets.records import ClipRecord
from datasets.shards.index import KINDS, npz_bytes
from datasets.shards.members import Encoding, encode_frames
from datasets.sources import find_frames
from errors import InputError
from files import read_regular, replacing
from ops.skeleton import SkeletonLayout

_MOST_POSE_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Source:
    """Where clips are packed from.

    Attributes:
        root: folder of the data set.
        table: its `clips.csv`.
        layout: of its keypoints.
        fps: of clips whose rate the table does not say; 0 when not known.
        encoding: how frames are stored.
    """

    root: Path
    table: Mapping[str, ClipRow]
    layout: SkeletonLayout
    fps: float
    encoding: Encoding

    def frames(self, record: ClipRecord) -> FrameSource:
        """Find the frames of a clip; see `find_frames`."""
        return find_frames(self.root, record, self.table)

    def poses(self, record: ClipRecord, frames: FrameSource) -> PoseSource | None:
        """Find the keypoints of a clip; see `find_poses`."""
        return find_poses(self.root, record, frames, self.layout, self.table.get(record.name))


@dataclass(frozen=True, slots=True)
class Numbered:
    """A clip and the number that is its key in the shards."""

    number: int
    record: ClipRecord


class _Hashed:
    """A file that is written to, and the SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.num_bytes = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.num_bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self.num_bytes


def write_shard(path: Path, source: Source, clips: list[Numbered]) -> dict[str, Any]:
    """Write a shard, whole or not at all.

    Returns:
        What the index says of it: `bytes`, `sha256`, and for each clip its columns.

    Raises:
        InputError: a clip cannot be read.
        OSError: the shard cannot be written.
    """
    with replacing(path) as file:
        hashed = _Hashed(file)
        with tarfile.open(
            fileobj=hashed,  # type: ignore[call-overload]
            mode="w",
            format=tarfile.USTAR_FORMAT,
        ) as archive:
            entries = [_add_clip(archive, source, clip) for clip in clips]
    return {
        "file": path.name,
        "bytes": hashed.num_bytes,
        "sha256": hashed.digest.hexdigest(),
        "clips": entries,
    }


def _add_clip(archive: tarfile.TarFile, source: Source, clip: Numbered) -> dict[str, Any]:
    """Add the members of a clip; return its columns of the index."""
    record, key = clip.record, f"{clip.number:09d}"
    row = source.table.get(record.name, ClipRow(record.name))
    frames = source.frames(record)
    size = frames.size()
    poses = source.poses(record, frames)
    width, height = source.encoding.size(size)
    stored = encode_frames(frames, size, source.encoding, row.fps or source.fps)
    keypoints = None if poses is None else _pose_bytes(poses, size, (width, height))
    facts = {
        "name": record.name,
        "label": record.label,
        "num_frames": record.num_frames,
        "group": row.group or row.video,
        "size": [width, height],
        "fps": row.fps or source.fps,
        "first_frame": stored.first_frame,
    }
    start = archive.offset
    lengths = [_add(archive, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())]
    for number, part in enumerate(stored.parts):
        name = stored.suffix if stored.kind == "video" else f"{number:05d}.{stored.suffix}"
        lengths.append(_add(archive, f"{key}.{name}", part))
    pose_size = (0, 0)
    if keypoints is not None:
        data, pose_size = keypoints
        lengths.append(_add(archive, f"{key}.npz", data))
    archive.members.clear()  # type: ignore[attr-defined]  # it would remember each of a million
    return {
        "name": record.name,
        "start": start,
        "lengths": lengths,
        "kind": KINDS.index(stored.kind),
        "num_frames": record.num_frames,
        "found": frames.found,
        "first": frames.first,
        "width": width,
        "height": height,
        "pose_width": pose_size[0],
        "pose_height": pose_size[1],
        "has_poses": int(keypoints is not None),
        "first_frame": stored.first_frame,
    }


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> int:
    member = tarfile.TarInfo(name)  # time, owner and group are 0
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))
    return len(data)


def _pose_bytes(
    poses: PoseSource, size: tuple[int, int], stored: tuple[int, int]
) -> tuple[bytes, tuple[int, int]]:
    """Return the keypoints of a clip as an .npz, and the size that it says; (0, 0) if none.

    A file that says all that is needed is taken as it is.

    Raises:
        InputError: the keypoints are not as they should be.
    """
    found = poses.load()
    if not found.fits(size):
        raise InputError(f"{poses.path} is for frames of another shape than {size[0]}x{size[1]}")
    if isinstance(poses, PoseArchive) and (found.size is not None or stored == size):
        return read_regular(poses.path, _MOST_POSE_BYTES), found.size or (0, 0)
    # Pixels without a size belong to the frames as they were.
    said = found.size or (size if stored != size else None)
    arrays: dict[str, np.ndarray] = {"keypoints": found.keypoints}
    if said is not None:
        arrays |= {"width": np.array(said[0], np.int64), "height": np.array(said[1], np.int64)}
    if isinstance(poses, PoseArchive):
        arrays |= {name: np.array(text) for name, text in read_notes(poses.path).items()}
    return npz_bytes(arrays), said or (0, 0)
