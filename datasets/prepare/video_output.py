"""What `process_dataset_videos.py` writes: videos or frames, `clips.csv`, and then the lists.

A run that is killed and started again ends with the same files as one that was not: everything
appears whole, and the lists come last.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.clip_table import NAME as TABLE_NAME
from datasets.clip_table import ClipRow, write_table
from datasets.prepare.extract import JpegSettings, hash_frames
from datasets.prepare.probing import VideoInfo, hash_file
from datasets.prepare.splits import SPLITS
from datasets.prepare.video_table import ClipRequest
from datasets.records import ClipRecord, read_header, write_list
from errors import InputError
from files import LinkMode, link_file, partial_of, remove_partials
from files import alone_in as locked

SCRIPT = "process_dataset_videos.py"
PROBES = ".probes"
_FOLDERS = ("frames", "videos", "folds", PROBES)


@dataclass(frozen=True, slots=True)
class FoundClip:
    """A clip whose video was read.

    Attributes:
        request: what was asked for.
        name: of the clip.
        label: number of its class.
        info: of its video.
        first: 0-based number of its first frame in the video.
        count: frames, N.
        start_pts: time stamp to seek to, if that is of use.
    """

    request: ClipRequest
    name: str
    label: int
    info: VideoInfo
    first: int
    count: int
    start_pts: int | None = None


def list_path(folder: Path, split: str) -> Path:
    """Return where the list of a split lies."""
    return folder / f"{split}_videofolder.txt"


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Make the folder of the data set, and keep other runs of ours out of it.

    What a killed run left half-written is removed.

    Raises:
        InputError: another run is at work there, or a list was not written by this program.
    """
    for path in (list_path(root, split) for split in SPLITS):
        if os.path.lexists(path) and read_header(path).get("made_by") != SCRIPT:
            raise InputError(
                f"{path} was not written by {SCRIPT}, which would replace it: move it away, or "
                "choose another --dataset"
            )
    with locked(root):
        for folder in _FOLDERS:
            remove_partials(root / folder)
        for path in (*(list_path(root, split) for split in SPLITS), root / TABLE_NAME):
            partial_of(path).unlink(missing_ok=True)
        yield


# ---------------------------------------------------------------- videos


def link_video(source: Path, target: Path, mode: LinkMode, sha256: str) -> bool:
    """Bring a video into the data set; return whether it was copied for want of hard links.

    What is there already and fits is left alone.
    """
    if target.exists() and _fits(source, target, mode, sha256):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(target)
    copied = link_file(source, partial, mode)
    if os.path.lexists(target) and target.exists() and partial.samefile(target):
        target.unlink()  # renaming a link to another one of the same file does nothing
    partial.replace(target)
    return copied and mode == "hard"


def _fits(source: Path, target: Path, mode: LinkMode, sha256: str) -> bool:
    if target.is_symlink() or mode == "symlink":
        return target.is_symlink() and mode == "symlink" and target.samefile(source)
    if target.samefile(source):
        return mode == "hard"
    return target.stat().st_size == source.stat().st_size and hash_file(target) == sha256


def refuse_mixture(root: Path, clips: Sequence[FoundClip]) -> None:
    """Make sure that no images lie where a clip would be taken from its video.

    Raises:
        InputError: they do.
    """
    for clip in clips:
        folder = root / "frames" / clip.name
        if folder.exists():
            raise InputError(
                f"{folder} holds frames, which would be used instead of the video: give "
                f"--extract_frames again, or remove {root / 'frames'}"
            )


# ---------------------------------------------------------------- table and lists


def rows_with_videos(
    clips: Sequence[FoundClip], videos: Mapping[str, str], groups: Sequence[str]
) -> list[ClipRow]:
    """Return `clips.csv` of clips that are decoded from their videos.

    Args:
        clips: the clips.
        videos: key of a video -> its file below videos/.
        groups: of each clip.
    """
    return [
        ClipRow(
            clip=clip.name,
            video=videos[clip.request.key],
            first_frame=clip.first,
            start_pts=clip.start_pts,
            num_frames=clip.count,
            width=clip.info.width,
            height=clip.info.height,
            fps=round(clip.info.fps, 3),
            group=group,
            sha256=clip.info.sha256,
        )
        for clip, group in zip(clips, groups, strict=True)
    ]


def rows_with_frames(
    root: Path, clips: Sequence[FoundClip], settings: JpegSettings, groups: Sequence[str]
) -> list[ClipRow]:
    """Return `clips.csv` of clips whose frames were extracted; sizes are those of the JPEGs."""
    rows = []
    for clip, group in zip(clips, groups, strict=True):
        width, height = settings.scaled(clip.info.width, clip.info.height)
        rows.append(
            ClipRow(
                clip=clip.name,
                num_frames=clip.count,
                width=width,
                height=height,
                fps=round(clip.info.fps, 3),
                group=group,
                sha256=hash_frames(root / "frames" / clip.name, clip.count),
            )
        )
    return rows


def write_lists(
    root: Path,
    clips: Sequence[FoundClip],
    folds: Sequence[Sequence[str]],
    header: Mapping[str, str],
    rows: Sequence[ClipRow],
) -> None:
    """Write `clips.csv`, the lists of every fold, and the data set's lists: those of fold 1.

    Args:
        root: folder of the data set.
        clips: the clips.
        folds: for each fold the split of each clip; a single one is no fold.
        header: of every list.
        rows: of `clips.csv`.
    """
    # A run that is killed here leaves no list, rather than lists that do not belong together.
    for split in SPLITS:
        list_path(root, split).unlink(missing_ok=True)
    _remove_folds(root)
    write_table(root, rows)
    several = len(folds) > 1
    for number, splits in reversed(list(enumerate(folds, start=1))):
        fold = {"fold": f"{number} of {len(folds)}"} if several else {}
        folders = [root / "folds" / f"{number}of{len(folds)}"] if several else []
        for folder in [*folders, *([root] if number == 1 else [])]:
            folder.mkdir(parents=True, exist_ok=True)
            for split in SPLITS:
                records = [
                    ClipRecord(clip.name, clip.count, clip.label)
                    for clip, its_split in zip(clips, splits, strict=True)
                    if its_split == split
                ]
                write_list(list_path(folder, split), records, {**header, **fold})


def make_header(classes: Sequence[str], left_out: int) -> dict[str, str]:
    """Return the header of a list."""
    names = json.dumps(list(classes), ensure_ascii=False)
    return {"made_by": SCRIPT, "classes": names, "left_out": str(left_out)}


def _remove_folds(root: Path) -> None:
    """Remove the lists of folds that an earlier run wrote, and their folders if these are empty."""
    for path in sorted((root / "folds").glob("*of*/*_videofolder.txt")):
        if read_header(path).get("made_by") == SCRIPT:
            path.unlink()
    for folder in [*sorted((root / "folds").glob("*of*")), root / "folds"]:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
