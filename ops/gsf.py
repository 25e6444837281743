"""Gate-Shift-Fuse: gated channels move one frame back or forth in time and are fused with the rest.

Source: Sudhakaran, Escalera, Lanz, TPAMI 2023, arXiv:2203.08897. The numbers and the parameter
names are the published ones. They can be computed in several ways, and the module takes the
fastest that can run:

- fused: loops over the features that do several steps at once, gradients by hand. On a CPU
  `gsf_cpu/` (numba, float32), on CUDA `gsf_cuda/` (Triton).
- eager: PyTorch's own operations in a cheaper order (`gsf_eager.py`). Any device, type and layout.
- plain: operations that every compiler knows (`gsf_plain.py`), for `torch.compile`, export, tracing
  and the transforms of `torch.func`.

Shapes: N = B*T frames (clip by clip), 2 groups, K channels in each, F = 2K of C channels are gated.
"""

import importlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as everywhere

from errors import InputError
from ops.gsf_eager import eager_gate, eager_gsf
from ops.gsf_plain import GSFWeights, plain_gsf

FORMULATIONS = ("auto", "eager", "fused", "plain")
_FUSED = {"cpu": "ops.gsf_cpu", "cuda": "ops.gsf_cuda"}


class After(NamedTuple):
    """What follows GSF in a network: relu(norm(gsf(x)) + residual), in evaluation.

    Attributes:
        scale: (C,) factor of the norm, in the order of the output.
        offset: (C,).
        residual: (N, C, H, W).
        relu: whether a ReLU follows.
    """

    scale: Tensor
    offset: Tensor
    residual: Tensor | None
    relu: bool


class _Choice:
    """The formulation that is forced on all modules, in all threads."""

    name = "auto"


@contextmanager
def formulation(name: str) -> Iterator[None]:
    """Force a formulation on all GSF modules, for tests and measurements.

    Args:
        name: one of `FORMULATIONS`; auto is the usual choice. "fused" raises `InputError` for an
            input that it cannot take. Compilation, export and `torch.func` see "plain" all the
            same.

    Raises:
        ValueError: another name.
    """
    if name not in FORMULATIONS:
        raise ValueError(f"unknown formulation {name!r}: choose from {', '.join(FORMULATIONS)}")
    before, _Choice.name = _Choice.name, name
    try:
        yield
    finally:
        _Choice.name = before


class GSF(nn.Module):
    """Gate-Shift-Fuse on the first `gsf_ch_ratio` per cent of the channels; the others pass.

    Args:
        channels: C of the input.
        num_segments: T, frames per clip.
        gsf_ch_ratio: share of the channels, per cent. They must be a multiple of 4: two groups,
            each interleaved in two halves.

    Of the convolutions only the weights are used: hooks on them never fire, those on `bn` do.

    Raises:
        InputError: the share is no positive multiple of 4 channels.
    """

    def __init__(self, channels: int, num_segments: int, gsf_ch_ratio: int = 100) -> None:
        super().__init__()
        self.num_segments = num_segments
        self.gated_channels = gated_channels(channels, gsf_ch_ratio)
        self.conv3D = nn.Conv3d(self.gated_channels, 2, kernel_size=3, padding=1, groups=2)
        # The statistics over (B*T, H, W) are those of the published BatchNorm3d over (B, T, H, W).
        self.bn = nn.BatchNorm2d(self.gated_channels)
        self.channel_conv1 = nn.Conv2d(2, 1, kernel_size=3, padding=1)
        self.channel_conv2 = nn.Conv2d(2, 1, kernel_size=3, padding=1)

    def extra_repr(self) -> str:
        """Show what the submodules do not."""
        return f"num_segments={self.num_segments}, gated_channels={self.gated_channels}"

    def forward(self, x: Tensor, after: After | None = None) -> Tensor:
        """Map (N, C, H, W), clip by clip, to the same shape.

        Args:
            x: features.
            after: what follows, to be done here as well; only where `can_fold(x)`.
        """
        if x.shape[0] % self.num_segments:
            raise ValueError(
                f"GSF got {x.shape[0]} frames, no multiple of num_segments {self.num_segments}: "
                "give whole clips"
            )
        # Types are set by hand: large maps keep the type of x, small ones are at least float32.
        with _own_types(x.device.type):
            if x.shape[1] == self.gated_channels:
                return self._gated(x, after)
            fused = self._gated(x[:, : self.gated_channels], None)
            return torch.cat([fused, x[:, self.gated_channels :]], dim=1)

    def gate(self, x: Tensor) -> Tensor:
        """Return the gates of (N, C, H, W): (N, 2, H, W) in (-1, 1), for pictures of them.

        What passes the gate of group 0 goes to the segment before, that of group 1 to the next.
        """
        with _own_types(x.device.type):
            active = torch.relu_(self.bn(x[:, : self.gated_channels]))
            gate = eager_gate(active, self._weights(), self.num_segments)
            return gate.unflatten(2, x.shape[2:])

    def can_fold(self, x: Tensor) -> bool:
        """Return whether `forward` can do what follows in the same pass over `x` (N, C, H, W)."""
        if torch.is_grad_enabled() or self.bn.training or x.shape[1] != self.gated_channels:
            return False
        return _how(x) == "fused" and self._is_bare()

    def _gated(self, x: Tensor, after: After | None) -> Tensor:
        """Map the gated channels (N, F, H, W) to the same shape."""
        how = _how(x)
        if how == "fused" and self._is_bare():
            return self._fused(x, after)
        assert after is None, "can_fold was not asked"
        function = plain_gsf if how == "plain" else eager_gsf
        return function(x, self.bn, self._weights(), self.num_segments)

    def _fused(self, x: Tensor, after: After | None) -> Tensor:
        kernels = _fused_kernels(x.device.type)
        assert kernels is not None
        weights = self._weights()
        if weights.running is not None and not torch.is_grad_enabled():
            end = after or ()
            return kernels.infer_gsf(x, weights, self.num_segments, *end)  # type: ignore[no-any-return]
        if weights.running is None and x.numel() == x.shape[1]:
            raise ValueError(f"Expected more than 1 value per channel when training, got {x.shape}")
        out, mean, var = kernels.apply_gsf(x, weights, self.num_segments)
        if self.bn.training and self.bn.track_running_stats:
            self._follow(mean, var, x.numel() // x.shape[1])
        return out  # type: ignore[no-any-return]

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics as BatchNorm does."""
        bn = self.bn
        assert bn.running_mean is not None
        assert bn.running_var is not None
        assert bn.num_batches_tracked is not None
        bn.num_batches_tracked.add_(1)
        momentum = bn.momentum
        if momentum is None:
            momentum = 1.0 / float(bn.num_batches_tracked)
        bn.running_mean.lerp_(mean.to(bn.running_mean.dtype), momentum)
        bn.running_var.lerp_((var * (count / (count - 1))).to(bn.running_var.dtype), momentum)

    def _weights(self) -> GSFWeights:
        bn, fuse = self.bn, (self.channel_conv1, self.channel_conv2)
        running = None
        if not bn.training and bn.running_mean is not None and bn.running_var is not None:
            running = bn.running_mean, bn.running_var
        assert self.conv3D.bias is not None
        return GSFWeights(
            bn.weight,
            bn.bias,
            running,
            bn.eps,
            self.conv3D.weight,
            self.conv3D.bias,
            torch.stack([conv.weight for conv in fuse]),
            torch.stack([conv.bias for conv in fuse if conv.bias is not None]),
        )

    def _is_bare(self) -> bool:
        """Return whether the submodules are only parameters: no other norm, no hooks."""
        bn = self.bn
        if type(bn) is not nn.BatchNorm2d or bn.weight is None:
            return False
        return not has_hooks(*self.children())


def has_hooks(*modules: nn.Module) -> bool:
    """Return whether something listens to modules, so that they have to be called."""
    if any(
        (
            everywhere._global_forward_hooks,
            everywhere._global_forward_pre_hooks,
            everywhere._global_backward_hooks,
            everywhere._global_backward_pre_hooks,
        )
    ):
        return True
    return any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
        for m in modules
    )


def _how(x: Tensor) -> str:
    """Return the formulation for the gated channels (N, F, H, W)."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or _is_transformed():
        return "plain"
    if _Choice.name in ("eager", "plain"):
        return _Choice.name
    kernels = _fused_kernels(x.device.type)
    if kernels is not None and kernels.can_run(x):
        return "fused"
    if _Choice.name == "fused":
        raise InputError(
            f"the fused GSF takes no {x.dtype} of shape {tuple(x.shape)} and strides {x.stride()} "
            f"on {x.device.type}: it needs numba and contiguous float32 on a CPU, Triton on CUDA; "
            'use formulation("eager")'
        )
    return "eager"


def _is_transformed() -> bool:
    """Return whether derivatives are taken in a way that no gradient by hand survives."""
    is_forward = forward_ad._current_level >= 0
    return is_forward or bool(torch._C._are_functorch_transforms_active())


@cache
def _fused_kernels(device_type: str) -> ModuleType | None:
    """Return the fused formulation of a device, or None."""
    if device_type not in _FUSED:
        return None
    try:
        return importlib.import_module(_FUSED[device_type])
    except ImportError:  # Triton is not everywhere
        return None


def gated_channels(channels: int, gsf_ch_ratio: int) -> int:
    """Return how many of `channels` go through GSF.

    Raises:
        InputError: the number is no positive multiple of 4.
    """
    count = channels * gsf_ch_ratio // 100
    if 0 < count <= channels and count % 4 == 0:
        return count
    valid = [r for r in range(1, 101) if (f := channels * r // 100) and f % 4 == 0]
    # Shares without rounding first: they also fit the later stages, with 2, 4, 8 times as many.
    valid = [r for r in valid if channels * r % 400 == 0] or valid
    nearest = min(valid, key=lambda r: abs(r - gsf_ch_ratio), default=None)
    way_out = "use a wider backbone" if nearest is None else f"use --gsf_ch_ratio {nearest}"
    raise InputError(
        f"--gsf_ch_ratio {gsf_ch_ratio} of {channels} channels is {count} channels, GSF needs a "
        f"positive multiple of 4: {way_out}"
    )


def _own_types(device_type: str) -> AbstractContextManager[object]:
    """Switch autocast off where the device has it ("meta", for counting, has not)."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
