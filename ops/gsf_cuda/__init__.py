"""Gate-Shift-Fuse on CUDA devices, as Triton kernels. Their speed on a GPU is unmeasured.

What the kernels compute is tested with Triton's interpreter on a CPU, and that they compile for
sm_80 and sm_90. This module needs no Triton; without it `can_run` is False.

Forward, three kernels (F: elements of the gated input, the unit of traffic):

1. `taps_kernel` reads x (1 F), norms and rectifies it and multiplies it with the 27 taps of the
   gate convolution; writes 27 maps per group.
2. `gate_kernel` reads x (1 F) and those maps, adds each map at its place, writes the gates and
   the spatial sums of gate * x and x.
3. `fuse_kernel` reads x (1 F; the neighbouring frame comes from the L2 cache), finds the shares
   from the sums and writes the output (1 F); in evaluation also a following norm, a residual sum
   (1 F more) and ReLU.

That is 4 F and small maps: 27 in float32, written and read, against K channels of x. Two more
kernels find the statistics of a training batch (1 F). Backward, five kernels and three small sums,
7 F: the fusion (x and the gradient, 2 F), the share (no maps), the gate (x, 1 F), convolution and
norm (x, 1 F), the input (x and the gradient read, its gradient written: 3 F). Kept for it: x,
gates, shares, sums and statistics.
"""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ops.gsf_cuda.layout import in_reach, interpreted, pixel_stride
from ops.gsf_plain import GSFWeights

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def can_run(x: Tensor) -> bool:
    """Return whether the kernels take x (N, F, H, W): device, type, layout and Triton.

    False for an empty batch, for maps whose rows do not follow each other at one distance, and
    where Triton is not installed.
    """
    if x.ndim != 4 or x.dtype not in DTYPES or not x.numel() or x.shape[1] % 4:
        return False
    if pixel_stride(x) is None or not in_reach(x) or find_spec("triton") is None:
        return False
    if interpreted():
        return x.device.type == "cpu"
    if not x.is_cuda or torch.version.hip is not None:
        return False
    oldest = (8, 0) if x.dtype == torch.bfloat16 else (7, 0)
    return torch.cuda.get_device_capability(x.device) >= oldest


def infer_gsf(
    x: Tensor,
    weights: GSFWeights,
    num_segments: int,
    scale: Tensor | None = None,
    offset: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Gate, shift and fuse without gradients, and what follows in the same pass.

    Args:
        x: (N, F, H, W), the gated channels, clip by clip; `can_run(x)` holds.
        weights: of the module; without running statistics those of the batch are used.
        num_segments: T.
        scale: (F,) of a folded norm, in the order of the output's channels; with `offset`.
        offset: (F,).
        residual: (N, F, H, W), added after that.
        relu: rectify at the end.

    Returns:
        (N, F, H, W) of the type and layout of x.
    """
    from ops.gsf_cuda import launch

    assert (scale is None) == (offset is None)
    with torch.no_grad(), _on(x):
        statistics = weights.running or launch.moments(x)
        after = launch.After(scale, offset, residual, relu)
        return launch.forward(x, weights, statistics, num_segments, after, keep=False)[0]


def apply_gsf(x: Tensor, weights: GSFWeights, num_segments: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gate, shift and fuse, differentiable once with respect to x and every weight.

    Args:
        x: (N, F, H, W), the gated channels, clip by clip; `can_run(x)` holds.
        weights: of the module; without running statistics those of the batch are used.
        num_segments: T.

    Returns:
        The output, of the type and layout of x, and the mean and biased variance that were used,
        (F,) each, constants.

    Raises:
        RuntimeError: when the gradients are to be differentiated again.
    """
    running = weights.running or (None, None)
    out, mean, var = _FusedGSF.apply(
        x,
        weights.bn_weight,
        weights.bn_bias,
        *running,
        weights.taps_weight,
        weights.gate_bias,
        weights.fuse_weight,
        weights.fuse_bias,
        weights.eps,
        num_segments,
    )
    return (out, mean, var) if weights.running is None else (out, *weights.running)


class _FusedGSF(torch.autograd.Function):
    """The kernels as one differentiable operation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bn_weight: Tensor,
        bn_bias: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        taps_weight: Tensor,
        gate_bias: Tensor,
        fuse_weight: Tensor,
        fuse_bias: Tensor,
        eps: float,
        num_segments: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return output, mean and variance."""
        from ops.gsf_cuda import launch

        learned = (taps_weight, gate_bias, fuse_weight, fuse_bias)
        weights = GSFWeights(bn_weight, bn_bias, None, eps, *learned)
        ctx.training = mean is None or var is None
        with _on(x):
            if mean is None or var is None:
                mean, var = launch.moments(x)
            else:  # a module may update its statistics in place before the backward pass
                mean, var = mean.clone(), var.clone()
            out, kept = launch.forward(
                x, weights, (mean, var), num_segments, launch.After(), keep=True
            )
        ctx.num_segments, ctx.eps = num_segments, eps
        ctx.mark_non_differentiable(mean, var)
        ctx.save_for_backward(x, bn_weight, bn_bias, *learned, mean, var, *kept)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and of the weights."""
        from ops.gsf_cuda import launch

        if torch.is_grad_enabled():
            raise RuntimeError(
                "the fused GSF is differentiable once, its gradients have none: "
                'run the model within ops.gsf.formulation("plain")'
            )
        x, bn_weight, bn_bias, *rest = ctx.saved_tensors
        learned, (mean, var), kept = rest[:4], rest[4:6], launch.Kept(*rest[6:])
        weights = GSFWeights(bn_weight, bn_bias, None, ctx.eps, *learned)
        with _on(x):
            found = launch.backward(
                grad, x, weights, (mean, var), ctx.num_segments, kept,
                training=ctx.training, input_too=ctx.needs_input_grad[0],
            )  # fmt: skip
        norm = found.bn_weight.to(bn_weight.dtype), found.bn_bias.to(bn_bias.dtype)
        others = (g.to(w.dtype) for g, w in zip(found[3:], learned, strict=True))
        return found.x, *norm, None, None, *others, None, None


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of x the one that kernels are launched on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
