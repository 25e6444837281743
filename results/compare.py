"""Two models on the same clips: which differences are more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from scipy import stats

from errors import InputError
from results.intervals import Bootstrap, group_codes, weighted_mean
from results.score_files import ClipScores

# All signs of up to this many groups are tried (65,536); of more, this many draws are.
_MOST_EXACT, _SIGN_DRAWS = 16, 99_999


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on N clips.

    Attributes:
        total: N.
        both, neither: clips that both models have right, or none.
        only_first, only_second: names of the clips that one alone has right, sorted.
        difference: accuracy of the second less that of the first, -1 to 1.
        interval: its paired 95 % bootstrap interval over groups (clips where no groups are
            known); None when the clips say nothing about how it varies.
        p_value: exact McNemar test, two-sided, of equal accuracies; takes clips as independent.
        group_p_value: the same question with groups as units: how often the difference is as
            large when the two models are swapped in a random half of the groups. None where no
            groups are known. The least value of G groups is 2 / 2^G.
        unit: "group" or "clip": what the interval draws.
        units: how many of them.
    """

    total: int
    both: int
    neither: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    difference: float
    interval: tuple[float, float] | None
    p_value: float
    group_p_value: float | None
    unit: str
    units: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def lines(self, first: str, second: str, most: int = 20) -> list[str]:
        """Return the result as lines of text; at most `most` clips of each kind are named."""
        margin = "no interval"
        if self.interval is not None:
            low, high = self.interval
            margin = f"95 % interval {low:+.1%} to {high:+.1%} over {self.units} {self.unit}s"
        text = [
            f"{second} against {first}: {self.difference:+.2%} accuracy ({margin})",
            f"  right: both {self.both}, only {first} {len(self.only_first)}, only {second} "
            f"{len(self.only_second)}, neither {self.neither}, of {self.total} clips",
            f"  p {self.p_value:.3g} (exact McNemar, clips taken as independent)",
        ]
        if self.group_p_value is not None:
            text.append(f"  p {self.group_p_value:.3g} (models swapped by group)")
        for name, clips in ((first, self.only_first), (second, self.only_second)):
            if clips:
                text.append(f"  only {name}: {_some(clips, most)}")
        return text


def compare(
    first: ClipScores, second: ClipScores, *, resamples: int = 2000, seed: int = 0
) -> Comparison:
    """Compare two models clip by clip; the clips may come in any order.

    Raises:
        InputError: the two hold other clips, labels or classes.
    """
    second = align([first, second])[1]
    right = [scores.scores.argmax(1) == scores.labels for scores in (first, second)]
    only = [_names(first.clips, right[n] & ~right[1 - n]) for n in range(2)]
    change = right[1].astype(np.float64) - right[0]
    groups = first.units or second.units
    units = groups or first.clips
    bootstrap = Bootstrap.of(units, resamples=resamples, seed=seed)
    return Comparison(
        total=len(first),
        both=int((right[0] & right[1]).sum()),
        neither=int((~right[0] & ~right[1]).sum()),
        only_first=only[0],
        only_second=only[1],
        difference=float(change.mean()),
        interval=bootstrap.interval(weighted_mean(change)),
        p_value=mcnemar_exact(len(only[0]), len(only[1])),
        group_p_value=swap_test(change, groups, seed) if groups else None,
        unit="group" if groups else "clip",
        units=bootstrap.num_groups,
    )


def _names(clips: Sequence[str], chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(sorted(clip for clip, is_chosen in zip(clips, chosen, strict=True) if is_chosen))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of the exact McNemar test; 1 when no clip differs.

    Under the null hypothesis each clip that only one model has right is as likely of either.
    Source: McNemar 1947, doi 10.1007/BF02295996.
    """
    discordant = only_first + only_second
    if not discordant:
        return 1.0
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def swap_test(change: np.ndarray, groups: Sequence[str], seed: int = 0) -> float:
    """Return the p-value of a mean change, with the models swapped in whole groups.

    Args:
        change: (N,) 1 where only the second model is right, -1 where only the first, else 0.
        groups: N names. All 2^G swaps for up to 16 groups with a change, else 99,999 draws.
        seed: of the draws.
    """
    sums = np.bincount(group_codes(groups), change)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    observed = abs(sums.sum()) - 1e-9
    if len(sums) <= _MOST_EXACT:
        signs = np.array(list(product((1, -1), repeat=len(sums))), np.int8)
        return float((np.abs(signs @ sums) >= observed).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for count in [10_000] * (_SIGN_DRAWS // 10_000) + [_SIGN_DRAWS % 10_000]:
        signs = rng.choice(np.array([1, -1], np.int8), (count, len(sums)))
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (hits + 1) / (_SIGN_DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for done, n in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        largest = max(largest, min(1.0, p_values[n] * (len(p_values) - done)))
        adjusted[n] = largest
    return adjusted


# ---------------------------------------------------------------- cross-validations


@dataclass(frozen=True, slots=True)
class FoldedComparison:
    """Two cross-validations on the same N clips.

    Attributes:
        total: N.
        seeds: of the first, of the second.
        difference: mean accuracy of the second less that of the first, -1 to 1.
        interval: its paired 95 % bootstrap interval over groups (clips where none are known), of
            each clip's mean over the seeds; None when the clips say nothing about how it varies.
            How seeds vary is not in it.
        p_value: how often the difference is as large when the two are swapped in a random half of
            the groups (clips where none are known).
        unit: "group" or "clip".
        units: how many of them.
        better, worse: clips that the second has right more often, less often.
        by_seed: seed -> paired comparison, of the seeds that both have.
    """

    total: int
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    difference: float
    interval: tuple[float, float] | None
    p_value: float
    unit: str
    units: int
    better: tuple[str, ...]
    worse: tuple[str, ...]
    by_seed: Mapping[int, Comparison]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **asdict(self),
            "by_seed": {str(seed): found.to_json() for seed, found in self.by_seed.items()},
        }

    def lines(self, first: str, second: str) -> list[str]:
        """Return the result as lines of text."""
        margin = "no interval"
        if self.interval is not None:
            low, high = self.interval
            margin = f"95 % interval {low:+.1%} to {high:+.1%} over {self.units} {self.unit}s"
        head = (
            f"{second} against {first}: {self.difference:+.2%} accuracy, mean over "
            f"{len(self.seeds[1])} and {len(self.seeds[0])} seeds ({margin})"
        )
        text = [
            head,
            f"  p {self.p_value:.3g} (the two swapped by {self.unit})",
            f"  of {self.total} clips {len(self.better)} right more often, {len(self.worse)} less "
            "often",
        ]
        for seed, found in self.by_seed.items():
            text.append(
                f"  seed {seed}: {found.difference:+.2%}, only {first} {len(found.only_first)}, "
                f"only {second} {len(found.only_second)}, p {found.p_value:.3g} (exact McNemar, "
                "clips taken as independent)"
            )
        return text


def compare_folded(
    first: Mapping[int, ClipScores],
    second: Mapping[int, ClipScores],
    *,
    names: tuple[str, str] = ("the first", "the second"),
    seed: int = 0,
) -> FoldedComparison:
    """Compare two cross-validations clip by clip.

    Args:
        first: seed -> pooled scores.
        second: seed -> pooled scores, of the same clips.
        names: what to call the two in a message.
        seed: of the bootstrap.

    Raises:
        InputError: the two hold other clips, labels or classes.
    """
    both = list(zip((first, second), names, strict=True))
    every = align(
        [scores for one, _ in both for scores in one.values()],
        [f"{name} (seed {number})" for one, name in both for number in one],
    )
    right = np.stack([scores.scores.argmax(1) == scores.labels for scores in every])
    change = right[len(first) :].mean(0) - right[: len(first)].mean(0)
    clips = every[0].clips
    # Groups that one of the two knows hold for the other, too: the clips are the same.
    groups = next((scores.units for scores in every if scores.units), None)
    units = groups or clips
    bootstrap = Bootstrap.of(units, seed=seed)
    total = len(clips)
    return FoldedComparison(
        total=total,
        seeds=(tuple(first), tuple(second)),
        difference=math.fsum(change) / total,
        interval=bootstrap.interval(weighted_mean(change)),
        p_value=swap_test(change, units, seed),
        unit="group" if groups else "clip",
        units=bootstrap.num_groups,
        better=tuple(c for c, d in zip(clips, change, strict=True) if d > 1e-9),
        worse=tuple(c for c, d in zip(clips, change, strict=True) if d < -1e-9),
        by_seed={s: compare(first[s], second[s], seed=seed) for s in first.keys() & second.keys()},
    )


# ---------------------------------------------------------------- same clips


def align(models: Sequence[ClipScores], names: Sequence[str] = ()) -> list[ClipScores]:
    """Return scores of several models with the clips in the order of the first.

    Args:
        models: at least one.
        names: what to call them in a message, such as their files.

    Raises:
        InputError: they hold other clips, labels or classes than the first.
    """
    names = names or [f"score file {n}" for n in range(1, len(models) + 1)]
    return [
        models[0],
        *(
            _align(models[0], other, names[0], name)
            for other, name in zip(models[1:], names[1:], strict=True)
        ),
    ]


def _align(first: ClipScores, other: ClipScores, first_name: str, name: str) -> ClipScores:
    pair = f"{name} and {first_name} cannot be put side by side"
    if other.classes != first.classes:
        raise InputError(
            f"{pair}: the classes are {_some(other.classes)} and {_some(first.classes)}; they must "
            "be the same in the same order: score both models on one data set"
        )
    rows = {clip: row for row, clip in enumerate(other.clips)}
    odd = set(first.clips) ^ rows.keys()
    if odd:
        clip = min(odd)
        place = name if clip in rows else first_name
        raise InputError(
            f"{pair}: {len(odd)} clips are in one alone, such as {clip!r} in {place}; score both "
            "models on the same list"
        )
    order = np.array([rows[clip] for clip in first.clips])
    differs = other.labels[order] != first.labels
    if differs.any():
        clip = first.clips[int(differs.argmax())]
        raise InputError(
            f"{pair}: {int(differs.sum())} clips have another label, such as {clip!r}; score both "
            "models on the same list"
        )
    groups = other.groups and tuple(other.groups[row] for row in order)
    return replace(
        other, clips=first.clips, labels=first.labels, scores=other.scores[order], groups=groups
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
