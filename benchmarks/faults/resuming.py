"""Runs that are stopped at a random place and go on: do they end with the same bits?"""

import itertools
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.forks import Hanging, Launcher
from benchmarks.faults.runs import (
    BATCH,
    EPOCHS,
    SPEC,
    Recipe,
    References,
    only_run,
    run_delta,
)
from benchmarks.faults.table import Deadline, Findings, Row
from console import StepLine
from errors import InputError

# Calls of the network in a run: of these one is chosen. Half of them lie inside the accumulation of
# a gradient, some in an evaluation.
FORWARDS = EPOCHS * sum(-(-clips // BATCH) for clips in SPEC.clips[:2])


def resume_runs(
    launcher: Launcher,
    recipes: Sequence[Recipe],
    references: References,
    work: Path,
    *,
    resumes: int,
    seed: int,
    deadline: Deadline,
) -> Findings:
    """Stop runs of all recipes in turn at random places, continue each, compare the ends."""
    rng = np.random.default_rng([seed, 3])
    deltas: dict[str, list[float]] = {}
    broken: list[str] = []
    with StepLine("resumes", every=10) as line:
        for number, recipe in zip(range(resumes), itertools.cycle(recipes), strict=False):
            if deadline.is_over:
                break
            nth = int(rng.integers(1, FORWARDS + 1))
            try:
                delta = _stop_and_go(launcher, recipe, references, work / f"resume_{number}", nth)
                deltas.setdefault(recipe.name, []).append(delta)
            except (Hanging, InputError) as error:
                broken.append(f"{recipe.name}, stopped at forward pass {nth}: {error}")
            line(number + 1, resumes)
    return _report(deltas, broken, resumes)


def _stop_and_go(
    launcher: Launcher, recipe: Recipe, references: References, out: Path, nth: int
) -> float:
    """Return the largest difference between a run with a pause and one without."""
    options = recipe.options(out)
    visit = {"phase": "forward", "nth": nth, "signum": signal.SIGTERM}
    for orders, expected in (({"visit": visit}, 128 + signal.SIGTERM), ({}, 0)):
        running = launcher.start(recipe.program, options, orders)
        codes = running.wait()
        if codes != [expected]:
            raise InputError(f"ended with {codes}, not {expected}: {running.tail()}")
    return run_delta(only_run(out), references.of(recipe).folder)


def _report(deltas: dict[str, list[float]], broken: list[str], asked: int) -> Findings:
    every = [delta for found in deltas.values() for delta in found]
    worst = max(every, default=0.0)
    broken += [f"{name}: differs by {max(found):g}" for name, found in deltas.items() if any(found)]
    row = Row(
        "resume",
        f"{len(every)} random places in {', '.join(sorted(deltas))} (mode-workers), {asked} asked",
        f"largest difference of weights, optimiser, metrics {worst:g}",
        "0",
        bool(every) and worst == 0 and not broken,
    )
    facts = {
        "resume": {
            "asked": asked,
            "by_recipe": {name: len(found) for name, found in deltas.items()},
            "delta": worst if np.isfinite(worst) else str(worst),
        }
    }
    return Findings([row], facts, broken)
