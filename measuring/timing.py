"""Times of several ways to do the same, measured in turns so that a busy machine hits all alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]

# A call is repeated within one measurement until it lasts this long: clocks tick.
_LEAST_SECONDS = 0.02
_MOST_CALLS = 200


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of repeated measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Summarise measurements, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def times(self, factor: float) -> "Spread":
        """Return the same in another unit."""
        return Spread(self.median * factor, self.least * factor, self.most * factor)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call: on the clock, and of all cores together."""

    wall: Spread
    cpu: Spread

    def times(self, factor: float) -> "Timing":
        """Return the same per part of the work, or in another unit."""
        return Timing(self.wall.times(factor), self.cpu.times(factor))


def race(
    calls: Mapping[str, Call],
    repeats: int,
    device: torch.device | None = None,
    warm_up: int = 1,
) -> dict[str, Timing]:
    """Time calls in turns: each round runs all of them, and each round another one begins.

    Args:
        calls: what to time, by name; each does the same work at every call.
        repeats: rounds that count.
        device: waited for before the clock is read; None where nothing runs beside the CPU.
        warm_up: calls of each that do not count: compilation, buffers, caches.
    """
    names = list(calls)
    numbers = {name: _calls_needed(calls[name], device, warm_up) for name in names}
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            rounds[name].append(_measure(calls[name], numbers[name], device))
    return {name: _summarise(values) for name, values in rounds.items()}


def _calls_needed(call: Call, device: torch.device | None, warm_up: int) -> int:
    """Warm a call up and return how often to call it within one measurement."""
    for _ in range(warm_up):
        call()
    seconds, _ = _measure(call, 1, device)
    return min(_MOST_CALLS, math.ceil(_LEAST_SECONDS / max(seconds, 1e-6)))


def _measure(call: Call, number: int, device: torch.device | None) -> tuple[float, float]:
    """Return wall and CPU seconds of one of `number` calls."""
    wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(number):
        call()
    wait_for(device)
    return (time.perf_counter() - wall) / number, (time.process_time() - cpu) / number


def _summarise(values: list[tuple[float, float]]) -> Timing:
    wall, cpu = zip(*values, strict=True)
    return Timing(Spread.of(list(wall)), Spread.of(list(cpu)))


def wait_for(device: torch.device | None) -> None:
    """Wait until a device has done what it was asked for; a CPU always has."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device is not None and device.type == "mps":
        torch.mps.synchronize()
