"""NTU RGB+D: its text files of Kinect skeletons, and the splits that its file names make.

Shahroudy et al. 2016, arXiv:1604.02808; Liu et al. 2019, arXiv:1905.04757. A file
`SsssCcccPpppRrrrAaaa.skeleton` is of setup s, camera c, subject p, repetition r and action a, all
from 1. It has a line with the number of frames; for each frame a line with the number of bodies;
for each body a line of ten values that begins with its tracking number, a line with the number of
joints (25), and a line for each joint: x, y, z in metres, six values of its place in the images,
four of its turn, and its tracking state.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from errors import InputError
from files import read_regular

JOINTS = 25
_VALUES = 12  # of a joint
_MOST_BYTES = 2**29
_MOST_FRAMES, _MOST_BODIES = 100_000, 100
_MOST_DIGITS = 9
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")

Benchmark = Literal["ntu60", "ntu120"]
_TRAIN_SUBJECTS_60 = (1, 2, 4, 5, 8, 9, *range(13, 20), 25, 27, 28, 31, 34, 35, 38)
_TRAIN_SUBJECTS_120 = (
    *_TRAIN_SUBJECTS_60,
    *(45, 46, 47, 49, 50, *range(52, 60), 70, 74, 78, *range(80, 87), 89, *range(91, 96)),
    *(97, 98, 100, 103),
)
_TRAIN_CAMERAS = (2, 3)
ACTIONS: Mapping[Benchmark, int] = {"ntu60": 60, "ntu120": 120}
# Setups of the first data set; those after them came with the 60 further actions.
_SETUPS = {"ntu60": 17, "ntu120": 32}


@dataclass(frozen=True, slots=True)
class NtuName:
    """What the name of a file says, each from 1."""

    setup: int
    camera: int
    subject: int
    repetition: int
    action: int

    @classmethod
    def parse(cls, stem: str) -> "NtuName":
        """Read 'S001C002P003R002A013'.

        Raises:
            ValueError: it is none; the message follows the file's name.
        """
        match = _NAME.fullmatch(stem)
        if match is None or min(map(int, match.groups())) < 1:
            raise ValueError("is not named as S001C002P003R002A013.skeleton")
        return cls(*map(int, match.groups()))

    def is_of(self, benchmark: Benchmark) -> bool:
        """Say whether the clip belongs to the smaller or the larger data set."""
        return self.action <= ACTIONS[benchmark] and self.setup <= _SETUPS[benchmark]


def splits_of(names: Sequence[str], benchmark: Benchmark) -> dict[str, list[str]]:
    """Return the published splits of these clips: by subject, and by camera or setup."""
    subjects = _TRAIN_SUBJECTS_60 if benchmark == "ntu60" else _TRAIN_SUBJECTS_120
    other = "xview" if benchmark == "ntu60" else "xset"
    splits: dict[str, list[str]] = {
        f"{kind}_{part}": [] for kind in ("xsub", other) for part in ("train", "val")
    }
    for name in names:
        read = NtuName.parse(name)
        is_seen = read.camera in _TRAIN_CAMERAS if other == "xview" else read.setup % 2 == 0
        splits["xsub_train" if read.subject in subjects else "xsub_val"].append(name)
        splits[f"{other}_train" if is_seen else f"{other}_val"].append(name)
    return splits


# ---------------------------------------------------------------- files


@dataclass(slots=True)
class _Lines:
    """The lines of a file, one after the other."""

    path: Path
    lines: list[bytes]
    number: int = 0

    def take(self) -> list[bytes]:
        """Return the words of the next line that is not blank."""
        while self.number < len(self.lines):
            self.number += 1
            words = self.lines[self.number - 1].split()
            if words:
                return words
        raise self.fault("ends here, more should follow")

    def count(self, what: str, most: int) -> int:
        """Read a line with one whole number."""
        words = self.take()
        is_count = len(words) == 1 and words[0].isdigit() and len(words[0]) <= _MOST_DIGITS
        if not is_count or int(words[0]) > most:
            shown = b" ".join(words)[:40].decode("ascii", "replace")
            raise self.fault(f"has {shown!r}, it should be {what}, 0 to {most}")
        return int(words[0])

    def fault(self, text: str) -> InputError:
        """Return an error about the line that was read last."""
        return InputError(f"{self.path}:{self.number} {text}: download the file again")


def read_skeletons(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the bodies of a `.skeleton` file.

    Returns:
        Tracking number -> (n,) int64 0-based frames in order, (n, 25, 3) float32 x, y, z in
        metres; and under "" the frames of the clip, (N,), with no joints.

    Raises:
        InputError: the file is broken; the message names the line.
    """
    try:
        lines = _Lines(path, read_regular(path, _MOST_BYTES).split(b"\n"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): download it again") from None
    num_frames = lines.count("the number of frames", _MOST_FRAMES)
    bodies: dict[str, tuple[list[int], list[np.ndarray]]] = {}
    for frame in range(num_frames):
        for _ in range(lines.count("the number of bodies", _MOST_BODIES)):
            name = lines.take()[0].decode("ascii", "replace")
            joints = _read_joints(lines)
            frames, places = bodies.setdefault(name, ([], []))
            if frames and frames[-1] == frame:
                raise lines.fault(f"ends body {name[:40]}, which is twice in frame {frame + 1}")
            frames.append(frame)
            places.append(joints)
    if any(words.strip() for words in lines.lines[lines.number :]):
        lines.number += 1
        raise lines.fault(f"goes on after the {num_frames} frames that the file should have")
    found = {
        name: (np.array(frames, np.int64), np.stack(places).astype(np.float32))
        for name, (frames, places) in bodies.items()
    }
    return {"": (np.arange(num_frames), np.zeros((0, JOINTS, 3), np.float32)), **found}


def _read_joints(lines: _Lines) -> np.ndarray:
    """Read the joints of a body, (25, 3)."""
    count = lines.count("the number of joints", 1000)
    if count != JOINTS:
        raise lines.fault(f"has {count} joints, it should be {JOINTS}")
    joints = np.empty((JOINTS, 3))
    for joint in range(JOINTS):
        words = lines.take()
        try:
            joints[joint] = [float(word) for word in words[:3]]
        except ValueError:
            joints[joint] = np.nan
        if len(words) != _VALUES or not np.isfinite(joints[joint]).all():
            raise lines.fault(
                f"has {len(words)} values of joint {joint + 1}, it should be {_VALUES} numbers"
            )
    return joints


# ---------------------------------------------------------------- tracks


def to_tracks(
    bodies: Mapping[str, tuple[np.ndarray, np.ndarray]], num_people: int = 2
) -> np.ndarray | None:
    """Return the bodies that move most as tracks, the one that moves most first.

    A body that the sensor loses comes back under another number: one that has no frame in common
    with a better one shares its place.

    The motion of a body is the sum over x, y and z of the variance of its joints, over all its
    frames and joints; this also leaves out furniture that the sensor takes for a body. Bodies of
    equal motion keep the order of the file.

    Args:
        bodies: of `read_skeletons`.
        num_people: M.

    Returns:
        (N, M, 25, 4) float32 x, y, z in metres and confidence 1, zeros where nobody is; None
        where there is nobody at all.

    Source: the actors of Shahroudy et al. 2016, arXiv:1604.02808, section 3 (most motion).
    """
    num_frames = len(bodies[""][0])
    people = [body for name, body in bodies.items() if name and body[1].any()]
    if not people:
        return None
    people.sort(key=lambda body: -float(body[1].reshape(-1, 3).var(axis=0, dtype=np.float64).sum()))
    tracks = np.zeros((num_frames, num_people, JOINTS, 4), np.float32)
    is_taken = np.zeros((num_people, num_frames), bool)
    for frames, places in people:
        free = np.flatnonzero(~is_taken[:, frames].any(axis=1))
        if not len(free):
            continue
        slot = free[0]
        is_taken[slot, frames] = True
        tracks[frames, slot, :, :3] = places
        tracks[frames, slot, :, 3] = (places != 0).any(axis=-1)
    return tracks
