"""Small runs to do harm to, and what is left of them: files that read, steps that are kept."""

import hashlib
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import opts
from benchmarks.faults.forks import Launcher
from checkpoints import CheckpointFolder
from datasets.synthetic import SyntheticSpec, ensure_synthetic
from errors import InputError
from manifests import Manifest
from models import build_model
from models.reading import read_checkpoint
from ops.batch import Batch

SPEC = SyntheticSpec(size=(64, 36), clips=(19, 6, 17))
EPOCHS, BATCH, ACCUMULATED = 4, 2, 2
STEPS = -(-SPEC.clips[0] // (BATCH * ACCUMULATED))  # of an epoch; the last has 3 clips
NETWORK = shlex.split("--arch resnet18 --width 8 --gsf --input_size 32 --pretrained none")
MODES = {
    "rgb": ("main", NETWORK),
    "early": ("main", [*NETWORK, "--early_fusion_poses"]),
    "late": ("main", [*NETWORK, "--late_fusion_poses_attention"]),
    "pose": ("main_only_pose", []),
}
SAVE_SECONDS = 0.2
CLOCKS = frozenset({"seconds", "waiting"})  # of metrics.jsonl: they differ from run to run


@dataclass(frozen=True, slots=True)
class Recipe:
    """A run of one mode: what is typed.

    Attributes:
        mode: one of `MODES`.
        workers: loader processes.
        data: folder of the built-in data set.
    """

    mode: str
    workers: int
    data: Path

    @property
    def program(self) -> str:
        """Return the program that trains it."""
        return MODES[self.mode][0]

    @property
    def name(self) -> str:
        """Return mode and number of workers."""
        return f"{self.mode}-{self.workers}"

    def options(self, out: Path, *more: object) -> list[str]:
        """Return the options of a run whose folder lies below `out`."""
        size, clips = SPEC.size, SPEC.clips
        return [
            *("--dataset", "synthetic", "--dataset_path", str(self.data)),
            *("--synthetic_size", f"{size[0]}x{size[1]}"),
            *("--synthetic_clips", *map(str, clips), "--num_segments", "4"),
            *("--batch-size", str(BATCH), "--iter_size", str(ACCUMULATED)),
            *("--epochs", str(EPOCHS), "--warmup", "1", "--lr", "0.01"),
            *("--workers", str(self.workers), "--threads", "1", "--device", "cpu"),
            *("--save_every_minutes", str(SAVE_SECONDS / 60)),
            *MODES[self.mode][1],
            *("--experiment_path", str(out)),
            *map(str, more),
        ]


def make_data(folder: Path) -> Path:
    """Write the data set that all runs share; return its folder."""
    ensure_synthetic(SPEC, folder, workers=1)
    return folder


# ---------------------------------------------------------------- run folders


def run_folders(out: Path) -> list[Path]:
    """Return the run folders below an `--experiment_path`."""
    return sorted(out.glob("experiments/*/*/*_run*"))


def only_run(out: Path) -> Path:
    """Return the one run folder with a checkpoint.

    Raises:
        InputError: there is none, or the run was begun anew.
    """
    found = [folder for folder in run_folders(out) if (folder / "last.pth.tar").is_file()]
    if len(found) != 1:
        raise InputError(f"{out} holds {len(found)} run folders with a checkpoint, not 1")
    return found[0]


def find_troubles(folder: Path) -> list[str]:
    """Return what of a run folder cannot be read, is lost or unknown; a kill leaves none.

    Every checkpoint must read, be known to the manifest by its SHA-256, and `best` must be at
    least as good as `last` says.
    """
    troubles: list[str] = []
    manifest, trouble = Manifest.read(folder / "manifest.json")
    files = sorted([*folder.glob("*.pth.tar"), *folder.glob("*.safetensors")])
    if trouble and files:
        troubles.append(f"{folder / 'manifest.json'} {trouble}")
    for path in files:
        try:
            load_file(path) if path.suffix == ".safetensors" else read_checkpoint(path)
        except Exception as error:  # noqa: BLE001 - a damaged file may raise anything
            troubles.append(f"{path}: {error}")
        if manifest.find(hashlib.sha256(path.read_bytes()).hexdigest()) is None:
            troubles.append(f"{path} is not in the manifest")
    return troubles or _find_lost(folder)


def _find_lost(folder: Path) -> list[str]:
    """Return what `read_last` complains of, and whether `best` is missing or worse than known."""
    kept = CheckpointFolder(folder)
    if not (kept.last.is_file() or kept.previous.is_file()):
        return []
    restored = kept.read_last()
    known, troubles = restored.content, list(restored.troubles)
    if known["best_epoch"] < 0:
        return troubles
    if not kept.best.is_file():
        return [*troubles, f"{kept.best} is lost"]
    there = read_checkpoint(kept.best)
    if there["best"] < known["best"]:
        troubles.append(f"{kept.best} has {there['best']}, {restored.path} knows {known['best']}")
    return troubles


def saved_steps(folder: Path) -> int:
    """Return how many steps the newest checkpoint of a run folder has behind it."""
    content = CheckpointFolder(folder).read_last().content
    return int(content["epoch"]) * STEPS + int(content["step"])


def is_finished(folder: Path) -> bool:
    """Say whether nothing is left to do: steps and the last evaluation are in the checkpoint."""
    return bool(CheckpointFolder(folder).read_last().content["epoch"] >= EPOCHS)


def differing(one: Path, other: Path) -> str:
    """Name the parts of two finished runs that differ."""
    found = []
    for name in ("last.pth.tar", "best.pth.tar"):
        mine, theirs = _of_run(one / name), _of_run(other / name)
        keys = sorted(mine.keys() | theirs.keys())
        found += [
            f"{name}: {key}"
            for key in keys
            if number_delta(mine.get(key, "none"), theirs.get(key, "none")) > 0
        ]
    if number_delta(metrics(one), metrics(other)) > 0:
        found.append("metrics.jsonl")
    return ", ".join(found)


# ---------------------------------------------------------------- comparing


def run_delta(one: Path, other: Path) -> float:
    """Return the largest difference of two finished runs: `last`, `best` and metrics."""
    deltas = [
        number_delta(_of_run(one / name), _of_run(other / name))
        for name in ("last.pth.tar", "best.pth.tar")
    ]
    return max(*deltas, number_delta(metrics(one), metrics(other)))


def _of_run(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of a run; its options name folders."""
    return {name: value for name, value in read_checkpoint(path).items() if name != "args"}


def metrics(folder: Path) -> list[dict[str, float]]:
    """Return the lines of `metrics.jsonl` without clocks."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def number_delta(one: Any, other: Any) -> float:
    """Return the largest difference of numbers in nested values; infinity where they differ else.

    Tensors are compared bit for bit first, so that NaN equals NaN.
    """
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return _tensor_delta(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return float("inf")
        return max((number_delta(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return float("inf")
        return max(map(number_delta, one, other), default=0.0)
    if isinstance(one, float) and isinstance(other, float) and one != other:
        return abs(one - other)
    return 0.0 if one == other else float("inf")


def _tensor_delta(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.numpy().tobytes() == other.numpy().tobytes():
        return 0.0
    delta = np.abs(one.double().numpy() - other.double().numpy())
    return float(np.nan_to_num(delta, nan=np.inf).max())


# ---------------------------------------------------------------- undisturbed runs


@dataclass(frozen=True, slots=True)
class Reference:
    """A run that nothing has happened to.

    Attributes:
        folder: its run folder.
        seconds: it took.
        calls: that changed files.
        saves: checkpoints written.
    """

    folder: Path
    seconds: float
    calls: int
    saves: int


class References:
    """Undisturbed runs, each made when it is first asked for."""

    def __init__(self, launcher: Launcher, work: Path) -> None:
        self._launcher, self._work = launcher, work
        self._made: dict[tuple[object, ...], Reference] = {}

    def of(self, recipe: Recipe, more: Sequence[str] = (), processes: int = 1) -> Reference:
        """Return the undisturbed run of a recipe.

        Raises:
            InputError: it did not end well.
        """
        key = (recipe, *more, processes)
        if key not in self._made:
            self._made[key] = self._make(recipe, more, processes)
        return self._made[key]

    def _make(self, recipe: Recipe, more: Sequence[str], processes: int) -> Reference:
        out = self._work / f"reference_{len(self._made)}"
        calls, saves = (self._launcher.new_file(name) for name in ("calls", "saves"))
        orders = {"calls": str(calls), "saves": str(saves)}
        start = time.monotonic()
        running = self._launcher.start(
            recipe.program, recipe.options(out, *more), orders, processes
        )
        codes = running.wait()
        seconds = time.monotonic() - start
        if any(codes):
            raise InputError(
                f"the undisturbed run {recipe.name} ended with {codes}: {running.tail()}"
            )
        counted = [path.stat().st_size if path.is_file() else 0 for path in (calls, saves)]
        return Reference(only_run(out), seconds, *counted)


def warm_up() -> None:
    """Take a step of a tiny network, so that forks need not load compiled loops again."""
    torch.set_num_threads(1)
    model = build_model(opts.parse_train_args(["--dataset", "synthetic", *NETWORK]), 2)
    batch = Batch(frames=torch.zeros(2, 8, 3, 32, 32, dtype=torch.uint8))
    model.train()(batch).sum().backward()
    with torch.no_grad():
        model.eval()(batch)
