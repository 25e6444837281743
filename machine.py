"""The machine a script runs on: devices, number types, layouts, compiler, signals, allocator."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import nn

from errors import InputError, Interrupted
from ops.dealing import Share

# SIGUSR1 is what SLURM sends before it takes a machine away.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
# glibc's names for mallopt, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class StopRequest:
    """Turns SIGINT, SIGTERM and SIGUSR1 into a flag that loops poll between steps.

    Use as a context manager. The same event may be signalled twice, by a terminal and by torchrun:
    a signal within `patience` seconds of the first is taken as the same; a later one ends the
    program at once.

    Attributes:
        signum: the signal that came; None before.
        alone: this process may stop without asking others; `poll` and `at_once` do nothing else.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self.signum: int | None = None
        self.alone = True
        self._patience, self._since = patience, 0.0
        self._is_at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for signum in STOP_SIGNALS:
            self._previous[signum] = signal.signal(signum, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _request(self, signum: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum is None:
            self.signum, self._since = signum, now
        elif now - self._since > self._patience:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        if self._is_at_once:
            self.poll()

    def poll(self) -> None:
        """Raise `Interrupted` when a signal has come, and this process may stop alone."""
        if self.signum is not None and self.alone:
            raise Interrupted(self.signum)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block at any point of it, by `Interrupted`."""
        outer, self._is_at_once = self._is_at_once, True
        try:
            self.poll()
            yield
        finally:
            self._is_at_once = outer


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


def choose_own_device(name: str, gpus: list[int] | None, share: Share) -> torch.device:
    """Return the device of one of several processes: each on a machine has a GPU of its own.

    Raises:
        InputError: it is not there, or `--gpus` names too few.
    """
    if share.count > 1:
        if gpus is not None and share.local >= len(gpus):
            raise InputError(
                f"--gpus names {len(gpus)} devices, and torchrun starts more processes: name one "
                "for each"
            )
        is_cuda = choose_device(name, None).type == "cuda"
        gpus = [gpus[share.local] if gpus else share.local] if gpus or is_cuda else None
    return choose_device(name, gpus)


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


def is_out_of_memory(error: Exception) -> bool:
    """Say whether an error means that tensors found no room, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def has_fast_bf16() -> bool:
    """Say whether this CPU multiplies bfloat16 itself; others do it in float32, with detours."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def choose_channels_last(choice: str, device: torch.device, amp_dtype: torch.dtype | None) -> bool:
    """Say whether pixels are to lie channel by channel, for "on", "off" or "auto".

    "auto" takes it where it pays: for the tensor cores of a GPU, which want it. On a CPU with
    bfloat16 instructions it gained 4 to 17 % without GSF, and lost 0 to 20 % with it.
    """
    if choice == "auto":
        return device.type == "cuda" and amp_dtype is not None
    return choice == "on"


def tune_network(
    model: nn.Module, device: torch.device, *, channels_last: bool, compiled: bool
) -> None:
    """Make a network that is on its device fast there, in place; values and names stay.

    Args:
        model: takes batches of few sizes, all of one shape.
        device: where it is.
        channels_last: see `use_channels_last`.
        compiled: see `compile_model`.

    Raises:
        InputError: this machine cannot compile.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # try the convolutions of each size, keep the fastest
    if channels_last:
        use_channels_last(model)
    if compiled:
        compile_model(model, device)


def use_channels_last(model: nn.Module) -> None:
    """Let the weights of 2-D convolutions, in place, lie channel by channel; frames follow.

    Values and names stay, so checkpoints do not know of it.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Compile the forward and backward pass of a model, in place, at its first call.

    Each size of a batch is compiled for itself: the last one of a list is the only other. The
    names of weights stay.

    Raises:
        InputError: this machine cannot compile.
    """
    try:
        # Triton and the C++ compiler are looked for when a function is compiled, not before.
        torch.compile(_probe)(torch.ones(64, device=device))
    except Exception as error:  # noqa: BLE001 - what is missing decides about the kind of error
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        missing = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise InputError(
            f"--compile does not work on this machine ({type(error).__name__}: {reason}): install "
            f"{missing}, or drop --compile"
        ) from error
    model.compile(dynamic=False)


def _probe(values: torch.Tensor) -> torch.Tensor:
    return torch.sin(values) + 1


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
