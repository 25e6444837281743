"""What a network sees of a clip's frames and keypoints: in training, tests and prediction."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from datasets.pose_views import SkeletonSpec
from ops.body_frame import BodyTrack, Normalization, normalize_keypoints
from ops.heatmap import joint_heatmap
from ops.skeleton import COCO17, SkeletonLayout
from transforms import Augmentation, FieldOfView, Geometry, mirrored

# `--heatmap_sigma` is in pixels of a frame with this short side.
_SIGMA_SHORT_SIDE = 360
# The published heatmap is stored in 8 bits: below one step its mask is 0.
_MASK_THRESHOLD = 1 / 255


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network sees of one view of a clip.

    Attributes:
        num_segments: frames, T.
        input_size: side of the crop in pixels, S.
        interval: frames between segments; None spreads them over the clip.
        has_frames: RGB frames are part of the input.
        has_poses: keypoints are part of the input, or drawn into it.
        heatmap_channel: append the heatmap to RGB.
        mask_background: black out RGB where the heatmap is 0.
        heatmap_sigma: of a joint, in pixels of a frame with a short side of 360.
        pose_normalize: frame of reference of the keypoints.
        field_of_view: crops are squares over the short side, or have the shape of the frame.
        num_people: M; clips with fewer are filled up with undetected people.
        skeleton: what a model of whole clips sees of the skeletons; None: single frames are seen.
    """

    num_segments: int
    input_size: int
    interval: int | None = None
    has_frames: bool = True
    has_poses: bool = True
    heatmap_channel: bool = False
    mask_background: bool = False
    heatmap_sigma: float = 10.0
    pose_normalize: Normalization = "clip"
    field_of_view: FieldOfView = "square"
    num_people: int = 1
    skeleton: SkeletonSpec | None = None

    @property
    def needs_size(self) -> bool:
        """Say whether keypoints are used in pixels, so that the size of the frames matters."""
        if self.skeleton is not None:
            return self.skeleton.needs_size
        return self.pose_normalize == "none"

    @property
    def draws_heatmap(self) -> bool:
        """Say whether keypoints are drawn into what the network sees of the frames."""
        return self.heatmap_channel or self.mask_background


@dataclass(frozen=True, slots=True)
class Crop:
    """One way to look at the frames of a clip."""

    geometry: Geometry
    augmentation: Augmentation | None = None

    def finish(self, frames: np.ndarray, is_mirrored: bool) -> np.ndarray:
        """Mirror, unless they are, and augment (T, S, S, 3) uint8 frames cut and resized."""
        frames = mirrored(frames) if self.geometry.flip != is_mirrored else frames
        return self.augmentation.apply_to_frames(frames) if self.augmentation else frames

    def apply_to_frames(self, frames: np.ndarray) -> np.ndarray:
        """Turn (T, H, W, 3) uint8 frames into (T, S, S, 3)."""
        frames = self.geometry.apply_to_frames(frames)
        return self.augmentation.apply_to_frames(frames) if self.augmentation else frames

    def apply_to_keypoints(self, keypoints: np.ndarray, layout: SkeletonLayout) -> np.ndarray:
        """Move (..., V, 3) keypoints along."""
        keypoints = self.geometry.apply_to_keypoints(keypoints, layout)
        if self.augmentation is None:
            return keypoints
        return self.augmentation.apply_to_keypoints(keypoints, self.geometry.out_size)


class CutFrames(Sequence[np.ndarray]):
    """The frames of a clip as its crops show them: item i is (U, S, S, 3) uint8 of crop i.

    Each frame is cut and resized once for each distinct box, while it is still in the processor's
    cache, and is then let go. Mirrored crops share what their twins made.
    """

    def __init__(self, frames: Iterable[np.ndarray], count: int, crops: Sequence[Crop]) -> None:
        """Cut frames.

        Args:
            frames: U of them, (H, W, 3) uint8, or smaller by the reduction of the crops.
            count: U.
            crops: of each frame.
        """
        self._crops = crops
        # By distinct box: whether its first crop is mirrored, and its frames, which are so too.
        self._cut: dict[Geometry, tuple[bool, np.ndarray]] = {}
        for geometry in (crop.geometry for crop in crops):
            shape = (count, geometry.out_size, geometry.out_size, 3)
            if geometry.unflipped not in self._cut:
                self._cut[geometry.unflipped] = geometry.flip, np.empty(shape, np.uint8)
        for frame, number in zip(frames, range(count), strict=True):
            for geometry, (is_mirrored, out) in self._cut.items():
                if is_mirrored:
                    cv2.flip(geometry.resize(frame), 1, dst=out[number])
                else:
                    out[number] = geometry.resize(frame)

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, number: Any) -> Any:
        crop = self._crops[number]
        is_mirrored, frames = self._cut[crop.geometry.unflipped]
        return crop.finish(frames, is_mirrored)


@dataclass(frozen=True, slots=True)
class Views:
    """What a network sees of a clip: R = samplings x crops rows, the crops of a sampling adjacent.

    Attributes:
        frames: (R, T, 3, S, S) uint8, each pixel's channels adjacent in memory; None for skeletons
            alone.
        heatmap: (R, T, S, S) float32 in 0-1; None where it is no channel of the input.
        keypoints: (R, T, M, V, 3) float32; None for RGB alone.
    """

    frames: Tensor | None = None
    heatmap: Tensor | None = None
    keypoints: Tensor | None = None


def make_views(
    spec: InputSpec,
    crops: Sequence[Crop],
    place: np.ndarray,
    images: Sequence[np.ndarray] | None,
    tracks: np.ndarray | None,
    rows: np.ndarray,
    size: tuple[int, int],
    layout: SkeletonLayout = COCO17,
    body: BodyTrack | None = None,
) -> Views:
    """Turn the used frames and the keypoints of a clip into the views that a network sees.

    Args:
        spec: of the network's input.
        crops: of each frame.
        place: (n, T) rows of the used frames: those of each sampling.
        images: for each crop (U, S, S, 3) uint8, the frames that any sampling uses, as the crop
            shows them; None for skeletons alone.
        tracks: (N, M, V, 3) keypoints of the clip in pixels of its frames; None for RGB alone.
        rows: (U,) the row of `tracks` that belongs to each used frame.
        size: (width, height) of the frames.
        layout: of the keypoints.
        body: of `tracks`, where it has been measured before.
    """
    keypoints, frames, heatmaps = (_Rows(place, len(crops)) for _ in range(3))
    if tracks is not None:
        tracks = fit_people(tracks, spec.num_people)
        if spec.pose_normalize == "clip" and body is None:
            body = BodyTrack.of(tracks, layout)
        for number, crop in enumerate(crops):
            keypoints.put(number, _see_keypoints(spec, crop, tracks, rows, layout, body))
    if images is not None:
        drawn = tracks[rows] if tracks is not None and spec.draws_heatmap else None
        for number, heatmap in _draw_heatmaps(spec, crops, drawn, size, layout):
            frames.put(number, mask_frames(spec, images[number], heatmap))
            if heatmap is not None and spec.heatmap_channel:
                heatmaps.put(number, heatmap)
    seen = frames.tensor()
    return Views(
        None if seen is None else seen.movedim(-1, 2), heatmaps.tensor(), keypoints.tensor()
    )


def _see_keypoints(
    spec: InputSpec,
    crop: Crop,
    tracks: np.ndarray,
    rows: np.ndarray,
    layout: SkeletonLayout,
    body: BodyTrack | None,
) -> np.ndarray:
    """Return the keypoints of the used frames, (U, M, V, 3) float32, as a network sees them.

    The frame of reference of a clip comes from all of its frames, so that views share it.
    """
    mode = spec.pose_normalize
    if mode == "clip" and crop.augmentation is not None:  # which may turn and shear the body
        return normalize_keypoints(crop.apply_to_keypoints(tracks, layout), mode, layout)[rows]
    moved = crop.apply_to_keypoints(tracks[rows], layout)
    if mode != "clip" or body is None:
        return normalize_keypoints(moved, mode, layout)
    geometry, box = crop.geometry, crop.geometry.box
    origin = (body.origin - (box.left, box.top)) * geometry.scale
    if geometry.flip:
        origin[0] = geometry.out_size - origin[0]
    moved[..., :2] = (moved[..., :2] - origin) / body.unit(geometry.scale)
    moved[moved[..., 2] <= 0] = 0
    return moved


def _draw_heatmaps(
    spec: InputSpec,
    crops: Sequence[Crop],
    tracks: np.ndarray | None,
    size: tuple[int, int],
    layout: SkeletonLayout,
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yield the number of each crop, in any order, and its heatmap, see `draw_heatmap`.

    Crops that differ by a mirror follow each other and share what is drawn.
    """
    first: dict[Geometry, int] = {}
    for number, crop in enumerate(crops):
        first.setdefault(crop.geometry.unflipped, number)
    order = sorted(range(len(crops)), key=lambda n: first[crops[n].geometry.unflipped])
    before: Crop | None = None
    heatmap: np.ndarray | None = None
    for number in order:
        crop = crops[number]
        if tracks is not None and (before is None or not _are_twins(before, crop)):
            heatmap = draw_heatmap(spec, crop, tracks, size, layout)
        elif heatmap is not None and before is not None:
            heatmap = mirrored(heatmap) if before.geometry.flip != crop.geometry.flip else heatmap
        before = crop
        yield number, heatmap


def _are_twins(one: Crop, other: Crop) -> bool:
    is_plain = one.augmentation is None and other.augmentation is None
    return is_plain and one.geometry.unflipped == other.geometry.unflipped


def draw_heatmap(
    spec: InputSpec,
    crop: Crop,
    tracks: np.ndarray,
    size: tuple[int, int],
    layout: SkeletonLayout = COCO17,
) -> np.ndarray:
    """Draw the joints as a crop shows them.

    A mirrored crop's heatmap is the mirror image of its twin's, to the last bit.

    Args:
        spec: of the network's input.
        crop: to apply.
        tracks: (U, M, V, 3) keypoints in pixels of the frames.
        size: (width, height) of the frames.
        layout: of the keypoints.

    Returns:
        (U, S, S) float32 in 0-1.
    """
    is_mirrored = crop.geometry.flip and crop.augmentation is None
    shown = replace(crop, geometry=crop.geometry.unflipped) if is_mirrored else crop
    sigma = spec.heatmap_sigma * min(size) / _SIGMA_SHORT_SIDE
    scale_x, scale_y = crop.geometry.scale
    points = shown.apply_to_keypoints(tracks, layout)
    side = spec.input_size
    heatmap = joint_heatmap(points, side, side, (sigma * scale_x, sigma * scale_y))
    return mirrored(heatmap) if is_mirrored else heatmap


def see_frames(
    spec: InputSpec,
    images: np.ndarray,
    crop: Crop,
    tracks: np.ndarray | None,
    size: tuple[int, int],
    layout: SkeletonLayout = COCO17,
) -> tuple[Tensor, Tensor | None]:
    """Turn frames into what the network sees of them; each frame stands for itself.

    Args:
        spec: of the network's input.
        images: (U, S, S, 3) uint8, as the crop shows them.
        crop: that was applied.
        tracks: (U, M, V, 3) keypoints in pixels of the frames; None where none are drawn.
        size: (width, height) of the frames.
        layout: of the keypoints.

    Returns:
        Frames (U, 3, S, S) uint8 and, where it is a channel of the input, heatmap (U, S, S).
    """
    heatmap = None if tracks is None else draw_heatmap(spec, crop, tracks, size, layout)
    frames = torch.from_numpy(mask_frames(spec, images, heatmap)).movedim(-1, 1)
    is_channel = heatmap is not None and spec.heatmap_channel
    return frames, torch.from_numpy(heatmap) if is_channel else None


def mask_frames(spec: InputSpec, frames: np.ndarray, heatmap: np.ndarray | None) -> np.ndarray:
    """Black out (U, S, S, 3) uint8 frames where the heatmap (U, S, S) is 0, if `spec` says so.

    The published early fusion does so by accident, by resizing its heatmap as an alpha plane.
    """
    if heatmap is None or not spec.mask_background:
        return frames
    return frames * (heatmap > _MASK_THRESHOLD)[..., None]


def fit_people(keypoints: np.ndarray, num_people: int) -> np.ndarray:
    """Keep the first `num_people` of (N, M, V, 3), or add undetected ones."""
    missing = max(num_people - keypoints.shape[1], 0)
    kept = keypoints[:, :num_people]
    return np.pad(kept, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else kept


class _Rows:
    """Values (R, T, ...) of all samplings and crops, put together crop by crop.

    Args:
        place: (n, T) rows of the U used frames, the frames of each sampling.
        num_crops: of each frame.
    """

    def __init__(self, place: np.ndarray, num_crops: int) -> None:
        self._place, self._num_crops = place, num_crops
        self._out: np.ndarray | None = None

    def put(self, number: int, values: np.ndarray) -> None:
        """Give crop `number` its values, (U, ...)."""
        if self._num_crops == 1 and np.array_equal(self._place, [np.arange(len(values))]):
            self._out = values[None, None]  # as in training: nothing to copy
            return
        if self._out is None:
            lead = len(self._place), self._num_crops, self._place.shape[1]
            self._out = np.empty((*lead, *values.shape[1:]), values.dtype)
        for out, rows in zip(self._out[:, number], self._place, strict=True):
            # Straight to its place: numpy would check, and hold a copy, without "clip".
            np.take(values, rows, axis=0, out=out, mode="clip")

    def tensor(self) -> Tensor | None:
        """Return (n * crops, T, ...); None where nothing was put."""
        return None if self._out is None else torch.from_numpy(self._out).flatten(0, 1)
