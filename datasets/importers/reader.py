"""Read annotation pickles to plain files, in a process of their own: this file run as a script.

Limits on memory, time and what is written hold for the process, so that a pickle that means harm
can at worst end it. `reader.py annotations PICKLE FOLDER SECONDS` writes into FOLDER:

- `index.json`: {"annotations": [...], "split": {name: [clips]} or null}, or {"fault": text}. Each
  annotation has `clip`, the fields of `_FIELDS` (null where they are missing or broken; arrays as
  [type, shape, first byte]) and `faults`: [field, what is wrong in words that follow its name].
- `arrays.bin`: the numbers, each array in its own type.

`reader.py ddnet PICKLE FOLDER SECONDS` does the same with {pose: [arrays], label: [names]} of
DD-Net; its `index.json` is {"poses": [[type, shape, first byte], ...], "labels": [text, ...]}.

`reader.py videos LIST FOLDER SECONDS START` reads the pickles of single videos that LIST (JSON)
names, from the START-th on; it appends to `arrays.bin`, and a line for each to `videos.jsonl`:
{"clips": {name: {"keypoint": array, "keypoint_score": array} or {"fault": text}}} or
{"fault": text}.

It imports nothing of ours but `pickles.py`, so that the process holds no more than it needs.
"""

import contextlib
import errno
import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

if __name__ == "__main__":  # alone, without the rest of the program
    sys.path.append(str(Path(__file__).resolve().parent))
    from pickles import Array, Forbidden, load_plain
else:
    from datasets.importers.pickles import Array, Forbidden, load_plain

_MIB = 2**20
# What Python and numpy take before the first byte is read, and room to breathe.
_BASE_MEMORY = 1024 * _MIB
# Numbers are stored as they are, so an honest file needs little more memory than its size.
_MEMORY_PER_BYTE = 4
_MOST_TEXT = 4096
_MOST_JOINTS = 1000


class _Fault(Exception):  # noqa: N818 - not raised out of this file
    """What is wrong, in words that follow the name of the file or of the clip."""


# ---------------------------------------------------------------- one file of annotations


def export(content: object, folder: Path) -> None:
    """Write `index.json` and `arrays.bin` of what `load_plain` returned."""
    annotations, split = parts(content)
    key = "filename" if "filename" in annotations[0] else "frame_dir"
    with (folder / "arrays.bin").open("wb") as file:
        rows = [_row(annotation, key, file) for annotation in annotations]
    _write_index(folder, {"annotations": rows, "split": split})


def parts(content: object) -> tuple[list[dict], dict[str, list[str]] | None]:
    """Return the annotations and the splits of the content of a pickle."""
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
        if isinstance(clips, Array) and clips.value is not None:
            clips = clips.value.tolist()
        if not isinstance(clips, list | tuple | set | frozenset):
            raise _Fault(f"has a split {name[:60]!r} that is no list of clips")
        if not all(isinstance(clip, str) for clip in clips):
            raise _Fault(f"has a split {name[:60]!r} with clips that are no names")
        listed = sorted(clips) if isinstance(clips, set | frozenset) else clips
        # What cannot be written is no clip's name, and is told of as one without an annotation.
        checked[_written(name)] = [_written(clip) for clip in listed]
    return checked


def _row(annotation: dict, key: str, file: IO[bytes]) -> dict[str, object]:
    clip = annotation.get(key)
    row: dict[str, object] = {"clip": clip}
    faults = []
    if not isinstance(clip, str) or not 0 < len(clip) <= _MOST_TEXT or not _is_writable(clip):
        row["clip"] = None
        faults.append([key, f"has no name in its field {key}"])
    for name, read in _FIELDS.items():
        try:
            value = read(annotation, name)
            row[name] = _stored(value, file) if isinstance(value, np.ndarray) else value
        except _Fault as fault:
            row[name] = None
            faults.append([name, str(fault)])
    return {**row, "faults": faults}


def _written(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_writable(text: str) -> bool:
    """Say whether a name can be written to a file: halves of a letter pair cannot."""
    return _written(text) == text


def _keypoint(annotation: dict, name: str) -> np.ndarray | None:
    """Return (M, T, V, 2 or 3) keypoints, or (E, V, 3) people of the frames in frame_inds."""
    keypoint = _array(annotation, name)
    if keypoint is None:
        return None
    is_listed = keypoint.ndim == 3 and keypoint.shape[2] == 3 and "frame_inds" in annotation
    if not is_listed and (keypoint.ndim != 4 or keypoint.shape[3] not in (2, 3)):
        raise _Fault(
            f"has a keypoint of shape {keypoint.shape}, it should be (M, T, V, 2), or (M, T, V, 3) "
            "with x, y, z"
        )
    _check_joints(keypoint.shape)
    return keypoint


def _check_joints(shape: tuple[int, ...]) -> None:
    if not 0 < shape[-2] <= _MOST_JOINTS:
        raise _Fault(f"has {shape[-2]} joints, it should have 1 to {_MOST_JOINTS}")


def _score(annotation: dict, name: str) -> np.ndarray | None:
    score = _array(annotation, name)
    keypoint = annotation.get("keypoint")
    shape = None
    if isinstance(keypoint, Array) and keypoint.value is not None:
        shape = keypoint.value.shape
    if score is not None and shape is not None and score.shape != shape[:-1]:
        raise _Fault(f"has a keypoint_score of shape {score.shape} beside a keypoint of {shape}")
    return score


def _listed(annotation: dict, name: str) -> np.ndarray | None:
    """Return one number for each person of a clip whose people are listed."""
    value = annotation.get(name)
    kinds = (int,) if name == "frame_inds" else (int, float)
    if isinstance(value, list | tuple) and all(type(n) in kinds for n in value):
        with contextlib.suppress(OverflowError):
            return np.array(value, np.int64 if name == "frame_inds" else np.float64)
    if isinstance(value, list | tuple):
        what = "whole numbers" if name == "frame_inds" else "numbers"
        raise _Fault(f"has {name} that are not {what}")
    array = _array(annotation, name)
    if array is not None and array.ndim != 1:
        raise _Fault(f"has {name} of shape {array.shape}, they should be one number a person")
    if array is not None and name == "frame_inds" and array.dtype.kind not in "iu":
        raise _Fault("has frame_inds that are not whole numbers")
    return array


def _array(annotation: dict, name: str) -> np.ndarray | None:
    value = annotation.get(name)
    if value is None:
        return None
    if not isinstance(value, Array) or value.value is None or value.value.dtype.kind not in "fiu":
        raise _Fault(f"has a {name} that is no array of numbers")
    return value.value


def _whole(annotation: dict, name: str) -> int | None:
    value = annotation.get(name)
    if isinstance(value, Array) and value.value is not None and value.value.size == 1:
        value = value.value.item()
    if value is None or (type(value) is int and abs(value) < 2**53):
        return value
    raise _Fault(f"has a {name} that is no whole number")


def _height_width(annotation: dict, name: str) -> list[int] | None:
    value = annotation.get(name)
    if value is None:
        return None
    if isinstance(value, Array) and value.value is not None:
        value = value.value.tolist()
    numbers = value[:2] if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or not all(type(n) is int and 0 < n < 10**6 for n in numbers):
        raise _Fault(f"has an {name} that is not (height, width)")
    return list(numbers)


def _text(annotation: dict, name: str) -> str | None:
    value = annotation.get(name)
    if value is None or (isinstance(value, str) and len(value) <= _MOST_TEXT):
        return value
    raise _Fault(f"has a {name} that is no name of a file")


_FIELDS: dict[str, Callable[[dict, str], Any]] = {
    "label": _whole,
    "total_frames": _whole,
    "img_shape": _height_width,
    "keypoint": _keypoint,
    "keypoint_score": _score,
    # of the compressed form
    "raw_file": _text,
    "frame_inds": _listed,
    "box_score": _listed,
}


def _stored(array: np.ndarray, file: IO[bytes]) -> list[object]:
    kind = array.dtype.newbyteorder("<")
    place = file.tell()
    file.write(np.ascontiguousarray(array, dtype=kind).tobytes())
    return [kind.str, list(array.shape), place]


def _shown(content: dict) -> str:
    names = (key[:40] if isinstance(key, str) else type(key).__name__ for key in content)
    return ", ".join(list(names)[:5]) or "(none)"


def _write_index(folder: Path, index: dict[str, object]) -> None:
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


# ---------------------------------------------------------------- pickles of single videos


def export_video(content: object, file: IO[bytes]) -> dict[str, dict[str, object]]:
    """Append the numbers of the clips of a pickle to `file`; return where they are.

    The content is {clip: {keypoint: array}}, or {keypoint: array} or the array of the only clip,
    whose name is "" then. A clip that is broken has a "fault" instead.
    """
    if isinstance(content, Array):
        content = {"keypoint": content}
    if isinstance(content, dict) and "keypoint" in content:
        content = {"": content}
    if not isinstance(content, dict) or not content:
        raise _Fault("has neither clips nor a keypoint")
    return {
        name: _sound_or_fault(clip, file)
        for name, clip in content.items()
        if isinstance(name, str) and len(name) <= _MOST_TEXT
    }


def _sound_or_fault(clip: object, file: IO[bytes]) -> dict[str, object]:
    try:
        return _video_clip(clip, file)
    except _Fault as fault:
        return {"fault": str(fault)}


def _video_clip(clip: object, file: IO[bytes]) -> dict[str, object]:
    if isinstance(clip, Array):
        clip = {"keypoint": clip}
    keypoint = _array(clip, "keypoint") if isinstance(clip, dict) else None
    shape = None if keypoint is None else keypoint.shape
    # Listed people have their scores with them; those of tracks may lie apart.
    is_usable = shape is not None and (
        shape[2:] == (3,) or (len(shape) == 4 and shape[3] in (2, 3))
    )
    if keypoint is None or not is_usable:
        raise _Fault(f"has a keypoint of shape {shape}, it should be (people, V, 3)")
    _check_joints(keypoint.shape)
    assert isinstance(clip, dict)
    score = _score(clip, "keypoint_score")
    return {
        "keypoint": _stored(keypoint, file),
        "keypoint_score": None if score is None else _stored(score, file),
    }


# ---------------------------------------------------------------- one file of DD-Net


def export_ddnet(content: object, folder: Path) -> None:
    """Write `index.json` and `arrays.bin` of {pose: arrays, label: names}."""
    if not isinstance(content, dict) or not {"pose", "label"} <= content.keys():
        raise _Fault("is no file of DD-Net: it should be a dict of pose and label")
    poses, labels = _items(content, "pose"), _items(content, "label")
    if len(poses) != len(labels) or not poses:
        raise _Fault(f"has {len(poses)} poses and {len(labels)} labels")
    if not all(isinstance(label, str | int) and _is_writable(str(label)) for label in labels):
        raise _Fault("has labels that are no names of classes")
    with (folder / "arrays.bin").open("wb") as file:
        stored = [_stored(_pose(number, pose), file) for number, pose in enumerate(poses)]
    _write_index(folder, {"poses": stored, "labels": [str(label) for label in labels]})


def _items(content: dict, name: str) -> list[object]:
    value = content[name]
    if isinstance(value, Array) and value.value is not None and value.value.ndim:
        return list(value.value) if name == "pose" else value.value.tolist()
    if not isinstance(value, list | tuple):
        raise _Fault(f"has a {name} that is no list")
    return list(value)


def _pose(number: int, held: object) -> np.ndarray:
    value = held.value if isinstance(held, Array) else held
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise _Fault(f"has a pose {number} that is no array of numbers")
    return value


# ---------------------------------------------------------------- the process


def _limit(memory: int, output: int, seconds: int) -> None:
    """Bound what this process may take; a system without one of the limits goes without it.

    Args:
        memory: bytes of the largest pickle.
        output: bytes of all pickles, and of what is there already.
        seconds: of one core.
    """
    limits = (
        (resource.RLIMIT_AS, _BASE_MEMORY + _MEMORY_PER_BYTE * memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, 64 * _MIB + _MEMORY_PER_BYTE * output),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    )
    for kind, most in limits:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def _guarded(work: Callable[[], object]) -> str:
    """Run `work` and return what is wrong with its pickle, "" for nothing."""
    try:
        work()
    except MemoryError:
        return "asks for far more memory than its size explains"
    except Forbidden as error:
        return f"is refused: {error}"
    except _Fault as error:
        return str(error)
    except OSError as error:
        if error.errno == errno.EFBIG:
            return "holds far more numbers than its size explains"
        return f"cannot be read ({error.strerror})"
    except Exception as error:  # noqa: BLE001 - hostile bytes lead anywhere; all of it ends here
        return f"is no readable pickle ({type(error).__name__}: {str(error)[:200]})"
    return ""


def _read_one(path: Path, folder: Path, seconds: int, write: Callable[..., None]) -> None:
    _limit(path.stat().st_size, path.stat().st_size, seconds)

    def read() -> None:
        with path.open("rb") as file:
            write(load_plain(file), folder)

    if fault := _guarded(read):
        _write_index(folder, {"fault": fault})


def _read_videos(listed: Path, folder: Path, seconds: int, start: int) -> None:
    paths = [Path(name) for name in json.loads(listed.read_text(encoding="utf-8"))]
    sizes = [path.stat().st_size for path in paths]
    with (folder / "arrays.bin").open("ab") as numbers, (folder / "videos.jsonl").open("ab") as log:
        _limit(max(sizes), numbers.tell() + sum(sizes), seconds)
        for path in paths[start:]:
            found: dict[str, object] = {}

            def read(path: Path = path, found: dict[str, object] = found) -> None:
                with path.open("rb") as file:
                    found["clips"] = export_video(load_plain(file), numbers)

            fault = _guarded(read)
            numbers.flush()
            log.write(json.dumps({"fault": fault} if fault else found).encode() + b"\n")
            log.flush()


def _main(kind: str, path: str, folder: str, seconds: str, start: str = "0") -> None:
    if kind == "videos":
        _read_videos(Path(path), Path(folder), int(seconds), int(start))
    else:
        write = {"annotations": export, "ddnet": export_ddnet}[kind]
        _read_one(Path(path), Path(folder), int(seconds), write)


if __name__ == "__main__":
    _main(*sys.argv[1:])
