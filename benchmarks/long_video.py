"""Find known falls in a long video with predict.py: how many, how exactly, how fast.

python benchmarks/long_video.py --weights <run>/best.pth.tar [...] --work <folder> [--minutes 10]
python benchmarks/long_video.py --weights <fold>/last.pth.tar --gmdcsa <folder> --subject 1 --work W

The video joins test clips of the built-in data set, which no model has seen in training, in a
seeded order in which no fall follows a fall. Two truths are known of each fall: its clip, and the
fall itself, from the moment in which the generator makes it differ from a landed jump to the clip's
end. Where several values of a setting are given, the best on a video of the *val* clips is taken:
the highest F1 at overlap 0.3 with the falls themselves; the test video is watched once, with it.
predict.py is a process of its own; its resident memory is read from /proc ten times a second.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.joined_clips import (  # noqa: E402
    GMDCSA_SIZE,
    JoinedVideo,
    gmdcsa24_clips,
    join_clips,
    synthetic_clips,
)
from console import say  # noqa: E402
from datasets.opening import cache_folder  # noqa: E402
from datasets.synthetic import VERSION, SyntheticSpec, ensure_synthetic  # noqa: E402
from deployment.networks import load_network  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from files import write_json, write_text  # noqa: E402
from options.types import (  # noqa: E402
    OneLineParser,
    natural,
    non_negative_real,
    positive_real,
    probability,
)
from prediction.events import EventRule, find_events  # noqa: E402
from prediction.results import Window  # noqa: E402
from results.events import EventScores, score_events  # noqa: E402

IOUS = (0.1, 0.3, 0.5)
TRUTHS = ("falls", "fall_clips")
_TUNED_BY = 0.3
_VAL_MINUTES = 4  # the val clips last that long
_POSE_SECONDS = 20  # of the video, for the time of the pose stage
_SETTINGS = ("window_seconds", "stride_seconds", "threshold", "merge_seconds", "min_seconds")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process, in MB, at times in seconds."""

    times: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def peak(self) -> float:
        """Return the most; NaN where the system does not say."""
        return max(self.values, default=math.nan)

    def at_tenths(self, begin: float, end: float) -> list[float]:
        """Return the memory at 10 %, 20 % ... 100 % of a stretch of time."""
        if not self.values:
            return []
        moments = begin + (end - begin) * np.arange(1, 11) / 10
        return np.interp(moments, self.times, self.values).round(1).tolist()


def main(argv: Sequence[str] | None = None) -> None:
    """Make the videos, let each model watch them, write and print the table."""
    args = parse(argv)
    video, val = make_videos(args)
    say(
        f"{video.video}: {video.seconds / 60:.1f} minutes, {video.clips} clips "
        f"({video.different} different), {len(video.falls)} falls"
    )
    rows: list[dict[str, Any]] = []
    for weights in args.weights:
        rows.append(measure(weights, video, val, args))
        name_rows(rows)
        # After each model: what was measured is not lost with a later one.
        write_json(args.work / "long_video.json", {"video": about(video), "results": rows})
        write_text(args.work / "long_video.md", tables(rows))
    say(tables(rows))


def name_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Name each result by its kind of model; by its file too where there are several of a kind."""
    kinds = ["rgb" if row["fusion"] == "none" else row["fusion"] for row in rows]
    for row, kind in zip(rows, kinds, strict=True):
        row["name"] = kind if kinds.count(kind) == 1 else f"{kind} {row['weights']}"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Find known falls in a long video.")
    add = parser.add_argument
    add("--weights", type=Path, nargs="+", required=True, help="models, as of predict.py")
    add("--work", type=Path, required=True, help="folder for videos and results")
    add("--minutes", type=positive_real, default=10.0, help="length of the video, at least")
    add("--data", type=Path, help="the built-in data set; default: in the cache, made if need be")
    add("--fall_share", type=probability, default=0.3, help="of the clips, up to 0.5")
    add("--seed", type=natural, default=0, help="of the order of the clips")
    add("--gmdcsa", type=Path, help="GMDCSA-24 in place of the built-in data: clips.csv, videos/")
    add("--subject", default="1", help="of GMDCSA-24, whom the models have not seen")
    window = "length of a window; default: that of predict.py"
    add("--window_seconds", type=positive_real, nargs="+", default=[None], help=window)
    add("--stride_seconds", type=positive_real, nargs="+", default=[None], help="default: half")
    add("--threshold", type=probability, nargs="+", default=[0.5], help="least probability")
    add("--merge_seconds", type=non_negative_real, nargs="+", default=[0.5], help="pause")
    add("--min_seconds", type=non_negative_real, nargs="+", default=[0.0], help="least length")
    add("--no_video", action="store_true", help="write no annotated video")
    add("--short_minutes", type=positive_real, help="watch so much first, to compare the memory")
    add("--time_pose", action="store_true", help="time a randomly initialised YOLO11n-pose as well")
    args = parser.parse_args(argv)
    if args.fall_share > 0.5:
        parser.error(f"--fall_share {args.fall_share}: no fall follows a fall, so 0.5 at most")
    if args.gmdcsa and is_tuned(args):
        parser.error("--gmdcsa has no val clips to choose by: give one value of each setting")
    return args


def is_tuned(args: argparse.Namespace) -> bool:
    """Say whether a setting has several values."""
    return any(len(getattr(args, name)) > 1 for name in _SETTINGS)


# ---------------------------------------------------------------- videos


def make_videos(args: argparse.Namespace) -> tuple[JoinedVideo, JoinedVideo | None]:
    """Write the video, and one of val clips where something is to be chosen."""
    if args.gmdcsa:
        clips = gmdcsa24_clips(args.gmdcsa, args.subject, args.seed)
        name = f"gmdcsa24_{args.subject}.mp4"
        return join_clips(clips, args.work / name, GMDCSA_SIZE), None
    spec = SyntheticSpec()
    name = "synthetic-v{}-{}x{}-{}-{}-{}-seed0".format(VERSION, *spec.size, *spec.clips)
    root = args.data or ensure_synthetic(spec, cache_folder(), name)
    test = synthetic_clips(root, "test", args.minutes * 60, args.fall_share, args.seed)
    video = join_clips(test, args.work / "test.mp4", spec.size)
    if not is_tuned(args):
        return video, None
    val = synthetic_clips(root, "val", _VAL_MINUTES * 60, args.fall_share, args.seed)
    return video, join_clips(val, args.work / "val.mp4", spec.size)


def about(video: JoinedVideo) -> dict[str, Any]:
    """Return what the video is as plain values."""
    return {
        "seconds": video.seconds,
        "clips": video.clips,
        "different_clips": video.different,
        **{truth: getattr(video, truth).tolist() for truth in TRUTHS},
    }


# ---------------------------------------------------------------- runs


def measure(
    weights: Path, video: JoinedVideo, val: JoinedVideo | None, args: argparse.Namespace
) -> dict[str, Any]:
    """Let a model watch the video, with the settings that are best on val."""
    spec = load_network(weights, torch.device("cpu")).config
    has_poses = spec.input.has_poses
    say(f"{weights}: {spec.options['fusion']}, {'with' if has_poses else 'without'} poses")
    home = args.work / f"{weights.parent.name}_{weights.stem}"
    settings, tried = choose(weights, val, has_poses, home, args)
    row: dict[str, Any] = {"weights": str(weights), "fusion": spec.options["fusion"]}
    row |= {"settings": settings, "tried_on_val": tried}
    if args.short_minutes:
        limit = ["--seconds", str(args.short_minutes * 60)]
        _, memory, _ = watch(weights, video, has_poses, home / "short", settings, args, limit)
        row["short_peak_mb"] = memory.peak
    said, memory, wall = watch(weights, video, has_poses, home / "test", settings, args)
    if has_poses and args.time_pose:
        row["random_yolo11n_pose"] = time_pose(weights, video, home / "pose", args)
    found = np.array([(event["start"], event["end"]) for event in said["events"]]).reshape(-1, 2)
    timings = said["timings"]
    # The process begins with imports and the model, and ends with the outputs.
    output = wall - timings["output"]
    row |= {
        "seconds": wall,
        "timings": timings,
        "memory_mb": {
            "watching": memory.at_tenths(output - (timings["total"] - timings["output"]), output),
            "output": memory.at_tenths(output, wall),
            "peak": memory.peak,
        },
        "scores": {t: score_all(getattr(video, t), found, video) for t in TRUTHS},
    }
    return plain(row)


def score_all(true: np.ndarray, found: np.ndarray, video: JoinedVideo) -> list[dict[str, float]]:
    """Score found events at each overlap."""
    return [asdict(score_events(true, found, iou, video.seconds)) for iou in IOUS]


def watch(
    weights: Path,
    video: JoinedVideo,
    has_poses: bool,
    output: Path,
    settings: dict[str, float | None],
    args: argparse.Namespace,
    more: Sequence[str] = (),
) -> tuple[dict[str, Any], Memory, float]:
    """Run predict.py; return predictions.json, its memory and how long the process lived."""
    command = ["predict.py", "--weights", str(weights), "--source", str(video.video)]
    if has_poses and "--pose_backend" not in more:
        command += ["--poses", str(video.poses)]
    for name, value in settings.items():
        command += [] if value is None else [f"--{name}", str(value)]
    command += ["--output", str(output), *more]
    if args.no_video and "--no_video" not in more:
        command.append("--no_video")
    memory, seconds = run(command)
    return json.loads((output / "predictions.json").read_text("utf-8")), memory, seconds


def run(command: Sequence[str]) -> tuple[Memory, float]:
    """Run one of our scripts to its end, and read its memory meanwhile.

    Raises:
        InputError: it failed; the message ends with what it said.
    """
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / command[0]), *command[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    times, values = [], []
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(0.1):
            resident = resident_mb(process.pid)
            if resident:
                times.append(time.monotonic() - begin)
                values.append(resident)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    _, said = process.communicate()
    is_over.set()
    sampler.join()
    if process.returncode:
        raise InputError(f"{' '.join(command)} failed: {said.strip()[-500:]}")
    return Memory(tuple(times), tuple(values)), time.monotonic() - begin


def resident_mb(pid: int) -> float | None:
    """Return the resident memory of a process; None where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(kilobytes[0]) / 1000 if kilobytes else None


def time_pose(
    weights: Path, video: JoinedVideo, output: Path, args: argparse.Namespace
) -> dict[str, float]:
    """Time the pose stage with weights that know nothing: seconds only, no result."""
    from models import pose_ultralytics  # noqa: PLC0415 - takes seconds to load

    with pose_ultralytics._quiet_import():
        from ultralytics import YOLO  # noqa: PLC0415
    model = args.work / "yolo11n-pose_random.pt"
    YOLO("yolo11n-pose.yaml").save(model)
    more = ["--pose_backend", "ultralytics", "--pose_weights", str(model), "--no_video"]
    more += ["--seconds", str(_POSE_SECONDS), "--imgsz", "640"]
    said, _, _ = watch(weights, video, True, output, {}, args, more)
    return said["timings"]


# ---------------------------------------------------------------- settings


def choose(
    weights: Path,
    val: JoinedVideo | None,
    has_poses: bool,
    home: Path,
    args: argparse.Namespace,
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Return the settings that are best on the val video, and all that were tried there."""
    names = _SETTINGS[:2]
    tried: list[dict[str, Any]] = []
    for values in itertools.product(*(getattr(args, name) for name in names)):
        window = dict(zip(names, values, strict=True))
        if val is None:
            return window | {name: getattr(args, name)[0] for name in _SETTINGS[2:]}, []
        said, _, _ = watch(weights, val, has_poses, home / "val", window, args, ["--no_video"])
        for rule in itertools.product(*(getattr(args, name) for name in _SETTINGS[2:])):
            score = score_rule(said, EventRule(None, *rule), val)
            setting = window | dict(zip(_SETTINGS[2:], rule, strict=True))
            tried.append({"settings": setting, "f1": score.f1, "mean_iou": score.mean_iou})
    best = max(tried, key=lambda one: (np.nan_to_num(one["f1"]), np.nan_to_num(one["mean_iou"])))
    return best["settings"], tried


def score_rule(said: dict[str, Any], rule: EventRule, video: JoinedVideo) -> EventScores:
    """Score the events that a rule cuts out of the windows of a prediction."""
    fields = ("track", "start", "end", "first_frame", "last_frame", "probabilities")
    windows = [Window(*(window[name] for name in fields)) for window in said["windows"]]
    events = find_events(windows, said["classes"], rule)
    found = np.array([(event.start, event.end) for event in events]).reshape(-1, 2)
    return score_events(video.falls, found, _TUNED_BY, video.seconds)


# ---------------------------------------------------------------- the report


def plain(value: Any) -> Any:
    """Return a value as JSON takes it: a number that is none is None."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """Return the Markdown tables: what was found, how fast, in what memory."""
    heads = "| model | truth | least IoU | recall | precision | F1 | mean IoU | start error "
    lines = [heads + "| end error | false a minute |", "|---" * 10 + "|"]
    for row in rows:
        for truth, scores in row["scores"].items():
            lines += [f"| {row['name']} | {truth.replace('_', ' ')} {_scores(s)}" for s in scores]
    lines += ["", "| model | settings | video s per s | decode | pose | network | output |"]
    lines.append("|---" * 7 + "|")
    lines += [f"| {row['name']} | {_settings(row)} {_speeds(row['timings'])}" for row in rows]
    lines += ["", "| model | resident MB at 10 % ... 100 % of watching | peak | of the short one |"]
    lines.append("|---" * 4 + "|")
    for row in rows:
        tenths = " ".join(f"{value:.0f}" for value in row["memory_mb"]["watching"])
        peak, short = row["memory_mb"]["peak"], row.get("short_peak_mb")
        lines.append(f"| {row['name']} | {tenths} | {_number(peak, 0)} | {_number(short, 0)} |")
    for row in rows:
        if "random_yolo11n_pose" in row:
            pose = row["random_yolo11n_pose"]
            lines += [
                "",
                f"{row['name']}: pose stage of a random YOLO11n-pose, for its time alone: ",
            ]
            lines[-1] += f"{pose['video'] / pose['pose']:.2f} video seconds per second"
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _scores(scores: dict[str, float | None]) -> str:
    true, found, matched = (scores[name] for name in ("true", "found", "matched"))
    numbers = [_number(scores[name]) for name in ("f1", "mean_iou", "start_error", "end_error")]
    recall, precision = (_number(scores[name]) for name in ("recall", "precision"))
    cells = [f"{scores['least_iou']}", f"{recall} ({matched} of {true})"]
    cells += [f"{precision} ({matched} of {found})", *numbers]
    return f"| {' | '.join(cells)} | {_number(scores['false_per_minute'])} |"


def _settings(row: dict[str, Any]) -> str:
    given = {name: value for name, value in row["settings"].items() if value is not None}
    return ", ".join(f"{name} {value:g}" for name, value in given.items())


def _speeds(timings: dict[str, float]) -> str:
    stages = [timings[name] for name in ("total", "decode", "pose", "network", "output")]
    cells = [_number(timings["video"] / seconds, 1) if seconds else "–" for seconds in stages]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    run_script(main)
