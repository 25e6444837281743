"""The report of a cross-validation as Markdown."""

from collections.abc import Sequence

import numpy as np

from results.cross_validation import CrossValidation, Spread
from results.score_files import ClipScores

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
}

_HAS_NOT = "that has not seen its fold"
_HAS_SEEN = "of its fold, and **not all models are apart from what tests them: see the notes**"


def markdown(
    found: CrossValidation,
    parts: Sequence[Sequence[ClipScores]],
    command: str,
    kept: str,
    notes: Sequence[str],
) -> str:
    """Return the report for people.

    Args:
        found: what it says.
        parts: for each seed the scores of each fold.
        command: the training line.
        kept: which epoch was tested, in words.
        notes: what to keep in mind.
    """
    accuracy = found.over_seeds["accuracy"].mean
    is_marked = any(part.protocol for folded in parts for part in folded)
    counts = f"{len(parts[0])} folds x {len(found.seeds)} seeds, {found.total} clips"
    lines = [
        f"# Cross-validation: {counts}",
        "",
        f"`python {_code(command)}`",
        "",
        f"Each clip is tested by the model {_HAS_SEEN if is_marked else _HAS_NOT} ({kept}).",
        "",
        f"**Accuracy {accuracy:.1%}** ({_margin(found)}); majority class {found.majority:.1%}.",
        "",
        *_summary_rows(found),
        "",
        *_seed_rows(found),
        "",
        *_class_rows(found),
        "",
        *_fold_rows(found, parts[0]),
    ]
    if notes:
        lines += ["", *(f"- {_cell(note)}" for note in notes)]
    return "\n".join(lines)


def _margin(found: CrossValidation) -> str:
    if found.interval is None:
        return "no interval: all clips are of one group"
    low, high = found.interval
    return (
        f"95 % interval {low:.1%} to {high:.1%} over {found.units} {found.unit}s and "
        f"{len(found.seeds)} seeds"
    )


def _summary_rows(found: CrossValidation) -> list[str]:
    rows = [["pooled over folds", "mean over seeds", "95 % interval", "deviation over seeds",
             "mean over folds", "deviation over folds"]]  # fmt: skip
    for name, title in NAMES.items():
        seeds, each = found.over_seeds[name], found.over_folds[name]
        interval = found.interval if name == "accuracy" else found.values.get(name)
        rows.append([title, _number(seeds.mean), _range(interval), _number(seeds.deviation),
                     _of_folds(each, found), _number(each.deviation)])  # fmt: skip
    return _table(rows)


def _of_folds(spread: Spread, found: CrossValidation) -> str:
    total = len(found.seeds[0].folds)
    few = "" if spread.count in (0, total) else f" ({spread.count} of {total} folds)"
    return _number(spread.mean) + few


def _seed_rows(found: CrossValidation) -> list[str]:
    by_group = ["over groups"] if found.unit == "group" else []
    rest = list(NAMES)[1:]
    rows = [["seed", "right", "accuracy", "95 %, clips independent", *by_group,
             *(NAMES[name] for name in rest)]]  # fmt: skip
    for result in found.seeds:
        m = result.metrics
        rows.append([
            str(result.seed), f"{m.correct} of {m.total}", f"{m.accuracy:.1%}", _range(m.interval),
            *(_range(result.intervals.values["accuracy"]) for _ in by_group),
            *(_number(getattr(m, name)) for name in rest),
        ])  # fmt: skip
    return _table(rows)


def _class_rows(found: CrossValidation) -> list[str]:
    rows = [["class", "clips", "recall", "precision", "F1"]]
    for label, name in enumerate(found.classes):
        each = [result.metrics.classes[label] for result in found.seeds]
        means = (Spread.of([getattr(c, key) for c in each]).mean
                 for key in ("recall", "precision", "f1"))  # fmt: skip
        rows.append([name, str(each[0].support), *map(_number, means)])
    return _table(rows)


def _fold_rows(found: CrossValidation, parts: Sequence[ClipScores]) -> list[str]:
    seeds = [str(result.seed) for result in found.seeds]
    rows = [["fold", "clips", "groups", f"right with seed {', '.join(seeds)}", "mean accuracy"]]
    for number, part in enumerate(parts):
        each = [result.folds[number] for result in found.seeds]
        names = sorted({group for group in part.groups or () if group})
        shown = ", ".join(names) if len(names) <= 3 else f"{len(names)} groups"
        right = ", ".join(str(m.correct) for m in each)
        mean = float(np.mean([m.accuracy for m in each]))
        rows.append([str(number + 1), str(len(part)), shown, right, f"{mean:.1%}"])
    return _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = ([_cell(text) for text in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *body]]


def _cell(text: str) -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|")
    return " ".join(safe.split())


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
