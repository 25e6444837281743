"""What a model of the skeleton zoo sees of a clip: a whole clip of skeletons, as streams or boxes.

Graph networks see coordinates, normalised and turned into streams (joints, bones, their motions)
on the whole clip before frames are picked. Heatmap models see pixels in a square box around the
people, in which the model draws. Beside RGB the skeletons go through the same crop and mirror as
the frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from datasets.sampling import pad_to, sample_spread, sample_uniform
from ops.body_frame import normalize_keypoints
from ops.pose_augment import SkeletonAugmentation
from ops.pose_space import (
    Box,
    PeopleOrder,
    PeoplePadding,
    center_crop,
    compact_box,
    crop_tracks,
    draw_crop,
    fit_people,
    order_people,
    prenormalize_2d,
    prenormalize_2d_auto,
    prenormalize_3d,
    resize_tracks,
    short_side_size,
    without_empty_places,
)
from ops.skeleton import SkeletonLayout
from ops.streams import skeleton_streams
from options.skeletons import PIXEL_NORMALIZATIONS
from transforms import CropBox, Geometry

Sampling = Literal["uniform", "spread", "pad_zero", "pad_loop"]
_UNCHANGED = SkeletonAugmentation()
# Sides in tests by those in training.
_TEST_SHARE = 8 / 7
# Sides of volumes in tests are multiples of this: 56 for 48 and 64 for 56, as published.
_VOLUME_GRID = 4
# A frame of fewer pixels is none: its joints are in shares of it, or in sizes of the person.
_LEAST_FRAME = 16
_DRAWN_FRAME = 512


@dataclass(frozen=True, slots=True)
class SkeletonSpec:
    """What a model of the zoo sees of a clip.

    Attributes:
        length: frames, L.
        num_people: M: the first people of the clip, and nobody in places left over; volumes show
            at most as many.
        streams: of graph networks; for volumes no matter.
        is_volume: x, y are pixels of a square in which heatmaps are drawn.
        normalize: frame of reference of graph networks, see `--pose_normalize`.
        sampling: which frames.
        people_order: who comes first; "given": whoever does in the file.
        people_padding: what is in places left over; "loop": the same people again. Volumes have
            no such places.
        volume_size: side of volumes in training, pixels.
        augmentation: of training clips.
        crop: least share of a training clip that is seen.
        moves_with_frames: skeletons follow the crop and the mirror of RGB frames.
        frame_share: side of volumes by that of the frames, where they follow these exactly, box
            and all; None: a box of their own.
        double: tests see the mirrored volume, too.
    """

    length: int
    num_people: int = 2
    streams: tuple[str, ...] = ("joint",)
    is_volume: bool = False
    normalize: str = "image"
    sampling: Sampling = "uniform"
    people_order: PeopleOrder | Literal["given"] = "given"
    people_padding: PeoplePadding = "zero"
    volume_size: int = 56
    augmentation: SkeletonAugmentation = field(default_factory=SkeletonAugmentation)
    crop: float = 1.0
    moves_with_frames: bool = False
    frame_share: float | None = None
    double: bool = False

    @property
    def needs_size(self) -> bool:
        """Say whether keypoints are used in pixels of frames, whose size must be known."""
        return self.normalize in PIXEL_NORMALIZATIONS and not self.is_volume

    def in_order(self, tracks: np.ndarray) -> np.ndarray:
        """Return (N, M, V, D) tracks of a whole clip, whom the model sees first in front."""
        return tracks if self.people_order == "given" else order_people(tracks, self.people_order)


@dataclass(frozen=True, slots=True)
class SkeletonViews:
    """R views of a clip of skeletons.

    Attributes:
        skeletons: (R, L, M, V, C) float32.
        present: (R, L, M) bool, see `Batch`.
        mirrored: (R,) bool; None where no view is mirrored after it was drawn.
        volume_size: (height, width); None for graph networks.
    """

    skeletons: Tensor
    present: Tensor
    mirrored: Tensor | None = None
    volume_size: tuple[int, int] | None = None


def skeleton_views(
    spec: SkeletonSpec,
    tracks: np.ndarray,
    size: tuple[int, int],
    layout: SkeletonLayout,
    num_clips: int = 1,
    rng: np.random.Generator | None = None,
    crops: Sequence[Geometry] = (),
    windows: np.ndarray | None = None,
) -> SkeletonViews:
    """Turn the keypoints of a clip into the views that a model of the zoo sees.

    Args:
        spec: of the model's input.
        tracks: (N, M, V, D) of the whole clip, in pixels of its frames or in metres.
        size: (width, height) of the frames.
        layout: of the keypoints.
        num_clips: samplings.
        rng: draws, for training; None is deterministic.
        crops: of RGB frames, which the skeletons follow.
        windows: (num_clips, 2) first and last frame of each sampling's RGB segments, where these
            are not spread over the clip; what lies behind its end is the last frame.

    Returns:
        Views in the order of `make_views`: the crops of a sampling adjacent.
    """
    tracks = spec.in_order(tracks)
    if spec.people_padding == "loop":  # files have places for people who never come
        tracks = without_empty_places(tracks)
    augmentation = _UNCHANGED if rng is None else spec.augmentation
    if rng is not None and augmentation != _UNCHANGED and layout.dims == 2:
        tracks = augmentation.apply(tracks, layout, rng, size[0])
    moved = [tracks]
    if spec.moves_with_frames and crops:
        moved = [crop.apply_to_keypoints(tracks, layout) for crop in crops]
        size = (crops[0].out_size, crops[0].out_size)
    volume_size = None
    if spec.is_volume:
        picks = _pick(spec, len(tracks), num_clips, rng, windows)
        placed = [_volume_tracks(spec, track, size, rng, picks) for track in moved]
        features, volume_size = [track for track, _ in placed], placed[0][1]
        seen = features
    else:
        seen = [_normalized(spec, track, size, layout) for track in moved]
        if rng is not None and augmentation != _UNCHANGED and layout.dims == 3:
            # Around the axes of the body, which normalisation has found.
            seen = [augmentation.apply(track, layout, rng) for track in seen]
        features = [skeleton_streams(track, layout, spec.streams) for track in seen]
        picks = _pick(spec, len(features[0]), num_clips, rng, windows)
    rows = _rows(spec, features, picks)
    people = [np.max(track[..., -1:], axis=2, keepdims=True) for track in seen]  # (N, M, 1, 1)
    present = _rows(spec, people, picks)[..., 0, 0] > 0
    mirrored = None
    if spec.double and rng is None:
        rows, present = np.repeat(rows, 2, axis=0), np.repeat(present, 2, axis=0)
        mirrored = torch.arange(len(rows)) % 2 == 1
    return SkeletonViews(torch.from_numpy(rows), torch.from_numpy(present), mirrored, volume_size)


# ---------------------------------------------------------------- which frames


def frame_windows(picks: np.ndarray, interval: int | None) -> np.ndarray | None:
    """Return (n, 2) first and last frame of the windows that segments of RGB are taken from.

    Args:
        picks: (n, T) frames of the segments; behind the end of a short clip its last frame.
        interval: frames from one to the next; None where they are spread over the clip, and so are
            skeletons: then None.
    """
    if interval is None:
        return None
    return np.stack((picks[:, 0], picks[:, 0] + interval * (picks.shape[1] - 1)), axis=1)


def _pick(
    spec: SkeletonSpec,
    num_frames: int,
    num_clips: int,
    rng: np.random.Generator | None,
    windows: np.ndarray | None,
) -> np.ndarray:
    """Return the frames (num_clips, L) of each sampling; -1 where a frame is to be empty."""
    if spec.sampling.startswith("pad"):
        kept = np.arange(min(num_frames, spec.length))[:, None]
        mode = "loop" if spec.sampling == "pad_loop" else "zero"
        row = pad_to(kept + 1, spec.length, mode)[:, 0] - 1  # type: ignore[arg-type]
        return np.repeat(row[None], num_clips, axis=0)
    if windows is not None:
        rows = [
            first + sample_spread(int(last - first) + 1, spec.length, 1, rng)[0]
            for first, last in windows
        ]
        return np.minimum(np.stack(rows), num_frames - 1)
    if spec.sampling == "spread":
        return sample_spread(num_frames, spec.length, num_clips, rng)
    part = (spec.crop, 1.0) if rng is not None else (1.0, 1.0)
    return sample_uniform(num_frames, spec.length, num_clips, rng, part)


def _rows(spec: SkeletonSpec, crops: Sequence[np.ndarray], picks: np.ndarray) -> np.ndarray:
    """Return (n * crops, L, M, V, C) of (N, M', V, C) values of each crop: the picked frames."""
    people = spec.num_people
    if spec.is_volume:  # each person is drawn: no places are left over
        people = min(people, max(crops[0].shape[1], 1))
    taken = np.stack(
        [fit_people(values, people, spec.people_padding)[picks] for values in crops], axis=1
    )
    taken[np.broadcast_to(picks[:, None] < 0, taken.shape[:3])] = 0
    return taken.reshape(-1, *taken.shape[2:])


# ---------------------------------------------------------------- coordinates


def _normalized(
    spec: SkeletonSpec, tracks: np.ndarray, size: tuple[int, int], layout: SkeletonLayout
) -> np.ndarray:
    is_image = spec.normalize.startswith("image")
    if spec.normalize == "spine" or (is_image and layout.dims == 3):
        return prenormalize_3d(tracks, layout)  # frames without the main person are gone
    if spec.normalize == "auto":
        return prenormalize_2d_auto(tracks)
    if is_image:
        keeps = spec.normalize == "image_keep"
        return prenormalize_2d(tracks, size, "keep" if keeps else "zero")
    if spec.normalize == "clip":
        return normalize_keypoints(tracks, "clip", layout)
    return tracks.astype(np.float32)


def _volume_tracks(
    spec: SkeletonSpec,
    tracks: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator | None,
    picks: np.ndarray,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the tracks in pixels of the volume, and its (height, width)."""
    if spec.frame_share is not None:
        side = round(size[0] * spec.frame_share)
        return resize_tracks(tracks, size, (side, side)), (side, side)
    if min(size) < _LEAST_FRAME:  # boxes are in whole pixels, and none is around ten and fewer
        drawn = short_side_size(size, _DRAWN_FRAME)
        tracks, size = resize_tracks(tracks, size, drawn), drawn
    # The box is around the people of the frames that are seen, as published.
    box = compact_box(tracks[np.unique(picks)]) or Box(0, 0, *size)
    tracks, size = crop_tracks(tracks, box), box.size
    test_side = volume_test_side(spec.volume_size)
    short = short_side_size(size, test_side)
    tracks = resize_tracks(tracks, size, short)
    if rng is None:
        box = center_crop(short, (test_side, test_side))
        return crop_tracks(tracks, box), (test_side, test_side)
    box = draw_crop(short, rng)
    side = spec.volume_size
    return resize_tracks(crop_tracks(tracks, box), box.size, (side, side)), (side, side)


def volume_test_side(side: int) -> int:
    """Return the side of heatmap volumes in tests by that in training, as published.

    Source: Duan et al. 2022, arXiv:2104.13586; the configurations of its published weights.
    """
    return max(side, _VOLUME_GRID * round(side * _TEST_SHARE / _VOLUME_GRID))


def people_geometry(
    size: tuple[int, int],
    tracks: np.ndarray,
    side: int,
    rng: np.random.Generator | None,
    may_flip: bool,
) -> Geometry:
    """Return the crop of frames around the people of a clip, as RGBPose-Conv3D is shown them.

    The square around everybody, a quarter larger than they are; it may reach beyond the frame,
    where frames are black. Training draws a box in it (56 to 100 % of the area), and a mirror.
    Without anybody it is the square over the frame's short side, in its middle.

    Args:
        size: (width, height) of the frames.
        tracks: (N, M, V, 3) in pixels.
        side: of the network's input in training; tests see 8/7 of it.
        rng: draws, for training; None is deterministic.
        may_flip: training may mirror a clip.

    Source: Duan et al. 2022, arXiv:2104.13586, section 3.3.
    """
    near = tracks.copy()
    for axis, whole in enumerate(size):  # a joint that lies anywhere makes no picture of gigabytes
        near[..., axis] = tracks[..., axis].clip(-whole, 2 * whole)
    found = compact_box(near) or center_crop(size, (min(size), min(size)))
    if rng is None:
        return Geometry(CropBox(*found[:2], *found.size), round(side * _TEST_SHARE))
    box = draw_crop(found.size, rng)
    drawn = CropBox(found.left + box.left, found.top + box.top, *box.size)
    return Geometry(drawn, side, may_flip and bool(rng.integers(2)))
