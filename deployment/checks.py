"""Whether what a file says of a model can be true: files come from anywhere.

Sizes have bounds far above any model of the project, so that a wrong or hostile number ends in one
line and not in a machine without memory.
"""

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from errors import InputError
from models.resnet_gsf import LAYOUTS
from ops.conversion import find_layout, layout_from
from ops.skeleton import COCO17, SkeletonLayout
from options.skeletons import (
    NORMALIZATIONS,
    PEOPLE_ORDERS,
    PEOPLE_PADDINGS,
    POSE_MODELS,
    RGBPOSE_GRID,
    SAMPLINGS,
    STREAMS,
    VOLUME_STREAMS,
    draws_volumes,
    layout_of,
    sees_whole_clips,
)
from opts import FUSIONS

_MOST_CLASSES = 10_000
_MOST_NAME = 500
# Of one clip as the network sees it: 64 frames of 512 pixels with a heatmap are a quarter.
_MOST_INPUT_BYTES = 2**30
# Pairs in each list of a joint layout; of 1,000 joints it has at most so many bones.
_MOST_PAIRS = 1000

Rule = tuple[Callable[[Any], bool], str]


def _choice(*values: object) -> Rule:
    return (
        lambda value: type(value) is str and value in values,
        f"one of {', '.join(map(str, values))}",
    )


def _whole(least: int, most: int) -> Rule:
    return (
        lambda value: type(value) is int and least <= value <= most,
        f"a whole number from {least} to {most}",
    )


def _real(above: float, most: float) -> Rule:
    def holds(value: object) -> bool:
        return type(value) in (int, float) and above < value <= most  # type: ignore[operator]

    return holds, f"a number above {above:g}, at most {most:g}"


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), f"null or {rule[1]}"


def _several(rule: Rule, least: int, most: int) -> Rule:
    holds, text = rule

    def hold(value: Any) -> bool:
        is_list = type(value) in (list, tuple) and least <= len(value) <= most
        return is_list and all(map(holds, value))

    count = str(least) if least == most else f"{least} to {most}"
    return hold, f"a list of {count}, each {text}"


def _is_layout(value: Any) -> bool:
    if isinstance(value, Mapping):
        lists = [part for part in value.values() if isinstance(part, (list, tuple))]
        if max(map(len, lists), default=0) > _MOST_PAIRS:
            return False
    try:
        layout_from(value) if isinstance(value, Mapping) else find_layout(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


_FLAG: Rule = (lambda value: type(value) is bool, "true or false")

_RULES: dict[str, Rule] = {
    "fusion": _choice(*FUSIONS),
    "arch": _choice(*LAYOUTS),
    "width": _whole(4, 1024),
    "num_channels": (lambda value: type(value) is int and value in (3, 4), "3 or 4"),
    "num_segments": _whole(1, 1024),
    "gsf": _FLAG,
    "gsf_ch_ratio": _whole(1, 100),
    "pose_model": _choice(*POSE_MODELS),
    "pose_streams": _several(_choice(*STREAMS, "limb"), 1, len(STREAMS)),
    "num_people": _whole(1, 100),
    "pose_pooling": _choice("mean", "masked"),
    "skeleton_layout": _or_none((_is_layout, "the name or the description of a joint layout")),
    "tcn_dropout": (
        lambda value: type(value) in (int, float) and 0 <= value <= 1,
        "at least 0 and at most 1",
    ),
    "posec3d_stages": _or_none(_several(_whole(1, 50), 3, 3)),
    "rgbpose_streams": _choice("both", "rgb", "pose"),
    "stream_losses": (
        lambda value: type(value) in (int, float) and 0 <= value <= 1e9,
        "at least 0 and at most 1e9",
    ),
    "pose_frames": _whole(1, 10_000),
    "pose_sampling": _choice(*SAMPLINGS),
    "pose_size": _whole(1, 1024),
    "people_order": _choice(*PEOPLE_ORDERS),
    "people_padding": _choice(*PEOPLE_PADDINGS),
    "attention_scope": _choice("clip", "frame"),
    "dropout": (
        lambda value: type(value) in (int, float) and 0 <= value < 1,
        "at least 0 and below 1",
    ),
    "consensus_type": _choice("avg"),
    "input_size": _whole(1, 2048),
    "field_of_view": _choice("square", "frame"),
    "frame_interval": _or_none(_whole(1, 100_000)),
    "heatmap_sigma": _real(0, 10_000),
    "mask_background": _FLAG,
    "pose_normalize": _choice(*NORMALIZATIONS),
}


def check_options(options: object, names: Sequence[str], where: object) -> dict[str, Any]:
    """Return the options of these names.

    Args:
        options: as a file holds them.
        names: keys of the rules above.
        where: the file, for messages.

    Raises:
        InputError: one is absent, or no model can have it.
    """
    if not isinstance(options, Mapping):
        raise InputError(f"{where} holds damaged options ({_shown(options)}): copy it again")
    for name in names:
        holds, text = _RULES[name]
        if name not in options or not holds(options[name]):
            raise InputError(
                f"{where} says {name} {_shown(options.get(name))}, which should be {text}: export "
                "the model again, or copy the file again"
            )
    kept = {name: options[name] for name in names}
    _check_together(kept, where)
    return kept


def _check_together(options: Mapping[str, Any], where: object) -> None:
    fusion, channels = options["fusion"], options["num_channels"]
    if (fusion, channels) in (("early", 3), ("none", 4)):
        raise InputError(
            f"{where} says fusion {fusion} with {channels} channels, which no model has: export "
            "the model again"
        )
    size = 4 * channels * options["num_segments"] * options["input_size"] ** 2
    if size > _MOST_INPUT_BYTES:
        raise InputError(
            f"{where} says num_segments {options['num_segments']} of input_size "
            f"{options['input_size']}: {size / 2**30:.1f} GiB for each clip, at most 1 is taken: "
            "export the model again"
        )
    if sees_whole_clips(argparse.Namespace(**options)):
        _check_skeletons(options, where)
    elif fusion != "none" and options["pose_normalize"] not in ("clip", "frame", "none"):
        raise InputError(
            f"{where} says pose_normalize {options['pose_normalize']} of a model of single frames, "
            "which should be clip, frame or none: export the model again"
        )


def _check_skeletons(options: Mapping[str, Any], where: object) -> None:
    """Refuse what no model of whole clips of skeletons has, or what would fill the memory."""
    streams, is_volume = list(options["pose_streams"]), draws_volumes(argparse.Namespace(**options))
    known = VOLUME_STREAMS if is_volume else STREAMS
    is_one_each = len(set(streams)) == len(streams) and (len(streams) == 1 or not is_volume)
    if not is_one_each or not set(streams) <= set(known):
        raise InputError(
            f"{where} says pose_streams {', '.join(streams)}, the model takes "
            f"{'one' if is_volume else 'some'} of {', '.join(known)}: export the model again"
        )
    normalize = options["pose_normalize"]
    if normalize == "frame" or (is_volume and normalize != "none"):
        raise InputError(
            f"{where} says pose_normalize {normalize}, which its model does not take: export the "
            "model again"
        )
    if options["fusion"] == "rgbpose" and options["input_size"] % RGBPOSE_GRID:
        raise InputError(
            f"{where} says input_size {options['input_size']}, which should be a multiple of "
            f"{RGBPOSE_GRID} for this model: export the model again"
        )
    layout = layout_of(options["skeleton_layout"]) or COCO17
    size = options["pose_frames"] * _values_of_a_frame(options, layout, is_volume) * 4
    if size > _MOST_INPUT_BYTES:
        raise InputError(
            f"{where} says pose_frames {options['pose_frames']} of {options['num_people']} people "
            f"and {len(layout)} joints: {size / 2**30:.1f} GiB for each clip, at most 1 is taken: "
            "export the model again"
        )


def _values_of_a_frame(options: Mapping[str, Any], layout: SkeletonLayout, is_volume: bool) -> int:
    """Return how many numbers a frame has where it is largest: as skeletons or as volumes."""
    channels = 1 if is_volume else len(options["pose_streams"])
    skeletons = options["num_people"] * len(layout) * 3 * channels
    if not is_volume:
        return skeletons
    side = options["input_size"] // 4 if options["fusion"] == "rgbpose" else options["pose_size"]
    drawn = len(layout.limbs) if "limb" in options["pose_streams"] else len(layout)
    return max(skeletons, drawn * (side * 8 // 7 + 1) ** 2)


def check_classes(classes: object, where: object) -> tuple[str, ...]:
    """Return class names.

    Raises:
        InputError: they are not names, or absurdly many or long.
    """
    if not isinstance(classes, (list, tuple)) or not 1 <= len(classes) <= _MOST_CLASSES:
        raise InputError(
            f"{where} says classes {_shown(classes)}, which should be a list of 1 to "
            f"{_MOST_CLASSES} names: export the model again"
        )
    for name in classes:
        if not isinstance(name, str) or not 1 <= len(name) <= _MOST_NAME or not _is_text(name):
            raise InputError(
                f"{where} has a class {_shown(name)}, which should be a name of at most "
                f"{_MOST_NAME} characters: export the model again"
            )
    return tuple(classes)


def _is_text(name: str) -> bool:
    """Say whether a text can be written: JSON may hold half a character."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_data(data: object, where: object) -> dict[str, Any]:
    """Return the facts of training data, see `datasets.facts.data_facts`; {} for None or {}.

    Raises:
        InputError: they are of another kind.
    """
    if data is None or data == {}:
        return {}
    if not isinstance(data, Mapping) or not isinstance(data.get("lists"), Mapping):
        raise InputError(f"{where} holds damaged facts of its data: export the model again")
    name = data.get("dataset")
    if not isinstance(name, str) or len(name) > _MOST_NAME or not _is_text(name):
        raise InputError(
            f"{where} says its data set is {_shown(name)}, which should be a name: export the "
            "model again"
        )
    lengths = {key: data.get(key) for key in ("clip_frames", "clip_seconds", "fps")}
    for key, value in lengths.items():
        if not (value is None or _is_length(value)):
            raise InputError(
                f"{where} says {key} {_shown(value)}, which should be null or a number above 0: "
                "export the model again"
            )
    lists = {split: _checked_list(split, data["lists"][split], where) for split in data["lists"]}
    found = {"dataset": name, "lists": lists, **lengths}
    if "layout" not in data:  # those of earlier releases say none
        return found
    holds, text = _RULES["skeleton_layout"]
    if not holds(data["layout"]):
        raise InputError(
            f"{where} says that its data have the layout {_shown(data['layout'])}, which should be "
            f"{text}: export the model again"
        )
    return {**found, "layout": data["layout"]}


def _is_length(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= 1e9  # type: ignore[operator]


def _checked_list(split: object, facts: object, where: object) -> dict[str, Any]:
    clips = facts.get("clips") if isinstance(facts, Mapping) else None
    digest = facts.get("sha256") if isinstance(facts, Mapping) else None
    is_hash = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) is not None
    if split not in ("train", "val", "test") or type(clips) is not int or clips < 0 or not is_hash:
        raise InputError(
            f"{where} holds damaged facts of its {_shown(split)} list: export the model again"
        )
    return {"clips": clips, "sha256": digest}


def _shown(value: object) -> str:
    """Return a value for a message: short, also when it is huge or no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float, bool, type(None))):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."
