"""Where results lie: which folders, what of them is ours, and what must not be written over."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from errors import InputError
from prediction.frames import ImageFolder, Source

COMPLETE = "predictions.json"  # written last: the others are there
TIMELINE = "timeline.csv"  # written first: tells a folder of ours
ANNOTATED = "annotated.mp4"
POSES = "poses.npz"
# In the order in which they are removed: what is left is known as ours, and as incomplete.
NAMES = (COMPLETE, "timeline.png", "events.csv", ANNOTATED, POSES, TIMELINE)
SUMMARY = "summary.csv"

TIMELINE_HEADS = ("start_seconds", "end_seconds", "first_frame", "last_frame", "track", "label")

_Identity = tuple[int, int]  # device and number of a file


# ---------------------------------------------------------------- names


def output_folders(root: Path, sources: Sequence[Source]) -> list[Path]:
    """Return a folder for each source, named after it; equal names are numbered."""
    taken: dict[str, int] = {SUMMARY: 1}
    folders = []
    for source in sources:
        name = folder_name(source.stem)
        key = name.casefold()  # file systems may not tell A from a
        taken[key] = taken.get(key, 0) + 1
        while taken[key] > 1 and f"{key}_{taken[key]}" in taken:
            taken[key] += 1
        if taken[key] > 1:
            name = f"{name}_{taken[key]}"
            taken[name.casefold()] = 1
        folders.append(root / name)
    return folders


def folder_name(stem: str) -> str:
    """Return a name that every file system takes for a folder, and that hides nothing."""
    name = re.sub(r'[\x00-\x1f/\\:*?"<>|]', "_", stem.encode("utf-8", "replace").decode())
    name = name.strip(". ").encode()[:200].decode(errors="ignore")
    return name or "video"


# ---------------------------------------------------------------- what is ours


def is_prediction(folder: Path) -> bool:
    """Say whether a folder holds a prediction, be it one that was broken off."""
    heads = ",".join(TIMELINE_HEADS).encode()
    path = folder / TIMELINE
    try:
        if not path.is_file():  # a pipe would keep us waiting
            return False
        with path.open("rb") as file:
            return file.read(len(heads)) == heads
    except OSError:
        return False


# ---------------------------------------------------------------- what may be written


def check_places(
    folders: Sequence[Path], sources: Sequence[Source], poses: Path | None = None
) -> None:
    """Make sure, before any work, that the results can be written and destroy nothing.

    Args:
        folders: of the results, which need not be there.
        sources: all that will be watched.
        poses: the file with their keypoints, or the folder of `<name of the video>.npz`.

    Raises:
        InputError: a file of a result would be written over a source, keypoints or files of
            somebody else, or would lie among the images of a source; a folder cannot be made.
    """
    given = _by_identity(_given_files(sources, poses))
    images = _by_identity(s.path for s in sources if isinstance(s, ImageFolder))
    for folder in folders:
        _check_folder(folder)
        if _identity(folder) in images:
            raise InputError(
                f"--output {folder} is a source itself, results would lie among its images: name "
                "another folder with --output"
            )
        _check_files(folder, given)


def check_summary(root: Path) -> None:
    """Make sure that the table of several sources can be written.

    Raises:
        InputError: it cannot.
    """
    _check_folder(root)
    _check_regular(root / SUMMARY)


def _check_files(folder: Path, given: dict[_Identity, Path]) -> None:
    for name in NAMES:
        path = folder / name
        identity = _identity(path)
        if identity is None:
            continue
        if identity in given:
            also = "" if path == given[identity] else f" (as {given[identity]})"
            raise InputError(
                f"{path} is read{also}, and would be written over: name another folder with "
                "--output"
            )
        _check_regular(path)
        if not is_prediction(folder):
            raise InputError(
                f"{path} is there and is no result of predict.py: name another folder with "
                "--output, or move it away"
            )


def _check_folder(folder: Path) -> None:
    """Make sure that a folder is there or can be made."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise InputError(f"--output {folder}: {there} is no folder: name another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--output {folder}: {there} may not be written: name another one")


def _check_regular(path: Path) -> None:
    if os.path.lexists(path) and not path.is_file():
        raise InputError(
            f"{path} is to be written and is no file: name another folder with --output, or move "
            "it away"
        )


def _given_files(sources: Iterable[Source], poses: Path | None) -> Iterator[Path]:
    is_folder = poses is not None and poses.is_dir()
    if poses is not None and not is_folder:
        yield poses
    for source in sources:
        if source.path is not None:
            yield source.path
        if poses is not None and is_folder:
            yield poses / f"{source.stem}.npz"


def _by_identity(paths: Iterable[Path]) -> dict[_Identity, Path]:
    pairs = ((_identity(path), path) for path in paths)
    return {identity: path for identity, path in pairs if identity is not None}


def _identity(path: Path) -> _Identity | None:
    """Return what is equal for all names of a file, links too; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
