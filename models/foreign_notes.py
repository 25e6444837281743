"""What other programs keep in a file beside its weights, read without anything of theirs.

A checkpoint of MMAction2's training holds the course of its losses as objects of its own, and
numpy arrays in them. Their names are known here and stand for nothing: whatever a file asks of
them, they keep nothing and do nothing. All other names are refused.
"""

from collections import OrderedDict
from typing import Any, Self

import numpy as np


class Nothing:
    """Stands for an object of another program: takes everything, keeps nothing."""

    __slots__ = ()

    def __new__(cls, *_: object) -> Self:
        """Ignore what it would be made of."""
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore what it would hold."""


def nothing(*_: object) -> Nothing:
    """Stand for a function of another program, whatever it is called with."""
    return Nothing()


def number(kind: object = None, value: object = None) -> object:
    """Return a number of numpy as a pickle holds it; `Nothing` for all else.

    Of a type alone numpy would make as many zero bytes as the type claims.

    Args:
        kind: its type.
        value: its bytes.
    """
    if not isinstance(kind, np.dtype) or kind.char not in _NUMBERS:
        return Nothing()
    if type(value) is not bytes or len(value) != kind.itemsize:
        return Nothing()
    return np.frombuffer(value, kind)[0]


# OpenMMLab's mmengine, which writes the checkpoints of MMAction2 1.x: the course of each loss with
# the ways to average it, which a pickle fetches by `getattr`; and dicts of its configuration.
_OBJECTS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.logging.log_buffer.LogBuffer",
    "mmengine.logging.message_hub.MessageHub",
    "numpy.ndarray",
)
_FUNCTIONS = (
    "builtins.getattr",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)
_DICTS = ("mmengine.config.config.ConfigDict", "mmcv.utils.config.ConfigDict")
# Of the types of plain numbers, by numpy's letters.
_NUMBERS = "?bBhHiIlLqQefd"


def known_names() -> list[Any]:
    """List what may be named in a file beside tensors, for `torch.serialization.safe_globals`.

    Numbers of numpy become such numbers: published files keep the best accuracy as one.
    """
    # Its module has another name in numpy 1.
    scalars = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [
        np.dtype,
        *sorted({type(np.dtype(letter)) for letter in _NUMBERS}, key=str),
        *((number, name) for name in scalars),
        *((Nothing, name) for name in _OBJECTS),
        *((nothing, name) for name in _FUNCTIONS),
        *((OrderedDict, name) for name in _DICTS),
    ]
