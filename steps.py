"""One optimiser step: gradients of its micro-batches, shared by processes, taken or not taken.

Whatever goes wrong before the optimiser moves (a signal, too little memory, numbers that are not
finite) leaves the state as it was before the step: weights do not change until then, and the
running statistics of batch norm are put back.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from console import warn
from errors import InputError
from machine import StopRequest, is_out_of_memory
from ops.batch import Batch, labels_of
from ops.dealing import Part
from ops.losses import classifier_losses
from ops.sync_norm import set_synced
from optim import NonFinite, StepWatch
from ranks import Ranks


class State(Protocol):
    """The part of `engine.TrainState` that a step reads and changes."""

    model: nn.Module
    replica: DistributedDataParallel | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int
    step: int
    totals: Tensor
    micro_batch: int | None


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What a step must know beside the state.

    Attributes:
        seed: of dropout and every other draw inside the network.
        clip_gradient: largest norm of the whole gradient.
        amp_dtype: autocast type, or None for float32.
        class_weights: (K,) weights of the loss on the device, or None.
        device: where the model is.
        in_order: add up the gradients of forward passes in their order, wherever these were
            computed: the same bits for any number of processes.
        head_weights: of the losses of a network with several classifiers, which returns (B, P, K)
            in training; None: 1 for each.
        label_smoothing: share of the target that all classes have in equal parts.
    """

    seed: int
    clip_gradient: float
    amp_dtype: torch.dtype | None
    class_weights: Tensor | None
    device: torch.device
    in_order: bool = False
    head_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class StepWork:
    """The clips of one step.

    Attributes:
        batches: micro-batches, or parts of them, that this process computes.
        parts: what each of them is.
        pieces: micro-batches of the step, of all processes.
        clips: of the step, of all processes.
        weight: sum of the class weights of these clips: the denominator of the mean loss.
        owners: process of each forward pass of the step, in order of the clips.
        is_shared_by_all: every process has something to compute.
    """

    batches: Sequence[Batch]
    parts: Sequence[Part]
    pieces: int
    clips: int
    weight: float
    owners: Sequence[int] = ()
    is_shared_by_all: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Return the clips of this process."""
        return tuple(name for batch in self.batches for name in batch.clips)


def take_step(
    state: State,
    work: StepWork,
    settings: StepSettings,
    ranks: Ranks,
    stop: StopRequest,
    watch: StepWatch,
    before: "RunningStatistics",
) -> None:
    """Take one optimiser step on the mean loss of all its clips, and add them to the totals.

    Each micro-batch adds its share of that mean, so the gradient is the one of a single large
    batch also when the last micro-batch is smaller (batch norm sees the micro-batch).

    Raises:
        Interrupted: a signal came before the optimiser moved; nothing has changed.
        NonFinite: loss or gradient are not finite; the step was not taken.
        InputError: there is not enough memory for a single clip.
    """
    before.keep()
    losses: list[Tensor] = []
    try:
        totals = _gradient(state, work, settings, ranks, stop, before, losses)
        state.scaler.unscale_(state.optimizer)
        size = nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_gradient)
        so_far = state.totals + totals
        watch.look(
            size,
            totals[0] / work.clips,
            so_far[0] / so_far[2].clamp(min=1),
            state.step,
            work.names,
            may_skip=state.scaler.is_enabled(),
        )
    except NonFinite as error:
        before.restore()
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.update()
        if error.step == state.step:  # not one that is told late
            error.losses = tuple(map(float, losses))
        raise
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.totals = so_far


# ---------------------------------------------------------------- gradients


def _gradient(
    state: State,
    work: StepWork,
    settings: StepSettings,
    ranks: Ranks,
    stop: StopRequest,
    before: "RunningStatistics",
    losses: list[Tensor],
) -> Tensor:
    """Leave the gradient of the whole step in the parameters; return its (3,) totals.

    With too little memory micro-batches are halved, for the rest of the run.
    """
    while True:
        losses.clear()
        try:
            # A gradient on its way to other processes is not given up on a GPU: NCCL would wait.
            alone = ranks.count == 1 or settings.device.type == "cpu"
            with stop.at_once() if alone else nullcontext():
                return _accumulate(state, work, settings, ranks, before, losses)
        except BaseException as error:
            before.restore()
            state.optimizer.zero_grad(set_to_none=True)
            if not (isinstance(error, Exception) and is_out_of_memory(error)):
                raise
            largest = _largest(state, work)
        # Outside: the exception holds on to everything that was computed.
        _halve(state, ranks, largest)
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()


def _largest(state: State, work: StepWork) -> int:
    most = max(map(len, work.batches))
    return most if state.micro_batch is None else min(most, state.micro_batch)


def _halve(state: State, ranks: Ranks, largest: int) -> None:
    half = (largest + 1) // 2
    if largest < 2:
        raise InputError(
            "there is not enough memory for a single clip: lower --num_segments or --input_size "
            "(of skeletons --pose_frames, --num_people), add --with_amp, or take a smaller network"
        )
    if ranks.count > 1:  # the others are in the same step, and have computed it already
        raise InputError(
            f"there is not enough memory for {largest} clips at once in process {ranks.rank}: add "
            f"--micro_batch {half}, which keeps the effective batch, or start more processes"
        )
    state.micro_batch = half
    warn(
        f"not enough memory for {largest} clips at once: from epoch {state.epoch}, step "
        f"{state.step} on {half} at once; the effective batch and the learning rate stay "
        "(batch norm sees fewer clips)"
    )


def _accumulate(
    state: State,
    work: StepWork,
    settings: StepSettings,
    ranks: Ranks,
    before: "RunningStatistics",
    losses: list[Tensor],
) -> Tensor:
    state.optimizer.zero_grad(set_to_none=True)
    totals = torch.zeros(3, device=settings.device)
    passes = list(_passes(work, state.micro_batch))
    if ranks.count > 1 or len(passes) > len(work.batches):
        before.begin()
    if ranks.count > 1:
        set_synced(state.model, any(part.share < 1 for part in work.parts))
    in_order = settings.in_order and ranks.count > 1
    # The replica meets the other replicas in every pass, also without gradients to exchange.
    replica = state.replica if work.is_shared_by_all and not in_order else None
    gradients: list[Tensor] = []
    for number, (batch, part, offset) in enumerate(passes):
        torch.manual_seed(_draw_seed(settings.seed, state.epoch, state.step, part.piece, offset))
        # The gradients of a process travel once, with its last pass.
        is_last = number == len(passes) - 1
        with nullcontext() if is_last or replica is None else replica.no_sync():
            loss = _loss(replica or state.model, batch.to(settings.device), settings, totals)
            # The replica takes the mean over processes where a sum is meant.
            factor = 1 if replica is None else ranks.count
            state.scaler.scale(loss * factor / work.weight).backward()
        if in_order:
            gradients.append(_flat_gradient(state.model))
            state.optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach() / len(batch))
        totals[0] += loss.detach() / work.weight * work.clips
        before.take(part.piece, work.pieces, part.share * len(batch) / (part.stop - part.start))
    if in_order:
        _set_gradient(state.model, _sum_in_order(state.model, gradients, work.owners, ranks))
    elif ranks.count > 1 and replica is None:
        flat = _flat_gradient(state.model)
        ranks.add(flat)
        _set_gradient(state.model, flat)
    ranks.add(totals)
    before.end(work.pieces, ranks)
    return totals


def _passes(work: StepWork, most: int | None) -> Iterator[tuple[Batch, Part, int]]:
    """Yield what is computed at once, of which micro-batch, and how far from its first clip."""
    for batch, part in zip(work.batches, work.parts, strict=True):
        most_here = most or len(batch)
        for start in range(0, len(batch), most_here):
            piece = batch if len(batch) <= most_here else _clips(batch, start, start + most_here)
            yield piece, part, part.offset + start


def _clips(batch: Batch, start: int, stop: int) -> Batch:
    label = None if batch.label is None else batch.label[start:stop]
    rows = batch.part(slice(start * batch.views, stop * batch.views))
    return replace(rows, label=label, clips=batch.clips[start:stop], views=batch.views)


def _loss(network: nn.Module, batch: Batch, settings: StepSettings, totals: Tensor) -> Tensor:
    """Return the summed loss of a batch on its device; count its clips and the right ones."""
    with torch.autocast(settings.device.type, settings.amp_dtype, enabled=bool(settings.amp_dtype)):
        # Without names: a compiled network would be compiled anew for other ones.
        logits = network(replace(batch, label=None, clips=()))
    loss, right = classifier_losses(
        logits.float(),
        labels_of(batch),
        settings.head_weights,
        settings.class_weights,
        settings.label_smoothing,
    )
    totals[1] += right
    totals[2] += len(batch) * batch.views
    return loss


def _flat_gradient(model: nn.Module) -> Tensor:
    """Return the gradients of all trainable parameters as one vector; 0 where there is none."""
    parameters = (p for p in model.parameters() if p.requires_grad)
    return torch.cat([
        (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters
    ])  # fmt: skip


def _set_gradient(model: nn.Module, flat: Tensor) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        p.grad = piece.view_as(p)


def _sum_in_order(
    model: nn.Module, own: Sequence[Tensor], owners: Sequence[int], ranks: Ranks
) -> Tensor:
    """Add up the gradients of all forward passes as a single process does, one after the other."""
    size = sum(p.numel() for p in model.parameters() if p.requires_grad)
    like = next(model.parameters())
    mine = iter(own)
    total: Tensor | None = None
    for owner in owners:
        flat = next(mine) if owner == ranks.rank else like.new_empty(size)
        ranks.spread(flat, owner)
        total = flat if total is None else total.add_(flat)
    assert total is not None
    return total


def _draw_seed(*numbers: int) -> int:
    *most, offset = numbers
    entropy = numbers if offset else most
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


# ---------------------------------------------------------------- batch norm


class RunningStatistics:
    """The running statistics of every batch norm that trains, during one step.

    Batch norm follows its statistics micro-batch by micro-batch: r <- (1 - m) r + m s. Where
    processes share the micro-batches s_0 ... s_(K-1) of a step, the same result is
    (1 - m)^K r + sum_k m (1 - m)^(K-1-k) s_k, whose terms are computed anywhere and added up.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = [
            module
            for module in model.modules()
            if isinstance(module, _NormBase)
            and module.training  # a frozen one reads its statistics
            and module.running_mean is not None
        ]
        self._values = [
            value
            for norm in self._norms
            for value in (norm.running_mean, norm.running_var)
            if value is not None
        ]
        self._counts = [
            norm.num_batches_tracked for norm in self._norms if norm.num_batches_tracked is not None
        ]
        self._kept = [torch.empty_like(value) for value in self._values]
        self._kept_counts = [torch.empty_like(count) for count in self._counts]
        self._sums: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Take note of what there is before a step."""
        if self._values:
            torch._foreach_copy_(self._kept, self._values)
            torch._foreach_copy_(self._kept_counts, self._counts)

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what there was before the step."""
        if self._values:
            torch._foreach_copy_(self._values, self._kept)
            torch._foreach_copy_(self._counts, self._kept_counts)
        self._sums = []

    @torch.no_grad()
    def begin(self) -> None:
        """Take the terms of the sum one by one from now on."""
        if any(norm.momentum is None for norm in self._norms):
            raise ValueError("batch norm without a momentum has no such sum")
        self._sums = [torch.zeros_like(value) for value in self._values]
        self._clear()

    @torch.no_grad()
    def take(self, piece: int, pieces: int, share: float) -> None:
        """Add the term of a micro-batch, or of a `share` of it, that was just computed."""
        if not self._sums:
            return
        factors = [(1 - m) ** (pieces - 1 - piece) * share for m in self._momenta()]
        torch._foreach_add_(self._sums, torch._foreach_mul(self._values, factors))
        self._clear()

    @torch.no_grad()
    def end(self, pieces: int, ranks: Ranks) -> None:
        """Set the statistics of after the step, the same in all processes."""
        if not self._sums:
            return
        flat = torch.cat(self._sums)
        ranks.add(flat)
        sums = flat.split([len(value) for value in self._values])
        kept = torch._foreach_mul(self._kept, [(1 - m) ** pieces for m in self._momenta()])
        torch._foreach_copy_(self._values, torch._foreach_add(kept, list(sums)))
        torch._foreach_copy_(self._counts, self._kept_counts)
        torch._foreach_add_(self._counts, pieces)
        self._sums = []

    def _clear(self) -> None:
        if self._values:
            torch._foreach_zero_(self._values)

    def _momenta(self) -> list[float]:
        return [norm.momentum for norm in self._norms for _ in range(2)]  # type: ignore[misc]
