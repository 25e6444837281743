"""What checkpoints and score files say about the clips of a list, and what several say together."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import session
from console import StepLine, say
from datasets.clip_table import groups_of, load_table
from datasets.clips import ClipDataset
from datasets.leakage import find_overlaps
from datasets.loading import SPLITS, DataSource, build_eval_loader
from datasets.records import PUBLISHED
from engine import evaluate
from errors import InputError
from machine import StopRequest, choose_device, prepare_cpu
from models import build_model
from models.weights import checkpoint_options, load_checkpoint, read_checkpoint
from options.testing import adopt_options
from results.calibration import Kind, Temperature
from results.compare import Comparison, align, compare
from results.ensembles import TunedWeights, combine, normalise_weights, refuse_tested, tune_weights
from results.group_intervals import GroupIntervals
from results.metrics import Metrics
from results.score_files import ClipScores, read_scores
from results.selection import overlap_protocol, selection_reasons
from resume import refuse_seen_clips


@dataclass(frozen=True, slots=True)
class Tested:
    """How a checkpoint was tested.

    Attributes:
        options: those of the command line and of the checkpoint; `weights` is its path.
        source: the data set.
        clips: of the list that is tested, with the views that were scored.
    """

    options: argparse.Namespace
    source: DataSource
    clips: ClipDataset


@dataclass(frozen=True, slots=True)
class Scored:
    """One model and its scores.

    Attributes:
        name: its checkpoint or score file.
        scores: of the list that is tested.
        val: of the val list, where something is tuned on it.
        temperature: that was fitted on `val` and applied to both; None without --calibrate.
        tested: what was scored; None for a score file.
    """

    name: str
    scores: ClipScores
    val: ClipScores | None = None
    temperature: Temperature | None = None
    tested: Tested | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a test found.

    Attributes:
        scores: of the one model, or of the ensemble.
        metrics: of `scores`.
        intervals: of `metrics`.
        models: the models behind it.
        weights: of these, they add up to 1.
        tuned: how the weights were found; None when they were given.
        comparisons: of the other models, then of the ensemble, with the first model.
        selection: why the result is optimistic, a sentence for each reason; empty for an honest
            test.
    """

    scores: ClipScores
    metrics: Metrics
    intervals: GroupIntervals
    models: Sequence[Scored]
    weights: tuple[float, ...]
    tuned: TunedWeights | None
    comparisons: dict[str, Comparison]
    selection: tuple[str, ...] = ()


def score_models(args: argparse.Namespace) -> tuple[list[Scored], argparse.Namespace]:
    """Score the checkpoints of `--weights` or read the files of `--scores`.

    Returns:
        The models, temperatures applied, and the options of the first of them.

    Raises:
        InputError: a file is not as it should be, or val and test clips are the same.
    """
    if args.scores:
        models = _read_models(args)
        options = args
    else:
        options, models = args, []
        for number, path in enumerate(args.weights):
            adopted = adopt_options(args, checkpoint_options(path), path)
            options = adopted if number == 0 else options
            models.append(_score_model(adopted))
    for model in models:
        if model.val is not None and args.split == "test":
            refuse_tested(model.val, model.scores, f"the val list of {model.name}")
    return [_calibrated(model) if args.calibrate else model for model in models], options


def _read_models(args: argparse.Namespace) -> list[Scored]:
    vals = [read_scores(path) for path in args.val_scores or ()]
    return [
        Scored(str(path), read_scores(path), vals[number] if vals else None)
        for number, path in enumerate(args.scores)
    ]


def _score_model(args: argparse.Namespace) -> Scored:
    prepare_cpu(args.threads)
    source = session.open_data(args)
    scores, clips = score_list(args, source, args.split)
    needs_val = args.calibrate or args.tune_on_val
    val = score_list(args, source, "val")[0] if needs_val else None
    return Scored(str(args.weights), scores, val, tested=Tested(args, source, clips))


def score_list(
    args: argparse.Namespace, source: DataSource, split: str
) -> tuple[ClipScores, ClipDataset]:
    """Score the clips of a list with the checkpoint `args.weights`; return them as well."""
    device = choose_device(args.device, args.gpus)
    clips = build_eval_loader(
        args,
        source,
        split,
        num_clips=args.num_clips,
        test_crops=args.test_crops,
        batch_size=args.batch_size,
        estimate=session.build_estimate(args, device),
    )
    protocol = PUBLISHED if source.is_published else ""
    if split == "test":
        seen = _check_unseen(args, source, session.clips_of(clips))
        protocol = protocol or seen
    model = build_model(args, len(source.classes)).to(device)
    say(str(load_checkpoint(model, args.weights)))
    with StopRequest() as stop, StepLine(split, every=20) as line:
        found = evaluate(
            model,
            clips,
            device,
            softmax=args.softmax,
            most_rows=max(args.batch_size, 2),
            stop=stop,
            progress=line,
        )
    say(f"{args.dataset}, {split} list, {args.num_clips} x {args.test_crops} views of a clip")
    session.say_missing_poses(clips)
    kind: Kind = "probabilities" if args.softmax else "logits"
    scores = ClipScores(
        clips=tuple(found.clips),
        labels=found.labels,
        scores=found.scores,
        classes=tuple(source.classes),
        kind=kind,
        groups=groups_of(load_table(source.root), found.clips),
        split=split,
        protocol=protocol,
    )
    return scores, session.clips_of(clips)


def _check_unseen(args: argparse.Namespace, source: DataSource, clips: ClipDataset) -> str:
    """Refuse test clips that the model has seen; with `--allow_overlap` count them instead.

    Returns:
        What of the clips is in other lists, as the `protocol` of scores; "" when they are apart.

    Raises:
        InputError: the model has seen some, and may not.
    """
    content = read_checkpoint(args.weights)
    is_same = args.dataset == checkpoint_options(args.weights).get("dataset")
    if args.allow_overlap:
        seen = _count_seen(content, clips) if is_same else []
        return overlap_protocol(seen or _shared_by_lists(source, clips))
    if is_same:
        refuse_seen_clips(content, clips, args.weights, is_published=source.is_published)
    return ""


def _count_seen(content: Any, clips: ClipDataset) -> list[str]:
    """Return how many clips were in each list that a checkpoint was made with, where some were."""
    lists = content.get("clips") if isinstance(content, Mapping) else None
    counts = {
        split: int(np.isin(clips.fingerprints, seen.numpy()).sum())
        for split, seen in (lists or {}).items()
    }
    return [
        f"{count} of {len(clips)} test clips were in the {split} list of the checkpoint"
        for split, count in counts.items()
        if count
    ]


def _shared_by_lists(source: DataSource, clips: ClipDataset) -> list[str]:
    """Return what the other lists share with the tested clips: names, contents or groups."""
    records = {s: source.records(s) for s in SPLITS if s != "test" and source.has(s)}
    records["test"] = tuple(clip.record for clip in clips.clips)
    found: dict[str, str] = {}
    for overlap in find_overlaps(records, load_table(source.root)):
        if overlap.other == "test":
            found.setdefault(overlap.one, f"the {overlap.one} and test lists {overlap.text()}")
    return list(found.values())


def _calibrated(model: Scored) -> Scored:
    """Return a model whose scores are scaled by the temperature that its val clips set."""
    val = model.val
    if val is None:
        raise ValueError("a temperature needs scores of the val list")
    if val.split == "test" or val.protocol:
        raise InputError(
            f"{model.name}: its val clips are test clips, and a temperature fitted on them would "
            "make the result no test: use lists that are apart, or leave out --calibrate"
        )
    found = Temperature.fit(val.labels, val.scores, val.kind)
    text = found.note or f"log loss {found.loss_before:.4f} to {found.loss_after:.4f}"
    say(f"{model.name}: temperature {found.value:.3f} from {found.clips} val clips ({text})")
    scaled = [
        replace(part, scores=found.apply(part.scores, part.kind)) for part in (model.scores, val)
    ]
    return replace(model, scores=scaled[0], val=scaled[1], temperature=found)


def judge(models: Sequence[Scored], args: argparse.Namespace) -> Outcome:
    """Mix the models if there are several, measure, and compare as `args` asks.

    Raises:
        InputError: the models cannot be put side by side, or weights do not fit.
    """
    names = [model.name for model in models]
    every = align([model.scores for model in models], names)
    weights, tuned = _weights(models, args)
    scores = every[0] if len(every) == 1 else combine(every, weights, mean=args.mean, names=names)
    comparisons = {}
    if args.compare:
        others = dict(zip(names[1:], every[1:], strict=True)) | {"the ensemble": scores}
        comparisons = {n: compare(every[0], other, seed=args.seed) for n, other in others.items()}
    return Outcome(
        scores,
        Metrics.of(scores.labels, scores.scores, scores.kind),
        GroupIntervals.of(scores.labels, scores.scores, scores.kind, scores.units, seed=args.seed),
        models,
        weights,
        tuned,
        comparisons,
        tuple(selection_reasons(every, args.split)),
    )


def _weights(
    models: Sequence[Scored], args: argparse.Namespace
) -> tuple[tuple[float, ...], TunedWeights | None]:
    if args.tune_on_val:
        names = [f"the val list of {model.name}" for model in models]
        vals = [model.val for model in models if model.val is not None]
        tuned = tune_weights(vals, mean=args.mean, names=names)
        return tuned.weights, tuned
    given = args.ensemble_weights or [1.0] * len(models)
    return tuple(normalise_weights(given, len(models)).tolist()), None


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of `test_report.json` that the scores decide."""
    first = outcome.scores
    return {
        "classes": list(first.classes),
        "protocol": first.protocol,
        "selection": list(outcome.selection),
        **outcome.metrics.to_json(),
        "intervals": outcome.intervals.to_json(),
        "models": [
            {
                "name": model.name,
                "weight": weight,
                "temperature": model.temperature and model.temperature.to_json(),
                "metrics": _metrics(model).to_json(),
            }
            for model, weight in zip(outcome.models, outcome.weights, strict=True)
        ],
        "tuned_on_val_clips": outcome.tuned and outcome.tuned.clips,
        "comparisons": {n: found.to_json() for n, found in outcome.comparisons.items()},
    }


def model_lines(outcome: Outcome) -> list[str]:
    """Return a line for each of several models; none for one alone."""
    if len(outcome.models) == 1:
        return []
    lines = [
        f"model {n}, weight {w:.3f}: {_metrics(m).accuracy:.2%}, log loss {_metrics(m).loss:.4f}  "
        f"{m.name}"
        for n, (m, w) in enumerate(zip(outcome.models, outcome.weights, strict=True), start=1)
    ]
    if outcome.tuned is not None:
        found = outcome.tuned
        lines.append(
            f"weights tuned on {found.clips} val clips: log loss {found.loss_equal:.4f} with equal "
            f"weights, {found.loss_tuned:.4f} with these"
        )
    return [*lines, "the ensemble:"]


def comparison_lines(outcome: Outcome) -> list[str]:
    """Return what `--compare` found."""
    short = {model.name: f"model {n}" for n, model in enumerate(outcome.models, start=1)}
    return [
        line
        for name, found in outcome.comparisons.items()
        for line in found.lines("model 1", short.get(name, name))
    ]


def _metrics(model: Scored) -> Metrics:
    return Metrics.of(model.scores.labels, model.scores.scores, model.scores.kind)
