"""The optimiser: which parameters decay, its rate, class weights, steps that must not be taken."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from errors import InputError, Interrupted

# Where torch updates all parameters in one kernel, and leaves them alone if that kernel is told to.
_FUSED_DEVICES = frozenset({"cpu", "cuda"})
# A loss scale begins at 2**16 and halves with each step that it leaves out: with as many in a row
# it is not the scale that makes gradients infinite.
_MOST_OVERFLOWS = 24


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over a training.

    Attributes:
        epochs: of the training.
        warmup: epochs of its linear start, from peak/10.
        peak: the highest rate.
        kind: after the start "cosine": half a cosine by epochs, as published for GSP (Bianchi &
            Lanz 2025, arXiv:2503.04470); "cosine_step": the same step by step, as skeleton models
            are trained (Duan et al. 2022, arXiv:2205.09443); "multistep": a tenth from each of
            `milestones` on.
        milestones: epochs.
    """

    epochs: int
    warmup: int
    peak: float
    kind: str = "cosine"
    milestones: tuple[int, ...] = ()

    def rate(self, epoch: int, share: float = 0.0) -> float:
        """Return the rate of a step; `share` of its epoch, 0 to 1, is done."""
        if epoch < self.warmup:
            return self.peak * (0.1 + 0.9 * epoch / self.warmup)
        if self.kind == "multistep":
            return self.peak * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        done = epoch - self.warmup + (share if self.kind == "cosine_step" else 0.0)
        return 0.5 * self.peak * (1 + math.cos(math.pi * done / max(1, self.epochs - self.warmup)))


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_all: bool = False
) -> list[dict[str, Any]]:
    """Split the trainable parameters: weights decay; norms and biases (one axis) do not.

    With `decay_all` these do, too.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    others = weight_decay if decay_all else 0.0
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": others},
    ]


def build_optimizer(
    model: nn.Module,
    method: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    *,
    nesterov: bool = False,
    decay_all: bool = False,
) -> torch.optim.Optimizer:
    """Build SGD or AdamW over every trainable parameter, which are on their device already.

    One kernel updates all parameters where torch has it: against the loop over parameters a step
    took 1/2 (SGD) and 1/3 (AdamW) of the time on a CPU, where "foreach" gained nothing. The state
    is the same, so that of a checkpoint written either way loads; how to compute is not loaded.
    """
    groups = parameter_groups(model, weight_decay, decay_all=decay_all)
    fused = all(p.device.type in _FUSED_DEVICES for group in groups for p in group["params"])
    optimizer: torch.optim.Optimizer
    if method == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=lr, fused=fused or None)
    else:
        optimizer = torch.optim.SGD(
            groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused or None
        )
        optimizer.register_step_pre_hook(_begin_momentum)
    optimizer.register_load_state_dict_pre_hook(_keep_kernels)
    return optimizer


def _begin_momentum(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Give parameters of SGD that have none a momentum of 0.

    torch's kernel begins with memory as it finds it, and a first step that is not taken, as the
    loss scale or `StepWatch` want it, would leave it so for the second.
    """
    for group in optimizer.param_groups:
        if not (group.get("fused") and group["momentum"]):
            continue
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def _keep_kernels(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return a state to load that leaves the optimiser's own choice of kernels as it is."""
    own = optimizer.param_groups
    groups = [
        {**group, **{name: mine[name] for name in ("fused", "foreach")}}
        for group, mine in zip(state["param_groups"], own, strict=False)
    ]
    return {**state, "param_groups": groups + state["param_groups"][len(own) :]}


def is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether one kernel updates all parameters."""
    return all(group.get("fused") for group in optimizer.param_groups)


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> Tensor:
    """Return (K,) weights N / (K * count): the mean over the training list is 1.

    Raises:
        InputError: a class has no training clip.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if (counts == 0).any():
        raise InputError(
            f"class {int(np.argmin(counts))} has no clip in the training list, which "
            "--class_weights balanced needs: add clips of it or use --class_weights none"
        )
    return torch.tensor(len(labels) / (num_classes * counts), dtype=torch.float32)


# ---------------------------------------------------------------- steps


class NonFinite(InputError):  # noqa: N818 - it is an event, and may be let pass
    """Loss or gradient of a step are not finite; the step was not taken.

    Attributes:
        epoch, step: where.
        loss, norm: of the step and of its gradient.
        clips: of the step, in this process.
        losses: mean loss of each forward pass of the step, if they are known.
        is_noted: it has been written down.
    """

    def __init__(
        self, epoch: int, step: int, loss: float, norm: float, clips: tuple[str, ...]
    ) -> None:
        super().__init__(
            f"the loss is {loss:.4g} and the norm of its gradient {norm:.4g} in epoch {epoch}, "
            f"step {step} (clips {', '.join(clips)}); both must be finite: lower --lr, look at "
            "these clips, or let some such steps pass with --skip_nonfinite"
        )
        self.epoch, self.step, self.loss, self.norm = epoch, step, loss, norm
        self.clips = clips
        self.losses: tuple[float, ...] = ()
        self.is_noted = False


@dataclass(frozen=True, slots=True)
class _Reading:
    """Numbers of a step on their way to the host.

    Attributes:
        values: (3,) norm of the gradient, loss, mean loss of the epoch so far; on the host, valid
            after `arrived`.
        arrived: None if they are there already.
        step: number of the step in its epoch.
        clips: names of its clips.
        may_skip: a norm that is not finite is the business of the loss scale.
    """

    values: Tensor
    arrived: torch.cuda.Event | None
    step: int
    clips: tuple[str, ...]
    may_skip: bool


class StepWatch:
    """Refuses losses and gradients that are not finite, on a GPU without waiting for it.

    On a CPU the numbers are looked at before the step is taken. On a GPU that would empty its queue
    of work in every step. There the optimiser's kernel is told to change nothing, in this step and
    in all that follow, if they are not finite; the host reads them when the next step is queued,
    and raises then: one step late, with the weights of before the bad step.

    Use as a context manager around an epoch: on leaving, nothing is left unread.

    Attributes:
        loss: mean of the epoch up to the last step that was read.
        overflows: steps in a row that a loss scale has left out.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, epoch: int, *, late: bool, overflows: int = 0
    ) -> None:
        """Watch the steps of `epoch`; `late` reads one step late and needs a fused optimiser."""
        self.overflows = overflows
        if late and not is_fused(optimizer):
            raise ValueError("only a fused optimiser can be told to change nothing")
        self.loss = math.nan
        self._optimizer, self._epoch, self._late = optimizer, epoch, late
        self._queue: deque[_Reading] = deque()
        self._is_broken: Tensor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._is_broken is not None:
            self._optimizer.found_inf = None  # type: ignore[attr-defined]
        # After a signal the state is about to be saved: not if it is broken.
        if kind is None or issubclass(kind, Interrupted):
            self.settle()

    def look(
        self,
        norm: Tensor,
        loss: Tensor,
        mean: Tensor,
        step: int,
        clips: tuple[str, ...],
        *,
        may_skip: bool,
    ) -> None:
        """Take note of a step that is about to be taken.

        Args:
            norm: of the whole gradient, () on its device.
            loss: of the step, () on its device.
            mean: loss of the epoch so far, () on its device.
            step: number of the step in its epoch.
            clips: names of its clips.
            may_skip: a loss scale leaves out this step if the norm is not finite.

        Raises:
            NonFinite: the loss or the norm of this step, or `late` of the one before, is not
                finite.
        """
        values = torch.stack([norm.detach().float(), loss.float(), mean.float()])
        if not self._late:
            self._queue.append(_Reading(values.cpu(), None, step, clips, may_skip))
            self.settle()
            return
        if not may_skip:
            self._hold_if_broken(norm + loss)
        self._queue.append(_Reading(*_on_its_way(values), step, clips, may_skip))
        self._read(leave=1)

    def settle(self) -> None:
        """Read all steps that are still on their way: the state may be saved after it.

        Raises:
            NonFinite: one of them was not taken.
        """
        self._read(leave=0)

    def _hold_if_broken(self, value: Tensor) -> None:
        """Make this step change nothing if a number is not finite, or an earlier one was not."""
        is_bad = (~torch.isfinite(value.detach())).float()
        broken = is_bad if self._is_broken is None else torch.maximum(self._is_broken, is_bad)
        self._is_broken = broken
        # The name by which torch's loss scale tells a fused optimiser the same.
        self._optimizer.found_inf = broken  # type: ignore[attr-defined]

    def _read(self, leave: int) -> None:
        """Read the steps of the queue but the last `leave`."""
        while len(self._queue) > leave:
            reading = self._queue.popleft()
            if reading.arrived is not None:
                reading.arrived.synchronize()
            norm, loss, self.loss = reading.values.tolist()
            may_skip = reading.may_skip and self.overflows < _MOST_OVERFLOWS
            self.overflows = 0 if math.isfinite(norm) else self.overflows + 1
            if not (math.isfinite(loss) and (may_skip or math.isfinite(norm))):
                raise NonFinite(self._epoch, reading.step, loss, norm, reading.clips)


def _on_its_way(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start to copy numbers to the host; return where they arrive and what tells that they did."""
    if values.device.type != "cuda":
        return values.cpu(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event
