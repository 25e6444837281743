"""Memory that a piece of work needs: kept for the backward pass, and at its peak."""

import ctypes
import gc
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from measuring.timing import wait_for

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def saved_bytes(run: Callable[[], Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Return the bytes that the graph of `run` keeps for its backward pass.

    A storage that several tensors share counts once.

    Args:
        run: a forward pass.
        besides: tensors that are there anyway: parameters, statistics.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = run()  # keeps what is saved alive, so that no address comes twice
    del out
    return sum(size for place, size in found.items() if place not in known)


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """Return by how much memory grows, at most, while `run` runs.

    On CUDA what PyTorch allocates; on a CPU the resident memory of this process. None where the
    system does not say.
    """
    if device.type == "cuda":
        wait_for(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        wait_for(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or sys.platform != "linux":
        return None
    try:
        _give_back()
        _CLEAR.write_text("5", encoding="ascii")  # the peak counts from here
        before = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - before)
    except (OSError, ValueError):
        return None


def _give_back() -> None:
    """Hand buffers that nobody uses to the system: what is reused would not show as growth."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _status(name: str) -> int:
    """Return a line of this process's status, bytes."""
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{_STATUS} has no {name}")
