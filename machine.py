"""The machine a script runs on: devices, number types, signals, allocator."""

import ctypes
import os
import signal
import sys
from types import FrameType
from typing import Any

import torch

from errors import InputError, Interrupted

# glibc's names for mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that loops poll between steps.

    Use as a context manager. A second signal ends the program at once.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _request(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)

    def poll(self) -> None:
        """Raise `Interrupted` when a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)


def choose_device(name: str, gpus: list[int] | None) -> torch.device:
    """Return the device that `--device` and `--gpus` ask for.

    Raises:
        InputError: the device is not there, or several GPUs are asked of one process.
    """
    if gpus is not None and len(gpus) > 1:
        raise InputError(f"--gpus {' '.join(map(str, gpus))}: one process uses one GPU: name one")
    if name == "auto":
        name = _best_device()
    if gpus is not None and name != "cuda":
        raise InputError(f"--gpus {gpus[0]} needs CUDA, and the device is {name}: drop --gpus")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, True):
        raise InputError(f"--device {name} is not available on this machine: use --device auto")
    if name == "cuda" and gpus is not None and gpus[0] >= torch.cuda.device_count():
        raise InputError(
            f"--gpus {gpus[0]} is not there: this machine has {torch.cuda.device_count()} GPUs, "
            "counted from 0"
        )
    return torch.device(name, gpus[0]) if gpus is not None else torch.device(name)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_amp_dtype(enabled: bool, name: str | None, device: torch.device) -> torch.dtype | None:
    """Return the autocast type of `--with_amp` and `--amp_dtype`, or None."""
    if not enabled:
        return None
    name = name or ("fp16" if device.type == "cuda" else "bf16")
    return {"fp16": torch.float16, "bf16": torch.bfloat16}[name]


def prepare_cpu(threads: int | None) -> None:
    """Make CPU training steady: few threads, no denormals, large buffers kept between steps.

    Threads wait for each other by spinning, so one that shares its core with a loader process
    holds up all: with 2 threads on 2 busy cores an epoch took 8 times as long as with 1.

    glibc returns every buffer above 32 MiB to the system at once, so each step pays for mapping
    its activations anew; both thresholds at 1 GiB keep them.

    Args:
        threads: of this process; None takes half of the cores, the others serve the loader.
    """
    torch.set_num_threads(threads or max(1, num_cores() // 2))
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
