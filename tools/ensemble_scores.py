r"""Mix the scores of several models into one: score files in, an ensemble out.

python tools/ensemble_scores.py rgb/scores_test.npz pose/scores_test.npz --weights 2 1
python tools/ensemble_scores.py rgb/scores_test.npz pose/scores_test.npz \
    --tune_on rgb/scores_val.npz pose/scores_val.npz --output ensemble.npz
python tools/ensemble_scores.py --streams joint=j.npz bone=b.npz joint_motion=jm.npz \
    bone_motion=bm.npz
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say, warn  # noqa: E402
from errors import run_script  # noqa: E402
from options.types import OneLineParser, non_negative_real, seed_number  # noqa: E402
from results.calibration import KINDS  # noqa: E402
from results.compare import compare  # noqa: E402
from results.ensembles import (  # noqa: E402
    STREAM_WEIGHTS,
    check_mixable,
    combine,
    normalise_weights,
    refuse_tested,
    stream_weights,
    tune_weights,
)
from results.group_intervals import GroupIntervals  # noqa: E402
from results.metrics import Metrics  # noqa: E402
from results.score_files import ClipScores, check_suffix, read_scores, write_scores  # noqa: E402
from results.selection import selection_reasons  # noqa: E402


def main(argv: Sequence[str] | None = None) -> Metrics:
    """Mix, say how good each model and the ensemble are, write the ensemble if asked."""
    args = parse(argv)
    names = list(map(str, args.scores))
    if args.output is not None:
        check_suffix(args.output)
    models = check_mixable([read_scores(path) for path in args.scores], args.mean, names)
    for reason in selection_reasons(models, "test"):
        warn(reason)
    weights = tune(args, models[0]) if args.tune_on else args.weights
    mixed = combine(models, weights, mean=args.mean, names=names)
    shares = normalise_weights(weights or [1.0] * len(models), len(models))
    for number, (name, model) in enumerate(zip(names, models, strict=True), start=1):
        say(f"model {number}   weight {shares[number - 1]:.3f}   {name}")
        say(f"  {summary(model)}")
    say(f"ensemble, mean of {args.mean}")
    say(f"  {summary(mixed)}")
    say_intervals(mixed, args.seed)
    for line in compare(models[0], mixed, seed=args.seed).lines("model 1", "the ensemble"):
        say(line)
    if args.output is not None:
        write_scores(args.output, mixed)
        say(f"wrote {args.output}")
    return Metrics.of(mixed.labels, mixed.scores, mixed.kind)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options; `scores` and `weights` are filled in from `--streams`."""
    parser = OneLineParser(
        prog="ensemble_scores.py",
        description="Mix the scores of several models on the same clips.",
        epilog="example: python tools/ensemble_scores.py rgb/scores_test.npz pose/scores_test.npz "
        "--weights 2 1 --output ensemble.npz",
    )
    group = parser.add_argument_group("models")
    group.add_argument(
        "scores", type=Path, nargs="*", help="score files (.npz or .csv) of the same clips"
    )
    group.add_argument(
        "--streams",
        nargs="+",
        metavar="NAME=FILE",
        default=[],
        help="score files of the streams of a skeleton model, instead; weighted as published: "
        + ", ".join(f"{name} {weight:g}" for name, weight in STREAM_WEIGHTS.items()),
    )
    group = parser.add_argument_group("mixing")
    group.add_argument(
        "--weights", type=non_negative_real, nargs="+", help="one number a model; default: equal"
    )
    group.add_argument(
        "--tune_on",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="score files of the same models on the val list, in the same order: the weights of "
        "the least log loss on them are taken",
    )
    group.add_argument(
        "--mean", choices=KINDS[::-1], default="probabilities", help="what is averaged"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=Path, help="score file to write, .npz or .csv")
    group.add_argument("--seed", type=seed_number, default=0, help="of the bootstrap")
    args = parser.parse_args(argv)
    if args.streams:
        fill_streams(parser, args)
    check(parser, args)
    return args


def fill_streams(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Turn `--streams` into score files and weights."""
    if args.scores:
        parser.error("--streams names the score files itself: give no others")
    pairs = [text.partition("=") for text in args.streams]
    bad = next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None)
    if bad is not None:
        parser.error(f"--streams {bad}: write NAME=FILE, as in joint=j.npz")
    args.scores = [Path(pair[2]) for pair in pairs]
    published = stream_weights([pair[0] for pair in pairs])  # also refuses other names
    if args.weights is None and not args.tune_on:
        args.weights = list(published)


def check(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Refuse numbers of files and weights that do not fit."""
    if len(args.scores) < 2:
        parser.error("an ensemble needs the score files of at least two models")
    for option, paths in (("score files", args.scores), ("--tune_on", args.tune_on or ())):
        places = [path.resolve() for path in paths]
        twice = next((path for path in paths if places.count(path.resolve()) > 1), None)
        if twice is not None:
            parser.error(f"{option}: {twice} is given twice: each is the scores of another model")
    if args.weights and args.tune_on:
        parser.error("--weights and --tune_on: give one of the two")
    for option, values in (("--weights", args.weights), ("--tune_on", args.tune_on)):
        if values and len(values) != len(args.scores):
            parser.error(f"{option} has {len(values)} values for {len(args.scores)} score files")


def tune(args: argparse.Namespace, tested: ClipScores) -> list[float]:
    """Find the weights on the val scores and say what they gain there."""
    val = [read_scores(path) for path in args.tune_on]
    refuse_tested(val[0], tested, str(args.tune_on[0]))
    tuned = tune_weights(val, mean=args.mean, names=list(map(str, args.tune_on)))
    say(
        f"weights tuned on {tuned.clips} clips: log loss {tuned.loss_equal:.4f} with equal "
        f"weights, {tuned.loss_tuned:.4f} with the tuned ones"
    )
    return list(tuned.weights)


def summary(model: ClipScores) -> str:
    """Return the numbers of one model in a line."""
    metrics = Metrics.of(model.labels, model.scores, model.kind)
    low, high = metrics.interval
    return (
        f"accuracy {metrics.accuracy:.2%} ({low:.1%} to {high:.1%}, {metrics.total} clips), "
        f"macro F1 {metrics.macro_f1:.3f}, log loss {metrics.loss:.4f}, "
        f"calibration error {metrics.calibration.ece:.3f}"
    )


def say_intervals(model: ClipScores, seed: int) -> None:
    """Say how far the accuracy can be off, over groups where they are known."""
    found = GroupIntervals.of(model.labels, model.scores, model.kind, model.units, seed=seed)
    interval = found.values["accuracy"]
    if interval is not None and found.unit == "group":
        low, high = interval
        say(f"the ensemble over {found.units} groups: 95 % interval {low:.1%} to {high:.1%}")
    if found.note:
        say(f"note: {found.note}")


if __name__ == "__main__":
    run_script(main)
