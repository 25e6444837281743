"""Where the weights of a file lie, under which names, and what among them is none.

DataParallel, torch.compile and averages of weights put words before names or tensors beside them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from errors import InputError, printable
from models.anatomy import published_name
from models.skeleton.published import weights_alone
from models.stored import is_entry
from models.weight_files import FileFault

# Where a state dict may lie in a checkpoint: ours, published, published by GSF alone.
STATE_KEYS = ("model", "model_state_dict", "state_dict")
# What DataParallel and torch.compile put before every name, in any order and number.
_WRAPPERS = ("module.", "_orig_mod.")
# Of `torch.optim.swa_utils.AveragedModel`: how many weights were averaged.
_COUNT = "n_averaged"
# Before the averages of mmcv 1.x's EMAHook, which lie beside the weights as `ema_<name with _>`.
_AVERAGE = "ema_"
_MOST_DEPTH = 3
_MOST_NAME = 100


@dataclass(frozen=True, slots=True)
class StoredState:
    """The weights of a file.

    Attributes:
        tensors: by name, without the prefixes of wrappers.
        meta: what lies beside them; None for nothing.
        notes: what was left out, in sentences.
    """

    tensors: dict[str, Tensor]
    meta: Any = None
    notes: tuple[str, ...] = ()


def find_stored(content: Any, path: Path) -> StoredState | None:
    """Find the weights in what `read_checkpoint` returned; None if there are none.

    Raises:
        FileFault: two tensors are one by their names.
    """
    for state, meta in _places(content):
        if state and all(map(is_entry, state.items())):
            tensors = weights_alone(_renamed(state, path))
            averages = _averages(tensors)
            kept = {name: tensor for name, tensor in tensors.items() if name not in averages}
            _check_names(kept, path)
            return StoredState(kept, meta, _notes(averages))
    return None


def find_state(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of `find_weights` alone.

    Raises:
        InputError: there are no weights, or two tensors are one by their names.
    """
    return find_weights(content, path).tensors


def find_weights(content: Any, path: Path) -> StoredState:
    """Find the weights in what `read_checkpoint` returned.

    Raises:
        InputError: there are none, or two tensors are one by their names.
    """
    found = find_stored(content, path)
    if found is not None:
        return found
    names = list(map(short, list(content)[:5])) if isinstance(content, Mapping) else []
    raise InputError(
        f"{path} holds no weights (a {type(content).__name__} with {', '.join(names) or 'no keys'})"
        f": give a state dict, or a dict that has one under {', '.join(STATE_KEYS)}"
    )


def short(name: object) -> str:
    """Return a name of a file for a message: printable, and not too long."""
    text = printable(str(name)[: _MOST_NAME + 1])
    return text if len(text) <= _MOST_NAME else f"{text[:_MOST_NAME]}..."


def _places(content: Any, meta: Any = None, depth: int = 0) -> Iterator[tuple[Mapping, Any]]:
    """List the dicts that may be a state dict, the innermost first, and what lies beside each."""
    if not isinstance(content, Mapping) or depth > _MOST_DEPTH:
        return
    meta = content.get("meta", meta)
    for key in STATE_KEYS:
        yield from _places(content.get(key), meta, depth + 1)
    yield content, meta


def _renamed(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Take the prefixes of wrappers away."""
    tensors: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for key, tensor in state.items():
        name = _without_wrappers(key)
        if name in origins:
            raise _one_tensor(path, origins[name], key)
        origins[name], tensors[name] = key, tensor
    return tensors


def _without_wrappers(key: str) -> str:
    while key.startswith(_WRAPPERS):
        for prefix in _WRAPPERS:
            key = key.removeprefix(prefix)
    return key


def _check_names(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Make sure that no two tensors have one published name: which of them counts?"""
    origins: dict[str, str] = {}
    for name in tensors:
        other = origins.setdefault(published_name(name), name)
        if other != name:
            raise _one_tensor(path, other, name)


def _one_tensor(path: Path, first: str, second: str) -> FileFault:
    return FileFault(
        path,
        f"holds two tensors that are one in the model, {short(first)} and {short(second)}",
        "save the state dict of the model alone",
    )


def _averages(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of what an average of weights keeps beside them."""
    twins = {_AVERAGE + name.replace(".", "_") for name in tensors}
    return {name for name in tensors if name == _COUNT or name in twins}


def _notes(averages: set[str]) -> tuple[str, ...]:
    beside = len(averages - {_COUNT})
    notes = [f"{_COUNT} of averaged weights is left out"] if _COUNT in averages else []
    if beside:
        notes.append(f"{beside} averages beside the weights ({_AVERAGE}...) are left out")
    return tuple(notes)
