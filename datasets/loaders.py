"""Loaders: the clips of a data set as batches, by worker processes where these help."""

import os

import cv2
import torch
from torch.utils.data import DataLoader

from datasets.clips import ClipDataset
from datasets.order import EpochBatches, SampleKey
from datasets.skeletons import SkeletonDataset, SkeletonLoader, as_batch
from datasets.watching import WatchedLoader

# For programs without an option for it.
STALL_SECONDS = 60.0


def make_loader(
    dataset: ClipDataset,
    batches: EpochBatches,
    *,
    workers: int,
    pin_memory: bool,
    stall_seconds: float,
) -> DataLoader:
    """Build the loader of a data set.

    Args:
        dataset: the clips.
        batches: which of them, when.
        workers: most loader processes; there are never more than cores or batches.
        pin_memory: put batches where a copy to a GPU overlaps with work.
        stall_seconds: how long a worker may stand still; 0 waits for ever.
    """
    if isinstance(dataset, SkeletonDataset) and dataset.is_quick:
        return SkeletonLoader(dataset, batches, pin_memory=pin_memory)
    workers = min(workers, num_cores(), len(batches))
    if dataset.estimate is not None:
        # One detector, in this process: a copy in each worker would multiply its memory, and a
        # forked worker cannot use CUDA.
        workers = 0
    num_views = dataset.views.num_clips * dataset.views.test_crops

    def name_of(key: SampleKey) -> str:
        return dataset.clips[key.index].record.name

    return WatchedLoader(
        dataset,
        name_of=name_of,
        stall_seconds=stall_seconds,
        batch_sampler=batches,
        collate_fn=as_batch,
        num_workers=workers,
        persistent_workers=workers > 0,
        # 20 views of 32 frames are half a gigabyte.
        prefetch_factor=None if workers == 0 else 2 if num_views == 1 else 1,
        worker_init_fn=_init_worker,
        pin_memory=pin_memory,
        # The loader draws seeds for its workers: not from the global generator, whose state a
        # continued run would then not repeat.
        generator=torch.Generator().manual_seed(batches.seed),
    )


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _init_worker(_worker: int) -> None:
    """Let each worker process use one core, and leave signals to the main process.

    A job system signals the whole process group: a worker that dies of it would take the run
    along before the main process has saved. In a group of its own it does not get the signal.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
