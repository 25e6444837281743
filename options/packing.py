"""The parser of `tools/pack_dataset.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.types import OneLineParser, natural, positive, seed_number

_QUALITIES = {"keep": (1, 100), "jpeg": (1, 100), "video": (0, 51)}


def parse_pack_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/pack_dataset.py`; exits with 2 on a wrong one."""
    parser = OneLineParser(
        prog="pack_dataset.py",
        description="Pack a prepared data set into tar files (WebDataset shards) with an index, "
        "to train from with --shards.",
        epilog="example: python tools/pack_dataset.py --dataset FRFS --dataset_path dataset "
        "--output shards/FRFS",
    )
    parser.add_argument("--dataset", help="name of the data set, a folder below --dataset_path")
    parser.add_argument("--dataset_path", type=Path, help="folder that holds <dataset>/")
    parser.add_argument("--output", type=Path, help="folder of the shards, made if need be")
    parser.add_argument(
        "--verify",
        type=Path,
        metavar="SHARDS",
        help="pack nothing: compare every file of a packed data set with its index",
    )
    parser.add_argument(
        "--splits", nargs="+", choices=("train", "val", "test"), help="lists to pack; default: all"
    )
    parser.add_argument(
        "--frames",
        choices=("keep", "jpeg", "video"),
        default="keep",
        help="keep: images and videos as they are (a part of a video is cut out without a "
        "change); jpeg: every frame as JPEG; video: every clip as H.264",
    )
    parser.add_argument(
        "--shard_mb", type=positive, default=256, help="size of a shard, 10^6 bytes, about"
    )
    parser.add_argument(
        "--short_side", type=positive, help="resize larger frames to this short side, pixels"
    )
    parser.add_argument(
        "--quality",
        type=natural,
        help="of what is encoded: JPEG 1 to 100, default 95; with --frames video the CRF of H.264, "
        "0 to 51, default 18, less is better",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="of the order of the training clips"
    )
    parser.add_argument("-j", "--workers", type=natural, default=2, help="processes that pack")
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.verify is not None:
        if args.dataset or args.dataset_path or args.output:
            parser.error("--verify packs nothing: drop --dataset, --dataset_path and --output")
        return
    if not (args.dataset and args.dataset_path and args.output):
        parser.error("--dataset, --dataset_path and --output are needed")
    if any(sign in args.dataset for sign in "/\\\0") or args.dataset in (".", ".."):
        parser.error(f"--dataset {args.dataset!r} must be a plain name, no path")
    _check_quality(parser, args)
    chosen = args.splits or ()
    args.splits = tuple(split for split in ("train", "val", "test") if split in chosen)


def _check_quality(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.quality is None:
        return
    least, most = _QUALITIES[args.frames]
    if not least <= args.quality <= most:
        parser.error(
            f"--quality {args.quality} with --frames {args.frames} must be {least} to {most}"
        )
    if args.frames == "keep" and args.short_side is None:
        parser.error("--quality needs --short_side, --frames jpeg or --frames video")
