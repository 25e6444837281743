"""Which clips go into which shard: decided by the data set and the options alone."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from datasets.catalogue import DatasetRow
from datasets.frames import ImageFrames
from datasets.records import ClipRecord
from datasets.shards.members import Encoding, encode_frames
from datasets.shards.writing import Numbered, Source
from datasets.videos import VideoFrames
from errors import InputError

SPLITS = ("train", "val", "test")
# Clips that are encoded to learn how much smaller they become.
_SAMPLES = 8
# Bytes of the tar and JSON headers of a clip, about.
_HEADERS = 2048
# A compressed pixel of a video, bytes, about: where a clip is a part of one.
_PIXEL_BYTES = 0.05


@dataclass(frozen=True, slots=True)
class PackSpec:
    """What is packed, and how.

    Attributes:
        row: of the data set in the catalogue.
        root: its folder.
        output: folder of the shards.
        splits: lists to pack.
        shard_bytes: of a shard, about.
        encoding: how frames are stored.
        seed: of the order of the training clips.
        workers: processes; 0 packs in this one.
    """

    row: DatasetRow
    root: Path
    output: Path
    splits: tuple[str, ...] = SPLITS
    shard_bytes: int = 256 * 10**6
    encoding: Encoding = Encoding()
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard of the plan."""

    name: str
    clips: list[Numbered]


def order_clips(
    records: Mapping[str, Sequence[ClipRecord]], seed: int
) -> dict[str, list[ClipRecord]]:
    """Return the clips of each split in the order of the shards, each clip once.

    Training clips are mixed, so that each shard is a sample of them. The others stay in the order
    of their list: it is the order of evaluation, which then needs each shard once.
    """
    ordered: dict[str, list[ClipRecord]] = {}
    seen: dict[str, ClipRecord] = {}
    for split, clips in records.items():
        for record in clips:
            other = seen.get(record.name, record)
            if other.num_frames != record.num_frames:
                raise InputError(
                    f"clip {record.name} has {other.num_frames} frames in one list and "
                    f"{record.num_frames} in the {split} list: correct one of the two"
                )
        new = [record for record in clips if record.name not in seen]
        seen |= {record.name: record for record in new}
        if split == "train":
            new = [new[i] for i in np.random.default_rng([seed]).permutation(len(new))]
        ordered[split] = new
    return ordered


def source_bytes(source: Source, record: ClipRecord) -> tuple[int, str]:
    """Return how many bytes the frames of a clip take, and what tells its files from others.

    The bytes are those of the files, about where the clip is a part of a video. Of frames the
    length of each tells, of keypoints their numbers.
    """
    frames = source.frames(record)
    poses = source.poses(record, frames)
    digest = hashlib.sha256()
    if isinstance(frames, ImageFrames):
        files = frames.files
        sizes = [files.path(index).stat().st_size for index in range(files.count)]
        size = sum(sizes)
    else:
        assert isinstance(frames, VideoFrames)
        width, height = frames.shown
        sizes = [frames.path.stat().st_size]
        size = min(sizes[0], int(frames.count * width * height * _PIXEL_BYTES) + 1)
    digest.update(repr(sizes).encode())
    if poses is not None:
        found = poses.load()
        digest.update(repr((found.keypoints.shape, found.size)).encode())
        digest.update(np.ascontiguousarray(found.keypoints).tobytes())
    return size, digest.hexdigest()


def digest_of(
    spec: PackSpec,
    records: Mapping[str, Sequence[ClipRecord]],
    every: Sequence[ClipRecord],
    marks: Sequence[str],
    described: Mapping[str, str],
) -> str:
    """Return what tells this packing from another one, into the same folder.

    Args:
        spec: what is packed, and how.
        records: split -> clips.
        every: all of them.
        marks: what tells the files of each from others, see `source_bytes`.
        described: file that says what clips are -> its SHA-256.
    """
    facts = {
        "dataset": spec.row.name,
        "shard_bytes": spec.shard_bytes,
        "seed": spec.seed,
        **asdict(spec.encoding),
        "lists": {split: [r.line() for r in clips] for split, clips in records.items()},
        "clips": {record.name: mark for record, mark in zip(every, marks, strict=True)},
        "described": dict(described),
    }
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def plan_shards(
    spec: PackSpec,
    source: Source,
    ordered: Mapping[str, Sequence[ClipRecord]],
    sizes: Sequence[int],
) -> list[PlannedShard]:
    """Cut the clips into shards of about the same size."""
    every = [record for clips in ordered.values() for record in clips]
    share = _stored_share(spec, source, every, sizes)
    shards: list[PlannedShard] = []
    number = 0
    for split, clips in ordered.items():
        room, count = 0.0, 0
        for record in clips:
            if room <= 0:
                shards.append(PlannedShard(f"{split}-{count:06d}.tar", []))
                room, count = float(spec.shard_bytes), count + 1
            shards[-1].clips.append(Numbered(number, record))
            room -= sizes[number] * share + _HEADERS + 512 * record.num_frames
            number += 1
    return shards


def _stored_share(
    spec: PackSpec, source: Source, every: Sequence[ClipRecord], sizes: Sequence[int]
) -> float:
    """Return stored bytes per byte of the source, measured on a few clips where they differ."""
    if spec.encoding == Encoding():
        return 1.0
    stored = there = 0
    for place in np.unique(np.linspace(0, len(every) - 1, _SAMPLES).astype(int)):
        frames = source.frames(every[place])
        parts = encode_frames(frames, frames.size(), spec.encoding, source.fps).parts
        stored += sum(len(part) for part in parts)
        there += sizes[place]
    return stored / max(there, 1)
