"""Files of a data set that no list names."""

import os
from collections.abc import Iterator
from pathlib import Path

from datasets.check.findings import Finding
from datasets.check.lists import ClipLists
from datasets.frames import IMAGE_SUFFIXES

_MOST = 20
_KINDS = (("poses", ".npz", "keypoints"), ("boxes", ".npy", "boxes"))


def find_unlisted(root: Path, lists: ClipLists) -> Iterator[Finding]:
    """Find folders of frames, videos and files of keypoints that no clip of a list uses."""
    names = {record.name for record in lists.clips()}
    yield from _limited(_frame_folders(root / "frames", names), "holds frames of no listed clip")
    for folder, suffix, content in _KINDS:
        files = _files(root / folder, suffix, names)
        yield from _limited(files, f"holds {content} of no listed clip")
    used = {lists.table[name].video for name in names if name in lists.table}
    videos = (
        path for path in _walk(root / "videos") if _relative(path, root / "videos") not in used
    )
    yield from _limited(videos, "is a video of no listed clip")


def _limited(paths: Iterator[Path], text: str) -> Iterator[Finding]:
    """Yield a finding for each of the first paths, and one for the number of the others."""
    more = 0
    for number, path in enumerate(paths):
        if number < _MOST:
            yield Finding("unlisted", "", str(path), text)
        else:
            more, folder = number - _MOST + 1, path.parent
    if more:
        yield Finding("unlisted", "", str(folder), f"has {more} more such files or folders")


def _frame_folders(base: Path, names: set[str]) -> Iterator[Path]:
    """Yield folders with images that are no clip, without listing the clips' own files."""
    if not base.is_dir():
        return
    above = {parent.as_posix() for name in names for parent in Path(name).parents}
    todo = [base]
    while todo:
        folder = todo.pop()
        name = _relative(folder, base)
        if name in names and name not in above:
            continue
        entries = _entries(folder)
        todo += [Path(e.path) for e in reversed(entries) if e.is_dir(follow_symlinks=False)]
        if name not in names and any(e.name.lower().endswith(IMAGE_SUFFIXES) for e in entries):
            yield folder


def _files(base: Path, suffix: str, names: set[str]) -> Iterator[Path]:
    for path in _walk(base):
        if path.suffix == suffix and _relative(path, base).removesuffix(suffix) not in names:
            yield path


def _walk(base: Path) -> Iterator[Path]:
    """Yield the files below a folder, in order, without the hidden ones."""
    todo = [base] if base.is_dir() else []
    while todo:
        entries = _entries(todo.pop())
        todo += [Path(e.path) for e in reversed(entries) if e.is_dir(follow_symlinks=False)]
        yield from (Path(e.path) for e in entries if e.is_file())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []
    return sorted(shown, key=lambda entry: entry.name)


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix()
