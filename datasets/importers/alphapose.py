"""AlphaPose results: one JSON file for a clip, for a folder of clips, or for all of them.

The usual form is a list of {image_id, keypoints, idx, ...}, one object a person, with COCO-17,
Halpe (26, 68, 136 joints) or COCO-WholeBody keypoints. The forms "open" and "cmu" are an object
{image name: {people | bodies: [{pose_keypoints_2d | joints}]}} with OpenPose's 18 joints. Frames
without anybody are not in the file. Frames are joined on the number in the image's name; AlphaPose
writes names without folders, so that a file of several clips needs the clip in the names, or
folders that somebody put there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from datasets.importers.jsons import numbers_of, read_json, whole_number
from datasets.importers.names import clip_aliases, plain_name, split_frame_name, walk_files
from datasets.importers.people import People, Row, Span, gather_rows
from errors import InputError

_MOST_BYTES = 2 * 2**30
_KEYPOINTS = ("keypoints", "pose_keypoints_2d", "joints")
_PEOPLE = ("people", "bodies")
_REMEDY = "export the results again"


@dataclass(slots=True)
class _Person:
    """What is kept of an object with keypoints as soon as it is read: a large file stays small."""

    image: object
    keypoints: np.ndarray | None
    track: int


@dataclass(slots=True)
class _Clip:
    """The people of one clip in one file, in order."""

    folder: str
    prefix: str
    rows: list[Row] = field(default_factory=list)
    span: Span | None = None

    def add(self, number: int, stem: str, keypoints: np.ndarray, person: _Person) -> None:
        """Take in a person of the frame of this number, whose image has this name."""
        self.rows.append((number, keypoints, person.track))
        span = self.span or Span(number, number, stem)
        first = span if span.first <= number else Span(number, number, stem)
        self.span = Span(first.first, max(span.last, number), first.sample)


def _keep(values: dict) -> object:
    """Replace an object with keypoints by a `_Person`; leave others."""
    name = next((name for name in _KEYPOINTS if name in values), None)
    if name is None:
        return values
    numbers = numbers_of(values[name])
    if numbers is not None and (len(numbers) == 0 or len(numbers) % 3):
        numbers = None
    return _Person(
        values.get("image_id"),
        None if numbers is None else numbers.reshape(-1, 3),
        _track(values.get("idx")),
    )


def _track(value: object) -> int:
    """Return a track id; AlphaPose's is a number, or a list of those that it merged."""
    while isinstance(value, list) and value:
        value = value[0]
    number = whole_number(value)
    return -1 if number is None or number < 0 else number


def _read(path: Path) -> dict[tuple[str, str], _Clip]:
    """Read a results file: (folder, beginning of the image names) -> people."""
    clips: dict[tuple[str, str], _Clip] = {}
    joints: int | None = None
    for place, image, person in _people(path, read_json(path, _MOST_BYTES, _keep)):
        folder, prefix, number, stem = _image_parts(place, image)
        if not isinstance(person, _Person) or person.keypoints is None:
            raise InputError(
                f"{place} has no list of numbers x, y, confidence for each joint: {_REMEDY}"
            )
        joints = joints or len(person.keypoints)
        if len(person.keypoints) != joints:
            raise InputError(
                f"{place} has {len(person.keypoints)} joints, those before {joints}: import files "
                "of different models one by one"
            )
        clip = clips.setdefault((folder, prefix), _Clip(folder, prefix))
        clip.add(number, stem, person.keypoints, person)
    return clips


def _people(path: Path, content: object) -> Iterator[tuple[str, object, object]]:
    """Yield place, image and person of each object of any of the three forms."""
    if isinstance(content, list):
        for number, person in enumerate(content, start=1):
            place = f"{path}, object {number}"
            if not isinstance(person, _Person):
                raise InputError(f"{place} has no keypoints: it is no result of AlphaPose")
            yield place, person.image, person
        return
    if not isinstance(content, dict) or any(name in content for name in _PEOPLE):
        raise InputError(
            f"{path} is not a list of people, nor an object of images: use --format openpose for "
            "a file per frame, or export the results again"
        )
    for image, frame in content.items():
        held = frame if isinstance(frame, dict) else {}
        people = next((held[name] for name in _PEOPLE if name in held), None)
        if not isinstance(people, list):
            raise InputError(
                f"{path}, image {image[:80]!r} has no list of people or bodies: it is no result "
                "of AlphaPose"
            )
        for number, person in enumerate(people, start=1):
            yield f"{path}, image {image[:80]!r}, person {number}", image, person


def _image_parts(place: str, image: object) -> tuple[str, str, int, str]:
    """Return folder, beginning, frame number and stem of an image's name."""
    number = whole_number(image) if isinstance(image, float) else None
    if number is not None and number >= 0:
        return "", "", number, str(number)
    path = PurePosixPath(plain_name(image)) if isinstance(image, str) else PurePosixPath()
    parts = split_frame_name(path.stem)
    if parts is None:
        raise InputError(
            f"{place} is of image {str(image)[:80]!r}: the name should hold the number of the "
            "frame, as 00012.jpg"
        )
    folder = path.parent.as_posix()
    return "" if folder == "." else folder, parts[0], parts[1], path.stem


@dataclass(slots=True)
class AlphaPose:
    """Keypoints of AlphaPose, by clip: a `KeypointSource`.

    Of several files one at a time is held in memory.
    """

    aliases: dict[str, Sequence[str]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    _spans: dict[str, Span] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)
    _places: dict[str, tuple[Path, tuple[str, str]]] = field(default_factory=dict)
    _held: tuple[Path, dict[tuple[str, str], _Clip]] | None = None

    @classmethod
    def open(cls, source: Path) -> "AlphaPose":
        """Read which clips a results file, or a folder of them, speaks of.

        Raises:
            InputError: there is no file; or the only one cannot be read.
        """
        opened = cls()
        paths = walk_files(source, ".json") if source.is_dir() else [source]
        for path in paths:
            outer = _outer_names(source, path)
            try:
                clips = opened._clips(path)
            except InputError as error:
                if len(paths) == 1:
                    raise
                opened.aliases[str(path)] = clip_aliases("", "", outer)
                opened._faults[str(path)] = str(error)
                continue
            opened._add(path, clips, outer)
        return opened

    def _add(self, path: Path, clips: dict[tuple[str, str], _Clip], outer: Sequence[str]) -> None:
        if not clips:
            self.findings.append(f"{path} has nobody in it: neither a clip nor a frame is named")
        for (folder, prefix), clip in clips.items():
            name = "/".join(part for part in (folder, prefix) if part)
            key = f"{path}, {name}" if name else str(path)
            # The name of the file stands for a clip only where it holds a single one.
            self.aliases[key] = clip_aliases(folder, prefix, outer if len(clips) == 1 else ())
            assert clip.span is not None
            self._spans[key] = clip.span
            self._places[key] = (path, (folder, prefix))

    def _clips(self, path: Path) -> dict[tuple[str, str], _Clip]:
        if self._held is None or self._held[0] != path:
            self._held = None
            self._held = (path, _read(path))
        return self._held[1]

    def span(self, key: str) -> Span:
        """Return which frames have somebody in them."""
        if key in self._faults:
            raise InputError(self._faults[key])
        return self._spans[key]

    def load(self, key: str) -> People:
        """Read the people of a clip."""
        if key in self._faults:
            raise InputError(self._faults[key])
        path, part = self._places[key]
        return gather_rows(self._clips(path)[part].rows, key)


def _outer_names(source: Path, path: Path) -> tuple[str, ...]:
    """Return what the clip of a file may be called after the file and its folders."""
    if path == source:
        if not path.is_file():  # a link in a circle has no parent
            raise InputError(f"{path} is no regular file: give a file of keypoints")
        return path.stem, path.resolve().parent.name
    inner = path.relative_to(source)
    folder = inner.parent.as_posix()
    return inner.with_suffix("").as_posix(), source.resolve().name if folder == "." else folder
