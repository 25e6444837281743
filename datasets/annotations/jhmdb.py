"""JHMDB: joint positions as they are published, and the part of them that came with DD-Net.

Sources: Jhuang et al. 2013, doi 10.1109/ICCV.2013.396 (`joint_positions.zip`, `splits.zip`: 928
clips of 21 classes); Yang et al. 2019, arXiv:1907.09658 (`GT_train_1.pkl`, `GT_test_1.pkl` and the
like: 609 clips of 14 classes, without names).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.io import loadmat

from datasets.annotations.exporting import Annotation
from datasets.importers.reading import read_ddnet_file
from errors import InputError
from files import read_regular

JOINTS = 15
SIZE = (320, 240)
_LISTS = {"1": "train", "2": "test"}
_MOST_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class ListedClip:
    """A clip of the published lists: its name, the folder of its class, train or test."""

    name: str
    action: str
    split: str


def read_splits(folder: Path, number: int) -> list[ListedClip]:
    """Read the lists of a split, `<class>_test_split<number>.txt`, lines `<clip>.avi 1` or `2`.

    Raises:
        InputError: there are none; a line has another form, or names a clip twice.
    """
    ending = f"_test_split{number}.txt"
    found: dict[str, ListedClip] = {}
    for path in sorted(folder.glob(f"*{ending}")):
        for place, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), start=1):
            words = line.split()
            if words and (len(words) != 2 or words[1] not in ("0", *_LISTS)):
                raise InputError(f"{path}:{place} should be a clip and 1 (train) or 2 (test)")
            if not words or words[1] == "0":  # in neither list
                continue
            name = Path(words[0]).stem
            if name in found:
                raise InputError(f"{path}:{place} names the clip {name[:200]} again")
            found[name] = ListedClip(name, path.name.removesuffix(ending), _LISTS[words[1]])
    if not found:
        raise InputError(f"{folder} holds no list named <class>{ending}: give the unpacked splits")
    return list(found.values())


def read_positions(path: Path) -> np.ndarray:
    """Read the `pos_img` of a `joint_positions.mat`: (T, 15, 2) float32, pixels.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    data = BytesIO(_read(path))
    try:
        positions = np.asarray(loadmat(data, variable_names=["pos_img"])["pos_img"], np.float32)
    except Exception as error:  # noqa: BLE001 - damaged bytes lead scipy to errors of any kind
        raise InputError(f"{path} cannot be read as joint positions ({error!r:.200})") from None
    if positions.ndim != 3 or positions.shape[:2] != (2, JOINTS) or not positions.shape[2]:
        shape = positions.shape
        raise InputError(f"{path} has pos_img of shape {shape}, it should be (2, {JOINTS}, T)")
    if not np.isfinite(positions).all():
        raise InputError(f"{path} has positions that are NaN or infinite")
    return positions.transpose(2, 1, 0)


def read_ddnet(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Read {pose: [(T, 15, 2), ...], label: [class, ...]}; nothing in the file is run.

    Returns:
        Coordinates as float32, in sizes of the person around its middle, and names of classes.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    with TemporaryDirectory(prefix="ddnet-") as folder:
        index = read_ddnet_file(path, Path(folder))
        data = np.fromfile(Path(folder) / "arrays.bin", np.uint8)
    poses = [_pose(path, number, data, *held) for number, held in enumerate(index["poses"])]
    return poses, index["labels"]


def _pose(
    path: Path, number: int, data: np.ndarray, kind: str, shape: Sequence[int], place: int
) -> np.ndarray:
    """Return a pose out of the numbers that `read_ddnet_file` left."""
    if len(shape) != 3 or tuple(shape[1:]) != (JOINTS, 2) or not shape[0]:
        raise InputError(f"{path}, pose {number} is {tuple(shape)}, it should be (T, {JOINTS}, 2)")
    held = np.frombuffer(data, kind, math.prod(shape), place).reshape(shape)
    pose = held.astype(np.float32)
    if not np.isfinite(pose).all():
        raise InputError(f"{path}, pose {number} has values that are NaN or infinite")
    return pose


def annotation_of(name: str, label: int, places: np.ndarray, size: tuple[int, int]) -> Annotation:
    """Return an annotation of one person, all of whose joints are known.

    Args:
        name: of the clip.
        label: its class.
        places: (T, 15, 2).
        size: (width, height) of the frames that `places` are in.
    """
    scores = np.ones((*places.shape[:2], 1), np.float32)
    return Annotation(name, label, np.concatenate((places, scores), axis=2)[:, None], size)


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give the file of the data set itself"
        ) from None
