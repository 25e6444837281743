"""Runs that are killed again and again until they are finished, and then are like any other run.

A kill comes at a random moment of the run, or when a file of a checkpoint is seen half done, or at
the n-th call that changes a file, or amid the bytes of a checkpoint. The last three lie inside the
save window, and so does a kill at a random moment that leaves a part of a file behind.
"""

import itertools
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.forks import Hanging, Launcher, Running
from benchmarks.faults.hooks import read_times
from benchmarks.faults.runs import (
    SAVE_SECONDS,
    Recipe,
    Reference,
    References,
    differing,
    find_troubles,
    is_finished,
    only_run,
    run_delta,
    run_folders,
    saved_steps,
)
from benchmarks.faults.table import Deadline, Findings, Row
from console import StepLine
from errors import InputError

KINDS = ("call", "torn", "moment", "seen", "call", "moment")
_MOST_OF_A_RUN = 12  # kills, then it may end
_CHECKPOINTS = ("pth.tar", "safetensors", "manifest")
_LOOK = 0.0002  # seconds between looks for a half-written file
_SLACK = 0.1  # seconds in which this process may learn late that another has ended


@dataclass
class Tally:
    """What was counted.

    Attributes:
        kills: kind -> how many.
        inside: kills inside the save window.
        unreadable, restarted, failed: what must not be, in words.
        resumed: kills after which the same command went on.
        lost_steps, lost_seconds: of each kill.
        beyond: seconds lost that neither the interval nor the work in hand explains, of each kill.
        runs: killed and then finished.
        deltas: of finished runs to undisturbed ones.
    """

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    inside: int = 0
    unreadable: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    resumed: int = 0
    lost_steps: list[int] = field(default_factory=list)
    lost_seconds: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    deltas: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Return the number of kills."""
        return sum(self.kills.values())


@dataclass(frozen=True, slots=True)
class _Shot:
    """One start of a run and its end.

    Attributes:
        killed: it did not come to its end.
        inside: the kill came while a checkpoint was being written.
        when: it ended, on the monotonic clock.
        begun: steps that the run had behind it at the start.
        steps: when those of this process were taken.
        running: the process.
    """

    killed: bool
    inside: bool
    when: float
    begun: int
    steps: list[float]
    running: Running


def kill_runs(
    launcher: Launcher,
    recipes: Sequence[Recipe],
    references: References,
    work: Path,
    *,
    kills: int,
    seed: int,
    deadline: Deadline,
) -> Findings:
    """Kill runs of all recipes in turn, `kills` times in all.

    Args:
        launcher: starts them.
        recipes: modes and numbers of loader processes.
        references: what the runs must come to.
        work: folder for them.
        kills: how many.
        seed: of moments and places.
        deadline: ends it early; the runs in hand are finished.
    """
    rng, tally = np.random.default_rng([seed, 1]), Tally()
    plans = _Plans()
    with StepLine("kills", every=20) as line:
        for number, recipe in enumerate(itertools.cycle(recipes)):
            if tally.total >= kills or deadline.is_over:
                break
            reference = references.of(recipe)
            run = _Victim(launcher, recipe, reference, work / f"kill_{number}", tally)
            run.kill_until_done(plans, rng, kills, deadline, line)
    return _report(tally, kills)


class _Plans:
    """Ways to kill, in turn; one that did not come to pass is the next again."""

    def __init__(self) -> None:
        self._ways = itertools.cycle(KINDS)
        self._again: list[str] = []

    def __next__(self) -> str:
        return self._again.pop() if self._again else next(self._ways)

    def put_back(self, kind: str) -> None:
        """Let a way be the next again."""
        self._again.append(kind)


class _Victim:
    """A run that is killed until it is finished."""

    def __init__(
        self, launcher: Launcher, recipe: Recipe, reference: Reference, out: Path, tally: Tally
    ) -> None:
        self.launcher, self.recipe, self.reference = launcher, recipe, reference
        self.out, self.tally = out, tally

    def kill_until_done(
        self,
        plans: "_Plans",
        rng: np.random.Generator,
        kills: int,
        deadline: Deadline,
        line: StepLine,
    ) -> None:
        """Start and kill; the last start is left alone."""
        for count in range(_MOST_OF_A_RUN + 1):
            is_last = count == _MOST_OF_A_RUN or self.tally.total >= kills or deadline.is_over
            kind = "" if is_last else next(plans)
            before = self.tally.total
            try:
                is_over = self._once(kind, rng, after_kill=count > 0)
            except (Hanging, InputError) as error:
                self.tally.failed.append(f"{self.recipe.name}, after {count} kills: {error}")
                return
            if self.tally.total > before:
                line(self.tally.total, kills)
            if is_over:
                if kind and self.tally.total == before:
                    plans.put_back(kind)  # the run ended before its place came
                return

    def _once(self, kind: str, rng: np.random.Generator, after_kill: bool) -> bool:
        """Start and kill once; return whether the run has come to its end."""
        shot, tally = self._shoot(kind, rng), self.tally
        if after_kill and self._has_gone_on(shot):
            tally.resumed += 1
        if not shot.killed:
            self._end(shot)
            return True
        tally.kills[kind] += 1
        tally.inside += shot.inside
        self._examine(kind, shot)
        if not any(is_finished(f) for f in run_folders(self.out) if any(f.glob("*.pth.tar"))):
            return False
        # Killed when nothing was left to do: the same command would begin another run.
        tally.resumed += 1
        self._compare()
        return True

    def _shoot(self, kind: str, rng: np.random.Generator) -> _Shot:
        """Start the run and kill it; with kind "" wait for its end."""
        steps = self.launcher.new_file("steps")
        orders: dict[str, Any] = {"steps": str(steps)}
        fate = self.launcher.new_file("fate")
        if kind in ("call", "torn"):
            most = self.reference.calls if kind == "call" else self.reference.saves
            when = "torn" if kind == "torn" else str(rng.choice(["before", "after"]))
            nth = int(rng.integers(1, max(2, most * 3 // 4)))
            share = float(rng.uniform())
            orders["kill"] = {"nth": nth, "when": when, "fate": str(fate), "share": share}
        begun = self._saved_steps()
        running = self.launcher.start(self.recipe.program, self.recipe.options(self.out), orders)
        if kind == "moment":
            _wait_at_most(running, rng.uniform(0, self.reference.seconds))
            running.send(signal.SIGKILL, whole_group=True)
        elif kind == "seen":
            _kill_on_sight(running, self.out, int(rng.integers(1, self.reference.saves + 1)))
        codes = running.wait()
        ended = time.monotonic()
        running.end()
        is_killed = codes == [-signal.SIGKILL]
        inside = is_killed and (kind == "torn" or _is_of_checkpoint(fate) or self._leftovers())
        return _Shot(is_killed, inside, ended, begun, read_times(steps), running)

    def _leftovers(self) -> bool:
        """Say whether a part of a checkpoint lies in the run folder."""
        names = (p.name for folder in run_folders(self.out) for p in folder.glob(".*.partial"))
        return any(word in name for name in names for word in _CHECKPOINTS)

    def _saved_steps(self) -> int:
        folders = [f for f in run_folders(self.out) if any(f.glob("*.pth.tar"))]
        return saved_steps(folders[-1]) if folders else 0

    def _has_gone_on(self, shot: _Shot) -> bool:
        """Say whether the process went on, or at least was no error."""
        return shot.killed or shot.running.wait() == [0]

    def _examine(self, kind: str, shot: _Shot) -> None:
        """Look at what a kill has left."""
        name, tally = f"{self.recipe.name}, {kind}", self.tally
        with_checkpoint = [f for f in run_folders(self.out) if any(f.glob("*.pth.tar"))]
        if len(with_checkpoint) > 1:
            tally.restarted.append(f"{name}: a run was begun anew beside {with_checkpoint[0]}")
        for folder in with_checkpoint:
            tally.unreadable += [f"{name}: {text}" for text in find_troubles(folder)]
        lost = shot.begun + len(shot.steps) - self._saved_steps()
        if lost < 0:
            tally.failed.append(f"{name}: {-lost} steps more in the checkpoint than were done")
        tally.lost_steps.append(lost)
        seconds, pause = _lost_time(shot, lost)
        tally.lost_seconds.append(seconds)
        # Whether a checkpoint is due is asked after each step, which may be long, and the next
        # kill may come while it is written, which is a part of the next pause between steps.
        tally.beyond.append(seconds - SAVE_SECONDS - 2 * pause)

    def _end(self, shot: _Shot) -> None:
        """Look at a run that was left alone until its end."""
        codes = shot.running.wait()
        if codes != [0]:
            text = f"{self.recipe.name} ended with {codes}: {shot.running.tail()}"
            self.tally.failed.append(text)
            return
        # A folder without a checkpoint is of a start that was killed before it had anything.
        folders = [f for f in run_folders(self.out) if any(f.glob("*.pth.tar"))]
        left = [path.name for folder in folders for path in folder.glob(".*.partial")]
        if left:
            self.tally.failed.append(f"{self.recipe.name} left {', '.join(left)} when finished")
        self._compare()

    def _compare(self) -> None:
        """Compare a finished run with an undisturbed one."""
        try:
            folder = only_run(self.out)
        except InputError as error:
            self.tally.restarted.append(str(error))
            return
        self.tally.unreadable += find_troubles(folder)
        delta = run_delta(folder, self.reference.folder)
        self.tally.deltas.append(delta)
        if delta > 0:
            parts = differing(folder, self.reference.folder)
            self.tally.failed.append(f"{self.recipe.name} differs by {delta:g} in {parts}")


def _lost_time(shot: _Shot, lost: int) -> tuple[float, float]:
    """Return how long before the kill the oldest lost step was taken, and the longest pause."""
    if not 0 < lost <= len(shot.steps):
        return 0.0, 0.0
    times = [*shot.steps, shot.when]
    return shot.when - shot.steps[-lost], float(np.diff(times).max())


def _wait_at_most(running: Running, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not running.poll():
        time.sleep(0.001)


def _kill_on_sight(running: Running, out: Path, nth: int) -> None:
    """Kill a process when the n-th file that is half written is seen."""
    ended = threading.Event()

    def look() -> None:
        seen, folder = 0, None
        was_there = False
        while not ended.is_set():
            folder = folder or next(iter(run_folders(out)[-1:]), None)
            is_there = folder is not None and any(folder.glob(".*.partial"))
            seen += is_there and not was_there
            was_there = is_there
            if is_there and seen >= nth:
                running.send(signal.SIGKILL, whole_group=True)
                return
            time.sleep(_LOOK)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    running.wait()
    ended.set()
    thread.join()


def _is_of_checkpoint(fate: Path) -> bool:
    """Say whether the call at which a process ended itself belongs to a checkpoint."""
    text = fate.read_text(encoding="utf-8") if fate.is_file() else ""
    # The folder itself is made safe after a file in it has got its name.
    is_folder = text.startswith("fsync") and text.endswith("_run")
    return is_folder or any(word in text for word in _CHECKPOINTS)


def _report(tally: Tally, asked: int) -> Findings:
    total, lost = tally.total, max(tally.lost_steps, default=0)
    late = max(tally.lost_seconds, default=0.0)
    worst = max(tally.deltas, default=0.0)
    rows = [
        Row(
            "kills",
            f"{total} x kill -9 ({_kinds(tally)}), {asked} asked",
            f"{tally.inside} inside the save window",
            "at least a quarter inside",
            total > 0 and tally.inside * 4 >= total,
        ),
        Row(
            "kills",
            "every file of the run folder read after each kill, best compared with last",
            f"{len(tally.unreadable)} unreadable or lost",
            "0",
            not tally.unreadable,
        ),
        Row(
            "kills",
            "the same command again",
            f"{tally.resumed} of {total} went on, {len(tally.restarted)} began anew",
            f"{total} of {total}",
            tally.resumed == total and not tally.restarted and not tally.failed,
        ),
        Row(
            "kills",
            f"steps lost, saving every {SAVE_SECONDS} s",
            f"at most {lost} steps, {late:.2f} s of work",
            "one interval, and the step and the checkpoint in hand",
            max(tally.beyond, default=0.0) <= _SLACK,
        ),
        Row(
            "kills",
            f"{len(tally.deltas)} killed runs that came to their end, against undisturbed ones",
            f"largest difference {worst:g}",
            "0: weights, optimiser, metrics",
            worst == 0 and bool(tally.deltas),
        ),
    ]
    facts = {
        "kills": {
            "asked": asked,
            "by_kind": tally.kills,
            "inside": tally.inside,
            "resumed": tally.resumed,
            "runs_finished": len(tally.deltas),
            "lost_steps": lost,
            "lost_seconds": late,
            "delta": worst if np.isfinite(worst) else str(worst),
        }
    }
    return Findings(rows, facts, [*tally.unreadable, *tally.restarted, *tally.failed])


def _kinds(tally: Tally) -> str:
    names = {
        "moment": "at random moments",
        "call": "at a call that changes a file",
        "torn": "amid the bytes of a checkpoint",
        "seen": "when a half-written file was seen",
    }
    return ", ".join(f"{tally.kills[kind]} {text}" for kind, text in names.items())
