"""What the gates of Gate-Shift-Fuse let through, as maps over the frames of a clip."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ops.batch import Batch
from ops.gsf import GSF


@dataclass(frozen=True, slots=True, eq=False)
class GateMaps:
    """The gates of one module for a batch.

    Attributes:
        block: name of the residual block that the module is in, such as layer1.0.
        gates: (B, T, 2, H, W) float32 on the CPU, -1 to 1. Group 0 goes one segment back in time,
            group 1 one segment on: of the features of a pixel, gate times the feature moves, the
            rest stays. 0 lets nothing through, -1 turns the sign of what moves.
    """

    block: str
    gates: Tensor


def gate_blocks(model: nn.Module) -> list[str]:
    """Return the names of the GSF modules of a model, first to last."""
    return [name for name, module in model.named_modules() if isinstance(module, GSF)]


def early_and_late(model: nn.Module) -> list[str]:
    """Choose two modules: the last of the first stage, and the last whose maps show a place.

    The last stage is passed over where it is one of several: its maps of a 224-pixel frame have
    7 x 7 cells, and those of the stage before 14 x 14.
    """
    names = gate_blocks(model)
    stages: dict[str, str] = {}
    for name in names:
        stages[name.rsplit(".", 2)[0]] = name  # "encoder.backbone.layer1" of "...layer1.1.gsf"
    last = list(stages.values())
    late = last[-2] if len(last) > 2 else last[-1] if last else None
    return [] if late is None else list(dict.fromkeys([last[0], late]))


@contextmanager
def recorded_gates(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, GateMaps]]:
    """Record the gates of some modules while the model runs; its numbers stay, but for rounding.

    Args:
        model: any.
        names: out of `gate_blocks(model)`.

    Yields:
        Name -> maps of the last run, filled when the model has run.
    """
    modules = dict(model.named_modules())
    found: dict[str, GateMaps] = {}
    with ExitStack() as hooks:
        for name in names:
            hook = partial(_keep, found, name)
            hooks.callback(modules[name].register_forward_hook(hook).remove)
        yield found


@torch.no_grad()
def gate_maps(model: nn.Module, batch: Batch, names: Sequence[str]) -> list[GateMaps]:
    """Return the gates of some modules for a batch, in the order of `names`.

    Args:
        model: in evaluation mode, on the device of `batch`.
        batch: B clips.
        names: out of `gate_blocks(model)`.
    """
    with recorded_gates(model, names) as found:
        model(batch)
    return [found[name] for name in names]


@torch.no_grad()
def _keep(
    found: dict[str, GateMaps], name: str, module: GSF, inputs: tuple[Any, ...], _output: Tensor
) -> None:
    gate = module.gate(inputs[0]).float().cpu()
    found[name] = GateMaps(_block_of(name), gate.unflatten(0, (-1, module.num_segments)))


def _block_of(name: str) -> str:
    return name.removesuffix(".gsf").rpartition("backbone.")[2]
