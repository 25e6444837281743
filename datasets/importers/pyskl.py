"""PYSKL and MMAction2 annotation pickles: read in a process of their own, checked, never run.

The file is {split: {name: [clips]}, annotations: [{frame_dir, label, img_shape, total_frames,
keypoint, keypoint_score}]}, or the bare list; img_shape is (height, width) and keypoint
(M, T, V, 2) in pixels. Where annotations have `filename` it names the clip.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from datasets.importers.names import plain_name
from datasets.importers.npy import people_of_array
from datasets.importers.people import MOST_PEOPLE, People, Span
from datasets.importers.reading import one_line, read_annotations
from errors import InputError

_VIDEO = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".wmv", ".m4v", ".flv"}


@dataclass(slots=True)
class Annotations:
    """What an annotation pickle holds: a `KeypointSource` that also knows labels and splits.

    Attributes:
        path: the pickle.
        aliases: clip -> what it may be called in the lists.
        labels: clip -> label, None where it has none; clips that are damaged are not here.
        splits: name -> clips, empty where the file has none.
        findings: what is wrong as a whole.
    """

    path: Path
    aliases: dict[str, tuple[str, ...]]
    labels: dict[str, int | None]
    splits: dict[str, tuple[str, ...]]
    findings: list[str] = field(default_factory=list)
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)
    _numbers: Path = Path()

    def span(self, key: str) -> Span:
        """Return how many frames the keypoints of a clip have.

        Raises:
            InputError: the annotation is damaged.
        """
        return Span(0, self._row(key)["keypoint"][1][1] - 1, is_array=True)

    def size(self, key: str) -> tuple[int, int] | None:
        """Return (width, height) of the frames of a clip, None where the file does not say it."""
        shape = self._row(key)["img_shape"]
        return None if shape is None else (shape[1], shape[0])

    def load(self, key: str) -> People:
        """Return the people of a clip, who keep their slots.

        Raises:
            InputError: the annotation is damaged, or has no COCO-17 in it.
        """
        row = self._row(key)
        keypoints = np.moveaxis(self._array(row["keypoint"]), 0, 1)  # (T, M, V, C)
        if row["keypoint_score"] is not None:
            scores = np.moveaxis(self._array(row["keypoint_score"]), 0, 1)[..., None]
            keypoints = np.concatenate((keypoints, scores), axis=-1)
        return people_of_array(keypoints, f"{self.path}, annotation {key!r}", self.size(key))

    def _row(self, key: str) -> dict[str, Any]:
        if key in self._faults:
            raise InputError(f"{self.path}, annotation {key[:80]!r} {self._faults[key]}")
        return self._rows[key]

    def _array(self, stored: Sequence[Any]) -> np.ndarray:
        kind, shape, place = stored
        count = int(np.prod(shape))
        flat = np.fromfile(self._numbers, np.dtype(kind), count, offset=place)
        with np.errstate(over="ignore"):
            return flat.reshape(shape).astype(np.float32)


@contextmanager
def open_annotations(path: Path) -> Iterator[Annotations]:
    """Read a pickle in a process of its own; what it held is there until the block ends.

    Raises:
        InputError: it is no annotation pickle, or asks for more than numbers and containers.
    """
    with tempfile.TemporaryDirectory(prefix="annotations-") as folder:
        yield _annotations(path, Path(folder), read_annotations(path, Path(folder)))


def _annotations(path: Path, folder: Path, index: Mapping[str, Any]) -> Annotations:
    rows = index["annotations"]
    counts = Counter(row["clip"] for row in rows)
    faults = {row["clip"]: one_line(fault) for row in rows if (fault := _fault_of(row, counts))}
    good = {row["clip"]: row for row in rows if row["clip"] not in faults}
    nameless = counts.pop(None, 0)
    faults.pop(None, None)
    splits = {name: tuple(clips) for name, clips in (index["split"] or {}).items()}
    findings = [f"{path} has {nameless} annotations without a name"] if nameless else []
    findings += _label_findings(path, {clip: row["label"] for clip, row in good.items()})
    findings += _split_findings(path, splits, counts)
    return Annotations(
        path,
        {clip: _names(clip) for clip in counts},
        {clip: row["label"] for clip, row in good.items()},
        splits,
        findings,
        good,
        faults,
        folder / "arrays.bin",
    )


def _names(clip: str) -> tuple[str, ...]:
    """Return what a clip may be called: its name, without the ending of a video."""
    path = PurePosixPath(plain_name(clip))
    bare = path.with_suffix("") if path.suffix.lower() in _VIDEO else path
    return tuple(dict.fromkeys((path.as_posix(), bare.as_posix())))


def _fault_of(row: Mapping[str, Any], counts: Mapping[str | None, int]) -> str:
    """Say what is wrong with an annotation, "" if nothing is."""
    if fault := _what_is_missing(row):
        return fault
    M, T, _, values = row["keypoint"][1]
    if counts[row["clip"]] > 1:
        return f"is there {counts[row['clip']]} times: leave one"
    if not 1 <= M <= MOST_PEOPLE or T < 1:
        return f"has {M} people and {T} frames, it should have 1 to {MOST_PEOPLE} and at least 1"
    if row["total_frames"] not in (None, T):
        return f"has {T} frames of keypoints and total_frames {row['total_frames']}"
    if row["label"] is not None and row["label"] < 0:
        return f"has label {row['label']}, it should be at least 0"
    if values == 3:
        return "has 3-D keypoints, they should be x, y in pixels and keypoint_score beside them"
    return ""


def _what_is_missing(row: Mapping[str, Any]) -> str:
    if row["faults"]:
        return str(row["faults"][0][1])
    if row["raw_file"] or row["frame_inds"]:
        return (
            "is of the compressed Kinetics form, whose keypoints lie in other pickles: train from "
            "it with --annotations instead"
        )
    return "" if row["keypoint"] else "has a keypoint of shape None, it should be (M, T, V, 2)"


def _label_findings(path: Path, labels: Mapping[str, int | None]) -> list[str]:
    used = {label for label in labels.values() if label is not None}
    missing = next((label for label in range(len(used)) if label not in used), None)
    if missing is None:
        return []
    return [
        f"{path} has labels up to {max(used)} but no clip of class {missing}: number the classes "
        "without gaps, or name all of them"
    ]


def _split_findings(
    path: Path, splits: Mapping[str, Sequence[str]], known: Mapping[str | None, int]
) -> list[str]:
    findings = []
    for name, clips in splits.items():
        unknown = [clip for clip in clips if clip not in known]
        if unknown:
            findings.append(
                f"{path} has no annotation of {len(unknown)} clips of split {name!r}, such as "
                f"{unknown[0][:80]!r}"
            )
    for one, other in combinations(splits, 2):
        # train1 and test1, xsub_train and xsub_val belong together; train1 and train2 do not.
        parts = [re.sub("train|val|test", "", name) for name in (one, other)]
        shared = sorted(set(splits[one]) & set(splits[other]))
        if parts[0] == parts[1] and shared:
            findings.append(
                f"{path} has {len(shared)} clips in both {one!r} and {other!r}, such as "
                f"{shared[0][:80]!r}"
            )
    return findings
