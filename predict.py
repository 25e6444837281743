"""Say what a trained model sees in videos: labels, a time line, events, an annotated video.

python predict.py --weights <run folder>/best.pth.tar --source video.mp4
python predict.py --weights <run folder>/best.pth.tar --source videos --poses keypoints
python predict.py --weights <run folder>/best.pth.tar --source 0          # a camera, until Ctrl-C
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from console import say, warn
from deployment.networks import Network, load_network
from errors import InputError, one_line, printable, run_script
from machine import StopRequest, choose_device, prepare_cpu
from models.downloads import resolve_weights
from models.estimators import Estimator, EstimatorOpts, build_estimator
from options.predicting import parse_predict_args
from prediction import Predictor, Settings
from prediction.events import EventRule
from prediction.frames import ImageFolder, Source
from prediction.outputs import (
    Wishes,
    result_lines,
    speed_line,
    write_outputs,
    write_summary,
)
from prediction.places import SUMMARY, check_places, check_summary, output_folders
from prediction.results import VideoResult, Window
from prediction.sources import find_sources, shown_name
from reports import environment, plain


def main(argv: Sequence[str] | None = None) -> list[VideoResult]:
    """Predict every source, write its files, and return the results."""
    args = parse_predict_args(argv)
    prepare_cpu(args.threads)
    sources = look_for_sources(args.source, args.fps)
    if len(sources) > 1 and args.poses is not None and not args.poses.is_dir():
        raise InputError(
            f"--poses {args.poses} is for one video, there are {len(sources)}: name a folder with "
            "<name of the video>.npz for each"
        )
    folders = places_of(sources, args)
    device = choose_device(args.device, args.gpus)
    network = load_network(resolve_weights(args.weights), device)
    settings = settings_of(args, network.config.classes)
    predictor = Predictor(
        network, settings, build_poses(args, device), args.pose_every, args.pose_batch
    )
    predictor.check_poses(args.poses, sources)
    options = plain({**vars(args), "source": [shown_name(name) for name in args.source]})
    about = {"model": about_model(network), "options": options, "versions": environment()}
    if len(sources) == 1:
        return [predict_one(predictor, sources[0], folders[0], args, about)]
    return predict_all(predictor, sources, folders, args, about)


def predict_all(
    predictor: Predictor,
    sources: Sequence[Source],
    folders: Sequence[Path],
    args: argparse.Namespace,
    about: dict[str, Any],
) -> list[VideoResult]:
    """Predict several sources; what cannot be read or written is named, and the others go on."""
    rows: list[tuple[str, VideoResult | str]] = []
    for source, folder in zip(sources, folders, strict=True):
        try:
            rows.append((source.name, predict_one(predictor, source, folder, args, about)))
        except InputError as error:
            warn(printable(one_line(error)))
            rows.append((source.name, one_line(error)))
        except BrokenPipeError:  # nobody reads what we say: run_script ends it
            raise
        except OSError as error:
            fault = f"{error.filename or folder}: {error.strerror or error}"
            warn(printable(fault))
            rows.append((source.name, fault))
    root = root_of(args)
    root.mkdir(parents=True, exist_ok=True)
    write_summary(root / SUMMARY, rows)
    say(f"wrote {root / SUMMARY}")
    failed = [outcome for _, outcome in rows if isinstance(outcome, str)]
    if failed:
        raise InputError(f"{len(failed)} of {len(rows)} sources gave no result: {failed[0]}")
    return [outcome for _, outcome in rows if isinstance(outcome, VideoResult)]


def predict_one(
    predictor: Predictor,
    source: Source,
    folder: Path,
    args: argparse.Namespace,
    about: dict[str, Any],
) -> VideoResult:
    """Predict one source, write its files, say what is in them."""
    if source.is_live:
        say(f"watching {printable(source.name)}, Ctrl-C ends it")
    on_window = Changes(predictor.network.config.classes) if source.is_live else None
    with StopRequest() as stop:
        try:
            result = predictor.predict(
                source, args.poses, on_window, lambda: stop.signum is not None
            )
        except InputError:
            stop.poll()  # a signal before the first frame is no fault of the source
            raise
        if not source.is_live:
            stop.poll()
    wishes = Wishes(not args.no_video, args.save_poses, args.threshold)
    result = write_outputs(folder, result, source, predictor.layout, wishes, about)
    for line in (*result_lines(result), speed_line(result)):
        say(line)
    say(f"  wrote {folder}")
    return result


class Changes:
    """Says what is seen now, whenever that changes.

    Args:
        classes: names, K.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = classes
        self._last: dict[int, int] = {}  # track -> label

    def __call__(self, window: Window) -> None:
        """Take the newest answer."""
        label = max(range(len(self._classes)), key=lambda k: window.probabilities[k])
        if self._last.get(window.track) != label:
            self._last[window.track] = label
            who = f" (person {window.track})" if len(self._last) > 1 else ""
            chance = window.probabilities[label]
            say(f"{window.end:.1f} s: {printable(self._classes[label])} {chance:.2f}{who}")


# ---------------------------------------------------------------- from options


def look_for_sources(names: Sequence[str], fps: float | None) -> list[Source]:
    """Find what the user names, and say what of it is left out.

    Raises:
        InputError: there is nothing; frames per second are given and no source takes them.
    """
    ours: list[Path] = []
    sources = find_sources(names, fps, ours.append)
    if ours:
        say(f"left out {len(ours)} videos that predict.py has drawn upon, as {printable(ours[0])}")
    if fps is not None and not any(isinstance(source, ImageFolder) for source in sources):
        raise InputError(
            f"--fps {fps:g} is for folders of images, videos say it themselves: leave it out"
        )
    return sources


def root_of(args: argparse.Namespace) -> Path:
    """Return the folder of all results."""
    return args.output or Path("predictions")


def places_of(sources: Sequence[Source], args: argparse.Namespace) -> list[Path]:
    """Return the folder of each source's results, having made sure that it may be written.

    Raises:
        InputError: something of the user's would be lost, or it cannot be written.
    """
    folders = output_folders(root_of(args), sources)
    if len(sources) > 1:
        check_summary(root_of(args))
    elif args.output is not None:
        folders = [args.output]
    check_places(folders, sources, args.poses)
    return folders


def settings_of(args: argparse.Namespace, classes: Sequence[str]) -> Settings:
    """Return how to look at the videos.

    Raises:
        InputError: an event class is not among the model's.
    """
    unknown = [name for name in args.event_classes or () if name not in classes]
    if unknown:
        raise InputError(
            f"--event_classes {unknown[0]}: the model knows {', '.join(classes)}: name some of them"
        )
    labels = tuple(sorted({classes.index(name) for name in args.event_classes or ()}))
    return Settings(
        window_seconds=args.window_seconds,
        stride_seconds=args.stride_seconds,
        whole=args.whole,
        num_clips=args.num_clips,
        test_crops=args.test_crops,
        people=args.people,
        events=EventRule(labels or None, args.threshold, args.merge_seconds, args.min_seconds),
        batch_size=args.batch_size,
        seconds=args.seconds,
    )


def build_poses(args: argparse.Namespace, device: torch.device) -> Estimator | None:
    """Build the estimator that the options ask for; None where keypoints are given or not seen."""
    if args.pose_backend is None:
        return None
    opts = EstimatorOpts(
        weights=args.pose_weights,
        detector=args.detector_weights,
        device=str(device),
        confidence=args.conf,
        image_size=args.imgsz,
        batch_size=args.pose_batch,
        download=args.download,
    )
    return build_estimator(args.pose_backend, opts)


def about_model(network: Network) -> dict[str, Any]:
    """Return what predictions.json says of the model."""
    config = network.config
    return {
        "weights": str(network.source),
        "options": dict(config.options),
        "trained_on": dict(config.data),
    }


if __name__ == "__main__":
    run_script(main)
