"""The tables and charts of a test report, as values that a template shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from errors import printable
from evaluation import Outcome
from results.curves import class_curves
from results.intervals import wilson_interval
from results.metrics import Metrics
from results.slices import Slicing

# Chance explains less than this: the usual level.
_LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """A name, what there is to say of it, and a remark; all may be shown."""

    name: str
    text: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One of several models."""

    number: int
    name: str
    weight: float
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One class: counts, and shares as text with their intervals."""

    name: str
    support: int
    recall: str
    recall_interval: str
    precision: str
    f1: str
    auroc: str
    average_precision: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix: a count, and its share of the true class, 0-1."""

    count: int
    share: float
    is_right: bool


@dataclass(frozen=True, slots=True)
class Curve:
    """Curves of a class as SVG paths in a square of side 100, y downwards; "" where undefined."""

    name: str
    precision_recall: str
    average_precision: str
    prevalence: float
    roc: str
    auroc: str


@dataclass(frozen=True, slots=True)
class ReliabilityBar:
    """A bin of the reliability diagram, 0-1: where it lies, what was said, what happened."""

    low: float
    high: float
    confidence: float
    accuracy: float
    interval: tuple[float, float]
    count: int
    share: float


def verdict_of(outcome: Outcome) -> tuple[str, str]:
    """Return the result in a sentence, and its tone: "bad", "fair" or "good"."""
    metrics, intervals = outcome.metrics, outcome.intervals
    by_group = intervals.values.get("accuracy") if intervals.unit == "group" else None
    low, high = by_group or metrics.interval
    over = f" over {intervals.units} groups" if by_group else ""
    text = (
        f"{metrics.accuracy:.1%} of {metrics.total:,} clips are right ({metrics.correct:,}), 95 % "
        f"interval {low:.1%} to {high:.1%}{over}; always answering the most frequent class: "
        f"{metrics.majority:.1%}"
    )
    if outcome.selection:
        return text, "bad"
    if low > metrics.majority:
        return text, "good"
    return f"{text}. That is not shown to be better than that answer", "fair"


def metric_rows(outcome: Outcome) -> list[Row]:
    """Return every number of the test with its interval."""
    metrics, known = outcome.metrics, outcome.intervals.values
    calibration = metrics.calibration
    rows = [
        Row("Accuracy", f"{metrics.accuracy:.4f}", _margin(metrics.interval)),
        _row("Balanced accuracy", metrics.balanced_accuracy, known.get("balanced_accuracy")),
        _row("Macro F1", metrics.macro_f1, known.get("macro_f1")),
        _row("AUROC", metrics.auroc, known.get("auroc")),
        _row("Average precision", metrics.average_precision, known.get("average_precision")),
        _row("Log loss", metrics.loss, known.get("loss")),
        _row("Brier score", calibration.brier, known.get("brier")),
        Row("Calibration error (ECE)", f"{calibration.ece:.4f}"),
        Row("– with bins of equal count", f"{calibration.adaptive_ece:.4f}"),
        Row("– class by class", f"{calibration.classwise_ece:.4f}"),
    ]
    if metrics.top5 is not None:
        rows.insert(1, Row("Top 5", f"{metrics.top5:.4f}"))
    if outcome.intervals.unit == "group":
        rows.insert(1, _row("– over groups", metrics.accuracy, known.get("accuracy")))
    return rows


def about_intervals(outcome: Outcome) -> str:
    """Return what the intervals of `metric_rows` are, in a sentence."""
    units = f"{outcome.intervals.units:,} {outcome.intervals.unit}s"
    text = f"Intervals by bootstrap over {units}; that of the accuracy is Wilson's over clips"
    if outcome.intervals.unit == "group":
        text += ", and over groups Wilson's for as many clips as the groups are worth"
    return f"{text}."


def _row(name: str, value: float | None, margin: tuple[float, float] | None) -> Row:
    return Row(name, _number(value), "" if margin is None else _margin(margin))


def _margin(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def model_rows(outcome: Outcome) -> list[ModelRow]:
    """Return the models behind an ensemble."""
    pairs = zip(outcome.models, outcome.weights, strict=True)
    return [
        ModelRow(
            number,
            printable(model.name),
            weight,
            Metrics.of(model.scores.labels, model.scores.scores, model.scores.kind),
        )
        for number, (model, weight) in enumerate(pairs, start=1)
    ]


def class_rows(outcome: Outcome) -> list[ClassRow]:
    """Return a row for each class."""
    metrics = outcome.metrics
    rows = []
    for label, found in enumerate(metrics.classes):
        margin = ""
        if found.support:
            low, high = wilson_interval(metrics.confusion[label][label], found.support)
            margin = f"{low:.0%} to {high:.0%}"
        name = printable(outcome.scores.classes[label])
        shares = (found.precision, found.f1, found.auroc, found.average_precision)
        precision, f1, auroc, average = ("–" if s is None else f"{s:.3f}" for s in shares)
        recall = "–" if found.recall is None else f"{found.recall:.3f}"
        rows.append(ClassRow(name, found.support, recall, margin, precision, f1, auroc, average))
    return rows


def confusion_cells(metrics: Metrics) -> list[list[Cell]]:
    """Return the confusion matrix; rows are true classes."""
    return [
        [Cell(n, n / max(sum(row), 1), label == column) for column, n in enumerate(row)]
        for label, row in enumerate(metrics.confusion)
    ]


def reliability_bars(metrics: Metrics) -> list[ReliabilityBar]:
    """Return the reliability diagram: bins that hold a clip."""
    bins = metrics.calibration.bins
    return [
        ReliabilityBar(
            b.low,
            b.high,
            b.confidence,
            b.accuracy,
            wilson_interval(round(b.accuracy * b.count), b.count),
            b.count,
            b.count / max(other.count for other in bins),
        )
        for b in bins
    ]


def curve_rows(outcome: Outcome) -> list[Curve]:
    """Return precision-recall and ROC curves of the classes that have clips."""
    scores, metrics = outcome.scores, outcome.metrics
    rows = []
    for label, found in enumerate(class_curves(scores.labels, scores.scores, scores.kind)):
        about = metrics.classes[label]
        if about.support:
            rows.append(
                Curve(
                    printable(scores.classes[label]),
                    _path(found.precision_recall, steps=True),
                    _number(about.average_precision),
                    about.support / metrics.total,
                    _path(found.roc),
                    _number(about.auroc),
                )
            )
    return rows


def _path(points: np.ndarray | None, *, steps: bool = False) -> str:
    """Return an SVG path through (P, 2) points in 0-1.

    Args:
        points: None gives "".
        steps: precision holds until the next recall: average precision is the area below these
            steps, and straight lines between the points would show a larger one.
    """
    if points is None:
        return ""
    x, y = (100 * points[:, 0]).round(1).tolist(), (100 - 100 * points[:, 1]).round(1).tolist()
    path = f"M{x[0]:g} {y[0]:g}"
    for right, down in zip(x[1:], y[1:], strict=True):
        path += f"H{right:g}V{down:g}" if steps else f"L{right:g} {down:g}"
    return path


def about_differences(slicing: Slicing, all_slicings: Sequence[Slicing]) -> str:
    """Return whether the parts differ by more than chance, in a sentence."""
    if len(slicing.slices) < 2:
        return "All clips are alike in this: there is nothing to compare."
    if slicing.p_value is None or slicing.p_adjusted is None:
        return "All clips are right, or all are wrong: there is nothing to compare."
    tests = sum(s.p_value is not None for s in all_slicings)
    name = "Fisher's exact test" if len(slicing.slices) == 2 else "chi-square, drawn at random"
    value = f"p {slicing.p_value:.2g}, {name}"
    if tests > 1:
        value += f"; {slicing.p_adjusted:.2g} when adjusted for the {tests} tests of this page"
    if slicing.p_adjusted < _LEVEL:
        return f"The parts differ by more than chance explains ({value}), if clips are independent."
    return (
        f"Chance alone explains differences like these ({value}). That does not show that the "
        "parts are alike: few clips show large differences only."
    )
