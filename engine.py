"""Training: the state of a run, and its epochs.

Every random number of a step comes from (seed, epoch, step), and every clip's augmentation from
(seed, epoch, clip), so a checkpoint needs no generator state: to resume is to start at a step.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from errors import Interrupted
from machine import STOP_SIGNALS, StopRequest
from ops.batch import Batch, labels_of
from ops.dealing import Deal
from optim import NonFinite, Schedule, StepWatch, is_fused
from ranks import Ranks
from scoring import Progress, TimedBatches
from steps import RunningStatistics, StepSettings, StepWork, take_step


class Keeper(Protocol):
    """What a training tells between two steps."""

    def is_due(self) -> bool:
        """Say whether the state is to be saved now."""

    def save(self) -> None:
        """Save the state."""

    def note_non_finite(self, record: Mapping[str, Any]) -> None:
        """Write down a step that was not taken."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The recipe of a run.

    Attributes:
        schedule: of the learning rate.
        iter_size: micro-batches per optimiser step.
        clip_gradient: largest norm of the whole gradient.
        amp_dtype: autocast type, or None for float32.
        class_weights: (K,) weights of the loss, on the CPU, or None.
        seed: of dropout and every other draw inside the network.
        in_order: see `steps.StepSettings`.
        label_smoothing: see `steps.StepSettings`.
        skip_nonfinite: steps of a run that may be left out because their loss or gradient is not
            finite.
    """

    schedule: Schedule
    iter_size: int
    clip_gradient: float
    amp_dtype: torch.dtype | None
    class_weights: Tensor | None
    seed: int
    in_order: bool = False
    skip_nonfinite: int = 0
    label_smoothing: float = 0.0


@dataclass
class TrainState:
    """Everything that a step changes: what a checkpoint holds.

    Attributes:
        epoch: the epoch in progress or to begin.
        step: optimiser steps already done in it.
        totals: (3,) float32: loss sum, correct clips, clips, of this epoch so far.
        best: best validation top-1 so far, 0 to 1; -1 before the first evaluation.
        best_loss: validation loss of the best epoch, which decides between equal accuracies.
        best_epoch: that epoch.
        micro_batch: most clips in one forward pass of training; None: a micro-batch whole.
        skipped: steps that were left out so far because their numbers were not finite.
        overflows: steps in a row that the loss scale has left out. Not saved.
        replica: what adds up gradients over processes; None where there is one. Not saved.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    epoch: int = 0
    step: int = 0
    totals: Tensor = field(default_factory=lambda: torch.zeros(3))
    best: float = -1.0
    best_loss: float = math.inf
    best_epoch: int = -1
    micro_batch: int | None = None
    skipped: int = 0
    overflows: int = 0
    replica: DistributedDataParallel | None = None

    def rank(self, top1: float, loss: float) -> bool:
        """Take over the current epoch as the best if it is; say whether it is."""
        is_best = (top1, -loss) > (self.best, -self.best_loss)
        if is_best:
            self.best, self.best_loss, self.best_epoch = top1, loss, self.epoch
        return is_best

    def next_epoch(self) -> None:
        """Move to the first step of the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.totals = torch.zeros_like(self.totals)

    def pack(self) -> dict[str, Any]:
        """Return the state as tensors, numbers, strings, lists and dicts."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "totals": self.totals.cpu(),
            "best": self.best,
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "micro_batch": self.micro_batch,
            "skipped": self.skipped,
        }

    def unpack(self, packed: Mapping[str, Any]) -> None:
        """Take over what `pack` returned; shapes must fit (the caller has checked the options)."""
        self.model.load_state_dict(packed["model"])
        self.optimizer.load_state_dict(packed["optimizer"])
        self.scaler.load_state_dict(packed["scaler"])
        self.epoch, self.step = packed["epoch"], packed["step"]
        self.totals = packed["totals"].to(self.totals.device)
        self.best, self.best_loss = packed["best"], packed["best_loss"]
        self.best_epoch = packed["best_epoch"]
        # Older checkpoints do not have these.
        sizes = (packed.get("micro_batch"), self.micro_batch)
        self.micro_batch = min((size for size in sizes if size is not None), default=None)
        self.skipped = packed.get("skipped", 0)


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one training epoch came to.

    Attributes:
        loss: mean over its clips.
        top1: share of its clips that were right, 0 to 1.
        seconds: that its steps took, those before a pause left out.
        waited: seconds of these in which no batch was there.
    """

    loss: float
    top1: float
    seconds: float = field(default=0.0, compare=False)
    waited: float = field(default=0.0, compare=False)

    @property
    def waiting(self) -> float:
        """Return the share of the time in which the network waited for data, 0 to 1."""
        return self.waited / self.seconds if self.seconds > 0 else 0.0


# ---------------------------------------------------------------- training


def train_one_epoch(
    state: TrainState,
    loader: torch.utils.data.DataLoader,
    settings: TrainSettings,
    device: torch.device,
    stop: StopRequest,
    progress: Progress,
    ranks: Ranks | None = None,
    keeper: Keeper | None = None,
) -> EpochResult:
    """Run the steps of `state.epoch` that are still to do.

    `loader.batch_sampler` must have been started at micro-batch `state.step * iter_size`. On a GPU
    nothing here waits for the device before the end of the epoch; `progress` is told the loss of
    the step before.

    Raises:
        Interrupted: a signal came; `state` stands between two steps and can be saved.
        NonFinite: loss or gradient became non-finite; the step was not taken.
    """
    ranks, start = ranks or Ranks(), time.perf_counter()
    state.model.train()
    state.totals = state.totals.to(device)
    weights = settings.class_weights
    how = StepSettings(
        settings.seed,
        settings.clip_gradient,
        settings.amp_dtype,
        None if weights is None else weights.to(device),
        device,
        settings.in_order,
        getattr(state.model, "head_weights", None),
        settings.label_smoothing,
    )
    # A step that may be left out must be known before the next one.
    is_late = device.type == "cuda" and is_fused(state.optimizer) and not settings.skip_nonfinite
    batches = TimedBatches(loader, stop)
    deal = deal_of(loader, settings.iter_size)
    before = RunningStatistics(state.model)
    watching = StepWatch(state.optimizer, state.epoch, late=is_late, overflows=state.overflows)
    with _noting_late(state, settings, keeper), watching as watch:
        for work in _works(batches, deal, state, weights, ranks, stop):
            rate = settings.schedule.rate(state.epoch, state.step / deal.num_steps)
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            try:
                take_step(state, work, how, ranks, stop, watch, before)
            except NonFinite as event:
                _let_pass(event, state, settings, ranks, keeper)
            state.step += 1
            progress(state.step, deal.num_steps, watch.loss)
            if keeper is not None and keeper.is_due():
                watch.settle()
                keeper.save()
    state.overflows = watch.overflows
    loss_sum, correct, count = state.totals.tolist()
    seconds = time.perf_counter() - start
    return EpochResult(loss_sum / max(count, 1), correct / max(count, 1), seconds, batches.waited)


def deal_of(loader: torch.utils.data.DataLoader, iter_size: int) -> Deal:
    """Return how a loader's batches become steps; batches in memory count as clips."""
    sampler = loader.batch_sampler
    deal = getattr(sampler, "deal", None)
    return deal or Deal(len(sampler), 1, iter_size)  # type: ignore[arg-type]


def _works(
    batches: TimedBatches,
    deal: Deal,
    state: TrainState,
    weights: Tensor | None,
    ranks: Ranks,
    stop: StopRequest,
) -> Iterator[StepWork]:
    """Yield what this process has to do in each step that is left of the epoch.

    Here, before each step, processes agree on whether they go on.
    """
    remaining = iter(batches)
    for step in range(state.step, deal.num_steps):
        stop.poll()
        parts = deal.parts(step)
        found = [batch for _, batch in zip(parts, remaining, strict=False)]
        if len(found) < len(parts):
            raise RuntimeError(f"the loader ended in step {step} of {deal.num_steps}")
        own = [sum(map(len, found)), sum(_label_weight(batch, weights) for batch in found)]
        signals = [float(stop.signum == signum) for signum in STOP_SIGNALS]
        clips, weight, *came = ranks.sum([*own, *signals])
        if any(came) and ranks.count > 1:
            raise Interrupted(next(s for s, n in zip(STOP_SIGNALS, came, strict=True) if n))
        yield StepWork(
            found,
            parts,
            deal.pieces(step),
            int(clips),
            weight,
            deal.owners(step, state.micro_batch),
            deal.is_shared_by_all(step),
        )
    next(remaining, None)  # lets the loader end its epoch
    stop.poll()


def _label_weight(batch: Batch, weights: Tensor | None) -> float:
    """Return the sum of the class weights of a batch: its part of the mean's denominator."""
    if weights is None:
        return float(len(batch))
    # In numpy: both are on the host, and stay there.
    return float(weights.numpy()[labels_of(batch).numpy()].sum())


@contextmanager
def _noting_late(
    state: TrainState, settings: TrainSettings, keeper: Keeper | None
) -> Iterator[None]:
    """Write down a step, too, that is told of before a save or at the end of the epoch.

    The clips are those of this process: the others may not have been told yet.
    """
    try:
        yield
    except NonFinite as event:
        if not event.is_noted:
            _let_pass(event, state, replace(settings, skip_nonfinite=0), Ranks(), keeper)
        raise


def _let_pass(
    event: NonFinite,
    state: TrainState,
    settings: TrainSettings,
    ranks: Ranks,
    keeper: Keeper | None,
) -> None:
    """Write down a step that was not taken; raise unless it may be left out."""
    event.is_noted = True
    record = {"clips": list(event.clips), "losses": list(map(str, event.losses))}
    found = ranks.collect(record)
    may_pass = state.skipped < settings.skip_nonfinite
    if keeper is not None:
        keeper.note_non_finite({
            "epoch": event.epoch,
            "step": event.step,
            "loss": str(event.loss),
            "gradient_norm": str(event.norm),
            "left_out": may_pass,
            "processes": found,
        })  # fmt: skip
    if not may_pass:
        raise event
    state.skipped += 1
