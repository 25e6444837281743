"""Work on many files in several processes, which a damaged file may crash without harm."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Generic, TypeVar

from errors import InputError

Job = TypeVar("Job")
Result = TypeVar("Result")

_POLL_SECONDS = 0.1
_Outcome = tuple[object, Exception | None]
# A fork has all modules already; where there is none, processes start from nothing.
_CONTEXT = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """What became of a job.

    Attributes:
        place: of the job in the list of jobs.
        result: what it returned; None when it failed.
        error: the `InputError` that it raised, or that its crash amounts to.
    """

    place: int
    result: Result | None = None
    error: InputError | None = None


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    place_of: Callable[[Job], Path],
) -> Iterator[Done[Result]]:
    """Call `function` with each job, several at a time; yield what became of them as they end.

    The processes end with this one, however it ends.

    Args:
        function: of a module or a partial of one, to be called in another process.
        jobs: its arguments.
        workers: processes; 0 works in this one.
        place_of: the file of a job, for messages.

    Raises:
        Exception: what else than an `InputError` a job raises, such as a full disk.
    """
    if workers == 0:
        for place, job in enumerate(jobs):
            yield _conclude(place, _attempt(function, job))
        return
    pool = _Pool(function, jobs)
    try:
        for _ in range(min(workers, len(jobs))):
            pool.start_process()
        while pool.busy:
            for pipe in wait(list(pool.busy)):
                assert isinstance(pipe, Connection)
                place, outcome = pool.receive(pipe, place_of)
                yield _conclude(place, outcome)
    finally:
        pool.kill()


class _Pool(Generic[Job]):
    """Processes that each have one job at a time, so that a crash names its job."""

    def __init__(self, function: Callable[[Job], object], jobs: Sequence[Job]) -> None:
        self.busy: dict[Connection, tuple[BaseProcess, int]] = {}
        self._function = function
        self._jobs = jobs
        self._waiting = list(range(len(jobs)))[::-1]

    def start_process(self) -> None:
        """Start a process and give it a job."""
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._function, os.getpid())
        )
        with _held_back(signal.SIGINT):  # until the process can ignore it
            process.start()
        theirs.close()
        self._hand_out(ours, process)

    def receive(self, pipe: Connection, place_of: Callable[[Job], Path]) -> tuple[int, _Outcome]:
        """Return what became of a job; its process, or a new one, gets the next."""
        process, place = self.busy.pop(pipe)
        try:
            outcome = pipe.recv()
        except (EOFError, OSError):
            pipe.close()
            outcome = _crash(process, place_of(self._jobs[place]))
            if self._waiting:
                self.start_process()
        else:
            self._hand_out(pipe, process)
        return place, outcome

    def _hand_out(self, pipe: Connection, process: BaseProcess) -> None:
        """Give a process its next job, or let it go."""
        if not self._waiting:
            with suppress(OSError):
                pipe.send(None)
            pipe.close()
            process.join()
            return
        place = self._waiting.pop()
        with suppress(OSError):  # it has died meanwhile: reading from the pipe will tell
            pipe.send((self._jobs[place],))
        self.busy[pipe] = (process, place)

    def kill(self) -> None:
        """End the processes that are still at work."""
        for process, _ in self.busy.values():
            process.kill()
        for process, _ in self.busy.values():
            process.join()


@contextmanager
def _held_back(signum: signal.Signals) -> Iterator[None]:
    """Let a signal wait, here and in a process that is started; nothing where systems cannot."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signum})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, function: Callable[[Job], object], parent: int) -> None:
    """Work on jobs until None comes; runs in a process of its own."""
    # What the parent left for the collector may have threads, which did not come along: freeing
    # it here would wait for them for ever.
    gc.freeze()
    # Ctrl-C reaches every process of a terminal; the parent answers for all.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while (message := pipe.recv()) is not None:
        pipe.send(_attempt(function, message[0]))


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: nobody would notice what it still writes."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _attempt(function: Callable[[Job], object], job: Job) -> _Outcome:
    try:
        return function(job), None
    except InputError as error:
        return None, InputError(str(error))
    except Exception as error:  # noqa: BLE001 - handed to the parent process, which raises it
        return None, error


def _crash(process: BaseProcess, path: Path) -> _Outcome:
    process.join()
    code = process.exitcode or 0
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return None, InputError(
        f"{path} ended the process that read it ({reason}): it is damaged, or memory ran out; "
        "leave it out"
    )


def _conclude(place: int, outcome: _Outcome) -> Done:
    result, error = outcome
    if error is not None and not isinstance(error, InputError):
        raise error
    return Done(place, result, error)
