"""Trainings and their tests as child processes, several at a time, gone on with when asked again.

What `benchmarks/jhmdb.py` and `benchmarks/late_fusion.py` have in common. A run has a folder:
`run.json` says what it is, `done.json` that it is tested, `scores_test.npz` what it said.
"""

import json
import os
import shlex
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaigns.children import Child, end
from errors import InputError
from files import read_regular, write_json
from machine import StopRequest
from results.score_files import ClipScores, read_scores

_POLL_SECONDS = 0.05
_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Run:
    """A training with one seed, and its test.

    Attributes:
        entry: name of what is trained, in the table.
        seed: of the training.
        folder: of its files.
        train: the training program and its options, without seed and place.
        test: options of `test_models.py`.
        weights: name of the checkpoint that is tested.
    """

    entry: str
    seed: int
    folder: Path
    train: tuple[str, ...]
    test: tuple[str, ...]
    weights: str

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"{self.entry}, seed {self.seed}"

    def to_json(self) -> dict[str, object]:
        """Return what tells it from another one."""
        return {"train": list(self.train), "test": list(self.test), "weights": self.weights}

    def scores(self) -> ClipScores | None:
        """Return what it said of the test clips; None where there is still something to do."""
        if not (self.folder / "done.json").is_file():
            return None
        return read_scores(self.folder / "scores_test.npz")

    def next_step(self) -> list[str] | None:
        """Return the command that comes next; None where none is left."""
        if (self.folder / "done.json").is_file():
            return None
        place = self._finished()
        if place is None:  # an unfinished training of the same command goes on by itself
            where = ["--experiment_path", str(self.folder), "--experiment_name", "run"]
            return [*self.train, "--seed", str(self.seed), *where]
        output = ["--output", str(self.folder), "--save_scores", "--no_report"]
        return ["test_models.py", "--weights", str(place / self.weights), *self.test, *output]

    def _finished(self) -> Path | None:
        """Return the folder of the training, if it has come to its end."""
        found = sorted(self.folder.glob("experiments/*/*/*/finished.json"))
        return found[-1].parent if found else None


def run_all(runs: Sequence[Run], jobs: int, tell: Callable[[str], None]) -> None:
    """Train and test what is not done.

    Args:
        runs: all of them.
        jobs: how many at a time.
        tell: called with a line for each run that ends.

    Raises:
        InputError: a folder was begun with other options, or runs failed; the others are done.
        Interrupted: a signal came; the programs have saved and ended.
    """
    begin_all(runs)
    waiting, failed = deque(run for run in runs if run.scores() is None), dict[Run, str]()
    tell(f"{len(runs)} runs, {len(runs) - len(waiting)} done before")
    active: list[tuple[Run, Child]] = []
    left = len(waiting)
    with StopRequest() as stop:
        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    active.append(_start(waiting.popleft()))
                for work in [work for work in active if work[1].poll() is not None]:
                    active.remove(work)
                    active += _follow(*work, failed)
                    left = _told(work[0], active, failed, left, tell)
                stop.poll()
                time.sleep(_POLL_SECONDS)
        finally:
            end(child for _, child in active)
    if failed:
        run, reason = next(iter(failed.items()))
        raise InputError(
            f"{len(failed)} of {len(runs)} runs failed, such as {run.name}: {reason} (logs in "
            f"{run.folder}); mend that and give the same command again"
        )


def begin_all(runs: Sequence[Run]) -> None:
    """Note what the runs are, or make sure that their folders hold these.

    Raises:
        InputError: a folder was begun with other options.
    """
    for run in runs:
        _begin(run)


def _begin(run: Run) -> None:
    path = run.folder / "run.json"
    if not path.exists():
        run.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, run.to_json())
        return
    try:
        known = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        known = None
    if known != run.to_json():
        raise InputError(
            f"{run.folder} was begun with other options than those of {run.name} now: remove that "
            "folder to run it anew, or name another --work"
        )


def _start(run: Run) -> tuple[Run, Child]:
    command = run.next_step()
    assert command is not None
    log = run.folder / f"{Path(command[0]).stem}.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ python {shlex.join(command)}\n")
    return run, Child.start(command, log, os.getpid())


def _follow(run: Run, child: Child, failed: dict[Run, str]) -> list[tuple[Run, Child]]:
    """Return what comes after a step that has ended: the test after the training."""
    code = child.poll() or 0
    is_test = child.log.name == "test_models.log"
    if code:
        failed[run] = child.reason(code)
    elif is_test:
        write_json(run.folder / "done.json", {"entry": run.entry, "seed": run.seed})
    elif run._finished() is None:
        failed[run] = "the training ended well and did not say so"
    else:
        return [_start(run)]
    return []


def _told(
    run: Run,
    active: Sequence[tuple[Run, Child]],
    failed: dict[Run, str],
    left: int,
    tell: Callable[[str], None],
) -> int:
    """Say what became of a run unless its test has just begun; return how many are left."""
    if any(other is run for other, _ in active):
        return left
    scores = None if run in failed else run.scores()
    text = f"failed: {failed[run]}" if scores is None else right_text(scores)
    tell(f"{run.name}: {text}; {left - 1} runs left")
    return left - 1


def run_program(command: Sequence[str], log: Path) -> None:
    """Run one of our programs to its end, its output added to a file; it ends when we end.

    Raises:
        InputError: it failed.
        Interrupted: a signal came; the program has saved and ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    child = Child.start(command, log, os.getpid())
    with StopRequest() as stop:
        try:
            while (code := child.poll()) is None:
                stop.poll()
                time.sleep(_POLL_SECONDS)
        finally:
            end([child])
    if code:
        raise InputError(f"{command[0]} failed: {child.reason(code)} (log: {log})")


def right_text(scores: ClipScores) -> str:
    """Return how many clips are right, in words."""
    right = int((scores.scores.argmax(1) == scores.labels).sum())
    return f"{right} of {len(scores)} right ({right / len(scores):.1%})"
