"""Runs of the training programs that take seconds, for tests of what may befall them.

The data set is that of the `dataset` fixture: 4, 2 and 2 clips of 12 frames with keypoints.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RGB = (
    *("--arch", "resnet18", "--width", "8", "--input_size", "32"),
    *("--pretrained", "none"),
)
CLOCKS = {"seconds", "waiting"}


def command(data: Path, out: Path, *more: object, epochs: int = 2) -> list[str]:
    """Return options that train on `data`, the folder of FRFS, for all modes."""
    paths = ["--dataset", "FRFS", "--dataset_path", data.parent, "--experiment_path", out]
    recipe = ["--batch-size", 2, "--epochs", epochs, "--warmup", 0, "--workers", 0]
    return [str(word) for word in (*paths, *recipe, "--num_segments", 4, *more)]


def runs_of(out: Path) -> list[Path]:
    """Return the run folders, oldest first."""
    return sorted(path.parent for path in out.glob("experiments/FRFS/*/*/args.json"))


def run_of(out: Path) -> Path:
    """Return the only run folder."""
    (folder,) = runs_of(out)
    return folder


def begun(out: Path) -> list[Path]:
    """Return the run folders with a checkpoint; there is none before the first step."""
    return [folder for folder in runs_of(out) if (folder / "last.pth.tar").is_file()]


def numbers_of(folder: Path) -> list[dict[str, float]]:
    """Return the lines of metrics.jsonl without what clocks say; every line must be whole."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in lines]


def start(script: str, arguments: list[str], **choices) -> subprocess.Popen:
    """Start a program of ours as a shell does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **choices.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **{"text": True, "encoding": "utf-8", "errors": "replace", **choices},
    )


def wait_until(is_true, seconds: float = 120, step: float = 0.01) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(step)


# ---------------------------------------------------------------- what runs come to


def planted(*orders: dict, program: str = "pose") -> dict[str, str]:
    """Return the environment in which `tests.faulty_run` does what the orders say."""
    return {"PLANTS": json.dumps(orders), "PROGRAM": program}


def state_of(folder: Path) -> dict:
    """Return the newest checkpoint."""
    return torch.load(folder / "last.pth.tar", weights_only=True)


def same(a, b) -> bool:
    """Say whether two states are equal bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_equal_runs(one: Path, other: Path) -> None:
    """Make sure that two run folders hold the same weights, state and numbers, bit by bit."""
    first, second = state_of(one), state_of(other)
    for part in (
        "model",
        "optimizer",
        "totals",
        "best",
        "best_loss",
        "best_epoch",
        "epoch",
        "step",
    ):
        assert same(first[part], second[part]), part
    assert numbers_of(one) == numbers_of(other)
    best = [torch.load(f / "best.pth.tar", weights_only=True)["model"] for f in (one, other)]
    assert same(*best)
