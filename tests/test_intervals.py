import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from results.calibration import brier_losses, probabilities
from results.group_intervals import (
    GroupIntervals,
    statistics,
    weighted_auroc,
    weighted_precision,
)
from results.intervals import (
    Bootstrap,
    grouped_wilson_interval,
    weighted_mean,
    wilson_interval,
)
from results.metrics import Metrics


def in_groups(rng, num_groups, size, correlation, accuracy):
    """Return right answers of groups whose own accuracies differ as `correlation` says."""
    spread = (1 - correlation) / correlation
    own = rng.beta(accuracy * spread, (1 - accuracy) * spread, num_groups)
    names = np.repeat(np.arange(num_groups), size)
    return rng.random(len(names)) < own[names], [f"athlete {n}" for n in names]


# ---------------------------------------------------------------- Wilson


@pytest.mark.parametrize(("correct", "total"), [(0, 5), (5, 5), (204, 208), (22, 26), (1, 1)])
def test_wilson_interval_is_scipys_and_solves_its_equation(correct, total):
    low, high = wilson_interval(correct, total)
    theirs = stats.binomtest(correct, total).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high))
    # The ends are the p at which the observed proportion lies z standard errors away.
    for end in (low, high):
        if 0 < end < 1:
            error = (end * (1 - end) / total) ** 0.5
            assert abs(correct / total - end) == pytest.approx(1.959963984540054 * error, abs=1e-9)
    assert 0 <= low <= correct / total <= high <= 1


def test_wilson_interval_of_the_published_result():
    assert wilson_interval(204, 208) == pytest.approx((0.952, 0.992), abs=5e-4)


def test_wilson_interval_refuses_nonsense():
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(3, 2)


def test_grouped_interval_by_the_formula_of_cluster_samples():
    is_right, groups = in_groups(np.random.default_rng(0), 6, 20, 0.3, 0.7)
    p, size = is_right.mean(), 20
    # Groups of one size: the variance of the mean of their accuracies.
    means = is_right.reshape(6, size).mean(1)
    effective = p * (1 - p) / (means.var(ddof=1) / 6)
    expected = wilson_interval(p * effective, effective, stats.t.ppf(0.975, 5))
    assert effective < 120
    assert grouped_wilson_interval(is_right, groups) == pytest.approx(expected)


def test_grouped_interval_of_single_clips_is_wilsons_but_for_the_quantile():
    is_right = np.arange(400) % 5 > 0
    low, high = grouped_wilson_interval(is_right, [str(n) for n in range(400)])
    assert (low, high) == pytest.approx(wilson_interval(320, 400), abs=2e-3)


def test_grouped_interval_at_its_limits():
    groups = ["a"] * 5 + ["b"] * 5
    low, high = grouped_wilson_interval(np.ones(10, bool), groups)
    assert 0 < low < 0.5
    assert high == 1
    assert grouped_wilson_interval(np.ones(10, bool), ["a"] * 10) is None


# ---------------------------------------------------------------- bootstrap


def test_bootstrap_of_clips_is_scipys_bca():
    """Of few and skewed values, whose interval a wrong sign of a correction would move far."""
    values = np.random.default_rng(0).lognormal(size=20)

    def variance(weights):
        mean = weights @ values / weights.sum(1)
        return weights @ values**2 / weights.sum(1) - mean**2

    bootstrap = Bootstrap.of([f"{n:02d}" for n in range(20)], resamples=40_000)
    ours = bootstrap.interval(variance)
    # The level that Student's quantile and the factor for few groups ask for, in scipy's terms.
    wide = math.sqrt(20 / 19) * stats.t.ppf(0.975, 19)
    theirs = stats.bootstrap(
        (values,), np.var, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1),
        confidence_level=1 - 2 * stats.norm.cdf(-wide),
    ).confidence_interval  # fmt: skip
    assert ours == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_bootstrap_draws_whole_groups_of_equal_chance():
    bootstrap = Bootstrap.of(["b", "a", "b", "c"], resamples=3000)
    assert bootstrap.codes.tolist() == [1, 0, 1, 2]
    assert (bootstrap.draws.sum(1) == 3).all()
    assert bootstrap.draws.mean(0) == pytest.approx([1, 1, 1], abs=0.06)
    again = Bootstrap.of(["b", "a", "b", "c"], resamples=3000)
    other = Bootstrap.of(["b", "a", "b", "c"], resamples=3000, seed=1)
    assert (again.draws == bootstrap.draws).all()
    assert (other.draws != bootstrap.draws).any()


def test_copies_of_clips_in_a_group_say_nothing_new():
    values = np.random.default_rng(2).normal(size=30)
    groups = [f"g{n:02d}" for n in range(30)]
    one = Bootstrap.of(groups).interval(weighted_mean(values))
    ten = Bootstrap.of(np.repeat(groups, 10).tolist()).interval(weighted_mean(values.repeat(10)))
    assert ten == pytest.approx(one)


def test_bootstrap_says_nothing_where_nothing_varies():
    assert Bootstrap.of(["a"] * 5).interval(weighted_mean(np.arange(5.0))) is None
    assert Bootstrap.of(list("abcde")).interval(weighted_mean(np.ones(5))) is None
    undefined = Bootstrap.of(list("abcde")).interval(lambda w: np.full(len(w), np.nan))
    assert undefined is None


def test_chunks_change_nothing(monkeypatch):
    values = np.random.default_rng(3).normal(size=50)
    bootstrap = Bootstrap.of([str(n % 9) for n in range(50)])
    whole = bootstrap.interval(weighted_mean(values))
    monkeypatch.setattr("results.intervals._MOST_CELLS", 120)
    assert bootstrap.interval(weighted_mean(values)) == pytest.approx(whole)


def test_coverage_by_simulation():
    """Of 12 groups of correlated clips: both intervals hold the truth, Wilson's of clips not."""
    rng = np.random.default_rng(5)
    held = np.zeros(3)
    for _ in range(300):
        is_right, groups = in_groups(rng, 12, 10, 0.3, 0.7)
        found = (
            grouped_wilson_interval(is_right, groups),
            Bootstrap.of(groups, resamples=400).interval(weighted_mean(is_right.astype(float))),
            wilson_interval(int(is_right.sum()), len(is_right)),
        )
        held += [low <= 0.7 <= high for low, high in found]
    grouped, bootstrap, clips = held / 300
    assert grouped > 0.92
    assert bootstrap > 0.90
    assert clips < 0.80


# ---------------------------------------------------------------- all metrics


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_areas_are_scikit_learns(ties):
    rng = np.random.default_rng(0)
    is_class = (rng.random(60) < 0.4).astype(float)
    evidence = rng.normal(size=60)
    evidence = np.round(evidence) if ties else evidence
    weights = rng.multinomial(60, np.full(60, 1 / 60), size=20).astype(float)
    areas = weighted_auroc(weights, is_class, evidence)
    precisions = weighted_precision(weights, is_class, evidence)
    for row, area, precision in zip(weights, areas, precisions, strict=True):
        assert area == pytest.approx(sk.roc_auc_score(is_class, evidence, sample_weight=row))
        expected = sk.average_precision_score(is_class, evidence, sample_weight=row)
        assert precision == pytest.approx(expected)


def test_weighted_areas_are_undefined_where_a_side_is_missing():
    weights = np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    is_class, evidence = np.array([1.0, 1, 0, 0]), np.arange(4.0)
    assert np.isnan(weighted_auroc(weights, is_class, evidence)).all()
    assert weighted_precision(weights, is_class, evidence)[0] == 1
    assert np.isnan(weighted_precision(weights, is_class, evidence)[1])


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("num_classes", [1, 2, 4, 9])
def test_statistics_of_a_resample_are_the_metrics_of_its_clips(num_classes, kind):
    rng = np.random.default_rng(num_classes)
    labels, scores = rng.integers(0, num_classes, 40), rng.normal(size=(40, num_classes))
    scores = probabilities(scores, "logits") if kind == "probabilities" else np.round(scores, 1)
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=5)
    found = {n: s(weights.astype(float)) for n, s in statistics(labels, scores, kind).items()}
    for number, row in enumerate(weights):
        clips = np.repeat(np.arange(40), row)
        expected = Metrics.of(labels[clips], scores[clips], kind)
        for name in ("balanced_accuracy", "macro_f1", "loss", "auroc", "average_precision"):
            value = getattr(expected, name)
            assert found[name][number] == pytest.approx(
                np.nan if value is None else value, nan_ok=True
            )
        assert found["accuracy_bootstrap"][number] == pytest.approx(expected.accuracy)
        brier = brier_losses(labels[clips], probabilities(scores[clips], kind)).mean()
        assert found["brier"][number] == pytest.approx(brier)


def test_intervals_hold_what_was_measured_and_groups_widen_them():
    rng = np.random.default_rng(1)
    is_right, groups = in_groups(rng, 15, 20, 0.4, 0.75)
    labels = rng.integers(0, 3, len(is_right))
    scores = np.eye(3)[np.where(is_right, labels, (labels + 1) % 3)] + rng.normal(0, 0.1, (300, 3))
    by_group = GroupIntervals.of(labels, scores, "logits", groups)
    by_clip = GroupIntervals.of(labels, scores, "logits")
    metrics = Metrics.of(labels, scores)
    for name, interval in by_group.values.items():
        low, high = interval
        measured = getattr(metrics, name.removesuffix("_bootstrap"), metrics.calibration.brier)
        assert low <= measured <= high
        assert high - low > by_clip.values[name][1] - by_clip.values[name][0]
    assert (by_group.unit, by_group.units, by_group.note) == ("group", 15, "")
    assert (by_clip.unit, by_clip.units) == ("clip", 300)
    assert "no groups" in by_clip.note
    assert by_clip.values["accuracy"] == metrics.interval
    assert by_group.to_json()["values"]["accuracy"] == list(by_group.values["accuracy"])


def test_few_groups_are_said():
    labels, scores = np.array([0, 1, 0, 1]), np.eye(2)
    assert "only 2 groups" in GroupIntervals.of(labels, scores[labels], groups=list("aabb")).note
    one = GroupIntervals.of(labels, scores[labels], groups=list("aaaa"))
    assert set(one.values.values()) == {None}
    assert "all clips are of one group" in one.note


def test_huge_lists_leave_out_the_areas(monkeypatch):
    monkeypatch.setattr("results.group_intervals.MOST_RANKED", 7)
    labels = np.array([0, 1, 0, 1])
    assert "auroc" not in statistics(labels, np.eye(2)[labels], "logits")
