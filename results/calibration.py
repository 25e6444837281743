"""How far probabilities can be believed: calibration errors, reliability, temperature scaling."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax

Kind = Literal["logits", "probabilities"]
KINDS: tuple[Kind, ...] = ("logits", "probabilities")
NUM_BINS = 15
# The engine takes no probability for smaller either: the loss of a clip is then at most 27.6.
_SMALLEST = 1e-12
# The search for a temperature ends here, for logits of mean size 1.
_COLDEST, _HOTTEST = 1e-15, 1e9


def log_probabilities(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Return (N, K) float64 log-probabilities of (N, K) scores; 0 counts as 1e-12."""
    scores = np.asarray(scores, np.float64)
    if kind == "logits":
        return log_softmax(scores, axis=1)
    return np.log(np.maximum(scores, _SMALLEST))


def probabilities(scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Return (N, K) float64 probabilities of (N, K) scores."""
    if kind == "logits":
        return np.exp(log_probabilities(scores, kind))
    return np.asarray(scores, np.float64)


def log_losses(labels: np.ndarray, scores: np.ndarray, kind: Kind) -> np.ndarray:
    """Return (N,) negative log-likelihoods of the true classes, in nats."""
    return -log_probabilities(scores, kind)[np.arange(len(labels)), labels]


def brier_losses(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return (N,) squared errors of (N, K) probabilities.

    With two classes it is the squared error of one of them (0 to 1), with more the sum over
    classes (0 to 2): scikit-learn's convention, so that numbers compare.
    """
    errors = probability.copy()
    errors[np.arange(len(labels)), labels] -= 1
    return (errors**2).sum(1) / (2 if probability.shape[1] == 2 else 1)


# ---------------------------------------------------------------- reliability


@dataclass(frozen=True, slots=True)
class Bin:
    """Clips whose confidence lies in one interval.

    Attributes:
        low, high: ends of the interval, 0 to 1.
        count: clips in it.
        confidence: their mean confidence.
        accuracy: share of them that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well N probabilities agree with what happened.

    Attributes:
        ece: expected calibration error of the answer over 15 bins of equal width, 0 to 1
            (Guo et al. 2017, arXiv:1706.04599).
        adaptive_ece: the same over bins of equal count, of at least 10 clips where there are as
            many: with few clips most bins of equal width hold one or two (Nixon et al. 2019,
            arXiv:1904.01685).
        classwise_ece: the error of the probability of each class, over bins of equal width, then
            the mean over classes (Kull et al. 2019, arXiv:1910.12656).
        brier: mean squared error, see `brier_losses`.
        confidence: mean confidence; above the accuracy means over-confident.
        bins: the reliability curve: bins of equal width that hold a clip.
    """

    ece: float
    adaptive_ece: float
    classwise_ece: float
    brier: float
    confidence: float
    bins: tuple[Bin, ...]

    @classmethod
    def of(cls, labels: np.ndarray, probability: np.ndarray) -> "Calibration":
        """Measure (N, K) probabilities against (N,) labels, N at least 1."""
        confidence = probability.max(1)
        is_right = probability.argmax(1) == labels
        bins = reliability(confidence, is_right)
        by_class = [
            binned_error(reliability(probability[:, k], labels == k))
            for k in range(probability.shape[1])
        ]
        return cls(
            ece=binned_error(bins),
            adaptive_ece=binned_error(reliability(confidence, is_right, by_count=True)),
            classwise_ece=float(np.mean(by_class)),
            brier=float(brier_losses(labels, probability).mean()),
            confidence=float(confidence.mean()),
            bins=bins,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "bins": [asdict(b) for b in self.bins]}


def reliability(
    confidence: np.ndarray, happened: np.ndarray, *, by_count: bool = False
) -> tuple[Bin, ...]:
    """Sort predictions into bins by their confidence; empty bins are left out.

    Args:
        confidence: (N,) probabilities of events.
        happened: (N,) bool, which of them happened.
        by_count: bins of equal count, from the lowest confidence up; predictions of the same
            confidence share a bin. Else `NUM_BINS` of equal width, each without its lower end.
    """
    order = np.argsort(confidence, kind="stable")
    confidence, happened = np.minimum(confidence[order], 1.0), happened[order]
    if by_count:
        number = _bins_by_count(confidence)
    else:
        number = np.maximum(np.ceil(confidence * NUM_BINS).astype(np.int64) - 1, 0)
    bins = []
    for n in np.unique(number):
        inside = number == n
        low, high = (n / NUM_BINS, (n + 1) / NUM_BINS)
        if by_count:
            low, high = confidence[inside][0], confidence[inside][-1]
        bins.append(
            Bin(
                float(low),
                float(high),
                int(inside.sum()),
                float(confidence[inside].mean()),
                float(happened[inside].mean()),
            )
        )
    return tuple(bins)


def _bins_by_count(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each of (N,) sorted confidences."""
    total = len(confidence)
    num_bins = max(1, min(NUM_BINS, total // 10))
    number = np.arange(total) * num_bins // total
    first = np.searchsorted(confidence, confidence, side="left")
    return number[first]


def binned_error(bins: tuple[Bin, ...]) -> float:
    """Return the mean distance of confidence and accuracy over clips, 0 to 1."""
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.confidence - b.accuracy) for b in bins) / total


# ---------------------------------------------------------------- temperature


@dataclass(frozen=True, slots=True)
class Temperature:
    """What logits are divided by; above 1 makes a model less sure of itself.

    Attributes:
        value: T; 1 when the clips do not determine one.
        clips: how many it was fitted on.
        loss_before: their mean log loss without it.
        loss_after: and with it.
        note: why T is 1; "" when it was fitted.
    """

    value: float
    clips: int
    loss_before: float
    loss_after: float
    note: str = ""

    @classmethod
    def fit(cls, labels: np.ndarray, scores: np.ndarray, kind: Kind) -> "Temperature":
        """Find the T of the least log loss on (N, K) scores: of the val list, never of the test.

        The loss is convex in 1/T, so its derivative has at most one root. When every answer is
        right the loss falls as T goes to 0, and when the scores say nothing it falls as T grows:
        then the clips do not determine T, and it stays 1. The search goes by the size of the
        logits, which in a weakly trained model are small.

        Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
        """
        logits = log_probabilities(scores, kind)
        before = float(log_losses(labels, logits, "logits").mean())
        centred = logits - logits.mean(1, keepdims=True)
        size = float(np.abs(centred).mean()) or 1.0
        slope = _slope(labels, centred / size)
        note = ""
        if not slope(0.0) < 0:
            note = "the scores of the val clips are no better than chance: no temperature helps"
        elif (logits.argmax(1) == labels).all():
            note = "every val clip is classified right: they set no lower end to the temperature"
        high = 1.0
        while not note and not slope(high) > 0:
            high *= 2
            if high > 1 / _COLDEST:
                note = (
                    "val clips are wrong by a tie alone: they set no lower end to the temperature"
                )
        if note:
            return cls(1.0, len(labels), before, before, note)
        inverse = max(brentq(slope, 0.0, high, xtol=1e-12), 1 / _HOTTEST) / size
        after = float(log_losses(labels, logits * inverse, "logits").mean())
        return cls(1 / inverse, len(labels), before, after)

    def apply(self, scores: np.ndarray, kind: Kind) -> np.ndarray:
        """Return (N, K) scores of the same kind, scaled."""
        if self.value == 1:
            return scores
        logits = log_probabilities(scores, kind) / self.value
        return logits if kind == "logits" else probabilities(logits, "logits")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def _slope(labels: np.ndarray, logits: np.ndarray) -> Callable[[float], float]:
    """Return the derivative of the mean log loss by the inverse temperature."""
    true = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        expected = (probabilities(logits * inverse, "logits") * logits).sum(1)
        return float((expected - true).mean())

    return slope
