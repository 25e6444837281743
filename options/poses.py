"""The parsers of the programs that estimate and import keypoints."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.groups import MOST_POSE_SIZE, POSE_BACKENDS, add_machine_options
from options.types import OneLineParser, frame_size, positive, probability, seed_number, up_to

IMPORT_FORMATS = ("alphapose", "openpose", "npy", "npz", "pyskl")


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
    group.add_argument(
        "--overwrite", action="store_true", help="estimate clips that have keypoints anew"
    )
    group.add_argument(
        "--per_frame_npy",
        action="store_true",
        help="also write the published files, frames/<clip>/<frame>.npy with (17, 2) pixels",
    )
    group = parser.add_argument_group("pose estimation")
    group.add_argument(
        "--pose_backend",
        choices=POSE_BACKENDS,
        default="ultralytics",
        help="YOLO11 pose (AGPL-3.0), Keypoint R-CNN (BSD), or RTMPose and RTMO (Apache-2.0)",
    )
    group.add_argument(
        "--pose_weights",
        type=Path,
        help="weights file; default yolo11x-pose.pt, or torchvision's "
        "keypointrcnn_resnet50_fpn_coco-fc266e95.pth, in the working folder",
    )
    group.add_argument(
        "--detector_weights",
        type=Path,
        help="a YOLOX person detector (.onnx): rtmlib then takes --pose_weights as RTMPose, else "
        "as RTMO",
    )
    group.add_argument(
        "--download", action="store_true", help="fetch the weights if the file is not there"
    )
    group.add_argument(
        "--conf", type=probability, default=0.8, help="least confidence of a detected person"
    )
    group.add_argument(
        "--imgsz",
        type=up_to(MOST_POSE_SIZE),
        help="size of the network's input, pixels: longer side for ultralytics (default 640), "
        "shorter for torchvision (default 800)",
    )
    group.add_argument("--pose_batch", type=positive, default=16, help="frames per forward pass")
    group = parser.add_argument_group("who is kept")
    group.add_argument(
        "--max_people", type=positive, default=1, help="people per clip, main athlete first"
    )
    group.add_argument(
        "--main_athlete",
        choices=("auto", "track", "boxes", "confident"),
        default="auto",
        help="who it is: followed through the clip as the longest, largest, most central person "
        "(track), or who agrees with boxes/<clip>.npy (boxes); auto takes boxes where they are "
        "there; confident is the published choice, the most confident person of each frame",
    )
    group = parser.add_argument_group("check")
    group.add_argument(
        "--strict",
        action="store_true",
        help="exit with 2 when a clip is damaged or the check at the end finds anything",
    )
    group.add_argument(
        "--no_check", action="store_true", help="do not check the data set at the end"
    )
    add_machine_options(
        parser,
        "of a computing process; default: half of the cores, shared by the processes",
        "index of the CUDA device to use; under torchrun one per process",
    )
    args = parser.parse_args(argv)
    if args.max_people > 100:  # more than a keypoint file may hold
        parser.error(f"--max_people {args.max_people}: at most 100")
    return args


def parse_import_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/import_poses.py`."""
    parser = OneLineParser(
        prog="import_poses.py",
        description="Bring keypoints that you already have into a data set: writes "
        "poses/<clip>.npz for the clips of its lists.",
        epilog="example: python tools/import_poses.py --format alphapose --source results "
        "--dataset FRFS --dataset_path dataset",
    )
    group = parser.add_argument_group("keypoints")
    group.add_argument(
        "--format",
        required=True,
        choices=IMPORT_FORMATS,
        help="alphapose: results .json for one clip or for many; openpose: a tree of "
        "<clip>_000000000012_keypoints.json; npy: a tree of <clip>/<frame>.npy; npz: a tree of "
        "<clip>.npz; pyskl: a PYSKL or MMAction2 annotation pickle, which is never run",
    )
    group.add_argument("--source", type=Path, required=True, help="the file, or the folder")
    group.add_argument(
        "--frame_size",
        type=frame_size,
        help="WIDTHxHEIGHT that the pixels are of, where the source does not say it; default: "
        "that of the clip's frames",
    )
    group.add_argument(
        "--frame_offset",
        type=whole,
        help="what to add to the frame numbers of the source to get those of the frames on disk; "
        "found where it is unambiguous (alphapose, openpose, npy)",
    )
    group.add_argument(
        "--people",
        type=positive,
        help="people to keep, the main athlete first; default: 1, or all of an array (npz, pyskl)",
    )
    group.add_argument(
        "--link",
        action="store_true",
        help="link people over time here, whatever track numbers or slots the source gives",
    )
    group = parser.add_argument_group("data set")
    group.add_argument("--dataset", required=True, help="folder below --dataset_path")
    group.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="folder that holds <dataset>/"
    )
    group = parser.add_argument_group("lists of a data set of skeletons alone (pyskl)")
    group.add_argument(
        "--make_lists",
        action="store_true",
        help="also write the clip lists and clips.csv from the splits and labels of the pickle",
    )
    group.add_argument("--train_split", help="split that becomes the training list")
    group.add_argument(
        "--val_split",
        help="split that becomes the validation list; default: cut from the training split. "
        "The same as --test_split is the published protocol, and said so in the lists",
    )
    group.add_argument("--test_split", help="split that becomes the test list; default: none")
    group.add_argument(
        "--val_fraction",
        type=probability,
        default=0.15,
        help="share of the training split that becomes the validation list without --val_split",
    )
    group.add_argument(
        "--seed", type=seed_number, default=0, help="of the choice of validation clips"
    )
    group.add_argument("--class_names", nargs="+", help="names in order of the label, for reports")
    group = parser.add_argument_group("outcome")
    group.add_argument(
        "--overwrite", action="store_true", help="write keypoints and lists that are there again"
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop before anything is written when a clip has no usable keypoints, or keypoints "
        "no clip; default: leave them out, and name them",
    )
    group.add_argument("--dry_run", action="store_true", help="read and report, write nothing")
    group.add_argument(
        "--no_check", action="store_true", help="do not check the data set when done"
    )
    args = parser.parse_args(argv)
    _check_import(parser, args)
    return args


def _check_import(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Refuse options that would do nothing."""
    if args.format in ("npz", "pyskl") and args.frame_offset is not None:
        parser.error(f"--frame_offset is for frame numbers, {args.format} has arrays of all frames")
    if args.make_lists:
        if args.format != "pyskl":
            parser.error("--make_lists needs --format pyskl: other sources have no labels")
        if args.train_split is None:
            parser.error("--make_lists needs --train_split, the name of a split in the pickle")
        return
    for name in ("train_split", "val_split", "test_split", "class_names"):
        if getattr(args, name) is not None:
            parser.error(f"--{name} is for --make_lists")


def whole(text: str) -> int:
    """Read a whole number, which may be negative."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number")
    return int(text)
