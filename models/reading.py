"""Checkpoints as they are read: which are ours, what they say, what continuing a run needs."""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from models.anatomy import Anatomy
from models.skeleton.notes import told_classes, told_options
from models.skeleton.published import is_toolbox
from models.state_dicts import find_stored
from models.stored import check_stored, check_told, is_dense, is_entry, shown
from models.weight_files import (
    FileFault,
    first_line,
    is_safetensors,
    open_weights,
    read_archive,
    read_safetensors,
)
from options.skeletons import EARLIER_DEFAULTS

FORMAT = "gate-shift-pose"
FORMAT_VERSION = 1
_TRAINING_ONLY = {"optimizer", "scaler", "model", "clips", "totals"}


def read_checkpoint(path: Path) -> Any:
    """Read a file of `torch.save`, or a safetensors file, as plain data, on the CPU.

    The safetensors file of one of our runs becomes a dict like the checkpoint that it is of,
    without what only training needs.

    Raises:
        InputError: no such file, no such format, damaged, or it holds more than plain data.
    """
    try:
        with open_weights(path) as file:
            return read_opened(file, path)
    except OSError as error:
        raise FileFault(path, f"cannot be read ({error.strerror or error})") from error


def read_opened(file: IO[bytes], path: Path, *, is_checked: bool = False) -> Any:
    """Read an open file as `read_checkpoint` does.

    Args:
        file: stands at its start.
        path: its name, for messages.
        is_checked: its sum was compared already.

    Raises:
        InputError: see `read_checkpoint`.
    """
    if is_safetensors(file, path):
        tensors, told = read_safetensors(file, path)
        content = _unpack_told(tensors, told, path) if told.get("format") == FORMAT else tensors
    else:
        content = read_archive(file, path, is_checked=is_checked)
    if is_ours(content):
        _check_version(content, path)
        check_stored(content, path)
    return content


def is_ours(content: Any) -> bool:
    """Say whether what was read is a checkpoint of this project."""
    form = content.get("format") if isinstance(content, Mapping) else None
    return isinstance(form, str) and form == FORMAT


def told_of(payload: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return what a checkpoint says beside its model, as the metadata of a safetensors file.

    Each entry is JSON; the fingerprints of clips are base64 of little-endian int64. Left out is
    what only training needs. `sha256` is that of `tensors` and all the rest.
    """
    told = {}
    for key in payload.keys() - _TRAINING_ONLY:
        with suppress(TypeError):  # tensors are for training
            told[key] = json.dumps(payload[key])
    marks = {
        split: base64.b64encode(clips.cpu().numpy().astype("<i8").tobytes()).decode()
        for split, clips in payload.get("clips", {}).items()
    }
    told |= {"clips": json.dumps(marks), "format": FORMAT}
    return {**told, "sha256": _sum_of(tensors, told)}


def _sum_of(tensors: Mapping[str, Tensor], told: Mapping[str, str]) -> str:
    """Return the SHA-256 of contiguous tensors and of text, whatever their order."""
    found = hashlib.sha256(json.dumps(sorted(told.items())).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _unpack_told(tensors: Mapping[str, Tensor], told: Mapping[str, str], path: Path) -> Any:
    """Return what `told_of` was made of.

    Raises:
        FileFault: the metadata are not what `told_of` writes, or their sum is another.
    """
    values = dict(told)
    if values.pop("sha256", None) != _sum_of(tensors, values):
        raise FileFault(path, "is damaged (its SHA-256 is not the one that it names)")
    del values["format"]
    try:
        content = {key: json.loads(text) for key, text in values.items()}
        clips = {
            split: np.frombuffer(base64.b64decode(text, validate=True), "<i8").astype(np.int64)
            for split, text in content.pop("clips", {}).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FileFault(path, f"has damaged metadata ({first_line(error)})") from error
    marks = {split: torch.from_numpy(numbers) for split, numbers in clips.items()}
    return {**content, "format": FORMAT, "clips": marks, "model": dict(tensors)}


def checkpoint_options(path: Path) -> dict[str, Any]:
    """Return the options that a checkpoint was trained with.

    Those of ours say all of them. Of files of PYSKL and MMAction2 names, shapes and notes tell
    some; other files tell none: {}.
    """
    content = read_checkpoint(path)
    if not is_ours(content):
        return _toolbox_options(content, path)
    options = content.get("args", {})
    # The classes that the network knows, also where the lists of another split lack some.
    options = {**EARLIER_DEFAULTS, **options}
    layout = (content.get("data") or {}).get("layout")
    # What the clips turned out to have: a name on the command line says no dimensions.
    options["skeleton_layout"] = layout or options["skeleton_layout"]
    classes = options.get("class_names") or content.get("classes")
    return {**options, "class_names": classes} if classes else dict(options)


def _toolbox_options(content: Any, path: Path) -> dict[str, Any]:
    stored = find_stored(content, path)
    if stored is None or not is_toolbox(stored.tensors):
        return {}
    state, meta = stored.tensors, stored.meta
    holds = Anatomy.of(state, meta)
    options = told_options(state, holds.skeleton, meta, path)
    check_told(options, path, f"a {holds.skeleton} that nobody trained: its tensors say")
    classes = told_classes(meta, holds.classes)
    return {**options, "class_names": classes} if options and classes else options


def read_training_state(path: Path) -> dict[str, Any]:
    """Read one of our checkpoints with all that is needed to continue its run.

    Raises:
        InputError: it is not such a file.
    """
    return training_state(read_checkpoint(path), path)


def training_state(content: Any, path: Path) -> dict[str, Any]:
    """Make sure that what was read is the state of a training run, and return it.

    Raises:
        InputError: it is not.
    """
    if not is_ours(content) or "args" not in content or "optimizer" not in content:
        raise FileFault(
            path,
            "is not the checkpoint of a training run, so it cannot be continued",
            f"to start from its weights use --finetune --checkpoint_path {path}",
        )
    for name, is_right in _STATE.items():
        if not is_right(content.get(name)):
            what = "is damaged" if name in content else "is not there"
            raise FileFault(path, f"holds a training state whose {name} {what}")
    return dict(content)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(is_entry, value.items()))


# What continuing a run relies on.
_STATE: dict[str, Callable[[Any], bool]] = {
    "model": _is_state,
    "optimizer": lambda value: (
        isinstance(value, Mapping) and {"state", "param_groups"} <= set(value)
    ),
    "scaler": lambda value: isinstance(value, Mapping),
    "epoch": _is_count,
    "step": _is_count,
    "totals": lambda value: is_dense(value) and value.shape == (3,),
    "best": lambda value: type(value) in (int, float),
    "best_loss": lambda value: type(value) in (int, float),
    "best_epoch": lambda value: type(value) is int,
}


def _check_version(content: Any, path: Path) -> None:
    version = content.get("version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise FileFault(
            path,
            f"is a checkpoint of version {shown(version)}, this is version {FORMAT_VERSION}",
            "use the release that wrote it",
        )
