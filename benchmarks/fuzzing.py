"""Play wrong files to readers in processes of their own, and notice what goes wrong.

A case is a function of (seed, reader, number). Each worker is a process, which is replaced when a
case kills it or never ends; the others go on.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz_targets import Target, make_targets
from benchmarks.hostile_files import hostile_files, onnx_files
from benchmarks.mutations import mutate
from errors import InputError

SECONDS = 5
_WAITS = 4  # times as long may pass on the clock as is computed
_PATIENCE = 6 * SECONDS  # for code that no signal reaches
_LONGEST_MESSAGE = 10_000
_BATCH = 50

Case = tuple[int, int]  # target, number of the case (below 0: hostile file)
Makes = Callable[[Path], Sequence[Target]]


class _Slow(BaseException):
    """A case took too long; no reader catches it."""


@dataclass(slots=True)
class Tally:
    """What became of the cases.

    Attributes:
        outcomes: (target, outcome) -> cases; outcomes are read, refused, traceback, hang, crash.
        faults: for each fault: target, case, what.
        memory: target -> most resident memory that a case added, MiB.
        seconds: target -> of the slowest case.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, outcome: str, what: str, seconds: float, memory: float) -> bool:
        """Count one case; return whether it is a fault."""
        self.outcomes[name, outcome] += 1
        self.memory[name] = max(self.memory.get(name, 0.0), memory)
        self.seconds[name] = max(self.seconds.get(name, 0.0), seconds)
        is_fault = outcome not in ("read", "refused")
        if is_fault:
            self.faults.append({"target": name, "outcome": outcome, "what": what})
        return is_fault

    def count(self, outcome: str) -> int:
        """Return how many cases ended so."""
        return sum(count for (_, what), count in self.outcomes.items() if what == outcome)


# ---------------------------------------------------------------- one case


class Player:
    """Gives cases to the readers, in this process.

    Args:
        folder: for their files, to be this player's alone.
        seed: of the cases.
        seconds: that a case may take.
        make: makes the readers, in a folder.
    """

    def __init__(
        self, folder: Path, seed: int, seconds: float = SECONDS, make: Makes = make_targets
    ) -> None:
        self._seed, self._seconds = seed, seconds
        self.canary = folder / "canary"
        places = folder / "files"
        places.mkdir()
        self.targets = make(places)

    @cached_property
    def hostile(self) -> list[tuple[str, bytes]]:
        """Name and content of every hostile file."""
        return [*hostile_files(self.canary), *onnx_files(self.canary)]

    def content(self, case: Case) -> bytes:
        """Return the file of a case."""
        target, number = case
        if number < 0:
            return self.hostile[-1 - number][1]
        rng = np.random.default_rng([self._seed, target, number])
        return mutate(rng, self.targets[target].seeds)

    def name(self, case: Case) -> str:
        """Return what a case is called."""
        target, number = case
        what = self.hostile[-1 - number][0] if number < 0 else f"case {number}"
        return f"{self.targets[target].name}, {what}"

    def play(self, case: Case) -> tuple[str, str, float, float]:
        """Return the outcome of a case, what went wrong, its seconds and MiB of memory."""
        target = self.targets[case[0]]
        _replace(target.path, self.content(case))
        before, start = _peak(), time.monotonic()
        outcome, what = self.read(target)
        seconds = time.monotonic() - start
        if self.canary.exists():
            outcome, what = "executed", "made the canary file"
            self.canary.unlink()
        _replace(target.path, target.seeds[0])
        return outcome, what, seconds, _peak() - before

    def read(self, target: Target) -> tuple[str, str]:
        """Return the outcome of reading what lies at a target, and what went wrong."""
        computed, began = time.process_time(), time.monotonic()

        def look(*_: object) -> None:
            # A busy machine makes others wait; who waits for something else waits for ever.
            is_late = time.monotonic() - began > _WAITS * self._seconds
            if is_late or time.process_time() - computed > 0.9 * self._seconds:
                raise _Slow

        handler = signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, self._seconds, self._seconds / 5)
        try:
            return _read(target)
        except _Slow:
            return "hang", f"more than {self._seconds:g} s"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


def _replace(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _read(target: Target) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(target.path)
    except InputError as error:
        text = str(error)
        if len(text.splitlines()) != 1 or len(text) > _LONGEST_MESSAGE:
            return "traceback", f"message of {len(text.splitlines())} lines: {text[:300]!r}"
        return "refused", ""
    except target.errors:
        return "refused", ""
    except Exception:  # noqa: BLE001 - whatever a reader lets through is what is looked for
        return "traceback", traceback.format_exc(limit=-6)
    return "read", ""


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------- workers


def _work(seed: int, make: Makes, pipe: Connection) -> None:
    """Play the cases that come, and say before each which it is."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EOFError), _quiet():
        player = Player(Path(folder), seed, make=make)
        while True:
            for case in pipe.recv():
                pipe.send(("begins", case, None))
                pipe.send(("ended", case, player.play(case)))
            pipe.send(("next", None, None))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what decoders write to the terminal from it."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - not a file of ours
        os.dup2(nowhere.fileno(), 2)
        yield


class _Worker:
    """A process that plays cases; it is replaced when one kills it or never ends."""

    def __init__(self, seed: int, make: Makes) -> None:
        self._seed, self._make = seed, make
        self._case: Case | None = None
        self._rest: list[Case] = []
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        # What takes seconds to import; none of it starts threads.
        context.set_forkserver_preload(["benchmarks.fuzz_models", "benchmarks.fuzz_targets"])
        self.pipe, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(self._seed, self._make, other), daemon=True
        )
        self._process.start()
        other.close()
        self._is_fresh = True
        self._since = time.monotonic() + 60  # it has to import first

    def give(self, cases: Sequence[Case]) -> None:
        """Send cases to play."""
        self._rest = list(cases)
        self._since = max(self._since, time.monotonic())
        self.pipe.send(self._rest)

    def hear(self) -> Iterator[tuple[Case, tuple[str, str, float, float]]]:
        """Yield what ended since; a death ends the case that was played."""
        try:
            while self.pipe.poll():
                kind, case, ended = self.pipe.recv()
                self._since, self._is_fresh = time.monotonic(), False
                if kind == "begins":
                    self._case = case
                elif kind == "ended":
                    self._rest.remove(case)
                    self._case = None
                    yield case, ended
        except (EOFError, OSError):
            yield from self._died("crash", f"exit status {self._process.exitcode}")
        if time.monotonic() - self._since > _PATIENCE and self._rest:
            yield from self._died("hang", "no signal reaches it")

    @property
    def is_idle(self) -> bool:
        """Say whether it has nothing to do."""
        return not self._rest

    def _died(
        self, outcome: str, what: str
    ) -> Iterator[tuple[Case, tuple[str, str, float, float]]]:
        self.stop()
        if self._case is None and self._is_fresh:
            raise RuntimeError("a process that plays cases does not start")
        if self._case is not None:
            self._rest.remove(self._case)
            yield self._case, (outcome, what, float(_PATIENCE), 0.0)
            self._case = None
        self._start()
        if self._rest:
            self.give(self._rest)

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def fuzz(
    player: Player,
    cases: Sequence[Case],
    seed: int,
    workers: int = 2,
    seconds: float = 1e9,
    keep: Path | None = None,
    make: Makes = make_targets,
) -> Tally:
    """Play cases in processes until all are done or the time is over.

    Args:
        player: of this process, which knows the names.
        cases: to play.
        seed: of the cases.
        workers: processes.
        seconds: after which no more cases are given out.
        keep: folder for the files of faults.
        make: makes the readers, in a folder; of a module that processes can import.
    """
    tally, left, end = Tally(), list(cases)[::-1], time.monotonic() + seconds
    crew = [_Worker(seed, make) for _ in range(workers)]
    try:
        while left or not all(worker.is_idle for worker in crew):
            for worker in crew:
                for case, (outcome, what, took, memory) in worker.hear():
                    target = player.targets[case[0]]
                    what = f"{player.name(case)}: {what}"
                    if tally.add(target.name, outcome, what, took, memory) and keep:
                        name = f"{case[0]}_{case[1]}_{target.path.name}"
                        (keep / name).write_bytes(player.content(case))
                if worker.is_idle and left and time.monotonic() < end:
                    worker.give([left.pop() for _ in range(min(_BATCH, len(left)))])
            if time.monotonic() > end:
                left.clear()
            time.sleep(0.005)
    finally:
        for worker in crew:
            worker.stop()
    return tally
