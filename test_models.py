"""Test checkpoints, or score files of such tests, alone or together, and write reports.

python test_models.py --weights <run folder>/best.pth.tar --num_clips 2 --test_crops 10
python test_models.py --weights rgb/best.pth.tar pose/best.pth.tar --tune_on_val --output both
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from console import say, warn
from errors import InputError, run_script
from evaluation import (
    Outcome,
    comparison_lines,
    judge,
    model_lines,
    score_models,
    to_json,
)
from files import write_json
from options.testing import parse_test_args
from pages.test_report import write_test_report
from reports import environment, metrics_text, plain, render_confusion
from results.metrics import Metrics
from results.score_files import write_scores


def main(argv: Sequence[str] | None = None) -> Metrics:
    """Test, print, and write `test_report.json`, `confusion.png`, scores and `report.html`."""
    given = parse_test_args(argv)
    output = make_folder(given.output or (given.weights or given.scores)[0].parent)
    models, args = score_models(given)
    outcome = judge(models, args)
    for reason in outcome.selection:
        warn(reason)
    for line in model_lines(outcome):
        say(line)
    say(metrics_text(outcome.metrics, outcome.scores.classes, outcome.intervals))
    for line in comparison_lines(outcome):
        say(line)
    write_report(output, given, args, outcome)
    return outcome.metrics


def make_folder(path: Path) -> Path:
    """Make the output folder before the work, so that a wrong path costs nothing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(
            f"--output {path} cannot be written to ({error.strerror}): name another folder"
        ) from error
    return path


def write_report(
    output: Path, given: argparse.Namespace, args: argparse.Namespace, outcome: Outcome
) -> None:
    """Write the numbers, the picture, the scores, then the page; val reports get `val_` in front.

    The page comes last: whatever its pictures meet with, the numbers are there.
    """
    prefix = "" if args.split == "test" else "val_"
    files = list(map(str, given.weights or given.scores))
    report = {
        "weights": files[0] if len(files) == 1 else files,
        "split": args.split,
        **to_json(outcome),
        "options": plain(vars(args)),
        "environment": environment(),
    }
    write_json(output / f"{prefix}test_report.json", report)
    render_confusion(outcome.metrics, outcome.scores.classes, output / f"{prefix}confusion.png")
    say(f"wrote {output / f'{prefix}test_report.json'} and {prefix}confusion.png")
    for suffix in {None: (), "both": ("npz", "csv")}.get(args.save_scores, (args.save_scores,)):
        path = output / f"scores_{args.split}.{suffix}"
        write_scores(path, outcome.scores)
        say(f"wrote {path}")
    if not args.no_report:
        trouble = write_test_report(output / f"{prefix}report.html", outcome, args)
        say(f"wrote {output / f'{prefix}report.html'}{f' ({trouble})' if trouble else ''}")


if __name__ == "__main__":
    run_script(main)
