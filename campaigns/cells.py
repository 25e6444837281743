"""Folds x seeds as processes of the training and test programs: started, stopped, gone on with.

A cross-validation is a folder. `plan.json` says what is run; `runs/seed<s>_fold<k>/` holds the run
folder of one training, the logs, and, once it is tested, `done.json`. Whatever is killed at any
moment, the next start goes on from there and ends with the same numbers.
"""

import json
import os
import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns.children import Child, end
from campaigns.plan import Plan, may_overlap
from errors import InputError
from files import read_regular, write_json
from machine import StopRequest
from options.testing import parser_of_tests
from options.types import named_options
from results.score_files import ClipScores, read_scores

DONE = "done.json"
_TEST = "test_models.py"
_RUN_NAME = "run"
# Options of the training line that tests take over, and their spelling.
_MACHINE = {"device": "--device", "gpus": "--gpus", "workers": "--workers", "threads": "--threads"}
_POLL_SECONDS = 0.05
_MOST_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Cell:
    """One training and its test.

    Attributes:
        seed: of the training.
        fold: that is tested, counted from 1.
        folder: of its files.
    """

    seed: int
    fold: int
    folder: Path

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"seed {self.seed}, fold {self.fold}"


# ---------------------------------------------------------------- cells


def list_cells(output: Path, plan: Plan, seeds: Sequence[int]) -> list[Cell]:
    """Return every training of the plan: all folds of the first seed, then of the next."""
    return [
        Cell(seed, fold, output / "runs" / f"seed{seed}_fold{fold}")
        for seed in seeds
        for fold in range(1, plan.count + 1)
    ]


def read_cell(plan: Plan, cell: Cell) -> ClipScores | None:
    """Return the scores of a finished cell; None where there is still something to do.

    Raises:
        InputError: they are of clips that its fold does not test.
    """
    try:
        place = json.loads(read_regular(cell.folder / DONE, _MOST_BYTES))["run"]
        scores = read_scores(cell.folder / place / "scores_test.npz")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # InputError is a ValueError
        return None
    odd = set(scores.clips) - plan.tested[cell.fold - 1]
    if odd:
        raise InputError(
            f"{cell.folder} was tested on {len(odd)} clips that are not in fold {cell.fold} of "
            f"{plan.count}, such as {min(odd)!r}: remove that folder to run it anew, or name "
            "another --output"
        )
    return scores


def _find_run(cell: Cell) -> Path | None:
    """Return the run folder that has a checkpoint; what was left before the first one is removed.

    There is at most one: a run that has a checkpoint is gone on with.
    """
    found = sorted(
        path.parent
        for name in ("last", "previous")
        for path in cell.folder.glob(f"experiments/*/*/*/{name}.pth.tar")
    )
    if not found:
        shutil.rmtree(cell.folder / "experiments", ignore_errors=True)
        return None
    return found[-1]


def _training(plan: Plan, cell: Cell) -> list[str]:
    run = _find_run(cell)
    resume = [] if run is None else ["--resume", str(run / "last.pth.tar")]
    return [
        plan.script, *plan.line, "--fold", f"{cell.fold}/{plan.folds}", "--seed", str(cell.seed),
        "--experiment_path", str(cell.folder), "--experiment_name", _RUN_NAME, *resume,
    ]  # fmt: skip


def _testing(plan: Plan, cell: Cell) -> list[str]:
    run = _find_run(cell) or cell.folder
    named = named_options(parser_of_tests(), ["--weights", "x", *plan.test])
    machine: list[str] = []
    for name, option in _MACHINE.items():
        value = plan.options[name]
        if value is not None and name not in named:
            machine += [option, *map(str, value if isinstance(value, list) else [value])]
    if may_overlap(plan) and "allow_overlap" not in named:
        machine.append("--allow_overlap")
    scores = ["--save_scores", "both"]
    return [_TEST, "--weights", str(run / plan.weights), *scores, *machine, *plan.test]


# ---------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True)
class _Work:
    """A step of a cell at work."""

    cell: Cell
    step: str
    child: Child


def run_cells(
    plan: Plan, cells: Sequence[Cell], jobs: int, tell: Callable[[Cell, str], None]
) -> dict[Cell, str]:
    """Train and test every cell, several at a time.

    Args:
        plan: what is run.
        cells: those to do.
        jobs: how many at a time.
        tell: called when a cell has ended, with why it failed or "".

    Returns:
        The cells that failed -> why, in a line.

    Raises:
        Interrupted: a signal came; the programs have saved and ended.
    """
    waiting, active, failed = deque(cells), list[_Work](), dict[Cell, str]()
    with StopRequest() as stop:
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    active.append(_start(plan, waiting.popleft(), "training"))
                for work in [work for work in active if work.child.poll() is not None]:
                    active.remove(work)
                    active += _follow(plan, work, failed, tell)
                stop.poll()
                time.sleep(_POLL_SECONDS)
        finally:
            end(work.child for work in active)
    return failed


def _start(plan: Plan, cell: Cell, step: str) -> _Work:
    cell.folder.mkdir(parents=True, exist_ok=True)
    command = (_training if step == "training" else _testing)(plan, cell)
    log = cell.folder / f"{step}.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ python {shlex.join(command)}\n")
    return _Work(cell, step, Child.start(command, log, os.getpid()))


def _follow(
    plan: Plan, work: _Work, failed: dict[Cell, str], tell: Callable[[Cell, str], None]
) -> list[_Work]:
    """Return what comes after a step that has ended: the test after the training."""
    cell, reason = work.cell, ""
    code = work.child.poll() or 0
    if code:
        reason = f"{work.step}: {work.child.reason(code)}"
    elif _find_run(cell) is None:
        reason = f"{work.step} ended well and left no checkpoint"
    elif work.step == "training":
        return [_start(plan, cell, "test")]
    else:
        _finish(cell)
        reason = "" if read_cell(plan, cell) else "the test left no scores that can be read"
    if reason:
        failed[cell] = reason
    tell(cell, reason)
    return []


def _finish(cell: Cell) -> None:
    run = _find_run(cell)
    if run is not None:
        write_json(cell.folder / DONE, {"run": run.relative_to(cell.folder).as_posix()})
