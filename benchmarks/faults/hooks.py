"""What is planted in a program under test: it kills, signals or announces itself at a chosen place.

The product knows nothing of it: functions of torch and of the system, and three methods of ours
that stand for what a program is doing, are wrapped before the program starts. Orders are plain
values, so that they can be handed to a forked child and to a process of `torchrun` alike.
"""

import io
import json
import os
import signal
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from datasets.clips import ClipDataset
from datasets.skeletons import SkeletonDataset
from models.classifier import ClipClassifier
from ops.batch import Batch
from saving import Saver

Orders = Mapping[str, Any]

PHASES = ("data", "compile", "step", "evaluation", "save")
# Through these every file of a run gets its name, its place on disk, or goes.
_CALLS = ("fsync", "replace", "rename", "link", "unlink")


def install(orders: Orders) -> None:
    """Wrap what the orders need.

    Args:
        orders: any of
            "visit": {"phase", "nth", and "announce": file, "hold": seconds, or "signum"}: at the
                n-th visit (from 1) of a phase, make the file and stay there, or signal oneself.
                "forward" is a phase too: each call of the network, in training or evaluation.
                With "rank", only in this process of a torchrun call.
            "kill": {"nth", "when": "before", "after" or "torn", "fate": file, "share": 0-1}: end
                by SIGKILL at the n-th call that changes a file, or amid the n-th checkpoint, of
                which that share is in its file; `fate` names the call.
            "calls": file that gets a byte for each call that a "kill" counts, "saves": one for
                each checkpoint.
            "steps": file that gets the time of each optimiser step, float64.
            "trace": file that gets, for each optimiser step, clips and loss as a line of JSON.
            "timed": file that gets the seconds of each checkpoint, a line each.
    """
    visit = orders.get("visit")
    if visit and visit.get("rank", _rank()) == _rank():
        _plant_visit(visit)
    if "kill" in orders or "calls" in orders or "saves" in orders:
        _plant_kills(orders)
    if "steps" in orders:
        path = _own(orders["steps"])
        register_optimizer_step_post_hook(
            lambda *_: _append(path, struct.pack("d", time.monotonic()))
        )
    if "trace" in orders:
        _plant_trace(_own(orders["trace"]))
    if "timed" in orders:
        _plant_clock(Path(orders["timed"]))


def read_times(path: Path) -> list[float]:
    """Return what an order "steps" wrote: seconds of the monotonic clock."""
    data = path.read_bytes() if path.is_file() else b""
    return [time for (time,) in struct.iter_unpack("d", data[: len(data) // 8 * 8])]


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _own(path: str) -> Path:
    """Return the file of this process: that of process 0 has the name itself."""
    return Path(path if _rank() == 0 else f"{path}.{_rank()}")


def _append(path: Path, data: bytes) -> None:
    """Add bytes that are there even if the process is killed in the next moment."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace `owner.name` by `around(original, *arguments)`."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(original, *arguments, **options)

    setattr(owner, name, wrapped)


# ---------------------------------------------------------------- phases


@dataclass
class _Visit:
    """Counts visits and acts at one of them."""

    order: Orders
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count != self.order["nth"]:
            return
        if "signum" in self.order:
            os.kill(os.getpid(), self.order["signum"])
            return
        _append(Path(self.order["announce"]), b"here")
        time.sleep(self.order["hold"])


def _plant_visit(order: Orders) -> None:
    phase, visit = order["phase"], _Visit(order)
    _PLANTERS[phase](phase, visit)


def _plant_forward(phase: str, visit: _Visit) -> None:
    def forward(original: Callable[..., Any], model: nn.Module, *arguments: Any) -> Any:
        if phase in ("step" if model.training else "evaluation", "forward"):
            visit()
        return original(model, *arguments)

    _wrap(ClipClassifier, "forward", forward)


def _plant_data(_: str, visit: _Visit) -> None:
    def load(original: Callable[..., Any], clips: ClipDataset, keys: Any) -> Any:
        if clips.views.train:
            visit()
        return original(clips, keys)

    _wrap(ClipDataset, "__getitem__", load)
    _wrap(SkeletonDataset, "__getitems__", load)


def _plant_save(_: str, visit: _Visit) -> None:
    def save(original: Callable[..., Any], content: Any, file: Any, **options: Any) -> Any:
        if not isinstance(file, io.BytesIO):  # that is a message to other processes
            visit()
        return original(content, file, **options)

    _wrap(torch, "save", save)


def _plant_compile(_: str, visit: _Visit) -> None:
    def prepare(original: Callable[..., Any], model: nn.Module, **options: Any) -> None:
        original(model, **options)
        compiled = model._compiled_call_impl

        def call(*arguments: Any, **named: Any) -> Any:
            visit()
            return compiled(*arguments, **named)  # type: ignore[misc]

        model._compiled_call_impl = call

    _wrap(nn.Module, "compile", prepare)


_PLANTERS: Mapping[str, Callable[[str, _Visit], None]] = {
    "data": _plant_data,
    "compile": _plant_compile,
    "step": _plant_forward,
    "evaluation": _plant_forward,
    "forward": _plant_forward,
    "save": _plant_save,
}


# ---------------------------------------------------------------- kills


class _Killer:
    """Counts calls that change files, and ends the process at one of them."""

    def __init__(self, orders: Orders) -> None:
        self.order = orders.get("kill", {})
        self.calls, self.saves = (
            Path(orders[key]) if key in orders else None for key in ("calls", "saves")
        )
        self.count = self.count_saves = 0

    def call(self, name: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Stand for a function of `os`."""
        self.count += 1
        if self.calls is not None:
            _append(self.calls, b".")
        is_it = self.order.get("nth") == self.count
        if is_it and self.order["when"] == "before":
            self.end(name, *arguments)
        result = original(*arguments, **named)
        if is_it and self.order["when"] == "after":
            self.end(name, *arguments)
        return result

    def save(self, original: Callable[..., Any], content: Any, file: Any, **named: Any) -> Any:
        """Stand for `torch.save`."""
        if isinstance(file, io.BytesIO):  # a message to other processes
            return original(content, file, **named)
        self.count_saves += 1
        if self.saves is not None:
            _append(self.saves, b".")
        if self.order.get("when") != "torn" or self.order["nth"] != self.count_saves:
            return original(content, file, **named)
        whole = io.BytesIO()
        original(content, whole, **named)
        part = whole.getvalue()[: int(self.order["share"] * whole.tell())]
        file.write(part)
        file.flush()
        self.end("save")
        return None

    def end(self, name: str, *arguments: Any) -> None:
        """Say where, and die of it."""
        _append(Path(self.order["fate"]), f"{name} {' '.join(map(_named, arguments))}".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def _named(argument: Any) -> str:
    """Return the name of a file, also of one that is known by its descriptor."""
    if isinstance(argument, int):
        try:
            return str(Path(f"/proc/self/fd/{argument}").readlink())
        except OSError:
            return "descriptor"
    return os.fsdecode(argument) if isinstance(argument, (str, bytes, os.PathLike)) else "?"


def _plant_kills(orders: Orders) -> None:
    killer, main = _Killer(orders), os.getpid()

    def planted(name: str) -> Callable[..., Any]:
        def around(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            if os.getpid() != main:  # loader processes change no files of the run
                return original(*arguments, **named)
            return killer.call(name, original, *arguments, **named)

        return around

    for name in _CALLS:
        if orders.get("kill", {}).get("when") != "torn":
            _wrap(os, name, planted(name))
    _wrap(torch, "save", killer.save)


# ---------------------------------------------------------------- what happened


def _plant_trace(path: Path) -> None:
    """Write clips and losses of each step; a step ends where the optimiser has moved."""
    seen: dict[str, list[Any]] = {"clips": [], "loss": []}

    def to(original: Callable[..., Any], batch: Batch, *arguments: Any) -> Batch:
        if torch.is_grad_enabled() and batch.clips:
            seen["clips"].append(list(batch.clips))
        return original(batch, *arguments)

    def loss(original: Callable[..., Any], *arguments: Any, **named: Any) -> torch.Tensor:
        value = original(*arguments, **named)
        if torch.is_grad_enabled():
            # As the reduction may be anything, the sum over clips is computed here.
            logits, labels = arguments[:2]
            with torch.no_grad():
                seen["loss"].append(
                    float(original(logits.detach().double(), labels, reduction="sum"))
                )
        return value

    def step(*_: Any) -> None:
        _append(path, (json.dumps(seen) + "\n").encode())
        seen["clips"], seen["loss"] = [], []

    _wrap(Batch, "to", to)
    _wrap(F, "cross_entropy", loss)
    register_optimizer_step_post_hook(step)


def _plant_clock(path: Path) -> None:
    """Write how long each checkpoint took, with copies of the state and all that goes with it."""

    def timed(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = original(*arguments, **named)
        _append(path, f"{time.perf_counter() - start}\n".encode())
        return result

    for name in ("save", "keep_best"):
        _wrap(Saver, name, timed)
