"""Folds and seeds are pooled without counting a clip twice; intervals hold what they should."""

import json
from itertools import product

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from errors import InputError
from results.compare import compare_folded
from results.cross_validation import Spread, accuracy_interval, pool_folds, sum_up
from results.fold_tables import markdown
from results.intervals import grouped_wilson_interval, wilson_interval
from results.score_files import ClipScores
from results.selection import overlap_protocol, protocol_reason

CLASSES = ("landed", "a|<b>\n`fall`")


def fold_scores(numbers, seed=0, strength=1.0, **changes):
    labels = np.array([number % 2 for number in numbers])
    noise = np.random.default_rng([seed, *numbers]).normal(size=(len(labels), 2))
    values = {
        "clips": tuple(f"c{number:03}" for number in numbers),
        "labels": labels,
        "scores": noise + strength * np.eye(2)[labels],
        "classes": CLASSES,
        "groups": tuple(f"g{number % 5}" for number in numbers),
        "split": "test",
    }
    return ClipScores(**(values | changes))


def cross(total=40, folds=4, seeds=(0, 1, 2), strength=1.0, **changes):
    return [
        [fold_scores(range(k, total, folds), seed, strength, **changes) for k in range(folds)]
        for seed in seeds
    ]


# ---------------------------------------------------------------- pooling


def test_pooled_clips_are_those_of_the_folds_in_order():
    folds = cross()[0]
    pooled = pool_folds(folds)
    assert pooled.clips == tuple(f"c{n:03}" for n in range(40))
    for fold in folds:
        for row, clip in enumerate(fold.clips):
            place = pooled.clips.index(clip)
            assert (pooled.scores[place] == fold.scores[row]).all()
            assert pooled.labels[place] == fold.labels[row]
            assert pooled.groups[place] == fold.groups[row]
    turned = pool_folds(folds[::-1])
    assert turned.clips == pooled.clips
    assert (turned.scores == pooled.scores).all()


def test_folds_that_do_not_fit_are_refused():
    folds = cross()[0]
    with pytest.raises(InputError, match="clip 'c000' is tested in fold 1 and in fold 5"):
        pool_folds([*folds, fold_scores([0, 99])])
    with pytest.raises(InputError, match="have other classes or other scores"):
        pool_folds([*folds, fold_scores([99], classes=("x", "y"))])
    odd = fold_scores([98, 99])
    odd = ClipScores(odd.clips, odd.labels, np.full((2, 2), 0.5), CLASSES, "probabilities")
    with pytest.raises(InputError, match="have other classes or other scores"):
        pool_folds([*folds, odd])
    with pytest.raises(InputError, match="seed 1.*cannot be put side by side"):
        sum_up([0, 1], [folds, folds[1:]])


def test_a_fold_that_was_selected_on_marks_the_whole():
    assert pool_folds([fold_scores([1, 2], protocol="published"), fold_scores([3])]).protocol
    assert pool_folds([fold_scores([1]), fold_scores([2], groups=None)]).groups == ("g1", "")


def test_what_each_fold_has_seen_is_said_of_the_whole():
    seen = [overlap_protocol([f"{n} of 20 test clips were trained on"]) for n in (17, 3, 17)]
    folds = [fold_scores([n], protocol=text) for n, text in enumerate([*seen, ""])]
    reason = protocol_reason(pool_folds(folds).protocol)
    assert "fold 1, fold 3: 17 of 20 test clips were trained on; fold 2: 3 of 20" in reason
    assert "fold 4" not in reason
    assert ": each fold: 17 of 20" in protocol_reason(pool_folds(folds[:1]).protocol)
    assert pool_folds(folds[3:]).protocol == ""
    many = [fold_scores([n], protocol=overlap_protocol([f"{n} clips"])) for n in range(9)]
    assert pool_folds(many).protocol.endswith("fold 5: 4 clips; 4 more folds like these)")


# ---------------------------------------------------------------- numbers


def test_numbers_are_those_of_sklearn_and_of_hand():
    parts = cross()
    found = sum_up([5, 6, 7], parts, resamples=200)
    by_seed, by_fold = [], []
    for seed, folds, result in zip([5, 6, 7], parts, found.seeds, strict=True):
        labels = np.concatenate([f.labels for f in folds])
        scores = np.concatenate([f.scores for f in folds])
        assert result.seed == seed
        assert result.metrics.balanced_accuracy == pytest.approx(
            balanced_accuracy_score(labels, scores.argmax(1))
        )
        assert result.metrics.auroc == pytest.approx(
            roc_auc_score(labels, scores[:, 1] - scores[:, 0])
        )
        by_seed.append((scores.argmax(1) == labels).mean())
        by_fold.append([(f.scores.argmax(1) == f.labels).mean() for f in folds])
    accuracy = found.over_seeds["accuracy"]
    assert accuracy.mean == pytest.approx(np.mean(by_seed))
    assert accuracy.deviation == pytest.approx(np.std(by_seed, ddof=1))
    folds = np.mean(by_fold, axis=0)
    assert found.over_folds["accuracy"].mean == pytest.approx(folds.mean())
    assert found.over_folds["accuracy"].deviation == pytest.approx(folds.std(ddof=1))
    assert (found.total, found.majority, found.unit, found.units) == (40, 0.5, "group", 5)
    json.dumps(found.to_json(), allow_nan=False)


def test_what_is_not_defined_in_a_fold_is_left_out():
    # Folds of one class: the AUROC is defined for all clips and for no fold.
    parts = [[fold_scores(range(0, 20, 2)), fold_scores(range(1, 20, 2))]]
    found = sum_up([0], parts, resamples=100)
    assert found.over_folds["auroc"] == Spread(None, None, 0)
    assert found.over_seeds["auroc"].count == 1
    assert found.over_seeds["accuracy"].deviation is None
    assert Spread.of([1.0, None, 3.0]) == Spread(2.0, pytest.approx(2**0.5), 2)


def test_one_seed_has_the_interval_of_its_groups():
    parts = cross(seeds=(3,))
    found = sum_up([3], parts, resamples=100)
    assert found.interval == pytest.approx(found.seeds[0].intervals.values["accuracy"])


# ---------------------------------------------------------------- the interval over seeds


def test_repeating_a_seed_changes_nothing():
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.8
    for units in ([str(n) for n in range(60)], [str(n % 7) for n in range(60)]):
        expected = grouped_wilson_interval(right, units)
        for count in (1, 2, 9):
            same = np.tile(right, (count, 1))
            assert accuracy_interval(same, units) == pytest.approx(expected)
    total = [str(n) for n in range(5000)]
    right = rng.random(5000) < 0.8
    many = accuracy_interval(np.tile(right, (3, 1)), total)
    assert many == pytest.approx(wilson_interval(right.sum(), 5000), abs=2e-4)


def test_it_is_never_narrower_than_wilson_on_the_clips_alone():
    rng = np.random.default_rng(1)
    for _ in range(200):
        num_seeds, total = int(rng.integers(1, 5)), int(rng.integers(2, 40))
        right = rng.random((num_seeds, total)) < rng.random()
        low, high = accuracy_interval(right, [str(n % 6) for n in range(total)])
        mean = right.mean()
        one_low, one_high = wilson_interval(mean * total, total)
        assert 0 <= low <= one_low + 1e-9 <= mean + 1e-8
        assert 1 >= high >= one_high - 1e-9
    assert accuracy_interval(np.ones((2, 5), bool), ["a"] * 5) is None


def test_seeds_that_differ_widen_it():
    right = np.zeros((3, 100), bool)
    for seed, correct in enumerate((60, 80, 95)):
        right[seed, :correct] = True
    units = [str(n) for n in range(100)]
    low, high = accuracy_interval(right, units)
    p, of_seeds = right.mean(), np.var([0.6, 0.8, 0.95], ddof=1) / 3
    share = right.mean(0)
    of_clips = max(100 / 99 * ((share - p) ** 2).sum() / 100**2, p * (1 - p) / 100)
    variance = of_clips + of_seeds
    freedom = variance**2 / (of_clips**2 / 99 + of_seeds**2 / 2)
    size = p * (1 - p) / variance
    expected = wilson_interval(p * size, size, stats.t.ppf(0.975, freedom))
    assert (low, high) == pytest.approx(expected)
    assert high - low > 0.3


@pytest.mark.parametrize(("groups", "clips", "seeds"), [(40, 1, 3), (10, 8, 3), (30, 3, 5)])
def test_it_holds_the_truth_where_counting_clips_several_times_does_not(groups, clips, seeds):
    rng = np.random.default_rng(2)
    draw = rng.normal
    truth = expit(1.2 + 0.7 * draw(size=10**6) + draw(size=10**6) + 0.2 * draw(size=10**6)).mean()
    codes = np.repeat(np.arange(groups), clips)
    ours = counted = 0
    for _ in range(300):
        level = 1.2 + 0.7 * draw(size=groups)[codes] + draw(size=len(codes))
        right = rng.random((seeds, len(codes))) < expit(level + 0.2 * draw(size=(seeds, 1)))
        low, high = accuracy_interval(right, [str(code) for code in codes])
        ours += low <= truth <= high
        low, high = wilson_interval(right.sum(), right.size)
        counted += low <= truth <= high
    assert ours / 300 >= 0.95
    assert counted / 300 < 0.9


# ---------------------------------------------------------------- text


def test_the_report_says_the_numbers_and_foreign_names_break_no_table():
    parts = cross()
    found = sum_up([0, 1, 2], parts, resamples=100)
    text = markdown(found, parts, "main.py --x `y`", "the last epoch", ["a | <note>"])
    assert f"**Accuracy {found.over_seeds['accuracy'].mean:.1%}**" in text
    assert r"| a\|&lt;b> `fall` | 20 |" in text
    assert r"- a \| &lt;note>" in text
    assert "`python main.py --x 'y'`" in text
    tables = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    blocks = [
        {line.count("|") for line in block}
        for block in split_at(tables, lambda line: "---" in line)
    ]
    assert len(blocks) == 4
    assert "5 groups" in text


def split_at(lines, is_rule):
    starts = [n - 1 for n, line in enumerate(lines) if is_rule(line)]
    blocks = [lines[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)
    return blocks


# ---------------------------------------------------------------- two of them


def pooled(strength, seeds=(0, 1), **changes):
    parts = cross(seeds=seeds, strength=strength, **changes)
    return {seed: pool_folds(folds) for seed, folds in zip(seeds, parts, strict=True)}


def test_a_comparison_is_paired_by_clip():
    first, second = pooled(0.2), pooled(3.0)
    found = compare_folded(first, second)
    right = {
        name: np.mean([s.scores.argmax(1) == s.labels for s in one.values()], axis=0)
        for name, one in (("first", first), ("second", second))
    }
    change = right["second"] - right["first"]
    assert found.difference == pytest.approx(change.mean())
    assert len(found.better) == (change > 0).sum()
    assert len(found.worse) == (change < 0).sum()
    sums = [change[[n for n in range(40) if n % 5 == g]].sum() for g in range(5)]
    swapped = [abs(np.dot(signs, sums)) for signs in product((1, -1), repeat=5)]
    assert found.p_value == pytest.approx(np.mean(np.array(swapped) >= abs(sum(sums)) - 1e-9))
    assert set(found.by_seed) == {0, 1}
    low, high = found.interval
    assert low < found.difference < high
    assert "\n" not in "".join(found.lines("a", "b"))
    json.dumps(found.to_json(), allow_nan=False)
    back = compare_folded(second, first)
    assert back.difference == pytest.approx(-found.difference)
    assert back.p_value == found.p_value


def test_other_seeds_and_other_orders_compare_and_other_clips_do_not():
    first = pooled(1.0)
    assert compare_folded(first, first).p_value == 1
    assert compare_folded(first, pooled(1.0, seeds=(8, 9, 10))).by_seed == {}
    with pytest.raises(InputError, match="clips are in one alone"):
        compare_folded(first, pooled(1.0, total=36))
    alone = compare_folded(pooled(1.0, groups=None), pooled(2.0, groups=None))
    assert (alone.unit, alone.units) == ("clip", 40)


def test_groups_that_one_of_the_two_knows_hold_for_both():
    known, alone = pooled(0.2), pooled(3.0, groups=None)
    both = compare_folded(known, pooled(3.0))
    for found in (
        compare_folded(known, alone),
        compare_folded(pooled(0.2, groups=None), pooled(3.0)),
    ):
        assert (found.unit, found.units, found.p_value) == ("group", 5, both.p_value)
        assert found.interval == both.interval


def test_a_comparison_names_what_does_not_fit():
    with pytest.raises(InputError, match=r"^b \(seed 0\) and a \(seed 0\) cannot be put side"):
        compare_folded(pooled(1.0), pooled(1.0, total=36), names=("a", "b"))
