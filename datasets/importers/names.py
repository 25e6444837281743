"""Which clip of the lists is meant: file and image names to clips, one to one."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

from datasets.importers.people import Span
from errors import InputError

_FRAME = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]{1,15})(?P<ending>[^0-9]*)", re.DOTALL)
_JOINTS = "_-. "


def split_frame_name(stem: str) -> tuple[str, int] | None:
    """Split 'clip_000012_keypoints' into ('clip', 12): the last number counts; None without one."""
    match = _FRAME.fullmatch(stem)
    return (match["prefix"].rstrip(_JOINTS), int(match["number"])) if match else None


def clip_aliases(folder: str, prefix: str, outer: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what a clip may be called whose frames are `<folder>/<prefix>_00012`.

    Args:
        folder: with slashes, "" for none.
        prefix: of the frames' names, "" for none.
        outer: further names, the least likely.
    """
    names = [f"{folder}/{prefix}" if folder and prefix else "", prefix, folder, *outer]
    return tuple(dict.fromkeys(name for name in map(plain_name, names) if name))


def plain_name(name: str) -> str:
    """Return one spelling of a path in a name: slashes, composed letters, no '.' parts."""
    text = unicodedata.normalize("NFC", name.replace("\\", "/")).strip()
    path = PurePosixPath(text)
    return "/".join(part for part in path.parts if part != "/")


def walk_files(source: Path, suffix: str) -> list[Path]:
    """Return the files below a folder that end in `suffix`, sorted; hidden ones are left out.

    Raises:
        InputError: it is no folder, cannot be read, or holds no such file.
    """
    if not source.is_dir():
        raise InputError(f"{source} is no folder: --source should be one with {suffix} files")
    found: list[Path] = []
    for folder, folders, names in os.walk(source, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder, name)
            for name in sorted(names)
            if name.lower().endswith(suffix) and not name.startswith(".")
        ]
    if not found:
        raise InputError(f"{source} holds no {suffix} file: give the folder that does")
    return found


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be read ({error.strerror})")


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """The files of one clip in a tree with a file for each frame.

    Attributes:
        aliases: what the clip may be called.
        files: frame number -> file.
        twice: two files with the same number, if there are any.
    """

    aliases: tuple[str, ...]
    files: dict[int, Path]
    twice: tuple[Path, Path] | None = None

    def span(self) -> Span:
        """Return which frames have a file.

        Raises:
            InputError: two files have the same number.
        """
        if self.twice is not None:
            one, other = self.twice
            raise InputError(f"{other} is of the same frame as {one.name}: remove one of the two")
        first = min(self.files)
        return Span(first, max(self.files), _image_stem(self.files[first]))


def _image_stem(path: Path) -> str:
    """Return what the frame's image is called, as far as the name of its keypoints says so."""
    return path.stem.removesuffix("_keypoints")


def group_frames(source: Path, suffix: str) -> dict[str, FrameFiles]:
    """Find the clips of a tree with a file for each frame, by folder and beginning of the name.

    Raises:
        InputError: there is no such file, or one has no number in its name.
    """
    groups: dict[tuple[Path, str], list[tuple[int, Path]]] = defaultdict(list)
    for path in walk_files(source, suffix):
        parts = split_frame_name(path.stem)
        if parts is None:
            raise InputError(
                f"{path} has no frame number in its name: it should be as clip_000012{suffix}; "
                "move other files away"
            )
        groups[path.parent, parts[0]].append((parts[1], path))
    return {
        str(folder / prefix): _frame_files(source, folder, prefix, pairs)
        for (folder, prefix), pairs in groups.items()
    }


def _frame_files(
    source: Path, folder: Path, prefix: str, pairs: Sequence[tuple[int, Path]]
) -> FrameFiles:
    files: dict[int, Path] = {}
    twice = None
    for number, path in pairs:
        if number in files:
            twice = (files[number], path)
        files[number] = path
    inner = folder.relative_to(source).as_posix()
    outer = (source.resolve().name,) if inner == "." else ()
    return FrameFiles(clip_aliases("" if inner == "." else inner, prefix, outer), files, twice)


# ---------------------------------------------------------------- matching


@dataclass(frozen=True, slots=True)
class Matches:
    """Clips and keys that belong together.

    Attributes:
        keys: clip -> key, in order of the clips.
        clips_without: clips that no key is of.
        keys_without: keys that are of no clip.
    """

    keys: dict[str, str]
    clips_without: tuple[str, ...]
    keys_without: tuple[str, ...]


def match_clips(aliases: Mapping[str, Sequence[str]], clips: Sequence[str]) -> Matches:
    """Find the key of each clip: by its whole name, else where one is the end of the other.

    `fall/video 1` is the end of `/data/fall/video 1`, `video 1` that of `fall/video 1`.

    Raises:
        InputError: a key fits several clips, or several keys fit a clip.
    """
    spelled = {plain_name(clip): clip for clip in clips}
    by_leaf: dict[str, list[str]] = defaultdict(list)
    for name in spelled:
        by_leaf[name.rsplit("/", 1)[-1]].append(name)
    owners: dict[str, str] = {}
    for key, names in aliases.items():
        clip = _clip_of(key, names, spelled, by_leaf)
        if clip is None:
            continue
        if clip in owners:
            raise InputError(
                f"{key} and {owners[clip]} both fit clip {clip}: move one of the two away"
            )
        owners[clip] = key
    taken = set(owners.values())
    return Matches(
        {clip: owners[clip] for clip in clips if clip in owners},
        tuple(clip for clip in clips if clip not in owners),
        tuple(key for key in aliases if key not in taken),
    )


def _clip_of(
    key: str,
    names: Sequence[str],
    spelled: Mapping[str, str],
    by_leaf: Mapping[str, Sequence[str]],
) -> str | None:
    for name in names:
        if name in spelled:
            return spelled[name]
    for name in names:
        fitting = [
            other
            for other in by_leaf.get(name.rsplit("/", 1)[-1], ())
            if f"/{name}".endswith(f"/{other}") or f"/{other}".endswith(f"/{name}")
        ]
        if len(fitting) > 1:
            raise InputError(
                f"{key} fits clips {spelled[fitting[0]]} and {spelled[fitting[1]]}: name it by "
                "the whole name of its clip, with folders"
            )
        if fitting:
            return spelled[fitting[0]]
    return None


@dataclass(slots=True)
class FrameTree:
    """The files of a tree with one for each frame, by clip; what `KeypointSource`s of them share.

    Attributes:
        groups: clip -> its files.
        findings: what is wrong with the source as a whole.
    """

    suffix: ClassVar[str]
    groups: dict[str, FrameFiles]
    findings: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, source: Path) -> Self:
        """Find the clips of a tree.

        Raises:
            InputError: see `group_frames`.
        """
        return cls(group_frames(source, cls.suffix))

    @property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Return what each clip may be called."""
        return {key: group.aliases for key, group in self.groups.items()}

    def span(self, key: str) -> Span:
        """Return which frames have a file."""
        return self.groups[key].span()
