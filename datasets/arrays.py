"""Arrays that somebody else wrote: never a pickle, and no more memory than the file explains."""

import math
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from errors import InputError

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # encrypted
    NotImplementedError,  # compressed in an unknown way
    zipfile.BadZipFile,
    zlib.error,
)
# 100 people of 17 joints in 25,000 frames; a compressed file may promise any number.
_MOST_BYTES = 512 * 2**20

Shape = tuple[int, ...]


class Fault(Exception):  # noqa: N818 - `blaming` makes an InputError of it
    """What is wrong with a file, in words that follow its name."""


@contextmanager
def blaming(path: Path, remedy: str, kind: str = "array") -> Iterator[None]:
    """Turn what goes wrong inside into an `InputError` about `path`.

    Args:
        path: the file.
        remedy: what to do, for the end of the message.
        kind: what the file should be.
    """
    try:
        yield
    except Fault as fault:
        raise InputError(f"{path} {fault}: {remedy}") from None
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no readable {kind} ({reason[:200]}): {remedy}") from None


def read_array(stream: IO[bytes], shape_fault: Callable[[Shape], str]) -> np.ndarray:
    """Read one .npy, looking at its header before anything is allocated.

    Args:
        stream: of the file.
        shape_fault: says what is wrong with a shape, in words that follow the file's name; ""
            where nothing is.

    Raises:
        Fault: it is of another type or shape, or ends too early.
    """
    shape, is_fortran, dtype = _read_header(stream)
    if dtype.kind not in "fiu":
        raise Fault(f"holds values of type {dtype}, they should be numbers")
    if min(shape, default=0) < 0:
        raise Fault(f"has the shape {shape}")
    if fault := shape_fault(shape):
        raise Fault(fault)
    size = math.prod(shape) * dtype.itemsize
    if size > _MOST_BYTES:
        raise Fault(f"holds {size:,} bytes of numbers, the most is {_MOST_BYTES:,}")
    data = _read_all(stream, size)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def unless(is_shape: Callable[[Shape], bool], expected: str) -> Callable[[Shape], str]:
    """Return a `shape_fault` that names the right shape in words."""
    return lambda shape: (
        "" if is_shape(shape) else f"has the shape {shape}, it should be {expected}"
    )


def _read_header(stream: IO[bytes]) -> tuple[Shape, bool, np.dtype]:
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise Fault(f"is of unknown .npy version {version}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers that Python 2 wrote
        try:
            return _HEADERS[version](stream)
        except Exception as error:  # noqa: BLE001 - numpy parses it as Python: anything may come
            reason = f"{type(error).__name__} in its header"
            raise Fault(f"is no readable array ({reason})") from None


def _read_all(stream: IO[bytes], size: int) -> bytes:
    """Read `size` bytes in pieces: a header that promises more than there is costs nothing."""
    pieces: list[bytes] = []
    left = size
    while left:
        piece = stream.read(min(left, 2**24))
        if not piece:
            raise Fault(f"ends after {size - left} of {size} bytes")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def read_member(
    archive: zipfile.ZipFile, name: str, shape_fault: Callable[[Shape], str]
) -> np.ndarray | None:
    """Read an array of an .npz; None if it has none of that name.

    Raises:
        Fault: see `read_array`.
    """
    if f"{name}.npy" not in archive.namelist():
        return None
    with archive.open(f"{name}.npy") as stream:
        return read_array(stream, shape_fault)
