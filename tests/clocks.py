"""Clocks for tests: limits that a busy machine keeps, and a clock that only the test moves."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def soon(seconds: float = 20) -> Iterator[None]:
    """Make sure that what follows does not wait for what never comes.

    The limit stands far above what it takes and far below the wait that is to be noticed (half
    a minute and more): a machine that is busy with something else is no failure.
    """
    begin = time.monotonic()
    yield
    taken = time.monotonic() - begin
    assert taken < seconds, f"it took {taken:.1f} s"


class SetClock:
    """Stands for the module `time`: its clocks go on when something sleeps on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.busy = 0.0

    def perf_counter(self) -> float:
        """Return seconds of the wall clock."""
        return self.now

    def process_time(self) -> float:
        """Return seconds that were computed."""
        return self.busy

    def sleep(self, seconds: float) -> None:
        """Let wall time pass."""
        self.now += seconds

    def compute(self, seconds: float) -> None:
        """Let wall and CPU time pass."""
        self.now += seconds
        self.busy += seconds
