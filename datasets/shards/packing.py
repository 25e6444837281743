"""A whole data set into shards: planned first, then written shard by shard, then described.

The plan follows from the data set and the options alone, so that a program that was stopped goes
on with the shards that are missing. The index comes last: without it there is nothing to train on.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets.clip_table import NAME as TABLE
from datasets.clip_table import load_table
from datasets.prepare.jobs import run_jobs
from datasets.records import load_records
from datasets.shards.index import (
    ARRAYS,
    INDEX,
    StoredFile,
    index_json,
    load_index,
    pack_arrays,
)
from datasets.shards.planning import (
    PackSpec,
    PlannedShard,
    digest_of,
    order_clips,
    plan_shards,
    source_bytes,
)
from datasets.shards.writing import Source, write_shard
from errors import InputError
from files import alone_in, remove_partials, replacing, write_json

# Notes on what is finished, for a program that goes on; removed at the end.
_NOTES = ".packing"
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Packing:
    """What was packed.

    Attributes:
        shards: their number.
        clips: of all splits.
        num_bytes: of all shards.
        without_poses: clips that have no keypoints.
        reused: shards that an earlier program had finished.
    """

    shards: int
    clips: int
    num_bytes: int
    without_poses: int
    reused: int


def pack_dataset(spec: PackSpec, progress: Callable[[int, int], None] | None = None) -> Packing:
    """Pack a data set.

    Args:
        spec: what, and how.
        progress: called with shards written and shards in all.

    Raises:
        InputError: a list or clip cannot be read, or the output holds something else.
        OSError: a shard cannot be written.
    """
    lists = {split: spec.root / f"{split}_videofolder.txt" for split in spec.splits}
    records = {split: load_records(path, spec.row.num_classes) for split, path in lists.items()}
    source = Source(
        spec.root, load_table(spec.root), spec.row.layout, spec.row.fps or 0.0, spec.encoding
    )
    ordered = order_clips(records, spec.seed)
    every = [record for clips in ordered.values() for record in clips]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(source_bytes, source), every))
    sizes, marks = [size for size, _ in found], [mark for _, mark in found]
    described = {
        name: hashlib.sha256((spec.root / name).read_bytes()).hexdigest()
        for name in _described(spec)
    }
    _refuse_inside(spec)
    with alone_in(spec.output):
        digest = digest_of(spec, records, every, marks, described)
        done = _finished(spec.output, digest)
        if done is not None:
            return done
        _begin(spec.output, digest)
        shards = plan_shards(spec, source, ordered, sizes)
        entries, reused = _write_all(spec, source, shards, progress)
        return _finish(spec, digest, entries, reused)


def verify_shards(folder: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Compare every file of a packed data set with its index; return how many there are.

    Raises:
        InputError: one is not as it was written.
    """
    index = load_index(folder)
    files = (*index.files, *index.shards)
    for done, stored in enumerate(files, start=1):
        path = folder / stored.name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}): copy it again") from None
        if digest != stored.sha256:
            raise InputError(
                f"{path} is not as it was packed (another SHA-256 than {INDEX} says): copy it "
                "again, or pack the data set again"
            )
        if progress is not None:
            progress(done, len(files))
    return len(files)


# ---------------------------------------------------------------- writing


def _refuse_inside(spec: PackSpec) -> None:
    if spec.output.resolve().is_relative_to(spec.root.resolve()):
        raise InputError(
            f"--output {spec.output} lies in the data set {spec.root}: name a folder outside of it"
        )


def _is_packed(output: Path, digest: str) -> bool:
    """Say whether an index is there that is of this packing."""
    facts = _read_json(output / INDEX).get("packed")
    return isinstance(facts, dict) and facts.get("digest") == digest


def _finished(output: Path, digest: str) -> Packing | None:
    """Return what an earlier program packed, if it is all there; None if there is work left."""
    if not _is_packed(output, digest):
        return None
    try:
        index = load_index(output)
        files = (*index.files, *index.shards)
        if any((output / file.name).stat().st_size != file.num_bytes for file in files):
            return None
    except (InputError, OSError):
        return None
    return Packing(
        shards=len(index.shards),
        clips=len(index),
        num_bytes=sum(shard.num_bytes for shard in index.shards),
        without_poses=int((index.columns["has_poses"] == 0).sum()),
        reused=len(index.shards),
    )


def _begin(output: Path, digest: str) -> None:
    """Note what is packed; refuse a folder that holds something else."""
    notes = output / _NOTES
    there = {path.name for path in output.iterdir()}
    is_ours = _read_json(notes / "plan.json").get("digest") == digest
    if (output / INDEX).is_file():
        is_ours = _is_packed(output, digest)
    if there and not is_ours and there != {_NOTES}:
        raise InputError(
            f"{output} holds other files, or shards of another data set or with other options: "
            "name a new folder with --output, or remove that one"
        )
    if not is_ours:
        shutil.rmtree(notes, ignore_errors=True)
    (output / INDEX).unlink(missing_ok=True)  # shards are missing: nothing to train on yet
    notes.mkdir(exist_ok=True)
    write_json(notes / "plan.json", {"digest": digest})
    remove_partials(output)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_all(
    spec: PackSpec,
    source: Source,
    shards: Sequence[PlannedShard],
    progress: Callable[[int, int], None] | None,
) -> tuple[list[dict[str, Any]], int]:
    """Write the shards that are missing; return what the index says of all."""
    noted = [_read_note(spec.output, shard.name) for shard in shards]
    missing = [number for number, note in enumerate(noted) if note is None]
    reused = done = len(shards) - len(missing)
    jobs = [shards[number] for number in missing]
    write = partial(_write_one, spec.output, source)
    workers = min(spec.workers, len(jobs))
    for result in run_jobs(write, jobs, workers, lambda job: spec.output / job.name):
        if result.error is not None:
            raise result.error
        noted[missing[result.place]] = result.result
        done += 1
        if progress is not None:
            progress(done, len(shards))
    return [note for note in noted if note is not None], reused


def _write_one(output: Path, source: Source, shard: PlannedShard) -> dict[str, Any]:
    entry = write_shard(output / shard.name, source, shard.clips)
    write_json(output / _NOTES / f"{shard.name}.json", entry)
    return entry


def _read_note(output: Path, name: str) -> dict[str, Any] | None:
    """Return what an earlier program noted about a shard that it finished."""
    entry = _read_json(output / _NOTES / f"{name}.json")
    try:
        is_whole = (output / name).stat().st_size == entry.get("bytes")
    except OSError:
        return None
    return entry if is_whole and {"sha256", "clips"} <= entry.keys() else None


# ---------------------------------------------------------------- the index


def _finish(
    spec: PackSpec, digest: str, entries: Sequence[Mapping[str, Any]], reused: int
) -> Packing:
    """Write lists, table and index; the index last."""
    shards = [
        StoredFile(entry["file"], entry["bytes"], entry["sha256"], len(entry["clips"]))
        for entry in entries
    ]
    clips = []
    for number, entry in enumerate(entries):
        clips += [clip | {"shard": number} for clip in entry["clips"]]
    files = [
        _store(spec.output, name, (spec.root / name).read_bytes()) for name in _described(spec)
    ]
    files.append(_store(spec.output, ARRAYS, pack_arrays(clips)))
    facts = {
        "packed": {"digest": digest, "seed": spec.seed, **asdict(spec.encoding)},
        "splits": {
            split: {
                "clips": sum(s.num_clips for s in shards if s.name.startswith(split)),
                "shards": sum(s.name.startswith(split) for s in shards),
            }
            for split in spec.splits
        },
    }
    write_json(spec.output / INDEX, index_json(spec.row.name, shards, files, facts))
    load_index(spec.output)  # what was written can be read
    shutil.rmtree(spec.output / _NOTES, ignore_errors=True)
    return Packing(
        shards=len(shards),
        clips=len(clips),
        num_bytes=sum(shard.num_bytes for shard in shards),
        without_poses=sum(not clip["has_poses"] for clip in clips),
        reused=reused,
    )


def _described(spec: PackSpec) -> list[str]:
    """Return the files of a data set that say what its clips are, relative to its folder."""
    names = [f"{split}_videofolder.txt" for split in spec.splits]
    if (spec.root / TABLE).is_file():
        names.append(TABLE)
    found = spec.root.glob("folds/*of*/*_videofolder.txt")
    return names + sorted(path.relative_to(spec.root).as_posix() for path in found)


def _store(output: Path, name: str, data: bytes) -> StoredFile:
    path = output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(data)
    return StoredFile(name, len(data), hashlib.sha256(data).hexdigest())
