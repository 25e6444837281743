"""What a model of whole clips saw of their skeletons, ready to be drawn."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from datasets.pose_views import SkeletonSpec, skeleton_views
from datasets.scan import Clip
from ops.heatmap import joint_volumes, limb_volumes
from ops.skeleton import SkeletonLayout

# Frames of a shorter side are no pictures: coordinates are measured in units of their own.
_LEAST_SIDE = 16
# Room around people who fill a tile, as a share of its sides.
_MARGIN = 0.1


def tracks_of_clip(clip: Clip, layout: SkeletonLayout) -> np.ndarray:
    """Return the keypoints (N, M, V, D) of a clip; of one that has none nobody is seen."""
    if clip.poses is None:
        return np.zeros((clip.record.num_frames, 1, len(layout), layout.dims + 1), np.float32)
    if clip.keypoints is not None:
        return clip.keypoints
    return clip.poses.load().keypoints_at(clip.size)


def seen_rows(
    spec: SkeletonSpec,
    tracks: np.ndarray,
    layout: SkeletonLayout,
    num_clips: int = 1,
    windows: np.ndarray | None = None,
) -> np.ndarray:
    """Return (L,) the frames of the first sampling, 0-based; -1 where a frame was left empty.

    Args:
        spec: of the model's input.
        tracks: (N, M, V, D) of the clip.
        layout: of the keypoints.
        num_clips: samplings.
        windows: see `skeleton_views`.
    """
    kept = _kept_frames(spec, tracks, layout)
    # Frames are picked by their number alone: a clip of numbers shows which.
    plain = replace(
        spec, normalize="none", streams=("joint",), is_volume=False, moves_with_frames=False
    )
    numbers = np.zeros((len(kept), 1, len(layout), layout.dims + 1), np.float32)
    numbers[..., :2] = kept[:, None, None, None] + 1
    views = skeleton_views(plain, numbers, (1, 1), layout, num_clips, windows=windows)
    return views.skeletons[0, :, 0, 0, 0].long().numpy() - 1


def _kept_frames(spec: SkeletonSpec, tracks: np.ndarray, layout: SkeletonLayout) -> np.ndarray:
    """Return (N',) the frames that are there to be picked: see `ops.pose_space.prenormalize_3d`."""
    turns = layout.dims == 3 and spec.normalize in ("image", "image_keep", "spine")
    seen = np.abs(tracks[..., :3]).max(axis=(2, 3), initial=0) > 1e-8  # (N, M)
    if not turns or not seen.any():
        return np.arange(len(tracks))
    return np.flatnonzero(seen[:, seen.sum(axis=0).argmax()])


def front_view(people: np.ndarray) -> np.ndarray:
    """Return (..., V, 3) x, y downwards and confidence of people in two or three dimensions."""
    if people.shape[-1] == 3:
        return people
    return np.stack([people[..., 0], -people[..., 1], people[..., 3]], axis=-1)


def place_in_tiles(
    people: np.ndarray, size: tuple[int, int], tile: tuple[int, int], *, is_picture: bool
) -> np.ndarray:
    """Return (T, M, V, 3) people in pixels of tiles.

    Args:
        people: (T, M, V, D), pixels of frames or metres.
        size: (width, height) of the frames.
        tile: (width, height) of a tile.
        is_picture: the frames themselves are drawn. Else people fill the tiles where coordinates
            are in metres, frames are no larger than some units, or most joints lie outside of them.
    """
    flat = front_view(people).astype(np.float32)
    seen = flat[..., 2] > 0
    points = flat[..., :2][seen]
    is_inside = ((points >= 0) & (points <= size)).all(axis=1).mean() if len(points) else 1.0
    is_strange = people.shape[-1] == 4 or min(size) < _LEAST_SIDE or is_inside < 0.5
    if is_picture or not is_strange or not len(points):
        return flat * np.array([tile[0] / size[0], tile[1] / size[1], 1], np.float32)
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array(tile) * (1 - 2 * _MARGIN)
    scale = float((room / np.maximum(high - low, 1e-6)).min())
    placed = flat.copy()
    placed[..., :2] = (flat[..., :2] - (low + high) / 2) * scale + np.array(tile) / 2
    placed[~seen] = 0
    return placed


def volume_heat(
    spec: SkeletonSpec, skeletons: Tensor, size: tuple[int, int], layout: SkeletonLayout
) -> np.ndarray:
    """Return (L, H, W) in 0-1: the strongest channel of the heatmap volume of one clip.

    Args:
        spec: of the model's input.
        skeletons: (1, L, M, V, 3) in pixels of the volume.
        size: (height, width) of the volume.
        layout: of the keypoints.
    """
    if "limb" in spec.streams:
        volumes = limb_volumes(skeletons, layout.limbs, size)
    else:
        volumes = joint_volumes(skeletons, size)
    return volumes[0].amax(dim=0).numpy()
