"""The parsers of the programs that make clip lists and check data sets."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.types import OneLineParser, natural, positive, positive_real, probability, seed_number


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
    _add_fault_options(
        parser,
        "what is wrong with the download",
        strict="stop at any finding; else damaged clips are named and left out",
        overlap="accept the same frames in two lists (a result on them is no test)",
    )
    args = parser.parse_args(argv)
    if args.published_protocol and args.val_fraction is not None:
        parser.error("--published_protocol has no validation clips of its own: no --val_fraction")
    if args.class_names and (len(set(args.class_names)) < 2 or not all(args.class_names)):
        parser.error("--class_names must be two different names")
    args.val_fraction = 0.15 if args.val_fraction is None else args.val_fraction
    return args


def _add_fault_options(
    parser: argparse.ArgumentParser, title: str, strict: str, overlap: str
) -> None:
    """What happens when something is wrong; `strict` and `overlap` explain the options."""
    group = parser.add_argument_group(title)
    group.add_argument("--strict", action="store_true", help=strict)
    group.add_argument("--allow_overlap", action="store_true", help=overlap)
    group.add_argument(
        "--no_check", action="store_true", help="do not check the data set and write its report"
    )


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
    _add_fault_options(
        parser,
        "what is wrong with the data",
        strict="stop at any damaged clip; else these are named and left out",
        overlap="accept a table whose splits share a group or a video (the result is then no test)",
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
