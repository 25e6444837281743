"""How well N clips were classified: every number of a test report that labels and scores decide.

scikit-learn's definitions, wherever it has one; a number that is not defined for the clips at hand
(the recall of a class without clips, the AUROC of a list with one class) is None, never 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.special import logsumexp
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from results.calibration import Calibration, Kind, log_losses, probabilities
from results.intervals import wilson_interval


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class.

    Attributes:
        support: its clips.
        predicted: clips that were taken for it.
        precision: share of those that are of it; None when there are none.
        recall: share of its clips that were found; None when it has none.
        f1: harmonic mean of the two; None when it has no clips and none was taken for it.
        auroc: of its probability against all other classes; None unless both sides have clips.
        average_precision: area under its precision-recall curve; None when it has no clips.
    """

    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None
    average_precision: float | None


@dataclass(frozen=True, slots=True)
class Metrics:
    """How well N clips were classified. Equal scores: the class of the lower number is the answer.

    Attributes:
        total, correct: counts of clips.
        interval: 95 % Wilson interval of the accuracy, 0 to 1, as if clips were independent.
        majority: share of the most frequent class, which a constant answer reaches.
        balanced_accuracy: unweighted mean of the recall of the classes that occur.
        macro_f1: unweighted mean of the F1 of the classes that occur.
        top5: accuracy among the five best; None with five classes or fewer.
        auroc: two classes: of class 1; more: unweighted mean of each class against the others,
            over the classes where it is defined. None with clips of one class.
        average_precision: two classes: of class 1 (None when it has no clips); more: unweighted
            mean over the classes that occur.
        recall: per class, None where a class has no clip.
        confusion: (K, K) counts, rows are the true class.
        classes: what else is known of each class.
        loss: mean cross-entropy, nats.
        calibration: how far the probabilities can be believed.
    """

    total: int
    correct: int
    interval: tuple[float, float]
    majority: float
    balanced_accuracy: float
    macro_f1: float
    top5: float | None
    auroc: float | None
    average_precision: float | None
    recall: list[float | None]
    confusion: list[list[int]]
    classes: tuple[ClassMetrics, ...]
    loss: float
    calibration: Calibration

    @property
    def accuracy(self) -> float:
        """Share of correct clips, 0 to 1."""
        return self.correct / self.total

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray, kind: Kind = "logits") -> Self:
        """Compute from (N,) labels and (N, K) finite scores, N and K at least 1.

        Raises:
            ValueError: shapes do not fit, a label is none of 0..K-1, a score is not finite.
        """
        labels, scores = checked(labels, scores)
        num_classes = scores.shape[1]
        predicted = scores.argmax(1)
        classes = _class_metrics(labels, scores, kind)
        occurring = [c for c in classes if c.support]
        correct = int((predicted == labels).sum())
        return cls(
            total=len(labels),
            correct=correct,
            interval=wilson_interval(correct, len(labels)),
            majority=max(c.support for c in classes) / len(labels),
            balanced_accuracy=_mean(c.recall for c in occurring),
            macro_f1=_mean(c.f1 for c in occurring),
            top5=top_k_accuracy(labels, scores, 5) if num_classes > 5 else None,
            auroc=_summary([c.auroc for c in classes]),
            average_precision=_summary([c.average_precision for c in classes]),
            recall=[c.recall for c in classes],
            confusion=_confusion(labels, predicted, num_classes),
            classes=classes,
            loss=float(log_losses(labels, scores, kind).mean()),
            calibration=Calibration.of(labels, probabilities(scores, kind)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `test_report.json`."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "classes"}
        return {
            "accuracy": self.accuracy,
            **plain,
            "interval": list(self.interval),
            "per_class": [asdict(c) for c in self.classes],
            "calibration": self.calibration.to_json(),
        }


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return labels as int64 and scores as float64, in which sums of many keep their digits.

    Raises:
        ValueError: see `Metrics.of`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not scores.size:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} are no (N,) and (N, K)")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels must be whole numbers from 0 to {scores.shape[1] - 1}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    return labels.astype(np.int64), scores.astype(np.float64)


def _class_metrics(labels: np.ndarray, scores: np.ndarray, kind: Kind) -> tuple[ClassMetrics, ...]:
    num_classes = scores.shape[1]
    predicted = scores.argmax(1)
    taken = np.bincount(predicted, minlength=num_classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(num_classes), average=None, zero_division=0.0
    )
    evidence = class_evidence(scores, kind)
    return tuple(
        ClassMetrics(
            support=int(support[k]),
            predicted=int(taken[k]),
            precision=float(precision[k]) if taken[k] else None,
            recall=float(recall[k]) if support[k] else None,
            f1=float(f1[k]) if support[k] + taken[k] else None,
            auroc=_auroc(labels == k, evidence[:, k]),
            average_precision=_average_precision(labels == k, evidence[:, k]),
        )
        for k in range(num_classes)
    )


def _confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> list[list[int]]:
    """Return (K, K) counts; scikit-learn's function warns of lists with one class."""
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes).tolist()


def _auroc(is_class: np.ndarray, evidence: np.ndarray) -> float | None:
    return (
        None if is_class.all() or not is_class.any() else float(roc_auc_score(is_class, evidence))
    )


def _average_precision(is_class: np.ndarray, evidence: np.ndarray) -> float | None:
    return float(average_precision_score(is_class, evidence)) if is_class.any() else None


def _summary(values: Sequence[float | None]) -> float | None:
    """Return the one number of several classes: that of class 1 of two, else the mean."""
    defined = values[1:] if len(values) == 2 else values
    numbers = [value for value in defined if value is not None]
    return float(np.mean(numbers)) if numbers else None


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))


def class_evidence(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Return (N, K) numbers that rank clips as the probability of each class does.

    Of logits these are log-odds: probabilities of a sure model round to 1, and clips that it can
    tell apart would tie.
    """
    if kind == "probabilities" or scores.shape[1] == 1:
        return scores
    if scores.shape[1] == 2:
        return scores - scores[:, ::-1]
    # Sums of sorted numbers: the same others add up to the same in any order, so ties stay ties.
    ordered = np.sort(scores, axis=1)
    best, others = ordered[:, -1:], logsumexp(ordered[:, :-1], axis=1, keepdims=True)
    logs = scores - np.logaddexp(best, others)
    is_best = scores == best
    odds = logs - np.log1p(-np.exp(np.where(is_best, -1.0, logs)))
    return np.where(is_best, best - others, odds)


def top_k_accuracy(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Return the share of clips whose class is among the `k` best of (N, K) scores.

    Of equal scores the class of the lower number is the better one, as in the accuracy, so that
    the first of them is `argmax` (scikit-learn's `top_k_accuracy_score` takes the higher one).
    """
    true = scores[np.arange(len(labels)), labels][:, None]
    is_lower = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > true) | ((scores == true) & is_lower)).sum(1)
    return float((rank < k).mean())
