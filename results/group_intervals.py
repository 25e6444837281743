"""Intervals of every metric, over groups of clips: athletes, videos, events."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from results.calibration import Kind, brier_losses, log_losses, probabilities
from results.intervals import (
    Bootstrap,
    Statistic,
    grouped_wilson_interval,
    weighted_mean,
    wilson_interval,
)
from results.metrics import checked, class_evidence

# Clips times classes up to which AUROC and average precision are resampled (seconds).
MOST_RANKED = 25_000
# (R, N) weights, (N,) whether clips are of the class, (N,) evidence for it -> (R,) values.
_Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class GroupIntervals:
    """95 % intervals over groups of clips, or over clips where no groups are known.

    Attributes:
        unit: "group" or "clip".
        units: how many there are, G.
        resamples: of the bootstrap.
        values: accuracy (see `grouped_wilson_interval`), then by bootstrap accuracy_bootstrap,
            balanced_accuracy, macro_f1, loss, brier, auroc, average_precision (the last two for
            up to `MOST_RANKED` clips times classes); None where the clips say nothing about how
            it varies.
        note: what to keep in mind; "" when nothing.
    """

    unit: str
    units: int
    resamples: int
    values: dict[str, tuple[float, float] | None]
    note: str

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        scores: np.ndarray,
        kind: Kind = "logits",
        groups: Sequence[str] | None = None,
        *,
        resamples: int = 2000,
        seed: int = 0,
    ) -> Self:
        """Measure how far the metrics of (N,) labels and (N, K) scores can be off.

        Args:
            labels: true classes.
            scores: see `Metrics.of`.
            kind: of the scores.
            groups: N names; None draws clips, and the note says so.
            resamples: of the bootstrap.
            seed: of the draws.
        """
        labels, scores = checked(labels, scores)
        units = [str(n) for n in range(len(labels))] if groups is None else groups
        bootstrap = Bootstrap.of(units, resamples=resamples, seed=seed)
        is_right = scores.argmax(1) == labels
        values: dict[str, tuple[float, float] | None] = {
            "accuracy": wilson_interval(int(is_right.sum()), len(labels))
            if groups is None
            else grouped_wilson_interval(is_right, groups)
        }
        for name, statistic in statistics(labels, scores, kind).items():
            values[name] = bootstrap.interval(statistic)
        unit = "clip" if groups is None else "group"
        note = _note(unit, bootstrap.num_groups)
        return cls(unit, bootstrap.num_groups, resamples, values, note)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = {name: value and list(value) for name, value in self.values.items()}
        return {**asdict(self), "values": values}


def _note(unit: str, units: int) -> str:
    if unit == "clip":
        return (
            "no groups (athletes, videos) are known: intervals take every clip as independent and "
            "are too narrow if some are of the same athlete or video"
        )
    if units < 2:
        return "all clips are of one group, which says nothing about others: no intervals"
    if units < 10:
        return f"only {units} groups: intervals are rough, and those by bootstrap often too narrow"
    return ""


def statistics(labels: np.ndarray, scores: np.ndarray, kind: Kind) -> dict[str, Statistic]:
    """Return the metrics as functions of (R, N) weights of the clips, for the bootstrap."""
    num_classes = scores.shape[1]
    true = np.eye(num_classes)[labels]  # (N, K)
    answer = np.eye(num_classes)[scores.argmax(1)]
    found: dict[str, Statistic] = {
        "accuracy_bootstrap": weighted_mean((true * answer).sum(1)),
        "balanced_accuracy": lambda w: _balanced_accuracy(w, true, answer),
        "macro_f1": lambda w: _macro_f1(w, true, answer),
        "loss": weighted_mean(log_losses(labels, scores, kind)),
        "brier": weighted_mean(brier_losses(labels, probabilities(scores, kind))),
    }
    if scores.size <= MOST_RANKED:
        evidence = class_evidence(scores, kind)
        found["auroc"] = lambda w: _over_classes(w, true, evidence, weighted_auroc)
        found["average_precision"] = lambda w: _over_classes(w, true, evidence, weighted_precision)
    return found


def _balanced_accuracy(weights: np.ndarray, true: np.ndarray, answer: np.ndarray) -> np.ndarray:
    support = weights @ true  # (R, K)
    hits = weights @ (true * answer)
    return _mean_where(hits / np.maximum(support, 1), support > 0)


def _macro_f1(weights: np.ndarray, true: np.ndarray, answer: np.ndarray) -> np.ndarray:
    support = weights @ true
    hits = weights @ (true * answer)
    f1 = 2 * hits / np.maximum(support + weights @ answer, 1)
    return _mean_where(f1, support > 0)


def _mean_where(values: np.ndarray, is_used: np.ndarray) -> np.ndarray:
    """Return the mean of (R, K) values over the used ones of each row, NaN where there are none."""
    count = is_used.sum(1)
    total = np.where(is_used, values, 0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _over_classes(
    weights: np.ndarray, true: np.ndarray, evidence: np.ndarray, measure: _Measure
) -> np.ndarray:
    """Return a measure of one class against the others as `_summary` puts it together."""
    classes = range(true.shape[1])[1:] if true.shape[1] == 2 else range(true.shape[1])
    values = np.stack([measure(weights, true[:, k], evidence[:, k]) for k in classes], axis=1)
    return _mean_where(np.nan_to_num(values), np.isfinite(values))


def weighted_auroc(weights: np.ndarray, is_class: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Return (R,) AUROCs for (R, N) weights: wins over all pairs, ties count by half.

    NaN where a side has no weight. scikit-learn does one set of weights at a time, which takes
    minutes for what the bootstrap asks.
    """
    positive, negative = _by_level(weights, is_class, evidence)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    return np.where(pairs > 0, (positive * below).sum(1) / np.maximum(pairs, 1), np.nan)


def weighted_precision(
    weights: np.ndarray, is_class: np.ndarray, evidence: np.ndarray
) -> np.ndarray:
    """Return (R,) average precisions for (R, N) weights; NaN where the class has no weight."""
    positive, negative = (side[:, ::-1] for side in _by_level(weights, is_class, evidence))
    hits = np.cumsum(positive, axis=1)
    precision = hits / np.maximum(hits + np.cumsum(negative, axis=1), 1)
    total = positive.sum(1)
    return np.where(total > 0, (positive * precision).sum(1) / np.maximum(total, 1), np.nan)


def _by_level(
    weights: np.ndarray, is_class: np.ndarray, evidence: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of the class and of the others at each distinct evidence, both (R, U)."""
    order = np.argsort(evidence, kind="stable")
    starts = np.flatnonzero(np.diff(evidence[order], prepend=-np.inf))
    ordered, side = weights[:, order], is_class[order]
    positive = np.add.reduceat(ordered * side, starts, axis=1)
    negative = np.add.reduceat(ordered * (1 - side), starts, axis=1)
    return positive, negative
