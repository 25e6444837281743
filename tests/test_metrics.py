import json
import warnings
from itertools import product

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk
from sklearn.preprocessing import label_binarize

from results.calibration import KINDS
from results.metrics import Metrics, class_evidence, top_k_accuracy


def draw(seed, total, num_classes, ties):
    """Return labels of which every class has some, and logits, of few distinct values if `ties`."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, total)])
    scores = rng.normal(size=(len(labels), num_classes)) + np.eye(num_classes)[labels]
    return labels, np.round(scores) if ties else scores


def as_probabilities(scores, ties):
    """Return probabilities of which as many tie: dyadic shares of one, exact in binary."""
    if not ties:
        return softmax(scores, axis=1)
    return np.eye(scores.shape[1])[scores.argmax(1)] / 2 + 1 / (2 * scores.shape[1])


# Every number of classes, and all combinations for some of them.
CASES = {(k, k // 2 % 2 == 0, KINDS[k % 2]) for k in range(2, 51)}
CASES |= set(product([2, 3, 6, 10, 50], [False, True], KINDS))


@pytest.mark.parametrize(("num_classes", "ties", "kind"), sorted(CASES))
def test_equals_scikit_learn(num_classes, ties, kind):
    labels, scores = draw(num_classes, 120, num_classes, ties)
    if kind == "probabilities":
        scores = as_probabilities(scores, ties)
    ours = Metrics.of(labels, scores, kind)
    answer = scores.argmax(1)
    share = softmax(scores, axis=1) if kind == "logits" else scores
    assert ours.accuracy == pytest.approx(sk.accuracy_score(labels, answer))
    assert ours.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, answer))
    assert ours.macro_f1 == pytest.approx(
        sk.f1_score(labels, answer, average="macro", zero_division=0.0)
    )
    assert ours.confusion == sk.confusion_matrix(labels, answer).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, answer, zero_division=np.nan
    )
    for k, found in enumerate(ours.classes):
        assert found.support == support[k]
        assert found.precision == (None if np.isnan(precision[k]) else pytest.approx(precision[k]))
        assert (found.recall, found.f1) == (pytest.approx(recall[k]), pytest.approx(f1[k]))
    assert ours.loss == pytest.approx(sk.log_loss(labels, share), rel=1e-9)
    assert ours.calibration.brier == pytest.approx(sk.brier_score_loss(labels, share))
    if ties and kind == "logits" and num_classes > 2:
        # Rounding in softmax tells apart what is equal: the evidence decides what ties.
        share = class_evidence(scores, kind)
    one_hot = label_binarize(labels, classes=np.arange(num_classes))
    if num_classes == 2:
        evidence = scores[:, 1] - scores[:, 0]
        assert ours.auroc == pytest.approx(sk.roc_auc_score(labels, evidence))
        expected = sk.average_precision_score(labels, evidence)
    else:
        assert ours.auroc == pytest.approx(sk.roc_auc_score(one_hot, share, average="macro"))
        expected = sk.average_precision_score(one_hot, share, average="macro")
    assert ours.average_precision == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", range(2, 51))
def test_every_number_of_classes_is_defined_and_fits_json(num_classes):
    labels, scores = draw(0, 10, num_classes, ties=False)
    ours = Metrics.of(labels[: num_classes // 2 + 1], scores[: num_classes // 2 + 1])
    values = json.loads(json.dumps(ours.to_json(), allow_nan=False))
    assert len(values["per_class"]) == len(values["recall"]) == num_classes
    assert (values["top5"] is None) == (num_classes <= 5)


@pytest.mark.parametrize("num_classes", [1, 2, 7])
def test_a_list_of_one_class(num_classes):
    labels = np.zeros(9, np.int64)
    scores = np.random.default_rng(0).normal(size=(9, num_classes))
    ours = Metrics.of(labels, scores)
    assert (ours.auroc, ours.majority) == (None, 1.0)
    assert ours.balanced_accuracy == ours.accuracy == ours.recall[0]
    assert ours.recall[1:] == [None] * (num_classes - 1)
    # Class 1 of two has no clip to find; of seven, the one class that occurs has precision 1.
    assert ours.average_precision == (None if num_classes == 2 else 1.0)


@pytest.mark.parametrize("num_classes", [2, 3, 7, 50])
@pytest.mark.parametrize("label", [0, 1])
def test_a_list_of_one_class_equals_scikit_learn_where_that_has_a_number(num_classes, label):
    labels = np.full(40, label)
    scores = np.round(np.random.default_rng(num_classes).normal(size=(40, num_classes)))
    ours = Metrics.of(labels, scores)
    answer, share = scores.argmax(1), softmax(scores, axis=1)
    every = np.arange(num_classes)
    assert ours.accuracy == pytest.approx(sk.accuracy_score(labels, answer))
    assert ours.confusion == sk.confusion_matrix(labels, answer, labels=every).tolist()
    f1 = sk.f1_score(labels, answer, labels=[label], average="macro", zero_division=0.0)
    assert ours.macro_f1 == pytest.approx(f1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of answers that are no label
        assert ours.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, answer))
    assert ours.loss == pytest.approx(sk.log_loss(labels, share, labels=every))
    brier = sk.brier_score_loss(labels, share, labels=every)
    assert ours.calibration.brier == pytest.approx(brier)
    assert ours.auroc is None
    assert [c.auroc for c in ours.classes] == [None] * num_classes


def test_one_clip():
    ours = Metrics.of(np.array([1]), np.array([[0.0, 3.0, 1.0]]))
    assert (ours.total, ours.correct, ours.macro_f1, ours.auroc) == (1, 1, 1.0, None)
    assert [c.f1 for c in ours.classes] == [None, 1.0, None]
    assert [c.precision for c in ours.classes] == [None, 1.0, None]


def test_on_a_small_example():
    labels = np.array([0, 0, 0, 1])
    ours = Metrics.of(labels, np.array([[2.0, 1], [2, 1], [1, 2], [1, 2]]))
    assert (ours.correct, ours.total, ours.majority) == (3, 4, 0.75)
    assert ours.recall == pytest.approx([2 / 3, 1.0])
    assert [c.precision for c in ours.classes] == pytest.approx([1.0, 0.5])
    assert ours.confusion == [[2, 1], [0, 1]]
    assert ours.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert ours.auroc == pytest.approx((1 + 1 + 0.5) / 3)
    assert ours.average_precision == pytest.approx(0.5)


def test_classes_without_clips_are_left_out_of_the_means():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 7, 50), rng.normal(size=(50, 7))
    labels[labels == 3] = 4
    ours = Metrics.of(labels, scores)
    assert ours.recall[3] is None
    answer = scores.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, answer))
    occurring = np.unique(labels)
    assert ours.macro_f1 == pytest.approx(
        sk.f1_score(labels, answer, labels=occurring, average="macro", zero_division=0.0)
    )
    areas = [sk.roc_auc_score(labels == k, softmax(scores, axis=1)[:, k]) for k in occurring]
    assert ours.auroc == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learns_with_ties_for_the_lower_class(k, ties):
    labels, scores = draw(3, 200, 9, ties)
    # scikit-learn gives a tie to the higher class: turn the classes round.
    theirs = sk.top_k_accuracy_score(8 - labels, scores[:, ::-1], k=k)
    assert top_k_accuracy(labels, scores, k) == pytest.approx(theirs)
    if k == 1:
        assert top_k_accuracy(labels, scores, 1) == (scores.argmax(1) == labels).mean()


def test_top_5():
    scores = np.tile(np.arange(7.0), (2, 1))
    assert Metrics.of(np.array([1, 2]), scores).top5 == 0.5


@pytest.mark.parametrize("num_classes", [2, 3, 8])
def test_evidence_ranks_as_the_log_odds_and_does_not_saturate(num_classes):
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 3, (50, num_classes))
    logs = log_softmax(scores, axis=1)
    assert class_evidence(scores, "logits") == pytest.approx(logs - np.log1p(-np.exp(logs)))
    sure = np.zeros((3, num_classes))
    sure[:, 0] = [60.0, 80.0, 100.0]
    evidence = class_evidence(sure, "logits")
    assert len(np.unique(softmax(sure, axis=1)[:, 0])) == 1
    assert (np.diff(evidence[:, 0]) > 0).all()
    assert (np.diff(evidence[:, 1]) < 0).all()


def test_evidence_keeps_ties():
    rows = np.array([[2.0, 2.0, 0.3], [0.3, 2.0, 2.0], [0.1, 0.7, 0.4], [0.4, 0.7, 0.1]])
    evidence = class_evidence(rows, "logits")
    assert evidence[0, 1] == evidence[1, 1]
    assert evidence[2, 1] == evidence[3, 1]


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (np.array([0, 1]), np.eye(3), "are no"),
        (np.array([0, 2]), np.eye(2), "from 0 to 1"),
        (np.array([-1, 0]), np.eye(2), "from 0 to 1"),
        (np.array([0.0, 1.0]), np.eye(2), "whole numbers"),
        (np.array([0, 1]), np.full((2, 2), np.nan), "finite"),
        (np.zeros(0, np.int64), np.zeros((0, 2)), "are no"),
    ],
)
def test_nonsense_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        Metrics.of(labels, scores)
