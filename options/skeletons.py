"""The options of the skeleton zoo: its models, what they see, how their clips are changed."""

import argparse
import json
from pathlib import Path
from typing import Any

from errors import InputError
from files import read_regular
from ops.conversion import describe_layout, find_layout, layout_from, layout_value
from ops.skeleton import LAYOUTS, SkeletonLayout
from options.types import LIMITS, probability, real_up_to, share_of_one, up_to

# Encoders that look at one frame at a time.
FRAME_MODELS = ("mlp", "conv1d", "gcn")
LAYOUT_NAMES = ", ".join(LAYOUTS)
GCN_MODELS = ("stgcn", "agcn", "aagcn", "stgcnpp", "ctrgcn")
ZOO_MODELS = (*GCN_MODELS, "posec3d")
POSE_MODELS = (*FRAME_MODELS, *ZOO_MODELS)
STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
VOLUME_STREAMS = ("joint", "limb")
NORMALIZATIONS = ("clip", "frame", "none", "image", "image_keep", "auto", "spine")
# Those by which keypoints are used in pixels: the size of the frames must be known.
PIXEL_NORMALIZATIONS = ("none", "image", "image_keep")
PEOPLE_ORDERS = ("given", "joints", "area")
PEOPLE_PADDINGS = ("zero", "loop")
SAMPLINGS = ("uniform", "spread", "pad_zero", "pad_loop")
# Skeletons that `--rgbpose_conv3d` sees for each frame.
RGBPOSE_RATIO = 4
# Side of its volumes by that of its frames.
RGBPOSE_SHARE = 1 / 4
# Of a multiple of this, a quarter and 8/7 are whole numbers.
RGBPOSE_GRID = 28
_MOST_LAYOUT_BYTES = 2**20

# What a checkpoint records of a model of the zoo, beside the options of every model.
ZOO_MODEL_OPTIONS = (
    "pose_streams",
    "num_people",
    "pose_pooling",
    "skeleton_layout",
    "tcn_dropout",
    "posec3d_stages",
    "rgbpose_streams",
    "stream_losses",
)
ZOO_FIXED_OPTIONS = (
    "pose_streams",
    "num_people",
    "skeleton_layout",
    "posec3d_stages",
    "rgbpose_streams",
)
ZOO_INPUT_OPTIONS = (
    "pose_frames",
    "pose_sampling",
    "pose_size",
    "people_order",
    "people_padding",
)
# What models had of these that were trained before there were any.
EARLIER_DEFAULTS: dict[str, Any] = {
    "pose_streams": ["joint"],
    "num_people": 1,
    "pose_pooling": "mean",
    "skeleton_layout": None,
    "tcn_dropout": 0.0,
    "posec3d_stages": None,
    "rgbpose_streams": "both",
    "stream_losses": 0.0,
    "pose_frames": 100,
    "pose_sampling": "uniform",
    "pose_size": 56,
    "people_order": "given",
    "people_padding": "zero",
}


def add_zoo_model_options(group: argparse._ArgumentGroup) -> None:
    """Which skeleton model, and of which shape."""
    group.add_argument(
        "--pose_model",
        choices=POSE_MODELS,
        help="pose stream; default mlp in late fusion, conv1d in main_only_pose.py. mlp, conv1d "
        "and gcn see single frames, the others a whole clip",
    )
    group.add_argument(
        "--pose_streams",
        nargs="+",
        choices=(*STREAMS, "limb"),
        help="what skeleton models see: joints, bones, their motions, together as channels of one "
        "network; posec3d: volumes of joints or of limbs; default joint",
    )
    group.add_argument(
        "--num_people",
        type=up_to(LIMITS["num_people"]),
        help="most people of a clip that skeleton models see, the first ones; default: graph "
        "networks 2, heatmap volumes 10, as published, models of single frames 1",
    )
    group.add_argument(
        "--pose_pooling",
        choices=("mean", "masked"),
        default="mean",
        help="of skeleton models: over all people and frames, as published, or over those that "
        "were detected",
    )
    group.add_argument(
        "--skeleton_layout",
        type=skeleton_layout,
        metavar="LAYOUT",
        help=f"joint layout of the keypoints: {LAYOUT_NAMES}, or a .json file that describes it; "
        "default: that of the data",
    )
    group.add_argument(
        "--tcn_dropout",
        type=probability,
        default=0.0,
        help="of stgcn: dropout of its temporal convolutions, 0.5 in the first publication",
    )
    group.add_argument(
        "--posec3d_stages",
        type=up_to(LIMITS["posec3d_stages"]),
        nargs=3,
        metavar="BLOCKS",
        help="blocks of the stages of posec3d; default 4 6 3, as published for NTU RGB+D and "
        "FineGYM; 3 4 6 for Kinetics-400, UCF101 and HMDB51",
    )


def add_zoo_input_options(group: argparse._ArgumentGroup) -> None:
    """What skeleton models see of a clip."""
    group.add_argument(
        "--pose_normalize",
        choices=NORMALIZATIONS,
        help="frame of reference of keypoints: clip (centre on the median hips, scale by the torso "
        "of the clip), frame (the same per frame, for models of single frames), none (pixels of "
        "the crop, and all that heatmap volumes take); for graph networks also image (-1 to 1 over "
        "the image, as PYSKL), image_keep (the same, undetected joints too, as MMAction2; in 3-D "
        "both are spine), auto (over the box of all joints), spine (3-D: turned to the spine of "
        "the first frame). Default: clip, image for graph networks, none for volumes",
    )
    group.add_argument(
        "--pose_frames",
        type=up_to(LIMITS["pose_frames"]),
        help="frames that whole-clip skeleton models see; default: graph networks 100, posec3d 48, "
        "--rgbpose_conv3d 4 for each of --num_segments",
    )
    group.add_argument(
        "--pose_sampling",
        choices=SAMPLINGS,
        help="which frames these are: uniform (as published; short clips wrap around), spread (in "
        "order, short clips stand still), pad_zero, pad_loop (the first ones). Default: uniform; "
        "spread in late fusions, whose segments of RGB then lie in equal parts of it",
    )
    group.add_argument(
        "--pose_size",
        type=up_to(LIMITS["pose_size"]),
        default=56,
        help="side of the volumes of posec3d in training, pixels; tests use 8/7 of it, to a "
        "multiple of 4",
    )
    group.add_argument(
        "--people_order",
        choices=PEOPLE_ORDERS,
        default="given",
        help="which people of a clip come first, of whom --num_people are seen: given (as in "
        "the file, as published), joints (of whom most joints were detected), area (the largest)",
    )
    group.add_argument(
        "--people_padding",
        choices=PEOPLE_PADDINGS,
        default="zero",
        help="what graph networks see in places left over: zero (nobody), loop (the same again)",
    )


def add_zoo_augmentation_options(group: argparse._ArgumentGroup) -> None:
    """Random changes to the skeletons that whole-clip models see."""
    group.add_argument(
        "--pose_flip",
        type=probability,
        help="mirror skeletons alone with this probability; default 0, posec3d 0.5. Beside RGB "
        "they follow the mirror of the frames",
    )
    group.add_argument(
        "--pose_rotate",
        type=real_up_to(180),
        default=0.0,
        help="turn by up to this, 0 to 180 degrees",
    )
    group.add_argument(
        "--pose_scale", type=probability, default=0.0, help="stretch x and y by up to this share"
    )
    group.add_argument(
        "--pose_shear", type=probability, default=0.0, help="shear by up to this share"
    )
    group.add_argument(
        "--pose_jitter",
        type=probability,
        default=0.0,
        help="move each joint by noise of this share of the body",
    )
    group.add_argument(
        "--pose_drop",
        type=probability,
        default=0.0,
        help="take joints of a whole clip for undetected with this probability",
    )
    group.add_argument(
        "--pose_crop",
        type=share_of_one,
        default=1.0,
        help="show a random part of the clip of at least this share, with --pose_sampling uniform",
    )


def add_rgbpose_options(parser: argparse.ArgumentParser) -> None:
    """How the two streams of RGBPose-Conv3D are kept from leaning on each other in training."""
    group = parser.add_argument_group("training of --rgbpose_conv3d")
    group.add_argument(
        "--rgbpose_detach",
        nargs="+",
        choices=("rgb", "pose"),
        default=[],
        help="streams whose gradients do not reach the other one",
    )
    group.add_argument(
        "--rgbpose_drop_path",
        type=probability,
        nargs=2,
        metavar=("RGB", "POSE"),
        default=[0.0, 0.0],
        help="probability that a stream hears nothing of the other in a batch",
    )


def skeleton_layout(text: str) -> str | dict[str, Any]:
    """Read the name of a layout, or the JSON file that describes one."""
    try:
        if text.lower().endswith(".json"):
            content = json.loads(read_regular(Path(text), _MOST_LAYOUT_BYTES))
            if not isinstance(content, dict):
                raise ValueError("is no JSON object")
            return describe_layout(layout_from(content))
        return find_layout(text).name
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def layout_of(value: "str | dict[str, Any] | None") -> SkeletonLayout | None:
    """Return the layout that `--skeleton_layout` or a checkpoint names; None for none.

    Raises:
        InputError: it is none.
    """
    if value is None:
        return None
    try:
        return find_layout(value) if isinstance(value, str) else layout_from(value)
    except ValueError as error:
        raise InputError(f"the joint layout of --skeleton_layout: {error}") from None


def with_layout(args: argparse.Namespace, layout: SkeletonLayout) -> argparse.Namespace:
    """Return the options with the joint layout that the data turned out to have."""
    return argparse.Namespace(**{**vars(args), "skeleton_layout": layout_value(layout)})


def sees_whole_clips(args: argparse.Namespace) -> bool:
    """Say whether the model takes skeletons of a whole clip, not of single frames."""
    return args.fusion == "rgbpose" or (has_pose_stream(args) and args.pose_model in ZOO_MODELS)


def draws_volumes(args: argparse.Namespace) -> bool:
    """Say whether the model takes heatmap volumes."""
    return args.fusion == "rgbpose" or (has_pose_stream(args) and args.pose_model == "posec3d")


def needs_frames(args: argparse.Namespace) -> bool:
    """Say whether the model sees RGB."""
    is_pose_path = args.fusion == "rgbpose" and args.rgbpose_streams == "pose"
    return args.fusion != "pose" and not is_pose_path


def has_pose_stream(args: argparse.Namespace) -> bool:
    """Say whether the model has an encoder of skeletons."""
    return args.fusion in ("pose", "late", "late_fast", "late_attention")
