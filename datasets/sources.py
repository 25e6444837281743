"""Where the frames of a listed clip come from: its folder of images, or its part of a video."""

import os
from collections.abc import Mapping
from pathlib import Path

from datasets.clip_table import NAME, ClipRow
from datasets.frames import FrameSource, ImageFrames
from datasets.records import ClipRecord
from datasets.videos import VideoFrames
from errors import InputError


def find_frames(root: Path, record: ClipRecord, table: Mapping[str, ClipRow]) -> FrameSource:
    """Find the frames of a clip; images in frames/<clip>/ go before its video.

    Args:
        root: folder of the data set.
        record: the clip.
        table: its `clips.csv`.

    Raises:
        InputError: the frames are not as the record says, or lie outside the data set.
    """
    folder = root / "frames" / record.name
    row = table.get(record.name)
    if row is None and not os.path.lexists(folder):
        raise InputError(
            f"clip {record.name[:200]} has neither a folder {str(folder)[:500]} nor a line in "
            f"{root / NAME}: extract its frames there, or prepare its video with "
            "process_dataset_videos.py"
        )
    if row is None or not row.video or folder.is_dir():
        refuse_outside(folder, root / "frames")
        return ImageFrames.find(folder, record.num_frames)
    if row.num_frames != record.num_frames:
        raise InputError(
            f"clip {record.name} has {record.num_frames} frames in its list and {row.num_frames} "
            f"in {root / NAME}: prepare the data set again"
        )
    path = root / "videos" / row.video
    refuse_outside(path.parent, root / "videos")
    return VideoFrames(
        path=path,
        count=row.num_frames,
        first_frame=row.first_frame,
        start_pts=row.start_pts,
        shown=(row.width, row.height),
    )


def refuse_outside(folder: Path, base: Path) -> None:
    """Make sure that a folder named by a list lies below `base` after following links.

    A single file may be a symbolic link (`--symlink` makes them); a folder that leads out of the
    data set would let a list name any folder of the machine.

    Raises:
        InputError: it does not.
    """
    try:
        inside = folder.resolve().is_relative_to(base.resolve())
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{str(folder)[:200]} is no usable path ({error})") from None
    if not inside:
        raise InputError(
            f"{folder} leads to {folder.resolve()}, outside of {base}: move the files there, or "
            "prepare the data set with --symlink, which links files and not folders"
        )
