"""The parsers of the programs that prepare data; `opts.py` has those that train and test."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from option_groups import OneLineParser, add_device_options, natural, positive, probability


def parse_frfs_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `process_dataset_FRFS.py`."""
    parser = OneLineParser(
        prog="process_dataset_FRFS.py",
        description="Turn the FR-FS download into frames and clip lists.",
        epilog="example: python process_dataset_FRFS.py --dataset_path dataset",
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="folder that holds FRFS/"
    )
    group.add_argument(
        "--val_fraction",
        type=probability,
        default=0.15,
        help="share of each class of the training clips that becomes the validation list",
    )
    group.add_argument("--seed", type=natural, default=0, help="of the choice of validation clips")
    return parser.parse_args(argv)


def parse_pose_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `preprocess_pose.py`."""
    parser = OneLineParser(
        prog="preprocess_pose.py",
        description="Find keypoints in the frames of a data set; writes poses/<clip>.npz.",
        epilog="example: python preprocess_pose.py --dataset FRFS --dataset_path dataset",
    )
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default="FRFS", help="folder below --dataset_path")
    group.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="folder that holds <dataset>/"
    )
    group = parser.add_argument_group("pose estimation")
    group.add_argument(
        "--pose_weights", type=Path, default=Path("yolo11x-pose.pt"), help="Ultralytics weights"
    )
    group.add_argument(
        "--conf", type=probability, default=0.8, help="least confidence of a detected person"
    )
    group.add_argument("--pose_batch", type=positive, default=16, help="frames per forward pass")
    add_device_options(parser)
    return parser.parse_args(argv)
