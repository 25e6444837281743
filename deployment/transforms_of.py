"""What happens to a clip before a network sees it, as numbers for people and other programs."""

from collections.abc import Sequence
from typing import Any

from datasets.views import InputSpec
from ops.pixels import HEATMAP_MEAN, HEATMAP_STD, RGB_MEAN, RGB_STD
from ops.skeleton import COCO17
from transforms import eval_geometries

# Measures the share of the field of view that the centre crop shows.
_SIDE = 1024


def describe_input(spec: InputSpec, names: Sequence[str]) -> dict[str, Any]:
    """Return the transforms of a network's input.

    Args:
        spec: of the input.
        names: the inputs: "frames", "keypoints" or both.

    Returns:
        Plain values; null for what the network has not. Values alone and no prose, because files
        are compared with it.
    """
    (centre,) = eval_geometries(_SIDE, _SIDE, spec.input_size, 1, spec.field_of_view)
    return {
        "sampling": {
            "segments": spec.num_segments,
            "interval": spec.interval,
            "frame": "middle",
        },
        "crop": {
            "field_of_view": spec.field_of_view,
            "place": "centre",
            "share": centre.box.width / _SIDE,
            "resized_to": [spec.input_size, spec.input_size],
            "interpolation": "bilinear, antialiased",
        },
        "frames": _frames(spec) if "frames" in names else None,
        "heatmap": _heatmap(spec) if spec.heatmap_channel or spec.mask_background else None,
        "keypoints": _keypoints(spec) if "keypoints" in names else None,
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
