"""When a run is saved: often enough to lose little, seldom enough to cost nothing."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor

from checkpoints import CheckpointFolder
from errors import InputError
from files import append_line

# Of the time, for checkpoints that need not be.
MOST_SHARE = 0.01
NON_FINITE = "nonfinite.jsonl"

Pack = Callable[[], dict[str, Any]]


class Saver:
    """Writes the checkpoints of one run: an `engine.Keeper`.

    The newest state is written at ends of epochs as long as that takes less than 1 % of the time,
    and at the latest every `minutes`. The best state waits in memory where writing it at once would
    cost more; it is on disk before any newer state is.

    Args:
        folder: of the run; None in processes that write nothing.
        minutes: longest time between two checkpoints; 0 saves after every step.
        pack: returns the whole state, as tensors that the next step may change.
    """

    def __init__(self, folder: CheckpointFolder | None, minutes: float, pack: Pack) -> None:
        self._folder, self._seconds, self._pack = folder, 60 * minutes, pack
        self._best: dict[str, Any] | None = None
        self._start = self._saved = time.monotonic()
        self._spent = self._cost = 0.0

    def is_due(self) -> bool:
        """Say whether the longest time has passed."""
        return self._folder is not None and time.monotonic() - self._saved >= self._seconds

    def save(self) -> None:
        """Write the newest state, after the best one if that is still in memory.

        Raises:
            InputError: it cannot be written; what was there before is still there.
        """
        if self._folder is None:
            return
        begin = time.monotonic()
        self._write_best(self._folder)
        self._folder.save_last(self._pack())
        self._saved = time.monotonic()
        self._count(self._saved - begin, wrote=True)

    def end_epoch(self) -> None:
        """Write the newest state if it is due, or costs little.

        Raises:
            InputError: see `save`.
        """
        if self.is_due() or self._is_cheap():
            self.save()

    def keep_best(self) -> None:
        """Take the state as the best one; write it now if that costs little, else with the next.

        Raises:
            InputError: it is not finite, or cannot be written.
        """
        if self._folder is None:
            return
        begin = time.monotonic()
        self._best = _copied(_without_optimizer(self._pack()))
        writes = self.is_due() or self._is_cheap()
        if writes:
            self._write_best(self._folder)
        self._count(time.monotonic() - begin, wrote=writes)

    def rescue(self) -> None:
        """Write the newest state of a run that ends by an error, if that is still possible."""
        with suppress(InputError):
            self.save()

    def note_non_finite(self, record: Mapping[str, Any]) -> None:
        """Write down a step that was not taken.

        Raises:
            OSError: it cannot be written.
        """
        if self._folder is not None:
            append_line(self._folder.path / NON_FINITE, record)

    def _write_best(self, folder: CheckpointFolder) -> None:
        if self._best is not None:
            folder.save_best(self._best)
            self._best = None

    def _is_cheap(self) -> bool:
        elapsed = time.monotonic() - self._start
        return self._spent + self._cost <= MOST_SHARE * elapsed

    def _count(self, seconds: float, *, wrote: bool) -> None:
        self._spent += seconds
        if wrote:  # what the next writing may cost; a slow one is forgotten in time
            self._cost = max(seconds, 0.7 * self._cost)

    @property
    def spent(self) -> float:
        """Return the seconds that writing took so far."""
        return self._spent


def _without_optimizer(packed: dict[str, Any]) -> dict[str, Any]:
    """Return what tests and predictions need of a state, a half or a third of it."""
    return {name: part for name, part in packed.items() if name not in ("optimizer", "scaler")}


def _copied(value: Any) -> Any:
    """Return nested dicts and lists whose tensors nobody else changes."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: _copied(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(part) for part in value)
    return value
