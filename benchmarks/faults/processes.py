"""The same training and test in 1, 2 and 4 processes: same clips, same losses, same metrics."""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.forks import Hanging, Launcher
from benchmarks.faults.runs import SPEC, Recipe, number_delta, only_run
from benchmarks.faults.table import Deadline, Findings, Row
from checkpoints import CheckpointFolder
from console import StepLine
from errors import InputError

COUNTS = (1, 2, 4)
SIZES = tuple(range(1, 18))  # of tested lists; none of 3 to 17 is shared out evenly by all counts
QUICK_SIZES = (1, 3, 6, 17)
TOLERANCE = 1e-6
# 19 clips make 10 micro-batches: steps of 4, 4 and 2 of them, the last of one clip.
_CLIPS, _EPOCHS, _QUICK_EPOCHS, _STEPS = 19, 17, 4, 3
_RECIPE = ("--batch-size", "2", "--iter_size", "4", "--lr", "0.002", "--optimizer", "adamw")
# What differs between reports of the same test.
_NOT_METRICS = frozenset({"options", "seconds", "environment", "weights", "output", "time"})


@dataclass(frozen=True, slots=True)
class Step:
    """An optimiser step of all processes together.

    Attributes:
        clips: their names, sorted.
        loss: mean over the clips.
    """

    clips: tuple[str, ...]
    loss: float


def compare_processes(
    launcher: Launcher,
    modes: Sequence[str],
    data: Path,
    work: Path,
    *,
    quick: bool,
    deadline: Deadline,
) -> Findings:
    """Train, stop, continue and test with different numbers of processes."""
    findings = Findings()
    epochs = _QUICK_EPOCHS if quick else _EPOCHS
    lists = _write_lists(data, work)
    for mode in modes:
        if deadline.is_over:
            break
        bench = _Bench(launcher, Recipe(mode, 0, data), work / mode, epochs, lists)
        try:
            findings.add(bench.train())
            findings.add(bench.elastic())
            findings.add(bench.test(QUICK_SIZES if quick else SIZES, deadline))
        except (Hanging, InputError) as error:
            findings.broken.append(f"{mode}: {error}")
    return findings


def _write_lists(data: Path, work: Path) -> Mapping[str, Path]:
    """Write the train list of the comparison, and lists of 1 to 17 clips of the test list."""
    work.mkdir(parents=True, exist_ok=True)
    source = data / "synthetic"
    lists = {}
    for name, split, count in [
        ("train", "train", _CLIPS),
        *((f"test{size}", "test", size) for size in SIZES),
    ]:
        lines = (source / f"{split}_videofolder.txt").read_text("utf-8").splitlines(keepends=True)
        lists[name] = work / f"{name}.txt"
        lists[name].write_text("".join(lines[:count]), encoding="utf-8")
    assert SPEC.clips[2] >= max(SIZES)
    return lists


class _Bench:
    """One mode with several numbers of processes."""

    def __init__(
        self,
        launcher: Launcher,
        recipe: Recipe,
        work: Path,
        epochs: int,
        lists: Mapping[str, Path],
    ) -> None:
        self.launcher, self.recipe, self.work = launcher, recipe, work
        self.epochs, self.lists = epochs, lists
        self._straight: list[Step] = []

    @property
    def mode(self) -> str:
        return self.recipe.mode

    def options(self, out: Path) -> list[str]:
        """Return the options of the training that is compared."""
        more = ("--train_list", self.lists["train"], "--epochs", self.epochs, *_RECIPE)
        return self.recipe.options(out, *more)

    def weights(self, out: str) -> dict[str, Any]:
        """Return the final weights of a training."""
        return CheckpointFolder(only_run(self.work / out)).read_last().content["model"]

    def train(self) -> Findings:
        """Train with each number of processes and compare step by step with one."""
        found = {count: self._trained(count) for count in COUNTS}
        self._straight = found[1]
        same = all(_clips(steps) == _clips(found[1]) for steps in found.values())
        losses = {count: _largest_gap(steps, found[1]) for count, steps in found.items()}
        weights = {
            count: number_delta(self.weights(str(count)), self.weights("1")) for count in COUNTS[1:]
        }
        steps, worst = len(found[1]), max(losses.values())
        rows = [
            Row(
                "processes",
                f"{self.mode}: {steps} steps with {_words(COUNTS)} processes",
                "same clips in every step" if same else "other clips",
                "same",
                same and steps == self.epochs * _STEPS,
            ),
            Row(
                "processes",
                f"{self.mode}: loss of each of {steps} steps",
                f"relative difference at most {worst:.2g} (weights: {max(weights.values()):.2g})",
                f"{TOLERANCE:g}",
                worst <= TOLERANCE,
            ),
        ]
        facts = {f"processes_{self.mode}": {"steps": steps, "loss": losses, "weights": weights}}
        return Findings(rows, _with_text_keys(facts))

    def _trained(self, count: int) -> list[Step]:
        trace = self.launcher.new_file("trace")
        running = self.launcher.start(
            self.recipe.program,
            self.options(self.work / str(count)),
            {"trace": str(trace)},
            processes=count,
        )
        codes = running.wait()
        if any(codes):
            raise InputError(
                f"training with {count} processes ended with {codes}: {running.tail()}"
            )
        return _read_trace(trace, count)

    def elastic(self) -> Findings:
        """Begin with 2 processes, go on with 1, end with 4; each is stopped by a signal."""
        out, steps = self.work / "elastic", list[Step]()
        stops = (2 * self.epochs, 3 * self.epochs, 0)  # forward passes of process 0
        for count, nth in zip((2, 1, 4), stops, strict=True):
            trace = self.launcher.new_file("trace")
            orders: dict[str, Any] = {"trace": str(trace)}
            if nth:
                orders["visit"] = {
                    "phase": "forward",
                    "nth": nth,
                    "signum": signal.SIGTERM,
                    "rank": 0,
                }
            running = self.launcher.start(
                self.recipe.program, self.options(out), orders, processes=count
            )
            codes = running.wait()
            if set(codes) != {143 if nth else 0}:
                raise InputError(
                    f"elastic, {count} processes: ended with {codes}: {running.tail()}"
                )
            steps += _read_trace(trace, count)
        same, worst = _clips(steps) == _clips(self._straight), _largest_gap(steps, self._straight)
        row = Row(
            "processes",
            f"{self.mode}: stopped and continued with 2, then 1, then 4 processes",
            f"{'same' if same else 'OTHER'} clips in every step, loss within {worst:.2g}",
            f"same, {TOLERANCE:g}",
            same and worst <= TOLERANCE,
        )
        return Findings([row], {f"elastic_{self.mode}": {"same": same, "loss": worst}})

    def test(self, sizes: Sequence[int], deadline: Deadline) -> Findings:
        """Test and validate on lists of many sizes; all numbers must be equal."""
        best = only_run(self.work / "1") / "best.pth.tar"
        differing: list[str] = []
        done = 0
        with StepLine(f"{self.mode}, list sizes", every=5) as line:
            for size in sizes:
                if deadline.is_over:
                    break
                for kind, measure in (("test", self._tested), ("val", self._validated)):
                    found = [measure(best, size, count) for count in COUNTS]
                    if any(one != found[0] for one in found):
                        differing.append(f"{self.mode}, {kind} list of {size}: {found}"[:500])
                done += 1
                line(done, len(sizes))
        row = Row(
            "processes",
            f"{self.mode}: test and val lists of {done} sizes from {min(sizes)} to {max(sizes)} "
            f"clips, with {_words(COUNTS)} processes",
            f"{len(differing)} differ in any metric or score",
            "0: equal exactly",
            not differing and done > 0,
        )
        return Findings([row], {f"sizes_{self.mode}": done}, differing)

    def _tested(self, best: Path, size: int, count: int) -> Any:
        out = self.work / f"test_{size}_{count}"
        running = self.launcher.start(
            "test_models",
            [
                *("--weights", best, "--test_list", self.lists[f"test{size}"], "--output", out),
                *("--batch-size", 2, "--workers", 0, "--threads", 1, "--device", "cpu"),
                *("--save_scores", "--no_report"),
            ],
            processes=count,
        )
        codes = running.wait()
        if any(codes):
            raise InputError(f"testing with {count} processes ended with {codes}: {running.tail()}")
        report = json.loads((out / "test_report.json").read_text(encoding="utf-8"))
        with np.load(out / "scores_test.npz", allow_pickle=False) as scores:
            arrays = {name: scores[name].tolist() for name in ("clips", "labels", "scores")}
        return {key: report[key] for key in sorted(report.keys() - _NOT_METRICS)}, arrays

    def _validated(self, best: Path, size: int, count: int) -> Any:
        options = self.options(self.work / "none")
        more = ("--val_list", self.lists[f"test{size}"], "--allow_overlap")
        running = self.launcher.start(
            self.recipe.program,
            [*options, *more, "--evaluate", "--resume", best],
            processes=count,
        )
        codes = running.wait()
        if any(codes):
            raise InputError(f"--evaluate with {count} processes: {codes}: {running.tail()}")
        lines = running.text().splitlines()
        start = next(n for n, text in enumerate(lines) if text.startswith("accuracy"))
        return lines[start:]


def _read_trace(path: Path, count: int) -> list[Step]:
    """Join what the processes wrote of each step."""
    files = [path if rank == 0 else Path(f"{path}.{rank}") for rank in range(count)]
    texts = [file.read_text("utf-8").splitlines() if file.is_file() else [] for file in files]
    lengths = {len(lines) for lines in texts}
    if len(lengths) != 1:
        raise InputError(f"the {count} processes took {sorted(lengths)} steps")
    steps = []
    for lines in zip(*texts, strict=True):
        parts = [json.loads(line) for line in lines]
        clips = [name for part in parts for batch in part["clips"] for name in batch]
        loss = sum(value for part in parts for value in part["loss"])
        steps.append(Step(tuple(sorted(clips)), loss / max(len(clips), 1)))
    return steps


def _clips(steps: Sequence[Step]) -> list[tuple[str, ...]]:
    return [step.clips for step in steps]


def _largest_gap(steps: Sequence[Step], others: Sequence[Step]) -> float:
    """Return the largest relative difference of the losses of two trainings."""
    if len(steps) != len(others):
        return float("inf")
    return max(
        (abs(a.loss - b.loss) / abs(b.loss) for a, b in zip(steps, others, strict=True)),
        default=0.0,
    )


def _words(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts[:-1])) + f" and {counts[-1]}"


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return value if not isinstance(value, float) or np.isfinite(value) else str(value)
