"""Curves of one class against all others: what each threshold on its probability would do."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from results.calibration import Kind
from results.metrics import class_evidence

# A curve of more points is thinned: none of those left out could be seen.
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class ClassCurves:
    """One class.

    Attributes:
        precision_recall: (P, 2) recall and precision, recall falling; None when it has no clips.
        roc: (P, 2) false and true positive rate, rising; None unless both sides have clips.
    """

    precision_recall: np.ndarray | None
    roc: np.ndarray | None


def class_curves(labels: np.ndarray, scores: np.ndarray, kind: Kind) -> list[ClassCurves]:
    """Return the curves of all K classes for (N,) labels and (N, K) scores."""
    evidence = class_evidence(scores, kind)
    return [_curves(labels == k, evidence[:, k]) for k in range(scores.shape[1])]


def _curves(is_class: np.ndarray, evidence: np.ndarray) -> ClassCurves:
    precision_recall = roc = None
    if is_class.any():
        precision, recall, _ = precision_recall_curve(is_class, evidence)
        precision_recall = _thin(np.column_stack((recall, precision)))
        if not is_class.all():
            wrong, right, _ = roc_curve(is_class, evidence)
            roc = _thin(np.column_stack((wrong, right)))
    return ClassCurves(precision_recall, roc)


def _thin(points: np.ndarray) -> np.ndarray:
    """Keep the first, the last, and points spread evenly between."""
    if len(points) <= _MOST_POINTS:
        return points
    return points[np.linspace(0, len(points) - 1, _MOST_POINTS).round().astype(int)]
