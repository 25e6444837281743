"""Leave-one-subject-out on GMDCSA-24: falls and daily life, real video, estimated keypoints.

python benchmarks/gmdcsa24.py --source <folder with clips.csv, videos/, keypoints/> --work <folder>

Data: Alam et al. 2024, doi 10.5281/zenodo.12921216. `clips.csv` names clip, subject and
label_fall; `keypoints/<clip>.npz` holds keypoints (N, 17, 3), height and width. Prepared by the
programs that a user has. For each subject a model is trained on the others and tested on that one;
the last epoch is tested, so nothing is selected. The clips of all subjects are pooled per seed.
Given again, it goes on where it stopped.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.types import OneLineParser, natural, positive  # noqa: E402

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
    """Prepare the data once, cross-validate every mode, print the table."""
    args = parse(argv)
    prepare(args.source, args.work)
    say(table({mode: run_mode(mode, args) for mode in args.modes}))


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


def prepare(source: Path, work: Path) -> None:
    """Write frames with short side 120, and keypoints; subjects are the groups."""
    data = ["--dataset", NAME, "--dataset_path", str(work)]
    table = ["--table", str(source / "clips.csv"), "--source", str(source / "videos")]
    columns = ["--columns", "video=clip", "label=label_fall", "group=subject"]
    frames = ["--extract_frames", "--short_side", "120", "--no_check"]
    call(["process_dataset_videos.py", *table, *columns, *data, *frames])
    poses = ["--format", "npz", "--source", str(source / "keypoints"), "--no_check"]
    call(["tools/import_poses.py", *poses, *data])


def run_mode(mode: str, args: argparse.Namespace) -> dict:
    """Leave each subject out with each seed; return what `cross_validation.json` says."""
    script, *options = MODES[mode]
    epochs = str(args.epochs if script == "main.py" else args.pose_epochs)
    output = args.work / "cross_validation" / mode
    folds = ["--folds", "groups", "--seeds", *map(str, args.seeds), "--last"]
    # The last epoch is tested, so validation selects nothing, and no clips are kept for it.
    line = [script, "--dataset", NAME, "--dataset_path", str(args.work), "--fold_val", "0"]
    length = ["--epochs", epochs, "--eval-freq", epochs, "--workers", "0", "--threads", "1"]
    test = ["--output", str(output), "--test=--batch-size 8"]
    call(["tools/cross_validate.py", *folds, *test, "--", *line, *options, *RECIPE, *length])
    return json.loads((output / "cross_validation.json").read_text(encoding="utf-8"))


def call(command: list[str]) -> None:
    """Run one of our scripts; show its output only when it fails."""
    done = subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:]], capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(f"{shlex.join(command)} failed: {done.stderr.strip()[-500:]}")


def table(found: dict[str, dict]) -> str:
    """Return the Markdown table, one row a mode."""
    lines = ["| mode | right, by seed | accuracy | 95 % interval |", "|---|---|---|---|"]
    for mode, value in found.items():
        low, high = value["interval"]
        right = ", ".join(str(seed["correct"]) for seed in value["seeds"])
        lines.append(
            f"| {mode} | {right} of {value['clips']} | {value['accuracy']:.1%} | "
            f"{low:.1%} to {high:.1%} |"
        )
    majority = max(value["majority"] for value in found.values())
    return "\n".join(
        [*lines, f"\nmajority class: {majority:.1%}; intervals over subjects and seeds"]
    )


if __name__ == "__main__":
    run_script(main)
