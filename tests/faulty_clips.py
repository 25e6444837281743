"""A data set that does what a test says at one clip, in a loader that is watched."""

import gc
import multiprocessing
import os
import time

import pytest
import torch
from torch.utils.data import Dataset

from datasets.order import EpochBatches
from datasets.watching import WatchedLoader
from errors import InputError


class Clips(Dataset):
    """Numbers; what goes wrong at clip 5 is passed in."""

    def __init__(self, fault=lambda: None, count=16, at=5):
        self.fault, self.count, self.at = fault, count, at

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if key.index == self.at:
            self.fault()
        return torch.tensor([key.index])


class Batches(Clips):
    """The same, by batches."""

    def __getitems__(self, keys):
        return torch.stack([self[key] for key in keys])


def as_is(batch):
    return batch


def name_of(key):
    return f"clip_{key.index:02d}"


def make_loader(dataset, batch_size=2, workers=2, stall=30.0, **options):
    sampler = EpochBatches(len(dataset), batch_size, seed=0, shuffle=False)
    if isinstance(dataset, Batches):
        options["collate_fn"] = as_is
    return WatchedLoader(
        dataset,
        batch_sampler=sampler,
        name_of=name_of,
        stall_seconds=stall,
        num_workers=workers,
        persistent_workers=options.pop("persistent", workers > 0),
        **options,
    )


def seen(loader):
    return torch.cat(list(loader)).flatten().tolist()


def message(loader, kind=InputError, **match):
    with pytest.raises(kind) as caught:
        seen(loader)
    return str(caught.value)


def kill_self(signum):
    return lambda: os.kill(os.getpid(), signum)


def fail(error):
    def raising():
        raise error

    return raising


def sleep_for_ever():
    time.sleep(1000)


def spin_for_ever():
    while True:
        pass


@pytest.fixture(autouse=True)
def no_process_is_left():
    before = set(multiprocessing.active_children())
    yield
    gc.collect()
    left = set(multiprocessing.active_children()) - before
    assert not left
