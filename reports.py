"""What a user reads: metrics with intervals, tables, pictures, and the run folder's files.

It imports the measures, the error type and files.
"""

import errno
import json
import math
import platform
import re
import shutil
import subprocess
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

import cv2
import matplotlib
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from errors import InputError, printable
from files import append_line, replacing, write_json, write_text
from results.group_intervals import GroupIntervals
from results.metrics import Metrics

# ---------------------------------------------------------------- text


def metrics_text(
    metrics: Metrics, classes: Sequence[str], intervals: GroupIntervals | None = None
) -> str:
    """Return the summary, the classes and the confusion matrix as lines of text."""
    low, high = metrics.interval
    known = {} if intervals is None else intervals.values
    rows = [
        ("balanced", metrics.balanced_accuracy, "balanced_accuracy"),
        ("macro F1", metrics.macro_f1, "macro_f1"),
        ("AUROC", metrics.auroc, "auroc"),
        ("avg. prec.", metrics.average_precision, "average_precision"),
        ("loss", metrics.loss, "loss"),
        ("Brier", metrics.calibration.brier, "brier"),
    ]
    lines = [
        f"accuracy    {metrics.accuracy:.2%}  ({metrics.correct} of {metrics.total} clips, "
        f"95 % interval {low:.1%} to {high:.1%})",
        *_over_groups(intervals),
        f"majority    {metrics.majority:.2%}  (always answering the most frequent class)",
        *(_metric_line(name, value, known.get(key)) for name, value, key in rows),
        f"calibration error {metrics.calibration.ece:.3f}: mean confidence "
        f"{metrics.calibration.confidence:.1%} for {metrics.accuracy:.1%} right",
    ]
    if metrics.top5 is not None:
        lines.append(f"top 5       {metrics.top5:.2%}")
    if intervals is not None and intervals.note:
        lines.append(f"note: {intervals.note}")
    return "\n".join([*lines, "", *_confusion_lines(metrics, classes)])


def _over_groups(intervals: GroupIntervals | None) -> list[str]:
    if intervals is None or intervals.unit != "group" or intervals.values["accuracy"] is None:
        return []
    low, high = intervals.values["accuracy"]
    return [f"  over {intervals.units} groups: 95 % interval {low:.1%} to {high:.1%}"]


def _metric_line(name: str, value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return f"{name:<10}  not defined for these clips"
    margin = "" if interval is None else f"  (95 % interval {interval[0]:.3f} to {interval[1]:.3f})"
    return f"{name:<10}  {value:.4f}{margin}"


def _confusion_lines(metrics: Metrics, classes: Sequence[str]) -> list[str]:
    """One row a class: name, recall, and (up to 20 classes) what it was taken for."""
    wide = len(classes) <= 20
    name = max(len("true class"), *map(len, classes))
    columns = [max(6, len(c)) for c in classes] if wide else []
    head = "  ".join(c.rjust(w) for c, w in zip(classes, columns, strict=False))
    title = f"{'true class':<{name}}  recall  precision"
    lines = [f"{title}  {'taken for  ' + head if wide else ''}".rstrip()]
    for label, row in enumerate(metrics.confusion):
        found = metrics.classes[label]
        shown = f"{_share(found.recall):>6}  {_share(found.precision):>9}"
        cells = "  ".join(str(n).rjust(w) for n, w in zip(row, columns, strict=False))
        lines.append(
            f"{classes[label]:<{name}}  {shown}  {' ' * 11 + cells if wide else ''}".rstrip()
        )
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


# ---------------------------------------------------------------- pictures


def render_confusion(metrics: Metrics, classes: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix, coloured by the share of the true class, as a PNG."""
    matplotlib.use("agg")
    counts = np.array(metrics.confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    num_classes = len(classes)
    side = float(np.clip(2.6 + 0.55 * num_classes, 4.0, 24.0))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true")
    low, high = metrics.interval
    axes.set_title(f"{metrics.accuracy:.1%} of {metrics.total} clips ({low:.1%} to {high:.1%})")
    size = 11 if num_classes <= 12 else 6
    names = [name.replace("$", r"\$") for name in classes]  # a dollar would start a formula
    axes.set_xticks(range(num_classes), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(num_classes), names, fontsize=size)
    if num_classes <= 20:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    with warnings.catch_warnings(), replacing(path) as file:
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format="png")


# ---------------------------------------------------------------- files


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return option values as JSON can hold them: paths become strings, tuples lists."""
    return {name: _plain(value) for name, value in sorted(values.items())}


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list, frozenset)):
        return [_plain(item) for item in value]
    return value


def environment() -> dict[str, Any]:
    """Return versions and the commit that produced a run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of this code, with '+' when files were changed; None outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.decode().strip() + ("+" if changed.stdout.strip() else "")


# ---------------------------------------------------------------- run folder


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one training run."""

    path: Path

    @property
    def last(self) -> Path:
        """The checkpoint to continue from."""
        return self.path / "last.pth.tar"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last."""
        return self.path / "previous.pth.tar"

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation accuracy."""
        return self.path / "best.pth.tar"

    @property
    def metrics(self) -> Path:
        """One JSON object per epoch."""
        return self.path / "metrics.jsonl"

    @classmethod
    def create(cls, parent: Path, name: str, args: Mapping[str, Any]) -> Self:
        """Make `<parent>/<time>_<name>` with `args.json` and `environment.json`.

        Raises:
            InputError: the folder cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
        path = parent / f"{stamp}_{name}"
        try:
            str(path).encode()  # TensorBoard's files cannot have other names
        except UnicodeEncodeError:
            raise InputError(
                f"{printable(path)}: a run folder needs a name that is text, which this is not as "
                "the locale is: choose another --experiment_path, or set PYTHONUTF8=1"
            ) from None
        partial = parent / f".{uuid.uuid4().hex}.partial"
        try:
            partial.mkdir(parents=True)
            write_json(partial / "args.json", plain(args))
            write_json(partial / "environment.json", environment())
            return cls(cls._name(partial, path, stamp, name))
        except (OSError, RecursionError) as error:  # thousands of folders in each other
            shutil.rmtree(partial, ignore_errors=True)
            reason = getattr(error, "strerror", "it lies too deep")
            raise InputError(
                f"{path}: cannot write the run folder ({reason}): choose another --experiment_path"
            ) from error

    @staticmethod
    def _name(partial: Path, path: Path, stamp: str, name: str) -> Path:
        """Give a folder its name, or one with a number where that is somebody else's."""
        for number in count(2):
            try:
                return partial.rename(path)
            except OSError as error:  # perhaps since a moment: runs may start at the same time
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
                path = path.with_name(f"{stamp}_{number}_{name}")
        raise AssertionError("there are more numbers than folders")

    @classmethod
    def candidates(cls, parent: Path, name: str) -> list[Self]:
        """Return the runs of this name, newest first; a killed one may have no checkpoint yet."""
        pattern = re.compile(rf"(\d{{8}}_\d{{6}})(?:_(\d+))?_{re.escape(name)}")
        found = [
            ((match[1], int(match[2] or 1)), cls(path))
            for path in (parent.iterdir() if parent.is_dir() else ())
            if (match := pattern.fullmatch(path.name)) and path.is_dir()
        ]
        return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]

    @property
    def has_checkpoint(self) -> bool:
        """Say whether there is something to continue from."""
        return self.last.is_file() or self.previous.is_file()

    @property
    def is_finished(self) -> bool:
        """Say whether the run came to its end."""
        return self.finished.is_file()

    @property
    def finished(self) -> Path:
        """What a run writes last: a run without it goes on, if only to say how it ended."""
        return self.path / "finished.json"

    def open_log(self, epoch: int) -> "EpochLog":
        """Open the metrics, dropping what was written for `epoch` and later ones."""
        return EpochLog(self, epoch)


class EpochLog:
    """Writes each epoch's numbers to `metrics.jsonl` and TensorBoard."""

    def __init__(self, run: RunFolder, epoch: int) -> None:
        self._path = run.metrics
        kept = [line for line in self._lines() if _epoch_of(line) < epoch]
        write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._board = SummaryWriter(str(run.path), purge_step=epoch)

    def _lines(self) -> list[str]:
        """Return what ends in a line end; a run killed while writing leaves a part of a line."""
        if not self._path.is_file():
            return []
        text = self._path.read_text(encoding="utf-8", errors="replace")
        return [line for line in text.split("\n")[:-1] if line]

    def record(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append one epoch."""
        append_line(self._path, {"epoch": epoch, **values})
        for name, value in values.items():
            self._board.add_scalar(name, value, epoch)
        self._board.flush()

    def close(self) -> None:
        """Close the TensorBoard file."""
        self._board.close()


def _epoch_of(line: str) -> float:
    """Return the epoch of a line of metrics; infinite if a power cut has damaged it."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
    return epoch if isinstance(epoch, int) else math.inf
