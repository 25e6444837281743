"""Long videos out of labelled clips, with the keypoints of all of them and what is to be found.

The built-in data set gives clips and, by its generator, the moment from which a fall is one;
GMDCSA-24 gives real videos with the seconds of their falls.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

from datasets.frames import decode_image, scan_folder
from datasets.poses import save_poses
from datasets.records import ClipRecord, load_records
from datasets.synthetic import FALL, FPS, simulate_clip
from datasets.synthetic.writer import SPLITS
from datasets.video_files import decode_frames, open_video, upright_rgb
from errors import InputError
from prediction.video_writer import writing_video

_CRF = 12  # hardly a loss: the frames should be those that the models know
GMDCSA_SIZE = (640, 480)
_INTERVAL = re.compile(r"Fall[^\[;]*\[([\d.]+) to ([\d.]+)")

Picture = np.ndarray
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that is to be joined with others.

    Attributes:
        name: for the report.
        fps: frames per second.
        is_fall: what its label says.
        fall: (start, end) of the fall itself, seconds in the clip; None without one.
        keypoints: (N, 17, 3) in pixels of its frames.
        frames: opens its N frames, (H, W, 3) uint8 RGB.
    """

    name: str
    fps: float
    is_fall: bool
    fall: Interval | None
    keypoints: np.ndarray
    frames: Callable[[], Iterator[Picture]]

    @property
    def seconds(self) -> float:
        """Return its length."""
        return len(self.keypoints) / self.fps


@dataclass(frozen=True, slots=True)
class JoinedVideo:
    """A long video.

    Attributes:
        video: the file.
        poses: its keypoints, as poses/<clip>.npz.
        seconds: its length.
        clips: how many were joined.
        different: how many of them are different.
        fall_clips: (F, 2) start and end of each clip with a fall, seconds.
        falls: (F, 2) start and end of the falls themselves.
    """

    video: Path
    poses: Path
    seconds: float
    clips: int
    different: int
    fall_clips: np.ndarray
    falls: np.ndarray


def join_clips(clips: Sequence[Clip], target: Path, size: tuple[int, int]) -> JoinedVideo:
    """Write clips one after the other, each at its own frame rate.

    Args:
        clips: in order.
        target: of the video, .mp4; the keypoints get its name and .npz.
        size: (width, height) of the video; frames are fitted into it, with black beside them.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([0.0, *(clip.seconds for clip in clips)])
    keypoints = []
    with writing_video(target, size, clips[0].fps, crf=_CRF) as video:
        for clip, start in zip(clips, starts, strict=False):
            factor, corner = 1.0, np.zeros(2)
            for number, frame in enumerate(clip.frames()):
                factor, corner = _fit(frame.shape[1::-1], size)
                seconds = float(start) + number / clip.fps
                video.write(_placed(frame, size, factor, corner), seconds, 1 / clip.fps)
            moved = clip.keypoints.astype(np.float32, copy=True)
            moved[..., :2] = moved[..., :2] * factor + corner
            moved[clip.keypoints[..., 2] <= 0] = 0
            keypoints.append(moved)
    poses = target.with_suffix(".npz")
    save_poses(poses, np.concatenate(keypoints)[:, None], size, "joined clips")
    falls = [(start, clip) for start, clip in zip(starts, clips, strict=False) if clip.is_fall]
    return JoinedVideo(
        video=target,
        poses=poses,
        seconds=float(starts[-1]),
        clips=len(clips),
        different=len({clip.name for clip in clips}),
        fall_clips=np.array([(s, s + c.seconds) for s, c in falls]).reshape(-1, 2),
        falls=np.array([np.add(s, c.fall) for s, c in falls if c.fall]).reshape(-1, 2),
    )


def _fit(own: tuple[int, int], size: tuple[int, int]) -> tuple[float, np.ndarray]:
    """Return the factor and the upper left corner that put a frame into the middle."""
    factor = min(size[0] / own[0], size[1] / own[1])
    corner = (np.array(size) - np.round(np.multiply(own, factor))) // 2
    return factor, corner


def _placed(frame: Picture, size: tuple[int, int], factor: float, corner: np.ndarray) -> Picture:
    if frame.shape[1::-1] == size:
        return frame
    inner = (round(frame.shape[1] * factor), round(frame.shape[0] * factor))
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = corner.astype(int).tolist()
    resized = cv2.resize(frame, inner, interpolation=cv2.INTER_AREA)
    picture[top : top + inner[1], left : left + inner[0]] = resized
    return picture


def choose_clips(
    records: Sequence[ClipRecord], seconds: float, fall_share: float, rng: np.random.Generator
) -> list[ClipRecord]:
    """Put clips in an order until they last long enough; no fall follows a fall.

    Clips repeat only when all of their class have been used.

    Args:
        records: of both classes.
        seconds: to last at least, at the frame rate of the built-in data set.
        fall_share: of the clips, up to a half.
        rng: decides.

    Raises:
        InputError: one class has no clip.
    """
    pools = {}
    for label in (0, FALL):
        own = [record for record in records if record.label == label]
        if not own:
            raise InputError(f"the list has no clip of class {label}: both are needed")
        pools[label] = cycle([own[i] for i in rng.permutation(len(own))])
    chance = fall_share / (1 - fall_share)  # after a clip without a fall
    chosen: list[ClipRecord] = []
    length = 0.0
    while length < seconds:
        may_fall = not chosen or chosen[-1].label != FALL
        label = FALL if may_fall and rng.random() < chance else 0
        chosen.append(next(pools[label]))
        length += chosen[-1].num_frames / FPS
    return chosen


# ---------------------------------------------------------------- the built-in data set


def synthetic_clips(
    root: Path, split: str, seconds: float, fall_share: float, seed: int
) -> list[Clip]:
    """Choose clips of a split of the built-in data set, see `choose_clips`.

    Raises:
        InputError: the folder does not hold it, or not as its generator would make it.
    """
    records = load_records(root / f"{split}_videofolder.txt")
    chosen = choose_clips(records, seconds, fall_share, np.random.default_rng(seed))
    known = {record.name: _synthetic_clip(root, record) for record in set(chosen)}
    return [known[record.name] for record in chosen]


def _synthetic_clip(root: Path, record: ClipRecord) -> Clip:
    with np.load(root / "poses" / f"{record.name}.npz") as archive:
        keypoints, exact = archive["keypoints"][:, 0], archive["keypoints_exact"][:, 0]
        size = int(archive["width"]), int(archive["height"])
    files = scan_folder(root / "frames" / record.name, record.num_frames)
    return Clip(
        name=record.name,
        fps=FPS,
        is_fall=record.label == FALL,
        fall=_fall_of(record, size, exact) if record.label == FALL else None,
        keypoints=keypoints,
        frames=lambda: (decode_image(files.path(i)) for i in range(files.count)),
    )


def _fall_of(record: ClipRecord, size: tuple[int, int], exact: np.ndarray) -> Interval:
    """Return from when on a clip differs from a landed one, to its end: as it was generated.

    Raises:
        InputError: the generator makes another clip.
    """
    split, _, number = record.name.rpartition("_")
    seed = (0, SPLITS.index(split), int(number) - 1)
    clip = simulate_clip(size, seed, record.label)
    if not np.array_equal(clip.keypoints_exact, exact):
        raise InputError(f"{record.name} is not of the data set with seed 0: its falls are unknown")
    return clip.jump.landing, record.num_frames / FPS


# ---------------------------------------------------------------- real videos


def gmdcsa24_clips(source: Path, subject: str, seed: int) -> list[Clip]:
    """Return all videos of a subject of GMDCSA-24 in a random order.

    Args:
        source: folder with clips.csv, videos/ and keypoints/.
        subject: as in clips.csv.
        seed: of the order.

    Raises:
        InputError: there is no such subject.
    """
    with (source / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["subject"] == subject]
    if not rows:
        raise InputError(f"{source / 'clips.csv'} has no subject {subject!r}")
    order = np.random.default_rng(seed).permutation(len(rows))
    return [_real_clip(source, rows[i]) for i in order]


def _real_clip(source: Path, row: dict[str, str]) -> Clip:
    with np.load(source / "keypoints" / f"{row['clip']}.npz") as archive:
        keypoints = archive["keypoints"]
    length = len(keypoints) / float(row["fps"])
    found = _INTERVAL.search(row["class_intervals_seconds"])
    fall = (float(found[1]), min(float(found[2]), length)) if found else None
    return Clip(
        name=row["clip"],
        fps=float(row["fps"]),
        is_fall=row["label_fall"] == "1",
        fall=fall if fall and fall[0] < fall[1] else None,
        keypoints=keypoints,
        frames=lambda: _read(source / "videos" / f"{row['clip']}.mp4", len(keypoints)),
    )


def _read(path: Path, count: int) -> Iterator[Picture]:
    with open_video(path) as video:
        for frame in islice(decode_frames(video), count):
            yield upright_rgb(frame)
