"""What the folds and seeds of a cross-validation say together.

Each clip is held out once per seed, so the clips of all folds are pooled for each seed. Over seeds
a clip is still one clip: three seeds on 26 clips say more about the seeds, nothing about a 27th.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from errors import InputError
from results.compare import align
from results.group_intervals import GroupIntervals, statistics
from results.intervals import Bootstrap, Statistic, group_codes, wilson_interval
from results.metrics import Metrics
from results.score_files import ClipScores
from results.selection import overlap_protocol

# Numbers of `Metrics` that are summed up over folds and over seeds.
SUMMED = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision")
# Folds, and findings about them, that the protocol of pooled scores names.
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of some values.

    Attributes:
        mean: of the values that are defined; None when none is.
        deviation: with n - 1 in the denominator; None with fewer than two values.
        count: how many are defined: the AUROC of a fold with one class is not.
    """

    mean: float | None
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread":
        """Sum up; None stands for a value that is not defined."""
        known = np.array([value for value in values if value is not None], np.float64)
        mean = float(known.mean()) if len(known) else None
        deviation = float(known.std(ddof=1)) if len(known) > 1 else None
        return cls(mean, deviation, len(known))


@dataclass(frozen=True, slots=True)
class SeedResult:
    """The pooled held-out clips of one seed.

    Attributes:
        seed: of the training.
        metrics: of all clips, each scored by the model that had not seen it. AUROC and average
            precision rank clips of different models against each other, which calibration
            differences lower (Forman and Scholz 2010, doi 10.1145/1882471.1882479): see those of
            the folds, too.
        intervals: of `metrics`.
        folds: metrics of each fold.
    """

    seed: int
    metrics: Metrics
    intervals: GroupIntervals
    folds: tuple[Metrics, ...]


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Folds and seeds summed up.

    Attributes:
        classes: their names.
        seeds: a result for each seed.
        over_seeds: name of a metric -> its spread over the seeds, of pooled clips.
        over_folds: name -> its spread over the folds, of the mean of each over the seeds. How much
            folds differ; no standard error, since folds share training clips (Bengio and Grandvalet
            2004, Journal of Machine Learning Research 5, 1089-1105).
        interval: 95 % of the mean accuracy over seeds, see `accuracy_interval`.
        values: name -> 95 % bootstrap interval over groups (clips where none are known) of the mean
            over seeds; drawn clips count for all seeds at once. How seeds vary is not in it.
        unit: "group" or "clip".
        units: how many there are.
        sometimes: clips that some seeds have right and others wrong.
    """

    classes: tuple[str, ...]
    seeds: tuple[SeedResult, ...]
    over_seeds: Mapping[str, Spread]
    over_folds: Mapping[str, Spread]
    interval: tuple[float, float] | None
    values: Mapping[str, tuple[float, float] | None]
    unit: str
    units: int
    sometimes: int

    @property
    def majority(self) -> float:
        """Share of the most frequent class, which a constant answer reaches."""
        return self.seeds[0].metrics.majority

    @property
    def total(self) -> int:
        """Clips, each counted once."""
        return self.seeds[0].metrics.total

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "classes": list(self.classes),
            "clips": self.total,
            "majority": self.majority,
            "accuracy": self.over_seeds["accuracy"].mean,
            "interval": self.interval and list(self.interval),
            "intervals": {name: value and list(value) for name, value in self.values.items()},
            "unit": self.unit,
            "units": self.units,
            "right_in_some_seeds": self.sometimes,
            "over_seeds": {name: asdict(spread) for name, spread in self.over_seeds.items()},
            "over_folds": {name: asdict(spread) for name, spread in self.over_folds.items()},
            "seeds": [
                {
                    "seed": result.seed,
                    **result.metrics.to_json(),
                    "intervals": result.intervals.to_json(),
                    "folds": [fold.to_json() for fold in result.folds],
                }
                for result in self.seeds
            ],
        }


def pool_folds(folds: Sequence[ClipScores], names: Sequence[str] = ()) -> ClipScores:
    """Put the held-out clips of all folds into one, sorted by name.

    Args:
        folds: scores of each fold.
        names: what to call them in a message.

    Raises:
        InputError: a clip is in two folds, or the folds have other classes or kinds of scores.
    """
    names = names or [f"fold {n}" for n in range(1, len(folds) + 1)]
    first, seen = folds[0], dict.fromkeys(folds[0].clips, names[0])
    for fold, name in zip(folds[1:], names[1:], strict=True):
        if (fold.classes, fold.kind) != (first.classes, first.kind):
            raise InputError(
                f"{name} and {names[0]} have other classes or other scores ({fold.kind} of "
                f"{', '.join(fold.classes[:5])}): test all folds in the same way"
            )
        twice = next((clip for clip in fold.clips if clip in seen), None)
        if twice is not None:
            raise InputError(
                f"clip {twice!r} is tested in {seen[twice]} and in {name}: each clip must be held "
                "out once; make the folds anew"
            )
        seen |= dict.fromkeys(fold.clips, name)
    clips = [clip for fold in folds for clip in fold.clips]
    order = np.array(sorted(range(len(clips)), key=clips.__getitem__))
    groups = [g for fold in folds for g in (fold.groups or ("",) * len(fold))]
    return ClipScores(
        clips=tuple(clips[i] for i in order),
        labels=np.concatenate([fold.labels for fold in folds])[order],
        scores=np.concatenate([fold.scores for fold in folds])[order],
        classes=first.classes,
        kind=first.kind,
        groups=tuple(groups[i] for i in order) if any(groups) else None,
        split="test",
        protocol=_join_protocols([fold.protocol for fold in folds], names),
    )


def _join_protocols(protocols: Sequence[str], names: Sequence[str]) -> str:
    """Return the protocol of pooled folds: what was found, and of which folds."""
    folds_of: dict[str, list[str]] = {}
    for protocol, name in zip(protocols, names, strict=True):
        if protocol:
            found = protocol.partition("(")[2].removesuffix(")") or protocol
            folds_of.setdefault(found, []).append(name)
    parts = []
    for found, its in list(folds_of.items())[:_MOST_NAMED]:
        more = f" and {len(its) - _MOST_NAMED} more" if len(its) > _MOST_NAMED else ""
        where = "each fold" if len(its) == len(names) else ", ".join(its[:_MOST_NAMED]) + more
        parts.append(f"{where}: {found}")
    left = sum(map(len, list(folds_of.values())[_MOST_NAMED:]))
    return overlap_protocol([*parts, *([f"{left} more folds like these"] if left else [])])


def sum_up(
    seeds: Sequence[int], folds: Sequence[Sequence[ClipScores]], *, resamples: int = 2000
) -> CrossValidation:
    """Sum up a cross-validation.

    Args:
        seeds: S of them.
        folds: for each seed the scores of its K folds, in the same order.
        resamples: of the bootstrap.

    Raises:
        InputError: folds of a seed share a clip, or seeds have other clips.
    """
    pooled = align(
        [pool_folds(parts) for parts in folds], [f"the clips of seed {seed}" for seed in seeds]
    )
    results = tuple(
        SeedResult(
            seed,
            _measure(scores),
            GroupIntervals.of(
                scores.labels, scores.scores, scores.kind, scores.units, resamples=resamples
            ),
            tuple(map(_measure, parts)),
        )
        for seed, scores, parts in zip(seeds, pooled, folds, strict=True)
    )
    right = np.stack([scores.scores.argmax(1) == scores.labels for scores in pooled])  # (S, N)
    units = pooled[0].units or pooled[0].clips
    share = right.mean(0)
    return CrossValidation(
        pooled[0].classes,
        results,
        {name: Spread.of([getattr(r.metrics, name) for r in results]) for name in SUMMED},
        {name: _over_folds(results, name) for name in SUMMED},
        accuracy_interval(right, units),
        _mean_intervals(pooled, units, resamples),
        "clip" if pooled[0].units is None else "group",
        len(set(units)),
        int(((share > 0) & (share < 1)).sum()),
    )


def _measure(scores: ClipScores) -> Metrics:
    return Metrics.of(scores.labels, scores.scores, scores.kind)


def _over_folds(results: Sequence[SeedResult], name: str) -> Spread:
    """Return the spread over folds of a metric, each fold averaged over the seeds first."""
    folds = zip(*(result.folds for result in results), strict=True)
    return Spread.of([Spread.of([getattr(m, name) for m in fold]).mean for fold in folds])


def _mean_intervals(
    pooled: Sequence[ClipScores], units: Sequence[str], resamples: int
) -> dict[str, tuple[float, float] | None]:
    """Return bootstrap intervals of the mean over seeds of each metric."""
    bootstrap = Bootstrap.of(units, resamples=resamples)
    each = [statistics(scores.labels, scores.scores, scores.kind) for scores in pooled]
    return {
        name: bootstrap.interval(_mean_of([one[name] for one in each]))
        for name in SUMMED
        if name in each[0]
    }


def _mean_of(parts: Sequence[Statistic]) -> Statistic:
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def accuracy_interval(right: np.ndarray, units: Sequence[str]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean accuracy of a method over clips and seeds.

    Neither N clips scored by S seeds are N x S clips, nor S seeds on the same clips S samples of
    the data. Clips (whole groups of them) and seeds are both drawn; the variance of the mean is
    that between groups, of each clip's mean over the seeds, plus that between the seeds' means, by
    S. The share of chance that is in both is counted twice, so the interval is rather too wide than
    too narrow (Owen 2007, "The pigeonhole bootstrap", doi 10.1214/07-AOAS122). The variance
    between groups is not taken to be less than that of N clips that are each right or wrong. Then
    Wilson's form for as many clips as that variance is worth, as `grouped_wilson_interval` does,
    with Student's quantile for the degrees of freedom of a sum of two variances (Satterthwaite
    1946, doi 10.2307/3002019).

    With one seed, or seeds that agree, this is `grouped_wilson_interval`; training chance is then
    not in it.

    Args:
        right: (S, N) whether each seed has each clip right.
        units: group of each clip.

    Returns:
        Its ends, 0 to 1; None with one group, which says nothing about others.
    """
    codes = group_codes(units)
    num_groups = int(codes.max()) + 1
    if num_groups < 2:
        return None
    num_seeds, total = right.shape
    share = right.mean(0)
    accuracy = float(share.mean())
    residuals = np.bincount(codes, share) - accuracy * np.bincount(codes)
    binomial = accuracy * (1 - accuracy) / total
    between = num_groups / (num_groups - 1) * float((residuals**2).sum()) / total**2
    of_groups = max(between, binomial)
    means = right.mean(1)
    of_seeds = float(means.var(ddof=1)) / num_seeds if num_seeds > 1 else 0.0
    variance = of_groups + of_seeds
    freedom, effective = num_groups - 1.0, float(total)
    if variance > 0:
        effective = max(accuracy * (1 - accuracy) / variance, 1.0)
        seed_part = of_seeds**2 / max(num_seeds - 1, 1)
        freedom = variance**2 / (of_groups**2 / (num_groups - 1) + seed_part)
    quantile = float(stats.t.ppf(0.975, freedom))
    return wilson_interval(accuracy * effective, effective, quantile)
