"""The files that a prediction leaves, and what of it is said in lines."""

import csv
import io
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
from errors import csv_cell, printable
from files import write_json, write_text
from ops.skeleton import SkeletonLayout
from prediction.frames import Frame, Source
from prediction.overlay import write_annotated
from prediction.places import ANNOTATED, COMPLETE, NAMES, POSES, TIMELINE, check_places
from prediction.results import VideoResult
from prediction.timeline import to_json, write_events_csv, write_timeline_csv, write_timeline_png

_MOST_PEOPLE = 100  # in a keypoint file
_MOST_BYTES = 512 * 2**20
_AHEAD = 8
_SUMMARY_HEADS = (
    "source", "seconds", "track", "label", "probability", "events", "first_event", "error",
)  # fmt: skip


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

    What an earlier prediction left is removed first, predictions.json before the others, so that a
    program that is killed leaves no folder that looks complete and none of two results.

    Args:
        folder: is made; `places.check_places` says before the work whether it may be written.
        result: to write.
        source: that was watched, for the annotated video; a live one has none.
        layout: of the keypoints.
        wishes: which files.
        about: model, options and versions, for predictions.json.

    Returns:
        The result with the time that this took, and notes on what was left out.

    Raises:
        InputError: the source cannot be read again; it, or what is not ours, would be lost.
        OSError: a file cannot be written.
    """
    begin = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    check_places([folder], [source])  # for those who call this alone
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    notes = []
    write_timeline_csv(folder / TIMELINE, result)
    write_events_csv(folder / "events.csv", result)
    write_timeline_png(folder / "timeline.png", result, wishes.threshold)
    if wishes.poses:
        notes += _write_poses(folder / POSES, result)
    if wishes.video and source.is_live:
        notes.append(f"no annotated.mp4: {result.source} cannot be watched a second time")
    elif wishes.video:
        with closing(source.frames()) as frames:
            pictures = _pictures(islice(frames, result.num_frames))
            with Ahead(pictures, _AHEAD) as ahead:
                write_annotated(folder / ANNOTATED, ahead, result, layout, wishes.threshold)
    seconds = time.perf_counter() - begin
    timings = result.timings
    timings = replace(timings, output=seconds, total=timings.total + seconds)
    done = replace(result, timings=timings, notes=(*result.notes, *notes))
    write_json(folder / COMPLETE, {**about, **to_json(done)})
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


def mean_label(result: VideoResult, track: int) -> tuple[str, float]:
    """Return the class with the highest mean probability of a track's windows, and that.

    Args:
        result: of a video.
        track: one of its tracks.
    """
    rows = [window.probabilities for window in result.windows if window.track == track]
    means = np.mean(rows, axis=0)
    best = int(means.argmax())
    return result.classes[best], float(means[best])


def result_lines(result: VideoResult) -> list[str]:
    """Return what the user reads of a result."""
    width, height = result.size
    lines = [
        f"{result.source}: {result.duration:.2f} s, {result.num_frames} frames of {width}x{height}"
    ]
    several = result.tracks != (0,)
    for track in result.tracks:
        label, chance = mean_label(result, track)
        count = sum(window.track == track for window in result.windows)
        who = f"person {track}: " if several else ""
        of = "" if count == 1 else f", mean of {count} windows"
        lines.append(f"  {who}{label} {chance:.3f}{of}")
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


def write_summary(path: Path, rows: Sequence[tuple[str, VideoResult | str]]) -> None:
    """Write a table of several sources.

    Each person of a source has a row with its label and events; a source without an answer has one
    row with no track. `error` says why there is no result, or why it ends early.

    Args:
        path: of the CSV.
        rows: name of each source, with its result or what went wrong.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_SUMMARY_HEADS)
    for name, outcome in rows:
        if isinstance(outcome, str):
            table.writerow([csv_cell(name), *[""] * (len(_SUMMARY_HEADS) - 2), csv_cell(outcome)])
        else:
            table.writerows(_summary_rows(name, outcome))
    write_text(path, text.getvalue())


def _summary_rows(name: str, result: VideoResult) -> Iterator[list[str]]:
    begin = [csv_cell(name), f"{result.duration:.3f}"]
    error = csv_cell(result.fault)
    for track in result.tracks:
        label, chance = mean_label(result, track)
        starts = [event.start for event in result.events if event.track == track]
        first = f"{min(starts):.3f}" if starts else ""
        answer = [str(track), csv_cell(label), f"{chance:.6f}", str(len(starts)), first]
        yield [*begin, *answer, error]
    if not result.tracks:
        yield [*begin, "", "", "", "0", "", error]
