"""Read an annotation pickle (PYSKL, MMAction2) without running what is in it.

A pickle is a program. Here it meets stand-ins of our own instead of Python's and numpy's types, and
of those only what plain containers and arrays of numbers need; any other name ends the reading.
Even so it is read in a process of its own, this file run as a script, with limits on memory, time
and what it writes. That process leaves plain files behind:

- `index.json`: {"annotations": [...], "split": {name: [clips]} or null}, or {"fault": text}. Each
  annotation has `clip`, `label`, `total_frames`, `img_shape`, and `keypoint` and `keypoint_score`
  as [type, shape, first byte]; or `clip` and `fault`, in words that follow its name.
- `arrays.bin`: the numbers themselves.

It imports nothing of ours, so that the process holds no more than it needs.
"""

import contextlib
import json
import math
import pickle
import re
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

_MIB = 2**20
# What Python and numpy take before the first byte is read, and room to breathe.
_BASE_MEMORY = 1024 * _MIB
# Numbers are stored as they are, so an honest file needs little more memory than its size.
_MEMORY_PER_BYTE = 4
_MOST_TEXT = 4096

_NUMBER = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1)")
_TEXT = re.compile(r"[<>=|]?[US][0-9]{1,4}")


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
    """Stands in for numpy.dtype: numbers, and text for names."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not (_NUMBER.fullmatch(code) or _TEXT.fullmatch(code)):
            shown = code[:20] if isinstance(code, str) else type(code).__name__
            raise Forbidden(f"it holds values of type {shown!r}, not numbers")
        self.code, self.order = code.lstrip("<>=|"), "<"

    def __setstate__(self, state: object) -> None:
        order, *fields = state[1:5] if isinstance(state, tuple) and len(state) >= 5 else (None,)
        if not isinstance(order, str) or order not in "<>=|" or any(f is not None for f in fields):
            raise Forbidden("it holds records, not numbers")
        self.order = order

    def of_numpy(self) -> np.dtype:
        """Return the type itself."""
        return np.dtype(self.order + self.code)


class _Array:
    """Stands in for numpy.ndarray."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Forbidden("it holds an array of a form that numpy does not write")
        _, shape, dtype, is_fortran, data = state
        self.value = _build(data, dtype, shape, "F" if is_fortran else "C")


def _build(data: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """Return an array of the given bytes, which must be exactly as many as its shape needs."""
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    sizes = _checked_shape(shape)
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
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


def _reconstruct(cls: object, *_: object) -> _Array:
    if cls is not _NDARRAY:
        raise Forbidden("it holds an array of a class of its own")
    return _Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
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


# ---------------------------------------------------------------- annotations to plain files


class _Fault(Exception):  # noqa: N818 - not raised out of this file
    """What is wrong, in words that follow the name of the file or of the clip."""


def export(content: object, folder: Path) -> None:
    """Write `index.json` and `arrays.bin` of what `load_plain` returned."""
    annotations, split = _parts(content)
    key = "filename" if annotations and "filename" in annotations[0] else "frame_dir"
    with (folder / "arrays.bin").open("wb") as file:
        rows = [_row(annotation, key, file) for annotation in annotations]
    _write_index(folder, {"annotations": rows, "split": split})


def _parts(content: object) -> tuple[list[dict], dict[str, list[str]] | None]:
    split = None
    if isinstance(content, dict):
        if "annotations" not in content:
            raise _Fault(f"has the keys {_shown(content)}, it should have split and annotations")
        split, content = content.get("split"), content["annotations"]
    if not isinstance(content, list | tuple) or not all(isinstance(a, dict) for a in content):
        raise _Fault("has no list of annotations, each a dict")
    if not content:
        raise _Fault("has no annotations")
    return list(content), None if split is None else _checked_split(split)


def _checked_split(split: object) -> dict[str, list[str]]:
    if not isinstance(split, dict) or not all(isinstance(name, str) for name in split):
        raise _Fault("has a split that is not a dict of names")
    checked = {}
    for name, clips in split.items():
        if isinstance(clips, _Array) and clips.value is not None:
            clips = clips.value.tolist()
        if not isinstance(clips, list | tuple | set | frozenset):
            raise _Fault(f"has a split {name[:60]!r} that is no list of clips")
        if not all(isinstance(clip, str) for clip in clips):
            raise _Fault(f"has a split {name[:60]!r} with clips that are no names")
        checked[name] = sorted(clips) if isinstance(clips, set | frozenset) else list(clips)
    return checked


def _row(annotation: dict, key: str, file: IO[bytes]) -> dict[str, object]:
    clip = annotation.get(key)
    if not isinstance(clip, str) or not 0 < len(clip) <= _MOST_TEXT:
        return {"clip": None, "fault": f"has no name in its field {key}"}
    try:
        return {"clip": clip, **_fields(annotation, file)}
    except _Fault as fault:
        return {"clip": clip, "fault": str(fault)}


def _fields(annotation: dict, file: IO[bytes]) -> dict[str, object]:
    if "keypoint" not in annotation and {"raw_file", "frame_inds"} & annotation.keys():
        raise _Fault(
            "is of the compressed Kinetics form, whose keypoints lie in other pickles: decompress "
            "it first"
        )
    keypoint = _array(annotation, "keypoint")
    if keypoint is None or keypoint.ndim != 4 or keypoint.shape[3] not in (2, 3):
        shape = None if keypoint is None else keypoint.shape
        raise _Fault(f"has a keypoint of shape {shape}, it should be (M, T, V, 2)")
    score = _array(annotation, "keypoint_score")
    if score is not None and score.shape != keypoint.shape[:3]:
        raise _Fault(
            f"has a keypoint_score of shape {score.shape} beside a keypoint of {keypoint.shape}"
        )
    size = annotation.get("img_shape")
    return {
        "label": _whole(annotation, "label"),
        "total_frames": _whole(annotation, "total_frames"),
        "img_shape": None if size is None else _height_width(size),
        "keypoint": _stored(keypoint, file),
        "keypoint_score": None if score is None else _stored(score, file),
    }


def _array(annotation: dict, name: str) -> np.ndarray | None:
    value = annotation.get(name)
    if value is None:
        return None
    if not isinstance(value, _Array) or value.value is None or value.value.dtype.kind not in "fiu":
        raise _Fault(f"has a {name} that is no array of numbers")
    return value.value


def _whole(annotation: dict, name: str) -> int | None:
    value = annotation.get(name)
    if isinstance(value, _Array) and value.value is not None and value.value.size == 1:
        value = value.value.item()
    if value is None or (type(value) is int and abs(value) < 2**53):
        return value
    raise _Fault(f"has a {name} that is no whole number")


def _height_width(value: object) -> list[int]:
    if isinstance(value, _Array) and value.value is not None:
        value = value.value.tolist()
    numbers = value[:2] if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or not all(type(n) is int and 0 < n < 10**6 for n in numbers):
        raise _Fault("has an img_shape that is not (height, width)")
    return list(numbers)


def _stored(array: np.ndarray, file: IO[bytes]) -> list[object]:
    kind = array.dtype.str if array.dtype.str in ("<f2", "<f4") else "<f4"
    place = file.tell()
    with np.errstate(all="ignore"):
        file.write(np.ascontiguousarray(array, dtype=kind).tobytes())
    return [kind, list(array.shape), place]


def _shown(content: dict) -> str:
    names = (key[:40] if isinstance(key, str) else type(key).__name__ for key in content)
    return ", ".join(list(names)[:5]) or "(none)"


def _write_index(folder: Path, index: dict[str, object]) -> None:
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


# ---------------------------------------------------------------- the process


def _limit(size: int, seconds: int) -> None:
    """Bound what this process may take; a system without one of the limits goes without it."""
    limits = (
        (resource.RLIMIT_AS, _BASE_MEMORY + _MEMORY_PER_BYTE * size),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 64 * _MIB + _MEMORY_PER_BYTE * size),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    )
    for kind, most in limits:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _main(path: Path, folder: Path, seconds: int) -> None:
    _limit(path.stat().st_size, seconds)
    try:
        with path.open("rb") as file:
            export(load_plain(file), folder)
    except MemoryError:
        fault = "asks for far more memory than its size explains"
    except Forbidden as error:
        fault = f"is refused: {error}"
    except _Fault as error:
        fault = str(error)
    except Exception as error:  # noqa: BLE001 - hostile bytes lead anywhere; all of it ends here
        fault = f"is no readable pickle ({type(error).__name__}: {str(error)[:200]})"
    else:
        return
    _write_index(folder, {"fault": fault})


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
