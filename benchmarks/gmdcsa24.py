"""Leave-one-subject-out on GMDCSA-24: falls and daily life, real video, estimated keypoints.

python benchmarks/gmdcsa24.py --source <folder with clips.csv, videos/, keypoints/> --work <folder>

Data: Alam et al. 2024, doi 10.5281/zenodo.12921216. `clips.csv` names clip, subject and
label_fall; `keypoints/<clip>.npz` holds keypoints (N, 17, 3), height and width. Prepared by the
programs that a user has. For each subject a model is trained on the others and tested on that one;
the last epoch is tested, so nothing is selected. The clips of all subjects are pooled per seed.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from datasets.clip_table import load_table  # noqa: E402
from datasets.records import load_records, write_list  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from files import write_json  # noqa: E402
from option_types import OneLineParser, natural, positive  # noqa: E402
from results.intervals import wilson_interval  # noqa: E402

BACKBONE = shlex.split(
    "--arch resnet18 --width 32 --gsf --input_size 64 --field_of_view frame --crop_scales 1 0.875 "
    "--pretrained none"
)
RECIPE = shlex.split(
    "--optimizer adamw --lr 0.001 --batch-size 8 --iter_size 1 --warmup 1 --dropout 0.3"
)
MODES = {
    "rgb": ["main.py", *BACKBONE],
    "early": ["main.py", "--early_fusion_poses", *BACKBONE],
    "early_masked": ["main.py", "--early_fusion_poses", "--mask_background", *BACKBONE],
    "late_attention": ["main.py", "--late_fusion_poses_attention", *BACKBONE],
    "late_fast": ["main.py", "--late_fusion_poses_fast", *BACKBONE],
    "pose": ["main_only_pose.py"],
    "pose_pixels": ["main_only_pose.py", "--pose_normalize", "none"],
}
NAME = "gmdcsa24"


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data once, run every mode, seed and subject, print the table."""
    args = parse(argv)
    folds = prepare(args.source, args.work)
    results = [run_mode(mode, seed, folds, args) for mode in args.modes for seed in args.seeds]
    write_json(args.work / f"{NAME}.json", {"results": results})
    say(table(results, folds))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Leave one subject out on GMDCSA-24.")
    parser.add_argument("--source", type=Path, required=True, help="clips.csv, videos/, keypoints/")
    parser.add_argument("--work", type=Path, required=True, help="frames, lists and runs go here")
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=list(MODES), help="what to run"
    )
    parser.add_argument("--seeds", nargs="+", type=natural, default=[0, 1, 2], help="one run each")
    parser.add_argument("--epochs", type=positive, default=20, help="of modes that see RGB")
    parser.add_argument("--pose_epochs", type=positive, default=100, help="of pose alone")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- data


def prepare(source: Path, work: Path) -> list[Path]:
    """Write frames with short side 120, keypoints and one fold a subject; return the folds."""
    root, data = work / NAME, ["--dataset", NAME, "--dataset_path", str(work)]
    table = ["--table", str(source / "clips.csv"), "--source", str(source / "videos")]
    columns = ["--columns", "video=clip", "label=label_fall", "group=subject"]
    frames = ["--extract_frames", "--short_side", "120", "--folds", "4", "--no_check"]
    call(["process_dataset_videos.py", *table, *columns, *data, *frames])
    poses = ["--format", "npz", "--source", str(source / "keypoints"), "--no_check"]
    call(["tools/import_poses.py", *poses, *data])
    folds = sorted((root / "folds").iterdir())
    for fold in folds:
        # Nothing is selected, so no clips are needed to select by.
        parts = [load_records(fold / f"{split}_videofolder.txt") for split in ("train", "val")]
        write_list(fold / "rest.txt", [record for part in parts for record in part])
        rows = load_table(root)
        names = {r.name for r in load_records(fold / "test_videofolder.txt")}
        if len({rows[name].group for name in names}) != 1:
            raise InputError(f"{fold} tests more than one subject: the folds are not by subject")
    return folds


# ---------------------------------------------------------------- runs


def run_mode(mode: str, seed: int, folds: Sequence[Path], args: argparse.Namespace) -> dict:
    """Train and test every fold; return the correct clips, pooled."""
    start = time.monotonic()
    correct = sum(run_fold(mode, seed, fold, args) for fold in folds)
    seconds = round(time.monotonic() - start)
    say(f"{mode}, seed {seed}: {correct} correct, {seconds} s")
    return {"mode": mode, "seed": seed, "correct": correct, "seconds": seconds}


def run_fold(mode: str, seed: int, fold: Path, args: argparse.Namespace) -> int:
    """Train without a subject, test on it; return the correct clips."""
    train_list, test_list = fold / "rest.txt", fold / "test_videofolder.txt"
    script, *options = MODES[mode]
    epochs = args.epochs if script == "main.py" else args.pose_epochs
    name = f"{mode}_{seed}_{fold.name}"
    runs = args.work / "runs"
    data = ["--dataset", NAME, "--dataset_path", str(args.work)]
    # The last epoch is tested, so validation selects nothing: the training list serves.
    lists = ["--train_list", str(train_list), "--val_list", str(train_list), "--allow_overlap"]
    length = ["--epochs", str(epochs), "--eval-freq", str(epochs), "--seed", str(seed)]
    where = [
        "--experiment_path",
        str(runs),
        "--experiment_name",
        name,
        "--workers",
        "0",
        "--threads",
        "1",
    ]
    call([script, *data, *lists, *options, *RECIPE, *length, *where])
    last = max(runs.glob(f"experiments/{NAME}/*/*_{name}/last.pth.tar"))
    test = ["--test_list", str(test_list), "--batch-size", "8", "--workers", "0"]
    call(["test_models.py", "--weights", str(last), *test, "--allow_overlap"])
    return int(json.loads((last.parent / "test_report.json").read_text())["correct"])


def call(command: list[str]) -> None:
    """Run one of our scripts; show its output only when it fails."""
    done = subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:]], capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"{shlex.join(command)} failed: {done.stderr.strip()[-500:]}")


def table(results: list[dict], folds: Sequence[Path]) -> str:
    """Return the Markdown table, one row a mode and seed."""
    records = [r for fold in folds for r in load_records(fold / "test_videofolder.txt")]
    falls, total = sum(record.label for record in records), len(records)
    lines = ["| mode | seed | correct | accuracy | 95 % interval | seconds |", "|---|" + "---|" * 5]
    for row in results:
        low, high = wilson_interval(row["correct"], total)
        lines.append(
            f"| {row['mode']} | {row['seed']} | {row['correct']} of {total} | "
            f"{row['correct'] / total:.1%} | {low:.1%} to {high:.1%} | {row['seconds']} |"
        )
    lines.append(f"\nmajority class: {max(falls, total - falls)} of {total}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
