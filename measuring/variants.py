"""The formulations of GSF that are compared, and whether this machine can run them."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

import ops.gsf

# plain: no GSF, the limit; published: the published order of computation; eager: ours in PyTorch's
# own operations; compiled: ours through torch.compile; fused: ours in kernels of our own.
VARIANTS = ("plain", "published", "eager", "compiled", "fused")
PLAIN, PUBLISHED, EAGER, COMPILED, FUSED = VARIANTS

# What PyTorch, Triton, Numba and our own checks raise when something cannot run here.
CANNOT = (RuntimeError, ValueError, ImportError, NotImplementedError, TypeError)


def formulation(variant: str) -> AbstractContextManager[object]:
    """Return the context in which our GSF computes as `variant` says."""
    if variant not in (EAGER, FUSED):
        return nullcontext()
    return ops.gsf.formulation(variant)


def within(variant: str, module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the call of a module in the formulation that its name asks for."""

    def call(x: Tensor) -> Tensor:
        with formulation(variant):
            return module(x)

    return call


def compile_in_place(module: nn.Module) -> None:
    """Let a module compile itself at its first call in each mode."""
    # Every shape and mode is another graph, and there is a limit to the graphs of one function.
    torch.compiler.reset()
    module.compile(dynamic=False)


def why_not_compiled(device: torch.device) -> str:
    """Say what torch.compile lacks on this machine; "" when nothing."""
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler on this machine"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return "this GPU is too old for Triton"
    return ""


def why_not(call: Callable[[], object]) -> str:
    """Run a call once and return why it cannot be run, in one line; "" when it can."""
    try:
        call()
    except CANNOT as error:
        lines = str(error).strip().splitlines()
        return lines[0][:200] if lines else type(error).__name__
    return ""
