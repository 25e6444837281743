"""What checkpoints and score files say about the clips of a list, and what several say together."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import assembly
from console import StepLine, say
from datasets.clip_table import groups_of, load_table
from datasets.clips import ClipDataset
from datasets.loading import build_eval_loader
from datasets.opening import SPLITS, DataSource
from errors import InputError
from machine import (
    StopRequest,
    choose_channels_last,
    choose_own_device,
    num_cores,
    prepare_cpu,
    tune_network,
)
from models import build_model
from models.weights import checkpoint_options, load_checkpoint
from options.skeletons import needs_frames, with_layout
from options.testing import adopt_options
from ranks import Ranks
from results.calibration import Kind, Temperature
from results.compare import Comparison, align, compare, holm
from results.ensembles import TunedWeights, combine, normalise_weights, refuse_tested, tune_weights
from results.group_intervals import GroupIntervals
from results.metrics import Metrics
from results.score_files import ClipScores, read_scores
from results.selection import selection_reasons
from scoring import evaluate
from seen_clips import check_seen, is_chosen_by_training, published_protocol

# Views of skeletons in one forward pass.
_MOST_SKELETONS = 64


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
        cautions: what would make it optimistic, such as a choice among several models by it.
        notes: what else must be known to quote the result, such as clips that were left out.
        split: the list, "train", "val" or "test".
    """

    scores: ClipScores
    metrics: Metrics
    intervals: GroupIntervals
    models: Sequence[Scored]
    weights: tuple[float, ...]
    tuned: TunedWeights | None
    comparisons: dict[str, Comparison]
    selection: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split: str = "test"

    @property
    def p_values(self) -> dict[str, float]:
        """The p-value of each comparison, adjusted for their number; by groups where known."""
        found = self.comparisons
        raw = [c.p_value if c.group_p_value is None else c.group_p_value for c in found.values()]
        return dict(zip(found, holm(raw), strict=True))


def score_models(
    args: argparse.Namespace, ranks: Ranks | None = None
) -> tuple[list[Scored], argparse.Namespace]:
    """Score the checkpoints of `--weights` or read the files of `--scores`.

    Args:
        args: options of test_models.py.
        ranks: the processes that share the clips; each gets all scores.

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
            models.append(_score_model(adopted, ranks or Ranks()))
    for model in models:
        if model.val is not None and args.split == "test":
            refuse_tested(model.val, model.scores, f"the val list of {model.name}")
        _refuse_tuning(model)
    return [_calibrated(model) if args.calibrate else model for model in models], options


def _read_models(args: argparse.Namespace) -> list[Scored]:
    vals = [read_scores(path) for path in args.val_scores or ()]
    return [
        Scored(str(path), read_scores(path), vals[number] if vals else None)
        for number, path in enumerate(args.scores)
    ]


def _score_model(args: argparse.Namespace, ranks: Ranks) -> Scored:
    prepare_cpu(args.threads or max(1, num_cores() // (2 * ranks.neighbours)))
    with ranks.first_goes_first(f"data of {args.weights}", ranks.check):
        source = assembly.open_data(args)
    scores, clips = score_list(args, source, args.split, ranks)
    needs_val = args.calibrate or args.tune_on_val
    val = score_list(args, source, "val", ranks)[0] if needs_val else None
    return Scored(str(args.weights), scores, val, tested=Tested(args, source, clips))


def score_list(
    args: argparse.Namespace, source: DataSource, split: str, ranks: Ranks
) -> tuple[ClipScores, ClipDataset]:
    """Score the clips of a list with the checkpoint `args.weights`; return them as well."""
    device = choose_own_device(args.device, args.gpus, ranks.own_share)
    ranks.start_group(device, args.rank_timeout)
    with ranks.first_goes_first(f"{split} of {args.weights}", ranks.check):  # it may store frames
        clips = build_eval_loader(
            args,
            source,
            split,
            num_clips=args.num_clips,
            test_crops=args.test_crops,
            batch_size=args.batch_size,
            estimate=assembly.build_estimate(args, device),
            announce=assembly.announce,
            share=ranks.own_share,
        )
    seen = check_seen(args, source, split, assembly.clips_of(clips))
    protocol = published_protocol(args) if source.is_published else seen
    model = build_model(with_layout(args, source.row.layout), len(source.classes)).to(device)
    say(str(load_checkpoint(model, args.weights)))
    assembly.say_tested_network(args)
    layout = choose_channels_last(args.channels_last, device, None)
    tune_network(model, device, channels_last=layout, compiled=args.compile)
    with StopRequest() as stop, StepLine(split, every=20) as line:
        found = evaluate(
            model,
            clips,
            device,
            softmax=args.softmax,
            most_rows=max(args.batch_size, 2 if needs_frames(args) else _MOST_SKELETONS),
            stop=stop,
            progress=line,
            ranks=ranks,
        )
    say(f"{args.dataset}, {split} list, {args.num_clips} x {args.test_crops} views of a clip")
    assembly.say_missing_poses(clips)
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
    return scores, assembly.clips_of(clips)


def _refuse_tuning(model: Scored) -> None:
    """Make sure that val clips may tune a model: they neither test nor trained it.

    Raises:
        InputError: they do.
    """
    val = model.val
    if val is None or not (val.split == "test" or val.protocol):
        return
    reason = f"has val clips that were trained on or are test clips ({val.protocol or val.split})"
    raise InputError(
        f"{model.name} {reason}: what is tuned on them would make the result no test; use lists "
        "that are apart, or leave out --calibrate and --tune_on_val"
    )


def _calibrated(model: Scored) -> Scored:
    """Return a model whose scores are scaled by the temperature that its val clips set."""
    val = model.val
    if val is None:
        raise ValueError("a temperature needs scores of the val list")
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
    split = scores.split if scores.split in SPLITS else args.split
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
        _cautions(models, split),
        _notes(models),
        split,
    )


def _cautions(models: Sequence[Scored], split: str) -> tuple[str, ...]:
    if len(models) == 1 or split != "test":
        return ()
    return (
        f"{len(models)} models were scored on the same test clips. Taking the best of them by "
        "these numbers is selection on the test list, and makes its accuracy optimistic: choose by "
        "the val list, and report the test result of that one alone",
    )


def _notes(models: Sequence[Scored]) -> tuple[str, ...]:
    """Return what the models' tests left out, and how their epochs were chosen."""
    notes = []
    for model in models:
        if model.tested is None:
            continue
        total = len(model.tested.source.records(model.scores.split))
        if len(model.scores) < total:
            notes.append(
                f"a part of the list: the first {len(model.scores):,} of {total:,} clips "
                "(--max_num)"
            )
        if is_chosen_by_training(model.tested.options.weights):
            notes.append(
                f"the val list of {model.name} was trained on, so best.pth.tar was chosen by the "
                "accuracy on training clips"
            )
    return tuple(dict.fromkeys(notes))


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
        "cautions": list(outcome.cautions),
        "notes": list(outcome.notes),
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
        "comparisons": {
            n: found.to_json() | {"p_adjusted": outcome.p_values[n]}
            for n, found in outcome.comparisons.items()
        },
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
    return [line for lines in comparison_texts(outcome) for line in lines]


def comparison_texts(outcome: Outcome) -> list[list[str]]:
    """Return what `--compare` found, the lines of each comparison."""
    short = {model.name: f"model {n}" for n, model in enumerate(outcome.models, start=1)}
    adjusted = outcome.p_values
    texts = []
    for name, found in outcome.comparisons.items():
        lines = found.lines("model 1", short.get(name, name))
        if len(adjusted) > 1:
            lines.append(
                f"  p {adjusted[name]:.3g} (the last p above, adjusted for {len(adjusted)} "
                "comparisons, Holm)"
            )
        texts.append(lines)
    return texts


def _metrics(model: Scored) -> Metrics:
    return Metrics.of(model.scores.labels, model.scores.scores, model.scores.kind)
