"""Find keypoints in the frames of a data set: writes poses/<clip>.npz for each listed clip.

python preprocess_pose.py                            # dataset/FRFS, yolo11x-pose.pt
python preprocess_pose.py --dataset FRFS --dataset_path <folder> --pose_weights <file>

Clips that have keypoints are left alone, so an interrupted run continues.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

import data_opts
from datasets.catalogue import DatasetRow, find_row
from datasets.clip_table import load_table
from datasets.frames import FrameSource
from datasets.poses import find_poses, save_poses
from datasets.records import ClipRecord, load_records
from datasets.sources import find_frames
from errors import InputError, run_script
from machine import choose_device, prepare_cpu
from models.estimators import UltralyticsPose
from reports import StepLine, say


def main(argv: Sequence[str] | None = None) -> int:
    """Estimate what is missing; return how many clips were done."""
    args = data_opts.parse_pose_args(argv)
    row = find_row(args.dataset)
    root = args.dataset_path / row.folder
    todo = list(missing_clips(root, row, listed_clips(root)))
    if not todo:
        say(f"{root}: every listed clip has keypoints, nothing to do")
        return 0
    prepare_cpu(args.threads)
    device = choose_device(args.device, args.gpus)
    estimator = UltralyticsPose(
        args.pose_weights, args.conf, device=str(device), batch_size=args.pose_batch
    )
    found, frames = 0, 0
    with StepLine("clips", every=10) as line:
        for number, (name, images) in enumerate(todo, start=1):
            size = images.size()
            parts = images.blocks(size, args.pose_batch)
            keypoints = np.concatenate([estimator(part) for part in parts])
            path = root / "poses" / f"{name}.npz"
            save_poses(path, keypoints, size, f"ultralytics {args.pose_weights.name}")
            found += int((keypoints[..., 2] > 0).any(axis=(1, 2)).sum())
            frames += len(keypoints)
            line(number, len(todo))
    say(
        f"{len(todo)} clips written to {root / 'poses'}; somebody in {found / frames:.1%} of frames"
    )
    return len(todo)


def listed_clips(root: Path) -> list[ClipRecord]:
    """Return the clips of all lists of a data set, each once."""
    lists = sorted(root.glob("*_videofolder.txt"))
    if not lists:
        raise InputError(
            f"{root} has no clip list (*_videofolder.txt): prepare the data set first, or name its "
            "place with --dataset and --dataset_path"
        )
    return list({record.name: record for path in lists for record in load_records(path)}.values())


def missing_clips(
    root: Path, row: DatasetRow, records: Iterable[ClipRecord]
) -> Iterator[tuple[str, FrameSource]]:
    """Yield name and frames of the clips that have no keypoints yet."""
    table = load_table(root)
    for record in records:
        images = find_frames(root, record, table)
        if find_poses(root, record, images, row.layout) is None:
            yield record.name, images


if __name__ == "__main__":
    run_script(main)
