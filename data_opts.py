"""The parsers of the programs that prepare data; `opts.py` has those that train and test."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from option_groups import (
    OneLineParser,
    frame_size,
    natural,
    positive,
    positive_real,
    probability,
    seed_number,
)


def parse_frfs_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `process_dataset_FRFS.py`."""
    parser = OneLineParser(
        prog="process_dataset_FRFS.py",
        description="Turn the FR-FS download into frames and clip lists. Nothing of the download "
        "is renamed, changed or removed.",
        epilog="example: python process_dataset_FRFS.py --source ~/Downloads/FR-FS",
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="FRFS/ is written below it"
    )
    group.add_argument(
        "--source",
        type=Path,
        help="folder of the download, or one that holds it: Images/, Train.xls, Test.xls; "
        "default: FRFS/ below --dataset_path",
    )
    links = group.add_mutually_exclusive_group()
    links.add_argument(
        "--copy",
        dest="link",
        action="store_const",
        const="copy",
        default=argparse.SUPPRESS,
        help="copy the frames; else they are hard links, which take no space",
    )
    links.add_argument(
        "--symlink",
        dest="link",
        action="store_const",
        const="symlink",
        default=argparse.SUPPRESS,
        help="make symbolic links to the frames",
    )
    parser.set_defaults(link="hard")
    group.add_argument("--workers", type=positive, help="threads that decode; default: all cores")
    group = parser.add_argument_group("lists")
    group.add_argument(
        "--val_fraction",
        type=probability,
        help="share of each class of the training clips that becomes the validation list, at "
        "least one clip (default: 0.15)",
    )
    group.add_argument(
        "--seed", type=seed_number, default=0, help="of the choice of validation clips"
    )
    group.add_argument(
        "--published_protocol",
        action="store_true",
        help="val is the test list, as in the published evaluation: the epoch is then chosen on "
        "the test clips, and every report says so",
    )
    group.add_argument(
        "--class_names",
        nargs=2,
        metavar="NAME",
        help="what labels 0 and 1 mean, for reports; without, they are class 0 and class 1",
    )
    group = parser.add_argument_group("what is wrong with the download")
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at any finding; else damaged clips are named and left out",
    )
    group.add_argument(
        "--allow_overlap",
        action="store_true",
        help="accept the same frames in two lists (a result on them is no test)",
    )
    group.add_argument(
        "--no_check", action="store_true", help="do not check the data set and write its report"
    )
    args = parser.parse_args(argv)
    if args.published_protocol and args.val_fraction is not None:
        parser.error("--published_protocol has no validation clips of its own: no --val_fraction")
    if args.class_names and (len(set(args.class_names)) < 2 or not all(args.class_names)):
        parser.error("--class_names must be two different names")
    args.val_fraction = 0.15 if args.val_fraction is None else args.val_fraction
    return args


def parse_videos_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `process_dataset_videos.py`."""
    parser = OneLineParser(
        prog="process_dataset_videos.py",
        description="Turn a folder of videos, or a table that names and labels them, into a data "
        "set. No video is renamed, changed or removed.",
        epilog="example: python process_dataset_videos.py --source ~/Videos/jumps --dataset jumps "
        "(with one folder per class in jumps/)",
    )
    group = parser.add_argument_group("data")
    group.add_argument(
        "--source",
        type=Path,
        help="folder with a folder of videos for each class; with --table, the folder that the "
        "videos are named relative to (without: the folder of the table)",
    )
    group.add_argument(
        "--table",
        type=Path,
        help="CSV with columns video,label and, if wanted, split,group,start_seconds,end_seconds",
    )
    group.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="OURS=THEIRS",
        help="how the table calls its columns, as in label=fall group=athlete",
    )
    group.add_argument(
        "--class_names",
        nargs="+",
        metavar="NAME",
        help="classes in order of their number; needed for names when labels are numbers",
    )
    group.add_argument("--dataset", required=True, help="name of the data set: folder to write")
    group.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="<dataset>/ is written below it"
    )
    group.add_argument(
        "--workers", type=natural, help="processes; 0 works in this one; default: all cores"
    )
    _add_video_options(parser)
    group = parser.add_argument_group("lists")
    group.add_argument(
        "--val_fraction", type=probability, default=0.15, help="share of clips for validation"
    )
    group.add_argument(
        "--test_fraction", type=probability, help="share of clips for testing (default: 0.2)"
    )
    group.add_argument(
        "--folds",
        type=positive,
        help="cross validation: this many train, val and test lists; every clip is tested once",
    )
    group.add_argument("--seed", type=seed_number, default=0, help="of the choice of clips")
    group = parser.add_argument_group("what is wrong with the data")
    group.add_argument(
        "--strict",
        action="store_true",
        help="stop at any damaged clip; else these are named and left out",
    )
    group.add_argument(
        "--allow_overlap",
        action="store_true",
        help="accept a table whose splits share a group or a video (the result is then no test)",
    )
    group.add_argument(
        "--no_check", action="store_true", help="do not check the data set and write its report"
    )
    args = parser.parse_args(argv)
    _check_videos(parser, args)
    args.test_fraction = 0.2 if args.test_fraction is None else args.test_fraction
    return args


def _add_video_options(parser: argparse.ArgumentParser) -> None:
    """What becomes of the videos."""
    group = parser.add_argument_group("videos")
    links = group.add_mutually_exclusive_group()
    links.add_argument(
        "--copy",
        dest="link",
        action="store_const",
        const="copy",
        help="copy the videos; else they are hard links, which take no space",
    )
    links.add_argument(
        "--symlink",
        dest="link",
        action="store_const",
        const="symlink",
        help="make symbolic links to the videos",
    )
    links.add_argument(
        "--extract_frames",
        action="store_true",
        help="write every frame as a JPEG instead of decoding videos while training",
    )
    group.add_argument(
        "--short_side",
        type=positive,
        help="pixels of the short side of extracted frames; smaller ones keep their size "
        "(default: 256)",
    )
    group.add_argument(
        "--jpeg_quality", type=positive, help="of extracted frames, 1 to 100 (default: 95)"
    )
    group.add_argument(
        "--max_hours", type=positive_real, default=4.0, help="longer videos count as damaged"
    )


def _check_videos(parser: OneLineParser, args: argparse.Namespace) -> None:
    """Refuse what cannot be meant; what is not given gets its default."""
    if args.source is None and args.table is None:
        parser.error("name a folder of videos with --source, or a table of labels with --table")
    if args.columns and args.table is None:
        parser.error("--columns says what a --table calls its columns: give the table")
    if args.dataset in ("synthetic", ".", "..") or set(args.dataset) & set("/\\\0"):
        parser.error(f"--dataset {args.dataset!r} is no name for a new folder")
    if args.class_names and len(set(args.class_names)) < max(len(args.class_names), 2):
        parser.error("--class_names must be two or more different names")
    if (args.short_side or args.jpeg_quality) and not args.extract_frames:
        parser.error("--short_side and --jpeg_quality need --extract_frames")
    if args.jpeg_quality is not None and args.jpeg_quality > 100:
        parser.error("--jpeg_quality goes from 1 to 100")
    _check_fractions(parser, args)
    args.link = args.link or "hard"
    args.short_side = args.short_side or 256
    args.jpeg_quality = args.jpeg_quality or 95


def _check_fractions(parser: OneLineParser, args: argparse.Namespace) -> None:
    if args.folds is not None and args.folds < 2:
        parser.error("--folds must be at least 2")
    if args.folds is not None and args.test_fraction is not None:
        parser.error("--folds test every clip once: no --test_fraction")
    test = 0.2 if args.test_fraction is None else args.test_fraction
    if min(args.val_fraction, test) == 0 or args.val_fraction + test >= 1:
        parser.error("--val_fraction and --test_fraction must be above 0, and together below 1")


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
        choices=("ultralytics", "torchvision", "rtmlib"),
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
        type=positive,
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
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute"
    )
    group.add_argument(
        "--gpus",
        type=natural,
        nargs="+",
        help="index of the CUDA device to use; under torchrun one per process",
    )
    group.add_argument(
        "--threads",
        type=positive,
        help="of a computing process; default: half of the cores, shared by the processes",
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


IMPORT_FORMATS = ("alphapose", "openpose", "npy", "npz", "pyskl")


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


def parse_check_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/check_dataset.py`."""
    parser = OneLineParser(
        prog="check_dataset.py",
        description="Check a prepared data set and write a report of what is wrong with it.",
        epilog="example: python tools/check_dataset.py --dataset FRFS --dataset_path dataset",
    )
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default="FRFS", help="folder below --dataset_path")
    group.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="folder that holds <dataset>/"
    )
    group = parser.add_argument_group("what is checked")
    group.add_argument(
        "--no_decode",
        action="store_true",
        help="do not decode every frame, only read what files say of themselves: faster, and "
        "damaged pictures are missed",
    )
    group.add_argument(
        "--verify",
        action="store_true",
        help="compare size and SHA-256 of every file with manifest.csv",
    )
    group.add_argument(
        "--update_manifest",
        action="store_true",
        help="write manifest.csv again, after the data set was changed on purpose; it is written "
        "without asking only where there is none",
    )
    group = parser.add_argument_group("how")
    group.add_argument(
        "--strict", action="store_true", help="exit with 2 on any finding, also on a warning"
    )
    group.add_argument(
        "--workers", type=positive, help="processes; default: as many as there are cores"
    )
    group.add_argument(
        "--output",
        type=Path,
        help="folder of everything that is written, manifest.csv too; default: check/ in the data "
        "set's folder, and manifest.csv beside its lists",
    )
    group.add_argument("--no_report", action="store_true", help="do not draw report.html")
    return parser.parse_args(argv)
