"""Check data sets of 1,000 and 10,000 clips of tiny frames: how long it takes, and how much memory.

python benchmarks/check_scale.py --work <folder with 6 GB free> [--clips 1000 10000] [--frames 100]

Every frame is a JPEG of its own, 32 x 24 pixels; every clip has keypoints. Each check is a process
of its own; seconds on the clock and of processor time tell how busy the machine was. Memory is the
resident set of the process and its workers together, measured 5 times a second, and the most that
one of them ever had, as the kernel counts it: it is flat when 10 times the clips take hardly more.
The files are removed when done, unless --keep.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import StepLine, say  # noqa: E402
from datasets.poses import save_poses  # noqa: E402
from datasets.records import ClipRecord, write_list  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.types import OneLineParser, positive  # noqa: E402

SIZE = (32, 24)
SHARES = (0.7, 0.15, 0.15)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the data, check it, print a line for each number of clips."""
    args = parse(argv)
    for clips in args.clips:
        name = f"scale_{clips}"
        make_data_set(args.work / name, clips, args.frames)
        seconds, busy, together, largest = measure(args.work, name, args.workers)
        summary = json.loads((args.work / name / "check" / "summary.json").read_text())
        say(
            f"{clips} clips, {summary['frames']} frames: {seconds:.0f} s ({busy:.0f} s of "
            f"processor time), all processes together {together:.0f} MB, the largest "
            f"{largest:.0f} MB; findings {summary['findings']}"
        )
        if not args.keep:
            shutil.rmtree(args.work / name)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Time and memory of tools/check_dataset.py.")
    parser.add_argument("--work", type=Path, required=True, help="folder for the data")
    parser.add_argument("--clips", type=positive, nargs="+", default=[1000, 10000], help="each")
    parser.add_argument("--frames", type=positive, default=100, help="of a clip")
    parser.add_argument("--workers", type=positive, default=2, help="processes")
    parser.add_argument("--keep", action="store_true", help="do not remove the data")
    return parser.parse_args(argv)


def make_data_set(root: Path, clips: int, num_frames: int) -> None:
    """Write clips of random moving gratings, all different, with a walking stick figure."""
    if root.is_dir():
        return
    splits = np.repeat(("train", "val", "test"), [int(share * clips) for share in SHARES])
    lists: dict[str, list[ClipRecord]] = {"train": [], "val": [], "test": []}
    with StepLine("made, clips", every=1000) as line:
        for number, split in enumerate(splits):
            name = f"{split}_{number:05d}"
            make_clip(root, name, num_frames, np.random.default_rng(number))
            lists[str(split)].append(ClipRecord(name, num_frames, number % 2))
            line(number + 1, len(splits))
    for split, records in lists.items():
        write_list(root / f"{split}_videofolder.txt", records)


def make_clip(root: Path, name: str, num_frames: int, rng: np.random.Generator) -> None:
    """Write the frames and keypoints of one clip."""
    folder = root / "frames" / name
    folder.mkdir(parents=True)
    width, height = SIZE
    small = rng.integers(0, 256, (num_frames // 10 + 2, 4, 5, 3)).astype(np.float32)
    for frame in range(num_frames):
        before, share = divmod(frame / 10, 1)
        mixed = small[int(before)] * (1 - share) + small[int(before) + 1] * share
        picture = cv2.resize(mixed, SIZE, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        (folder / f"{frame + 1:05d}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    body = rng.uniform((0.2, 0.2), (0.8, 0.8), (17, 2)) * SIZE
    path = np.cumsum(rng.normal(0, 0.05, (num_frames, 1, 2)), axis=0)
    keypoints = np.ones((num_frames, 1, 17, 3), np.float32)
    keypoints[:, 0, :, :2] = np.clip(body + path, 0.1, (width - 0.1, height - 0.1))
    save_poses(root / "poses" / f"{name}.npz", keypoints, SIZE, "none")


def measure(dataset_path: Path, name: str, workers: int) -> tuple[float, float, float, float]:
    """Check a data set; return seconds, processor seconds, MB of all processes and the largest."""
    command = [
        *(sys.executable, str(ROOT / "tools" / "check_dataset.py"), "--dataset", name),
        *("--dataset_path", str(dataset_path), "--workers", str(workers), "--update_manifest"),
    ]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = used.ru_utime + used.ru_stime
    start, together = time.monotonic(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        together = max(together, sum(map(resident, family(process.pid))))
        time.sleep(0.2)
    if process.returncode:
        raise InputError(f"{' '.join(command)} ended with {process.returncode}: see above")
    seconds, used = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = used.ru_utime + used.ru_stime - before
    return seconds, busy, together, used.ru_maxrss / 1024


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it (Linux)."""
    found = [pid]
    for one in found:
        try:
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            found += [int(c) for task in tasks for c in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def resident(pid: int) -> float:
    """Return the resident set of a process in megabytes, 0 when it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    run_script(main)
