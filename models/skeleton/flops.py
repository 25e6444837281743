"""How much a model computes."""

import math
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.skeleton.slowonly import ConvNorm
from ops.batch import Batch

_ATEN = torch.ops.aten
_NORMS = (
    _ATEN.native_batch_norm,
    _ATEN._native_batch_norm_legit,
    _ATEN._native_batch_norm_legit_no_training,
    _ATEN._batch_norm_no_update,
    _ATEN._batch_norm_with_update,
    _ATEN.cudnn_batch_norm,
    _ATEN.miopen_batch_norm,
)


def count_flops(model: nn.Module, batch: Batch) -> int:
    """Count the multiply-adds of a model in evaluation.

    Convolutions and matrix products of any kind count, as they are run, and batch norm with two
    for each number, as in published figures, also where it is part of a convolution; activations
    and pooling do not. These figures are of one clip: give a batch of one.

    Args:
        model: a classifier or an encoder; left in the mode in which it was.
        batch: what it takes, on its device.

    Returns:
        Multiply-adds of the whole batch.
    """
    was_training = model.training
    counted = {**dict.fromkeys(_NORMS, _norm_flops), _ATEN.baddbmm_: _product_flops}
    counter = FlopCounterMode(display=False, custom_mapping=counted)
    normed: list[int] = []
    hooks = [
        module.register_forward_hook(lambda _, __, out: normed.append(out.numel()))
        for module in model.modules()
        if isinstance(module, ConvNorm)
    ]
    try:
        with torch.no_grad(), counter:
            model.eval()(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2 + 2 * sum(normed)


def _norm_flops(shape: torch.Size, *_: Any, **__: Any) -> int:
    return 4 * math.prod(shape)


def _product_flops(_: torch.Size, a: torch.Size, b: torch.Size, *__: Any, **___: Any) -> int:
    """Count (N, I, J) by (N, J, K), which torch counts only where it is not added in place."""
    return 2 * math.prod(a) * b[-1]
