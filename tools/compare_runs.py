"""Put training runs side by side: one table of what they are, reached, and how sure that is.

python tools/compare_runs.py runs/experiments/FRFS/resnet50/*
python tools/compare_runs.py runs --output runs.md runs.csv runs.json
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say, warn  # noqa: E402
from errors import InputError, csv_cell, run_script  # noqa: E402
from files import write_text  # noqa: E402
from options.types import OneLineParser, seed_number  # noqa: E402
from results.compare import Comparison, compare, holm  # noqa: E402
from results.run_results import RunResult, find_runs, read_run, same_lists  # noqa: E402

FORMATS = (".md", ".csv", ".json")


@dataclass(frozen=True, slots=True)
class Row:
    """A run, and how it compares with the first run of the table.

    Attributes:
        run: what its folder says.
        beside: the paired comparison; None for the first run and where one is not possible.
        p_adjusted: its p-value, adjusted for the number of comparisons in the table.
        notes: those of the run, and why there is no comparison.
    """

    run: RunResult
    beside: Comparison | None
    p_adjusted: float | None
    notes: tuple[str, ...]

    @property
    def p_value(self) -> float | None:
        """By groups where they are known, since clips of one athlete are not independent."""
        if self.beside is None:
            return None
        by_group = self.beside.group_p_value
        return self.beside.p_value if by_group is None else by_group


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Read the runs, print the table, write it as asked."""
    args = parse(argv)
    rows = build_rows([read_run(path, args.split) for path in find_runs(args.runs)], args.seed)
    text = markdown(rows, args.split)
    say(text)
    for row in rows:
        for reason in row.run.selection:
            warn(f"{row.run.name}: {reason}")
    for path in args.output:
        write_table(path, rows, text)
        say(f"wrote {path}")
    return rows


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(
        description="Put training runs side by side in one table. Runs that are damaged, "
        "unfinished or not tested have a row that says so.",
        epilog="example: python tools/compare_runs.py runs/* --output runs.md runs.csv",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders that hold some; the others "
        "are tested against the first",
    )  # fmt: skip
    parser.add_argument(
        "--split", choices=("test", "val"), default="test", help="reports and scores of which list"
    )
    parser.add_argument(
        "--output", type=Path, nargs="+", default=[], help="tables to write: .md, .csv, .json"
    )
    parser.add_argument("--seed", type=seed_number, default=0, help="of the bootstrap")
    args = parser.parse_args(argv)
    odd = next((path for path in args.output if path.suffix.lower() not in FORMATS), None)
    if odd is not None:
        parser.error(f"--output {odd}: end its name in {', '.join(FORMATS)}")
    return args


def build_rows(runs: Sequence[RunResult], seed: int) -> list[Row]:
    """Compare each run with the first one, and adjust the p-values for their number."""
    first = Row(runs[0], None, None, runs[0].notes)
    others = [_compare(runs[0], run, seed) for run in runs[1:]]
    tested = [row for row in others if row.p_value is not None]
    adjusted = iter(holm([row.p_value for row in tested if row.p_value is not None]))
    return [
        first,
        *(
            row if row.p_value is None else Row(row.run, row.beside, next(adjusted), row.notes)
            for row in others
        ),
    ]


def _compare(first: RunResult, run: RunResult, seed: int) -> Row:
    if first.scores is None or run.scores is None:
        missing = first if first.scores is None else run
        note = () if run.total is None else (f"no per-clip scores of {missing.name} to compare",)
        return Row(run, None, None, run.notes + note)
    try:
        return Row(run, compare(first.scores, run.scores, seed=seed), None, run.notes)
    except InputError as error:
        text = str(error).replace("score file 2", "its scores").replace(
            "score file 1", "those of the first run"
        )  # fmt: skip
        return Row(run, None, None, (*run.notes, text))


# ---------------------------------------------------------------- tables


def markdown(rows: Sequence[Row], split: str) -> str:
    """Return the table for people, with what there is to say below it."""
    head = ["run", "mode", "seed", "epochs", "best val", f"{split} accuracy", "95 % interval",
            "macro F1", "s/epoch", "against the first", "p"]  # fmt: skip
    body = [_cells(row) for row in rows]
    lines = [_line(head), _line(["---"] * len(head)), *map(_line, body)]
    notes = [
        f"- {_escape(row.run.name)}: {_escape('; '.join(_marked(row)))}"
        for row in rows
        if _marked(row)
    ]
    if notes:
        lines += ["", *notes]
    tested = sum(row.p_adjusted is not None for row in rows)
    if tested:
        lines += ["", _about_p(rows, tested)]
    if not same_lists(row.run for row in rows):
        lines += ["", "The runs were tested on different clips: their accuracies do not compare."]
    if split == "test" and len(rows) > 1:
        lines += [
            "",
            "Choose among runs by the column 'best val': the best of several test accuracies is "
            "optimistic.",
        ]
    return "\n".join(lines)


def _marked(row: Row) -> tuple[str, ...]:
    """Return the notes of a run, first what makes its accuracy optimistic."""
    return tuple(f"**(!) {reason}**" for reason in row.run.selection) + row.notes


def _about_p(rows: Sequence[Row], tested: int) -> str:
    by_group = any(row.beside is not None and row.beside.unit == "group" for row in rows)
    test = "swapping models in whole groups" if by_group else "exact McNemar, clips independent"
    many = f", adjusted for {tested} comparisons (Holm)" if tested > 1 else ""
    return f"p: against the first run on the same clips ({test}){many}."


def _cells(row: Row) -> list[str]:
    run, beside = row.run, row.beside
    change = ""
    if beside is not None:
        change = f"{beside.difference:+.1%}"
        if beside.interval is not None:
            change += f" ({beside.interval[0]:+.1%} to {beside.interval[1]:+.1%})"
    accuracy = _percent(run.accuracy)
    if run.accuracy is not None:
        accuracy += f" ({run.correct} of {run.total})" + ("  (!)" if run.selection else "")
    best = _percent(run.best_val)
    if run.best_epoch is not None:
        best += f" (epoch {run.best_epoch})"
    return [
        run.name,
        run.mode or "?",
        "" if run.seed is None else str(run.seed),
        f"{_known(run.epochs_done)}/{_known(run.epochs)}",
        best,
        accuracy,
        "" if run.interval is None else f"{run.interval[0]:.1%} to {run.interval[1]:.1%}",
        "" if run.macro_f1 is None else f"{run.macro_f1:.3f}",
        "" if run.seconds is None else f"{run.seconds:.1f}",
        change,
        "" if row.p_adjusted is None else f"{row.p_adjusted:.3g}",
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escape, cells))} |"


def _escape(text: str) -> str:
    """Make foreign text safe in Markdown, which passes HTML through."""
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", r"\|")
    return " ".join(safe.split())


def to_plain(row: Row) -> dict[str, Any]:
    """Return a row with plain values, one key a column of the CSV."""
    run, beside = row.run, row.beside
    low, high = run.interval or (None, None)
    change = (beside.interval if beside else None) or (None, None)
    return {
        "run": run.name,
        "folder": str(run.folder),
        "dataset": run.dataset,
        "mode": run.mode,
        "seed": run.seed,
        "epochs_done": run.epochs_done,
        "epochs": run.epochs,
        "best_val": run.best_val,
        "best_epoch": run.best_epoch,
        "total": run.total,
        "correct": run.correct,
        "accuracy": run.accuracy,
        "interval_low": low,
        "interval_high": high,
        "macro_f1": run.macro_f1,
        "seconds_per_epoch": run.seconds,
        "selected_on_test": bool(run.selection),
        "selection": "; ".join(run.selection),
        "difference": beside and beside.difference,
        "difference_low": change[0],
        "difference_high": change[1],
        "p_mcnemar": beside and beside.p_value,
        "p_group": beside and beside.group_p_value,
        "p_adjusted": row.p_adjusted,
        "notes": "; ".join(row.notes),
    }


def write_table(path: Path, rows: Sequence[Row], text: str) -> None:
    """Write the table in the format that the name of `path` says."""
    values = [to_plain(row) for row in rows]
    suffix = path.suffix.lower()
    if suffix == ".csv":
        table = io.StringIO()
        writer = csv.DictWriter(table, list(values[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {
                key: csv_cell(value) if isinstance(value, str) else value
                for key, value in row.items()
            }
            for row in values
        )
        text = table.getvalue()
    elif suffix == ".json":
        text = json.dumps(values, indent=2, allow_nan=False)
    try:
        write_text(path, text.rstrip("\n") + "\n")
    except OSError as error:
        raise InputError(
            f"--output {path} cannot be written ({error.strerror}): name a file in a folder that "
            "is there"
        ) from None


if __name__ == "__main__":
    run_script(main)
