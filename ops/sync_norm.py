"""Batch norm over the clips of several processes, on any device.

torch has it for GPUs; its rules are kept (the variance of a batch is biased, the running one is
not), and on a CPU the sums travel by the same process group.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _OnGpu(nn.SyncBatchNorm):
    """torch's, which can be switched off.

    Attributes:
        is_synced: whether the next batches are parts of common ones; alone it is plain batch norm.
    """

    is_synced = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) by the statistics of all N of the group."""
        return super().forward(x) if self.is_synced else _BatchNorm.forward(self, x)


class _OnCpu(_BatchNorm):
    """The same by plain operations.

    Attributes:
        is_synced: see `_OnGpu`.
        process_group: the processes; None for all.
    """

    is_synced = True
    process_group: dist.ProcessGroup | None = None

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected at least 2 axes, got {x.ndim}")

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, ...) by the statistics of all N of the group."""
        if not (self.training and self.is_synced):
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *([1] * (x.ndim - 2))]
        count = x.new_full((1,), x.numel() // x.shape[1])
        sums = _all_sum(torch.cat([x.sum(axes), count]), self.process_group)
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centred = x - mean.view(shape)
        var = _all_sum((centred * centred).sum(axes), self.process_group) / number
        self._follow(mean.detach(), var.detach(), float(number))
        out = centred * (var + self.eps).rsqrt().view(shape)
        return out * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)


class _AllSum(torch.autograd.Function):
    """The sum of a tensor over a group; each process's gradient is the sum of all of them."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = value.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def _all_sum(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    return _AllSum.apply(value, group)  # type: ignore[no-any-return]


def synchronise_norms(model: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Let every batch norm below a model take the statistics of a process group, in place.

    Names of parameters and running statistics stay. The model is on its device already.
    """
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            setattr(model, name, _synced(child, group))
        else:
            synchronise_norms(child, group)


def _synced(norm: _BatchNorm, group: dist.ProcessGroup | None) -> _BatchNorm:
    kind = _OnCpu if norm.weight.device.type == "cpu" else _OnGpu
    new = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.process_group = group
    # The tensors themselves, not copies: they lie where they should already.
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    return new.train(norm.training)


def set_synced(model: nn.Module, is_synced: bool) -> None:
    """Say whether the next batches of a model are parts of common ones."""
    for module in model.modules():
        if isinstance(module, (_OnCpu, _OnGpu)):
            module.is_synced = is_synced
