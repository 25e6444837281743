"""A loader that names the clip on which a worker dies or stalls, and can always be left."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from datasets.order import SampleKey
from datasets.watching import WatchedLoader, as_input_error
from errors import InputError
from tests.clocks import soon
from tests.faulty_clips import (
    Batches,
    Clips,
    fail,
    kill_self,
    make_loader,
    message,
    name_of,
    no_process_is_left,  # noqa: F401 - a fixture for all tests
    seen,
)

# ---------------------------------------------------------------- what torch's loader does


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("kind", [Clips, Batches])
@pytest.mark.parametrize("persistent", [True, False])
def test_gives_what_torch_gives_epoch_after_epoch(kind, workers, persistent):
    loader = make_loader(kind(), workers=workers, persistent=persistent and workers > 0)
    for epoch in range(3):
        loader.batch_sampler.start(epoch, first_batch=epoch)
        assert seen(loader) == list(range(2 * epoch, 16))
    assert len(loader) == 8
    assert isinstance(loader.dataset, kind)


def test_the_generator_of_seeds_moves_as_with_torch():
    states = []
    for kind in (
        DataLoader,
        lambda *a, name_of=name_of, **o: WatchedLoader(*a, name_of=name_of, **o),
    ):
        generator = torch.Generator().manual_seed(3)
        loader = kind([1, 2, 3], num_workers=1, generator=generator, persistent_workers=True)
        for _ in range(2):
            list(loader)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_persistent_workers_stay_and_others_do_not():
    class Pids(Clips):
        def __getitem__(self, key):
            return torch.tensor([os.getpid()])

    for persistent in (True, False):
        loader = make_loader(Pids(), persistent=persistent)
        first, second = set(seen(loader)), set(seen(loader))
        assert len(first) == 2
        assert (first == second) == persistent
        assert os.getpid() not in first


def test_workers_that_end_with_the_batches_have_not_died(monkeypatch):
    monkeypatch.setattr("datasets.worker_watch._LOOK", 0.0005)
    for _ in range(5):
        assert seen(make_loader(Clips(), persistent=False)) == list(range(16))


@pytest.mark.parametrize("persistent", [True, False])
def test_a_run_may_be_left_early(persistent):
    loader = make_loader(Clips(), persistent=persistent)
    for _ in range(3):
        for batch in loader:
            assert batch.flatten().tolist() == [0, 1]
            break
    assert seen(loader) == list(range(16))


def test_samples_without_batches():
    dataset = Clips(count=4)
    keys = [SampleKey(0, index) for index in range(4)]
    loader = WatchedLoader(dataset, None, sampler=keys, name_of=name_of, num_workers=1)
    assert [int(sample) for sample in loader] == [0, 1, 2, 3]


def test_workers_that_are_not_forked():
    numbers = Subset(TensorDataset(torch.arange(4)), range(4))
    loader = WatchedLoader(numbers, name_of=str, num_workers=1, multiprocessing_context="spawn")
    assert [int(batch[0]) for batch in loader] == [0, 1, 2, 3]


def test_a_timeout_beside_ours_is_refused():
    with pytest.raises(ValueError, match="stall_seconds"):
        WatchedLoader(Clips(), name_of=name_of, num_workers=1, timeout=3)


# ---------------------------------------------------------------- a worker dies


@pytest.mark.parametrize("kind", [Clips, Batches])
@pytest.mark.parametrize(
    ("signum", "reason"),
    [
        (signal.SIGKILL, r"was killed \(signal 9\) while .*memory ran out.*--workers"),
        (signal.SIGSEGV, r"crashed \(signal 11\) while .*damaged.*tools/check_dataset"),
        (signal.SIGBUS, r"was ended by signal 7 \(SIGBUS\) while .*--shm-size"),
        (signal.SIGALRM, r"crashed \(signal 14\) while .*run the same command again"),
    ],
)
def test_a_worker_that_is_killed_names_its_clip(kind, signum, reason, capfd):
    with soon(), pytest.raises(InputError, match=f"^loader worker 0 {reason}") as caught:
        seen(make_loader(kind(kill_self(signum))))
    assert "it loaded clip clip_05" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_that_ends_itself_names_its_clip():
    loader = make_loader(Clips(lambda: os._exit(3)))
    assert "ended by itself (exit code 3) while it loaded clip clip_05" in message(loader)


def test_a_clip_of_batches_is_named_with_its_company():
    text = message(make_loader(Batches(kill_self(signal.SIGKILL)), batch_size=4))
    assert "clip_05 (one of 4 that are loaded together)" in text


def test_a_worker_killed_from_outside_between_clips():
    loader = make_loader(Clips(count=64))
    batches = iter(loader)
    next(batches)
    time.sleep(0.3)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(InputError, match=r"killed \(signal 9\) while it had no clip"):
        list(batches)


def test_a_death_is_raised_only_where_a_batch_is_waited_for():
    """torch raises it in any line of the program, such as one that writes a checkpoint."""
    loader = make_loader(Clips(count=64))
    batches = iter(loader)
    next(batches)
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        sum(range(100))
    error = RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
    assert "killed (signal 9)" in str(as_input_error(loader, error))
    assert as_input_error(DataLoader([1]), error) is None
    loader.close()


def test_a_death_while_the_system_is_asked_about_it_keeps_its_exit_code(monkeypatch):
    """The answer comes once: an error between it and its note would lose it."""
    loader = make_loader(Clips(count=64))
    batches = iter(loader)
    next(batches)
    (first, *_) = processes = multiprocessing.active_children()
    handler = signal.getsignal(signal.SIGCHLD)
    waitpid, asked = os.waitpid, []

    def answer(pid, flags):
        found = waitpid(pid, flags)
        if found[0] and not asked:
            asked.append(pid)
            signalled(sys._getframe(1))  # as if the signal came just now
        return found

    def signalled(frame):
        handler.waiting = WaitsInVain()
        try:
            handler(signal.SIGCHLD, frame)
        finally:
            handler.waiting = None

    class WaitsInVain:
        def raise_trouble(self):
            raise RuntimeError("a loader worker has ended")

    monkeypatch.setattr(os, "waitpid", answer)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert asked == [first.pid]
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2
    with pytest.raises(RuntimeError, match="has ended"):
        signalled(sys._getframe())
    assert "killed (signal 9)" in str(as_input_error(loader, RuntimeError("DataLoader worker")))
    loader.close()


def test_after_a_death_a_new_run_starts_with_new_workers(tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    loader = make_loader(Clips(lambda: flag.exists() and os.kill(os.getpid(), signal.SIGKILL)))
    assert "clip_05" in message(loader)
    flag.unlink()
    assert seen(loader) == list(range(16))
    assert seen(loader) == list(range(16))


def test_a_memory_limit_ends_as_advice():
    def allocate():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + 2**30
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        np.ones(2**32, np.uint8)

    assert "not enough memory to load clip clip_05" in message(make_loader(Clips(allocate)))


# ---------------------------------------------------------------- a worker raises


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [Clips, Batches])
def test_an_input_error_arrives_as_it_is(kind, workers):
    loader = make_loader(kind(fail(InputError("frame 3 is broken: mend it"))), workers=workers)
    assert message(loader) == "frame 3 is broken: mend it"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [Clips, Batches])
def test_a_bug_keeps_its_kind_and_traceback_and_names_the_clip(kind, workers):
    with pytest.raises(ZeroDivisionError) as caught:
        seen(make_loader(kind(lambda: 1 / 0), workers=workers))
    text = "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "while it loaded clip clip_05" in text
    assert workers == 0 or "1 / 0" in text or "Traceback" in text


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "not enough memory to load clip clip_05 (none is left): use fewer"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "not enough memory"),
        (
            OSError(116, "Stale file handle", "/data/a.jpg"),
            "clip clip_05 could not be read (/data/a.jpg: Stale file handle): look at",
        ),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ""),
    ],
)
def test_errors_that_users_can_help(error, text, workers):
    found = message(make_loader(Clips(fail(error)), workers=workers), (InputError, Exception))
    assert text in found
    assert not text or "\n" not in found


@pytest.mark.parametrize("workers", [0, 2])
def test_joining_names_the_batch(workers):
    class Uneven(Clips):
        def __getitem__(self, key):
            return torch.zeros(1 + (key.index == self.at))

    with pytest.raises(RuntimeError) as caught:
        seen(make_loader(Uneven(), workers=workers))
    text = "".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "while it joined the batch that ends with clip clip_05" in text


@pytest.mark.parametrize("workers", [0, 1])
def test_odd_names_stay_one_line(workers):
    loader = make_loader(Clips(fail(MemoryError())), workers=workers)
    loader._name_of = lambda key: f"a b\n\x00\x1b[31m<script> \udcff Übung {'ä' * 900}"
    text = message(loader)
    assert "a b\\n\\x00\\x1b[31m<script> \\udcff Übung" in text
    assert text.isprintable()
    assert len(text) < 800


def test_a_name_that_cannot_be_made_does_no_harm():
    loader = make_loader(Clips(fail(MemoryError())), workers=1)
    loader._name_of = lambda key: [][key.index]
    assert "SampleKey(epoch=0, index=5" in message(loader)
