"""Writing keypoint files so that the same keypoints make the same bytes, and who made them."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from datasets.arrays import blaming, open_archive, read_text
from datasets.frames import NumberedFiles
from files import replacing, replacing_folder

# More than any note of ours needs; a file may not make us read more.
_LONGEST_NOTE = 100_000
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can name
_READABLE = 0o644 << 16
_STAGING = "poses"


def write_archive(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz, whole or not at all; equal arrays make equal bytes.

    The folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, _READABLE
            entry.create_system = 3  # the same on every system
            with archive.open(entry, "w") as stream:
                npy.write_array(stream, np.asanyarray(array), allow_pickle=False)


def read_notes(path: Path) -> dict[str, str]:
    """Return the texts of an .npz: what found the keypoints, with which options.

    Raises:
        InputError: it cannot be read.
    """
    remedy = "run preprocess_pose.py again"
    with blaming(path, remedy, "keypoint file"), open_archive(path) as archive:
        names = [Path(name).stem for name in archive.namelist() if name.endswith(".npy")]
        return {name: note for name in names if (note := read_note(archive, name))}


def read_note(archive: zipfile.ZipFile, name: str) -> str:
    """Return a text of an open .npz; "" where it has none of that name.

    Raises:
        Fault, and the errors of `arrays.UNREADABLE`: it cannot be read.
    """
    try:
        entry = archive.getinfo(f"{name}.npy")
    except KeyError:
        return ""
    if entry.file_size > _LONGEST_NOTE:
        return ""
    with archive.open(entry) as stream:
        return read_text(stream, _LONGEST_NOTE)


def write_frame_poses(files: NumberedFiles, keypoints: np.ndarray) -> None:
    """Write the published form: beside each frame an .npy with (V, 2) pixels of one person.

    All are written beside their places before the first gets its name. A program killed while
    they get their names leaves some of them, which `has_frame_poses` tells.

    Args:
        files: the images of the clip, N.
        keypoints: (N, V, 3) x, y in pixels and confidence; zeros where nobody was found.
    """
    staging = files.folder / f".{_STAGING}.partial"
    try:
        with replacing_folder(staging / "all") as folder:
            for index, person in enumerate(keypoints):
                name = files.path(index).with_suffix(".npy").name
                with (folder / name).open("wb") as file:
                    npy.write_array(file, person[:, :2].astype(np.float32), allow_pickle=False)
        for path in sorted((staging / "all").iterdir()):
            path.replace(files.folder / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def has_frame_poses(files: NumberedFiles) -> bool:
    """Say whether every frame of a clip has its .npy."""
    there = {path.name for path in files.folder.glob("*.npy")}
    names = (files.path(index).with_suffix(".npy").name for index in range(files.count))
    return all(name in there for name in names)
