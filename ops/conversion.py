"""Keypoints of one joint layout as another; layouts of the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ops.skeleton import (
    ALIASES,
    BODY18,
    BODY25,
    COCO17,
    LAYOUTS,
    SkeletonLayout,
    left_right_pairs,
    limb_pairs,
    parents_of,
)

_MOST_JOINTS = 1000


def _coco17_places(layout: SkeletonLayout) -> tuple[int, ...]:
    return tuple(layout.joints.index(joint) for joint in COCO17.joints)


# Joints V -> the place of each COCO-17 joint. Those that begin with COCO-17 and add feet, head,
# face or hands: Halpe-26, -68 and -136 (Fang et al. 2022, arXiv:2211.03375), COCO-WholeBody's 133
# (Jin et al. 2020, arXiv:2007.11858).
_COCO17_PLACES = {
    18: _coco17_places(BODY18),
    25: _coco17_places(BODY25),
    **dict.fromkeys((17, 26, 68, 133, 136), tuple(range(17))),
}


def to_coco17(keypoints: np.ndarray) -> np.ndarray:
    """Take the COCO-17 joints out of a larger layout, known by its number of joints.

    OpenPose's neck, middle of the hips and feet are dropped: COCO-17 does not have them. No joint
    is made up: the mean of two joints never stands for a third.

    Args:
        keypoints: (..., V, D) with V = 17, 18 (OpenPose COCO), 25 (OpenPose body), 26, 68 or 136
            (Halpe), or 133 (COCO-WholeBody).

    Returns:
        (..., 17, D) keypoints.

    Raises:
        ValueError: no layout has V joints; the message follows the name of the file.
    """
    num_joints = keypoints.shape[-2]
    if num_joints not in _COCO17_PLACES:
        known = ", ".join(map(str, sorted(_COCO17_PLACES)))
        raise ValueError(
            f"has {num_joints} joints for each person, which is no layout that holds the 17 of "
            f"COCO (known: {known} joints)"
        )
    return keypoints[..., _COCO17_PLACES[num_joints], :]


# ---------------------------------------------------------------- between layouts

# A joint that a layout lacks, as the middle of others: each must be seen.
_MIDDLES = {
    "neck": ("left_shoulder", "right_shoulder"),
    "spine_shoulder": ("left_shoulder", "right_shoulder"),
    "mid_hip": ("left_hip", "right_hip"),
    "belly": ("left_shoulder", "right_shoulder", "left_hip", "right_hip"),
    "spine_mid": ("left_shoulder", "right_shoulder", "left_hip", "right_hip"),
}
# Other names of what is nearly the same place.
_SYNONYMS = {
    "face": ("nose",),
    "nose": ("face",),
    "left_foot": ("left_big_toe", "left_foot_index"),
    "right_foot": ("right_big_toe", "right_foot_index"),
    "left_foot_index": ("left_big_toe", "left_foot"),
    "right_foot_index": ("right_big_toe", "right_foot"),
    "left_big_toe": ("left_foot_index", "left_foot"),
    "right_big_toe": ("right_foot_index", "right_foot"),
    "left_hand_tip": ("left_index",),
    "right_hand_tip": ("right_index",),
}


def joint_sources(source: SkeletonLayout, target: SkeletonLayout) -> tuple[tuple[int, ...], ...]:
    """Return for each joint of `target` the joints of `source` whose middle it is; () for none."""
    places = {name: index for index, name in enumerate(source.joints)}

    def find(joint: str) -> tuple[int, ...]:
        for name in (joint, *_SYNONYMS.get(joint, ())):
            if name in places:
                return (places[name],)
        parts = _MIDDLES.get(joint, ())
        return tuple(places[p] for p in parts) if parts and all(p in places for p in parts) else ()

    return tuple(map(find, target.joints))


def convert_keypoints(
    keypoints: np.ndarray, source: SkeletonLayout, target: SkeletonLayout
) -> np.ndarray:
    """Return keypoints of one layout in the order of another.

    A joint is taken by its name. Neck, spine and middle of the hips are the middle of the joints
    around them, seen where all of these are, with the least of their confidences. Joints that the
    source has no place for are undetected.

    Args:
        keypoints: (..., V, D) with the confidence last; a joint of confidence 0 is undetected.
        source: their layout.
        target: the wanted one, V' joints.

    Returns:
        (..., V', D), undetected joints exactly 0.

    Raises:
        ValueError: fewer than half of the target's joints have a source, or V is not the source's.
    """
    if keypoints.shape[-2] != len(source):
        raise ValueError(
            f"the keypoints have {keypoints.shape[-2]} joints, {source.name} has {len(source)}"
        )
    sources = joint_sources(source, target)
    found = sum(map(bool, sources))
    if 2 * found < len(target):
        raise ValueError(
            f"{source.name} has only {found} of the {len(target)} joints of {target.name}: there "
            "is no conversion between them"
        )
    out = np.zeros((*keypoints.shape[:-2], len(target), keypoints.shape[-1]), keypoints.dtype)
    for place, joints in enumerate(sources):
        if not joints:
            continue
        parts = keypoints[..., joints, :]
        confidence = parts[..., -1].min(axis=-1)
        middle = parts.mean(axis=-2)
        middle[..., -1] = confidence
        out[..., place, :] = np.where(confidence[..., None] > 0, middle, 0)
    return out


# ---------------------------------------------------------------- layouts by name or description


def find_layout(name: str) -> SkeletonLayout:
    """Return the layout of a name, ours or another toolbox's.

    Raises:
        ValueError: there is none.
    """
    own = ALIASES.get(name.lower(), name.lower())
    if own not in LAYOUTS:
        known = ", ".join([*LAYOUTS, *ALIASES])
        raise ValueError(f"there is no joint layout {name[:60]!r}: choose from {known}")
    return LAYOUTS[own]


def layout_from(description: Mapping[str, Any]) -> SkeletonLayout:
    """Build a layout from a description, as a JSON file holds it.

    Args:
        description: `joints`: names, or `num_node`: their number; `inward`: [[child, parent], ...];
            `center` (or `centre`): a joint; and, where they apply, `name`, `parents`: one joint
            each, `edges`, `flip_pairs`: [[left, right], ...] (default: names that begin with left_
            and right_), `limbs`, `shoulders` and `hips`: left and right, `dims`: 2 or 3.

    Raises:
        ValueError: something is missing or no joint of the layout; the message says what.
    """
    known = {
        "name", "joints", "num_node", "inward", "center", "centre", "parents", "edges",
        "flip_pairs", "limbs", "shoulders", "hips", "dims",
    }  # fmt: skip
    unknown = sorted(map(str, set(description) - known))
    if unknown:
        raise ValueError(f"has {unknown[0]!r}, a layout knows {', '.join(sorted(known))}")
    joints = _joint_names(description)
    count = len(joints)
    inward = _inward(description, count)
    centre = description.get("center", description.get("centre"))
    if not _is_joint(centre, count):
        raise ValueError(f"has centre {centre!r}, it should be a joint, 0 to {count - 1}")
    parents = description.get("parents")
    if parents is not None and not (
        isinstance(parents, list | tuple)
        and len(parents) == count
        and all(_is_joint(parent, count) for parent in parents)
    ):
        raise ValueError(f"has parents that are not {count} joints")
    flips = _flip_pairs(description, joints)
    limbs = _edges(description, "limbs", count) or inward
    dims = description.get("dims", 2)
    if type(dims) is not int or dims not in (2, 3):
        raise ValueError(f"has dims {dims!r}, it should be 2 or 3")
    name = description.get("name", "custom")
    if not isinstance(name, str) or not name or len(name) > 60:
        raise ValueError(f"has name {name!r:.80}: give a text of at most 60 letters")
    found = SkeletonLayout(
        name=name,
        joints=joints,
        edges=_edges(description, "edges", count) or inward,
        flip_pairs=flips,
        shoulders=_sides(description, "shoulders", count),
        hips=_sides(description, "hips", count),
        inward=inward,
        parents=tuple(parents) if parents is not None else parents_of(inward, count),
        centre=centre,
        limbs=limbs,
        limb_flip_pairs=limb_pairs(limbs, flips),
        dims=dims,
    )
    own = LAYOUTS.get(name)
    if own is not None and replace(own, dims=dims) != found:
        raise ValueError(f"has name {name!r}, which is another layout: give it a name of its own")
    return found


def describe_layout(layout: SkeletonLayout) -> dict[str, Any]:
    """Return what `layout_from` reads, as plain lists: the layout that a checkpoint keeps."""
    return {
        "name": layout.name,
        "joints": list(layout.joints),
        "inward": [list(edge) for edge in layout.inward],
        "centre": layout.centre,
        "parents": list(layout.parents),
        "edges": [list(edge) for edge in layout.edges],
        "flip_pairs": [list(pair) for pair in layout.flip_pairs],
        "limbs": [list(limb) for limb in layout.limbs],
        "shoulders": list(layout.shoulders),
        "hips": list(layout.hips),
        "dims": layout.dims,
    }


def layout_value(layout: SkeletonLayout) -> str | dict[str, Any]:
    """Return the name of a layout of ours, the description of another."""
    return layout.name if LAYOUTS.get(layout.name) == layout else describe_layout(layout)


def numbered_joints(count: int) -> tuple[str, ...]:
    """Return the names of joints that a layout only counts."""
    return tuple(f"joint_{index}" for index in range(count))


def _joint_names(description: Mapping[str, Any]) -> tuple[str, ...]:
    joints: Any = description.get("joints")
    count = description.get("num_node")
    if joints is None and type(count) is int and 0 < count <= _MOST_JOINTS:
        return numbered_joints(count)
    if not isinstance(joints, list | tuple) or not 0 < len(joints) <= _MOST_JOINTS:
        joints = [""]
    if not all(isinstance(joint, str) and joint for joint in joints):
        raise ValueError("has no joints: give their names, or their number as num_node")
    if len(set(joints)) < len(joints):
        raise ValueError("has two joints of the same name")
    if count is not None and count != len(joints):
        raise ValueError(f"has num_node {count!r} and {len(joints)} joints")
    return tuple(joints)


def _edges(description: Mapping[str, Any], key: str, count: int) -> tuple[tuple[int, int], ...]:
    value = description.get(key, ())
    if not isinstance(value, list | tuple):
        raise ValueError(f"has {key} that is no list of pairs")
    for pair in value:
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not is_pair or not all(_is_joint(joint, count) for joint in pair):
            raise ValueError(f"has {key} with {pair!r:.60}, not a pair of joints 0 to {count - 1}")
    return tuple((pair[0], pair[1]) for pair in value)


def _flip_pairs(
    description: Mapping[str, Any], joints: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    if "flip_pairs" not in description:
        return left_right_pairs(joints)
    flips = _edges(description, "flip_pairs", len(joints))
    if len({joint for pair in flips for joint in pair}) < 2 * len(flips):
        raise ValueError("has flip_pairs that name a joint twice")
    return flips


def _inward(description: Mapping[str, Any], count: int) -> tuple[tuple[int, int], ...]:
    inward = _edges(description, "inward", count)
    if not inward:
        raise ValueError("has no inward: give [[child, parent], ...]")
    looped = None if "parents" in description else _looped(inward, count)
    if looped is not None:
        raise ValueError(
            f"has inward edges that lead from joint {looped} back to it: each leads one step "
            "towards the centre"
        )
    return inward


def _looped(inward: tuple[tuple[int, int], ...], count: int) -> int | None:
    """Return a joint that its own parents lead back to, None where there is none."""
    parents = parents_of(inward, count)
    for joint in range(count):
        place = joint
        for _ in range(count):
            place, before = parents[place], place
            if place == before:
                break
            if place == joint:
                return joint
    return None


def _sides(description: Mapping[str, Any], key: str, count: int) -> tuple[int, ...]:
    value = description.get(key, ())
    is_list = isinstance(value, list | tuple) and len(value) in (0, 2)
    if not is_list or not all(_is_joint(joint, count) for joint in value):
        raise ValueError(f"has {key} that are not two joints, left and right")
    return tuple(value)


def _is_joint(value: object, count: int) -> bool:
    return type(value) is int and 0 <= value < count
