"""Joint layouts: which joint has which index, what is connected, what is left and right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Edges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class SkeletonLayout:
    """Which joint has which index.

    Attributes:
        name: as in reports and options.
        joints: V joint names, in order of the index.
        edges: pairs of joints that a bone connects, to be drawn.
        flip_pairs: (left, right) pairs that change places in a mirror.
        shoulders: left and right; their middle is the torso's upper end. () where there are none.
        hips: left and right; their middle is the torso's lower end. () where there are none.
        inward: (child, parent) pairs, the edges of graph convolutions, each one step towards the
            centre.
        parents: (V,) the joint that the bone of each joint begins at; its own index: no bone. Not
            always as in `inward`: published models take the bones of COCO's hips from the nose.
        centre: the joint that distances in the graph are measured from.
        limbs: pairs of joints that heatmap volumes of limbs show, a channel each.
        limb_flip_pairs: (left, right) pairs of `limbs` that change places in a mirror.
        dims: coordinates of a joint: 2 (pixels) or 3 (metres).
    """

    name: str
    joints: tuple[str, ...]
    edges: Edges
    flip_pairs: Edges
    shoulders: tuple[int, ...] = ()
    hips: tuple[int, ...] = ()
    inward: Edges = ()
    parents: tuple[int, ...] = ()
    centre: int = 0
    limbs: Edges = ()
    limb_flip_pairs: Edges = ()
    dims: int = 2

    def __len__(self) -> int:
        """Return V, the number of joints."""
        return len(self.joints)

    def mirror_order(self) -> np.ndarray:
        """Return (V,) int64: the joint that takes each place in a mirror image."""
        return _exchanged(len(self.joints), self.flip_pairs)

    def limb_mirror_order(self) -> np.ndarray:
        """Return (L,) int64: the limb that takes each place in a mirror image."""
        return _exchanged(len(self.limbs), self.limb_flip_pairs)


def _exchanged(count: int, pairs: Edges) -> np.ndarray:
    order = np.arange(count)
    for left, right in pairs:
        order[[left, right]] = right, left
    return order


def swap_left_right(keypoints: np.ndarray, layout: "SkeletonLayout | None" = None) -> np.ndarray:
    """Exchange left and right joints of (..., V, D) keypoints, as a mirror does."""
    return keypoints[..., (layout or COCO17).mirror_order(), :]


# ---------------------------------------------------------------- helpers of the tables


def _pairs(text: str) -> Edges:
    """Read '15-13 13-11' as ((15, 13), (13, 11))."""
    return tuple((int(a), int(b)) for a, b in (pair.split("-") for pair in text.split()))


def left_right_pairs(joints: Sequence[str]) -> Edges:
    """Return the (left, right) pairs of joints whose names begin so."""
    names = {name: index for index, name in enumerate(joints)}
    return tuple(
        (index, names[f"right_{name.removeprefix('left_')}"])
        for name, index in names.items()
        if name.startswith("left_") and f"right_{name.removeprefix('left_')}" in names
    )


def parents_of(inward: Edges, num_joints: int) -> tuple[int, ...]:
    """Return the parent of each joint by (child, parent) pairs, the first of each child."""
    parents = list(range(num_joints))
    for child, parent in reversed(inward):
        parents[child] = parent
    return tuple(parents)


def limb_pairs(limbs: Edges, flip_pairs: Edges) -> Edges:
    """Return the (left, right) pairs of limbs whose joints change places in a mirror."""
    other = {left: right for left, right in flip_pairs}
    places = {frozenset(limb): index for index, limb in enumerate(limbs)}
    found = []
    for index, (start, end) in enumerate(limbs):
        twin = places.get(frozenset((other.get(start, start), other.get(end, end))))
        if twin is not None and twin != index:
            found.append((index, twin))
    return tuple(found)


def _layout(
    name: str,
    joints: str,
    inward: str,
    centre: int,
    *,
    edges: str | None = None,
    parents: str | None = None,
    limbs: str | None = None,
    torso: tuple[str, str, str, str] | None = None,
    dims: int = 2,
) -> SkeletonLayout:
    names = tuple(joints.split())
    graph = _pairs(inward)
    flips = left_right_pairs(names)
    limb_list = graph if limbs is None else _pairs(limbs)
    places = [names.index(joint) for joint in torso] if torso else []
    bones = parents_of(graph, len(names))
    if parents is not None:
        bones = tuple(parent for _, parent in sorted(_pairs(parents)))
    return SkeletonLayout(
        name=name,
        joints=names,
        edges=graph if edges is None else _pairs(edges),
        flip_pairs=flips,
        shoulders=tuple(places[:2]),
        hips=tuple(places[2:]),
        inward=graph,
        parents=bones,
        centre=centre,
        limbs=limb_list,
        limb_flip_pairs=limb_pairs(limb_list, flips),
        dims=dims,
    )


# ---------------------------------------------------------------- the layouts

_TORSO = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")

# Graph and bones as in published skeleton models (Duan et al. 2022, arXiv:2205.09443): in the graph
# the hips hang off the shoulders, their bones begin at the nose. The limbs are those of PoseC3D's
# limb volumes (Duan et al. 2022, arXiv:2104.13586), in the order of its published weights. To be
# drawn: the 19 limbs of the COCO annotation, Lin et al. 2014, arXiv:1405.0312.
COCO17 = _layout(
    "coco17",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle",
    "15-13 13-11 16-14 14-12 11-5 12-6 9-7 7-5 10-8 8-6 5-0 6-0 1-0 3-1 2-0 4-2",
    0,
    edges="15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 "
    "4-6",
    parents="0-0 1-0 2-0 3-1 4-2 5-0 6-0 7-5 8-6 9-7 10-8 11-0 12-0 13-11 14-12 15-13 16-14",
    limbs="0-5 0-6 5-7 7-9 6-8 8-10 5-11 11-13 13-15 6-12 12-14 14-16 0-1 0-2 1-3 2-4 11-12",
    torso=_TORSO,
)

# Kinect v2, 3-D in metres: NTU RGB+D, Shahroudy et al. 2016, arXiv:1604.02808.
NTU25 = _layout(
    "ntu25",
    "mid_hip spine_mid neck head left_shoulder left_elbow left_wrist left_hand right_shoulder "
    "right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip "
    "right_knee right_ankle right_foot spine_shoulder left_hand_tip left_thumb right_hand_tip "
    "right_thumb",
    "0-1 1-20 2-20 3-2 4-20 5-4 6-5 7-6 8-20 9-8 10-9 11-10 12-0 13-12 14-13 15-14 16-0 17-16 "
    "18-17 19-18 21-7 22-7 23-11 24-11",
    20,
    parents="0-1 1-20 2-20 3-2 4-20 5-4 6-5 7-6 8-20 9-8 10-9 11-10 12-0 13-12 14-13 15-14 16-0 "
    "17-16 18-17 19-18 20-20 21-22 22-7 23-24 24-11",
    torso=_TORSO,
    dims=3,
)

_BODY18_JOINTS = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "{}right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye "
    "right_ear left_ear"
)

# OpenPose's two body models, Cao et al. 2018, arXiv:1812.08008. Right comes before left.
BODY18 = _layout(
    "openpose18",
    _BODY18_JOINTS.format(""),
    "4-3 3-2 7-6 6-5 13-12 12-11 10-9 9-8 11-5 8-2 5-1 2-1 0-1 15-0 14-0 17-15 16-14",
    1,
    edges="1-2 2-3 3-4 1-5 5-6 6-7 1-8 8-9 9-10 1-11 11-12 12-13 1-0 0-14 14-16 0-15 15-17",
    parents="0-0 1-0 2-1 3-2 4-3 5-1 6-5 7-6 8-2 9-8 10-9 11-5 12-11 13-12 14-0 15-0 16-14 17-15",
    torso=_TORSO,
)

BODY25 = _layout(
    "openpose25",
    _BODY18_JOINTS.format("mid_hip ")
    + " left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel",
    "2-1 3-2 4-3 5-1 6-5 7-6 8-1 9-8 10-9 11-10 12-8 13-12 14-13 0-1 15-0 17-15 16-0 18-16 19-14 "
    "20-19 21-14 22-11 23-22 24-11",
    1,
    torso=_TORSO,
)

# Jhuang et al. 2013, "Towards understanding action recognition" (ICCV). Right comes before left.
JHMDB15 = _layout(
    "jhmdb15",
    "neck belly face right_shoulder left_shoulder right_hip left_hip right_elbow left_elbow "
    "right_knee left_knee right_wrist left_wrist right_ankle left_ankle",
    "1-0 2-0 3-0 4-0 5-1 6-1 7-3 8-4 9-5 10-6 11-7 12-8 13-9 14-10",
    1,
    torso=_TORSO,
)

# BlazePose, Bazarevsky et al. 2020, arXiv:2006.10204.
MEDIAPIPE33 = _layout(
    "mediapipe33",
    "nose left_eye_inner left_eye left_eye_outer right_eye_inner right_eye right_eye_outer "
    "left_ear right_ear left_mouth right_mouth left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_pinky right_pinky left_index right_index left_thumb "
    "right_thumb left_hip right_hip left_knee right_knee left_ankle right_ankle left_heel "
    "right_heel left_foot_index right_foot_index",
    "1-0 2-1 3-2 7-3 4-0 5-4 6-5 8-6 9-0 10-0 11-0 12-0 13-11 15-13 17-15 19-15 21-15 14-12 16-14 "
    "18-16 20-16 22-16 23-11 24-12 25-23 27-25 29-27 31-27 26-24 28-26 30-28 32-28",
    0,
    edges="0-1 1-2 2-3 3-7 0-4 4-5 5-6 6-8 9-10 11-12 11-13 13-15 15-17 15-19 15-21 17-19 12-14 "
    "14-16 16-18 16-20 16-22 18-20 11-23 12-24 23-24 23-25 24-26 25-27 26-28 27-29 28-30 29-31 "
    "30-32 27-31 28-32",
    torso=_TORSO,
)

# MediaPipe Hands, Zhang et al. 2020, arXiv:2006.10214: a wrist and five fingers.
HAND21 = _layout(
    "hand21",
    "wrist "
    + " ".join(
        f"{f}{i}" for f in ("thumb", "index", "middle", "ring", "little") for i in (1, 2, 3, 4)
    ),
    "1-0 2-1 3-2 4-3 5-0 6-5 7-6 8-7 9-0 10-9 11-10 12-11 13-0 14-13 15-14 16-15 17-0 18-17 19-18 "
    "20-19",
    0,
)

LAYOUTS = {
    layout.name: layout for layout in (COCO17, NTU25, BODY18, BODY25, JHMDB15, MEDIAPIPE33, HAND21)
}
# What other toolboxes call them.
ALIASES = {
    "coco": "coco17",
    "nturgb+d": "ntu25",
    "ntu-rgb+d": "ntu25",
    "openpose": "openpose18",
    "jhmdb": "jhmdb15",
    "mediapipe": "mediapipe33",
    "handmp": "hand21",
}


def layout_of_size(num_joints: int, dims: int = 2) -> SkeletonLayout | None:
    """Return the layout that data of V joints most likely are in, None where nothing is known.

    25 joints in pixels may be the NTU's in an image or OpenPose's: in two dimensions they are
    taken for OpenPose's, in three for the NTU's.
    """
    if num_joints == 25:
        return NTU25 if dims == 3 else BODY25
    return next((layout for layout in LAYOUTS.values() if len(layout) == num_joints), None)
