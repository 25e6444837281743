"""What a model said about each clip of a list, in a file: `.npz` for programs, `.csv` for people.

Both hold the same and read back to the same values. No file is ever unpickled.
"""

import csv
import io
import math
import re
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from errors import InputError
from files import read_regular, replacing, write_text
from results.calibration import KINDS, Kind

SUFFIXES = (".npz", ".csv")
# Ten million clips of a dozen classes; a file that unpacks to more is none of ours.
_MOST_BYTES = 2**30
_MOST_ARRAYS = 100
_LAST_CHARACTER = 0x10FFFF
_FORMULA = re.compile(r"'*\s*[=+\-@]")
_FIXED = ("clip", "group", "split", "protocol", "label", "predicted")
_AGAIN = "write it again with test_models.py --save_scores"


@dataclass(frozen=True, slots=True, eq=False)
class ClipScores:
    """What a model said about N clips of K classes.

    Attributes:
        clips: N distinct names.
        labels: (N,) int64 true classes.
        scores: (N, K) finite; averaged over the views of a clip.
        classes: K distinct names.
        kind: what the scores are.
        groups: what each clip belongs to (a video, an athlete), "" for a clip on its own; None when
            not known.
        split: the list that was scored, "train", "val" or "test"; "" when not known.
        protocol: of the list; not "" when the test clips chose the epoch (`PUBLISHED`).
    """

    clips: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...]
    kind: Kind = "logits"
    groups: tuple[str, ...] | None = None
    split: str = ""
    protocol: str = ""

    def __post_init__(self) -> None:
        """Check the values against each other.

        Raises:
            ValueError: they do not fit; the message follows the name of the file.
        """
        for check in (_check_clips, _check_scores, _check_kind):
            check(self)

    @property
    def units(self) -> tuple[str, ...] | None:
        """The group of each clip, where a clip without one is its own; None when none has one."""
        if self.groups is None or not any(self.groups):
            return None
        pairs = zip(self.groups, self.clips, strict=True)
        return tuple(f"group {group}" if group else f"clip {clip}" for group, clip in pairs)

    def __len__(self) -> int:
        return len(self.clips)


def _check_clips(values: ClipScores) -> None:
    total, num_classes = len(values.clips), len(values.classes)
    if not total:
        raise ValueError("holds no clip: it needs at least one")
    for name in (*values.clips, *values.classes, *(values.groups or ())):
        if not _can_be_written(name):
            raise ValueError(f"holds {ascii(name)[:100]}, which no text file can hold")
    if len(set(values.clips)) < total:
        seen: set[str] = set()
        twice = next(c for c in values.clips if c in seen or seen.add(c))  # type: ignore[func-returns-value]
        raise ValueError(f"holds clip {twice!r} twice: each clip must have one line")
    if not num_classes or len(set(values.classes)) < num_classes:
        raise ValueError("has class names that are missing or not distinct")
    if values.groups is not None and len(values.groups) != total:
        raise ValueError(f"has {len(values.groups)} groups for {total} clips")


def _can_be_written(text: str) -> bool:
    """Say whether a text is Unicode: an array may hold half a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_scores(values: ClipScores) -> None:
    total, num_classes = len(values.clips), len(values.classes)
    labels, scores = values.labels, values.scores
    if scores.shape != (total, num_classes) or scores.dtype.kind != "f":
        raise ValueError(
            f"has scores {scores.dtype} {scores.shape}: {total} clips and {num_classes} classes "
            f"need floating-point numbers ({total}, {num_classes})"
        )
    if labels.shape != (total,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"has labels {labels.dtype} {labels.shape}: {total} clips need whole numbers ({total},)"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        worst = int(((labels < 0) | (labels >= num_classes)).argmax())
        raise ValueError(
            f"has label {labels[worst]} for clip {values.clips[worst]!r}: {num_classes} classes "
            f"are 0 to {num_classes - 1}"
        )
    is_finite = np.isfinite(scores).all(1)
    if not is_finite.all():
        clip = values.clips[int(is_finite.argmin())]
        raise ValueError(f"has scores of clip {clip!r} that are not finite")


def _check_kind(values: ClipScores) -> None:
    if values.kind not in KINDS:
        raise ValueError(f"holds {values.kind!r}: scores are {' or '.join(KINDS)}")
    if values.kind == "probabilities" and not _are_probabilities(values.scores):
        raise ValueError("holds probabilities that are negative or do not add up to 1")


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool((scores >= 0).all() and (np.abs(scores.sum(1, dtype=np.float64) - 1) < 1e-3).all())


# ---------------------------------------------------------------- writing


def write_scores(path: Path, values: ClipScores) -> None:
    """Write scores as the suffix of `path` says, whole or not at all.

    Raises:
        InputError: the suffix is neither .npz nor .csv, or the file cannot be written.
    """
    check_suffix(path)
    try:
        if path.suffix.lower() == ".csv":
            write_text(path, format_csv(values))
        else:
            _write_npz(path, values)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name a file in a folder that is there"
        ) from None


def check_suffix(path: Path) -> None:
    """Make sure that a score file has a name that says its format.

    Raises:
        InputError: it has not.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no name of a score file: end it in .npz or .csv")


def _write_npz(path: Path, values: ClipScores) -> None:
    arrays = {
        "clips": np.array(values.clips),
        "labels": values.labels,
        "scores": values.scores,
        "classes": np.array(values.classes),
        "kind": np.array(values.kind),
        "split": np.array(values.split),
        "protocol": np.array(values.protocol),
    }
    if values.groups is not None:
        arrays["groups"] = np.array(values.groups)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def format_csv(values: ClipScores) -> str:
    """Return the text of a table with one line per clip.

    The columns of the scores are called 'logits <class>' or 'probabilities <class>'; the column
    `group` is there when groups are known. Numbers have all their digits. A text that a spreadsheet
    would take for a formula has a ' in front, which `read_scores` removes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fixed = [name for name in _FIXED if name != "group" or values.groups is not None]
    writer.writerow([*fixed, *(f"{values.kind} {name}" for name in values.classes)])
    groups = values.groups or ("",) * len(values)
    predicted = values.scores.argmax(1)
    for row, clip in enumerate(values.clips):
        cells = {
            "clip": clip,
            "group": groups[row],
            "split": values.split,
            "protocol": values.protocol,
            "label": values.classes[values.labels[row]],
            "predicted": values.classes[predicted[row]],
        }
        numbers = (repr(float(score)) for score in values.scores[row])
        writer.writerow([*(_guarded(cells[name]) for name in fixed), *numbers])
    return text.getvalue()


def _guarded(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


# ---------------------------------------------------------------- reading


def read_scores(path: Path) -> ClipScores:
    """Read a score file that `write_scores` or an older `--save_scores` wrote.

    A file that does not say its kind holds probabilities if all rows are such, else logits.

    Raises:
        InputError: it is not there, not one, damaged, or its values do not fit each other.
    """
    check_suffix(path)
    try:
        data = read_regular(path, _MOST_BYTES)
        return _parse_csv(data) if path.suffix.lower() == ".csv" else _parse_npz(data)
    except FileNotFoundError:
        raise InputError(f"{path} is not there: name a score file; {_AGAIN}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {_AGAIN}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: {_AGAIN}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} {_first_line(error)}: {_AGAIN}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _parse_npz(data: bytes) -> ClipScores:
    arrays = _unpack(data)
    missing = {"clips", "labels", "scores", "classes"} - arrays.keys()
    if missing:
        raise ValueError(f"has no array {sorted(missing)[0]!r}")
    scores = arrays["scores"]
    if "kind" in arrays:
        kind = _text(arrays, "kind")
    else:
        kind = "probabilities" if scores.ndim == 2 and _look_like(scores) else "logits"
    return ClipScores(
        clips=_names(arrays, "clips"),
        labels=_as_int64(arrays["labels"]),
        scores=scores,
        classes=_names(arrays, "classes"),
        kind=kind,  # type: ignore[arg-type]
        groups=_names(arrays, "groups") if "groups" in arrays else None,
        split=_text(arrays, "split"),
        protocol=_text(arrays, "protocol"),
    )


def _look_like(scores: np.ndarray) -> bool:
    return (
        scores.dtype.kind == "f" and bool(np.isfinite(scores).all()) and _are_probabilities(scores)
    )


def _as_int64(labels: np.ndarray) -> np.ndarray:
    return labels.astype(np.int64) if labels.dtype.kind in "iu" else labels


def _unpack(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz, none of them pickled.

    Raises:
        ValueError: it is none, is damaged, or would unpack to more than it should.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if len(archive.infolist()) > _MOST_ARRAYS:
                raise ValueError(f"holds more than {_MOST_ARRAYS} arrays")
            if sum(info.file_size for info in archive.infolist()) > _MOST_BYTES:
                raise ValueError(f"unpacks to more than {_MOST_BYTES} bytes")
            return {
                info.filename.removesuffix(".npy"): _array(archive.read(info))
                for info in archive.infolist()
            }
    except ValueError:
        raise
    except Exception as error:  # noqa: BLE001 - each compression has errors of its own
        raise ValueError(f"is no .npz file, or a damaged one ({_first_line(error)})") from None


def _array(data: bytes) -> np.ndarray:
    """Read one array, whose header may lie about its size: memory is taken for what is there."""
    file = io.BytesIO(data)
    try:
        shape, is_fortran, dtype = _read_header(file)
    except Exception as error:  # noqa: BLE001 - numpy parses it as Python: anything may come
        raise ValueError(f"holds a damaged array ({_first_line(error)})") from None
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never read")
    left = len(data) - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != left or not dtype.itemsize:
        raise ValueError(f"holds a damaged array ({left} bytes for {dtype} of shape {shape})")
    flat = np.frombuffer(data, dtype, offset=file.tell()) if left else np.zeros(0, dtype)
    if dtype.kind == "U" and (flat.view(dtype.byteorder + "u4") > _LAST_CHARACTER).any():
        raise ValueError("holds texts whose characters are none")
    # Not a view: what was read must not keep the whole file.
    return flat.reshape(shape, order="F" if is_fortran else "C").copy()


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # headers that Python 2 wrote
        return read(file)


def _names(arrays: dict[str, np.ndarray], key: str) -> tuple[str, ...]:
    value = arrays[key]
    if value.ndim != 1 or value.dtype.kind != "U":
        raise ValueError(f"has {key} {value.dtype} {value.shape}: they are a row of texts")
    return tuple(value.tolist())


def _text(arrays: dict[str, np.ndarray], key: str) -> str:
    value = arrays.get(key, np.array(""))
    if value.ndim or value.dtype.kind != "U":
        raise ValueError(f"has {key} {value.dtype} {value.shape}: it is one text")
    return str(value)


def _parse_csv(data: bytes) -> ClipScores:
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    head = next(reader, [])
    kind, classes = _score_columns(head)
    first = len(head) - len(classes)
    rows = []
    for cells in reader:
        if len(cells) != len(head):
            raise ValueError(f"has {len(cells)} cells in line {reader.line_num}, not {len(head)}")
        rows.append(cells)
    columns = {name: [_unguarded(row[n]) for row in rows] for n, name in enumerate(head[:first])}
    return ClipScores(
        clips=tuple(columns["clip"]),
        labels=_labels(columns["label"], classes),
        scores=_numbers([row[first:] for row in rows], len(classes)),
        classes=classes,
        kind=kind,
        groups=tuple(columns["group"]) if "group" in columns else None,
        split=_constant(columns, "split"),
        protocol=_constant(columns, "protocol"),
    )


def _score_columns(head: Sequence[str]) -> tuple[Kind, tuple[str, ...]]:
    """Find the columns of scores, which are the last ones."""
    for kind in KINDS:
        classes = [name.removeprefix(f"{kind} ") for name in head if name.startswith(f"{kind} ")]
        rest = head[: len(head) - len(classes)]
        if classes and {"clip", "label"} <= set(rest) and len(set(head)) == len(head):
            return kind, tuple(classes)
    raise ValueError(
        "has no columns 'clip', 'label' and then 'logits <class>' or 'probabilities <class>'"
    )


def _labels(names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    index = {name: label for label, name in enumerate(classes)}
    unknown = next((name for name in names if name not in index), None)
    if unknown is not None:
        raise ValueError(f"has label {unknown!r}, which is no class of its columns")
    return np.array([index[name] for name in names], np.int64)


def _numbers(rows: Sequence[Sequence[str]], num_classes: int) -> np.ndarray:
    try:
        return np.array([[float(cell) for cell in row] for row in rows]).reshape(-1, num_classes)
    except ValueError as error:
        raise ValueError(f"has a score that is no number ({_first_line(error)})") from None


def _constant(columns: dict[str, list[str]], key: str) -> str:
    values = set(columns.get(key, [""]))
    if len(values) > 1:
        raise ValueError(f"has several values in column {key}: it must be one list")
    return values.pop() if values else ""
