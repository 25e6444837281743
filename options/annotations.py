"""Options of training on annotation pickles, and the parsers of the programs around them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.skeletons import LAYOUT_NAMES, skeleton_layout
from options.types import OneLineParser, natural, positive, probability

SPLITS = ("train", "val", "test")
_PLACEHOLDERS = ("/", "\\", "\0")


def add_annotation_options(parser: argparse.ArgumentParser) -> None:
    """Clips out of an annotation pickle."""
    group = parser.add_argument_group("annotation pickles (PYSKL, MMAction2)")
    group.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE.pkl",
        help="clips, labels, keypoints and splits out of this file, instead of lists and poses/; "
        "--dataset then names the runs (default: the name of the file) and, beside RGB, the folder "
        "of the frames below --dataset_path",
    )
    for split, text in (
        ("train", "default train"),
        ("val", "default val; the name of the train split: validate on training clips"),
        ("test", "default test, or else the val split, if that is not the train split"),
    ):
        group.add_argument(f"--{split}_split", help=f"name of the {split} split in it; {text}")
    group.add_argument(
        "--keypoint_files",
        type=Path,
        metavar="FOLDER",
        help="pickles that hold the keypoints of a compressed file (Kinetics); default: the folder "
        "of --annotations",
    )
    group.add_argument(
        "--min_box_score",
        type=probability,
        default=0.0,
        help="leave people of a compressed file out whose box has a lower score; PYSKL trains with "
        "0.5",
    )
    group.add_argument(
        "--skip_broken",
        action="store_true",
        help="leave broken clips out, which are counted, instead of stopping",
    )


def parse_check_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/check_annotations.py`; exits with 2 on a wrong one."""
    parser = OneLineParser(
        prog="check_annotations.py",
        description="Name what is wrong with an annotation pickle of PYSKL or MMAction2, clip by "
        "clip; exits with 2 where there are errors. The pickle is read, never run.",
        epilog="example: python tools/check_annotations.py ntu60_hrnet.pkl",
    )
    parser.add_argument("file", type=Path, help="the annotation pickle")
    parser.add_argument(
        "--skeleton_layout",
        "--layout",
        type=skeleton_layout,
        metavar="LAYOUT",
        help=f"joint layout that it should have: {LAYOUT_NAMES}, or a .json file; default: the "
        "usual one of its number of joints",
    )
    parser.add_argument(
        "--num_classes", type=positive, help="labels must be below it; default: no bound"
    )
    parser.add_argument(
        "--keypoint_files",
        type=Path,
        help="folder of the pickles that hold the keypoints of a compressed file; default: the "
        "folder of the file",
    )
    parser.add_argument(
        "--shown", type=positive, default=10, help="lines for each kind of finding, at most"
    )
    parser.add_argument("--json", type=Path, help="write all findings and the summary there")
    parser.add_argument(
        "--cache",
        type=Path,
        help="keep the arrays of the file there; default: they are removed at the end",
    )
    return parser.parse_args(argv)


def parse_export_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/export_annotations.py`; exits with 2 on a wrong one."""
    parser = OneLineParser(
        prog="export_annotations.py",
        description="Write the keypoints and lists of a data set as an annotation pickle that "
        "PYSKL and MMAction2 read.",
        epilog="example: python tools/export_annotations.py --dataset FRFS --dataset_path dataset "
        "--output frfs.pkl",
    )
    parser.add_argument("--dataset", required=True, help="a folder below --dataset_path")
    parser.add_argument(
        "--dataset_path", type=Path, default=Path("dataset"), help="folder that holds <dataset>/"
    )
    parser.add_argument("--output", type=Path, required=True, help="the pickle, ending in .pkl")
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, help="lists to export; default: all that are there"
    )
    parser.add_argument(
        "--skeleton_layout",
        type=skeleton_layout,
        metavar="LAYOUT",
        help=f"joint layout of the keypoint files: {LAYOUT_NAMES}, or a .json file; default: that "
        "of the data set, coco17",
    )
    parser.add_argument(
        "--float16",
        action="store_true",
        help="half precision, as the published files: half a pixel off at most, of 2048",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --output")
    args = parser.parse_args(argv)
    if any(sign in args.dataset for sign in _PLACEHOLDERS) or args.dataset in (".", ".."):
        parser.error(f"--dataset {args.dataset!r} must be a plain name, no path")
    _check_output(parser, args)
    return args


def parse_convert_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/convert_annotations.py`; exits with 2 on a wrong one."""
    parser = OneLineParser(
        prog="convert_annotations.py",
        description="Write an annotation pickle with the joints of another layout.",
        epilog="example: python tools/convert_annotations.py own.pkl --skeleton_layout openpose25 "
        "--to coco17 --output own_coco17.pkl",
    )
    parser.add_argument("file", type=Path, help="the annotation pickle")
    parser.add_argument(
        "--to",
        type=skeleton_layout,
        metavar="LAYOUT",
        required=True,
        help=f"layout to write: {LAYOUT_NAMES}, or a .json file",
    )
    parser.add_argument(
        "--skeleton_layout",
        type=skeleton_layout,
        metavar="LAYOUT",
        help="layout of the file; default: the usual one of its number of joints",
    )
    parser.add_argument(
        "--keypoint_files",
        type=Path,
        help="folder of the pickles that hold the keypoints of a compressed file; default: the "
        "folder of the file",
    )
    parser.add_argument(
        "--skip_broken",
        action="store_true",
        help="leave broken clips out, which are counted; default: stop",
    )
    parser.add_argument("--output", type=Path, required=True, help="the pickle, ending in .pkl")
    parser.add_argument("--overwrite", action="store_true", help="replace --output")
    args = parser.parse_args(argv)
    _check_output(parser, args, args.file)
    return args


def parse_ntu_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/import_ntu.py`; exits with 2 on a wrong one."""
    parser = OneLineParser(
        prog="import_ntu.py",
        description="Make an annotation pickle with the published splits out of the .skeleton "
        "files of NTU RGB+D.",
        epilog="example: python tools/import_ntu.py --source nturgb+d_skeletons --output "
        "ntu60_3d.pkl",
    )
    parser.add_argument("--source", type=Path, required=True, help="folder of .skeleton files")
    parser.add_argument("--output", type=Path, required=True, help="the pickle, ending in .pkl")
    parser.add_argument(
        "--benchmark",
        choices=("ntu60", "ntu120"),
        default="ntu60",
        help="ntu60: actions 1 to 60, splits xsub and xview; ntu120: all, xsub and xset",
    )
    parser.add_argument(
        "--num_people", type=positive, default=2, help="people to keep, who moves most first"
    )
    parser.add_argument(
        "--skip_broken",
        action="store_true",
        help="leave out files that are broken, and name them; default: stop",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace --output")
    parser.add_argument(
        "-j", "--workers", type=natural, default=2, help="processes that read files"
    )
    args = parser.parse_args(argv)
    if args.num_people > 100:
        parser.error(f"--num_people {args.num_people}: at most 100")
    _check_output(parser, args)
    return args


def parse_jhmdb_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/import_jhmdb.py`; exits with 2 on a wrong one."""
    parser = OneLineParser(
        prog="import_jhmdb.py",
        description="Make an annotation pickle of JHMDB, with splits train and test.",
        epilog="example: python tools/import_jhmdb.py --positions joint_positions --splits splits "
        "--output jhmdb_split1.pkl",
    )
    parser.add_argument(
        "--positions", type=Path, help="the unpacked joint_positions.zip, all 21 classes"
    )
    parser.add_argument("--splits", type=Path, help="the unpacked splits.zip, beside --positions")
    parser.add_argument(
        "--split", type=int, choices=(1, 2, 3), help="which of its three splits; default 1"
    )
    parser.add_argument(
        "--ddnet",
        type=Path,
        nargs=2,
        metavar=("TRAIN", "TEST"),
        help="instead: GT_train_1.pkl and GT_test_1.pkl of DD-Net, 14 classes; their coordinates "
        "are in sizes of the person and are put around the middle of a frame of 2x2",
    )
    parser.add_argument("--output", type=Path, required=True, help="the pickle, ending in .pkl")
    parser.add_argument("--overwrite", action="store_true", help="replace --output")
    args = parser.parse_args(argv)
    if args.ddnet and args.split is not None:
        parser.error("--split is of --positions: the files of --ddnet are of one split")
    args.split = args.split or 1
    if bool(args.ddnet) == bool(args.positions) or bool(args.positions) != bool(args.splits):
        parser.error("give either --positions and --splits, or --ddnet with two files")
    _check_output(parser, args, *(args.ddnet or ()))
    return args


def _check_output(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *sources: Path
) -> None:
    if args.output.suffix != ".pkl":
        parser.error(f"--output {args.output} must end in .pkl: the toolboxes take no other file")
    if not args.output.exists():
        return
    for source in sources:  # whatever else is to be replaced, what is read is the only copy of it
        if source.exists() and source.samefile(args.output):
            parser.error(f"--output {args.output} is the file that is read: name another one")
    if not args.overwrite:
        parser.error(f"--output {args.output} is there already: give --overwrite to replace it")
