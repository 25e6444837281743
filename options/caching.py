"""The options of the frame cache, and what they may not be combined with."""

import argparse
from pathlib import Path

from options.types import positive


def add_cache_options(parser: argparse.ArgumentParser) -> None:
    """Frames that are kept decoded and resized."""
    group = parser.add_argument_group("frame cache")
    group.add_argument(
        "--cache",
        choices=("frames", "none"),
        default="none",
        help="frames: keep every frame of the lists decoded and resized in files that are mapped "
        "into memory, made once; all of it that fits stays in RAM",
    )
    group.add_argument(
        "--cache_dir",
        type=Path,
        help="folder of the files, such as one on a fast disk or in /dev/shm; default: "
        "gate-shift-pose/frames in the cache folder of the user",
    )
    group.add_argument(
        "--cache_short_side",
        type=positive,
        help="short side of stored frames, pixels; larger frames are resized, smaller ones are "
        "not; default: 8/7 of --input_size, 256 for 224, as evaluation crops",
    )


def check_cache(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of the cache without it, and with what needs frames at their full size."""
    is_cached = getattr(args, "cache", "none") == "frames"
    for name in ("cache_dir", "cache_short_side"):
        if not is_cached and getattr(args, name, None) is not None:
            parser.error(f"--{name} needs --cache frames")
    if is_cached and args.pose_weights is not None:
        parser.error(
            "--cache frames and --pose_weights do not go together, people are found best on whole "
            "frames: run preprocess_pose.py once and drop --pose_weights"
        )
