import re
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax, softmax

from errors import InputError
from results.compare import align, compare, holm, mcnemar_exact, swap_test
from results.ensembles import (
    STREAM_WEIGHTS,
    combine,
    normalise_weights,
    refuse_tested,
    stream_weights,
    tune_weights,
)
from results.score_files import ClipScores


def model(seed, total=60, num_classes=3, strength=1.5, **changes):
    """Return scores of clips c000, c001 ... of one truth, better with more `strength`."""
    labels = np.random.default_rng(99).integers(0, num_classes, total)
    noise = np.random.default_rng(seed).normal(size=(total, num_classes))
    values = {
        "clips": tuple(f"c{n:03d}" for n in range(total)),
        "labels": labels,
        "scores": noise + strength * np.eye(num_classes)[labels],
        "classes": tuple("abcdefghij"[:num_classes]),
    }
    return ClipScores(**(values | changes))


def soft(scores):
    return ClipScores(
        scores.clips, scores.labels, softmax(scores.scores, axis=1), scores.classes, "probabilities"
    )


def shuffled(scores, seed=0):
    order = np.random.default_rng(seed).permutation(len(scores))
    return ClipScores(
        tuple(scores.clips[n] for n in order), scores.labels[order], scores.scores[order],
        scores.classes, scores.kind, scores.groups and tuple(scores.groups[n] for n in order),
    )  # fmt: skip


# ---------------------------------------------------------------- comparison


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (0, 5), (3, 12), (40, 41), (7, 7)])
def test_mcnemar_by_the_binomial_sum(first, second):
    total, least = first + second, min(first, second)
    tail = sum(comb(total, n) for n in range(least + 1)) / 2**total
    assert mcnemar_exact(first, second) == pytest.approx(min(1.0, 2 * tail))


def test_comparison_counts_every_clip_once():
    first, second = model(0), model(1, strength=3.0)
    found = compare(first, second)
    right = [m.scores.argmax(1) == m.labels for m in (first, second)]
    assert found.both + found.neither + len(found.only_first + found.only_second) == 60
    assert found.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert found.p_value == mcnemar_exact(len(found.only_first), len(found.only_second))
    for clip in found.only_second:
        n = first.clips.index(clip)
        assert (right[0][n], right[1][n]) == (False, True)
    low, high = found.interval
    assert low <= found.difference <= high
    assert (found.unit, found.units, found.group_p_value) == ("clip", 60, None)
    assert f"only the second {len(found.only_second)}" in found.lines("the first", "the second")[1]


def test_comparison_is_turned_round_when_the_models_are():
    one, other = compare(model(0), model(1, strength=3)), compare(model(1, strength=3), model(0))
    assert (one.only_first, one.only_second) == (other.only_second, other.only_first)
    assert (one.difference, one.p_value) == (-other.difference, other.p_value)


def test_the_order_of_the_clips_changes_nothing():
    groups = tuple(f"g{n % 7}" for n in range(60))
    first, second = model(0, groups=groups), model(1, groups=groups)
    assert compare(first, shuffled(second)) == compare(first, second)


def test_a_model_against_itself():
    found = compare(model(0), model(0))
    assert (found.difference, found.p_value, found.interval) == (0, 1, None)
    assert (found.only_first, found.only_second) == ((), ())


def test_groups_of_alike_clips_say_less():
    labels = np.zeros(200, np.int64)
    clips = tuple(f"c{n}" for n in range(200))
    groups = tuple(f"athlete {n // 20}" for n in range(200))
    wrong, right = np.tile([0.0, 1], (200, 1)), np.tile([1.0, 0], (200, 1))
    better = np.where(np.repeat([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], 20)[:, None] > 0, right, wrong)
    found = compare(
        ClipScores(clips, labels, wrong, ("a", "b"), groups=groups),
        ClipScores(clips, labels, better, ("a", "b")),
    )
    assert found.p_value < 1e-15
    assert found.group_p_value == pytest.approx(0.25)
    assert (found.unit, found.units) == ("group", 10)
    clipwise = compare(
        ClipScores(clips, labels, wrong, ("a", "b")), ClipScores(clips, labels, better, ("a", "b"))
    )
    assert np.ptp(found.interval) > 3 * np.ptp(clipwise.interval)


def test_swap_test_is_scipys_permutation_test():
    rng = np.random.default_rng(3)
    groups = [f"g{n:02d}" for n in range(12) for _ in range(4)]
    change = rng.integers(-1, 3, 48).clip(-1, 1).astype(float)
    sums = change.reshape(12, 4).sum(1)
    theirs = stats.permutation_test(
        (sums,), lambda x: np.abs(x.sum()), permutation_type="samples", n_resamples=np.inf,
        alternative="greater",
    )  # fmt: skip
    assert swap_test(change, groups) == pytest.approx(theirs.pvalue)
    by_hand = [abs(np.dot(s, sums)) >= abs(sums.sum()) - 1e-9 for s in product((1, -1), repeat=12)]
    assert swap_test(change, groups) == pytest.approx(np.mean(by_hand))


def test_swap_test_of_single_clips_is_mcnemars():
    change = np.array([1.0] * 9 + [-1.0] * 3 + [0.0] * 20)
    assert swap_test(change, [str(n) for n in range(32)]) == pytest.approx(mcnemar_exact(3, 9))
    many = np.array([1.0] * 22 + [-1.0] * 12)
    drawn = swap_test(many, [str(n) for n in range(34)])
    assert drawn == pytest.approx(mcnemar_exact(12, 22), abs=0.006)


def test_paired_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    clips, classes = tuple(map(str, range(120))), ("a", "b")
    groups = tuple(f"g{n // 6}" for n in range(120))
    labels, held = np.zeros(120, np.int64), 0
    expected = stats.beta(6, 2).expect(lambda s: np.minimum(s + 0.1, 1) - s)
    for _ in range(200):
        skill = rng.beta(6, 2, 20).repeat(6)
        gain = np.clip(skill + 0.1, 0, 1)
        rows = [np.stack([rng.random(120) < share, np.full(120, 0.5)], 1).astype(float)
                for share in (skill, gain)]  # fmt: skip
        found = compare(
            ClipScores(clips, labels, rows[0], classes, groups=groups),
            ClipScores(clips, labels, rows[1], classes), resamples=300,
        )  # fmt: skip
        held += found.interval[0] <= expected <= found.interval[1]
    assert held / 200 > 0.9


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (model(0, total=59), "1 clips are in one alone, such as 'c059' in one.npz"),
        (model(0, classes=("b", "a", "c")), "the classes are b, a, c and a, b, c"),
        (model(0, num_classes=5), "the classes are a, b, c and 2 more"),
        (model(0, labels=np.zeros(60, np.int64)), "clips have another label, such as"),
    ],
)
def test_other_clips_labels_and_classes_are_refused(other, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        align([model(0), other], ["one.npz", "two.npz"])
    assert str(caught.value).startswith("two.npz and one.npz cannot be put side by side")
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- ensembles


@pytest.mark.parametrize("weights", [None, (1, 1, 1), (3, 0, 1), (1e300, 1e300, 0)])
def test_ensemble_of_probabilities_by_hand(weights):
    models = [model(0), shuffled(model(1)), model(2)]
    mixed = combine(models, weights)
    share = np.ones(3) / 3 if weights is None else np.array(weights) / max(weights)
    share = share / share.sum()
    rows = [softmax(model(n).scores, axis=1) for n in range(3)]
    assert mixed.scores == pytest.approx(sum(w * r for w, r in zip(share, rows, strict=True)))
    assert (mixed.kind, mixed.clips) == ("probabilities", models[0].clips)


def test_ensemble_of_logits_by_hand():
    mixed = combine([model(0), model(1)], (2, 1), mean="logits")
    assert mixed.scores == pytest.approx((2 * model(0).scores + model(1).scores) / 3)
    assert mixed.kind == "logits"


def test_ensemble_of_one_model_is_the_model():
    assert combine([soft(model(0))]).scores == pytest.approx(soft(model(0)).scores)


def test_ensemble_keeps_groups_split_and_protocol():
    groups = tuple(f"g{n % 4}" for n in range(60))
    models = [model(0, split="test"), model(1, split="test", groups=groups, protocol="published")]
    mixed = combine(models)
    assert (mixed.groups, mixed.split, mixed.protocol) == (groups, "test", "published")


@pytest.mark.parametrize(
    ("models", "weights", "mean", "message"),
    [
        ([model(0), soft(model(1))], None, "probabilities", "holds probabilities and m1 logits"),
        ([soft(model(0)), soft(model(1))], None, "logits", "no mean of logits"),
        ([model(0), model(1, total=50)], None, "logits", "cannot be put side by side"),
        ([model(0), model(1)], (1,), "logits", "1 ensemble weights for 2 models"),
        ([model(0), model(1)], (1, -1), "logits", "must be at least 0"),
        ([model(0), model(1)], (0, 0), "logits", "one above 0"),
        ([model(0), model(1)], (np.nan, 1), "logits", "ensemble weights nan, 1"),
    ],
)
def test_what_cannot_be_mixed_is_refused(models, weights, mean, message):
    with pytest.raises(InputError, match=re.escape(message)):
        combine(models, weights, mean=mean, names=["m1", "m2"])


def test_published_stream_weights_go_by_name_not_by_place():
    four = stream_weights(("joint", "joint_motion", "bone", "bone_motion"))
    assert four == (2, 1, 2, 1)
    assert stream_weights(tuple(STREAM_WEIGHTS)) == (2, 2, 2, 1, 1)
    assert normalise_weights(stream_weights(("bone", "joint")), 2).tolist() == [0.5, 0.5]
    for streams in (("joint", "joint"), ("joint", "skin")):
        with pytest.raises(InputError, match="name each once"):
            stream_weights(streams)


def log_loss_of(models, weights, mean):
    mixed = combine(models, weights, mean=mean)
    logs = np.log(mixed.scores) if mean == "probabilities" else log_softmax(mixed.scores, axis=1)
    return -logs[np.arange(len(mixed)), mixed.labels].mean()


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_tuned_weights_are_no_worse_than_any_of_a_grid(mean):
    models = [model(n, strength=s) for n, s in enumerate((0.5, 2.0, 1.0))]
    tuned = tune_weights(models, mean=mean)
    assert sum(tuned.weights) == pytest.approx(1)
    assert log_loss_of(models, tuned.weights, mean) == pytest.approx(tuned.loss_tuned)
    assert log_loss_of(models, None, mean) == pytest.approx(tuned.loss_equal)
    grid = [(a, b, 20 - a - b) for a in range(21) for b in range(21 - a)]
    best = min(log_loss_of(models, weights, mean) for weights in grid)
    assert best - 2e-3 < tuned.loss_tuned <= best + 1e-7
    assert tune_weights(models, mean=mean) == tuned


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_a_useless_model_gets_no_weight_and_equal_ones_get_equal_weights(mean):
    good, bad = model(0, strength=4), model(1, strength=-6)
    assert tune_weights([good, bad], mean=mean).weights == (1, 0)
    assert tune_weights([good, good, good], mean=mean).weights == pytest.approx([1 / 3] * 3)
    assert tune_weights([good]).weights == (1,)


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_many_models_that_are_sure_and_wrong_do_not_break_the_search(mean):
    models = [model(n, total=40, scores=300 * model(n, total=40).scores) for n in range(12)]
    tuned = tune_weights(models, mean=mean)
    assert np.isfinite(tuned.loss_tuned)
    assert tuned.loss_tuned <= tuned.loss_equal
    assert min(tuned.weights) >= 0


@pytest.mark.parametrize("changes", [{"split": "test"}, {"split": "val", "protocol": "published"}])
def test_weights_are_never_tuned_on_test_clips(changes):
    with pytest.raises(InputError, match="weights tuned on them would make the result no test"):
        tune_weights([model(0, **changes), model(1, **changes)])


def test_tuning_and_test_clips_must_be_others():
    with pytest.raises(InputError, match="60 clips that are also tested, such as 'c000'"):
        refuse_tested(model(0), model(1), "val.npz")
    others = tuple(f"v{n}" for n in range(60))
    refuse_tested(model(0, clips=others), model(1), "val.npz")
    with pytest.raises(InputError, match="give scores of one data set"):
        refuse_tested(model(0, clips=others, classes=("x", "y", "z")), model(1), "val.npz")
