"""The options of shards, and what they may not be combined with."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.types import positive_real


def add_shard_options(parser: argparse.ArgumentParser) -> None:
    """Clips out of shards that tools/pack_dataset.py wrote."""
    group = parser.add_argument_group("shards (docs/SHARDS.md)")
    group.add_argument(
        "--shards",
        metavar="LOCATION",
        help="read the clips of --dataset from what tools/pack_dataset.py wrote: a folder, a URL, "
        "or with {} for the name of a file a template such as 'pipe:aws s3 cp s3://bucket/{} -'",
    )
    group.add_argument(
        "--shard_cache",
        type=Path,
        help="folder for shards that are fetched; default: gate-shift-pose/shards in the cache "
        "folder of the user",
    )
    group.add_argument(
        "--shard_cache_gb",
        type=positive_real,
        default=20.0,
        help="room for them, 10^9 bytes; the least recently used go first",
    )
    group.add_argument(
        "--shard_order",
        choices=("clips", "shards"),
        help="training order: over all clips, or shard by shard, eight at a time, so that each is "
        "needed once an epoch; default: clips for a folder, shards for all else",
    )


def check_shards(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Fill in what depends on other options, and refuse contradictions."""
    if not hasattr(args, "shards"):  # a program without these options
        return
    location = args.shards
    if location is None:
        _refuse(parser, args, ("shard_cache", "shard_order"), "needs --shards")
        args.shard_order = "clips"
        return
    if not location or "\0" in location:
        parser.error("--shards needs a folder or a URL")
    if getattr(args, "cache", "none") != "none":
        parser.error("--cache frames and --shards do not go together: drop one of the two")
    is_folder = is_folder_of_shards(location)
    if is_folder:
        args.shards = str(Path(location).resolve())
        _refuse(parser, args, ("shard_cache",), "is for fetched shards, --shards is a folder")
    if args.shard_order is None:
        args.shard_order = "clips" if is_folder else "shards"


def _refuse(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Sequence[str], reason: str
) -> None:
    for name in names:
        # Options are checked once more after a checkpoint has filled them in.
        if getattr(args, name) not in (None, "clips"):
            parser.error(f"--{name} {reason}")


def is_folder_of_shards(location: str) -> bool:
    """Say whether `--shards` names a folder, which is read where it lies."""
    return Path(location).is_dir()
