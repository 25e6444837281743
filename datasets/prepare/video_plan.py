"""From the clips that are wanted to their classes, names and frames."""

import json
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np

from datasets.arrays import open_archive, read_member, read_text, unless
from datasets.prepare.probing import VideoInfo
from datasets.prepare.video_table import ClipRequest, natural_key
from datasets.videos import VideoFrames
from errors import InputError
from files import replacing

# A time in a table is rounded, and so is one in a file: what is nearer than this is the same.
_SAME_SECONDS = 0.0005
# Seconds by which the end of a part may lie behind the end of its video: tables are rounded up.
_OVERHANG = 0.5
_LONGEST_FACTS = 2**24  # bytes of what is noted of a video

# ---------------------------------------------------------------- classes

_WHOLE = re.compile(r"[+-]?[0-9]+")
_MOST_CLASSES = 100_000


def number_labels(
    requests: Sequence[ClipRequest], class_names: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    """Give each clip the number of its class.

    Labels are names, or the whole numbers 0 to K-1; never a mixture.

    Args:
        requests: N clips.
        class_names: in order of the number. None takes the names as they sort, or the numbers.

    Returns:
        N numbers, and the K names.

    Raises:
        InputError: the labels are of neither kind, or a class has no clip.
    """
    numbered = [r for r in requests if _WHOLE.fullmatch(r.label)]
    named = [r for r in requests if not _WHOLE.fullmatch(r.label)]
    if numbered and named and not set(_labels(numbered)) <= set(class_names or ()):
        raise InputError(
            f"{numbered[0].place} has label {numbered[0].label!r}, {named[0].place} has "
            f"{named[0].label!r}: write names, or whole numbers from 0, in all lines"
        )
    if not named:
        classes = _check_numbers(requests, class_names)
        labels = [int(r.label) for r in requests]
    else:
        classes = list(class_names or sorted(set(_labels(requests)), key=natural_key))
        _check_names(requests, classes)
        number = {name: i for i, name in enumerate(classes)}
        labels = [number[r.label] for r in requests]
    if len(classes) < 2 or len(set(labels)) < 2:
        raise InputError(
            f"all {len(requests)} clips are of class {classes[labels[0]]!r}: a data set needs at "
            "least 2 classes"
        )
    return labels, classes


def _labels(requests: Sequence[ClipRequest]) -> list[str]:
    return [request.label for request in requests]


def _check_numbers(requests: Sequence[ClipRequest], class_names: Sequence[str] | None) -> list[str]:
    for request in requests:
        if not 0 <= int(request.label[:12]) < (len(class_names or ()) or _MOST_CLASSES):
            raise InputError(
                f"{request.place} has label {request.label[:40]!r}: write a whole number from 0 to "
                f"{len(class_names) - 1 if class_names else 'the number of classes - 1'}"
            )
    used = {int(request.label) for request in requests}
    missing = next(n for n in range(len(used) + 1) if n not in used)
    if class_names is None and missing < max(used):
        raise InputError(
            f"labels go up to {max(used)}, but no clip has label {missing}: number the classes "
            "from 0 without gaps, or name all of them with --class_names"
        )
    return list(class_names or map(str, range(len(used))))


def _check_names(requests: Sequence[ClipRequest], classes: Sequence[str]) -> None:
    alike: dict[str, str] = {}
    known_names = set(classes)
    for request in requests:
        label = request.label
        if label not in known_names:
            raise InputError(
                f"{request.place} has label {label!r}, the classes are {', '.join(classes)[:200]}: "
                "correct the label or --class_names"
            )
        if not label.isprintable():
            raise InputError(f"{request.place} has label {label!r}: write printable characters")
        if re.fullmatch(r"[+-]?[0-9]*[.,][0-9]*", label):
            raise InputError(f"{request.place} has label {label!r}: write a whole number or a name")
        known = alike.setdefault(" ".join(label.casefold().split()), label)
        if known != label:
            raise InputError(
                f"{request.place} has label {label!r}, others have {known!r}: write one of the two"
            )


# ---------------------------------------------------------------- names

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\\:*?"<>|]')
# A file system allows 255 bytes for a name; suffixes of ours come behind.
_MOST_NAME_BYTES = 180
_MOST_PATH_BYTES = 900


def name_clips(requests: Sequence[ClipRequest]) -> list[str]:
    """Name each clip after its video, so that it can be a folder and a line of a list.

    A part of a video has its number as a suffix: `match__003`. Names do not depend on the order of
    videos, those of parts follow the order of the table. Names that would be the same, or the same
    but for case, or of which one would be a folder of the other, get their ending or a check sum.

    Raises:
        InputError: two names are the same even so.
    """
    per_video = Counter(request.key for request in requests)
    seen: Counter[str] = Counter()
    names, full = [], []
    for request in requests:
        seen[request.key] += 1
        suffix = ""
        if request.is_part or per_video[request.key] > 1:
            suffix = f"__{seen[request.key]:03d}"
        ending = PurePosixPath(request.key).suffix[1:].lower()
        stem = _safe_path(request.key.removesuffix(PurePosixPath(request.key).suffix))
        names.append([f"{stem}{suffix}", _safe_path(f"{stem}_{ending}{suffix}")])
        full.append(f"{stem}_{_digest(request.key)}{suffix}")
    chosen = [first for first, _ in names]
    for candidates in ([second for _, second in names], full):
        clashing = _clashes(chosen)
        chosen = [candidates[i] if i in clashing else name for i, name in enumerate(chosen)]
    if clashing := _clashes(chosen):
        request = requests[min(clashing)]
        raise InputError(f"{request.place}: {request.key} has the name of another: rename it")
    return chosen


def _clashes(names: Sequence[str]) -> set[int]:
    """Return the names that are the same or a folder of another one, on any file system."""
    holders: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        holders[name.casefold()].append(place)
    clashing = {place for places in holders.values() if len(places) > 1 for place in places}
    for name in holders:
        for parent in PurePosixPath(name).parents:
            clashing.update(holders.get(parent.as_posix(), ()))
    return clashing


def _safe_path(text: str) -> str:
    parts = [_safe_part(part) for part in text.split("/")]
    path = "/".join(parts)
    if len(path.encode()) > _MOST_PATH_BYTES:
        path = f"{parts[-1]}_{_digest(text)}"
    return path


def _safe_part(text: str) -> str:
    """Return a name without what lists, file systems and hidden files give a meaning to."""
    name = _UNSAFE.sub("_", text).strip()
    name = re.sub(r"^[.#]+|\.+$", "_", name) or "_"
    if len(name.encode()) > _MOST_NAME_BYTES:
        kept = name.encode()[: _MOST_NAME_BYTES - 20].decode(errors="ignore").rstrip()
        name = f"{kept}_{_digest(text)}"
    return name


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()


# ---------------------------------------------------------------- frames


def find_part(info: VideoInfo, start: float | None, end: float | None) -> tuple[int, int]:
    """Return the first frame and the number of frames that are shown from `start` to `end`.

    Args:
        info: of the video.
        start: seconds after its first frame, inclusive; None is the beginning.
        end: seconds after its first frame, exclusive; None is the end.

    Raises:
        ValueError: there is no such part; the message says why, to follow the name of the video.
    """
    if start is None and end is None:
        return 0, info.num_frames
    if not info.fps:
        raise ValueError("has neither time stamps nor a frame rate: give it whole")
    begin, stop = start or 0.0, info.seconds if end is None else end
    if stop <= begin:
        raise ValueError(f"ends at {stop:g} s, before it starts at {begin:g} s")
    if begin >= info.seconds or stop > info.seconds + _OVERHANG:
        raise ValueError(f"goes from {begin:g} to {stop:g} s, the video lasts {info.seconds:.2f} s")
    times = info.times() + _SAME_SECONDS
    first, last = np.searchsorted(times, (begin, stop))
    if last <= first:
        raise ValueError(f"from {begin:g} to {stop:g} s is shorter than one frame")
    return int(first), int(last - first)


def find_start(path: Path, info: VideoInfo, first: int, count: int) -> int | None:
    """Return the time stamp to seek to, if that is shown to give the very frames of the part.

    Returns:
        None when the part is to be decoded from the beginning of the video.
    """
    if first == 0 or not info.has_times:
        return None
    pts = int(info.pts[first])
    frames = VideoFrames(path, count, first, pts, (info.width, info.height))
    return pts if frames.checksums() == info.sums[first : first + count].tolist() else None


# ---------------------------------------------------------------- what is known already


def load_info(path: Path, sha256: str) -> VideoInfo | None:
    """Read what an earlier run found out about a video; None if that is not of use."""
    try:
        with open_archive(path) as archive:
            with archive.open("values.npy") as stream:
                values = json.loads(read_text(stream, _LONGEST_FACTS))
            arrays: dict[str, Any] = {
                name: _numbers(archive, name) for name in ("pts", "sums", "keyframes")
            }
        if values.pop("made_with") != _versions() or values["sha256"] != sha256:
            return None
        values["time_base"] = Fraction(values["time_base"])
        values["notes"] = tuple(values["notes"])
        return VideoInfo(**values, **arrays)
    except Exception:  # noqa: BLE001 - numpy parses headers as Python: anything may come
        return None


def _numbers(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    array = read_member(archive, name, unless(lambda shape: len(shape) == 1, "a row"))
    if array is None:
        raise ValueError(f"it has no {name}")
    return array


def save_info(path: Path, info: VideoInfo) -> None:
    """Write what was found out about a video, for the next run."""
    values = asdict(info)
    arrays = {name: values.pop(name) for name in ("pts", "sums", "keyframes")}
    values |= {"time_base": str(info.time_base), "made_with": _versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, values=np.array(json.dumps(values)), **arrays)


def _versions() -> str:
    """Return what the decoding depends on."""
    return f"3 {av.__version__} {av.library_versions['libavcodec']}"
