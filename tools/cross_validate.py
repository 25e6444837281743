"""Train and test every fold of a data set with several seeds, and say what that shows together.

python tools/cross_validate.py --folds 5 --seeds 0 1 2 --output cv/pose -- main_only_pose.py \
    --dataset synthetic --optimizer adamw --lr 0.001 --epochs 30
python tools/cross_validate.py --compare cv/rgb cv/pose

After `--` comes the line of a single training. The same command again goes on where it stopped.
"""

import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from campaigns.cells import Cell, list_cells, read_cell, run_cells  # noqa: E402
from campaigns.plan import Plan, begin, make_plan, may_overlap  # noqa: E402
from console import say, warn  # noqa: E402
from datasets.folds import VAL_SHARE  # noqa: E402
from datasets.records import PUBLISHED  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from files import (  # noqa: E402
    alone_in,
    read_regular,
    remove_partials,
    replacing,
    write_json,
    write_text,
)
from options.cross_validating import parse_cross_validation_args  # noqa: E402
from results.compare import compare_folded  # noqa: E402
from results.cross_validation import CrossValidation, pool_folds, sum_up  # noqa: E402
from results.fold_tables import markdown  # noqa: E402
from results.score_files import ClipScores, read_scores, write_scores  # noqa: E402
from results.selection import protocol_reason, selection_reasons  # noqa: E402

_MOST_BYTES = 2**28


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then report; or compare."""
    args = parse_cross_validation_args(argv)
    if args.compare:
        compare_folders(args.compare, args.output)
        return
    plan = make_plan(args.line, args.folds, args.test, last=args.last)
    make_folder(args.output)
    with alone_in(args.output):
        begin(args.output, plan)
        remove_partials(args.output)  # once it is known that the folder is ours
        cells = list_cells(args.output, plan, args.seeds)
        failed = run(plan, cells, args.jobs)
        report(args.output, plan, args.seeds, cells)
    if failed:
        cell, reason = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(cells)} runs failed, such as {cell.name}: {reason} (logs in "
            f"{cell.folder}); mend that and give the same command again"
        )


def make_folder(path: Path) -> None:
    """Make the output folder.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {path} cannot be made ({error.strerror}): name another folder"
        ) from None


# ---------------------------------------------------------------- runs


def run(plan: Plan, cells: Sequence[Cell], jobs: int) -> dict[Cell, str]:
    """Run the cells that are not finished, with a line for each; return those that failed."""
    missing = [cell for cell in cells if read_cell(plan, cell) is None]
    seeds = len({cell.seed for cell in cells})
    say(
        f"{plan.count} folds x {seeds} seeds = {len(cells)} runs, {len(cells) - len(missing)} "
        f"finished before: python {plan.command}"
    )
    start, ended = time.monotonic(), 0

    def tell(cell: Cell, reason: str) -> None:
        nonlocal ended
        ended += 1
        seconds = time.monotonic() - start
        left = seconds / ended * (len(missing) - ended)
        done = len(cells) - len(missing) + ended
        text = f"failed, {reason}" if reason else _result(plan, cell)
        say(f"{done} of {len(cells)}: {cell.name}: {text}; {_duration(seconds, left)}")

    return run_cells(plan, missing, jobs, tell)


def _result(plan: Plan, cell: Cell) -> str:
    scores = read_cell(plan, cell)
    if scores is None:
        return "no scores"
    right = int((scores.scores.argmax(1) == scores.labels).sum())
    return f"{right} of {len(scores)} right ({right / len(scores):.1%})"


def _duration(seconds: float, left: float) -> str:
    return f"{_time(seconds)} so far" + (f", about {_time(left)} left" if left else "")


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------- report


def report(output: Path, plan: Plan, seeds: Sequence[int], cells: Sequence[Cell]) -> None:
    """Sum up the seeds whose folds are all tested, print that and write it."""
    scores = {
        cell: unmarked(plan, found)
        for cell in cells
        if (found := read_cell(plan, cell)) is not None
    }
    lacking = [cell for cell in cells if cell not in scores]
    whole = [seed for seed in seeds if all(cell.seed != seed for cell in lacking)]
    if not whole:
        warn("no seed has all its folds tested: there is no report yet")
        return
    parts = [[scores[cell] for cell in cells if cell.seed == seed] for seed in whole]
    summed, pooled = sum_up(whole, parts), [pool_folds(folded) for folded in parts]
    notes = make_notes(plan, summed, pooled, lacking)
    for seed, values in zip(whole, pooled, strict=True):
        for suffix in ("npz", "csv"):
            write_scores(output / f"scores_seed{seed}.{suffix}", values)
    render(summed, output / "cross_validation.png")
    kept = "the last epoch, nothing selected" if plan.last else "the best epoch on its val list"
    text = markdown(summed, parts, plan.command, kept, notes)
    write_text(output / "cross_validation.md", text + "\n")
    value = {"plan": plan.to_json(), "line": plan.command, "notes": notes, **summed.to_json()}
    write_json(output / "cross_validation.json", value)
    say(f"\n{text}\n")
    say(f"wrote {output / 'cross_validation.json'}, .md and .png, and scores_seed*.npz and .csv")


def unmarked(plan: Plan, scores: ClipScores) -> ClipScores:
    """Return scores without the mark that val is test, where no epoch was chosen on val."""
    is_apart = plan.last and not may_overlap(plan)
    return replace(scores, protocol="") if is_apart and scores.protocol == PUBLISHED else scores


def make_notes(
    plan: Plan, found: CrossValidation, pooled: Sequence[ClipScores], lacking: Sequence[Cell]
) -> list[str]:
    """Return what to keep in mind; `pooled` has the scores of each seed."""
    reasons = dict.fromkeys(protocol_reason(scores.protocol) for scores in pooled)
    notes = [f"NO HONEST TEST: {reason}" for reason in reasons if reason]
    if lacking:
        names = ", ".join(cell.name for cell in lacking[:3])
        notes.append(f"left out: seeds that lack a fold ({len(lacking)} runs missing: {names})")
    if found.total < plan.clips:
        notes.append(f"{found.total} of the {plan.clips} clips were tested: see the logs")
    if found.sometimes:
        notes.append(f"{found.sometimes} clips are right with some seeds and wrong with others")
    if len(found.seeds) == 1:
        notes.append("one seed: how much the training's chance matters is not known")
    if found.seeds[0].intervals.note:
        notes.append(found.seeds[0].intervals.note)
    return notes


def render(found: CrossValidation, path: Path) -> None:
    """Draw the accuracy of every fold and of all clips, by seed, as a PNG."""
    matplotlib.use("agg")
    count = len(found.seeds)
    figure = Figure(figsize=(3.0 + 1.1 * count, 4.6), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    each = [[fold.accuracy for fold in result.folds] for result in found.seeds]
    places = np.arange(count)
    if len(each[0]) >= 5:  # of fewer values the quartiles are no more than the values
        style = {"color": "k"}
        axes.boxplot(each, positions=places, widths=0.5, showfliers=False, medianprops=style)
    for place, values in zip(places, each, strict=True):
        spread = np.linspace(-0.18, 0.18, len(values))
        label = "a fold" if place == 0 else None
        axes.scatter(place + spread, values, s=22, color="tab:blue", alpha=0.7, label=label)
    pooled = np.array([result.metrics.accuracy for result in found.seeds])
    ends = [result.intervals.values["accuracy"] for result in found.seeds]
    known = [n for n, interval in enumerate(ends) if interval is not None]
    low, high = (np.array([(ends[n] or (0, 0))[side] for n in known]) for side in (0, 1))
    bars = np.abs(np.stack([pooled[known] - low, high - pooled[known]])) if known else None
    axes.errorbar(
        places[known] + 0.36,
        pooled[known],
        yerr=bars,
        fmt="D",
        color="tab:orange",
        ms=5,
        capsize=3,
        label="all clips, 95 %",
    )
    axes.axhline(found.majority, color="grey", ls="--", lw=1, label="majority class")
    axes.set_xticks(places, [f"seed {result.seed}" for result in found.seeds])
    axes.set(ylabel="accuracy of held-out clips", ylim=(-0.03, 1.03), xlim=(-0.6, count - 0.4))
    axes.set_title(f"{len(each[0])} folds, {found.total} clips")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    with warnings.catch_warnings(), replacing(path) as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="png")


# ---------------------------------------------------------------- comparison


def compare_folders(folders: Sequence[Path], output: Path | None) -> None:
    """Compare cross-validations with the first one; print it, and write it into `output`.

    Raises:
        InputError: a folder holds none, or they are of other clips.
    """
    if len(folders) < 2:
        raise InputError(f"--compare {folders[0]} needs another folder to compare it with")
    values = [read_report(folder) for folder in folders]
    scores = [read_pooled(folder, value) for folder, value in zip(folders, values, strict=True)]
    names = short_names(folders)
    lines, found = [], {}
    for number in range(1, len(folders)):
        places = (str(folders[0]), str(folders[number]))
        result = compare_folded(scores[0], scores[number], names=places)
        lines += result.lines(names[0], names[number])
        if not have_same_folds(values[0], values[number]):
            counts = [plan_of(values[n]).get("count") for n in (0, number)]
            lines.append(
                f"  note: {names[0]} has {counts[0]} folds, {names[number]} {counts[1]}, or dealt "
                "in another way: trainings had other clips"
            )
        found[names[number]] = result.to_json()
    if len(folders) > 2:
        lines.append(f"note: {len(folders) - 1} comparisons; p is of each alone, not adjusted")
    say("\n".join(lines))
    reasons = [selection_reasons(list(its.values()), "test") for its in scores]
    notes = [f"{name}: {r}" for name, its in zip(names, reasons, strict=True) for r in its]
    for note in notes:
        warn(note)
    if output is not None:
        make_folder(output)
        value = {"first": str(folders[0]), "notes": notes, "against": found}
        write_json(output / "comparison.json", value)
        text = "\n".join([*lines, *(f"WARNING: {note}" for note in notes)])
        write_text(output / "comparison.md", f"```\n{text}\n```\n")
        say(f"wrote {output / 'comparison.json'} and .md")


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the last parts of the folders if these differ, else the whole."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def read_report(folder: Path) -> dict[str, Any]:
    """Read what a cross-validation found.

    Raises:
        InputError: the folder holds none.
    """
    path = folder / "cross_validation.json"
    try:
        value = json.loads(read_regular(path, _MOST_BYTES))
        seeds = [result["seed"] for result in value["seeds"]]
        is_one = bool(seeds) and all(isinstance(seed, int) for seed in seeds)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        is_one = False
    if not is_one:
        raise InputError(
            f"{folder} holds no finished cross-validation ({path.name} is not there or damaged): "
            "name the --output of one, or give its command again"
        )
    return value


def read_pooled(folder: Path, value: Mapping[str, Any]) -> dict[int, ClipScores]:
    """Return the pooled scores of every seed: seed -> scores."""
    seeds = [result["seed"] for result in value["seeds"]]
    return {seed: read_scores(folder / f"scores_seed{seed}.npz") for seed in seeds}


def plan_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the plan that a report was made by; nothing where it does not say."""
    plan = value.get("plan")
    return plan if isinstance(plan, dict) else {}


def have_same_folds(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two cross-validations trained and tested on the same lists."""
    plans = [plan_of(one), plan_of(other)]
    if all("folds_sha256" in plan for plan in plans):
        return plans[0]["folds_sha256"] == plans[1]["folds_sha256"]
    return _choice_of(plans[0]) == _choice_of(plans[1])


def _choice_of(plan: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what decides which clip is in which list, as far as plans without a hash say."""
    options = plan.get("options")
    options = options if isinstance(options, dict) else {}
    share = options.get("fold_val")
    return (
        *(plan.get(name) for name in ("folds", "count", "sha256")),
        options.get("fold_seed") or 0,
        VAL_SHARE if share is None else share,
    )


if __name__ == "__main__":
    run_script(main)
