"""The parser of `test_models.py`, and what a test takes over from its checkpoint."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from options.annotations import add_annotation_options
from options.caching import add_cache_options
from options.groups import (
    MOST_SAMPLINGS,
    add_data_options,
    add_device_options,
    add_input_options,
    add_model_options,
)
from options.scaling import add_waiting_options
from options.shards import add_shard_options, is_folder_of_shards
from options.skeletons import draws_volumes, needs_frames, sees_whole_clips
from options.types import OneLineParser, named_options, natural, non_negative_real, positive, up_to
from opts import (
    FIXED_OPTIONS,
    FOLD_OPTIONS,
    INPUT_OPTIONS,
    MODEL_OPTIONS,
    PICKLE_OPTIONS,
    POSE_OPTIONS,
    SOURCE_OPTIONS,
    check_fold,
    check_fold_options,
    check_model,
)


def parser_of_tests() -> OneLineParser:
    """Build the parser of `test_models.py`."""
    parser = OneLineParser(
        prog="test_models.py",
        description="Test a checkpoint; the architecture is read from it unless options say it.",
        epilog="example: python test_models.py --weights <run>/best.pth.tar --num_clips 2 "
        "--test_crops 10 --save_scores",
    )
    add_data_options(parser)
    add_annotation_options(parser)
    add_cache_options(parser)
    add_shard_options(parser)
    add_input_options(parser)
    add_model_options(parser, "none", pose_only=True)
    add_test_options(parser)
    add_device_options(parser)
    add_waiting_options(parser.add_argument_group("waiting"))
    return parser


def add_test_options(parser: argparse.ArgumentParser) -> None:
    """How to test."""
    group = parser.add_argument_group("test")
    models = group.add_mutually_exclusive_group(required=True)
    models.add_argument(
        "--weights",
        type=Path,
        nargs="+",
        help="checkpoints to test, ours, of PYSKL or MMAction2, or names of published ones; "
        "several make an ensemble",
    )
    models.add_argument(
        "--scores", type=Path, nargs="+", help="score files of earlier tests, .npz or .csv, instead"
    )
    group.add_argument("--split", choices=("test", "val"), default="test", help="list to test on")
    group.add_argument(
        "--num_clips",
        type=up_to(MOST_SAMPLINGS),
        default=1,
        help="samplings of each clip; published results of skeletons have 10",
    )
    group.add_argument(
        "--test_crops",
        type=int,
        choices=(1, 3, 5, 10),
        default=1,
        help="crops of each frame; skeletons of whole clips alone have none",
    )
    group.add_argument(
        "-b", "--batch-size", type=positive, default=1, help="clips per forward pass"
    )
    group.add_argument(
        "--double_flip",
        action="store_true",
        help="of heatmap volumes: score the mirrored volume, too, as published",
    )
    group.add_argument("--softmax", action="store_true", help="average probabilities, not logits")
    group.add_argument("--max_num", type=positive, help="test only the first clips of the list")
    group.add_argument(
        "--save_scores",
        nargs="?",
        const="npz",
        choices=("npz", "csv", "both"),
        help="write per-clip scores to scores_<split>.npz, as a table, or both",
    )
    group.add_argument(
        "--output", type=Path, help="folder of the report; default: the folder of --weights"
    )
    group.add_argument(
        "--report_clips",
        type=natural,
        default=8,
        help="clips of each kind (worst, most uncertain) that report.html shows; 0: no pictures",
    )
    group.add_argument("--no_report", action="store_true", help="write no report.html")
    _add_ensemble_options(parser)


def _add_ensemble_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several models, and the val list")
    weighting = group.add_mutually_exclusive_group()
    weighting.add_argument(
        "--ensemble_weights",
        type=non_negative_real,
        nargs="+",
        help="one number a model, in any proportion; default: equal",
    )
    weighting.add_argument(
        "--tune_on_val",
        action="store_true",
        help="take the weights of the least log loss on the val list",
    )
    group.add_argument(
        "--mean",
        choices=("probabilities", "logits"),
        default="probabilities",
        help="what an ensemble averages",
    )
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="divide logits by the temperature of the least log loss on the val list",
    )
    group.add_argument(
        "--val_scores",
        type=Path,
        nargs="+",
        help="with --scores: the same models on the val list, in the same order",
    )
    group.add_argument(
        "--compare",
        action="store_true",
        help="test the other models, and the ensemble, against the first, clip by clip",
    )


def parse_test_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `test_models.py`; exits with 2 on a wrong option.

    `args.given` holds the names of the options on the command line; `adopt_options` takes the
    others from the checkpoint, then checks the combination.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = parser_of_tests()
    args = parser.parse_args(argv)
    args.given = named_options(parser_of_tests(), argv)
    check_fold(parser, args)  # a list may replace one of a fold that the checkpoint names
    _check_several(parser, args)
    if args.scores and args.dataset is not None:
        check_model(parser, args)  # the data set that the pictures of the report come from
    return args


def _check_several(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options of ensembles and of the val list that do not fit together."""
    count = len(args.weights or args.scores)
    _check_each_once(parser, args.weights or args.scores)
    for name in ("ensemble_weights", "val_scores"):
        values = getattr(args, name)
        if values and len(values) != count:
            parser.error(f"--{name} has {len(values)} values for {count} models: give one for each")
    if count == 1 and (args.ensemble_weights or args.tune_on_val or args.compare):
        parser.error("--ensemble_weights, --tune_on_val and --compare need several models")
    if count > 1 and args.output is None:
        parser.error("several models need --output: the folder of their common report")
    if args.val_scores and not args.scores:
        parser.error("--val_scores goes with --scores: checkpoints score the val list themselves")
    needs_val = args.tune_on_val or args.calibrate
    if args.scores and needs_val != bool(args.val_scores):
        parser.error("--val_scores goes with --scores and --tune_on_val or --calibrate, both ways")
    if needs_val and args.split == "val":
        parser.error("--tune_on_val and --calibrate use the val list: a report on it says nothing")


def _check_each_once(parser: argparse.ArgumentParser, paths: Sequence[Path]) -> None:
    places = [path.resolve() for path in paths]
    twice = next((path for n, path in enumerate(paths) if places[n] in places[:n]), None)
    if twice is not None:
        parser.error(f"{twice} is given twice: name each model once (--ensemble_weights weighs it)")


def adopt_options(
    args: argparse.Namespace, stored: Mapping[str, Any], weights: Path | None = None
) -> argparse.Namespace:
    """Return the options to test a checkpoint with; their `weights` is that one path.

    Args:
        args: what `parse_test_args` returned.
        stored: the options that the checkpoint was trained with; empty for foreign ones.
        weights: the checkpoint; None is the first of `args.weights`.

    Exits with 2 when an option on the command line contradicts the network in the checkpoint,
    or the combination is wrong.
    """
    parser = parser_of_tests()
    weights = weights or args.weights[0]
    for name in FIXED_OPTIONS:
        if (
            name in args.given
            and name in stored
            and not _is_same(getattr(args, name), stored[name])
        ):
            parser.error(
                f"{weights} holds a network with {name} {stored[name]}, the command line "
                f"says {getattr(args, name)}: drop the option, or name another checkpoint"
            )
    adopted = argparse.Namespace(**{**vars(args), "weights": weights})
    kept = _of_other_clips(args, stored)
    if "fold" not in kept:
        _adopt_shards(adopted, stored)
    for name in (*MODEL_OPTIONS, *INPUT_OPTIONS, *POSE_OPTIONS, *SOURCE_OPTIONS):
        is_given = name in args.given and name != "skeleton_layout"  # a name says no dimensions
        if name in stored and not is_given and name not in kept:
            setattr(adopted, name, stored[name])
    _name_dataset(parser, adopted, weights)
    for place in ("dataset_path", "annotations", "keypoint_files"):
        text = getattr(adopted, place)
        setattr(adopted, place, Path(text) if isinstance(text, str) else text)
    is_alone = adopted.annotations is not None and adopted.dataset_path is None
    if not stored and is_alone and needs_frames(adopted):
        parser.error(
            f"{weights} does not say its network, and its tensors are of no skeleton network that "
            "is known: --annotations alone cannot test it"
        )
    check_fold_options(parser, adopted)
    check_model(parser, adopted)
    _check_views(parser, adopted)
    return adopted


def _is_same(given: object, stored: object) -> bool:
    """Say whether an option is what a checkpoint holds; a layout may be given by its name."""
    return given in (stored, stored.get("name") if isinstance(stored, dict) else stored)


def _of_other_clips(args: argparse.Namespace, stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is not taken over where the command line names other clips to test on."""
    was_pickle = stored.get("annotations") is not None
    if "annotations" in args.given:
        # They bring their own clips, in the name of the data set that they were trained with.
        return (*FOLD_OPTIONS, "keypoint_files" if was_pickle else "dataset")
    is_other = args.dataset not in (None, stored.get("dataset"))
    places = {"shards", "test_list", "val_list", "fold"}
    if stored.get("fusion") == "pose":  # beside a pickle it is where frames lie
        places.add("dataset_path")
    if was_pickle and (is_other or places & args.given):
        return (*FOLD_OPTIONS, *PICKLE_OPTIONS)
    return FOLD_OPTIONS if is_other else ()  # a fold is one of its data set


def _name_dataset(
    parser: argparse.ArgumentParser, adopted: argparse.Namespace, weights: Path
) -> None:
    """Name the data set after its pickle where neither options nor checkpoint name it."""
    if adopted.dataset is None and adopted.annotations is not None:
        adopted.dataset = Path(adopted.annotations).stem
    if adopted.dataset is None:
        parser.error(f"{weights} does not say its data set: add --dataset")


def _check_views(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse views of a clip that its network does not know."""
    if args.double_flip and (needs_frames(args) or not draws_volumes(args)):
        parser.error("--double_flip mirrors heatmap volumes, of skeletons alone: drop it")
    if args.test_crops > 1 and not needs_frames(args) and sees_whole_clips(args):
        parser.error("--test_crops are of frames: a skeleton model sees whole skeletons")
    if args.test_crops > 1 and args.fusion == "rgbpose":
        parser.error("--test_crops 1 is all that --rgbpose_conv3d sees: the crop around the people")


def _adopt_shards(adopted: argparse.Namespace, stored: Mapping[str, Any]) -> None:
    """Test on the shards that a checkpoint was trained from, if they lie in a folder.

    A checkpoint may come from anywhere: it never names a URL to open or a command to run. Where the
    command line says where the clips are, that is where they are.
    """
    place = stored.get("shards")
    is_said = {"shards", "dataset_path"} & adopted.given
    if not is_said and isinstance(place, str) and is_folder_of_shards(place):
        adopted.shards = place
