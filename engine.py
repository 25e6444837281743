"""Training and evaluation on one device: state, steps, scores, checkpoints.

Every random number of a step comes from (seed, epoch, step), and every clip's augmentation from
(seed, epoch, clip), so a checkpoint needs no generator state: to resume is to start at a step.
"""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from errors import InputError
from files import replacing
from machine import StopRequest
from ops.batch import Batch
from optim import StepWatch, is_fused, learning_rate

Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The recipe of a run.

    Attributes:
        epochs, warmup: length of the schedule and of its linear start, in epochs.
        lr: peak learning rate.
        iter_size: micro-batches per optimiser step.
        clip_gradient: largest norm of the whole gradient.
        amp_dtype: autocast type, or None for float32.
        class_weights: (K,) weights of the loss, or None.
        seed: of dropout and every other draw inside the network.
    """

    epochs: int
    warmup: int
    lr: float
    iter_size: int
    clip_gradient: float
    amp_dtype: torch.dtype | None
    class_weights: Tensor | None
    seed: int


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


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model said about N clips.

    Attributes:
        clips: N names.
        labels: (N,) int64.
        scores: (N, K) float32, logits or probabilities averaged over the views of a clip.
        loss: mean cross-entropy of the averaged scores.
    """

    clips: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    loss: float


# ---------------------------------------------------------------- training


def train_one_epoch(
    state: TrainState,
    loader: torch.utils.data.DataLoader,
    settings: TrainSettings,
    device: torch.device,
    stop: StopRequest,
    progress: Progress,
) -> EpochResult:
    """Run the steps of `state.epoch` that are still to do.

    `loader.batch_sampler` must have been started at micro-batch `state.step * iter_size`. On a GPU
    nothing here waits for the device before the end of the epoch; `progress` is told the loss of
    the step before.

    Raises:
        Interrupted: a signal came; `state` stands between two steps and can be saved.
        InputError: loss or gradient became non-finite; the step was not taken.
    """
    start = time.perf_counter()
    state.model.train()
    state.totals = state.totals.to(device)
    rate = learning_rate(state.epoch, settings.epochs, settings.warmup, settings.lr)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    if settings.class_weights is not None:
        settings = replace(settings, class_weights=settings.class_weights.to(device))
    num_steps = steps_per_epoch(loader, settings.iter_size)
    stop.poll()
    batches = TimedBatches(loader)
    is_late = device.type == "cuda" and is_fused(state.optimizer)
    with StepWatch(state.optimizer, state.epoch, late=is_late) as watch:
        for micro_batches in _in_groups(batches, settings.iter_size):
            _step(state, micro_batches, settings, device, watch)
            state.step += 1
            progress(state.step, num_steps, watch.loss)
            stop.poll()
    loss_sum, correct, count = state.totals.tolist()
    seconds = time.perf_counter() - start
    return EpochResult(loss_sum / max(count, 1), correct / max(count, 1), seconds, batches.waited)


class TimedBatches:
    """The batches of a loader, and how long they were waited for.

    Attributes:
        waited: seconds so far.
    """

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.waited = 0.0
        self._loader = loader

    def __iter__(self) -> Iterator[Batch]:
        start = time.perf_counter()
        for batch in self._loader:
            self.waited += time.perf_counter() - start
            yield batch
            start = time.perf_counter()
        self.waited += time.perf_counter() - start


def steps_per_epoch(loader: torch.utils.data.DataLoader, iter_size: int) -> int:
    """Return the optimiser steps of one epoch; the last may have fewer micro-batches."""
    sampler = loader.batch_sampler
    return math.ceil(len(sampler) / iter_size)  # type: ignore[arg-type]


def _in_groups(loader: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for batch in loader:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _step(
    state: TrainState,
    micro_batches: list[Batch],
    settings: TrainSettings,
    device: torch.device,
    watch: StepWatch,
) -> None:
    """Take one optimiser step on the mean loss of all clips of the micro-batches.

    Each micro-batch adds its share of that mean, so the gradient is the one of a single large
    batch also when the last micro-batch is smaller (batch norm sees the micro-batch).
    """
    torch.manual_seed(_draw_seed(settings.seed, state.epoch, state.step))
    state.optimizer.zero_grad(set_to_none=True)
    weights = settings.class_weights
    batches = [batch.to(device) for batch in micro_batches]
    norm = _label_weight(torch.cat([_labels(batch) for batch in batches]), weights)
    for batch in batches:
        with torch.autocast(device.type, settings.amp_dtype, enabled=bool(settings.amp_dtype)):
            # Without names: a compiled network would be compiled anew for other ones.
            logits = state.model(replace(batch, label=None, clips=()))
        logits = logits.float()
        loss = F.cross_entropy(logits, _labels(batch), weights, reduction="sum")
        state.scaler.scale(loss / norm).backward()
        _count(state.totals, logits.detach(), batch, loss.detach() / norm * _num_clips(batches))
    state.scaler.unscale_(state.optimizer)
    size = nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_gradient)
    # A loss scale that is too large shows as an infinite norm: the scaler then skips the step.
    watch.look(
        size,
        state.totals[0] / state.totals[2].clamp(min=1),
        state.step,
        tuple(name for batch in batches for name in batch.clips),
        may_skip=state.scaler.is_enabled(),
    )
    state.scaler.step(state.optimizer)
    state.scaler.update()


def _num_clips(batches: list[Batch]) -> int:
    return sum(len(batch) for batch in batches)


def _label_weight(label: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sum of the class weights of labels: their part of the mean's denominator."""
    return torch.ones_like(label).sum() if weights is None else weights[label].sum()


def _labels(batch: Batch) -> Tensor:
    if batch.label is None:
        raise ValueError("a batch for training or evaluation needs labels")
    return batch.label


def _count(totals: Tensor, logits: Tensor, batch: Batch, loss_share: Tensor) -> None:
    """Add a micro-batch to the epoch's totals, in place and without leaving the device."""
    totals[0] += loss_share
    totals[1] += (logits.argmax(1) == _labels(batch)).sum()
    totals[2] += len(logits)


def _draw_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0])


# ---------------------------------------------------------------- evaluation


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: torch.utils.data.DataLoader,
    device: torch.device,
    *,
    amp_dtype: torch.dtype | None = None,
    softmax: bool = False,
    most_rows: int | None = None,
    stop: StopRequest | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score every clip of a loader, each once.

    Args:
        model: maps a batch to (B*V, K) logits.
        loader: yields batches with labels.
        device: where the model is.
        amp_dtype: autocast type, or None for float32.
        softmax: average probabilities over the views of a clip instead of logits.
        most_rows: views in one forward pass; None passes a batch whole.
        stop: polled between batches.
        progress: called after each batch.
    """
    model.eval()
    clips: list[str] = []
    labels: list[Tensor] = []
    scores: list[Tensor] = []  # on the device: a copy in each batch would wait for it
    for number, batch in enumerate(loader, start=1):
        if stop is not None:
            stop.poll()
        on_device = batch.to(device)
        with torch.autocast(device.type, amp_dtype, enabled=bool(amp_dtype)):
            rows = list(on_device.rows(most_rows or len(batch) * batch.views))
            logits = torch.cat([model(part) for part in rows]).float()
        views = logits.softmax(1) if softmax else logits
        scores.append(views.unflatten(0, (-1, batch.views)).mean(1))
        labels.append(_labels(batch))
        clips += batch.clips
        if progress is not None:
            progress(number, len(loader), math.nan)
    return _gather(clips, torch.cat(labels), torch.cat(scores).cpu(), softmax)


def _gather(clips: list[str], labels: Tensor, scores: Tensor, softmax: bool) -> Scores:
    if not torch.isfinite(scores).all():
        worst = clips[int((~torch.isfinite(scores)).any(1).nonzero()[0])]
        raise InputError(
            f"the scores of clip {worst} are not finite: the weights have diverged; lower --lr, or "
            "use an earlier checkpoint"
        )
    log_probabilities = scores.clamp(min=1e-12).log() if softmax else scores.log_softmax(1)
    loss = F.nll_loss(log_probabilities, labels)
    return Scores(tuple(clips), labels.numpy(), scores.numpy(), float(loss))


# ---------------------------------------------------------------- checkpoints


def save_checkpoint(path: Path, payload: Mapping[str, Any]) -> None:
    """Write a checkpoint so that `path` is at every moment the old file or the new one, whole.

    Raises:
        InputError: it cannot be written; the old file is still there.
    """
    try:
        with replacing(path) as file:
            torch.save(dict(payload), file)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise InputError(
            f"{path} cannot be written ({str(error).splitlines()[0]}); the file before it is "
            "whole: make space or mend the folder, then --resume auto"
        ) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
