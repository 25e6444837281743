import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from results.calibration import Calibration, Temperature, binned_error, probabilities, reliability


def draw(seed, total=400, num_classes=4, sharpness=3.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(total, num_classes))
    labels = np.array([rng.choice(num_classes, p=row) for row in softmax(logits, axis=1)])
    return labels, logits * sharpness


def ece_by_hand(confidence, happened, bins=15):
    """Return the error bin by bin: the interval (low, high] that holds a confidence."""
    total = 0.0
    for n in range(bins):
        inside = (confidence > n / bins) & (confidence <= (n + 1) / bins)
        if inside.any():
            total += inside.sum() * abs(confidence[inside].mean() - happened[inside].mean())
    return total / len(confidence)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 50])
def test_expected_calibration_error_bin_by_bin(num_classes):
    labels, logits = draw(num_classes, num_classes=num_classes)
    share = softmax(logits, axis=1)
    ours = Calibration.of(labels, share)
    right = share.argmax(1) == labels
    assert ours.ece == pytest.approx(ece_by_hand(share.max(1), right))
    by_class = [ece_by_hand(share[:, k], labels == k) for k in range(num_classes)]
    assert ours.classwise_ece == pytest.approx(np.mean(by_class))
    assert ours.brier == pytest.approx(brier_score_loss(labels, share, labels=range(num_classes)))
    assert ours.confidence == pytest.approx(share.max(1).mean())
    assert sum(b.count for b in ours.bins) == len(labels)


def test_reliability_curve_is_scikit_learns():
    labels, logits = draw(0, num_classes=2)
    share = softmax(logits, axis=1)[:, 1]
    accuracy, confidence = calibration_curve(labels, share, n_bins=15)
    bins = reliability(share, labels == 1)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.confidence for b in bins] == pytest.approx(confidence)


def test_bins_by_count_are_alike_and_keep_equal_confidences_together():
    confidence = np.linspace(0.2, 0.9, 300)
    counts = [b.count for b in reliability(confidence, confidence > 0.5, by_count=True)]
    assert counts == [20] * 15
    tied = reliability(np.array([0.5] * 30 + [0.9] * 10), np.ones(40, bool), by_count=True)
    assert [(b.count, b.low, b.high) for b in tied] == [(30, 0.5, 0.5), (10, 0.9, 0.9)]
    assert binned_error(tied) == pytest.approx((30 * 0.5 + 10 * 0.1) / 40)


def test_calibrated_scores_have_a_small_error_and_sharpened_ones_a_large():
    labels, logits = draw(1, total=20_000, sharpness=1.0)
    honest = Calibration.of(labels, softmax(logits, axis=1))
    boasting = Calibration.of(labels, softmax(4 * logits, axis=1))
    assert honest.ece < 0.02 < 0.2 < boasting.ece
    assert honest.adaptive_ece < 0.02 < 0.2 < boasting.adaptive_ece
    assert boasting.confidence > 0.75


@pytest.mark.parametrize("share", [[[1.0, 0.0]], [[0.5, 0.5]], [[1.0 + 1e-7, 0.0]]])
def test_one_clip_at_the_ends_of_the_bins(share):
    ours = Calibration.of(np.array([0]), np.array(share))
    assert ours.ece == pytest.approx(1 - share[0][0], abs=1e-6)
    assert len(ours.bins) == 1


# ---------------------------------------------------------------- temperature


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
def test_temperature_finds_how_much_logits_were_sharpened(sharpness):
    labels, logits = draw(2, total=20_000, sharpness=sharpness)
    found = Temperature.fit(labels, logits, "logits")
    assert found.value == pytest.approx(sharpness, rel=0.05)
    assert found.loss_after <= found.loss_before
    scaled = found.apply(logits, "logits")
    assert (scaled.argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize("num_classes", [2, 7, 50])
def test_temperature_is_the_minimum_of_scikit_learns_log_loss(num_classes):
    labels, logits = draw(4, num_classes=num_classes)

    def loss(log_temperature):
        share = softmax(logits / np.exp(log_temperature), axis=1)
        return log_loss(labels, share, labels=range(num_classes))

    found = Temperature.fit(labels, logits, "logits")
    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert found.value == pytest.approx(np.exp(best.x), rel=1e-4)
    assert found.loss_after == pytest.approx(best.fun)
    assert found.loss_before == pytest.approx(loss(0.0))


def test_temperature_of_probabilities_is_that_of_their_logits():
    labels, logits = draw(5)
    share = softmax(logits, axis=1)
    one, other = (Temperature.fit(labels, logits, "logits"),
                  Temperature.fit(labels, share, "probabilities"))  # fmt: skip
    assert one.value == pytest.approx(other.value, rel=1e-4)
    scaled = probabilities(one.apply(logits, "logits"), "logits")
    assert other.apply(share, "probabilities") == pytest.approx(scaled, abs=1e-5)


def test_clips_that_do_not_determine_a_temperature_leave_it_at_one():
    labels = np.array([0, 1, 1])
    right = Temperature.fit(labels, 4 * np.eye(2)[labels], "logits")
    wrong = Temperature.fit(labels, -4 * np.eye(2)[labels], "logits")
    blank = Temperature.fit(labels, np.zeros((3, 2)), "logits")
    assert (right.value, wrong.value, blank.value) == (1.0, 1.0, 1.0)
    assert "classified right" in right.note
    assert "better than chance" in wrong.note
    assert blank.note
    assert right.apply(np.eye(2), "logits") is not None


@pytest.mark.parametrize("size", [1e-6, 0.03, 1.0, 1e5, 1e200])
def test_temperature_goes_with_the_size_of_the_logits(size):
    labels = np.arange(50) % 2
    answers = np.where(np.arange(50) < 8, 1 - labels, labels)  # 16 % are wrong
    found = Temperature.fit(labels, size * np.eye(2)[answers], "logits")
    # Then the margin over T is the log-odds of being right.
    assert found.value == pytest.approx(size / np.log(42 / 8), rel=1e-6)
    assert found.note == ""
    assert found.loss_after <= found.loss_before


def test_notes_on_a_temperature_are_true():
    labels = np.arange(100) % 2
    # One clip is far above the others, a tenth of which are wrong.
    logits = 1e-3 * np.eye(2)[np.where(np.arange(100) < 10, 1 - labels, labels)]
    logits[50] *= 1e5
    small = Temperature.fit(labels, logits, "logits")
    assert small.value == pytest.approx(1e-3 / np.log(89 / 10), rel=1e-3)
    assert small.note == ""
    logits = np.eye(2)[labels]
    logits[1] = (1.0, 1.0)  # the first class is taken, and this is the second
    tied = Temperature.fit(labels, logits, "logits")
    assert (tied.value, "by a tie alone" in tied.note) == (1, True)
    # A little better than chance, and far too sure: a great temperature helps.
    answers = np.where(np.arange(100) < 51, labels, 1 - labels)
    sure = Temperature.fit(labels, 9 * np.eye(2)[answers], "logits")
    assert sure.value == pytest.approx(9 / np.log(51 / 49), rel=1e-6)
    assert sure.note == ""
