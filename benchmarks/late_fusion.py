"""Graph networks as the pose stream of late fusion, against RGB, early fusion and pose alone.

python benchmarks/late_fusion.py --work <folder> --data synthetic --jobs 2
python benchmarks/late_fusion.py --work <folder> --data synthetic gmdcsa24 \
    --source <folder with clips.csv, videos/, keypoints/>

The built-in data set: the best epoch on val, tested once. GMDCSA-24: each subject left out in turn,
the last epoch, as in `benchmarks/gmdcsa24.py`. Given again, it goes on where it stopped.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.gmdcsa24 import BACKBONE, NAME, RECIPE, prepare  # noqa: E402
from benchmarks.runs import Run, run_all, run_program  # noqa: E402
from console import say  # noqa: E402
from errors import run_script  # noqa: E402
from options.types import OneLineParser, natural, positive  # noqa: E402
from results.compare import FoldedComparison, compare_folded, holm  # noqa: E402
from results.intervals import wilson_interval  # noqa: E402
from results.score_files import ClipScores, read_scores  # noqa: E402

SYNTHETIC = "synthetic"
GRAPH = shlex.split("--pose_model stgcnpp --num_people 1 --pose_frames 32 --pose_pooling masked")
LATE = ["--late_fusion_poses_attention", *BACKBONE]
# The second loss of each stream, beside that of both.
LOSSES = ["--stream_losses", "0.5"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the table.

    Attributes:
        script: that trains it.
        options: of it.
        epochs: on the built-in data set, on GMDCSA-24.
        lr: learning rate on the built-in data set; 0.001 on the other.
    """

    script: str
    options: Sequence[str]
    epochs: tuple[int, int] = (20, 20)
    lr: float = 0.001


ENTRIES = {
    "rgb": Entry("main.py", BACKBONE),
    "early": Entry("main.py", ["--early_fusion_poses", *BACKBONE], (12, 20), 0.002),
    "pose_stgcnpp": Entry("main_only_pose.py", GRAPH, (60, 100)),
    "late_mlp": Entry("main.py", [*LATE, "--pose_model", "mlp"]),
    "late_mlp_losses": Entry("main.py", [*LATE, "--pose_model", "mlp", *LOSSES]),
    "late_stgcnpp": Entry("main.py", [*LATE, *GRAPH]),
    "late_stgcnpp_losses": Entry("main.py", [*LATE, *GRAPH, *LOSSES]),
}
# The second against the first.
PAIRS = (
    ("late_mlp", "late_stgcnpp"),
    ("late_mlp_losses", "late_stgcnpp_losses"),
    ("late_mlp", "late_mlp_losses"),
    ("late_stgcnpp", "late_stgcnpp_losses"),
    ("rgb", "late_stgcnpp_losses"),
    ("early", "late_stgcnpp_losses"),
    ("pose_stgcnpp", "late_stgcnpp_losses"),
)
Scores = dict[int, ClipScores]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then print the tables of each data set."""
    args = parse(argv)
    if SYNTHETIC in args.data:
        say(tables("built-in data set", run_synthetic(args), {}))
    if NAME in args.data:
        say(tables("GMDCSA-24, leave one subject out", *run_gmdcsa24(args)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Late fusion with graph networks, compared.")
    parser.add_argument(
        "--data", nargs="+", choices=(SYNTHETIC, NAME), default=[SYNTHETIC], help="data sets"
    )
    parser.add_argument("--work", type=Path, required=True, help="frames, lists and runs go here")
    parser.add_argument("--source", type=Path, help=f"of {NAME}: clips.csv, videos/, keypoints/")
    parser.add_argument(
        "--only", nargs="+", choices=ENTRIES, default=list(ENTRIES), help="what to run"
    )
    parser.add_argument("--seeds", nargs="+", type=natural, default=[0, 1, 2], help="one run each")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time, a thread each")
    parser.add_argument("--epochs", type=positive, help="instead of the entry's own")
    parser.add_argument(
        "--more", type=shlex.split, default=[], help='options of all trainings, as in --more="-b 4"'
    )
    args = parser.parse_args(argv)
    if NAME in args.data and args.source is None:
        parser.error(f"--data {NAME} needs --source: the folder with clips.csv and videos/")
    for name in ("data", "only", "seeds"):
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    return args


def options_of(entry: Entry, args: argparse.Namespace, place: int) -> list[str]:
    """Return the options of a training; `place` is 0 for the built-in data set, 1 for the other."""
    epochs = args.epochs or entry.epochs[place]
    lr = (entry.lr, 0.001)[place]
    length = ["--epochs", str(epochs), "--lr", str(lr), "--workers", "0", "--threads", "1"]
    return [*entry.options, *RECIPE, *length, *args.more]


def run_synthetic(args: argparse.Namespace) -> dict[str, Scores]:
    """Train and test on the built-in data set: entry -> seed -> scores."""
    test = ("--batch-size", "8", "--workers", "0", "--threads", "1")
    runs = []
    for name in args.only:
        entry = ENTRIES[name]
        line = (entry.script, "--dataset", SYNTHETIC, *options_of(entry, args, 0))
        for seed in args.seeds:
            folder = args.work / SYNTHETIC / name / f"seed{seed}"
            runs.append(Run(name, seed, folder, line, test, "best.pth.tar"))
    run_all(runs, args.jobs, say)
    return {
        name: {r.seed: s for r in runs if r.entry == name and (s := r.scores()) is not None}
        for name in args.only
    }


def run_gmdcsa24(
    args: argparse.Namespace,
) -> tuple[dict[str, Scores], dict[str, tuple[float, float]]]:
    """Leave each subject out: entry -> seed -> scores, entry -> interval over the subjects."""
    prepare(args.source, args.work)
    scores, intervals = {}, {}
    for name in args.only:
        entry, output = ENTRIES[name], args.work / "cross_validation" / f"late_fusion_{name}"
        options = options_of(entry, args, 1)
        epochs = options[options.index("--epochs") + 1]
        # The last epoch is tested, so validation selects nothing, and no clips are kept for it.
        line = [
            entry.script,
            "--dataset",
            NAME,
            "--dataset_path",
            str(args.work),
            "--fold_val",
            "0",
        ]
        folds = ["--folds", "groups", "--seeds", *map(str, args.seeds), "--last"]
        how = ["--output", str(output), "--jobs", str(args.jobs), "--test=--batch-size 8"]
        say(f"{name}: {len(args.seeds)} seeds, each subject left out")
        command = ["tools/cross_validate.py", *folds, *how, "--", *line, *options]
        run_program([*command, "--eval-freq", epochs], output.with_suffix(".log"))
        found = json.loads((output / "cross_validation.json").read_text(encoding="utf-8"))
        intervals[name] = tuple(found["interval"])
        scores[name] = {s: read_scores(output / f"scores_seed{s}.npz") for s in args.seeds}
    return scores, intervals


# ---------------------------------------------------------------- tables


def tables(
    title: str, found: Mapping[str, Scores], grouped: Mapping[str, tuple[float, float]]
) -> str:
    """Return the results as Markdown: every entry, and the pairs clip by clip."""
    head = ["entry", "right, by seed", "accuracy", "95 % interval, Wilson"]
    head += ["over subjects and seeds"] if grouped else []
    lines = [f"\n### {title}\n", _cells(head), _cells(["---"] * len(head))]
    for name, by_seed in found.items():
        ends = [_interval(grouped[name])] if grouped else []
        lines.append(_cells([name, *row(by_seed), *ends]))
    first = next(iter(next(iter(found.values())).values()))
    majority = np.bincount(first.labels).max() / len(first)
    lines.append(
        f"\nmajority class: {majority:.1%}; Wilson's interval is of the mean over the seeds, each "
        "clip counted once"
    )
    return "\n".join([*lines, *pair_table(found)])


def row(by_seed: Scores) -> list[str]:
    """Return what is right by seed, the mean accuracy, and its interval."""
    counts = [int((s.scores.argmax(1) == s.labels).sum()) for s in by_seed.values()]
    total = len(next(iter(by_seed.values())))
    mean = float(np.mean(counts))
    shown = ", ".join(map(str, counts))
    return [f"{shown} of {total}", f"{mean / total:.1%}", _interval(wilson_interval(mean, total))]


def pair_table(found: Mapping[str, Scores]) -> list[str]:
    """Compare the pairs whose both sides are there."""
    pairs = [
        (first, second, compare_folded(found[first], found[second], names=(first, second)))
        for first, second in PAIRS
        if first in found and second in found
    ]
    if not pairs:
        return []
    adjusted = holm([result.p_value for *_, result in pairs])
    lines = [
        _cells(["second against first", "difference", "95 % interval, paired", "p", "p, Holm"]),
        _cells(["---"] * 5),
    ]
    for (first, second, result), p in zip(pairs, adjusted, strict=True):
        lines.append(_cells([f"{second} against {first}", *_compared(result), f"{p:.3g}"]))
    unit = f"{pairs[0][2].units} {pairs[0][2].unit}s"
    return ["", *lines, f"\nintervals and p over {unit}; how seeds vary is not in them"]


def _compared(result: FoldedComparison) -> list[str]:
    ends = "none"
    if result.interval is not None:
        ends = f"{100 * result.interval[0]:+.1f} to {100 * result.interval[1]:+.1f}"
    return [f"{100 * result.difference:+.1f} points", ends, f"{result.p_value:.3g}"]


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.1%} to {ends[1]:.1%}"


def _cells(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


if __name__ == "__main__":
    run_script(main)
