"""Worker processes that answer in order of the questions, however many there are."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import cv2

from errors import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Questions that wait in each worker's queue: enough to keep it busy, few enough for flat memory.
_WAITING = 4
# Starting a process takes as long as a few thousand small files.
_FEW_TASKS = 8


class Workers:
    """A pool that starts when there is enough to do, and ends with the block.

    One worker, or a main module that a new process could not import, means this process.
    """

    def __init__(self, count: int | None = None) -> None:
        self._count = count or num_cores()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], few: int = _FEW_TASKS
    ) -> Iterator[Result]:
        """Yield the result of every task, in order; tasks are taken as they are needed.

        Args:
            function: of a module, to be found by the other process.
            tasks: any number of them.
            few: up to so many tasks are done in this process.

        Raises:
            InputError: a worker was killed.
        """
        rest = iter(tasks)
        first = list(islice(rest, few + 1))
        if self._count == 1 or (len(first) <= few and self._pool is None) or not _can_spawn():
            yield from map(function, first)
            yield from map(function, rest)
            return
        try:
            yield from self._map_in_pool(function, first, rest)
        except BrokenProcessPool:
            raise InputError(
                "a worker process was killed, by hand or because memory ran out: run again with "
                "fewer --workers, or --workers 1"
            ) from None

    def _map_in_pool(
        self, function: Callable[[Task], Result], first: list[Task], rest: Iterator[Task]
    ) -> Iterator[Result]:
        if self._pool is None:
            # Started afresh, not forked: a fork copies the locks of torch's and OpenCV's threads.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                self._count, mp_context=context, initializer=_start_worker
            )
        waiting: deque[Future[Result]] = deque()
        for tasks in (first, rest):
            for task in tasks:
                waiting.append(self._pool.submit(function, task))
                if len(waiting) >= _WAITING * self._count:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def batched(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Yield the tasks in lists of `size`, the last of which may be shorter."""
    rest = iter(tasks)
    while batch := list(islice(rest, size)):
        yield batch


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _can_spawn() -> bool:
    """Say whether a new process can import the main module: not one typed or piped in."""
    source = getattr(sys.modules["__main__"], "__file__", None)
    return source is None or Path(source).is_file()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and use one thread: the processes share the cores."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the parent was killed: it cannot say so, and the queue would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
