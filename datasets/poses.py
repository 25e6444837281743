"""Keypoint files of a clip: one .npz, or the published .npy per frame.

`poses/<clip>.npz` holds `keypoints` (N, M, 17, 3) or (N, 17, 3): x, y in pixels and confidence 0-1,
and, where known, `height` and `width` of the frames that they were found on. The published files
lie beside the frames, `00001.npy` with (17, 2) pixels of the frame, (0, 0) where nothing was found.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.arrays import Fault, Shape, blaming, open_archive, open_array, read_array, read_member
from datasets.clip_table import ClipRow
from datasets.frames import FrameSource, NumberedFiles, scan_folder
from datasets.pose_files import read_note, write_archive
from datasets.records import ClipRecord
from errors import InputError
from ops.skeleton import SkeletonLayout

REMEDY = "run preprocess_pose.py again for this clip"
_KIND = "keypoint file"
OTHER_FRAMES = "was made for other frames than the clip of this name has now"

# A file may not make us allocate more than a crowd needs.
_MOST_PEOPLE = 100
_FARTHEST_PIXEL = 1e6
# Half precision may give back a confidence of 1 a little larger.
_MOST_CONFIDENCE = 1.001


@dataclass(frozen=True, slots=True)
class Poses:
    """Keypoints of all frames of one clip.

    Attributes:
        keypoints: (N, M, V, 3) float32 x, y in pixels and confidence 0-1; undetected joints are
            exactly (0, 0, 0).
        size: (width, height) of the frames that the pixels belong to, None when not recorded.
    """

    keypoints: np.ndarray
    size: tuple[int, int] | None = None

    def fits(self, size: tuple[int, int]) -> bool:
        """Say whether frames of `size` have the shape of those that the keypoints belong to."""
        if self.size is None:
            return True
        (width, height), (own_width, own_height) = size, self.size
        # Sides were rounded when the frames were resized: half a pixel each.
        return abs(width * own_height - height * own_width) <= max(*size, *self.size)

    def keypoints_at(self, size: tuple[int, int]) -> np.ndarray:
        """Return the keypoints in pixels of frames of `size`, which `fits`."""
        if self.size is None or self.size == size:
            return self.keypoints
        factors = np.divide(size, self.size, dtype=np.float32)
        return self.keypoints * np.append(factors, np.float32(1))


@dataclass(frozen=True, slots=True)
class PoseArchive:
    """The .npz of one clip.

    Attributes:
        path: the file.
        num_frames: of the clip, N.
        num_on_disk: images in the clip's folder: the file may cover them all; N when unknown.
        num_joints: V.
        identity: of the clip's frames, see `ClipRow.identity`; "" when not known.
    """

    path: Path
    num_frames: int
    num_on_disk: int
    num_joints: int
    identity: str = ""

    def load(self) -> Poses:
        """Read the file and check every number in it.

        Raises:
            InputError: it cannot be read, or its content is not as the module says.
        """
        with blaming(self.path, REMEDY, _KIND), open_archive(self.path) as archive:
            if is_of_other_frames(read_note(archive, "clip"), self.identity):
                raise Fault(OTHER_FRAMES)
            array = read_member(archive, "keypoints", self._shape_fault)
            if array is None:
                raise Fault("has no array 'keypoints'")
            keypoints = _checked(array)
            height, width = (_read_scalar(archive, name) for name in ("height", "width"))
            if (height is None) != (width is None):
                raise Fault("holds one of height and width, not both")
        keypoints = keypoints.reshape(len(keypoints), -1, self.num_joints, 3)[: self.num_frames]
        return Poses(keypoints, (width, height) if width and height else None)

    def _shape_fault(self, shape: Shape) -> str:
        V = self.num_joints
        if len(shape) not in (3, 4) or shape[-2:] != (V, 3):
            return f"has keypoints of shape {shape}, they should be (N, M, {V}, 3)"
        if shape[0] not in (self.num_frames, self.num_on_disk):
            return f"holds {shape[0]} poses, its clip has {self.num_frames} frames"
        if len(shape) == 4 and not 1 <= shape[1] <= _MOST_PEOPLE:
            return f"holds {shape[1]} people, it may be 1 to {_MOST_PEOPLE}"
        return ""


@dataclass(frozen=True, slots=True)
class PoseFrames:
    """The published form: one .npy per frame, of one person."""

    files: NumberedFiles
    num_joints: int

    @property
    def path(self) -> Path:
        """Return where the files lie, for messages."""
        return self.files.folder

    def load(self) -> Poses:
        """Read the files of all frames and check every number in them.

        Raises:
            InputError: a file cannot be read, or its content is not as the module says.
        """
        V = self.num_joints
        keypoints = np.zeros((self.files.count, 1, V, 3), np.float32)
        for index in range(self.files.count):
            path = self.files.path(index)
            with blaming(path, REMEDY, _KIND), open_array(path) as stream:
                pose = read_array(stream, self._shape_fault)
                if pose.shape[1] == 2:
                    pose = np.column_stack((pose, (pose != 0).any(axis=1)))
                keypoints[index, 0] = _checked(pose)
        return Poses(keypoints)

    def _shape_fault(self, shape: Shape) -> str:
        V = self.num_joints
        if shape in ((V, 2), (V, 3)):
            return ""
        return f"has a pose of shape {shape}, it should be ({V}, 2)"


class PoseSource(Protocol):
    """Where the keypoints of a clip come from."""

    @property
    def path(self) -> Path:
        """Return where that is, for messages."""

    def load(self) -> Poses:
        """Read the keypoints of all frames.

        Raises:
            InputError: they cannot be read, or are not as they should be.
        """


def is_of_other_frames(noted: str, identity: str) -> bool:
    """Tell whether keypoints were made for other frames than those that a clip has now.

    A data set prepared as videos and again as images has the same frames with another sum: what
    cannot be compared is taken to fit.

    Args:
        noted: the identity that the keypoint file gives, "" where it gives none.
        identity: of the clip's frames now, "" where it is not known.
    """
    is_comparable = noted.split(" ")[0] == identity.split(" ")[0] != ""
    return is_comparable and noted != identity


def find_poses(
    root: Path,
    record: ClipRecord,
    images: FrameSource | None,
    layout: SkeletonLayout,
    row: ClipRow | None = None,
) -> PoseSource | None:
    """Find the keypoints of a clip, or return None; an .npz goes before files beside the frames.

    Args:
        root: folder of the data set.
        record: the clip.
        images: its frames, None when they are not used.
        layout: of the keypoints.
        row: of the clip in `clips.csv`, if there is one: keypoints that were made for other frames
            of the same name are then refused.

    Raises:
        InputError: the files of single frames have gaps, or other numbers than the frames.
    """
    num_joints = len(layout.joints)
    archive = root / "poses" / f"{record.name}.npz"
    if archive.is_file():
        on_disk = images.found if images else record.num_frames
        identity = row.identity if row else ""
        return PoseArchive(archive, record.num_frames, on_disk, num_joints, identity)
    folder = root / "frames" / record.name
    if not any(folder.glob("*.npy")):
        return None
    files = scan_folder(folder, record.num_frames, (".npy",))
    if images is not None and images.first != files.first:
        raise InputError(
            f"{folder} has frames from number {images.first} and poses from number {files.first}: "
            f"number both alike, or {REMEDY}"
        )
    return PoseFrames(files, num_joints)


def save_poses(
    path: Path,
    keypoints: np.ndarray,
    size: tuple[int, int],
    source: str,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the .npz of a clip so that it is never there by half.

    Args:
        path: of the file; its folder is made.
        keypoints: (N, M, V, 3) x, y in pixels and confidence 0-1.
        size: (width, height) of the frames, pixels.
        source: what found them.
        notes: further texts to keep with them, such as the options that decided.
    """
    texts = {"source": source, **{name: text for name, text in (notes or {}).items() if text}}
    arrays: dict[str, np.ndarray] = {
        "keypoints": keypoints.astype(np.float32),
        "width": np.array(size[0], np.int64),
        "height": np.array(size[1], np.int64),
        **{name: np.array(text) for name, text in texts.items()},
    }
    write_archive(path, arrays)


# ---------------------------------------------------------------- arrays


def _read_scalar(archive: zipfile.ZipFile, name: str) -> int | None:
    """Return a number of pixels from the archive, None when it is not there."""
    value = read_member(
        archive,
        name,
        lambda shape: f"has a {name} of shape {shape}, not one number" if shape else "",
    )
    if value is None:
        return None
    if not 1 <= value <= _FARTHEST_PIXEL:
        raise Fault(f"has a {name} of {value}, it should be in pixels")
    return int(value)


def _checked(keypoints: np.ndarray) -> np.ndarray:
    """Return (..., V, 3) keypoints as float32, undetected joints as exact zeros."""
    keypoints = keypoints.astype(np.float64)  # half precision cannot hold the bounds below
    if not np.isfinite(keypoints).all():
        raise Fault("holds NaN or infinite keypoints, they should be finite")
    confidence = keypoints[..., 2]
    if not 0 <= confidence.min() <= confidence.max() <= _MOST_CONFIDENCE:
        raise Fault(
            f"holds confidences from {confidence.min():.3g} to {confidence.max():.3g}, they "
            "should be 0 to 1"
        )
    if np.abs(keypoints[..., :2]).max() > _FARTHEST_PIXEL:
        raise Fault(f"holds keypoints more than {_FARTHEST_PIXEL:.0f} pixels away")
    # Estimators write (0, 0) for a joint that they did not find, with any confidence.
    is_found = (confidence > 0) & (keypoints[..., :2] != 0).any(axis=-1)
    found = np.where(is_found[..., None], keypoints, 0).astype(np.float32)
    found[..., 2] = np.minimum(found[..., 2], 1)
    return found
