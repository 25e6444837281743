"""Leave-one-subject-out on GMDCSA-24: falls and daily life, real video, estimated keypoints.

python benchmarks/gmdcsa24.py --source <folder with clips.csv, videos/, keypoints/> --work <folder>

Data: Alam et al. 2024, doi 10.5281/zenodo.12921216. `clips.csv` names clip, subject and
label_fall; `keypoints/<clip>.npz` holds keypoints (N, 17, 3), height and width. For each subject a
model is trained on the others and tested on that one; the last epoch is tested, so nothing is
selected. The clips of all subjects are pooled per seed.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets.records import ClipRecord, write_list  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from option_groups import OneLineParser, natural, positive  # noqa: E402
from reports import say, wilson_interval, write_json  # noqa: E402

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
SHORT_SIDE = 120


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data once, run every mode, seed and subject, print the table."""
    args = parse(argv)
    clips = read_clips(args.source / "clips.csv")
    root = args.work / "gmdcsa24"
    for clip in clips:
        prepare(clip["clip"], args.source, root)
    results = [
        run_mode(mode, seed, clips, root, args) for mode in args.modes for seed in args.seeds
    ]
    write_json(args.work / "gmdcsa24.json", {"results": results})
    say(table(results, clips))


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


def read_clips(path: Path) -> list[dict[str, str]]:
    """Read the rows of the clip table."""
    if not path.is_file():
        raise InputError(f"{path} is missing: --source must hold clips.csv, videos/ and keypoints/")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def prepare(clip: str, source: Path, root: Path) -> None:
    """Write a clip's frames, with short side 120, and its keypoints, unless they are there."""
    frames, poses = root / "frames" / clip, root / "poses" / f"{clip}.npz"
    if frames.is_dir() and poses.is_file():
        return
    partial = frames.with_name(f".{clip}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    poses.parent.mkdir(parents=True, exist_ok=True)
    with np.load(source / "keypoints" / f"{clip}.npz") as saved:
        keypoints, size = saved["keypoints"], (int(saved["height"]), int(saved["width"]))
    scale = SHORT_SIDE / min(size)
    height, width = round(size[0] * scale), round(size[1] * scale)
    for number, frame in enumerate(read_video(source / "videos" / f"{clip}.mp4"), start=1):
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(partial / f"{number:05d}.jpg"), small)
    moved = keypoints * np.array([width / size[1], height / size[0], 1], np.float32)
    np.savez(poses, keypoints=moved[:, None].astype(np.float32), height=height, width=width)
    partial.rename(frames)


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) of a video, BGR."""
    capture = cv2.VideoCapture(str(path))
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield frame


def write_fold(subject: str, clips: list[dict[str, str]], root: Path) -> tuple[Path, Path]:
    """Write the training and the test list of a fold."""
    paths = []
    for split, inside in (("train", False), ("test", True)):
        rows = [
            ClipRecord(
                row["clip"],
                len(list((root / "frames" / row["clip"]).iterdir())),
                int(row["label_fall"]),
            )
            for row in clips
            if (row["subject"] == subject) == inside
        ]
        paths.append(root / f"subject_{subject}_{split}.txt")
        write_list(paths[-1], rows)
    return paths[0], paths[1]


# ---------------------------------------------------------------- runs


def run_mode(
    mode: str, seed: int, clips: list[dict[str, str]], root: Path, args: argparse.Namespace
) -> dict:
    """Train and test every fold; return the correct clips, pooled."""
    start, correct = time.monotonic(), 0
    subjects = sorted({row["subject"] for row in clips})
    for subject in subjects:
        correct += run_fold(mode, seed, subject, clips, root, args)
    seconds = round(time.monotonic() - start)
    say(f"{mode}, seed {seed}: {correct} of {len(clips)}, {seconds} s")
    return {"mode": mode, "seed": seed, "correct": correct, "seconds": seconds}


def run_fold(
    mode: str,
    seed: int,
    subject: str,
    clips: list[dict[str, str]],
    root: Path,
    args: argparse.Namespace,
) -> int:
    """Train without a subject, test on it; return the correct clips."""
    train_list, test_list = write_fold(subject, clips, root)
    script, *options = MODES[mode]
    epochs = args.epochs if script == "main.py" else args.pose_epochs
    name = f"{mode}_{seed}_{subject}"
    runs = args.work / "runs"
    data = ["--dataset", "gmdcsa24", "--dataset_path", str(args.work)]
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
    last = max(runs.glob(f"experiments/gmdcsa24/*/*_{name}/last.pth.tar"))
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


def table(results: list[dict], clips: list[dict[str, str]]) -> str:
    """Return the Markdown table, one row a mode and seed."""
    falls = sum(int(row["label_fall"]) for row in clips)
    total = len(clips)
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
