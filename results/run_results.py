"""What a run folder says about its run, as far as its files can be read.

Nothing in a run folder is fatal here: what is missing or damaged becomes a note.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from errors import InputError
from files import read_regular
from results.intervals import grouped_wilson_interval, wilson_interval
from results.score_files import ClipScores, read_scores
from results.selection import protocol_reason

# Any of these makes a folder a run folder.
_MARKS = ("args.json", "metrics.jsonl", "test_report.json")
_MOST_BYTES = 2**28
# Models of skeletons that see single frames, so that they have no streams to choose from.
FRAME_MODELS = ("mlp", "conv1d", "gcn")


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run; None where its files do not say.

    Attributes:
        name: of its folder.
        folder: where it is.
        dataset: its data set.
        mode: its network in a few words.
        seed: of its training.
        epochs_done: epochs in `metrics.jsonl`.
        epochs: epochs that it was to run.
        best_val: best validation accuracy, 0 to 1; equal ones: that of the lower loss.
        best_epoch: its epoch, counted from 0.
        seconds: median of an epoch.
        total: clips in the report.
        correct: those that were classified right.
        interval: 95 % interval of the accuracy: over groups where known, else Wilson's.
        macro_f1: of the report.
        selection: why its accuracy is optimistic, a sentence for each reason, such as an epoch that
            was chosen on the test clips; empty for an honest test.
        scores: per clip, as the report's.
        notes: what is wrong, missing or to be kept in mind.
    """

    name: str
    folder: Path
    dataset: str | None = None
    mode: str | None = None
    seed: int | None = None
    epochs_done: int | None = None
    epochs: int | None = None
    best_val: float | None = None
    best_epoch: int | None = None
    seconds: float | None = None
    total: int | None = None
    correct: int | None = None
    interval: tuple[float, float] | None = None
    macro_f1: float | None = None
    selection: tuple[str, ...] = ()
    scores: ClipScores | None = None
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Share of correct clips of the report, 0 to 1."""
        if self.total is None or self.correct is None:
            return None
        return self.correct / self.total


@dataclass(slots=True)
class _Reader:
    """Gathers the values of a run, and notes on what could not be read."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        """Return the text of a file of the run; None with a note when it cannot be read."""
        try:
            return read_regular(self.folder / name, _MOST_BYTES).decode("utf-8")
        except FileNotFoundError:
            self.notes.append(f"no {name}")
        except UnicodeDecodeError:
            self.notes.append(f"{name} is damaged (no UTF-8 text)")
        except OSError as error:
            self.notes.append(f"{name} cannot be read ({error.strerror})")
        return None

    def json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file; None with a note when there is none."""
        text = self.text(name)
        value = None if text is None else _parse(text)
        if text is not None and value is None:
            self.notes.append(f"{name} is damaged (no JSON object)")
        return value


def find_runs(places: Sequence[Path]) -> list[Path]:
    """Return run folders: those named, and all below folders that are none; each once.

    Files beside run folders, which `runs/*` names too, are left alone.

    Raises:
        InputError: a place is not there, or there is no run folder in any.
    """
    found: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise InputError(f"{place} is not there: name run folders, or folders that hold some")
        for folder in _runs_in(place):
            found.setdefault(folder.resolve(), folder)
    if not found:
        shown = ", ".join(map(str, places[:3]))
        raise InputError(
            f"{shown}: no run folder there; one holds args.json and metrics.jsonl, as main.py "
            "writes them"
        )
    return list(found.values())


def _runs_in(place: Path) -> list[Path]:
    if not place.is_dir():
        return []
    if any((place / mark).is_file() for mark in _MARKS):
        return [place]
    try:
        return sorted({path.parent for mark in _MARKS for path in place.rglob(mark)})
    except OSError as error:
        raise InputError(f"{place} cannot be searched ({error.strerror})") from None


def read_run(folder: Path, split: str = "test") -> RunResult:
    """Read what a run folder says; `split` is the list that its report and scores are of."""
    reader = _Reader(folder)
    _read_args(reader)
    _read_epochs(reader)
    _read_report(reader, split)
    _read_scores(reader, split)
    return RunResult(folder.resolve().name, folder, **reader.values, notes=tuple(reader.notes))


def _read_args(reader: _Reader) -> None:
    args = reader.json("args.json") or {}
    reader.values["dataset"] = _string(args.get("dataset"))
    reader.values["mode"] = describe(args) if args else None
    reader.values["seed"] = _count(args.get("seed"))
    reader.values["epochs"] = _count(args.get("epochs"))


def describe(args: Mapping[str, Any]) -> str:
    """Return the network that options name, in a few words."""
    fusion = args.get("fusion")
    if fusion == "pose":
        return f"pose ({_skeleton_model(args)})"
    if fusion == "rgbpose":
        streams = args.get("rgbpose_streams")
        alone = "" if streams in (None, "both") else f", {streams} stream alone"
        return f"RGBPose-Conv3D{alone}"
    network = f"{args.get('arch')}{' + GSF' if args.get('gsf') else ''}"
    mode = {"none": "RGB"}.get(str(fusion), str(fusion))
    if args.get("mask_background"):
        mode += ", masked"
    if str(fusion).startswith("late") and args.get("pose_model") not in (None, *FRAME_MODELS):
        network += f", {_skeleton_model(args)}"
    return f"{mode} ({network})"


def _skeleton_model(args: Mapping[str, Any]) -> str:
    """Name a model of skeletons, and its streams where there is a choice."""
    model, streams = args.get("pose_model"), args.get("pose_streams")
    if model in FRAME_MODELS or not isinstance(streams, list | tuple) or not streams:
        return str(model)
    return f"{model}, {' + '.join(str(stream).replace('_', ' ') for stream in streams)}"


def _read_epochs(reader: _Reader) -> None:
    """Read `metrics.jsonl`; the last line may be cut where a run was killed."""
    text = reader.text("metrics.jsonl")
    if text is None:
        return
    lines = [line for line in text.split("\n") if line.strip()]
    epochs = [values for line in lines if (values := _parse(line)) is not None]
    bad = len(lines) - len(epochs)
    if bad > 1 or (bad and text.endswith("\n")):
        reader.notes.append(f"metrics.jsonl is damaged ({bad} lines are no JSON objects)")
    reader.values["epochs_done"] = len(epochs)
    _note_unfinished(reader, len(epochs))
    seconds = [s for epoch in epochs if (s := _number(epoch.get("seconds"))) is not None]
    reader.values["seconds"] = statistics.median(seconds) if seconds else None
    scored = [
        (top1, epoch) for epoch in epochs if (top1 := _share(epoch.get("val/top1"))) is not None
    ]
    if scored:
        top1, epoch = max(scored, key=lambda pair: (pair[0], -_loss(pair[1])))
        reader.values["best_val"], reader.values["best_epoch"] = top1, _count(epoch.get("epoch"))


def _loss(epoch: Mapping[str, Any]) -> float:
    loss = _number(epoch.get("val/loss"))
    return math.inf if loss is None else loss


def _note_unfinished(reader: _Reader, done: int) -> None:
    planned = reader.values.get("epochs")
    if planned is not None and done < planned:
        reader.notes.append(f"unfinished: {done} of {planned} epochs")


def _read_report(reader: _Reader, split: str) -> None:
    name = f"{'' if split == 'test' else f'{split}_'}test_report.json"
    if not (reader.folder / name).exists():
        reader.notes.append(f"not tested on the {split} list")
        return
    report = reader.json(name)
    if report is None:
        return
    total, correct = _count(report.get("total")), _count(report.get("correct"))
    if not total or correct is None or correct > total:
        reader.notes.append(f"{name} is damaged (it has no counts of clips)")
        return
    reader.values |= {"total": total, "correct": correct}
    reader.values["interval"] = wilson_interval(correct, total)
    reader.values["macro_f1"] = _share(report.get("macro_f1"))
    reader.values["selection"] = selection_of(report)
    reader.notes += [text for key in ("cautions", "notes") for text in texts_of(report.get(key))]


def selection_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the reasons that a report gives; older ones give the protocol alone."""
    reasons = report.get("selection")
    if texts_of(reasons) or reasons == []:
        return texts_of(reasons)
    protocol = report.get("protocol")
    return (protocol_reason(str(protocol)),) if protocol else ()


def texts_of(value: object) -> tuple[str, ...]:
    """Return a list of texts, each in one line; none where it is something else."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return ()
    return tuple(" ".join(text.split()) for text in value)


def _read_scores(reader: _Reader, split: str) -> None:
    path = reader.folder / f"scores_{split}.npz"
    if not path.exists():
        return
    try:
        scores = read_scores(path)
    except InputError as error:
        reader.notes.append(str(error).replace(str(path), path.name))
        return
    is_right = scores.scores.argmax(1) == scores.labels
    counts = (len(scores), int(is_right.sum()))
    if counts != (reader.values.get("total"), reader.values.get("correct")):
        reader.notes.append(f"{path.name} is not of the report: test again")
        return
    reader.values["scores"] = scores
    if scores.units is not None:
        reader.values["interval"] = grouped_wilson_interval(is_right, scores.units)


# ---------------------------------------------------------------- values of foreign files


def _parse(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _number(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _share(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    return value if is_count else None  # type: ignore[return-value]


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def same_lists(runs: Iterable[RunResult]) -> bool:
    """Say whether all tested runs have as many clips of one data set; else they do not compare."""
    return len({(run.dataset, run.total) for run in runs if run.total is not None}) <= 1
