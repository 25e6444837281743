"""Whether what a checkpoint says can be true: of its options, its classes and its data."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from errors import printable
from models.resnet_gsf import LAYOUTS
from models.weight_files import FileFault
from ops.conversion import find_layout, layout_from
from options.skeletons import (
    NORMALIZATIONS,
    PEOPLE_ORDERS,
    PEOPLE_PADDINGS,
    POSE_MODELS,
    SAMPLINGS,
    STREAMS,
    VOLUME_STREAMS,
)
from options.types import LIMITS
from opts import FUSIONS

_MOST_NAMES = 10_000
_MOST_TEXT = 4096
# Single values in options or facts; real ones have about a hundred.
_MOST_VALUES = 100_000
_MOST_DEPTH = 32

Rule = tuple[Callable[[Any], bool], str]


# ---------------------------------------------------------------- what is written


def check_plain(payload: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint holds only what every reader takes without running code.

    That is: tensors, numbers, text, None, and lists, tuples and dicts of them; keys are text or
    whole numbers. Subclasses are none of these: a numpy number, an options object, a path.

    Raises:
        ValueError: something else is in it, which is a slip of ours.
    """
    _check_plain(payload, "", 0)


def _check_plain(value: Any, place: str, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ValueError(f"a checkpoint that contains itself, or is too deep, at {place[:200]}")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if type(key) not in (str, int):
                raise ValueError(f"the key {key!r} of a checkpoint is a {type(key).__name__}")
            _check_plain(inner, f"{place}[{key!r}]", depth + 1)
    elif type(value) in (list, tuple):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{place}[{number}]", depth + 1)
    elif not (value is None or type(value) in (bool, int, float, str) or is_dense(value)):
        raise ValueError(f"a checkpoint holds a {type(value).__name__} at {place}")


def is_dense(value: object) -> bool:
    """Say whether a value is an ordinary tensor: all of its elements are there."""
    if type(value) not in (Tensor, nn.Parameter) or not isinstance(value, Tensor):
        return False
    is_strided = value.layout is torch.strided and not value.is_meta
    return is_strided and not value.is_quantized


def is_entry(item: tuple[Any, Any]) -> bool:
    """Say whether this is an entry of a state dict: a name and a tensor."""
    return isinstance(item[0], str) and is_dense(item[1])


def find_non_finite(state: Mapping[str, Any]) -> str | None:
    """Return the name of a tensor of a state dict with NaN or infinity, None if all are finite."""
    for name, tensor in state.items():
        is_number = tensor.is_floating_point() or tensor.is_complex()
        if is_number and not bool(torch.isfinite(tensor).all()):
            return name
    return None


# ---------------------------------------------------------------- what is read


def check_stored(content: Mapping[str, Any], path: Path) -> None:
    """Make sure that options, classes, clips and data of one of our checkpoints can be used.

    Args:
        content: the checkpoint; parts that are absent are not asked for.
        path: of the file, for messages.

    Raises:
        FileFault: something is of another kind than training writes.
    """
    options = content.get("args", {})
    if not isinstance(options, Mapping) or not _is_told(options):
        raise FileFault(path, f"holds damaged options ({shown(options)})")
    check_told(options, path, "damaged options: it says")
    if not _is_names_or_none(content.get("classes")):
        raise FileFault(path, f"holds damaged classes ({shown(content['classes'])})")
    clips = content.get("clips") or {}
    if not isinstance(clips, Mapping) or not all(map(_is_marks, clips.items())):
        raise FileFault(path, "holds damaged fingerprints of its clips")
    if not _is_facts(content.get("data") or {}):
        raise FileFault(path, "holds damaged facts of its data")


def check_told(options: Mapping[str, Any], path: Path, what: str) -> None:
    """Make sure that options can be those of a network.

    Args:
        options: by name; those that are absent are not asked for.
        path: of the file that tells them, for messages.
        what: it holds, in words before the option that is wrong.

    Raises:
        FileFault: one of them is of another kind, or beyond its limits.
    """
    for name in RULES.keys() & options.keys():
        holds, text = RULES[name]
        if not holds(options[name]):
            fault = f"holds {what} {name} {shown(options[name])}, which should be {text}"
            raise FileFault(path, fault)


def shown(value: object) -> str:
    """Return a value for a message: short and printable, whatever it is."""
    if type(value) is int and abs(value) >= 10**30:
        return "a huge number"
    if value is None or type(value) in (bool, int, float):
        return str(value)
    text = repr(value[:61]) if isinstance(value, str) else f"a {type(value).__name__}"
    return printable(text if len(text) <= 60 else f"{text[:60]}...")


def _is_told(value: object) -> bool:
    """Say whether a value is text, a number, None, or a bounded nesting of lists and dicts."""
    # Counted, not walked to the end: a list that holds another many times costs a file nothing.
    left, budget = [value], _MOST_VALUES
    while left and budget > 0:
        inner = _inside(left.pop())
        if inner is None:
            return False
        budget -= 1 + len(inner)
        left += inner if budget > 0 else ()
    return budget > 0


def _inside(value: Any) -> list[Any] | None:
    """Return what is in a value, None if it may not be there."""
    if isinstance(value, Mapping):
        return list(value.values()) if all(type(key) is str for key in value) else None
    if type(value) in (list, tuple):
        return list(value)
    is_text = type(value) is str and len(value) <= _MOST_TEXT
    return [] if is_text or value is None or type(value) in (bool, int, float) else None


def _is_marks(item: tuple[Any, Any]) -> bool:
    """Say whether this is a list's name and the (N,) int64 fingerprints of its clips."""
    name, marks = item
    if type(name) is not str or not is_dense(marks):
        return False
    # An expanded tensor would be as large as it likes.
    return marks.dtype is torch.int64 and marks.ndim == 1 and marks.is_contiguous()


def _is_facts(data: object) -> bool:
    if not isinstance(data, Mapping) or not _is_told(data):
        return False
    lists = data.get("lists") or {}
    return isinstance(lists, Mapping) and all(map(_is_list_facts, lists.values()))


def _is_list_facts(facts: object) -> bool:
    if not isinstance(facts, Mapping):
        return False
    count, digest = facts.get("clips"), facts.get("sha256")
    return type(count) is int and count >= 0 and type(digest) is str


# ---------------------------------------------------------------- rules of options


def _choice(*values: str) -> Rule:
    return (
        lambda value: type(value) is str and value in values,
        f"one of {', '.join(values)}",
    )


def _whole(least: int, most: int) -> Rule:
    return (
        lambda value: type(value) is int and least <= value <= most,
        f"a whole number from {least} to {most:,}",
    )


def _wholes(count: int, least: int, most: int) -> Rule:
    holds, text = _whole(least, most)

    def hold(value: Any) -> bool:
        return type(value) in (list, tuple) and len(value) == count and all(map(holds, value))

    return hold, f"a list of {count}, each {text}"


def _real(least: float, most: float) -> Rule:
    def holds(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and least <= value <= most

    return holds, f"a number from {least:g} to {most:g}"


def _or_none(rule: Rule) -> Rule:
    return lambda value: value is None or rule[0](value), f"none or {rule[1]}"


def _is_text(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= _MOST_TEXT and "\0" not in value


def _is_names_or_none(value: Any) -> bool:
    if value is None:
        return True
    return type(value) in (list, tuple) and len(value) <= _MOST_NAMES and all(map(_is_text, value))


def _is_fold(value: Any) -> bool:
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9}|groups)", value) if type(value) is str else None
    if found is None or not value.isascii():
        return False
    number, count = found.groups()
    return int(number) >= 1 and (count == "groups" or int(count) >= max(2, int(number)))


def _streams() -> Rule:
    known = set(STREAMS) | set(VOLUME_STREAMS)

    def holds(value: Any) -> bool:
        if type(value) not in (list, tuple) or not 0 < len(value) <= len(known):
            return False
        return all(type(stream) is str and stream in known for stream in value)

    return holds, f"a list of {', '.join(sorted(known))}"


def _is_layout(value: Any) -> bool:
    try:
        if isinstance(value, Mapping):
            layout_from(value)
        else:
            find_layout(value)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


_FLAG: Rule = (lambda value: type(value) is bool, "true or false")
_TEXT: Rule = (_is_text, "text")
_SEED = _or_none(_whole(0, 2**64))

# Of the options that a test or a prediction takes over. Whatever training accepts passes; a number
# far above any use ends in one line instead of a machine without memory.
RULES: dict[str, Rule] = {
    "fusion": _choice(*FUSIONS),
    "arch": _choice(*LAYOUTS),
    "width": _whole(1, LIMITS["width"]),
    "num_channels": _whole(3, 4),
    "num_segments": _whole(1, LIMITS["num_segments"]),
    "gsf": _FLAG,
    "gsf_ch_ratio": _whole(1, 10_000),
    "pose_model": _choice(*POSE_MODELS),
    "pose_streams": _streams(),
    "num_people": _whole(1, LIMITS["num_people"]),
    "pose_pooling": _choice("mean", "masked"),
    "skeleton_layout": _or_none((_is_layout, "the name or the description of a joint layout")),
    "tcn_dropout": _real(0, 1),
    "posec3d_stages": _or_none(_wholes(3, 1, LIMITS["posec3d_stages"])),
    "rgbpose_streams": _choice("both", "rgb", "pose"),
    "stream_losses": _real(0, 1e300),
    "pose_frames": _whole(1, LIMITS["pose_frames"]),
    "pose_sampling": _choice(*SAMPLINGS),
    "pose_size": _whole(1, LIMITS["pose_size"]),
    "people_order": _choice(*PEOPLE_ORDERS),
    "people_padding": _choice(*PEOPLE_PADDINGS),
    "attention_scope": _choice("clip", "frame"),
    "dropout": _real(0, 1),
    "consensus_type": _choice("avg"),
    "input_size": _whole(1, LIMITS["input_size"]),
    "field_of_view": _choice("square", "frame"),
    "frame_interval": _or_none(_whole(1, LIMITS["frame_interval"])),
    "heatmap_sigma": _real(0, 1e300),
    "mask_background": _FLAG,
    "pose_normalize": _choice(*NORMALIZATIONS),
    "missing_pose": _choice("error", "skip", "zero"),
    "dataset": _TEXT,
    "dataset_path": _or_none(_TEXT),
    "class_names": (_is_names_or_none, f"none or a list of at most {_MOST_NAMES:,} names"),
    "synthetic_size": _wholes(2, 1, 100_000),
    "synthetic_clips": _wholes(3, 1, 10**9),
    "synthetic_seed": _SEED,
    "fold": _or_none((_is_fold, "k/K with k from 1 to K, or k/groups")),
    "fold_seed": _SEED,
    "fold_val": _or_none(_real(0, 1)),
    "annotations": _or_none(_TEXT),
    "keypoint_files": _or_none(_TEXT),
    "min_box_score": _real(0, 1),
    "skip_broken": _FLAG,
    **dict.fromkeys(("train_split", "val_split", "test_split"), _or_none(_TEXT)),
}
