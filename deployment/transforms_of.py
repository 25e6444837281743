"""What happens to a clip before a network sees it, as numbers for people and other programs."""

from collections.abc import Sequence
from typing import Any

from datasets.views import InputSpec
from ops.pixels import HEATMAP_MEAN, HEATMAP_STD, RGB_MEAN, RGB_STD
from ops.skeleton import COCO17, SkeletonLayout
from transforms import eval_geometries

# Measures the share of the field of view that the centre crop shows.
_SIDE = 1024


def describe_input(
    spec: InputSpec,
    names: Sequence[str],
    layout: SkeletonLayout = COCO17,
    volume_size: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return the transforms of a network's input.

    Args:
        spec: of the input.
        names: the inputs: fields of a `Batch`.
        layout: of the skeletons of whole clips.
        volume_size: (height, width) of heatmap volumes, pixels.

    Returns:
        Plain values; null for what the network has not. Values alone and no prose, because files
        are compared with it.
    """
    described = {
        "sampling": {
            "segments": spec.num_segments,
            "interval": spec.interval,
            "frame": "middle",
        },
        "crop": _crop(spec, volume_size),
        "frames": _frames(spec) if "frames" in names else None,
        "heatmap": _heatmap(spec) if spec.heatmap_channel or spec.mask_background else None,
        "keypoints": _keypoints(spec) if "keypoints" in names else None,
    }
    if "skeletons" not in names:  # files of earlier releases do not name them
        return described
    return {**described, "skeletons": _skeletons(spec, layout, volume_size)}


def _crop(spec: InputSpec, volume_size: tuple[int, int] | None) -> dict[str, Any]:
    interpolation = "bilinear, antialiased"
    share = spec.skeleton.frame_share if spec.skeleton else None
    if share is not None and volume_size is not None:
        side = round(volume_size[0] / share)
        return {
            "field_of_view": "people",
            "place": "square around everybody, black beyond the frame",
            "share": 1.25,
            "resized_to": [side, side],
            "interpolation": interpolation,
        }
    (centre,) = eval_geometries(_SIDE, _SIDE, spec.input_size, 1, spec.field_of_view)
    return {
        "field_of_view": spec.field_of_view,
        "place": "centre",
        "share": centre.box.width / _SIDE,
        "resized_to": [spec.input_size, spec.input_size],
        "interpolation": interpolation,
    }


def _frames(spec: InputSpec) -> dict[str, Any]:
    extra = spec.heatmap_channel
    return {
        "layout": ["batch", "segment", "channel", "row", "column"],
        "channels": ["red", "green", "blue", *["heatmap"] * extra],
        "range": [0.0, 1.0],
        "mean": [*RGB_MEAN, *[HEATMAP_MEAN] * extra],
        "std": [*RGB_STD, *[HEATMAP_STD] * extra],
    }


def _heatmap(spec: InputSpec) -> dict[str, Any]:
    return {
        "sigma_pixels": float(spec.heatmap_sigma),
        "of_short_side": 360,
        "is_channel": spec.heatmap_channel,
        "masks_background": spec.mask_background,
    }


def _keypoints(spec: InputSpec) -> dict[str, Any]:
    return {
        "layout": ["batch", "segment", "person", "joint", "x y confidence"],
        "people": spec.num_people,
        "skeleton": COCO17.name,
        "joints": list(COCO17.joints),
        "normalize": spec.pose_normalize,
    }


def _skeletons(
    spec: InputSpec, layout: SkeletonLayout, volume_size: tuple[int, int] | None
) -> dict[str, Any]:
    seen = spec.skeleton
    assert seen is not None
    channels = "x y confidence" if layout.dims == 2 or seen.is_volume else "x y z"
    return {
        "layout": ["batch", "frame", "person", "joint", f"{channels} of each stream"],
        "streams": list(seen.streams),
        "frames": seen.length,
        "sampling": seen.sampling,
        "people": seen.num_people,
        "people_order": seen.people_order,
        "people_padding": seen.people_padding,
        "skeleton": layout.name,
        "joints": list(layout.joints),
        "normalize": seen.normalize,
        "follows_the_crop": seen.moves_with_frames,
        "volume": list(volume_size) if volume_size else None,
    }
