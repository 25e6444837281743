"""What safety costs: seconds of checkpoints in a real training, of reading one, of going on."""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.forks import plain_command
from benchmarks.faults.hooks import read_times
from benchmarks.faults.runs import only_run
from benchmarks.faults.table import Deadline, Findings, Row
from checkpoints import CheckpointFolder
from errors import InputError

SHARE = 0.01  # of the time of training, at most
LIMIT = 900.0
# The recipes of tools/demo.py, shortened; the data set is the built-in one at its own size.
_SHARED = shlex.split(
    "--dataset synthetic --workers 0 --threads 2 --optimizer adamw --batch-size 8 --iter_size 1 "
    "--warmup 1 --dropout 0.3"
)
_EARLY = shlex.split(
    "--early_fusion_poses --arch resnet18 --width 32 --gsf --input_size 64 --field_of_view frame "
    "--crop_scales 1 0.875 --pretrained none --lr 0.002"
)
RECIPES = {
    "early": ("main", [*_EARLY, "--epochs", "4"]),
    "pose": ("main_only_pose", ["--lr", "0.001", "--epochs", "60"]),
}
QUICK = {
    "pose": (
        "main_only_pose",
        ["--lr", "0.001", "--epochs", "10", "--synthetic_clips", "60", "10", "10"],
    )
}


def measure_costs(work: Path, *, quick: bool, deadline: Deadline) -> Findings:
    """Train by the plain command, at the default interval, with a clock at the checkpoints."""
    findings = Findings()
    for name, (program, options) in (QUICK if quick else RECIPES).items():
        if deadline.is_over:
            break
        findings.add(_measure(name, program, [*_SHARED, *options], work / name, quick))
    return findings


def _measure(name: str, program: str, options: Sequence[str], work: Path, quick: bool) -> Findings:
    work.mkdir(parents=True)
    options = [*options, "--experiment_path", str(work / "whole")]
    if quick:
        options += ["--dataset_path", str(work / "data")]
    orders = {"timed": str(work / "timed"), "steps": str(work / "steps")}
    start, end = _run(program, options, orders, work)
    steps = read_times(work / "steps")
    saves = [float(line) for line in (work / "timed").read_text("utf-8").splitlines()]
    training = end - steps[0]
    # Every run has a first and a last checkpoint, however short it is.
    repeated = sum(saves[1:-1])
    folder = CheckpointFolder(only_run(work / "whole"))
    clock = time.monotonic()
    folder.read_last()
    reading = time.monotonic() - clock
    again = _time_of_resume(program, options, work)
    size = folder.last.stat().st_size
    facts = {
        "steps": len(steps),
        "training_seconds": training,
        "checkpoints": len(saves),
        "checkpoint_seconds": saves,
        "share": repeated / training,
        "share_of_all": sum(saves) / training,
        "bytes": size,
        "reading_seconds": reading,
        "start_to_first_step_seconds": steps[0] - start,
        "resume_to_first_step_seconds": again,
    }
    return Findings(_rows(name, facts), {f"cost_{name}": facts})


def _rows(name: str, facts: Mapping[str, Any]) -> list[Row]:
    saves = facts["checkpoint_seconds"]
    return [
        Row(
            "cost",
            f"{name}: {len(saves)} checkpoints of {facts['bytes'] / 2**20:.1f} MiB in "
            f"{facts['training_seconds']:.0f} s of training ({facts['steps']} steps), default "
            "interval",
            f"{facts['share']:.2%} of the time, {facts['share_of_all']:.2%} with the first and the "
            f"last one; {max(saves):.3f} s the longest",
            f"below {SHARE:.0%}",
            facts["share"] < SHARE,
        ),
        Row(
            "cost",
            f"{name}: reading a checkpoint, with its SHA-256",
            f"{facts['reading_seconds']:.3f} s",
            "said",
            True,
        ),
        Row(
            "cost",
            f"{name}: from the command to the first step",
            f"new run {facts['start_to_first_step_seconds']:.1f} s, resumed "
            f"{facts['resume_to_first_step_seconds']:.1f} s",
            "said",
            True,
        ),
    ]


def _run(
    program: str, options: Sequence[str], orders: Mapping[str, Any], work: Path, stop: float = 0
) -> tuple[float, float]:
    """Run a program by the plain command; return when it was started and when it ended.

    Args:
        program: its name.
        options: of its command line.
        orders: what is planted.
        work: folder for its log.
        stop: seconds after the first step at which it is asked to stop; 0 lets it end.
    """
    place, log = work / f"orders_{time.monotonic_ns()}.json", work / "log"
    place.write_text(json.dumps(orders), encoding="utf-8")
    start = time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(
            plain_command(program, options, place), stdout=file, stderr=subprocess.STDOUT
        )
    try:
        if stop:
            _stop_after_first_step(process, Path(orders["steps"]), stop)
        code = process.wait(LIMIT)
    finally:
        process.kill()
    if code != (143 if stop else 0):
        tail = log.read_text("utf-8", errors="replace")[-500:]
        raise InputError(f"{sys.executable} {program}.py ended with {code}: {tail}")
    return start, time.monotonic()


def _stop_after_first_step(process: subprocess.Popen, steps: Path, seconds: float) -> None:
    while not steps.is_file() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)


def _time_of_resume(program: str, options: Sequence[str], work: Path) -> float:
    """Stop a run of the same options after some steps; return seconds to the first step again."""
    options = [*options, "--experiment_path", str(work / "resumed")]
    first, second = work / "first_steps", work / "second_steps"
    _run(program, options, {"steps": str(first)}, work, stop=1.0)
    start, _ = _run(program, options, {"steps": str(second)}, work, stop=0.5)
    return read_times(second)[0] - start
