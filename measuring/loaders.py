"""The data path: frames on disk to what a network takes, without the network."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import published_loader
from datasets.clips import collate
from datasets.loading import build_train_loader
from datasets.order import SampleKey
from datasets.sampling import sample_segments
from measuring.clips import ClipsOnDisk, make_images, make_video
from measuring.plan import Plan
from measuring.record import Row, Section
from measuring.timing import race
from ops.batch import Batch

SEGMENTS, SIDE = 8, 224
OURS, CACHED, VIDEO, PUBLISHED = "ours", "ours, --cache frames", "ours, kept video", "published"
_FRAMES, _CLIPS, _BATCH = 24, 12, 2


def options(batch_size: int, workers: int, side: int = SIDE) -> list[str]:
    """Return options of early fusion that decide about loading."""
    return [
        "--early_fusion_poses",
        *("--num_segments", str(SEGMENTS)),
        *("--input_size", str(side)),
        *("--batch-size", str(batch_size)),
        *("--workers", str(workers)),
    ]


def cache_options(folder: Path) -> list[str]:
    """Return options that keep resized frames."""
    return ["--cache", "frames", "--cache_dir", str(folder)]


def measure_loaders(plan: Plan) -> Section:
    """Time training views, JPEG to normalised 4-channel tensor, in one process with 1 thread."""
    section = Section(
        name="loader",
        title=f"Loader, training views of {SEGMENTS} frames at {SIDE} pixels, 4 channels, "
        "JPEG to normalised tensor, 1 thread",
        unit="ms a frame",
        peer=PUBLISHED,
    )
    with one_thread():
        for size in plan.sizes:
            name = f"{size[0]}x{size[1]}"
            plan.progress(f"loader at {name}")
            images = make_images(plan.folder / f"images_{name}", size, 4, _FRAMES)
            video = make_video(plan.folder / f"video_{name}", size, 4, _FRAMES)
            epochs = 1 if plan.is_quick else 4
            calls: dict[str, Callable[[], object]] = {
                PUBLISHED: _published(images, epochs),
                OURS: _ours(images, epochs, []),
                CACHED: _ours(images, epochs, cache_options(plan.folder / f"cache_{name}")),
                VIDEO: _ours(video, epochs, []),
            }
            frames = len(images.names) * epochs * SEGMENTS
            timings = race(calls, plan.repeats)
            section.rows += [
                Row(
                    case=name,
                    variant=variant,
                    timing=timing.times(1e3 / frames),
                    settings={"width": size[0], "height": size[1]},
                )
                for variant, timing in timings.items()
            ]
            section.notes.append(f"{name}: {images.kilobytes:.0f} kB a frame")
    section.notes.append(
        f"a kept video decodes all {_FRAMES} frames of its clip for the {SEGMENTS} that are seen"
    )
    return section


class one_thread:  # noqa: N801 - used as a function
    """Let PyTorch and OpenCV use one thread within a block."""

    def __enter__(self) -> None:
        self._threads = torch.get_num_threads(), cv2.getNumThreads()
        torch.set_num_threads(1)
        cv2.setNumThreads(0)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads[0])
        cv2.setNumThreads(self._threads[1])


def _ours(clips: ClipsOnDisk, epochs: int, extra: Sequence[str]) -> Callable[[], object]:
    """Return what loads every clip in some epochs, each with crops of its own."""
    args, source = clips.open([*options(len(clips.names), 0), *extra])
    dataset = build_train_loader(args, source).dataset

    def load() -> list[torch.Tensor | None]:
        return [
            collate([dataset[SampleKey(epoch, i)] for i in range(len(clips.names))])
            .prepared()
            .frames
            for epoch in range(epochs)
        ]

    return load


def _published(clips: ClipsOnDisk, epochs: int) -> Callable[[], object]:
    joints = published_joints(clips)

    def load() -> list[torch.Tensor]:
        return [
            torch.stack([_published_clip(clips, name, joints, epoch) for name in clips.names])
            for epoch in range(epochs)
        ]

    return load


def _published_clip(clips: ClipsOnDisk, name: str, joints: np.ndarray, epoch: int) -> torch.Tensor:
    rng = np.random.default_rng([epoch, clips.names.index(name)])
    picks = sample_segments(clips.num_frames, SEGMENTS, rng)
    paths = [clips.frame(name, int(i)) for i in picks]
    return published_loader.published_train_clip(paths, joints[picks], SIDE, rng)


def published_joints(clips: ClipsOnDisk) -> np.ndarray:
    """Return the joints of every frame, (N, 17, 2), in pixels of 640 x 360."""
    with np.load(clips.root / "poses" / f"{clips.names[0]}.npz") as archive:
        joints = archive["keypoints"][:, 0, :, :2]
    return joints * (np.array(published_loader.FRAME) / np.array(clips.size))


# ---------------------------------------------------------------- processes


def measure_workers(plan: Plan) -> Section:
    """Time whole epochs of the loader with different numbers of worker processes."""
    section = Section(
        name="workers",
        title="Loader processes: frames to batches that are ready for the device",
        unit="ms a frame",
    )
    for size in plan.sizes:
        name = f"{size[0]}x{size[1]}"
        folder = plan.folder / f"workers_{name}"
        clips = make_images(folder, size, 4 if plan.is_quick else _CLIPS, _FRAMES)
        for label, extra in ((OURS, []), (CACHED, cache_options(folder / "cache"))):
            plan.progress(f"loader processes at {name}, {label}")
            loaders = {
                f"{workers} worker{'s' * (workers != 1)}": _loader(clips, workers, extra)
                for workers in plan.workers
            }
            timings = race({key: _Epochs(value) for key, value in loaders.items()}, plan.repeats)
            frames = len(clips.names) * SEGMENTS
            for (key, timing), loader in zip(timings.items(), loaders.values(), strict=True):
                per_frame = timing.times(1e3 / frames)
                section.rows.append(
                    Row(
                        case=f"{name}, {label}",
                        variant=key,
                        timing=per_frame,
                        clock="wall",
                        facts={"frames/s": 1e3 / per_frame.wall.median},
                        note=_started(loader, key),
                    )
                )
    section.notes.append("CPU time is that of the main process; the clock decides")
    return section


def _started(loader: DataLoader, asked: str) -> str:
    """Say how many processes there are where it is not what was asked for."""
    there = loader.num_workers
    return "" if asked.startswith(f"{there} ") else f"{there} started: as many as cores, or batches"


def _loader(clips: ClipsOnDisk, workers: int, extra: Sequence[str]) -> DataLoader:
    args, source = clips.open([*options(_BATCH, workers), *extra])
    return build_train_loader(args, source)


class _Epochs:
    """Runs through one epoch of a loader at each call."""

    def __init__(self, loader: DataLoader) -> None:
        self._loader, self._epoch = loader, 0

    def __call__(self) -> None:
        self._loader.batch_sampler.start(self._epoch)  # type: ignore[union-attr]
        self._epoch += 1
        for _ in self._batches():
            pass

    def _batches(self) -> Iterator[Batch]:
        yield from self._loader
