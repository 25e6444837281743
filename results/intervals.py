"""How far a number measured on a few clips can be off: intervals, by clip and by group.

Clips of one athlete or one video are alike: 200 clips of 4 athletes say less than 200 clips of 200.
So where groups are known, whole groups are drawn, not clips.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Z_95 = 1.959963984540054
# Maps (R, N) weights of the clips to R values; NaN where a value is not defined.
Statistic = Callable[[np.ndarray], np.ndarray]
# Weights of this many cells at a time, 128 MB.
_MOST_CELLS = 2**24


def wilson_interval(correct: float, total: float, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion; `z` is 95 % by default.

    Source: Wilson 1927, doi 10.1080/01621459.1927.10502953.

    Raises:
        ValueError: total is below 1 or correct is outside 0..total.
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"no proportion: {correct} of {total}")
    p, spread = correct / total, z * z / total
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / total + spread / (4 * total)) / (1 + spread)
    # At 0 and 1 an end is exactly p, which rounding may put on the wrong side.
    return min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half))


def grouped_wilson_interval(
    is_right: np.ndarray, groups: Sequence[str]
) -> tuple[float, float] | None:
    """Return the 95 % interval of an accuracy over groups of clips.

    Wilson's interval for as many independent clips as the clips of these groups are worth: their
    number over the design effect, the ratio of the variance between groups to the binomial one.
    Since that ratio is itself estimated from G groups, Student's quantile for G - 1 takes the
    place of the normal one.

    Measured over 1,000 draws: of an accuracy of 0.95 over 8 groups of about 10 clips with
    correlation 0.3, this interval held the truth 98 times of 100, the bootstrap below 80 times
    (70 times by percentiles), and Wilson's over single clips 73 times.

    Sources: Korn and Graubard 1998 (Survey Methodology 24, 193-201) for size and quantile; Dean
    and Pagano 2015, doi 10.1093/jssam/smv024, for Wilson's form.

    Args:
        is_right: (N,) bool.
        groups: N names.

    Returns:
        Its ends; None with one group, which says nothing about others.
    """
    codes = group_codes(groups)
    num_groups = int(codes.max()) + 1
    if num_groups < 2:
        return None
    total, p = len(codes), float(is_right.mean())
    sizes = np.bincount(codes)
    residuals = np.bincount(codes, is_right) - p * sizes
    variance = num_groups / (num_groups - 1) * (residuals**2).sum() / total**2
    binomial = p * (1 - p) / total
    design = variance / binomial if binomial > 0 else 1.0
    effective = total / max(design, 1.0)
    quantile = float(stats.t.ppf(0.975, num_groups - 1))
    return wilson_interval(p * effective, effective, quantile)


def group_codes(groups: Sequence[str]) -> np.ndarray:
    """Return (N,) numbers of the groups, 0 to G - 1 in order of their names."""
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def weighted_mean(values: np.ndarray) -> Statistic:
    """Return the mean of (N,) values as a statistic."""
    return lambda weights: weights @ values / weights.sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """Resamples of groups with replacement; a resample keeps all clips of a drawn group.

    Attributes:
        codes: (N,) group of each clip, 0 to G - 1.
        draws: (R, G) how often each group is in each resample.
    """

    codes: np.ndarray
    draws: np.ndarray

    @classmethod
    def of(cls, groups: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> "Bootstrap":
        """Draw the resamples."""
        codes = group_codes(groups)
        num_groups = int(codes.max()) + 1
        rng = np.random.default_rng(seed)
        share = np.full(num_groups, 1 / num_groups)
        return cls(codes, rng.multinomial(num_groups, share, size=resamples))

    @property
    def num_groups(self) -> int:
        """G."""
        return self.draws.shape[1]

    def interval(self, statistic: Statistic) -> tuple[float, float] | None:
        """Return the 95 % BCa interval of a statistic, widened for few groups.

        Bias-corrected and accelerated (Efron 1987, doi 10.1080/01621459.1987.10478410), with
        Student's quantile for G - 1 times sqrt(G / (G - 1)) in place of the normal one, without
        which a bootstrap of few groups is too narrow (Hesterberg 2015, arXiv:1411.5279, section
        5.2). Resamples in which the statistic is not defined, such as those without a clip of
        some class, are left out.

        Returns:
            Its ends; None with one group, with a statistic that is not defined for the clips, or
            where all resamples agree: then they say nothing about how it varies.
        """
        if self.num_groups < 2:
            return None
        estimate = float(statistic(np.ones((1, len(self.codes))))[0])
        values = self._values(self.draws, statistic)
        values = values[np.isfinite(values)]
        if not math.isfinite(estimate) or len(values) < 100 or np.ptp(values) < 1e-12:
            return None
        leave_one_out = self._values(1 - np.eye(self.num_groups, dtype=np.int64), statistic)
        low, high = np.quantile(values, _levels(estimate, values, leave_one_out, self.num_groups))
        # The levels may put both ends on one side of what was measured when resamples are biased.
        return min(float(low), estimate), max(float(high), estimate)

    def _values(self, draws: np.ndarray, statistic: Statistic) -> np.ndarray:
        """Return the statistic of each row of (R, G) group counts."""
        step = max(1, _MOST_CELLS // len(self.codes))
        parts = [
            statistic(draws[start : start + step, self.codes].astype(np.float64))
            for start in range(0, len(draws), step)
        ]
        return np.concatenate(parts)


def _levels(
    estimate: float, values: np.ndarray, leave_one_out: np.ndarray, num_groups: int
) -> tuple[float, float]:
    """Return the quantiles of the resampled values that are the ends of the interval."""
    wide = math.sqrt(num_groups / (num_groups - 1)) * float(stats.t.ppf(0.975, num_groups - 1))
    # Values equal to the estimate, but for rounding, count by half on each side.
    below = (values < estimate - 1e-12).mean() + (np.abs(values - estimate) <= 1e-12).mean() / 2
    bias = float(stats.norm.ppf(np.clip(below, 1 / len(values), 1 - 1 / len(values))))
    distances = np.nanmean(leave_one_out) - leave_one_out
    distances = distances[np.isfinite(distances)]
    spread = (distances**2).sum() ** 1.5
    skew = float((distances**3).sum() / (6 * spread)) if spread > 0 else 0.0
    return _level(bias, skew, -wide), _level(bias, skew, wide)


def _level(bias: float, skew: float, quantile: float) -> float:
    shifted = bias + quantile
    if skew * shifted >= 1:  # the correction has run beyond its pole
        return 0.0 if quantile < 0 else 1.0
    return float(stats.norm.cdf(bias + shifted / (1 - skew * shifted)))
