"""The parser of `tools/cross_validate.py`."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from options.types import OneLineParser, positive, seed_number


def parse_cross_validation_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options; the training line after '--' becomes `line`."""
    words = sys.argv[1:] if argv is None else list(argv)
    has_line = "--" in words
    cut = words.index("--") if has_line else len(words)
    parser = _build_parser()
    args = parser.parse_args(words[:cut])
    args.line = words[cut + 1 :]
    if args.compare:
        if has_line or args.folds:
            parser.error("--compare reads what is there: give it alone, or with --output")
        return args
    missing = [f"--{name}" for name in ("folds", "output") if getattr(args, name) is None]
    if missing:
        parser.error(f"needs {' and '.join(missing)}")
    if not has_line:
        parser.error("the training line is missing: put it after --, as in -- main.py --dataset X")
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds names a seed twice")
    return args


def _build_parser() -> OneLineParser:
    """Build the parser."""
    parser = OneLineParser(
        prog="cross_validate.py",
        usage="cross_validate.py --folds K|groups [--seeds N ...] --output DIR [options] -- "
        "main.py [training options]\n       cross_validate.py --compare DIR DIR ...",
        description="Train and test every fold with every seed; given again, it goes on where it "
        "stopped.",
        epilog="example: python tools/cross_validate.py --folds groups --seeds 0 1 2 --output cv "
        "-- main_only_pose.py --dataset jumps --dataset_path data --epochs 60",
    )
    parser.add_argument("--folds", type=_folds, help="how many, or 'groups': leave one group out")
    parser.add_argument(
        "--seeds", type=seed_number, nargs="+", default=[0], help="a training of each fold for each"
    )
    parser.add_argument("--output", type=Path, help="folder of the runs and of the report")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at a time")
    parser.add_argument(
        "--test",
        type=_shlex_words,
        default=[],
        help='options of test_models.py, as in --test="--num_clips 2 --test_crops 10"',
    )
    parser.add_argument(
        "--last",
        action="store_true",
        help="test the last epoch instead of the best on the val list: nothing is selected",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="compare cross-validations of the same clips: each with the first",
    )
    return parser


def _folds(text: str) -> str:
    """Read a number of folds, or 'groups'."""
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    if text != "groups" and not (is_number and int(text) >= 2):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 2, or 'groups'")
    return text if text == "groups" else str(int(text))


def _shlex_words(text: str) -> list[str]:
    """Split a line as a shell does."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
