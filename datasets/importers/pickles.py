"""Read a pickle of plain containers and arrays of numbers without running what is in it.

A pickle is a program. Here it meets stand-ins of our own instead of Python's and numpy's types, and
of those only what plain containers and arrays of numbers need; any other name ends the reading.
`reader.py` does this in a process of its own.

It imports nothing of ours, so that the process holds no more than it needs.
"""

import math
import pickle
import re
from collections.abc import Callable, Iterable
from typing import IO, Any

import numpy as np

_NUMBER = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")
_TEXT = re.compile(r"[<>=|]?[US][0-9]{1,4}")
_OBJECTS = re.compile(r"[<>=|]?O[48]?")


class Forbidden(pickle.UnpicklingError):
    """The pickle asks for something that annotations do not need."""


class _Call:
    """Something that a pickle may call; it has nothing that a pickle could change."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)

    def __setstate__(self, _: object) -> None:
        raise Forbidden("it changes a function")


class _Dtype:
    """Stands in for numpy.dtype: numbers, text, and objects, whose arrays are not kept."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        known = (_NUMBER, _TEXT, _OBJECTS)
        if not isinstance(code, str) or not any(kind.fullmatch(code) for kind in known):
            shown = code[:20] if isinstance(code, str) else type(code).__name__
            raise Forbidden(f"it holds values of type {shown!r}, not numbers")
        self.code, self.order = code.lstrip("<>=|"), "<"

    def __setstate__(self, state: object) -> None:
        order, *fields = state[1:5] if isinstance(state, tuple) and len(state) >= 5 else (None,)
        if not isinstance(order, str) or order not in "<>=|" or any(f is not None for f in fields):
            raise Forbidden("it holds records, not numbers")
        self.order = order

    @property
    def is_object(self) -> bool:
        """Say whether it is Python's objects."""
        return self.code.startswith("O")

    def of_numpy(self) -> np.dtype:
        """Return the type itself."""
        return np.dtype(self.order + self.code)


class Array:
    """Stands in for numpy.ndarray; without a `value` it is an array of objects."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Forbidden("it holds an array of a form that numpy does not write")
        _, shape, dtype, is_fortran, data = state
        if isinstance(dtype, _Dtype) and dtype.is_object:
            return
        self.value = _build(data, dtype, shape, "F" if is_fortran else "C")


def _build(data: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Return an array of the given bytes, which must be exactly as many as its shape needs."""
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    sizes = _checked_shape(shape)
    if not isinstance(dtype, _Dtype) or dtype.is_object or not isinstance(data, bytes | bytearray):
        raise Forbidden("it holds an array that is not numbers")
    kind = dtype.of_numpy()
    if math.prod(sizes) * kind.itemsize != len(data):
        raise Forbidden(f"it holds an array of shape {sizes} in {len(data)} bytes")
    if not data:
        return np.zeros(sizes, kind)
    return np.frombuffer(data, kind).reshape(sizes, order="F" if order == "F" else "C")


def _checked_shape(shape: object) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, tuple) and len(shape) <= 8 else (-1,)
    if not all(type(size) is int and 0 <= size < 2**40 for size in sizes):
        raise Forbidden("it holds an array without a plain shape")
    return sizes


def _reconstruct(cls: object, *_: object) -> Array:
    if cls is not _NDARRAY:
        raise Forbidden("it holds an array of a class of its own")
    return Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> Array:
    array = Array()
    array.value = _build(data, dtype, shape, order)
    return array


def _scalar(dtype: object, data: object) -> object:
    return _build(data, dtype, (), "C").item()


def _bytes(*arguments: object) -> bytes:
    """Bytes as older protocols write them: none, other bytes, or text of one byte a letter."""
    if not arguments:
        return b""
    if len(arguments) == 1 and isinstance(arguments[0], bytes | bytearray):
        return bytes(arguments[0])
    if len(arguments) == 2:
        return _latin1(*arguments)
    raise Forbidden("it makes bytes out of a number")


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """Bytes as Python 3 writes them in the protocols of Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Forbidden("it asks for _codecs.encode with something else than bytes")
    return text.encode("latin1")


def _refuse(*_: object) -> object:
    raise Forbidden("it makes an array other than by its bytes")


def _dict(items: Iterable[tuple[object, object]] = ()) -> dict[object, object]:
    return dict(items)


_NDARRAY = _Call(_refuse)
# Every name that a pickle may ask for.
ALLOWED: dict[tuple[str, str], _Call] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(_Dtype),
    **{
        (f"numpy.{core}.{module}", name): call
        for core in ("core", "_core")
        for module, name, call in (
            ("multiarray", "_reconstruct", _Call(_reconstruct)),
            ("multiarray", "scalar", _Call(_scalar)),
            ("numeric", "_frombuffer", _Call(_frombuffer)),
        )
    },
    ("collections", "OrderedDict"): _Call(_dict),
    ("_codecs", "encode"): _Call(_latin1),
    **{("builtins", kind.__name__): _Call(kind) for kind in (list, tuple, set, frozenset)},
    ("builtins", "dict"): _Call(_dict),
    ("builtins", "bytes"): _Call(_bytes),
    ("builtins", "bytearray"): _Call(lambda *arguments: bytearray(_bytes(*arguments))),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a name, or end the reading."""
        # Python 2, and protocols that it can read, have another name for builtins.
        call = ALLOWED.get(("builtins" if module == "__builtin__" else module, name))
        if call is None:
            raise Forbidden(f"it asks for {module[:60]}.{name[:60]}, which could run a program")
        return call


def load_plain(file: IO[bytes]) -> object:
    """Read one pickle; arrays come as stand-ins with a `value`.

    Raises:
        Forbidden: it asks for a name or a type that annotations do not need.
        Exception: whatever damaged bytes lead the unpickler to.
    """
    return _Unpickler(file, encoding="latin1").load()
