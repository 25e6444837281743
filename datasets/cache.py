"""The frame cache: every frame of every listed clip, decoded and resized once, in files to map.

A `Clip` goes in and a `Clip` comes out whose frames lie in the cache and whose size is the stored
one, so that keypoints, crops and heatmaps follow. The files of a clip are told by their names,
lengths and times: what has changed since is made again, a clip at a time.
"""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import cast

import cv2
import torch

from datasets.cached_frames import CachedFrames, PosesOfSize, shrink
from datasets.frame_store import FORMAT, SUFFIX, StoredClip
from datasets.frames import FrameSource, ImageFrames
from datasets.poses import Poses, PoseSource
from datasets.prepare.jobs import run_jobs
from datasets.scan import Clip
from datasets.videos import VideoFrames
from errors import InputError
from files import alone_in, remove_partials

# Gets a line on what is about to be done; gives what is called with clips done and clips in all.
Announce = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]

# The validation crop is 224 of a short side of 256.
_STORED_SHARE = 256 / 224
# Frames in memory at a time, per process that fills the cache.
_BLOCK = 16
_THREADS = 8
# A disk is never filled to its end: less than this, or than a fiftieth of it, stays free.
_KEPT_FREE = 2**30
_PATIENCE_SECONDS = 0.5
_A_WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """Where frames are kept, and how large.

    Attributes:
        folder: of the files; one data set and one size.
        short_side: of stored frames, pixels; smaller frames are kept as they are.
        workers: processes that fill the cache; 0 fills it in this one.
    """

    folder: Path
    short_side: int
    workers: int = 0

    @classmethod
    def choose(
        cls,
        root: Path,
        input_size: int,
        short_side: int | None = None,
        *,
        base: Path | None = None,
        default_base: Path,
        workers: int = 0,
    ) -> "CacheSpec":
        """Choose the folder of a data set, and the size where none is given.

        Args:
            root: folder of the data set.
            input_size: of the network, S: evaluation cuts crops of 224 out of a short side of 256.
            short_side: in place of that.
            base: folder of the user's, in which a data set goes by its name alone: it may be
                copied, or be reached by another path, and its frames are still found.
            default_base: without one; data sets of one name may then lie in several places.
            workers: processes that fill the cache.
        """
        name = root.resolve().name
        if base is None:
            place = str(root.resolve()).encode("utf-8", "surrogateescape")
            base, name = default_base, f"{name}-{blake2b(place, digest_size=4).hexdigest()}"
        short_side = short_side or round(input_size * _STORED_SHARE)
        return cls(base / name / f"short_side_{short_side}", short_side, workers)


def stored_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return (width, height) of stored frames: the aspect ratio is kept, nothing is enlarged."""
    short = min(size)
    if short <= short_side:
        return size
    width, height = (max(round(side * short_side / short), 1) for side in size)
    return width, height


def cache_clips(
    clips: Sequence[Clip], spec: CacheSpec, announce: Announce | None = None
) -> tuple[Clip, ...]:
    """Let clips read their frames from the cache; those that it lacks are made first.

    Args:
        clips: as `find_clips` found them. Those without frames stay as they are.
        spec: of the cache.
        announce: hears what is made, and waited for; nothing is said where all is there.

    Returns:
        The clips with stored frames, in the same order; sizes and keypoints are scaled with them.

    Raises:
        InputError: frames cannot be read, or the cache cannot be written or has too little room.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        stored = list(pool.map(partial(_find_stored, spec), clips))
        jobs = [
            _Job(c.images, c.size, s) for c, s in zip(clips, stored, strict=True) if c.images and s
        ]
        is_there = list(pool.map(lambda job: job.stored.is_there(), jobs))
    if not all(is_there):
        missing = [job for job, there in zip(jobs, is_there, strict=True) if not there]
        _fill(spec, missing, len(jobs), _say_nothing if announce is None else announce)
    return tuple(
        clip if s is None else _through(clip, s) for clip, s in zip(clips, stored, strict=True)
    )


def _through(clip: Clip, stored: StoredClip) -> Clip:
    """Return the clip with stored frames."""
    assert clip.images is not None
    cached = replace(clip, images=CachedFrames(clip.images, clip.size, stored))
    if stored.size == clip.size:
        return cached
    keypoints, poses = clip.keypoints, clip.poses
    if keypoints is not None:
        keypoints = Poses(keypoints, clip.size).keypoints_at(stored.size)
    if poses is not None:
        poses = cast(PoseSource, PosesOfSize(poses, clip.size))  # which has the same methods
    return replace(cached, size=stored.size, keypoints=keypoints, poses=poses)


# ---------------------------------------------------------------- what decides the pixels


def _find_stored(spec: CacheSpec, clip: Clip) -> StoredClip | None:
    """Return the file of a clip, whether it is there or not; None for a clip without frames."""
    if clip.images is None:
        return None
    name, size = clip.record.name, stored_size(clip.size, spec.short_side)
    parts = [FORMAT, name, clip.size, size, *_files_of(clip.images)]
    key = blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    file = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return StoredClip(spec.folder / f"{file}{SUFFIX}", name, key, clip.images.count, size)


def _files_of(images: FrameSource) -> list[tuple[object, ...]]:
    """Return name, length and time of every file that the frames come from."""
    try:
        if isinstance(images, ImageFrames):
            folder = images.files.folder
            names = [images.files.path(index).name for index in range(images.count)]
            wanted = set(names)
            with os.scandir(folder) as entries:
                status = {e.name: e.stat() for e in entries if e.name in wanted}
            return [(n, status[n].st_size, status[n].st_mtime_ns) for n in names]
        assert isinstance(images, VideoFrames)
        found = images.path.stat()
        part = (images.first_frame, images.count, images.start_pts)
        return [(images.path.name, found.st_size, found.st_mtime_ns, *part)]
    except (OSError, KeyError) as error:
        raise InputError(
            f"{images.place} has changed since it was looked at ({error}): start again when "
            "nothing writes there"
        ) from None


# ---------------------------------------------------------------- filling


@dataclass(frozen=True, slots=True)
class _Job:
    source: FrameSource
    size: tuple[int, int]
    stored: StoredClip


def _fill(spec: CacheSpec, missing: Sequence[_Job], total: int, announce: Announce) -> None:
    """Make the missing files, alone in the folder.

    Raises:
        InputError: see `cache_clips`.
    """
    try:
        with ExitStack() as lock:
            _enter_alone(lock, spec.folder, announce)
            # Another program may have made them meanwhile.
            jobs = [job for job in missing if not job.stored.is_there()]
            lock.callback(remove_partials, spec.folder)  # of processes that a failure ended
            remove_partials(spec.folder)
            damaged = _remove_damaged(jobs)
            _check_room(spec.folder, sum(job.stored.num_bytes for job in jobs))
            if jobs:
                with announce(_plan(spec, jobs, total, damaged)) as progress:
                    _make_files(jobs, spec.workers, progress)
    except OSError as error:
        # Of a file that cannot take its place the second name is that place.
        place = error.filename2 or error.filename or spec.folder
        raise InputError(
            f"{place} cannot be written ({error.strerror or error}): name "
            "another folder with --cache_dir, or leave out --cache"
        ) from None


def _enter_alone(lock: ExitStack, folder: Path, announce: Announce) -> None:
    """Take the lock of the folder, for which another program that fills it is waited for."""
    try:
        lock.enter_context(alone_in(folder, _PATIENCE_SECONDS))
    except InputError:
        with announce(f"frame cache: waiting for another program that fills {folder}"):
            lock.enter_context(alone_in(folder, _A_WEEK))


def _remove_damaged(jobs: Sequence[_Job]) -> int:
    """Remove files that were set aside; return how many there were."""
    found = [job.stored.set_aside for job in jobs if job.stored.set_aside.exists()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def _check_room(folder: Path, needed: int) -> None:
    disk = shutil.disk_usage(folder)
    kept = min(_KEPT_FREE, disk.total // 50)
    if needed > disk.free - kept:
        raise InputError(
            f"the frame cache needs {_shown(needed)} more in {folder}, where {_shown(disk.free)} "
            f"are free, of which {_shown(kept)} are kept: name a folder on a larger disk with "
            "--cache_dir, choose a smaller --cache_short_side, or leave out --cache"
        )


def _plan(spec: CacheSpec, jobs: Sequence[_Job], total: int, damaged: int) -> str:
    frames = sum(job.stored.count for job in jobs)
    needed = sum(job.stored.num_bytes for job in jobs)
    again = f", {damaged} of them again, as they were damaged" if damaged else ""
    return (
        f"frame cache: storing {len(jobs):,} of {total:,} clips{again}: {frames:,} frames, "
        f"{_shown(needed)}, in {spec.folder}"
    )


def _make_files(jobs: Sequence[_Job], workers: int, progress: Callable[[int, int], None]) -> None:
    """Make all that can be made, then complain about the clips that could not be read."""
    failed = []
    results = run_jobs(_make_file, jobs, min(workers, len(jobs)), lambda job: job.source.place)
    for done, result in enumerate(results, start=1):
        progress(done, len(jobs))
        if result.error is not None:
            failed.append((result.place, str(result.error)))
    if failed:
        others = (
            f" ({len(failed)} clips of {len(jobs)} cannot be stored)" if len(failed) > 1 else ""
        )
        raise InputError(f"{min(failed)[1]}{others}")


def _make_file(job: _Job) -> None:
    if multiprocessing.parent_process() is not None:  # one of several: each uses one core
        torch.set_num_threads(1)
        cv2.setNumThreads(0)
    blocks = job.source.blocks(job.size, _BLOCK)
    job.stored.write(shrink(block, job.stored.size) for block in blocks)


def _say_nothing(_line: str) -> AbstractContextManager[Callable[[int, int], None]]:
    return nullcontext(lambda _done, _total: None)


def _shown(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
