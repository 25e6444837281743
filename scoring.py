"""Scores of clips: every clip of a loader through a network, by one process or by several."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from console import warn
from errors import InputError
from machine import StopRequest, is_out_of_memory
from ops.batch import Batch, labels_of
from ranks import Ranks

Progress = Callable[[int, int, float], None]


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


class TimedBatches:
    """The batches of a loader, and how long they were waited for.

    Attributes:
        waited: seconds so far.
    """

    def __init__(self, loader: Iterable[Batch], stop: StopRequest | None = None) -> None:
        """Watch a loader; a signal to `stop` ends the waiting."""
        self.waited = 0.0
        self._loader, self._stop = loader, stop or StopRequest()

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._loader)
        while True:
            start = time.perf_counter()
            with self._stop.at_once():
                batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


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
    ranks: Ranks | None = None,
) -> Scores:
    """Score every clip of a loader, each once.

    Several processes share the batches; each of them returns the scores of all clips, in the order
    and with the bits of a single process.

    Args:
        model: maps a batch to (B*V, K) logits.
        loader: yields batches with labels.
        device: where the model is.
        amp_dtype: autocast type, or None for float32.
        softmax: average probabilities over the views of a clip instead of logits.
        most_rows: views in one forward pass; None passes a batch whole. With too little memory
            fewer are taken.
        stop: a signal to it ends the evaluation.
        progress: called after each batch.
        ranks: the processes that share the batches.
    """
    model.eval()
    stop, ranks = stop or StopRequest(), ranks or Ranks()
    found: list[_Scored] = []
    for number, batch in enumerate(TimedBatches(loader, stop), start=1):
        stop.poll()
        most_rows = most_rows or len(batch) * batch.views
        with stop.at_once():
            logits, most_rows = _logits(model, batch.to(device), amp_dtype, most_rows)
        views = logits.softmax(1) if softmax else logits
        scores = views.unflatten(0, (-1, batch.views)).mean(1)
        # On the device: a copy in each batch would wait for it.
        found.append(_Scored(batch.clips, labels_of(batch), scores))
        if progress is not None:
            progress(min(number * ranks.count, len(loader)), len(loader), math.nan)
    return _gather(_in_order(ranks.collect(_on_host(found))), softmax)


@dataclass(frozen=True, slots=True)
class _Scored:
    """A batch of B clips and its (B, K) scores."""

    clips: tuple[str, ...]
    labels: Tensor
    scores: Tensor


def _logits(
    model: nn.Module, batch: Batch, amp_dtype: torch.dtype | None, most_rows: int
) -> tuple[Tensor, int]:
    """Return the logits of a batch on its device, and how many rows found room at once."""
    device = batch.first.device
    while True:
        try:
            with torch.autocast(device.type, amp_dtype, enabled=bool(amp_dtype)):
                return torch.cat([model(rows) for rows in batch.rows(most_rows)]).float(), most_rows
        except Exception as error:  # torch has no one type of error for a lack of memory
            if not is_out_of_memory(error):
                raise
            if most_rows < 2:
                raise InputError(
                    "there is not enough memory to score a single view of a clip: test on the CPU "
                    "(--device cpu), or with another model"
                ) from None
        most_rows = (most_rows + 1) // 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
        warn(f"not enough memory: scoring goes on with {most_rows} views at once")


def _on_host(found: list[_Scored]) -> list[_Scored]:
    """Copy the scores to the CPU, in one go."""
    if not found:
        return []
    scores = torch.cat([one.scores for one in found]).cpu().split([len(s.clips) for s in found])
    return [
        replace(one, scores=on_host, labels=torch.as_tensor(one.labels, device="cpu"))
        for one, on_host in zip(found, scores, strict=True)
    ]


def _in_order(shares: list[list[_Scored]]) -> list[_Scored]:
    """Put the batches of all processes, which took turns, in the order of the loader."""
    return [
        share[number]
        for number in range(max(map(len, shares)))
        for share in shares
        if number < len(share)
    ]


def _gather(found: list[_Scored], softmax: bool) -> Scores:
    clips = tuple(name for one in found for name in one.clips)
    labels = torch.cat([one.labels for one in found])
    scores = torch.cat([one.scores for one in found])
    if not torch.isfinite(scores).all():
        worst = clips[int((~torch.isfinite(scores)).any(1).nonzero()[0])]
        raise InputError(
            f"the scores of clip {worst} are not finite: the weights have diverged; lower --lr, or "
            "use an earlier checkpoint"
        )
    log_probabilities = scores.clamp(min=1e-12).log() if softmax else scores.log_softmax(1)
    loss = F.nll_loss(log_probabilities, labels)
    return Scores(clips, labels.numpy(), scores.numpy(), float(loss))
