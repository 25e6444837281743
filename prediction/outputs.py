"""The files that a prediction leaves, and what of it is said in lines."""

import csv
import io
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datasets.poses import save_poses
from datasets.prepare.ahead import Ahead
from errors import printable
from files import write_json, write_text
from ops.skeleton import SkeletonLayout
from prediction.frames import Frame, Source
from prediction.overlay import write_annotated
from prediction.results import VideoResult
from prediction.timeline import to_json, write_events_csv, write_timeline_csv, write_timeline_png

_MOST_PEOPLE = 100  # in a keypoint file
_MOST_BYTES = 512 * 2**20
_AHEAD = 8
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to write.

    Attributes:
        video: annotated.mp4.
        poses: poses.npz.
        threshold: of events, for pictures; None draws no line.
    """

    video: bool = True
    poses: bool = False
    threshold: float | None = None


def write_outputs(
    folder: Path,
    result: VideoResult,
    source: Source,
    layout: SkeletonLayout,
    wishes: Wishes,
    about: Mapping[str, Any],
) -> VideoResult:
    """Write all files of a result; predictions.json last, when the others are there.

    Args:
        folder: is made; files of an earlier prediction are replaced.
        result: to write.
        source: that was watched, for the annotated video; a live one has none.
        layout: of the keypoints.
        wishes: which files.
        about: model, options and versions, for predictions.json.

    Returns:
        The result with the time that this took, and notes on what was left out.

    Raises:
        InputError: the source cannot be read again.
        OSError: a file cannot be written.
    """
    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    notes = []
    write_timeline_csv(folder / "timeline.csv", result)
    write_events_csv(folder / "events.csv", result)
    write_timeline_png(folder / "timeline.png", result, wishes.threshold)
    if wishes.poses:
        notes += _write_poses(folder / "poses.npz", result)
    if wishes.video and source.is_live:
        notes.append(f"no annotated.mp4: {result.source} cannot be watched a second time")
    elif wishes.video:
        with closing(source.frames()) as frames:
            pictures = _pictures(islice(frames, result.num_frames))
            with Ahead(pictures, _AHEAD) as ahead:
                write_annotated(folder / "annotated.mp4", ahead, result, layout, wishes.threshold)
    seconds = time.perf_counter() - begin
    timings = result.timings
    timings = replace(timings, output=seconds, total=timings.total + seconds)
    done = replace(result, timings=timings, notes=(*result.notes, *notes))
    write_json(folder / "predictions.json", {**about, **to_json(done)})
    return done


def _pictures(frames: Iterable[Frame]) -> Iterator[tuple[float, np.ndarray]]:
    for frame in frames:
        yield frame.seconds, frame.picture()


def _write_poses(path: Path, result: VideoResult) -> list[str]:
    """Write the keypoints in the form of poses/<clip>.npz; return why not, where not."""
    poses = result.poses
    if poses is None:
        return ["no poses.npz: the model sees RGB alone"]
    people = max(poses.num_people, 1)
    size = len(poses) * people * poses.num_joints * 12
    if people > _MOST_PEOPLE or size > _MOST_BYTES:
        return [f"no poses.npz: {people} people in {len(poses)} frames are too many for one file"]
    keypoints = np.zeros((len(poses), people, poses.num_joints, 3), np.float32)
    for frame in range(len(poses)):
        found = poses.at(frame)
        keypoints[frame, : len(found)] = found
    save_poses(path, keypoints, result.size, "predict.py")
    return []


# ---------------------------------------------------------------- lines for the user


def mean_label(result: VideoResult, track: int = 0) -> tuple[str, float] | None:
    """Return the class with the highest mean probability of a track's windows, and that."""
    rows = [window.probabilities for window in result.windows if window.track == track]
    if not rows:
        return None
    means = np.mean(rows, axis=0)
    best = int(means.argmax())
    return result.classes[best], float(means[best])


def result_lines(result: VideoResult) -> list[str]:
    """Return what the user reads of a result."""
    width, height = result.size
    lines = [
        f"{result.source}: {result.duration:.2f} s, {result.num_frames} frames of {width}x{height}"
    ]
    several = len(result.tracks) > 1
    for track in result.tracks:
        found = mean_label(result, track)
        count = sum(window.track == track for window in result.windows)
        who = f"person {track}: " if several else ""
        of = "" if count == 1 else f", mean of {count} windows"
        if found:
            lines.append(f"  {who}{found[0]} {found[1]:.3f}{of}")
    if not result.windows:
        lines.append("  no answer")
    for event in result.events:
        who = f" (person {event.track})" if several else ""
        lines.append(
            f"  {event.start:.2f} to {event.end:.2f} s: {event.label}, up to "
            f"{event.probability:.3f}{who}"
        )
    if not result.events:
        lines.append("  no event")
    return [*map(printable, lines), *(f"  {printable(note)}" for note in result.notes)]


def speed_line(result: VideoResult) -> str:
    """Return how fast it went, in seconds of the video per second."""
    stages = ", ".join(f"{k} {v:.0f}" for k, v in result.timings.stage_speeds().items())
    return f"  {result.timings.speed:.1f} video seconds per second (each stage alone: {stages})"


# ---------------------------------------------------------------- several sources


def output_folders(root: Path, sources: Sequence[Source]) -> list[Path]:
    """Return a folder for each source, named after it; equal names are numbered."""
    taken: dict[str, int] = {}
    folders = []
    for source in sources:
        name = folder_name(source.stem)
        key = name.casefold()  # file systems may not tell A from a
        taken[key] = taken.get(key, 0) + 1
        while taken[key] > 1 and f"{key}_{taken[key]}" in taken:
            taken[key] += 1
        if taken[key] > 1:
            name = f"{name}_{taken[key]}"
            taken[name.casefold()] = 1
        folders.append(root / name)
    return folders


def folder_name(stem: str) -> str:
    """Return a name that every file system takes for a folder, and that hides nothing."""
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", stem.encode("utf-8", "replace").decode())
    name = name.strip(". ").encode()[:200].decode(errors="ignore")
    return name or "video"


def write_summary(path: Path, rows: Sequence[tuple[str, VideoResult | str]]) -> None:
    """Write a table with a row for each source: its result, or why there is none."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["source", "seconds", "label", "probability", "events", "first_event", "error"])
    for name, outcome in rows:
        if isinstance(outcome, str):
            table.writerow([_cell(name), "", "", "", "", "", _cell(outcome)])
            continue
        label, chance = mean_label(outcome) or ("", float("nan"))
        first = min((event.start for event in outcome.events), default=None)
        table.writerow(
            [
                _cell(name),
                f"{outcome.duration:.3f}",
                _cell(label),
                f"{chance:.6f}" if label else "",
                len(outcome.events),
                "" if first is None else f"{first:.3f}",
                "",
            ]
        )
    write_text(path, text.getvalue())


def _cell(text: str) -> str:
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
