"""The parser of `tools/export.py`."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from options.groups import add_input_options, add_model_options, add_synthetic_options
from options.types import OneLineParser, named_options, positive, positive_real
from opts import FIXED_OPTIONS, check_model

FORMATS = ("safetensors", "onnx")


def export_parser() -> OneLineParser:
    """Build the parser of `tools/export.py`."""
    parser = OneLineParser(
        prog="tools/export.py",
        description="Make a model folder of a checkpoint: safetensors, ONNX, configuration, card.",
        epilog="example: python tools/export.py --weights <run>/best.pth.tar --output model",
    )
    group = parser.add_argument_group("what and where")
    group.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="checkpoint, a model folder, or the name of published weights",
    )
    group.add_argument(
        "--output", type=Path, help="the model folder; default: model/ beside the checkpoint"
    )
    group.add_argument(
        "--overwrite", action="store_true", help="replace a model folder that is there"
    )
    group.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="files to write"
    )
    _add_check_options(parser)
    _add_card_options(parser)
    _add_hub_options(parser)
    add_synthetic_options(parser)
    foreign = "of weights that do not say what they are, as published ones"
    parser.add_argument_group(f"the two groups below: {foreign}").add_argument(
        "--class_names", nargs="+", help="names in order of the label"
    )
    add_input_options(parser)
    add_model_options(parser, "none", pose_only=True)
    return parser


def _add_check_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("check against PyTorch")
    group.add_argument(
        "--dataset", help="whose clips are scored; default: the data set of the checkpoint"
    )
    group.add_argument("--dataset_path", type=Path, help="folder that holds <dataset>/")
    group.add_argument("--clips", type=positive, default=32, help="clips to score")
    group.add_argument(
        "--tolerance",
        type=positive_real,
        default=1e-4,
        help="largest difference of a logit that is accepted",
    )
    group.add_argument(
        "--threads", type=positive, help="of the computing; default: half of the cores"
    )


def _add_card_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model card")
    group.add_argument("--name", help="of the model; default: the name of its run")
    group.add_argument(
        "--license", help="of the weights, an identifier of Hugging Face, as in apache-2.0"
    )
    group.add_argument(
        "--report", type=Path, help="test report to quote; default: test_report.json of the run"
    )


def _add_hub_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("hub")
    group.add_argument(
        "--push_to_hub",
        metavar="USER/NAME",
        help="send the folder to Hugging Face; the token is that of HF_TOKEN or 'hf auth login'",
    )
    group.add_argument("--private", action="store_true", help="a repository that is not public")


def parse_export_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `tools/export.py`; exits with 2 on a wrong option.

    `args.given` holds the names of the options on the command line.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = export_parser()
    args = parser.parse_args(argv)
    args.given = named_options(export_parser(), argv)
    if args.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", args.license):
        parser.error(
            f"--license {args.license!r} is no identifier as the hub has them: as in apache-2.0, "
            "cc-by-4.0 or other"
        )
    if args.push_to_hub is not None and not _is_repo(args.push_to_hub):
        parser.error(f"--push_to_hub {args.push_to_hub!r} should be USER/NAME")
    if args.dataset not in (None, "synthetic") and args.dataset_path is None:
        parser.error(f"--dataset {args.dataset} needs --dataset_path: the folder that holds it")
    if args.private and args.push_to_hub is None:
        parser.error("--private needs --push_to_hub")
    if args.name is not None and not args.name.strip():
        parser.error("--name is empty: leave it out, or give one")
    return args


def _is_repo(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", text, re.A) is not None


# Of files that tell their network, and of those that do not.
_UNSAID = {
    True: "its classes: give --class_names, in order of the label",
    False: "its classes and its network: give --class_names and the options of the network, such "
    "as --arch resnet18 --gsf --num_segments 16",
}


def describe_foreign(
    args: argparse.Namespace, told: Mapping[str, Any] = MappingProxyType({})
) -> argparse.Namespace:
    """Return the options of a network that only the command line knows, or its file in part.

    Args:
        args: what `parse_export_args` returned.
        told: options that the file of a published network tells.

    Exits with 2 where they contradict each other or the classes are not named.
    """
    parser = export_parser()
    for name in FIXED_OPTIONS:
        if name in told and name in args.given and getattr(args, name) != told[name]:
            parser.error(
                f"{args.weights} holds a network with {name} {told[name]}, the command line says "
                f"{getattr(args, name)}: drop the option, or name another checkpoint"
            )
    unsaid = {name: value for name, value in told.items() if name not in args.given}
    args = argparse.Namespace(**{**vars(args), **unsaid})
    if not args.class_names:
        parser.error(f"{args.weights} does not say {_UNSAID[bool(told)]}")
    described = argparse.Namespace(**{**vars(args), "pose_weights": None, "dataset": None})
    check_model(parser, described)
    return described


def refuse_contradictions(
    args: argparse.Namespace, stored: argparse.Namespace, classes: Sequence[str]
) -> None:
    """Refuse options on the command line that the model itself says otherwise; exits with 2.

    Args:
        args: what `parse_export_args` returned.
        stored: the options of the model.
        classes: of the model.
    """
    parser = export_parser()
    for name, value in vars(stored).items():
        if name in args.given and getattr(args, name) != value:
            kind = "a network with" if name in FIXED_OPTIONS else "a model with"
            parser.error(
                f"{args.weights} holds {kind} {name} {value}, the command line says "
                f"{getattr(args, name)}: drop the option, or name another checkpoint"
            )
    if "class_names" in args.given and list(classes) != args.class_names:
        parser.error(
            f"{args.weights} has the classes {list(classes[:5])}, --class_names says others: "
            "drop the option"
        )
