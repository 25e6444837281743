"""The demonstration: make the built-in data set, train, test, and say where the results are.

python tools/demo.py                                  # early fusion, about 3 minutes on 2 cores
python tools/demo.py --modes early rgb late pose      # the README's table
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from machine import num_cores  # noqa: E402
from options.types import OneLineParser, natural, positive  # noqa: E402

BACKBONE = shlex.split(
    "--arch resnet18 --width 32 --gsf --input_size 64 --field_of_view frame --crop_scales 1 0.875 "
    "--pretrained none"
)
RECIPE = shlex.split("--optimizer adamw --batch-size 8 --iter_size 1 --warmup 1 --dropout 0.3")
# Script and options of each mode; pose-only epochs are cheap, so there are more of them.
MODES = {
    "rgb": ["main.py", *BACKBONE, *shlex.split("--epochs 20 --lr 0.001")],
    "early": ["main.py", "--early_fusion_poses", *BACKBONE, *shlex.split("--epochs 12 --lr 0.002")],
    "late": [
        "main.py",
        "--late_fusion_poses_attention",
        *BACKBONE,
        *shlex.split("--epochs 12 --lr 0.001"),
    ],
    "pose": ["main_only_pose.py", *shlex.split("--epochs 60 --lr 0.001")],
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run each mode as a user would and print one table."""
    args = parse(argv)
    rows = [run_mode(mode, args) for mode in args.modes]
    say("\n| mode | correct | accuracy | 95 % interval | seconds |\n|---|---|---|---|---|")
    for row in rows:
        say(row["line"])
    say(f"majority class {rows[0]['majority']:.1%}; reports: {args.output}")
    worst = min(rows, key=lambda row: row["accuracy"])
    if worst["accuracy"] < args.least:
        raise InputError(
            f"{worst['mode']} reached {worst['accuracy']:.1%}, --least asks for {args.least:.0%}"
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Train and test on the built-in data set.")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["early"], help="what to run")
    parser.add_argument("--output", type=Path, default=ROOT / "runs", help="where runs go")
    parser.add_argument("--seed", type=natural, default=0, help="of training")
    parser.add_argument(
        "--threads", type=positive, default=num_cores(), help="of training; loading takes little"
    )
    parser.add_argument("--least", type=float, default=0.0, help="fail below this accuracy, 0 to 1")
    parser.add_argument("--epochs", type=positive, help="instead of the mode's own")
    return parser.parse_args(argv)


def run_mode(mode: str, args: argparse.Namespace) -> dict:
    """Train and test one mode; return its accuracy and table row."""
    start = time.monotonic()
    script, *options = MODES[mode]
    if args.epochs is not None:
        options += ["--epochs", str(args.epochs)]
    name = f"demo_{mode}_{time.strftime('%H%M%S')}"
    shared = ["--workers", "0", "--threads", str(args.threads)]
    where = ["--experiment_path", str(args.output), "--experiment_name", name]
    call(
        [
            script,
            "--dataset",
            "synthetic",
            *options,
            *RECIPE,
            *shared,
            *where,
            "--seed",
            str(args.seed),
        ]
    )
    (weights,) = args.output.glob(f"experiments/synthetic/*/*_{name}/best.pth.tar")
    call(
        ["test_models.py", "--weights", str(weights), "--batch-size", "8", *shared, "--save_scores"]
    )
    seconds = time.monotonic() - start
    report = json.loads((weights.parent / "test_report.json").read_text())
    low, high = report["interval"]
    line = (
        f"| {mode} | {report['correct']} of {report['total']} | {report['accuracy']:.1%} | "
        f"{low:.1%} to {high:.1%} | {seconds:.0f} |"
    )
    return {
        "mode": mode,
        "accuracy": report["accuracy"],
        "majority": report["majority"],
        "line": line,
    }


def call(command: list[str]) -> None:
    """Show and run one of our scripts; its own error line stands for itself."""
    say(f"\n$ python {shlex.join(command)}")
    # Threads that wait without spinning: slower by a quarter on an idle machine, but not eight
    # times slower when something else runs on it.
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    script = [sys.executable, str(ROOT / command[0]), *command[1:]]
    result = subprocess.run(script, env=environment, check=False)
    if result.returncode:
        sys.exit(result.returncode)


if __name__ == "__main__":
    run_script(main)
