"""Test checkpoints, or score files of such tests, alone or together, and write reports.

python test_models.py --weights <run folder>/best.pth.tar --num_clips 2 --test_crops 10
python test_models.py --weights rgb/best.pth.tar pose/best.pth.tar --tune_on_val --output both
torchrun --nproc_per_node=4 test_models.py --weights ...    # the clips are shared
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from console import say, talking, warn
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
from models.downloads import published_entry, resolve_weights
from options.testing import parse_test_args
from pages.test_report import write_test_report
from ranks import Ranks
from reports import environment, metrics_text, plain, render_confusion
from results.metrics import Metrics
from results.score_files import write_scores


def main(argv: Sequence[str] | None = None) -> Metrics | None:
    """Test, print, and write `test_report.json`, `confusion.png`, scores and `report.html`.

    Returns:
        The measures; None in all but the first of the processes that torchrun starts.
    """
    given = parse_test_args(argv)
    ranks = Ranks.join()
    with talking(ranks.is_first), ranks.ending_together():
        _find_weights(given, ranks)
        metrics = _test(given, ranks)
    ranks.end_group()
    return metrics


def _find_weights(given: argparse.Namespace, ranks: Ranks) -> None:
    """Fetch published weights that are given by their names; process 0 first."""
    if not given.weights:
        return
    first = given.weights[0]
    if given.output is None and published_entry(first) is not None:
        raise InputError(f"{first} are published weights: add --output for the report")
    with ranks.first_goes_first("published weights", ranks.check):
        found = [resolve_weights(path) for path in given.weights]
    given.weights = found


def _test(given: argparse.Namespace, ranks: Ranks) -> Metrics | None:
    output = make_folder(given.output or (given.weights or given.scores)[0].parent)
    if given.scores and not ranks.is_first:
        return None
    models, args = score_models(given, ranks)
    if not ranks.is_first:
        return None
    outcome = judge(models, args)
    for reason in outcome.selection:
        warn(reason)
    for note in outcome.notes:
        say(f"note: {note}")
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

    The list is that of the scores, whatever `--split` says. The page comes last: whatever its
    pictures meet with, the numbers are there.

    Raises:
        InputError: a file cannot be written, or would take the place of what was given.
    """
    prefix = "" if outcome.split == "test" else f"{outcome.split}_"
    _refuse_overwriting(output, given, outcome, prefix)
    files = list(map(str, given.weights or given.scores))
    report = {
        "weights": files[0] if len(files) == 1 else files,
        "split": outcome.split,
        **to_json(outcome),
        "options": plain(vars(args)),
        "environment": environment(),
    }
    try:
        write_json(output / f"{prefix}test_report.json", report)
        render_confusion(outcome.metrics, outcome.scores.classes, output / f"{prefix}confusion.png")
    except OSError as error:
        place = error.filename2 or error.filename or output
        raise InputError(
            f"{place} cannot be written ({error.strerror}): name another --output"
        ) from None
    say(f"wrote {output / f'{prefix}test_report.json'} and {prefix}confusion.png")
    for path in _score_paths(output, given, outcome):
        write_scores(path, outcome.scores)
        say(f"wrote {path}")
    if not args.no_report:
        trouble = write_test_report(output / f"{prefix}report.html", outcome, args)
        say(f"wrote {output / f'{prefix}report.html'}{f' ({trouble})' if trouble else ''}")


def _refuse_overwriting(
    output: Path, given: argparse.Namespace, outcome: Outcome, prefix: str
) -> None:
    """Keep what another test wrote beside a score file, unless `--output` names the folder."""
    if given.weights or given.output is not None:
        return
    paths = [output / f"{prefix}test_report.json"]
    if given.calibrate:  # else the same scores are written
        paths += _score_paths(output, given, outcome)
    there = next((path for path in paths if path.exists()), None)
    if there is not None:
        raise InputError(
            f"{there} is there from another test: name the folder of this one with --output"
        )


def _score_paths(output: Path, given: argparse.Namespace, outcome: Outcome) -> list[Path]:
    saved = given.save_scores
    suffixes = {None: (), "both": ("npz", "csv")}.get(saved, (saved,))
    return [output / f"scores_{outcome.split}.{suffix}" for suffix in suffixes]


if __name__ == "__main__":
    run_script(main)
