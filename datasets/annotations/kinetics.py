"""The compressed form of annotations: a list of people beside the frames that they are in.

Kinetics as PYSKL publishes it (Duan et al. 2022, arXiv:2205.09443): an annotation has `frame_inds`
and `box_score` with a number for each of E people in any frame, and `raw_file`, a pickle
{frame_dir: {keypoint: (E, V, 3)}} of several clips with x, y and score. MMAction2 has a pickle
`<frame_dir>.pkl` for each clip instead, {keypoint: (E, V, 3)} or (M, T, V, 2) with keypoint_score.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import Any

import numpy as np

from datasets.importers.reading import one_line, read_videos

# name in the annotation, path, size, time of the last change; three nulls where it is missing
FileNote = tuple[str, str | None, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Decompression:
    """How lists of people become tracks; the defaults are the published ones.

    Attributes:
        squeeze: leave out frames without anybody.
        max_people: the most people that are kept in a frame, those with the highest sums of joint
            scores first where a clip has more.
        min_box_score: leave out people whose box has a lower score.
    """

    squeeze: bool = True
    max_people: int = 10
    min_box_score: float = 0.0


def decompress(
    people: np.ndarray, frames: np.ndarray, num_frames: int, max_people: int
) -> np.ndarray:
    """Put listed people into slots, those of a frame in the order of the list.

    Where a frame has more than `max_people`, the people of every frame of the clip are ordered by
    the sum of their joint scores first, as published (not by the score of their boxes).

    Args:
        people: (E, V, D) with the score last.
        frames: (E,) 0-based frame of each, in [0, N).
        num_frames: N.
        max_people: M may not be larger.

    Returns:
        (N, M, V, D), zeros where nobody is; M is at least 1.
    """
    crowd = np.bincount(frames, minlength=1).max(initial=0)
    if crowd > max_people:
        sums = people[..., -1].astype(np.float32).sum(axis=1)
        order = np.lexsort((-sums, frames))
    else:
        order = np.argsort(frames, kind="stable")
    frames, people = frames[order], people[order]
    places = np.arange(len(frames)) - np.searchsorted(frames, frames)
    kept = places < max_people
    out = np.zeros((num_frames, max(1, min(crowd, max_people)), *people.shape[1:]), people.dtype)
    out[frames[kept], places[kept]] = people[kept]
    return out


# ---------------------------------------------------------------- the pickles of videos


def find_files(rows: Sequence[Mapping[str, Any]], root: Path) -> list[FileNote]:
    """Find the pickles of all clips whose keypoints lie elsewhere, each once.

    A path that ends in the same folders is taken: the annotations were made on another machine.

    Args:
        rows: annotations.
        root: folder below which they lie.
    """
    names = dict.fromkeys(_file_name(row) for row in rows if _lies_elsewhere(row))
    return [note_file(name, root) for name in names]


def note_file(name: str, root: Path) -> FileNote:
    """Find the pickle of this name below `root`, and say how it may be known again."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "/"]
    if ".." not in parts and "\0" not in name:
        for first in range(len(parts)):
            path = root.joinpath(*parts[first:])
            with suppress(OSError):  # not there, or no name that a file can have
                status = path.stat()
                if S_ISREG(status.st_mode):
                    return name, str(path), status.st_size, status.st_mtime_ns
    return name, None, None, None


def attach_files(rows: Sequence[dict[str, Any]], notes: Sequence[FileNote], folder: Path) -> None:
    """Read the pickles of clips whose keypoints lie elsewhere; what is wrong goes to `faults`.

    Args:
        rows: annotations; those of the compressed form get `keypoint` and `keypoint_score`.
        notes: of `find_files`.
        folder: the numbers are appended to `arrays.bin` in it.
    """
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if _lies_elsewhere(row):
            waiting[_file_name(row)].append(row)
    found = [(name, Path(place)) for name, place, _, _ in notes if place is not None]
    for name, place, _, _ in notes:
        if place is None:
            for row in waiting[name]:
                fault = ["raw_file", f"has its keypoints in {name[:200]}, which is not there"]
                if not (row["raw_file"] or row["frame_inds"]):
                    fault = ["keypoint", f"has no keypoint, and {name[:200]} is not there either"]
                row["faults"].append(fault)
    paths = [path for _, path in found]
    for (name, path), read in zip(found, read_videos(paths, folder), strict=True):
        _hand_out(waiting[name], path, read)


def _hand_out(rows: Sequence[dict[str, Any]], path: Path, read: Mapping[str, Any]) -> None:
    if "fault" in read:
        for row in rows:
            row["faults"].append(
                ["raw_file", f"has its keypoints in {path}, which {one_line(read['fault'])}"]
            )
        return
    clips = read["clips"]
    for row in rows:
        own = clips.get(row["clip"]) or (clips.get("") if len(rows) == 1 else None)
        if own is None:
            row["faults"].append(["raw_file", f"has no keypoints in {path}, which is to hold them"])
        elif "fault" in own:
            row["faults"].append(["raw_file", f"{one_line(own['fault'])} in {path}"])
        else:
            row["keypoint"] = own["keypoint"]
            row["keypoint_score"] = own["keypoint_score"] or _own_score(row, path)


def _own_score(row: dict[str, Any], path: Path) -> list[Any] | None:
    """Return the scores of the annotation itself, if they fit the keypoints of the file."""
    score, shape = row["keypoint_score"], row["keypoint"][1]
    if score is None or score[1] == shape[:-1]:
        return score
    row["faults"].append([
        "keypoint_score",
        f"has a keypoint_score of shape {tuple(score[1])} beside a keypoint of {tuple(shape)} in "
        f"{path}",
    ])  # fmt: skip
    return None


def _lies_elsewhere(row: Mapping[str, Any]) -> bool:
    return row["clip"] is not None and row["keypoint"] is None and not row["faults"]


def _file_name(row: Mapping[str, Any]) -> str:
    return str(row["raw_file"] or f"{row['clip']}.pkl")
