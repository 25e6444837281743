"""The options themselves, in ruled groups; `opts.py` puts them together and checks them."""

import argparse
from pathlib import Path

from options.skeletons import (
    add_zoo_augmentation_options,
    add_zoo_input_options,
    add_zoo_model_options,
)
from options.types import (
    LIMITS,
    frame_size,
    natural,
    non_negative_real,
    positive,
    positive_real,
    probability,
    seed_number,
    share_of_one,
    up_to,
)

# More of them end in a lack of memory, not in speed.
MOST_THREADS = 1024
# Of a pose estimator's input, pixels: its memory grows with the square.
MOST_POSE_SIZE = 4096
# Samplings of a clip: further ones show the same frames again.
MOST_SAMPLINGS = 100
POSE_BACKENDS = ("ultralytics", "torchvision", "rtmlib")
ARCHS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)

# ---------------------------------------------------------------- option groups


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Which clips: data set, lists, the built-in data set."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        help="FRFS, diving48, something-v1, something-v2, kinetics400, meccano, synthetic "
        "(the built-in one), or any other name: a folder below --dataset_path in the same layout",
    )
    group.add_argument(
        "--dataset_path",
        type=Path,
        help="folder that holds <dataset>/; default for --dataset synthetic: the cache folder",
    )
    for split in ("train", "val", "test"):
        group.add_argument(
            f"--{split}_list",
            type=Path,
            help=f"lines 'folder num_frames label' instead of the data set's own {split} list",
        )
    _add_fold_options(group)
    group.add_argument("--class_names", nargs="+", help="names in order of the label, for reports")
    group.add_argument(
        "--missing_pose",
        choices=("error", "skip", "zero"),
        default="error",
        help="a clip without a keypoint file: stop, drop the clip, or treat every joint as "
        "undetected; the last two are counted and reported",
    )
    group.add_argument(
        "--pose_weights",
        type=Path,
        help="weights of a pose estimator that finds keypoints while loading, for clips without a "
        "keypoint file; only with --late_fusion_poses",
    )
    group.add_argument(
        "--pose_backend",
        choices=POSE_BACKENDS,
        default="ultralytics",
        help="what --pose_weights belong to, as in preprocess_pose.py",
    )
    group.add_argument(
        "--allow_overlap",
        action="store_true",
        help="accept the same clip in two of the lists (the result is then no test)",
    )
    group.add_argument(
        "-j", "--workers", type=natural, default=4, help="loader processes; 0 loads in this one"
    )
    add_synthetic_options(parser)


def _add_fold_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fold",
        type=_fold,
        metavar="k/K",
        help="test the k-th of K folds and train on the others: the lists in <data set>/folds/ "
        "if there are such, else all clips of the data set's lists are dealt anew by group; "
        "k/groups leaves one group out",
    )
    group.add_argument(
        "--fold_seed", type=seed_number, help="of folds that are dealt anew; default 0"
    )
    group.add_argument(
        "--fold_val",
        type=probability,
        help="share of all clips that folds dealt anew keep for validation, default 0.15; 0 of any "
        "folds: train on all that is not tested, and validate on the same clips",
    )


def _fold(text: str) -> str:
    """Read '2/5' or '2/groups'; return the one spelling."""
    number, slash, count = text.partition("/")
    is_number = slash and number.isascii() and number.isdigit() and len(number) <= 9
    if count != "groups" and is_number:
        is_number = count.isascii() and count.isdigit() and len(count) <= 9 and int(count) >= 2
    if not is_number or int(number) < 1 or (count != "groups" and int(number) > int(count)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no fold: write k/K with k from 1 to K and K at least 2, as in 2/5, or "
            "k/groups"
        )
    return f"{int(number)}/{count if count == 'groups' else int(count)}"


def add_synthetic_options(parser: argparse.ArgumentParser) -> None:
    """The built-in data set: how large, how many, which seed."""
    group = parser.add_argument_group("built-in data set (--dataset synthetic)")
    group.add_argument(
        "--synthetic_size",
        type=frame_size,
        default=(160, 90),
        help="frame size, WIDTHxHEIGHT (default: 160x90)",
    )
    group.add_argument(
        "--synthetic_clips",
        type=positive,
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
        default=(320, 80, 160),
        help="clips in each list",
    )
    group.add_argument("--synthetic_seed", type=natural, default=0, help="seed of the generator")


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """What the network sees of a clip."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--num_segments", type=up_to(LIMITS["num_segments"]), default=8, help="frames per clip, T"
    )
    group.add_argument(
        "--input_size",
        type=up_to(LIMITS["input_size"]),
        default=224,
        help="side of the crop, pixels",
    )
    group.add_argument(
        "--field_of_view",
        choices=("square", "frame"),
        default="square",
        help="crops are squares over the short side, as published, or have the shape of the "
        "frame and are squeezed into the square input",
    )
    group.add_argument(
        "--num_channels",
        type=int,
        choices=(3, 4),
        help="4 adds the pose heatmap to RGB; default 4 with --early_fusion_poses, else 3",
    )
    group.add_argument(
        "--frame_interval",
        type=up_to(LIMITS["frame_interval"]),
        help="sample segments this many frames apart instead of over the whole clip",
    )
    group.add_argument(
        "--heatmap_sigma",
        type=positive_real,
        default=10.0,
        help="standard deviation of a joint's Gaussian, pixels of a frame with short side 360; "
        "scales with the frame",
    )
    group.add_argument(
        "--mask_background",
        action="store_true",
        help="set RGB to black where the heatmap is 0, as the published early fusion does",
    )
    add_zoo_input_options(group)


def add_augmentation_options(parser: argparse.ArgumentParser) -> None:
    """Random changes to training clips."""
    group = parser.add_argument_group("augmentation")
    group.add_argument("--rand_augment", action="store_true", help="RandAugment on every clip")
    group.add_argument(
        "--rand_augment_4ch",
        action="store_const",
        const=True,
        dest="rand_augment",
        help="the same: our RandAugment is valid for any number of channels",
    )
    group.add_argument(
        "--crop_scales",
        type=share_of_one,
        nargs="+",
        default=(1.0, 0.875, 0.75, 0.66),
        help="sizes of the random crop, as shares of the field of view",
    )
    group.add_argument("--no_flip", action="store_true", help="never mirror a clip")
    add_zoo_augmentation_options(group)


def add_model_options(
    parser: argparse.ArgumentParser, fusion: str, *, pose_only: bool = False
) -> None:
    """The network; `fusion` is the default mode, `pose_only` adds a flag for skeletons alone."""
    group = parser.add_argument_group("model")
    group.add_argument("--arch", choices=ARCHS, default="resnet50", help="backbone")
    group.add_argument(
        "--width",
        type=up_to(LIMITS["width"]),
        default=64,
        help="channels of the first layer; 32 is a backbone of half the width",
    )
    group.add_argument("--gsf", action="store_true", help="add Gate-Shift-Fuse modules")
    group.add_argument(
        "--gsf_ch_ratio", type=positive, default=100, help="share of channels through GSF, per cent"
    )
    group.add_argument(
        "--dropout",
        type=probability,
        help="before the classifier; default 0.5, 0 for graph networks on skeletons alone",
    )
    group.add_argument(
        "--consensus_type", choices=("avg",), default="avg", help="how segments become a clip"
    )
    _add_fusion_options(group, fusion, pose_only)
    add_zoo_model_options(group)
    group.add_argument(
        "--attention_scope",
        choices=("clip", "frame"),
        default="clip",
        help="segments attend to the whole clip, or each to itself alone as published",
    )
    group.add_argument(
        "--stream_losses",
        type=non_negative_real,
        default=0.0,
        help="of late fusions: weight of further losses in training, of a classifier on each "
        "stream alone",
    )


def _add_fusion_options(group: argparse._ArgumentGroup, fusion: str, pose_only: bool) -> None:
    flags = {
        "early": ("--early_fusion_poses", "the pose heatmap is the 4th input channel"),
        "late": ("--late_fusion_poses", "as _fast; can find keypoints itself, see --pose_weights"),
        "late_fast": ("--late_fusion_poses_fast", "RGB and pose features, concatenated, refined"),
        "late_attention": ("--late_fusion_poses_attention", "the same with attention before"),
    }
    if pose_only:
        flags["pose"] = ("--pose_only", "skeletons alone")
    # A group of which all is hidden breaks argparse's usage line.
    exclusive = group if fusion == "pose" else group.add_mutually_exclusive_group()
    for mode, (flag, text) in flags.items():
        exclusive.add_argument(
            flag,
            dest="fusion",
            action="store_const",
            const=mode,
            default=fusion,
            help=argparse.SUPPRESS if fusion == "pose" else text,
        )
    exclusive.add_argument(
        "--rgbpose_conv3d",
        dest="fusion",
        action="store_const",
        const="rgbpose",
        default=fusion,
        help=argparse.SUPPRESS
        if fusion == "pose"
        else "RGBPose-Conv3D: 3-D convolutions on frames and on heatmap volumes that exchange "
        "features",
    )
    group.add_argument(
        "--rgbpose_streams",
        choices=("both", "rgb", "pose"),
        default="both",
        help=argparse.SUPPRESS
        if fusion == "pose"
        else "of --rgbpose_conv3d: both, or one alone, to begin both from",
    )


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Where to compute, and the seed."""
    group = add_machine_options(
        parser, "of the computing process; default: half of the cores, the loader has the others"
    )
    add_speed_options(group)
    group.add_argument("--seed", type=seed_number, default=0, help="of every random choice")


def add_machine_options(
    parser: argparse.ArgumentParser, threads: str, gpus: str = "index of the CUDA device to use"
) -> argparse._ArgumentGroup:
    """Where to compute; `threads` and `gpus` say what these mean to the program."""
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute"
    )
    group.add_argument("--gpus", type=natural, nargs="+", help=gpus)
    group.add_argument("--threads", type=up_to(MOST_THREADS), help=threads)
    return group


def add_speed_options(group: argparse._ArgumentGroup) -> None:
    """What changes the time of a step, and the last digits of its numbers, but not the recipe."""
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the network with torch.compile: minutes at the start, faster steps; needs a "
        "C++ compiler on a CPU, Triton on a GPU",
    )
    group.add_argument(
        "--channels_last",
        choices=("auto", "on", "off"),
        default="auto",
        help="lay out pixels channel by channel; auto: on CUDA with --with_amp",
    )
