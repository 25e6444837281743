"""The FR-FS download: where it lies, and which of its clips are whole.

The layout of the download is that of TSA-Net's release: `Images/<key>/*.jpg`, the tables Train.xls
and Test.xls, and FRFS_Boxes.json. All of it stays as it is.
"""

import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from datasets.prepare.boxes import ClipBoxes, load_boxes, parse_boxes
from datasets.prepare.frame_folders import CheckedFrames, check_frames, compare_frames
from datasets.prepare.label_tables import LabelledClip, read_label_table, refuse_shared_keys
from errors import InputError
from files import LinkMode

_DEEPEST = 2
_BOXES = "frfs_boxes.json"
# Folders of a prepared data set: thousands of clips lie in them, and no download.
_PREPARED = frozenset({"frames", "poses", "boxes", "videos", "check", "folds"})
_TABLE_SUFFIXES = (".xls", ".xlsx")

Progress = Callable[[int, int], None]


# ---------------------------------------------------------------- finding the download


@dataclass(frozen=True, slots=True)
class Download:
    """Where the parts of an unpacked download lie.

    Attributes:
        images: folder of the clips' folders.
        train: the training table.
        test: the test table.
        boxes: FRFS_Boxes.json, None when it is not there.
    """

    images: Path
    train: Path
    test: Path
    boxes: Path | None


def find_default(dataset_path: Path) -> Download | None:
    """Look where people unpack the download without being asked: see `find_download`."""
    places = ((dataset_path / "FRFS", _DEEPEST), (dataset_path / "FR-FS", _DEEPEST))
    found = (find_download(place, depth) for place, depth in (*places, (dataset_path, 0)))
    return next((download for download in found if download), None)


def find_download(place: Path, depth: int = _DEEPEST) -> Download | None:
    """Look for Images/, Train.xls and Test.xls in a folder, or below it.

    Args:
        place: where to look. Upper and lower case of the names do not matter.
        depth: how many folders deep below it.

    Returns:
        What was found, None when no folder has an Images/.

    Raises:
        InputError: a table is missing beside Images/, or there are several downloads.
    """
    found = [folder for folder in _below(place, depth) if "images" in _entries(folder)]
    if not found:
        return None
    if len(found) > 1:
        raise InputError(
            f"{place} holds several folders Images/, in {found[0]} and {found[1]}: name the one "
            "to read with --source"
        )
    names = _entries(found[0])
    images = names["images"]
    nested = _entries(images).get("images")  # archives that hold a folder of their own name
    return Download(
        images=nested or images,
        train=_find_table(found[0], names, "train"),
        test=_find_table(found[0], names, "test"),
        boxes=names.get(_BOXES),
    )


def _below(place: Path, depth: int) -> Iterable[Path]:
    """Yield a folder and those below it, but not what lies below an Images/."""
    yield place
    entries = _entries(place)
    if depth and "images" not in entries:
        for name, path in entries.items():
            if name not in _PREPARED and path.is_dir():
                yield from _below(path, depth - 1)


def _entries(folder: Path) -> dict[str, Path]:
    """Return the visible entries of a folder by their names in lower case."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return {}
    # Anything but a folder of this name is no Images/.
    return {
        path.name.lower(): path
        for path in paths
        if not path.name.startswith(".") and (path.name.lower() != "images" or path.is_dir())
    }


def _find_table(folder: Path, names: Mapping[str, Path], name: str) -> Path:
    found = [names[name + suffix] for suffix in _TABLE_SUFFIXES if name + suffix in names]
    if not found:
        raise InputError(
            f"{folder} has Images/ but no {name.title()}.xls beside it: put the label table of the "
            "download there"
        )
    if len(found) > 1:
        raise InputError(
            f"{folder} has both {found[0].name} and {found[1].name}: move one of them away"
        )
    return found[0]


# ---------------------------------------------------------------- checking it


@dataclass(frozen=True, slots=True)
class Tables:
    """The clips of the two label tables."""

    train: list[LabelledClip]
    test: list[LabelledClip]

    @property
    def clips(self) -> list[LabelledClip]:
        """Return the clips of both."""
        return [*self.train, *self.test]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is usable of a download.

    Attributes:
        frames: key -> the frames of each clip that is whole.
        todo: key -> what `compare_frames` says of its folder in the data set.
        broken: key -> why the clip is left out, one line with the path.
        boxes: key -> the boxes of each whole clip that has some.
        faults: further findings, one line each.
    """

    frames: dict[str, CheckedFrames]
    todo: dict[str, list[int] | None]
    broken: dict[str, str]
    boxes: dict[str, ClipBoxes]
    faults: list[str]

    @property
    def contents(self) -> dict[str, str]:
        """Return key -> sum of the content of each whole clip."""
        return {key: frames.sha256 for key, frames in self.frames.items()}

    def findings(self) -> list[str]:
        """Return everything that is wrong, one line each."""
        left_out = [f"left out clip {key}: {text}" for key, text in self.broken.items()]
        return [*left_out, *(f"finding: {text}" for text in self.faults)]

    def whole(self, clips: Iterable[LabelledClip]) -> list[LabelledClip]:
        """Return the clips that are not left out."""
        return [clip for clip in clips if clip.key in self.frames]


def read_tables(download: Download) -> Tables:
    """Read both label tables.

    Raises:
        InputError: see `read_label_table`; or a clip is in both.
    """
    tables = Tables(read_label_table(download.train), read_label_table(download.test))
    refuse_shared_keys(tables.train, tables.test)
    return tables


def check_download(
    download: Download,
    tables: Tables,
    root: Path,
    mode: LinkMode,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Decode every frame of every clip of the tables, and compare what is there already.

    Args:
        download: what to check.
        tables: its clips.
        root: folder of the data set.
        mode: how frames are to be linked into it.
        workers: threads; None takes one for each core.
        progress: called with the clips that are done, and all.

    Raises:
        InputError: frames/ of the data set holds something else under a clip's name; no clip is
            whole.
    """
    folders = _folders(download.images)
    checked = Checked({}, {}, {}, {}, [])

    def check(clip: LabelledClip) -> tuple[CheckedFrames | str, list[int] | None]:
        folder = folders.get(_spelling(clip.key), download.images / clip.key)
        try:
            frames = check_frames(folder, download.images)
        except InputError as error:
            return str(error), None
        return frames, compare_frames(frames, root / "frames" / clip.key, mode)

    clips = tables.clips
    # After an error or Ctrl-C, what has not begun is cancelled as the results are dropped.
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for done, (clip, (found, todo)) in enumerate(
            zip(clips, pool.map(check, clips), strict=True), start=1
        ):
            if isinstance(found, str):
                checked.broken[clip.key] = found
            else:
                checked.frames[clip.key], checked.todo[clip.key] = found, todo
            if progress:
                progress(done, len(clips))
    if not checked.frames:
        raise InputError(f"no clip of the tables is whole: {checked.broken[clips[0].key]}")
    checked.faults.extend(_unused_folders(folders, clips))
    checked.faults.extend(_identical_clips(checked, clips))
    _check_boxes(download, checked, clips)
    return checked


def _folders(images: Path) -> dict[str, Path]:
    """Return the folders of the clips by the one spelling of their names."""
    return {_spelling(p.name): p for p in sorted(images.iterdir()) if p.is_dir()}


def _spelling(name: str) -> str:
    """Return a name as tables and file systems agree on: some take letters and accents apart."""
    return unicodedata.normalize("NFC", name)


def _unused_folders(folders: Mapping[str, Path], clips: Sequence[LabelledClip]) -> list[str]:
    used = {_spelling(clip.key) for clip in clips}
    return [
        f"{path} has no row in the tables: not used"
        for name, path in folders.items()
        if name not in used and not name.startswith(".")
    ]


def _identical_clips(checked: Checked, clips: Sequence[LabelledClip]) -> list[str]:
    """Name clips that hold the same frames under two keys."""
    first: dict[str, LabelledClip] = {}
    faults = []
    for clip in checked.whole(clips):
        other = first.setdefault(checked.frames[clip.key].sha256, clip)
        if other is not clip:
            same = other.label == clip.label
            labels = "" if same else f", but have labels {other.label} and {clip.label}"
            faults.append(f"clips {other.key} and {clip.key} hold the same frames{labels}")
    return faults


def _check_boxes(download: Download, checked: Checked, clips: Sequence[LabelledClip]) -> None:
    if download.boxes is None:
        return
    entries = {_spelling(key): entry for key, entry in load_boxes(download.boxes).items()}
    keys = {_spelling(clip.key) for clip in clips}
    unknown = sorted(entries.keys() - keys)
    checked.faults.extend(f"{download.boxes}: {k[:100]!r} is no key of the tables" for k in unknown)
    lacking = [key for key in checked.frames if _spelling(key) not in entries]
    if lacking:
        checked.faults.append(
            f"{download.boxes} has no boxes for {len(lacking)} clips, such as {lacking[0]}"
        )
    for key, frames in checked.frames.items():
        if _spelling(key) in entries:
            boxes = parse_boxes(entries[_spelling(key)], frames.files.count, frames.size)
            checked.faults.extend(f"{download.boxes}: clip {key} {text}" for text in boxes.faults)
            checked.boxes[key] = boxes
