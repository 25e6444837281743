"""Streams of skeletons: joints, bones, and how both move. What graph convolutions take in.

Tracks are (N, M, V, D): N frames, M people, V joints, and x, y, confidence (D = 3) or x, y, z,
confidence (D = 4).
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ops.pose_space import detected
from ops.skeleton import SkeletonLayout

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")

_CHANNELS = 3


def skeleton_streams(
    tracks: np.ndarray,
    layout: SkeletonLayout,
    streams: Sequence[str] = ("joint",),
    missing: Literal["keep", "zero"] = "keep",
) -> np.ndarray:
    """Turn the tracks of a whole clip into the channels of one or several streams.

    A bone points from a joint's parent to the joint. Motion is the next frame minus this one and
    0 in the last frame: it must be taken before frames are sampled. In two dimensions the third
    channel is the confidence, of a bone the mean over its two ends, of motion the mean over its
    two frames; in three dimensions there is none, x, y, z fill the channels.

    Args:
        tracks: (N, M, V, 3) in two or (N, M, V, 4) in three dimensions, normalised.
        layout: of V joints; its `parents` say where bones begin.
        streams: names out of `STREAMS`.
        missing: what bones and motions are one end of which is 0 everywhere (not detected):
            "keep" the plain difference, as published models saw them; "zero" nothing, so that no
            joint flies to the origin and back.

    Returns:
        (N, M, V, 3 S) float32, the channels of S streams one after the other.

    Raises:
        ValueError: a stream is unknown or none is named, or tracks and layout do not fit.

    Source: bones, Shi et al. 2019, arXiv:1805.07694, section 4.4; motion, Shi et al. 2019,
    arXiv:1912.06971; the third channel as in the release of arXiv:2205.09443.
    """
    _check(tracks, layout, streams)
    joint = np.asarray(tracks, np.float32)
    found = detected(joint) if missing == "zero" else None  # (N, M, V)
    joint = joint[..., :_CHANNELS]
    is_flat = tracks.shape[-1] == _CHANNELS
    out = np.empty((*joint.shape[:-1], _CHANNELS * len(streams)), np.float32)
    bone: np.ndarray | None = None
    bone_found: np.ndarray | None = None
    if any(name.startswith("bone") for name in streams):
        bone, bone_found = _bones(joint, found, layout, is_flat)
    for index, name in enumerate(streams):
        values, seen = (joint, found) if name.startswith("joint") else (bone, bone_found)
        place = out[..., _CHANNELS * index : _CHANNELS * (index + 1)]
        assert values is not None
        if name.endswith("motion"):
            _write_motion(values, seen, is_flat, place)
        else:
            place[:] = values
    return out


def _bones(
    joint: np.ndarray, found: np.ndarray | None, layout: SkeletonLayout, is_flat: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the bones (N, M, V, 3) and which have both ends (N, M, V)."""
    parents = np.asarray(layout.parents)
    start = np.take(joint, parents, axis=2)
    bone = joint - start
    if is_flat:
        bone[..., 2] = (joint[..., 2] + start[..., 2]) / 2
    if found is None:
        return bone, None
    found = found & found[:, :, parents]
    bone[~found] = 0
    return bone, found


def _write_motion(
    values: np.ndarray, found: np.ndarray | None, is_flat: bool, out: np.ndarray
) -> None:
    """Write the motion of (N, M, V, 3) values to `out` of the same shape."""
    np.subtract(values[1:], values[:-1], out=out[:-1])
    out[-1] = 0
    if is_flat:
        out[:-1, ..., 2] = (values[1:, ..., 2] + values[:-1, ..., 2]) / 2
    if found is not None:
        out[:-1][~(found[1:] & found[:-1])] = 0


def _check(tracks: np.ndarray, layout: SkeletonLayout, streams: Sequence[str]) -> None:
    unknown = [name for name in streams if name not in STREAMS]
    if unknown or not streams or isinstance(streams, str):
        raise ValueError(f"streams are out of {', '.join(STREAMS)}, got {streams!r}")
    if tracks.ndim != 4 or tracks.shape[-1] not in (3, 4) or not len(tracks):
        raise ValueError(f"tracks are (N >= 1, M, V, 3 or 4), got {tracks.shape}")
    if tracks.shape[2] != len(layout) or len(layout.parents) != len(layout):
        raise ValueError(
            f"{layout.name} has {len(layout)} joints and {len(layout.parents)} bones, "
            f"the tracks have {tracks.shape[2]} joints"
        )
