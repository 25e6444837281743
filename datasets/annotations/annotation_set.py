"""Clips of an annotation pickle: names, labels, splits, and keypoints as tracks."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations.kinetics import Decompression, decompress
from datasets.annotations.store import Store, load_store, open_store
from datasets.annotations.table import BROKEN, LISTED, NONE, array_at
from errors import InputError
from ops.skeleton import SkeletonLayout, layout_of_size

# The split of a file that names none.
EVERYTHING = "everything"


class AnnotationSet:
    """The clips of an annotation pickle. It can be sent to other processes at no cost.

    Attributes:
        path: the pickle.
        layout: of the joints; its `dims` are those of the keypoints.
        store: where the arrays lie.
        form: how lists of people become tracks.
    """

    def __init__(
        self, path: Path, layout: SkeletonLayout | None, store: Store, form: Decompression
    ) -> None:
        self.path, self.store, self.form = path, store, form
        self._layout = layout

    @property
    def layout(self) -> SkeletonLayout:
        """Return the layout of the joints."""
        assert self._layout is not None  # only checks work without one
        return self._layout

    @property
    def has_layout(self) -> bool:
        """Say whether the layout is known."""
        return self._layout is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all clips, in the order of the pickle."""
        return self.store.names

    @property
    def splits(self) -> Mapping[str, tuple[str, ...]]:
        """Return the clips of each split; a bare list is one, `EVERYTHING`."""
        return {EVERYTHING: self.names} if self.is_bare else self.store.splits

    @property
    def is_bare(self) -> bool:
        """Say whether the file has annotations and no splits."""
        return not self.store.splits

    def label(self, name: str) -> int | None:
        """Return the class of a clip, None where the pickle does not say it."""
        value = int(self._row(name)["label"])
        return None if value == NONE else value

    def num_frames(self, name: str) -> int:
        """Return how many frames `keypoints` has for a clip."""
        row = self._row(name)
        if row["form"] != LISTED:
            return int(row["frames"])
        if not self.form.squeeze:
            told = int(row["total_frames"])
            return told if told != NONE else int(self._frames(row).max(initial=0)) + 1
        if self.form.min_box_score > 0:
            return max(1, len(np.unique(self._people(name)[1])))
        return max(1, int(row["frames"]))

    def has_people(self, name: str) -> bool:
        """Say whether anybody listed for a clip has a box of the least score."""
        return len(self._people(name)[1]) > 0

    def size(self, name: str) -> tuple[int, int] | None:
        """Return (width, height) of the frames of a clip in pixels, None where it is not said."""
        row = self._row(name)
        return (int(row["width"]), int(row["height"])) if row["width"] else None

    def keypoints(self, name: str) -> np.ndarray:
        """Return the tracks of a clip.

        Returns:
            (N, M, V, D) float32: x, y in pixels and the confidence, or x, y, z in metres and the
            confidence. Joints without a score have confidence 1. Joints that are at the origin or
            have no score above 0 are undetected: exactly 0.

        Raises:
            InputError: the annotation is broken.
        """
        row = self._row(name)
        faults = self.store.faults.get(self.store.rows[name], ())
        is_broken = any(field in ("keypoint", "keypoint_score") for field, _ in faults)
        if row["form"] == BROKEN or is_broken or row["unusable"] or row["unusable_scores"]:
            raise InputError(
                f"{self.path}, clip {name[:80]!r} has no usable keypoints: look at it with "
                "tools/check_annotations.py, or leave it out"
            )
        with np.errstate(over="ignore"):
            return self._listed(name) if row["form"] == LISTED else self._tracks(row)

    def _tracks(self, row: np.void) -> np.ndarray:
        shape = tuple(int(row[part]) for part in ("people", "frames", "joints", "values"))
        places = array_at(self._data, row["keypoint_kind"], row["keypoint_at"], shape)
        found = np.empty((shape[1], shape[0], shape[2], shape[3] + 1), np.float32)
        found[..., :-1] = places.transpose(1, 0, 2, 3)
        if row["score_kind"] >= 0:
            score = array_at(self._data, row["score_kind"], row["score_at"], shape[:3])
            found[..., -1] = score.transpose(1, 0, 2)
        else:
            found[..., -1] = 1
        return _without_undetected(found)

    def _listed(self, name: str) -> np.ndarray:
        people, frames = self._people(name)
        num_frames = self.num_frames(name)
        if self.form.squeeze:
            frames = np.unique(frames, return_inverse=True)[1]
        tracks = decompress(people, frames, num_frames, self.form.max_people)
        return _without_undetected(tracks.astype(np.float32))

    def _people(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (E, V, 3) listed people and (E,) int64 frames of them."""
        row = self._row(name)
        count = int(row["entries"])
        people = array_at(
            self._data, row["keypoint_kind"], row["keypoint_at"], (count, int(row["joints"]), 3)
        )
        frames = self._frames(row)
        if self.form.min_box_score <= 0 or row["box_kind"] < 0:
            return people, frames
        boxes = array_at(self._data, row["box_kind"], row["box_at"], (count,))
        kept = boxes >= self.form.min_box_score
        return people[kept], frames[kept]

    def _frames(self, row: np.void) -> np.ndarray:
        """Return (E,) int64 frames of all listed people."""
        count = (int(row["entries"]),)
        frames = array_at(self._data, row["frame_inds_kind"], row["frame_inds_at"], count)
        return frames.astype(np.int64)

    def _row(self, name: str) -> np.void:
        place = self.store.rows.get(name)
        if place is None:
            raise InputError(f"{self.path} has no annotation of clip {name[:80]!r}")
        return self.store.table[place]

    @cached_property
    def _data(self) -> np.ndarray:
        return np.memmap(self.store.folder / "arrays.bin", np.uint8, "r")

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapped file would be sent as a copy of all that is in it.
        return _opened_again, (self.path, self._layout, self.store.folder, self.form)


def _opened_again(
    path: Path, layout: SkeletonLayout | None, folder: Path, form: Decompression
) -> AnnotationSet:
    return AnnotationSet(path, layout, load_store(folder), form)


def open_annotations(
    path: Path,
    layout: SkeletonLayout | None,
    cache: Path,
    keypoint_files: Path | None = None,
    form: Decompression | None = None,
) -> AnnotationSet:
    """Open an annotation pickle; it is read once, and kept as arrays below `cache`.

    Args:
        path: the pickle.
        layout: of its joints; None to tell it by their number.
        cache: folder for the arrays, made if need be.
        keypoint_files: folder of the pickles that hold the keypoints of a compressed file; None
            for the folder of the pickle.
        form: how lists of people become tracks; None for the published way.

    Raises:
        InputError: it cannot be read, is refused, or its joints are of another or no known layout.
    """
    found, fault = open_unchecked(path, layout, cache, keypoint_files, form)
    if fault:
        raise InputError(f"{path} {fault}")
    return found


def open_unchecked(
    path: Path,
    layout: SkeletonLayout | None,
    cache: Path,
    keypoint_files: Path | None = None,
    form: Decompression | None = None,
) -> tuple[AnnotationSet, str]:
    """Open an annotation pickle to look for what is wrong with it.

    Args:
        path: the pickle; it and the others as in `open_annotations`.
        layout: of its joints.
        cache: folder for the arrays.
        keypoint_files: folder of further pickles.
        form: how lists of people become tracks.

    Returns:
        The annotations, and what is wrong with their layout, "" for nothing.

    Raises:
        InputError: it cannot be read, or is refused.
    """
    store = open_store(path, cache, keypoint_files)
    known = layout_of(store, layout)
    fault = known if isinstance(known, str) else ""
    own = layout if isinstance(known, str) else known
    return AnnotationSet(path, own, store, form or Decompression()), fault


def layout_of(store: Store, layout: SkeletonLayout | None) -> SkeletonLayout | str:
    """Return the layout of a store's joints, or why it is not known, to follow the file's name."""
    usable = store.table[store.table["form"] != BROKEN]
    if not len(usable):
        first = next(iter(store.faults.values()), [("", "")])[0][1]
        return f"has no annotation with usable keypoints; the first {first}: check the file"
    shapes, counts = np.unique(
        np.stack((usable["joints"], coordinates(usable)), axis=1), axis=0, return_counts=True
    )
    V, dims = map(int, shapes[counts.argmax()])
    if layout is not None:
        if len(layout) != V:
            other = (
                "for a model that was trained on other joints convert the file with "
                "tools/convert_annotations.py"
            )
            if layout.dims != dims:
                other = (
                    f"a model of joints in {layout.dims} dimensions cannot see those in {dims}, "
                    "and nothing converts them"
                )
            return (
                f"has {V} joints in {dims} dimensions, {layout.name} has {len(layout)}: name the "
                f"layout of the file as --skeleton_layout; {other}"
            )
        return layout if layout.dims == dims else replace(layout, dims=dims)
    told = told_layout(V, dims)
    if told is None:
        is_unknown = layout_of_size(V, dims) is None
        known = "is no layout that we know" if is_unknown else "may be of several layouts"
        return (
            f"has {V} joints in {dims} dimensions, which {known}: name it with --skeleton_layout, "
            "or describe it in a JSON file"
        )
    return told


def told_layout(joints: int, dims: int) -> SkeletonLayout | None:
    """Return the layout that a number of joints in 2 or 3 dimensions tells; None for none."""
    guess = layout_of_size(joints, dims)
    is_clear = guess is not None and guess.dims == dims and (joints, dims) != (25, 2)
    return guess if is_clear else None


def coordinates(table: np.ndarray) -> np.ndarray:
    """Return the coordinates of a joint in each row: 2 or 3."""
    return np.where(table["form"] == LISTED, 2, table["values"].astype(np.int64))


def _without_undetected(tracks: np.ndarray) -> np.ndarray:
    """Make (..., V, D) joints without confidence or at the origin exactly 0, in place."""
    # One coordinate after the other: reductions over an axis of three are slow.
    seen = tracks[..., 0] != 0
    for axis in range(1, tracks.shape[-1] - 1):
        seen |= tracks[..., axis] != 0
    seen &= tracks[..., -1] > 0
    np.copyto(tracks, 0, where=~seen[..., None])
    return tracks
