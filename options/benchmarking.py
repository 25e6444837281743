"""The parser of `tools/benchmark.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.groups import ARCHS, MOST_THREADS
from options.skeletons import FRAME_MODELS, ZOO_MODELS
from options.types import OneLineParser, frame_size, natural, positive, up_to

WHAT = ("module", "network", "loader", "training", "testing", "zoo")
# Those that need no minutes to compile come first.
FORMULATIONS = ("plain", "published", "eager", "fused", "compiled")
MODELS = (*ZOO_MODELS, *FRAME_MODELS, "rgbpose")
_SIZES = ((1280, 720), (640, 360))
_LEAST_SIDE, _MOST_SIDE = 32, 8192  # pixels


def benchmark_parser() -> OneLineParser:
    """Build the parser of `tools/benchmark.py`."""
    parser = OneLineParser(
        prog="tools/benchmark.py",
        description="Measure how fast this machine is: GSF, whole networks, loaders, training "
        "steps, tests, skeleton models; against the published way to do it, in turns and in one "
        "run.",
        epilog="example: python tools/benchmark.py --what module --threads 1 2",
    )
    group = parser.add_argument_group("what")
    group.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT), help="parts")
    group.add_argument(
        "--variants",
        nargs="+",
        choices=FORMULATIONS,
        default=list(FORMULATIONS[:-1]),
        help="formulations of GSF; compiled adds torch.compile, which takes minutes",
    )
    group.add_argument(
        "--arch", nargs="+", choices=ARCHS, default=["resnet50", "resnet18"], help="backbones"
    )
    group.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), help="skeleton models"
    )
    group.add_argument("--input_size", type=positive, default=112, help="of networks, pixels")
    group.add_argument("--num_segments", type=positive, default=8, help="of networks, T")
    group.add_argument(
        "--sizes",
        type=frame_size,
        nargs="+",
        default=list(_SIZES),
        help="of the frames that loaders read, WIDTHxHEIGHT (default: 1280x720 640x360)",
    )
    _add_sweep(parser)
    _add_results(parser)
    return parser


def _add_sweep(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sweep: every combination is measured")
    group.add_argument(
        "--threads", type=up_to(MOST_THREADS), nargs="+", default=[1], help="of PyTorch"
    )
    group.add_argument(
        "--batch",
        type=positive,
        nargs="+",
        default=[],
        help="clips; default: 2 for the module, 1 for networks and steps, 16 for skeleton models, "
        "8 for PoseC3D, 1 for RGBPose-Conv3D",
    )
    group.add_argument(
        "--dtype",
        nargs="+",
        choices=("float32", "bfloat16", "float16"),
        default=["float32"],
        help="the two short ones compute under autocast",
    )
    group.add_argument(
        "--layout",
        nargs="+",
        choices=("contiguous", "channels_last"),
        default=["contiguous"],
        help="of frames and weights in memory",
    )
    group.add_argument(
        "--workers", type=natural, nargs="+", default=[0, 1, 2, 4], help="loader processes"
    )
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="of networks"
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how, and results")
    group.add_argument(
        "--repeats", type=positive, help="rounds that count; default 5, 2 with --quick"
    )
    group.add_argument(
        "--quick",
        action="store_true",
        help="small work: shows that all runs, and measures little",
    )
    group.add_argument(
        "--output",
        type=Path,
        default=Path("experiments/benchmark"),
        help="folder for benchmark.json, benchmark.md and benchmark.png",
    )
    group.add_argument(
        "--markdown", action="store_true", help="print the tables as Markdown, to be pasted"
    )
    group.add_argument(
        "--check",
        action="store_true",
        help="compare with what the project has promised; exit with 1 when a promise is missed",
    )


def parse_benchmark_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/benchmark.py`; exits with 2 on a wrong option.

    A value that is given twice counts once.
    """
    parser = benchmark_parser()
    args = parser.parse_args(argv)
    for width, height in args.sizes:
        # Videos store colours of two by two pixels.
        if any(side % 2 or not _LEAST_SIDE <= side <= _MOST_SIDE for side in (width, height)):
            parser.error(
                f"--sizes {width}x{height}: width and height must be even numbers from "
                f"{_LEAST_SIDE} to {_MOST_SIDE}"
            )
    lists = ("what", "variants", "arch", "models", "sizes", "threads", "batch", "dtype", "layout")
    for name in lists:
        setattr(args, name, list(dict.fromkeys(getattr(args, name))))
    args.workers = sorted(set(args.workers))
    if args.repeats is None:
        args.repeats = 2 if args.quick else 5
    return args
