"""The data set on disk: lists, JPEG frames and keypoint files in the layout of FR-FS.

A folder carries `synthetic.partial.json` while it is being written and `synthetic.json` once it is
whole, each with the generator's version and the spec. Clips appear by a rename, so a clip that is
there is complete, and an interrupted run goes on where it stopped.
"""

import json
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.synthetic.choreography import FPS, draw_num_frames
from datasets.synthetic.clip import Stream, render_clip, stream
from errors import InputError

VERSION = 1  # raise whenever a seed no longer gives the same bytes
CLASS_NAMES = ("landed", "fall")
SPLITS = ("train", "val", "test")
SOURCE = "gate-shift-pose synthetic, detector model v1"
JPEG_QUALITY = 90
_COMPLETE, _PARTIAL = "synthetic.json", "synthetic.partial.json"
_FEW_CLIPS = 8  # not worth starting processes for


@dataclass(frozen=True, slots=True)
class SyntheticSpec:
    """What is to be made: all that, with the version, decides the bytes.

    Attributes:
        size: width, height in pixels.
        clips: number of clips for train, val and test.
        seed: any number from 0.
    """

    size: tuple[int, int] = (160, 90)
    clips: tuple[int, int, int] = (320, 80, 160)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.size) < 32:
            width, height = self.size
            raise InputError(f"--synthetic_size {width}x{height} is too small: use 32x32 or more")
        if min(self.clips) < 1:
            given = " ".join(map(str, self.clips))
            raise InputError(f"--synthetic_clips {given} leaves a split empty: use 1 or more each")
        if self.seed < 0:
            raise InputError(f"--synthetic_seed {self.seed} is negative: use 0 or more")


@dataclass(frozen=True, slots=True)
class _Clip:
    """One clip to write: where it goes, and all that its bytes follow from."""

    root: Path
    folder: str
    size: tuple[int, int]
    seed: tuple[int, int, int]
    label: int

    @property
    def num_frames(self) -> int:
        return draw_num_frames(stream(self.seed, Stream.JUMP))

    @property
    def frames(self) -> Path:
        return self.root / "frames" / self.folder

    @property
    def poses(self) -> Path:
        return self.root / "poses" / f"{self.folder}.npz"

    @property
    def list_line(self) -> str:
        return f"{self.folder} {self.num_frames} {self.label}"

    def is_written(self) -> bool:
        """Say whether all files are there; a folder with some of its frames is an error."""
        if not (self.frames.is_dir() and self.poses.is_file()):
            return False
        found = sum(1 for _ in self.frames.glob("*.jpg"))
        if found != self.num_frames:
            raise InputError(
                f"{self.frames} holds {found} frames instead of {self.num_frames}: "
                "remove this folder and run again"
            )
        return True


def ensure_synthetic(
    spec: SyntheticSpec,
    root: Path,
    name: str = "synthetic",
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> Path:
    """Write the data set below root/name unless it is already there complete; return root/name.

    Args:
        spec: size, number of clips, seed.
        root: folder of data sets, made if need be.
        name: folder of this one. As "FRFS" it stands in for FR-FS.
        progress: called with clips done and clips in all, first with what is there already.
        workers: processes that draw; None for all cores but one, at least 2. The bytes are the
            same for any number.

    Raises:
        InputError: the folder holds something else, which is left as it is.
    """
    home = root / name
    if _claim(home, spec):
        home.mkdir(parents=True, exist_ok=True)
        _write_text(home / _PARTIAL, _describe(spec))
    splits = {split: list(_plan(home, spec, split)) for split in SPLITS}
    clips = [clip for split in SPLITS for clip in splits[split]]
    pending = [clip for clip in clips if not clip.is_written()]
    report = progress or (lambda _done, _total: None)
    there = len(clips) - len(pending)
    report(there, len(clips))
    for written, _ in enumerate(_write_clips(pending, workers), start=1):
        report(there + written, len(clips))
    if not (home / _COMPLETE).is_file():
        for split in SPLITS:
            lines = [clip.list_line for clip in splits[split]]
            _write_text(home / f"{split}_videofolder.txt", "\n".join(lines) + "\n")
        for leftover in (home / "frames").glob(".*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        _write_text(home / _COMPLETE, _describe(spec))
    (home / _PARTIAL).unlink(missing_ok=True)
    return home


def balanced_labels(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return (count,) labels, shuffled: as many 0 as 1, or one more 0."""
    return rng.permutation(np.arange(count) % 2)


def _describe(spec: SyntheticSpec) -> str:
    facts = {"version": VERSION, "spec": asdict(spec), "class_names": list(CLASS_NAMES)}
    return json.dumps(facts, indent=1) + "\n"


def _claim(home: Path, spec: SyntheticSpec) -> bool:
    """Say whether `home` is free; False when this very data set is in it, whole or in part."""
    if not home.exists() or (home.is_dir() and not any(home.iterdir())):
        return True
    way_out = "choose another folder or remove this one"
    for marker in (home / _COMPLETE, home / _PARTIAL):
        if marker.is_file():
            there = marker.read_text()
            if there != _describe(spec):
                raise InputError(
                    f"{home} holds the synthetic data set {_in_words(there)}, "
                    f"wanted is {_in_words(_describe(spec))}: {way_out}"
                )
            return False
    raise InputError(f"{home} is not a synthetic data set, it holds other files: {way_out}")


def _in_words(description: str) -> str:
    """Shorten a marker's text to one line; what cannot be read is called unknown."""
    try:
        facts = json.loads(description)
        spec = facts["spec"]
        size, clips = "x".join(map(str, spec["size"])), "+".join(map(str, spec["clips"]))
        return f"(version {facts['version']}, {size}, {clips} clips, seed {spec['seed']})"
    except (KeyError, TypeError, json.JSONDecodeError):
        return "(unknown)"


def _plan(home: Path, spec: SyntheticSpec, split: str) -> Iterator[_Clip]:
    number = SPLITS.index(split)
    labels = balanced_labels(spec.clips[number], np.random.default_rng([spec.seed, number]))
    for index, label in enumerate(labels.tolist()):
        yield _Clip(
            root=home,
            folder=f"{split}_{index + 1:04d}",
            size=spec.size,
            seed=(spec.seed, number, index),
            label=label,
        )


def _write_clips(clips: list[_Clip], workers: int | None) -> Iterator[str]:
    """Write clips, yielding the folder of each as it is done."""
    if workers is None:
        workers = max(2, (os.cpu_count() or 1) - 1)
    if workers == 1 or len(clips) <= _FEW_CLIPS or not _can_spawn():
        yield from map(_write_clip, clips)
        return
    # Started afresh rather than forked: a fork copies the locks of torch's and OpenCV's threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield from pool.map(_write_clip, clips, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _can_spawn() -> bool:
    """Say whether a new process can import the main module: not one typed or piped in."""
    source = getattr(sys.modules["__main__"], "__file__", None)
    return source is None or Path(source).is_file()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and use one thread: the processes share the cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _write_clip(clip: _Clip) -> str:
    """Draw a clip and put it in place by renames; another process may have been faster."""
    rendered = render_clip(clip.size, clip.seed, clip.label, rink_seed=clip.seed[0])
    scratch = clip.frames.with_name(f".{clip.folder}.{os.getpid()}")
    scratch.mkdir(parents=True, exist_ok=True)
    clip.poses.parent.mkdir(exist_ok=True)
    try:
        for number, frame in enumerate(rendered.frames, start=1):
            (scratch / f"{number:05d}.jpg").write_bytes(_encode_jpeg(frame))
        poses = scratch / clip.poses.name
        np.savez_compressed(
            poses,
            keypoints=rendered.keypoints[:, None],
            keypoints_exact=rendered.keypoints_exact[:, None],
            height=np.array(clip.size[1]),
            width=np.array(clip.size[0]),
            fps=np.array(FPS),
            source=np.array(SOURCE),
        )
        poses.replace(clip.poses)
        scratch.rename(clip.frames)
    except OSError:
        if not clip.is_written():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return clip.folder


def _encode_jpeg(frame: np.ndarray) -> bytes:
    bgr = np.ascontiguousarray(frame[..., ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _write_text(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(path)
