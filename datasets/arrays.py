"""Arrays that somebody else wrote: never a pickle, and no more memory than the file explains."""

import errno
import io
import lzma
import math
import os
import stat
import struct
import threading
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

_PARSING = threading.Lock()
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
# What reading a damaged archive or array raises.
UNREADABLE = (
    OSError,
    EOFError,
    OverflowError,
    ValueError,
    RuntimeError,  # encrypted
    NotImplementedError,  # compressed in an unknown way
    lzma.LZMAError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# 100 people of 17 joints in 25,000 frames; a compressed file may promise any number.
_MOST_BYTES = 512 * 2**20
# At a time; an archive whose table of contents is larger holds no arrays of ours.
_PIECE = 2**20
_LONGEST_HEADER = 2**16

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
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no readable {kind} ({reason[:200]}): {remedy}") from None


class _Pieces(io.FileIO):
    """A regular file that is read piece by piece, so that none of it can be a flood."""

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        super().__init__(os.open(path, flags))
        if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, below 0 one piece at most; more than a piece is refused."""
        if size is not None and size > _PIECE:
            raise Fault("has a table of contents that is far too long")
        return super().read(_PIECE if size is None or size < 0 else size) or b""


def open_array(path: Path) -> IO[bytes]:
    """Open a file for `read_array`.

    Raises:
        OSError: it cannot be read, or is a pipe or a device.
    """
    return _Pieces(path)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an .npz for `read_member`.

    Raises:
        Fault, and the errors of `UNREADABLE`: it cannot be read.
    """
    with _Pieces(path) as file, zipfile.ZipFile(file) as archive:
        yield archive


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
    flat = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def read_text(stream: IO[bytes], most_bytes: int) -> str:
    """Read one .npy that holds a single text; "" where it holds something else, or a longer one.

    Raises:
        Fault: its header is damaged, or it ends too early.
        UnicodeDecodeError: its characters are none.
    """
    shape, _, dtype = _read_header(stream)
    if dtype.kind != "U" or shape or not 0 < dtype.itemsize <= most_bytes:
        return ""
    # Not by numpy, which takes any number for a character.
    coding = "utf-32-be" if dtype.byteorder == ">" else "utf-32-le"
    return _read_all(stream, dtype.itemsize).decode(coding).rstrip("\0")


def unless(is_shape: Callable[[Shape], bool], expected: str) -> Callable[[Shape], str]:
    """Return a `shape_fault` that names the right shape in words."""
    return lambda shape: (
        "" if is_shape(shape) else f"has the shape {shape}, it should be {expected}"
    )


class _Head:
    """The beginning of a stream: a header says how long it is, and may say gigabytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes of a header."""
        if not 0 <= size <= _LONGEST_HEADER:
            raise Fault("has a header that is far too long")
        return self._stream.read(size)


def _read_header(stream: IO[bytes]) -> tuple[Shape, bool, np.dtype]:
    head = _Head(stream)
    version = npy.read_magic(head)
    if version not in _HEADERS:
        raise Fault(f"is of unknown .npy version {version}")
    # One thread at a time: Python's parser may fail in several ("AST constructor recursion depth
    # mismatch", 3.11), and the filters of warnings are common to all.
    with _PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers that Python 2 wrote
        try:
            return _HEADERS[version](head)
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001 - numpy parses it as Python: anything may come
            reason = f"{type(error).__name__} in its header"
            raise Fault(f"is no readable array ({reason})") from None


def _read_all(stream: IO[bytes], size: int) -> bytes:
    """Read `size` bytes in pieces: a header that promises more than there is costs nothing."""
    pieces: list[bytes] = []
    left = size
    while left:
        piece = stream.read(min(left, _PIECE))
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
