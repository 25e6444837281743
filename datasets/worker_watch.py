"""Looks at the workers of a loader while the program waits for a batch; ends those that hang."""

import multiprocessing
import os
import re
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from datasets.worker_faults import say_death, say_not_sent, say_shortage
from datasets.worker_notes import STACK_SIGNAL, Note, State, read_text
from errors import InputError, Interrupted, one_line

Result = TypeVar("Result")

_LOOK = 0.5  # seconds between looks at the workers
_END_SECONDS = 3.0  # to wait for killed workers
_DEATH_SECONDS = 3.0  # a connection breaks a moment before its process has ended
_STACK_SECONDS = 0.5  # to wait for a stack
_MOST_NAMED = 3  # workers that a message names


class WorkerWatch:
    """The workers of a loader, and a thread that looks at them while a batch is waited for.

    Attributes:
        stall_seconds, poll: see `WatchedLoader`.
    """

    def __init__(self, notes: Sequence[Note], pipe: "StackPipe | None") -> None:
        self.stall_seconds = 0.0
        self.poll: Callable[[], None] | None = None
        self._owner = os.getpid()
        self._notes = notes
        self._pipe = pipe
        self._still = _Standstill(notes)
        self._processes: dict[int, BaseProcess] = {}  # by pid
        self._iterator: Callable[[], Any] = lambda: None
        self._run = 0
        self._waiter: threading.Thread | None = None
        self._waits = 0
        self._trouble: BaseException | None = None

    def begin(self) -> int:
        """Return the number of a new run through the batches; the run before is over."""
        self._run += 1
        return self._run

    def finish(self, run: int) -> None:
        """Stop looking, if nobody has begun another run."""
        if run == self._run:
            self._run += 1

    def start(self, loader: DataLoader, run: int) -> Iterator[Any]:
        """Return an iterator of torch's loader, whose workers are looked at in this run."""
        threading.Thread(target=self._look, args=(run,), name="loader watch", daemon=True).start()
        before = set(multiprocessing.active_children())
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        try:
            iterator = iter(loader)
            self._iterator = weakref.ref(iterator)
        finally:  # also those of an iterator that did not come to be
            started = set(multiprocessing.active_children()) - before
            self._processes |= {process.pid: process for process in started if process.pid}
        _DeathSignal.put_before_torch(handler)
        return iterator

    def wait_for(self, step: Callable[[], Result]) -> Result:
        """Call `step`, which waits for workers; their death may be raised in it at any moment.

        Raises:
            Exception: what `step` raises, or is found meanwhile: `explain` tells.
        """
        if self._trouble is not None:
            raise self._trouble
        handler = _DeathSignal.current()
        self._waits += 1
        self._waiter = threading.current_thread()
        if handler is not None and self._waiter is threading.main_thread():
            handler.waiting = self
        try:
            return step()
        finally:
            self._waiter = None
            if handler is not None and handler.waiting is self:
                handler.waiting = None

    def raise_trouble(self) -> None:
        """Raise what the thread has found."""
        if self._trouble is not None:
            raise self._trouble

    def explain(self, error: BaseException) -> BaseException | None:
        """Return what to raise instead of an error that came up while a batch was waited for.

        Returns:
            An `InputError` where users can help, or what `poll` raised; None: the error says it.
        """
        if self._trouble is not None and not isinstance(self._trouble, _WorkerEndedError):
            return self._trouble
        if isinstance(error, InputError):
            return InputError(one_line(error))
        if isinstance(error, Interrupted) or not isinstance(error, Exception):
            return None
        return self._death(error) or say_shortage(error)

    def end(self) -> None:
        """End the workers at once, also those that hang."""
        if self._owner != os.getpid():  # a copy in a process that was forked
            return
        self._run += 1
        for pid in self._busy():
            self._processes[pid].kill()
        processes = list(self._processes.values())
        iterator = self._iterator()
        # Idle workers end when torch tells them to. It waits for each in turn, and might do so for
        # ever where one was killed in the wrong moment: so in a thread, and not for long.
        torch_ends = threading.Thread(
            target=getattr(iterator, "_shutdown_workers", lambda: None), daemon=True
        )
        with suppress(RuntimeError):  # the program is ending, and starts no thread any more
            torch_ends.start()
            torch_ends.join(_LOOK)
        _kill(processes)
        if torch_ends.ident is not None:
            torch_ends.join(_LOOK)
        for process in processes:
            if process.is_alive():
                # Not even SIGKILL ends a call to a device that is gone. The end of the program
                # would wait for it.
                multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        self._processes.clear()

    # ------------------------------------------------------------ the thread

    def _look(self, run: int) -> None:
        last = time.monotonic()
        while run == self._run:
            time.sleep(_LOOK)
            # In a job that is stopped as a whole, time does not pass.
            passed = min(time.monotonic() - last, 2 * _LOOK)
            last = time.monotonic()
            waiter, waits = self._waiter, self._waits
            if waiter is None:
                continue
            trouble = self._find_trouble(waits, passed)
            if trouble is not None and self._waits == waits:
                self._trouble = trouble
                self._break_off(waiter)
                return

    def _find_trouble(self, waits: int, passed: float) -> BaseException | None:
        # Idle ones may have ended because the batches have; if not, torch finds out.
        if wait([self._processes[pid].sentinel for pid in self._busy()], 0):
            return _WorkerEndedError("a loader worker has ended")
        for worker, note in enumerate(self._notes):
            if note.fault:
                return say_not_sent(worker, read_text(note.fault))
        if self.poll is not None:
            try:
                self.poll()
            except BaseException as error:  # noqa: BLE001 - raised where the batch is waited for
                return error
        if not self._still.has_lasted(waits, passed, self.stall_seconds):
            return None
        return self._stall()

    def _stall(self) -> InputError:
        stuck = self._still.workers(self.stall_seconds)
        if not stuck:
            return InputError(
                f"the {len(self._notes)} loader workers have given no batch for "
                f"{self.stall_seconds:g} s, and none is at work: run the same command again, with "
                "--workers 0 if that repeats itself"
            )
        texts = [self._where(worker) for worker in stuck[:_MOST_NAMED]]
        more = f", and {len(stuck) - _MOST_NAMED} more" if len(stuck) > _MOST_NAMED else ""
        return InputError(
            f"a loader stands still for {self.stall_seconds:g} s: {'; '.join(texts)}{more}: look "
            "whether the disk or network folder answers and the clip can be read, or allow more "
            "time with --worker_timeout (0 waits for ever)"
        )

    def _where(self, worker: int) -> str:
        note = self._notes[worker]
        stack = self._pipe.ask(note.pid) if self._pipe is not None else ""
        return f"worker {worker} while {note.text()}" + (f" ({stack})" if stack else "")

    def _break_off(self, waiter: threading.Thread) -> None:
        """Make the thread that waits notice."""
        for pid in self._busy() or list(self._processes)[:1]:
            self._processes[pid].kill()
        main = threading.main_thread()
        if waiter is main and main.ident is not None and hasattr(signal, "pthread_kill"):
            # A worker that SIGKILL does not end sends no signal.
            signal.pthread_kill(main.ident, signal.SIGCHLD)

    # ------------------------------------------------------------ what became of workers

    def _busy(self) -> list[int]:
        """Return the processes that are not known to be idle."""
        idle = {note.pid for note in self._notes if note.state == State.IDLE}
        return [pid for pid in self._processes if pid not in idle]

    def _death(self, error: BaseException) -> InputError | None:
        """Return which worker has died, if one has."""
        processes = list(self._processes.values())
        is_broken = isinstance(error, (OSError, EOFError, RuntimeError))
        dead = [process for process in processes if process.exitcode is not None]
        end = time.monotonic() + _DEATH_SECONDS
        if not str(error).startswith("Caught "):
            # The other thread may have asked the system first, and be about to note the answer.
            while processes and is_broken and not dead and time.monotonic() < end:
                wait([process.sentinel for process in processes], _LOOK / 10)
                time.sleep(_LOOK / 50)
                dead = [process for process in processes if process.exitcode is not None]
        if not dead:
            return None
        workers = {note.pid: worker for worker, note in enumerate(self._notes)}
        first = min(dead, key=lambda process: workers.get(process.pid or 0, len(workers)))
        worker = workers.get(first.pid or 0)
        if worker is None:
            name, doing = "a loader worker", ""
        else:
            name, doing = f"loader worker {worker}", self._notes[worker].text()
        return say_death(name, doing, first.exitcode or 0, len(dead) - 1)


class _WorkerEndedError(RuntimeError):
    """A worker has ended; why, the thread that waits finds out: only one may ask the system."""


class _Standstill:
    """How long workers have not moved while a batch was waited for."""

    def __init__(self, notes: Sequence[Note]) -> None:
        self._notes = notes
        self._moves = [0] * len(notes)
        self._seconds = [0.0] * len(notes)
        self._waits = 0
        self._waited = 0.0

    def has_lasted(self, waits: int, passed: float, most: float) -> bool:
        """Add `passed` seconds to wait number `waits`; say whether too many have passed.

        That is when a worker has been at one clip for `most` seconds, or none of them has moved.
        """
        self._waited = passed + (self._waited if waits == self._waits else 0.0)
        self._waits = waits
        for worker, note in enumerate(self._notes):
            stays = note.moves == self._moves[worker]
            self._seconds[worker] = self._seconds[worker] + passed if stays else 0.0
            self._moves[worker] = note.moves
        if most <= 0 or self._waited < most:
            return False
        return bool(self.workers(most)) or min(self._seconds) >= most

    def workers(self, most: float) -> list[int]:
        """Return the workers that have been at one clip for `most` seconds."""
        return [
            worker
            for worker, note in enumerate(self._notes)
            if self._seconds[worker] >= most and note.state != State.IDLE
        ]


class _DeathSignal:
    """The handler of SIGCHLD: torch's raises the death of a worker wherever the program is.

    That might be in the midst of writing a checkpoint. Here it is raised only where a batch is
    waited for; otherwise the next wait finds it.

    Attributes:
        waiting: for a batch, in the main thread.
    """

    def __init__(self, torch_handler: Callable[..., None], other: Any) -> None:
        self.waiting: WorkerWatch | None = None
        self._torch_handler = torch_handler
        self._other = other

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Raise what a loader waits in vain for."""
        if frame is not None and frame.f_code is Popen.poll.__code__:
            # The system tells an exit code once: raising before it is noted would lose it, and
            # the worker count as alive. Who polls finds out by himself.
            return
        if self.waiting is not None:
            self.waiting.raise_trouble()
            self._torch_handler(signum, frame)
        elif callable(self._other):
            self._other(signum, frame)

    @classmethod
    def current(cls) -> "_DeathSignal | None":
        """Return the handler if it is in place."""
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        return handler if isinstance(handler, cls) else None

    @classmethod
    def put_before_torch(cls, before: Any) -> None:
        """Take the place of torch's handler, if that is in place.

        Args:
            before: handler before torch set its own.
        """
        if not hasattr(signal, "SIGCHLD"):
            return
        handler = signal.getsignal(signal.SIGCHLD)
        if callable(handler) and getattr(handler, "__module__", "").startswith("torch."):
            with suppress(ValueError):  # only the main thread may
                signal.signal(signal.SIGCHLD, cls(handler, None if before is handler else before))


class StackPipe:
    """Through which forked workers say where they are.

    Attributes:
        writer: descriptor that workers write to.
    """

    def __init__(self) -> None:
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self.writer = self._writer.fileno()

    def ask(self, pid: int) -> str:
        """Return in which function a process is, and who called it; "" if it does not answer."""
        if STACK_SIGNAL is None or pid <= 0:
            return ""
        with suppress(ProcessLookupError):
            os.kill(pid, STACK_SIGNAL)
        text = b""
        # A stack comes in many small pieces.
        while wait([self._reader], 0.05 if text else _STACK_SECONDS):
            text += os.read(self._reader.fileno(), 1 << 16)
        frames = re.findall(r'File "(.*?)", line (\d+) in (\S+)', text.decode("utf-8", "replace"))
        places = [f"{name}, {Path(path).name} line {line}" for path, line, name in frames[:2]]
        return f"in {', called by '.join(places)}" if places else ""


def _kill(processes: Iterable[BaseProcess]) -> None:
    """Kill processes, and wait a moment until they have ended."""
    processes = list(processes)
    for process in processes:
        process.kill()
    end = time.monotonic() + _END_SECONDS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
