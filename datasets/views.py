"""What a network sees of a clip's frames and keypoints: in training, tests and prediction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ops.heatmap import joint_heatmap
from ops.skeleton import COCO17, Normalization, SkeletonLayout, normalize_keypoints
from transforms import Augmentation, FieldOfView, Geometry, to_network_input

# `--heatmap_sigma` is in pixels of a frame with this short side.
_SIGMA_SHORT_SIDE = 360


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


@dataclass(frozen=True, slots=True)
class Crop:
    """One way to look at the frames of a clip."""

    geometry: Geometry
    augmentation: Augmentation | None = None

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


def make_views(
    spec: InputSpec,
    crops: Sequence[Crop],
    place: np.ndarray,
    images: np.ndarray | None,
    tracks: np.ndarray | None,
    rows: np.ndarray,
    size: tuple[int, int],
    layout: SkeletonLayout = COCO17,
) -> tuple[Tensor | None, Tensor | None]:
    """Turn the used frames and the keypoints of a clip into the views that a network sees.

    Args:
        spec: of the network's input.
        crops: of each frame.
        place: (n, T) rows of `images`: the frames of each sampling.
        images: (U, H, W, 3) uint8, the frames that any sampling uses; None for skeletons alone.
        tracks: (N, M, V, 3) keypoints of the clip in pixels of its frames; None for RGB alone.
        rows: (U,) the row of `tracks` that belongs to each used frame.
        size: (width, height) of the frames.
        layout: of the keypoints.

    Returns:
        Frames (n * crops, T, C, S, S) and keypoints (n * crops, T, M, V, 3), or None.
    """
    keypoints = frames = None
    drawn: list[np.ndarray | None] = [None] * len(crops)
    if tracks is not None:
        tracks = fit_people(tracks, spec.num_people)
        # The frame of reference comes from all frames, so that views of a clip share it.
        moved = [crop.apply_to_keypoints(tracks, layout) for crop in crops]
        drawn = [track[rows] for track in moved]
        normalized = (
            normalize_keypoints(track, spec.pose_normalize, layout)[rows] for track in moved
        )
        keypoints = _arrange(normalized, place, len(crops))
    if images is not None:
        rendered = (
            render_frames(spec, images, crop, track, size)
            for crop, track in zip(crops, drawn, strict=True)
        )
        frames = _arrange(rendered, place, len(crops))
    return frames, keypoints


def render_frames(
    spec: InputSpec,
    images: np.ndarray,
    crop: Crop,
    track: np.ndarray | None,
    size: tuple[int, int],
) -> Tensor:
    """Turn frames into what the network sees of them; each frame stands for itself.

    Args:
        spec: of the network's input.
        images: (U, H, W, 3) uint8.
        crop: to apply.
        track: (U, M, V, 3) keypoints in pixels of the crop; None where none are drawn.
        size: (width, height) of the frames.

    Returns:
        (U, C, S, S) float32, normalised.
    """
    side, heatmap = spec.input_size, None
    if track is not None and (spec.heatmap_channel or spec.mask_background):
        sigma = spec.heatmap_sigma * min(size) / _SIGMA_SHORT_SIDE
        scale_x, scale_y = crop.geometry.scale
        heatmap = joint_heatmap(track, side, side, (sigma * scale_x, sigma * scale_y))
    return to_network_input(
        crop.apply_to_frames(images),
        heatmap,
        as_channel=spec.heatmap_channel,
        mask_background=spec.mask_background,
    )


def fit_people(keypoints: np.ndarray, num_people: int) -> np.ndarray:
    """Keep the first `num_people` of (N, M, V, 3), or add undetected ones."""
    missing = max(num_people - keypoints.shape[1], 0)
    kept = keypoints[:, :num_people]
    return np.pad(kept, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else kept


def _arrange(crops: Iterable[Tensor | np.ndarray], place: np.ndarray, num_crops: int) -> Tensor:
    """Give every sampling of every crop its frames.

    Args:
        crops: for each crop (U, ...), the frames that any sampling uses. Taken one at a time:
            10 crops of 64 frames at 224 pixels are half a gigabyte.
        place: (n, T) rows of U.
        num_crops: length of `crops`.

    Returns:
        (n * num_crops, T, ...).
    """
    out = torch.empty(0)
    rows = torch.from_numpy(place)
    for number, crop in enumerate(map(torch.as_tensor, crops)):
        if number == 0:
            out = crop.new_empty(len(place), num_crops, place.shape[1], *crop.shape[1:])
        out[:, number] = crop[rows]
    return out.flatten(0, 1)
