import numpy as np
import pytest
from sklearn import metrics as sk

from results.curves import class_curves


def draw(total, num_classes=3):
    rng = np.random.default_rng(0)
    labels = np.arange(total) % num_classes
    return labels, rng.normal(size=(total, num_classes)) + np.eye(num_classes)[labels]


def test_areas_are_the_numbers_of_the_report():
    labels, scores = draw(90)
    for k, found in enumerate(class_curves(labels, scores, "logits")):
        recall, precision = found.precision_recall.T
        shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        steps = -np.diff(recall) @ precision[:-1]
        assert steps == pytest.approx(sk.average_precision_score(labels == k, shares[:, k]))
        area = np.trapezoid(found.roc[:, 1], found.roc[:, 0])
        assert area == pytest.approx(sk.roc_auc_score(labels == k, shares[:, k]))


def test_long_curves_keep_their_ends():
    found = class_curves(*draw(5000), "logits")[0].precision_recall
    assert len(found) == 200
    assert found[0, 0] == 1
    assert found[-1].tolist() == [0, 1]


def test_classes_without_clips_have_no_curves():
    one = class_curves(np.zeros(4, int), np.random.default_rng(0).normal(size=(4, 2)), "logits")
    assert one[0].precision_recall is not None
    assert one[0].roc is None
    assert (one[1].precision_recall, one[1].roc) == (None, None)
