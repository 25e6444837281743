"""Clips out of an annotation pickle as a data set: lists, keypoints and, beside RGB, frames."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from console import warn
from datasets.annotations.annotation_set import EVERYTHING, AnnotationSet, open_annotations
from datasets.annotations.choosing import Chosen, choose_clips
from datasets.annotations.kinetics import Decompression
from datasets.catalogue import DatasetRow
from datasets.clip_table import load_table
from datasets.poses import Poses
from datasets.records import ClipRecord
from datasets.scan import NOMINAL_SIZE, Clip, PoseReport
from datasets.sources import find_frames
from errors import InputError
from ops.skeleton import COCO17, SkeletonLayout
from options.skeletons import (
    FRAME_MODELS,
    PIXEL_NORMALIZATIONS,
    draws_volumes,
    has_pose_stream,
    layout_of,
    needs_frames,
)

SPLITS = ("train", "val", "test")
_NOTHING = np.zeros((0, 0, 0, 3), np.float32)


@dataclass(frozen=True, slots=True)
class AnnotatedPoses:
    """The keypoints of one clip of an annotation pickle.

    Attributes:
        found: the annotations.
        name: of the clip.
    """

    found: AnnotationSet
    name: str

    @property
    def path(self) -> Path:
        """Return where they come from, for messages."""
        return self.found.path / self.name

    def load(self) -> Poses:
        """Return the keypoints; a copy of what is mapped into memory."""
        return Poses(self.found.keypoints(self.name), self.found.size(self.name))


@dataclass(frozen=True, slots=True)
class AnnotatedClips:
    """The clips of the splits that the options name.

    Attributes:
        found: the annotations.
        chosen: list -> records.
    """

    found: AnnotationSet
    chosen: Chosen

    @property
    def layout(self) -> SkeletonLayout:
        """Return the layout of the joints."""
        return self.found.layout

    def clips(
        self, records: Sequence[ClipRecord], frames: Path | None, *, needs_size: bool
    ) -> tuple[tuple[Clip, ...], PoseReport]:
        """Return the clips of a list.

        Args:
            records: the list.
            frames: folder of the data set that has their frames; None for skeletons alone.
            needs_size: the network sees pixels: the size of the frames must be known.

        Raises:
            InputError: a clip has no frames, or their size is not known.
        """
        if frames is not None and self.layout.dims != 2:
            raise InputError(
                f"{self.found.path} has joints in {self.layout.dims} dimensions, which do not "
                "follow the crops of frames: give keypoints in pixels, or train on skeletons alone"
            )
        table = load_table(frames) if frames else {}

        def clip_of(record: ClipRecord) -> Clip:
            images = find_frames(frames, record, table) if frames else None
            own = self.found.size(record.name)
            size = images.size() if images else own
            if images and own and size and not Poses(_NOTHING, own).fits(size):
                raise InputError(
                    f"{self.found.path}, clip {record.name[:80]!r} is for frames of "
                    f"{own[0]}x{own[1]} pixels, those that were found have {size[0]}x{size[1]}: "
                    "correct its img_shape (height, width), or the frames"
                )
            if size is None and needs_size and self.layout.dims == 2:
                raise InputError(
                    f"{self.found.path}, clip {record.name[:80]!r} has no img_shape, by which "
                    "pixels are measured: add it, give --pose_normalize auto or clip, or leave "
                    "such clips out with --skip_broken"
                )
            poses = AnnotatedPoses(self.found, record.name)
            # Keypoints are read when they are used: they are mapped, so that costs next to nothing.
            return Clip(record, images, poses, size or NOMINAL_SIZE)

        return tuple(map(clip_of, records)), PoseReport(len(records), 0, "error")


def open_annotated(args: argparse.Namespace, cache: Path) -> AnnotatedClips:
    """Open the pickle of `--annotations`, and choose the clips of its splits.

    Raises:
        InputError: it cannot be read, lacks a split, or has broken clips.
    """
    found = open_annotations(
        args.annotations,
        layout_of(args.skeleton_layout),
        cache,
        args.keypoint_files,
        # Beside RGB every frame keeps its place, with nobody in it, too.
        Decompression(squeeze=not needs_frames(args), min_box_score=args.min_box_score),
    )
    _refuse_layout(args, found)
    chosen = choose_clips(
        found,
        _splits(args, found),
        skip=args.skip_broken,
        num_classes=len(args.class_names) if args.class_names else None,
        used=_used(args),
        allow_overlap=args.allow_overlap,
        needs_size=_needs_size(args, found),
    )
    for line in chosen.warnings:
        warn(line)
    left_out = {clip for clips in chosen.left_out.values() for clip in clips}
    if left_out:
        warn(f"{found.path}: {len(left_out)} broken clips were left out (--skip_broken)")
    return AnnotatedClips(found, chosen)


def _used(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the lists that are used: all of them in training, in tests what is tested or tuned."""
    if not getattr(args, "weights", None):
        return SPLITS
    needs_val = getattr(args, "tune_on_val", False) or getattr(args, "calibrate", False)
    return (args.split, "val") if needs_val else (args.split,)


def _needs_size(args: argparse.Namespace, found: AnnotationSet) -> bool:
    """Say whether the annotations have to say the size of the frames."""
    in_pixels = args.pose_normalize in PIXEL_NORMALIZATIONS and not draws_volumes(args)
    return in_pixels and found.layout.dims == 2 and not needs_frames(args)


def _refuse_layout(args: argparse.Namespace, found: AnnotationSet) -> None:
    """Refuse joints that the model does not know, before anything is made of them.

    Raises:
        InputError: they are of another layout than the only one that it sees.
    """
    sees_frames_alone = has_pose_stream(args) and args.pose_model in FRAME_MODELS
    is_coco = found.layout.name == COCO17.name and found.layout.dims == COCO17.dims
    if sees_frames_alone and not is_coco:
        raise InputError(
            f"{found.path} has the joints of {found.layout.name} in {found.layout.dims} "
            f"dimensions, --pose_model {args.pose_model} sees those of {COCO17.name} in pixels "
            "alone: give a graph network such as --pose_model stgcnpp"
        )


def _splits(args: argparse.Namespace, found: AnnotationSet) -> dict[str, str | None]:
    """Return the name of each list's split in the pickle; None for none."""
    names: dict[str, str | None] = {}
    is_test, given = bool(getattr(args, "weights", None)), getattr(args, "given", ())
    for split in SPLITS:
        named = getattr(args, f"{split}_split")
        if is_test and named not in found.splits and f"{split}_split" not in given:
            named = None  # of the pickle that the model was trained with
        names[split] = named or (split if split in found.splits else None)
    if is_test and found.is_bare and names["val"] is None and args.split == "val":
        return {"train": EVERYTHING, "val": None, "test": None}  # val is cut off, as in training
    if names["train"] is None and not is_test:
        if not found.is_bare:
            known = ", ".join(found.splits)
            raise InputError(
                f"{found.path} has no split 'train': give --train_split one of {known}"
            )
        names["train"] = EVERYTHING
    if names["test"] is None:
        # A bare list has one split: training cuts val off it, tests of another model take it whole.
        is_tested = is_test and found.is_bare
        own_val = None if names["val"] == names["train"] else names["val"]
        names["test"] = EVERYTHING if is_tested else own_val
    return names


def row_of(row: DatasetRow, annotated: AnnotatedClips) -> tuple[DatasetRow, tuple[str, ...]]:
    """Return the row of a data set with the layout of the pickle, and names of its classes."""
    count = annotated.chosen.num_classes
    names = row.class_names if row.class_names and len(row.class_names) == count else None
    classes = names or tuple(f"class {label}" for label in range(count))
    new = DatasetRow(row.name, row.folder, count, names, row.may_flip, annotated.layout, row.fps)
    return new, classes
