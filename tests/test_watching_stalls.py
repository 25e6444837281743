"""Workers that stall, batches that are not sent, signals, and how programs end."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from errors import InputError, Interrupted
from tests.clocks import soon
from tests.faulty_clips import (
    Batches,
    Clips,
    kill_self,
    make_loader,
    message,
    no_process_is_left,  # noqa: F401 - a fixture for all tests
    seen,
    sleep_for_ever,
    spin_for_ever,
)

# ---------------------------------------------------------------- a worker stalls


@pytest.mark.parametrize("kind", [Clips, Batches])
@pytest.mark.parametrize("fault", [sleep_for_ever, spin_for_ever])
def test_a_worker_that_stalls_names_its_clip(kind, fault):
    begin = time.monotonic()
    with soon():
        text = message(make_loader(kind(fault), stall=1.0))
    assert time.monotonic() - begin >= 1
    assert text.startswith("a loader stands still for 1 s: worker 0 while it loaded clip clip_05")
    assert f"in {fault.__name__}, faulty_clips.py line " in text
    assert "--worker_timeout" in text


def test_a_worker_that_is_stopped_is_found_though_it_cannot_answer():
    loader = make_loader(Clips(kill_self(signal.SIGSTOP)), stall=1.0)
    with soon():
        assert "worker 0 while it loaded clip clip_05: look" in message(loader)


def test_a_worker_stopped_before_its_batch_is_fetched():
    """Receiving asks the worker for the memory of a batch: that wait has no end of its own."""
    loader = make_loader(Clips(kill_self(signal.SIGSTOP), at=2), batch_size=1, workers=1, stall=1.0)
    batches = iter(loader)
    time.sleep(1)  # clips 0 and 1 are sent, and not fetched
    with soon(), pytest.raises(InputError, match="stands still for 1 s: worker 0 while it loaded"):
        list(batches)


def test_all_that_stall_are_named():
    class Hanging(Clips):
        def __getitem__(self, key):
            time.sleep(1000)

    text = message(make_loader(Hanging(), workers=2, stall=1.0))
    assert "worker 0 while it loaded clip clip_00" in text
    assert "worker 1 while it loaded clip clip_02" in text


def test_slow_is_not_stalled():
    """A batch may take longer than a worker may stand still, if its clips do not."""
    loader = make_loader(
        Clips(lambda: time.sleep(0.4), count=1, at=0), workers=1, batch_size=1, stall=1.5
    )

    class Slow(Clips):
        def __getitem__(self, key):
            time.sleep(0.35)
            return torch.tensor([key.index])

    assert seen(loader) == [0]
    assert seen(make_loader(Slow(count=6), batch_size=6, workers=1, stall=1.5)) == list(range(6))


def test_a_pause_of_the_program_is_no_stall():
    loader = make_loader(Clips(lambda: time.sleep(0.8), count=4), batch_size=1, stall=1.5)
    found = []
    for batch in loader:
        time.sleep(0.9)
        found.append(int(batch))
    assert found == list(range(4))


def test_zero_waits_for_ever():
    loader = make_loader(Clips(lambda: time.sleep(2.5)), stall=0)
    assert seen(loader) == list(range(16))


def test_a_stall_in_the_second_of_two_runs(tmp_path):
    """An old run that is let go must not stop the watch over the new one."""
    flag = tmp_path / "flag"
    loader = make_loader(Clips(lambda: flag.exists() and time.sleep(1000)), stall=1.0)
    batches = iter(loader)
    assert len(list(batches)) == 8
    flag.touch()
    batches = iter(loader)  # takes the place of the one before, which is let go
    time.sleep(0.6)
    with soon(), pytest.raises(InputError, match="clip_05"):
        list(batches)


def test_a_batch_that_cannot_be_sent_is_not_waited_for():
    class Full:
        def __reduce__(self):
            raise RuntimeError(
                "unable to allocate shared memory(shm) for file </torch_1>: No space left on "
                "device (28)"
            )

    class Unsendable(Clips):
        def __getitem__(self, key):
            return Full() if key.index == self.at else key.index

    with soon():
        text = message(make_loader(Unsendable(), stall=60, collate_fn=list))
    assert "cannot hand over a batch" in text
    assert "--shm-size" in text


def test_a_batch_that_nobody_can_send_is_our_bug():
    class Unsendable(Clips):
        def __getitem__(self, key):
            return threading.Lock()

    with pytest.raises(RuntimeError, match="cannot pickle"):
        seen(make_loader(Unsendable(), stall=30, collate_fn=list))


# ---------------------------------------------------------------- signals, ends


@pytest.mark.parametrize("persistent", [True, False])
def test_an_interruption_while_waiting_leaves_nothing(persistent, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    loader = make_loader(
        Clips(lambda: flag.exists() and time.sleep(1000)), stall=60, persistent=persistent
    )

    def handler(signum, frame):
        raise Interrupted(signum)

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.7)
    try:
        with soon(), pytest.raises(Interrupted):
            seen(loader)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not multiprocessing.active_children()
    flag.unlink()
    assert seen(loader) == list(range(16))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_leave_signals_to_the_program(signum):
    """A job system sends them to every process of a job."""
    loader = make_loader(Clips(lambda: time.sleep(0.5), count=64), stall=1.0)
    batches = iter(loader)
    found = [next(batches), next(batches)]  # one of each worker: they have begun
    for process in multiprocessing.active_children():
        subprocess.run(["kill", f"-{signum.value}", str(process.pid)], check=True)
    found.extend(batches)
    assert torch.cat(found).flatten().tolist() == list(range(64))


def test_a_worker_that_ends_without_a_clip_is_not_blamed_on_a_file():
    loader = make_loader(Clips(count=64), worker_init_fn=lambda _: os._exit(4), stall=1.0)
    text = message(loader)
    assert "ended by itself (exit code 4) while it had no clip" in text
    assert "run the same command again, with --workers 0" in text


def test_workers_end_when_the_program_says_so():
    loader = make_loader(Clips(sleep_for_ever), stall=60)
    next(iter(loader))
    for process in multiprocessing.active_children():
        process.terminate()
        process.join(20)
        assert not process.is_alive()
    loader.close()


def test_a_loader_that_goes_does_not_wait_for_who_hangs():
    loader = make_loader(Clips(sleep_for_ever), stall=60)
    next(iter(loader))
    time.sleep(0.5)
    with soon():
        del loader
        gc.collect()
    assert not multiprocessing.active_children()


def test_poll_ends_a_wait():
    loader = make_loader(Clips(sleep_for_ever), stall=60)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()

    def poll():
        if stop.is_set():
            raise Interrupted(signal.SIGTERM)

    loader.poll = poll
    with soon(), pytest.raises(Interrupted):
        seen(loader)
    assert not multiprocessing.active_children()


def test_waiting_in_another_thread():
    results = []

    def work(fault):
        try:
            results.append(seen(make_loader(Clips(fault), stall=1.0)))
        except InputError as error:
            results.append(str(error))

    for fault in (lambda: None, kill_self(signal.SIGKILL)):
        thread = threading.Thread(target=work, args=(fault,))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert results[0] == list(range(16))
    assert "killed (signal 9)" in results[1]


def test_close_ends_workers_that_hang_and_a_new_run_starts_others():
    loader = make_loader(Clips(sleep_for_ever), stall=60)
    next(iter(loader))
    with soon():
        loader.close()
        loader.close()
    assert not multiprocessing.active_children()
    assert int(next(iter(loader))[0, 0]) == 0
    loader.close()


# ---------------------------------------------------------------- whole programs

PROGRAM = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from torch.utils.data import Dataset
from datasets.watching import WatchedLoader
import errors

class Clips(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, key):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        if key == 1:
            time.sleep(1000)
        return key

def main():
    loader = WatchedLoader(Clips(), None, sampler=range(4), name_of=str, stall_seconds={stall},
                           num_workers=2, persistent_workers=True)
    {body}

errors.run_script(main)
"""


def start_program(body="list(loader)", stall=1.0):
    root = str(Path(__file__).resolve().parent.parent)
    code = PROGRAM.format(root=root, body=body, stall=stall)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_gone(pids, seconds):
    end = time.monotonic() + seconds
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < end, f"still running: {pids}"
        time.sleep(0.05)


def first_pids(program):
    return {int(program.stdout.readline()) for _ in range(2)}


def test_a_program_whose_loader_hangs_ends_with_a_line():
    program = start_program()
    pids = first_pids(program)
    with soon():
        _, err = program.communicate(timeout=60)
    assert program.returncode == 2
    assert err.startswith("error: a loader stands still for 1 s: worker 1 while it loaded clip 1 (")
    assert err.count("\n") == 1
    wait_until_gone(pids, 20)


def test_a_program_ends_though_a_worker_cannot_be_killed():
    body = """
    from multiprocessing.process import BaseProcess
    import multiprocessing.context
    multiprocessing.context.ForkProcess.kill = lambda self: None
    multiprocessing.context.Process.kill = lambda self: None
    list(loader)
    """.strip()
    program = start_program(body)
    pids = first_pids(program)
    try:
        with soon(30):
            _, err = program.communicate(timeout=60)
    finally:
        for pid in pids:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
    assert program.returncode == 2
    assert "stands still for 1 s: worker 1" in err


def test_workers_end_when_the_program_is_killed():
    program = start_program(stall=100)
    pids = first_pids(program)
    program.kill()
    program.wait(10)
    wait_until_gone(pids, 20)
    program.communicate()


def test_a_program_that_fails_elsewhere_ends_though_a_worker_is_stopped():
    body = """
    next(iter(loader))
    time.sleep(0.5)
    import multiprocessing
    for process in multiprocessing.active_children():
        os.kill(process.pid, signal.SIGSTOP)
    raise errors.Interrupted(signal.SIGTERM)
    """.strip()
    program = start_program(body)
    with soon(30):
        program.communicate(timeout=60)
    assert program.returncode == 143
