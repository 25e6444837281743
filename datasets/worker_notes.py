"""What each worker of a loader is doing, in memory that its main process can read at any time.

A process that was killed cannot say what it was doing. So each worker writes down a clip before it
begins with it, in a place of its own, and nobody waits for anybody.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing import queues
from typing import Any

from torch.utils.data import Dataset, get_worker_info

from datasets.worker_faults import is_no_memory, is_no_room, say_no_room
from errors import InputError, printable

NameOf = Callable[[Any], str]

_MOST_BYTES = 512  # of a text; longer ones are cut
_PARENT_SECONDS = 1.0  # between looks whether the main process is still there


class State(IntEnum):
    """What a worker does: nothing, loading a clip, or joining clips to a batch."""

    IDLE = 0
    LOADING = 1
    JOINING = 2


class Note(ctypes.Structure):
    """The place of one worker.

    Attributes:
        pid: its process; 0 until it has begun.
        state: a `State`.
        moves: grows with all that it does.
        others: clips that are loaded together with `clip`; 0 where each is loaded by itself.
        clip: name of the clip, UTF-8.
        fault: why a batch could not be handed over; empty otherwise.
    """

    _fields_ = [  # noqa: RUF012 - ctypes reads it when the class is made
        ("pid", ctypes.c_int64),
        ("state", ctypes.c_int64),
        ("moves", ctypes.c_int64),
        ("others", ctypes.c_int64),
        ("clip", ctypes.c_char * _MOST_BYTES),
        ("fault", ctypes.c_char * _MOST_BYTES),
    ]

    def text(self) -> str:
        """Return what the worker was doing, to follow "while"; "" when it was doing nothing."""
        clip = read_text(self.clip)
        if self.state == State.JOINING:
            return f"it joined the batch that ends with clip {clip}"
        if self.state != State.LOADING:
            return ""
        together = f" (one of {self.others + 1} that are loaded together)" if self.others else ""
        return f"it loaded clip {clip}{together}"


def make_notes(count: int, context: Any = None) -> Sequence[Note]:
    """Return places for `count` workers that are processes of a `multiprocessing` context."""
    notes: Sequence[Note] = (context or multiprocessing).RawArray(Note, count)
    return notes


def as_text(text: object) -> bytes:
    """Return text as it fits into a note: printable, and cut in the middle if it is long."""
    name = str(text)
    data = (name if name.isprintable() else printable(name)).encode("utf-8", "replace")
    most = _MOST_BYTES - 1
    return data if len(data) <= most else data[: most // 2 - 2] + b"..." + data[-(most // 2) :]


def read_text(data: bytes) -> str:
    """Return the text of a note, whose cut may have gone through a letter."""
    return data.decode("utf-8", "ignore")


# ---------------------------------------------------------------- what workers use


class Noting(Dataset):
    """A data set that notes each clip before it loads it, and names it in errors."""

    def __init__(self, dataset: Dataset, name_of: NameOf, notes: Sequence[Note]) -> None:
        self.dataset = dataset
        self._name_of = name_of
        self._notes = notes
        self._note = notes[0]

    @classmethod
    def of(cls, dataset: Dataset, name_of: NameOf, notes: Sequence[Note]) -> "Noting":
        """Wrap a data set; one that loads clips by batches keeps doing so."""
        by_batches = getattr(dataset, "__getitems__", None) is not None
        return (_NotingBatches if by_batches else cls)(dataset, name_of, notes)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Any:
        """Return what the data set has for a key.

        Raises:
            InputError: as the data set does; memory ran out, or a file could not be read.
            Exception: any other, with a note that names the clip.
        """
        self.begin_clip(key)
        with self.explaining():
            return self.dataset[key]

    def begin(self, worker: int) -> Note:
        """Take the place of a worker, whose process this is."""
        self._note = self._notes[worker]
        self._note.pid = os.getpid()
        return self._note

    def begin_clip(self, key: Any, others: int = 0) -> None:
        """Note that a clip is begun, possibly with others."""
        note = self._note
        try:
            note.clip = as_text(self._name_of(key))
        except Exception:  # noqa: BLE001 - the data set itself will say what is wrong with the key
            note.clip = as_text(key)
        note.others = others
        note.state = State.LOADING
        note.moves += 1

    def change(self, state: State) -> None:
        """Note what is done now."""
        self._note.state = state
        self._note.moves += 1

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise other errors where users can help themselves; add the clip's name to the rest."""
        try:
            yield
        except InputError:
            self.change(State.IDLE)
            raise
        except Exception as error:
            explained = self._for_users(error)
            if explained is None:
                error.add_note(f"while {self._note.text()}")
            self.change(State.IDLE)
            if explained is None:
                raise
            raise explained from None

    def _for_users(self, error: Exception) -> InputError | None:
        clip = read_text(self._note.clip)
        if is_no_memory(error):
            reason = next(iter(str(error).strip().splitlines()), "none is left")
            return InputError(
                f"there is not enough memory to load clip {clip} ({reason}): use fewer --workers "
                "or a smaller --batch-size, or end other programs"
            )
        if is_no_room(error):
            return say_no_room(f"clip {clip} finds no place in shared memory", error)
        if isinstance(error, OSError):
            name = f"{error.filename}: " if error.filename else ""
            return InputError(
                f"clip {clip} could not be read ({name}{error.strerror or error}): look at the "
                "disk or network folder, and run the same command again"
            )
        return None


class _NotingBatches(Noting):
    def __getitems__(self, keys: Sequence[Any]) -> Any:
        """Return what the data set has for some keys."""
        self.begin_clip(keys[0], len(keys) - 1)
        with self.explaining():
            return self.dataset.__getitems__(_Keys(keys, self))  # type: ignore[attr-defined]


class _Keys(list):
    """Keys that are noted as a loop comes to them."""

    def __init__(self, keys: Sequence[Any], noting: Noting) -> None:
        super().__init__(keys)
        self._noting = noting

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            self._noting.begin_clip(key, len(self) - 1)
            yield key


@dataclass(frozen=True, slots=True)
class NotingCollate:
    """Joins clips to a batch as `collate` does, and notes it.

    Attributes:
        collate: what joins them.
        noting: the data set, of a loader without workers; workers have copies of their own.
    """

    collate: Callable[[Any], Any]
    noting: Noting

    def __call__(self, samples: Any) -> Any:
        """Return the batch."""
        info = get_worker_info()
        noting = self.noting if info is None else info.dataset
        assert isinstance(noting, Noting)
        noting.change(State.JOINING)
        with noting.explaining():
            batch = self.collate(samples)
        noting.change(State.IDLE)
        return batch


@dataclass(frozen=True, slots=True)
class BeginWorker:
    """What a worker does first.

    Attributes:
        then: called afterwards with the number of the worker.
        parent: process of the loader, with which the worker ends.
        pipe: descriptor to which stacks are written at `STACK_SIGNAL`; -1 where there is none.
    """

    then: Callable[[int], None] | None
    parent: int
    pipe: int

    def __call__(self, worker: int) -> None:
        """Begin."""
        info = get_worker_info()
        assert info is not None
        assert isinstance(info.dataset, Noting)
        note = info.dataset.begin(worker)
        # A batch that cannot be sent is dropped with no more than a traceback, and waited for.
        queues.Queue._on_queue_feeder_error = _Reporter(note)  # type: ignore[attr-defined]
        if self.pipe >= 0 and STACK_SIGNAL is not None:
            faulthandler.register(STACK_SIGNAL, self.pipe, all_threads=False)
        _leave_signals_to(self.parent)
        if self.then is not None:
            self.then(worker)


# faulthandler knows how to register a signal where there are such signals.
STACK_SIGNAL = getattr(signal, "SIGUSR2", None) if hasattr(faulthandler, "register") else None


@dataclass(frozen=True, slots=True)
class _Reporter:
    note: Note

    def __call__(self, error: BaseException, _batch: object) -> None:
        self.note.fault = as_text(f"{type(error).__name__}: {error}")


def _leave_signals_to(parent: int) -> None:
    """Let the main process answer signals, and end with it.

    A job system signals every process of a job. A worker that died of that would look like a fault
    before the main process has saved. Only the main process may end it, by SIGTERM.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # also in threads to come
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone or says so: torch looks between batches only."""
    while os.getppid() == parent:
        if not hasattr(signal, "sigtimedwait"):
            time.sleep(_PARENT_SECONDS)
            continue
        info = signal.sigtimedwait({signal.SIGTERM}, _PARENT_SECONDS)
        if info is not None and info.si_pid == parent:
            break
    os._exit(0)
