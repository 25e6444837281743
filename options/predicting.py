"""The parser of `predict.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from options.groups import MOST_POSE_SIZE, MOST_SAMPLINGS, POSE_BACKENDS, add_machine_options
from options.types import (
    OneLineParser,
    non_negative_real,
    positive,
    positive_real,
    probability,
    share_of_one,
    up_to,
)

# Options of the estimator, and what stands for those that are not given.
_ESTIMATOR_DEFAULTS = {
    "detector_weights": None,
    "download": False,
    "conf": 0.8,
    "imgsz": None,
    "pose_batch": 16,
    "pose_every": 1,
}


def parse_predict_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options of `predict.py`; exits with 2 on a wrong option."""
    parser = OneLineParser(
        prog="predict.py",
        description="Say what a trained model sees in videos: labels, a time line, events, an "
        "annotated video. Architecture, classes and input are read from the model.",
        epilog="example: python predict.py --weights <run>/best.pth.tar --source video.mp4",
    )
    _add_source_options(parser)
    _add_window_options(parser)
    _add_pose_options(parser)
    _add_event_options(parser)
    _add_output_options(parser)
    add_machine_options(parser, "of the network; default: half of the cores")
    args = parser.parse_args(argv)
    _check(parser, args)
    return args


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and videos")
    group.add_argument(
        "--weights",
        type=Path,
        required=True,
        help="a checkpoint, a folder that tools/export.py made, its .onnx, or the name of "
        "published weights",
    )
    group.add_argument(
        "--source",
        nargs="+",
        required=True,
        help="each a video, a folder with videos in it or below, a folder of numbered images, a "
        ".txt with one of these in a line, an address (http, https, rtsp, rtmp), or the number of "
        "a camera",
    )
    group.add_argument(
        "--fps",
        type=positive_real,
        help="of folders of images; default: that of the training data, else 25",
    )
    group.add_argument(
        "--seconds", type=positive_real, help="stop after so many seconds of the video"
    )


def _add_window_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("windows")
    group.add_argument(
        "--window_seconds",
        type=positive_real,
        help="length of a window; default: the median clip of the training data",
    )
    group.add_argument(
        "--stride_seconds",
        type=positive_real,
        help="from window to window; default: half a window",
    )
    group.add_argument(
        "--whole", action="store_true", help="one answer for the whole video, as for a test clip"
    )
    group.add_argument(
        "--num_clips", type=up_to(MOST_SAMPLINGS), default=1, help="samplings of each window"
    )
    group.add_argument(
        "--test_crops", type=int, choices=(1, 3, 5, 10), default=1, help="crops of each frame"
    )
    group.add_argument(
        "-b", "--batch-size", type=positive, default=8, help="windows per forward pass"
    )


def _add_pose_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("poses, for models that see them")
    group.add_argument(
        "--poses",
        type=Path,
        help="keypoints of the whole video, an .npz as in poses/, or a folder with "
        "<name of the video>.npz",
    )
    group.add_argument(
        "--pose_backend",
        choices=POSE_BACKENDS,
        help="find them on the fly, as preprocess_pose.py does; default with --pose_weights: "
        "ultralytics",
    )
    group.add_argument("--pose_weights", type=Path, help="weights file of the back end")
    group.add_argument(
        "--detector_weights", type=Path, help="a YOLOX person detector (.onnx), for rtmlib"
    )
    group.add_argument(
        "--download", action="store_true", help="fetch the weights if the file is not there"
    )
    group.add_argument(
        "--conf", type=probability, help="least confidence of a detected person (default: 0.8)"
    )
    group.add_argument(
        "--imgsz", type=up_to(MOST_POSE_SIZE), help="size of the back end's input, pixels"
    )
    group.add_argument(
        "--pose_batch", type=positive, help="frames per pass of the back end (default: 16)"
    )
    group.add_argument(
        "--pose_every",
        type=positive,
        help="look for people in one frame of so many, straight lines in between (default: 1)",
    )
    group.add_argument(
        "--people",
        type=_people,
        default=1,
        help="a time line for each of up to so many people at a time, or 'all'; 1 is the main "
        "athlete of each window",
    )


def _add_event_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("events")
    group.add_argument(
        "--event_classes",
        nargs="+",
        help="names of the classes to look for; default: the second of two classes, all of more",
    )
    group.add_argument(
        "--threshold",
        type=share_of_one,
        default=0.5,
        help="least mean probability of the windows that cover a moment of an event",
    )
    group.add_argument(
        "--merge_seconds", type=non_negative_real, default=0.5, help="longest pause in an event"
    )
    group.add_argument(
        "--min_seconds", type=non_negative_real, default=0.0, help="shorter events are dropped"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        type=Path,
        help="folder of the results, with a folder for each of several sources; default: "
        "predictions/<name of the source>",
    )
    group.add_argument("--no_video", action="store_true", help="write no annotated.mp4")
    group.add_argument("--save_poses", action="store_true", help="write the keypoints to poses.npz")


def _people(text: str) -> int | None:
    """Read a number of people; None is everybody."""
    return None if text == "all" else positive(text)


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that would do nothing, and fill in those of the estimator."""
    if args.whole and (args.window_seconds or args.stride_seconds):
        parser.error("--whole is one window: leave out --window_seconds and --stride_seconds")
    is_estimated = bool(args.pose_backend or args.pose_weights)
    if args.poses is not None and is_estimated:
        parser.error(
            "--poses and --pose_backend or --pose_weights: keypoints come from one of them"
        )
    for name, default in _ESTIMATOR_DEFAULTS.items():
        is_given = getattr(args, name) not in (None, False)
        if is_given and not is_estimated:
            parser.error(f"--{name} needs --pose_backend or --pose_weights")
        if not is_given:
            setattr(args, name, default)
    if is_estimated:
        args.pose_backend = args.pose_backend or "ultralytics"
