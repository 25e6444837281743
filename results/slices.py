"""Where a model fails: its accuracy on parts of the clips, and whether the parts really differ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from results.compare import holm
from results.intervals import wilson_interval

# By value: at most this many parts, of at least this many clips where there are as many.
_MOST_PARTS, _LEAST_CLIPS = 4, 8
_DRAWS, _SEED = 9_999, 0
_CELLS = 2**22  # of drawn tables at a time, 32 MB


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the clips.

    Attributes:
        label: what its clips have in common.
        total, correct: counts of clips.
    """

    label: str
    total: int
    correct: int

    @property
    def accuracy(self) -> float:
        """Share of correct clips, 0 to 1."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy, 0 to 1, as if clips were independent."""
        return wilson_interval(self.correct, self.total)


@dataclass(frozen=True, slots=True)
class Slicing:
    """All clips in parts.

    Attributes:
        title: by what.
        slices: the parts, none empty.
        unknown: clips of which it is not known; None when it is known of all. Not tested.
        p_value: of equal accuracy in all parts; None with one part, or when all or no clips are
            right.
        p_adjusted: for the number of slicings that were tested (Holm).
    """

    title: str
    slices: tuple[Slice, ...]
    unknown: Slice | None = None
    p_value: float | None = None
    p_adjusted: float | None = None


def slice_by_name(title: str, names: Sequence[str], is_right: np.ndarray) -> Slicing:
    """Put (N,) clips into parts by name, in order of their first clip; N names, at least one."""
    order = {name: part for part, name in enumerate(dict.fromkeys(names))}
    parts = np.array([order[name] for name in names])
    return _slicing(title, list(order), parts, is_right)


def slice_by_value(
    title: str, values: np.ndarray, is_right: np.ndarray, show: Callable[[float, float], str]
) -> Slicing:
    """Put clips into up to four parts of about equal size by a number; equal numbers stay together.

    Args:
        title: what the number is.
        values: (N,), NaN where it is not known.
        is_right: (N,) bool.
        show: least and greatest number of a part to its label.
    """
    is_known = np.isfinite(values)
    unknown = None
    if not is_known.all():
        lost = is_right[~is_known]
        unknown = Slice("not known", len(lost), int(lost.sum()))
    known = values[is_known]
    if not len(known):
        return Slicing(title, (), unknown)
    count = int(np.clip(len(known) // _LEAST_CLIPS, 1, _MOST_PARTS))
    shares = np.arange(1, count) / count
    cuts = np.unique(np.quantile(known, shares, method="inverted_cdf"))
    # What is equal to a cut lies below it; where the greatest number is a cut, nothing is above.
    parts = np.unique(np.searchsorted(cuts, known, side="left"), return_inverse=True)[1]
    spans = [known[parts == part] for part in range(int(parts.max()) + 1)]
    labels = [show(float(span.min()), float(span.max())) for span in spans]
    return _slicing(title, labels, parts, is_right[is_known], unknown)


def _slicing(
    title: str,
    labels: Sequence[str],
    parts: np.ndarray,
    is_right: np.ndarray,
    unknown: Slice | None = None,
) -> Slicing:
    total = np.bincount(parts, minlength=len(labels))
    correct = np.bincount(parts, is_right, minlength=len(labels)).astype(np.int64)
    slices = tuple(map(Slice, labels, total.tolist(), correct.tolist()))
    return Slicing(title, slices, unknown, equality_p_value(total, correct))


def equality_p_value(total: np.ndarray, correct: np.ndarray) -> float | None:
    """Return how often chance alone makes the accuracies of parts differ as much as they do.

    The wrong clips are dealt to the parts at random, all clips alike: with two parts Fisher's exact
    test; with more the chi-square statistic, whose distribution is drawn (9,999 deals, fixed seed)
    and not looked up, since with a few clips in a part the table is far off.

    Source: Fisher 1922, doi 10.2307/2340521; drawing instead: Hope 1968,
    doi 10.1111/j.2517-6161.1968.tb00759.x.

    Args:
        total: (P,) clips of each part, at least 1.
        correct: (P,) those that are right.

    Returns:
        The p-value; None with one part, or when all or no clips are right.
    """
    total, correct = np.asarray(total, np.int64), np.asarray(correct, np.int64)
    right = int(correct.sum())
    if len(total) < 2 or right in (0, int(total.sum())):
        return None
    if len(total) == 2:
        return float(stats.fisher_exact(np.stack([correct, total - correct])).pvalue)
    rng = np.random.default_rng(_SEED)
    observed = _spread(total, correct[None])[0] - 1e-9
    hits, left = 0, _DRAWS
    while left:
        draws = min(left, max(1, _CELLS // len(total)))
        dealt = rng.multivariate_hypergeometric(total, right, size=draws, method="marginals")
        hits += int((_spread(total, dealt) >= observed).sum())
        left -= draws
    return (hits + 1) / (_DRAWS + 1)


def _spread(total: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return chi-square of (R, P) counts, but for a factor that all rows with one sum share."""
    expected = total * correct.sum(1, keepdims=True) / total.sum()
    return ((correct - expected) ** 2 / total).sum(1)


def adjusted(slicings: Sequence[Slicing]) -> list[Slicing]:
    """Return slicings whose p-values are adjusted for how many of them were tested (Holm)."""
    known = [s.p_value for s in slicings if s.p_value is not None]
    values = iter(holm(known))
    return [
        s if s.p_value is None else Slicing(s.title, s.slices, s.unknown, s.p_value, next(values))
        for s in slicings
    ]
