"""Runs that are asked to stop while they wait for data, compile, compute, evaluate or save."""

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.forks import LIMIT, Hanging, Launcher, Running, plain_command
from benchmarks.faults.hooks import PHASES, read_times
from benchmarks.faults.runs import (
    MODES,
    Recipe,
    References,
    find_troubles,
    only_run,
    run_delta,
    saved_steps,
)
from benchmarks.faults.table import Deadline, Findings, Row, quantile_text
from console import StepLine
from errors import InputError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# How often a phase has come in a run of either mode before its end: one of these is taken.
_VISITS = {
    "data": {"pose": (2, 3), "": (3, 9)},
    "compile": {"": (1, 1)},
    "step": {"": (3, 15)},
    "evaluation": {"": (1, 4)},
    "save": {"": (2, 3)},
}
_HOLD = 0.3  # seconds that a phase lasts at least once it has been announced
_PLAIN_EVERY = 10  # every so many is started by the plain command, or by torchrun
_GRACE = 30.0  # seconds that job systems leave between the signal and the kill, at least


@dataclass(frozen=True, slots=True)
class Case:
    """One signal.

    Attributes:
        signum: which.
        phase: of `PHASES`, in which it comes.
        processes: of the training.
        recipe: what is trained.
        target: "all" processes get it, or the whole "group" with its loaders, or a rank alone.
        is_plain: started by the plain command, not forked.
    """

    signum: signal.Signals
    phase: str
    processes: int
    recipe: Recipe
    target: str
    is_plain: bool

    @property
    def code(self) -> int:
        """Return the exit code that it should give: what asks for the place asks as TERM does."""
        return 130 if self.signum == signal.SIGINT else 143

    @property
    def more(self) -> tuple[str, ...]:
        """Return the options beside those of the recipe."""
        return ("--compile",) if self.phase == "compile" else ()

    def __str__(self) -> str:
        return (
            f"{self.signum.name} in {self.phase}, {self.recipe.name}, {self.processes} process(es)"
            f", to {self.target}{', plain command' if self.is_plain else ''}"
        )


@dataclass
class _Tally:
    """What was counted: seconds to the end by number of processes, and what went wrong."""

    seconds: dict[int, list[float]] = field(default_factory=lambda: {1: [], 2: []})
    saved: int = 0
    right_code: int = 0
    resumed: int = 0
    plain: int = 0
    deltas: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def cases(signals: int, data: Path, modes: Sequence[str] = tuple(MODES)) -> Iterator[Case]:
    """Yield as many cases: every phase, signal and number of processes, again and again."""
    grid = itertools.cycle(itertools.product(PHASES, SIGNALS, (1, 2)))
    targets = {1: itertools.cycle(("all", "group")), 2: itertools.cycle(("all", "0", "1"))}
    names = itertools.cycle(modes)
    for number, (phase, signum, processes) in zip(range(signals), grid, strict=False):
        mode = "pose" if phase == "compile" else next(names)
        recipe = Recipe(mode, 2 * (number // 2 % 2), data)
        is_plain = number % _PLAIN_EVERY in (_PLAIN_EVERY // 2, _PLAIN_EVERY // 2 + 1)
        target = next(targets[processes])
        if is_plain and processes > 1:
            target = "all"  # torchrun hands what it gets to all
        yield Case(signum, phase, processes, recipe, target, is_plain)


def signal_runs(
    launcher: Launcher,
    references: References,
    modes: Sequence[str],
    data: Path,
    work: Path,
    *,
    signals: int,
    seed: int,
    deadline: Deadline,
) -> Findings:
    """Signal as many runs, each in a phase that it is known to be in; then continue them."""
    rng, tally, done = np.random.default_rng([seed, 2]), _Tally(), 0
    with StepLine("signals", every=10) as line:
        for number, case in enumerate(cases(signals, data, modes)):
            if deadline.is_over:
                break
            try:
                _try(launcher, references, case, work / f"signal_{number}", rng, tally)
            except (Hanging, InputError) as error:
                tally.broken.append(f"{case}: {error}")
            done += 1
            line(done, signals)
    return _report(tally, done, signals)


def _try(
    launcher: Launcher,
    references: References,
    case: Case,
    out: Path,
    rng: np.random.Generator,
    tally: _Tally,
) -> None:
    recipe, steps = case.recipe, launcher.new_file("steps")
    announced = launcher.new_file("here")
    visits = _VISITS[case.phase]
    first, last = visits.get(recipe.mode, visits[""])
    visit = {
        "phase": case.phase,
        "nth": int(rng.integers(first, last + 1)),
        "announce": str(announced),
        "hold": _HOLD,
        "rank": 0,
    }
    orders = {"steps": str(steps), "visit": visit}
    start = _plain if case.is_plain else _forked
    seconds, codes, text = start(launcher, case, recipe.options(out, *case.more), orders, announced)
    tally.seconds[case.processes].append(seconds)
    tally.plain += case.is_plain
    if codes == [case.code] * case.processes:
        tally.right_code += 1
    else:
        tally.broken.append(f"{case}: exit codes {codes}: {text}")
    folder = only_run(out)
    done, saved, troubles = len(read_times(steps)), saved_steps(folder), find_troubles(folder)
    if saved == done and not troubles:
        tally.saved += 1
    else:
        tally.broken.append(f"{case}: {done} steps done, {saved} saved {troubles}")
    again = launcher.start(
        recipe.program, recipe.options(out, *case.more), processes=case.processes
    )
    codes = again.wait()
    reference = references.of(recipe, case.more, case.processes)
    if any(codes) or only_run(out) != folder:
        tally.broken.append(f"{case}: continued, it ended with {codes}: {again.tail()}")
        return
    tally.resumed += 1
    tally.deltas.append(run_delta(folder, reference.folder))
    if tally.deltas[-1] > 0:
        tally.broken.append(f"{case}: differs by {tally.deltas[-1]:g} from an undisturbed run")


def _wait_for(announced: Path, has_ended: Any, text: Any) -> None:
    end = time.monotonic() + LIMIT
    while not announced.is_file():
        if has_ended():
            raise InputError(f"the phase never came: {text()}")
        if time.monotonic() > end:
            raise Hanging(f"the phase did not come in {LIMIT:.0f} s: {text()}")
        time.sleep(0.002)


def _forked(
    launcher: Launcher, case: Case, options: list[str], orders: dict[str, Any], announced: Path
) -> tuple[float, list[int], str]:
    """Start, signal and wait; return seconds to the end, exit codes and the last lines."""
    running = launcher.start(case.recipe.program, options, orders, case.processes)
    try:
        _wait_for(announced, running.poll, running.tail)
        start = time.monotonic()
        _send(running, case)
        return (*_ended(running, start), running.tail())
    finally:
        running.end()


def _send(running: Running, case: Case) -> None:
    ranks = (int(case.target),) if case.target.isdigit() else ()
    running.send(case.signum, whole_group=case.target == "group", ranks=ranks)


def _ended(running: Running, start: float) -> tuple[float, list[int]]:
    codes = running.wait()
    return time.monotonic() - start, codes


def _plain(
    launcher: Launcher, case: Case, options: list[str], orders: dict[str, Any], announced: Path
) -> tuple[float, list[int], str]:
    """Do the same with the plain command; of several processes each has left its exit code."""
    place, log = launcher.new_file("json"), launcher.new_file("log")
    place.write_text(json.dumps(orders), encoding="utf-8")
    command = plain_command(case.recipe.program, options, place, case.processes)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(
            announced,
            lambda: process.poll() is not None,
            lambda: log.read_text(encoding="utf-8", errors="replace")[-500:],
        )
        start = time.monotonic()
        process.send_signal(case.signum)
        process.wait(LIMIT)
        seconds = time.monotonic() - start
    except subprocess.TimeoutExpired as error:
        raise Hanging(f"still running {LIMIT:.0f} s after the signal") from error
    finally:
        process.kill()
        process.wait()
    files = [Path(f"{place}.{rank}.code") for rank in range(case.processes)]
    codes = [int(file.read_text("utf-8")) if file.is_file() else -1 for file in files]
    return seconds, codes, log.read_text(encoding="utf-8", errors="replace")[-500:]


def _report(tally: _Tally, done: int, asked: int) -> Findings:
    every = [*tally.seconds[1], *tally.seconds[2]]
    worst = max(tally.deltas, default=0.0)
    what = (
        f"{done} x SIGTERM, SIGINT, SIGUSR1 in five phases, {len(tally.seconds[1])} to one "
        f"process and {len(tally.seconds[2])} to two, {asked} asked; {tally.plain} started by the "
        "plain command or torchrun"
    )
    rows = [
        Row("signals", what, f"{tally.saved} saved, no step lost", f"{done}", tally.saved == done),
        Row(
            "signals",
            "exit code of every process",
            f"{tally.right_code} of {done} are 143 (TERM), 130 (INT), 143 (USR1)",
            f"{done}",
            tally.right_code == done,
        ),
        Row(
            "signals",
            f"seconds from signal to end, of which up to {_HOLD} s are the phase held open",
            f"1 process {quantile_text(tally.seconds[1])}; 2 {quantile_text(tally.seconds[2])}",
            f"below {_GRACE:.0f} s",
            bool(every) and max(every) < _GRACE,
        ),
        Row(
            "signals",
            "the same command again",
            f"{tally.resumed} of {done} finished, largest difference {worst:g}",
            f"{done}, 0",
            tally.resumed == done and worst == 0,
        ),
    ]
    facts = {
        "signals": {
            "asked": asked,
            "done": done,
            "plain": tally.plain,
            "saved": tally.saved,
            "right_code": tally.right_code,
            "resumed": tally.resumed,
            "seconds": {str(k): [round(s, 3) for s in v] for k, v in tally.seconds.items()},
            "delta": worst if np.isfinite(worst) else str(worst),
        }
    }
    return Findings(rows, facts, tally.broken)
