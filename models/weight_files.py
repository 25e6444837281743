"""Files of weights, read as plain data: no code of theirs runs, no size they claim is trusted.

Two kinds: archives of `torch.save` (and the pickles of its first releases), and safetensors.
"""

import io
import json
import math
import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import Tensor

from errors import InputError, printable
from files import open_regular
from models.foreign_notes import known_names
from models.pickle_steps import pickle_fault

COPY_AGAIN = "copy it again"
# What is found in place of weights where a link leads to a page, or large files were left out.
_STAND_INS = (
    (re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.I), "a web page",
     "take the link of the file itself"),
    (re.compile(rb"version https://git-lfs"), "a pointer to a file of Git LFS", "run git lfs pull"),
)  # fmt: skip
_MOST_TENSOR_BYTES = 2**33
_MOST_HEADER_BYTES = 2**26
# ResNet-152 with its optimizer has some thousand.
_MOST_MEMBERS = 100_000
_END = struct.Struct("<4s4H2LH")  # of an archive
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")  # before a member, its name and its extra field
_PIECE = 2**20
# Of the first releases: a magic number, a version, the machine, the content, the tensors' names.
_OLD_PICKLES = 5
# What zipfile raises over a damaged archive; RuntimeError also where it knows no such version.
_ZIP_FAULTS = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError,
    OverflowError,
)  # fmt: skip
# Bits of an element, by the name of its type in a safetensors file.
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2"), 8),
}


class FileFault(InputError):  # noqa: N818 - the user reads it as a fault of a file
    """A file that cannot be used.

    Attributes:
        fault: what is wrong with it, in words that follow its name.
    """

    def __init__(self, path: Path, fault: str, remedy: str = COPY_AGAIN) -> None:
        super().__init__(f"{path} {fault}: {remedy}")
        self.fault = fault


# ---------------------------------------------------------------- torch.save


def read_archive(file: IO[bytes], path: Path, *, is_checked: bool = False) -> Any:
    """Read what `torch.save` wrote, on the CPU.

    Args:
        file: stands at its start.
        path: its name, for messages.
        is_checked: its own sums need not be looked at, which takes as long as reading it.

    Raises:
        FileFault: it is damaged, claims more than it holds, or holds more than plain data.
    """
    size = os.fstat(file.fileno()).st_size
    if size == 0:
        raise _damaged(path, " (it is empty)")
    if _starts_with(file, b"PK"):
        _check_members(file, size, path)
        if not is_checked:
            _check_sums(file, path)
    else:
        _check_stand_in(file, path)
        _check_old(file, path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(known_names()):
            warnings.simplefilter("ignore")  # of a strange pickle protocol: it fails anyway
            return torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden:
            fault = (
                f"holds objects of {forbidden[1][:100]}, which only its own code can rebuild, and "
                "code of a file is never run"
            )
            raise FileFault(path, fault, "save the state dict of the model alone") from error
        raise _damaged(path, _reason(error)) from error


def _check_stand_in(file: IO[bytes], path: Path) -> None:
    start = file.read(256)
    file.seek(0)
    for pattern, what, remedy in _STAND_INS:
        if pattern.match(start):
            raise FileFault(path, f"is no checkpoint, but {what}", remedy)


def _starts_with(file: IO[bytes], magic: bytes) -> bool:
    start = file.read(len(magic))
    file.seek(0)
    return start == magic


def _check_members(file: IO[bytes], size: int, path: Path) -> None:
    """Make sure that reading an archive takes no more memory than its size explains.

    Its directory must be where every reader looks for it: at the very end, without a comment. So
    what is looked at here is what torch reads.
    """
    count, start, length, end = _directory(file, size, path)
    if count > _MOST_MEMBERS or start + length != end:
        raise _damaged(path, f" (a directory of {count:,} members that is not at its end)")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except _ZIP_FAULTS as error:
        raise _damaged(path, f" ({first_line(error)})") from error
    total = 0
    for member in members:
        is_stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
        if not is_stored or member.compress_size != member.file_size:
            what = f"has a packed member, {printable(member.filename)[:60]}, as no checkpoint has"
            raise FileFault(path, what, "save it with torch.save")
        total += member.file_size
    if total > size:
        raise _damaged(path, f" (its members claim {total:,} bytes, the file has {size:,})")
    file.seek(0)


def _check_sums(file: IO[bytes], path: Path) -> None:
    """Compare the members of an archive with their CRC-32, which `torch.load` does not."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            # torch can be told to write no sums.
            for member in members if any(member.CRC for member in members) else ():
                with archive.open(member) as stream:
                    while stream.read(_PIECE):
                        pass
            for member in members:
                if member.filename.endswith("data.pkl"):
                    _check_pickle(_content(file, member), path)
    except FileFault:
        raise
    except _ZIP_FAULTS as error:
        raise _damaged(path, f" ({first_line(error)})") from error
    file.seek(0)


def _content(file: IO[bytes], member: zipfile.ZipInfo) -> io.BytesIO:
    """Return what is in a stored member, which `zipfile` does not give out without its sum."""
    file.seek(member.header_offset + _LOCAL.size - 4)
    file.seek(sum(struct.unpack("<2H", file.read(4))), os.SEEK_CUR)
    return io.BytesIO(file.read(member.file_size))


def _check_old(file: IO[bytes], path: Path) -> None:
    """Look at the pickles at the start of a file of the first releases of torch."""
    for _ in range(_OLD_PICKLES):
        _check_pickle(file, path)
    file.seek(0)


def _check_pickle(stream: IO[bytes], path: Path) -> None:
    fault = pickle_fault(stream)
    if fault:
        raise _damaged(path, f" ({fault})")


def _directory(file: IO[bytes], size: int, path: Path) -> tuple[int, int, int, int]:
    """Return members, start and length of an archive's directory, and where it must end."""
    tail_size = min(size, _LOCATOR.size + _END.size)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    end = size - _END.size
    fields = _END.unpack(tail[-_END.size :]) if tail_size >= _END.size else (b"",)
    if fields[0] != b"PK\x05\x06" or fields[-1]:
        raise _damaged(path, " (an archive without its end)")
    count, length, start = fields[4:7]
    if tail.startswith(b"PK\x06\x07"):  # of an archive beyond 4 GiB
        end = _LOCATOR.unpack(tail[: _LOCATOR.size])[2]
        file.seek(min(end, size))
        data = file.read(_END64.size)
        large = _END64.unpack(data) if len(data) == _END64.size else (b"",)
        is_there = large[0] == b"PK\x06\x06" and end + _END64.size == size - len(tail)
        if not is_there:
            raise _damaged(path, " (an archive without its end)")
        count, length, start = large[7:10]
    return count, start, length, end


def _damaged(path: Path, reason: str) -> FileFault:
    return FileFault(path, f"is no checkpoint, or damaged{reason}")


def _reason(error: BaseException) -> str:
    """Return in brackets what a reader says; other errors are its slips on a foreign file."""
    says = isinstance(error, (RuntimeError, OSError, EOFError, pickle.UnpicklingError))
    return f" ({first_line(error)})" if says else ""


def first_line(error: BaseException) -> str:
    """Return the type and the first sentence of an error."""
    # The first sentence: torch goes on with advice to load the file unsafely.
    text = re.split(r"(?<=[a-z])[.:] |\n", str(error).strip(), maxsplit=1)[0][:120]
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


# ---------------------------------------------------------------- safetensors


def is_safetensors(file: IO[bytes], path: Path) -> bool:
    """Say whether a file is to be read as safetensors: by its name or its first bytes."""
    if path.suffix.lower() == ".safetensors":
        return True
    start = file.read(9)
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def read_safetensors(file: IO[bytes], path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        file: stands at its start.
        path: its name, for messages.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        FileFault: it is damaged, or its header does not describe what follows.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
    if not 2 <= length <= min(size - 8, _MOST_HEADER_BYTES) or size > _MOST_TENSOR_BYTES:
        raise _no_safetensors(path, f"a header of {length:,} bytes in a file of {size:,}")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise _no_safetensors(path, "its header is not JSON") from None
    fault = _header_fault(header, size - 8 - length)
    if fault:
        raise _no_safetensors(path, fault)
    file.seek(0)
    try:
        tensors = parse_tensors(file.read(size))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise _no_safetensors(path, first_line(error)) from error
    return tensors, dict(header.get("__metadata__", {}))


def _no_safetensors(path: Path, reason: str) -> FileFault:
    return FileFault(path, f"is no safetensors file, or damaged ({reason})")


def _header_fault(header: object, size: int) -> str:
    """Say what is wrong with a header of `size` bytes of tensors; "" where nothing is."""
    if not isinstance(header, dict):
        return "its header is not an object"
    told = header.get("__metadata__", {})
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        return "its metadata are not text"
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for name, entry in entries.items():
        if not _is_sound(entry, size):
            return f"tensor {printable(name)[:60]} is not described as it is"
    ends = [entry["data_offsets"] for entry in entries.values()]
    if sum(end - start for start, end in ends) > size:
        return "its tensors claim more bytes than it has"
    return ""


def _is_sound(entry: object, size: int) -> bool:
    """Say whether the entry of a tensor fits its type, its shape and the bytes that are there."""
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return False
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    lists = isinstance(shape, list) and isinstance(offsets, list)
    if not lists or not isinstance(kind, str) or kind not in _BITS:
        return False
    if len(shape) > 64 or len(offsets) != 2 or not all(map(_is_count, [*shape, *offsets])):
        return False
    start, end = offsets
    return start <= end <= size and math.prod(shape) * _BITS[kind] == (end - start) * 8


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


# ---------------------------------------------------------------- any of them


def open_weights(path: Path) -> AbstractContextManager[BufferedReader]:
    """Open a file of weights as a context manager.

    Raises:
        FileFault: it is not there, a folder, a pipe or a device, or may not be read.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file" if path.exists() else "not there"
        raise FileFault(path, f"is {what}", "give a checkpoint file, such as best.pth.tar of a run")
    return open_regular(path)
