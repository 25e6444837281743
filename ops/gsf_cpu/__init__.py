"""Gate-Shift-Fuse on a CPU with compiled loops and gradients by hand, where numba is installed.

The published formulation passes over the features some 30 times forward and 65 times backward.
Here they are read three times and written once: for the gates, for the means, for the output; and
once more in training, for the statistics of the batch. For the backward pass the input, the gates
and a few numbers for each channel and frame are kept.
"""

import importlib
import warnings
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops.gsf_plain import GSFWeights, refuse_double_backward


@cache
def _loops() -> ModuleType | None:
    """Import the compiled loops, when first needed: `work.py`, or None without numba."""
    try:
        import numba
    except ImportError:
        return None
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        _warn(error)
        return None
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return None
    try:
        return importlib.import_module("ops.gsf_cpu.work")
    except Exception as error:  # noqa: BLE001 - insides of numba that are not as we know them
        _warn(error)
        return None


def _warn(error: Exception) -> None:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    warnings.warn(
        f"numba does not work here ({reason}): GSF takes PyTorch's operations, the same numbers "
        "slower; install numba anew, or remove it",
        stacklevel=2,
    )


def can_run(x: Tensor) -> bool:
    """Return whether this formulation takes `x` (N, F, H, W): float32, rows without gaps, numba."""
    ordinary = type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu"
    if not ordinary or x.dtype != torch.float32 or not x.numel() or x.is_neg():
        return False
    loops = _loops()
    return loops is not None and loops.frame_stride(x) is not None


def apply_gsf(x: Tensor, weights: GSFWeights, num_segments: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gate, shift and fuse; differentiable once, by `x` and every parameter.

    Args:
        x: (N, F, H, W) for which `can_run`, clip by clip.
        weights: of the module; statistics of the batch are taken where `running` is None.
        num_segments: T.

    Returns:
        out (N, F, H, W), channels shuffled; mean (F,) and biased variance (F,) of the norm.
    """
    mean, var = weights.running or (None, None)
    constants = (mean, var, weights.eps, num_segments)
    return _FusedGSF.apply(x, constants, *weights[:2], *weights[4:])  # type: ignore[no-any-return]


def infer_gsf(
    x: Tensor,
    weights: GSFWeights,
    num_segments: int,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Return relu(scale * gsf(x) + offset + residual), without gradients.

    Args:
        x: (N, F, H, W) for which `can_run`, clip by clip.
        weights: of the module, with `running`.
        num_segments: T.
        scale: (F,) in the order of the output; None: 1.
        offset: (F,); None: 0.
        residual: (N, F, H, W) to be added; None: nothing.
        relu: whether negative results become 0.
    """
    loops = _loops()
    assert loops is not None
    affine = _no_norm(x)
    if scale is not None:
        affine[0] = scale.numpy()
    if offset is not None:
        affine[1] = offset.numpy()
    added = None
    if residual is not None:
        added = residual.contiguous().view(-1, x.shape[2] * x.shape[3]).numpy()
    return loops.run(loops.Work.of(x, weights, num_segments), affine, added, relu)  # type: ignore[no-any-return]


def _no_norm(x: Tensor) -> np.ndarray:
    affine = np.zeros((2, x.shape[1]), np.float32)
    affine[0] = 1
    return affine


class _FusedGSF(torch.autograd.Function):
    """The whole module; see `apply_gsf`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, constants: Any, *parameters: Tensor) -> tuple[Tensor, ...]:
        """Return output, mean and variance; the parameters are in the order of `GSFWeights`."""
        loops = _loops()
        assert loops is not None
        mean, var, ctx.eps, ctx.num_segments = constants
        ctx.of_batch = mean is None
        if ctx.of_batch:
            mean, var = loops.statistics(x)
        weights = _weights(parameters, (mean, var), ctx.eps)
        work = loops.Work.of(x, weights, ctx.num_segments)
        out = loops.run(work, _no_norm(x))
        ctx.save_for_backward(x, mean, var, *parameters, *work.found())
        mean, var = mean.to(x.dtype), var.to(x.dtype)
        if not ctx.of_batch:
            mean, var = mean.clone(), var.clone()
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and of the parameters."""
        refuse_double_backward()
        loops = _loops()
        assert loops is not None
        x, mean, var, *rest = ctx.saved_tensors
        parameters, found = rest[:6], rest[6:]
        weights = _weights(parameters, (mean, var), ctx.eps)
        work = loops.Work.of(x, weights, ctx.num_segments, tuple(found))
        grads = loops.gradients(work, grad, var, ctx.eps, ctx.of_batch)
        total, spread = torch.from_numpy(grads.sums).unbind(1)
        values = (
            spread / (var.double() + ctx.eps).sqrt(),
            total,
            *map(torch.from_numpy, (grads.taps, grads.gate_bias, grads.fuse, grads.fuse_bias)),
        )
        back = (value.to(p.dtype).view_as(p) for value, p in zip(values, parameters, strict=True))
        return torch.from_numpy(grads.x).view(x.shape), None, *back


def _weights(
    parameters: Sequence[Tensor], running: tuple[Tensor, Tensor], eps: float
) -> GSFWeights:
    weight, bias, taps, gate_bias, fuse, fuse_bias = parameters
    return GSFWeights(weight, bias, running, eps, taps, gate_bias, fuse, fuse_bias)
