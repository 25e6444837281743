"""Where the keypoints of a video come from: nowhere, a file, or an estimator on the fly."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.arrays import Fault, Shape, blaming, open_archive, read_member
from datasets.poses import PoseArchive, Poses
from errors import InputError
from models.estimators import Estimator
from ops.conversion import convert_keypoints
from ops.people import Detections
from ops.skeleton import COCO17, SkeletonLayout
from prediction.frames import Source
from prediction.people import Follower, People, Person, between

_REMEDY = "give the .npz that preprocess_pose.py, import_poses.py or predict.py --save_poses wrote"

# Joints may be guessed a little outside of the frame, in shares of it.
_MARGIN = 0.05
# Coordinates up to here are shares of the frame, not pixels.
_MOST_SHARE = 2.0


@dataclass(slots=True)
class Seen:
    """A frame on its way to the network.

    Attributes:
        number: 0-based.
        seconds: in the video.
        size: (width, height) of the frame, pixels.
        crops: (crops, S, S, 3) uint8; None where the network sees no picture of this frame.
        picture: (H, W, 3) uint8 for the estimator; None for others, and once it was seen.
        people: found in it.
    """

    number: int
    seconds: float
    size: tuple[int, int]
    crops: np.ndarray | None = None
    picture: np.ndarray | None = None
    people: People = field(default_factory=dict)


class PoseStage(Protocol):
    """Adds the people to frames.

    Attributes:
        seconds: that it took.
        every: the estimator needs the picture of every so manieth frame; 0: of none.
        is_ranked: people are numbered in order of their importance.
        num_slots: numbers that there are, where people are ranked; 0: not known before.
    """

    seconds: float
    every: int
    is_ranked: bool
    num_slots: int

    def run(self, frames: Iterator[Seen]) -> Iterator[Seen]:
        """Yield the frames with their people, in order; some frames may be held back."""


class NoPoses:
    """For networks that see RGB alone."""

    seconds, every, is_ranked, num_slots = 0.0, 0, True, 0

    def run(self, frames: Iterator[Seen]) -> Iterator[Seen]:
        """Yield the frames as they are."""
        return frames


class GivenPoses:
    """Keypoints of the whole video that are there already: person m is slot m of the file.

    Args:
        path: the .npz, as poses/<clip>.npz of a data set.
        layout: of its joints.
        source: name of the video, for messages.

    Raises:
        InputError: it cannot be read.
    """

    every, is_ranked = 0, True

    def __init__(self, path: Path, layout: SkeletonLayout, source: str) -> None:
        self.seconds = 0.0
        self._path, self._source = path, source
        self._poses = load_video_poses(path, len(layout.joints))
        self.num_slots = self._poses.keypoints.shape[1]
        self._keypoints: np.ndarray | None = None

    def run(self, frames: Iterator[Seen]) -> Iterator[Seen]:
        """Yield the frames with the people of the file.

        Raises:
            InputError: the file has fewer frames than the video, or its keypoints cannot belong to
                frames of this shape or size.
        """
        for seen in frames:
            begin = time.perf_counter()
            if self._keypoints is None:
                self._keypoints = self._fitted(seen.size)
            if seen.number >= len(self._keypoints):
                raise self._misfit("more")
            seen.people = _everybody(self._keypoints[seen.number])
            self.seconds += time.perf_counter() - begin
            yield seen

    @property
    def num_frames(self) -> int:
        """Return how many frames the file has keypoints of."""
        return len(self._poses.keypoints)

    def check_length(self, num_frames: int) -> None:
        """Make sure that a video that was read to its end has as many frames as the file.

        Raises:
            InputError: it has not.
        """
        if num_frames != self.num_frames:
            raise self._misfit(str(num_frames))

    def _fitted(self, size: tuple[int, int]) -> np.ndarray:
        if not self._poses.fits(size):
            raise InputError(
                f"{self._path} was made for frames of {_text(self._poses.size)} pixels, "
                f"{self._source} has {_text(size)}: give the keypoints of this video"
            )
        keypoints = self._poses.keypoints_at(size)
        fault = _scale_fault(keypoints, size)
        if fault:
            recorded = "" if self._poses.size else " (it has no size recorded)"
            raise InputError(
                f"{self._path} {fault} of {self._source}, {_text(size)} pixels{recorded}: give the "
                "keypoints of this video in pixels, with width and height of the frames"
            )
        return keypoints

    def _misfit(self, num_frames: str) -> InputError:
        return InputError(
            f"{self._path} holds the keypoints of {self.num_frames} frames, "
            f"{self._source} has {num_frames}: give the keypoints of this video, one row a frame"
        )


class EstimatedPoses:
    """People found on the fly and followed with a bounded look ahead.

    Between two frames that the estimator saw, people are on straight lines.

    Args:
        estimator: finds people in single frames.
        every: the estimator sees one frame in so many.
        batch_size: frames that it sees at once.
        is_live: decide at once who is who, so that the answer is not late.
        layout: of the joints that the network sees: those of the estimator are turned into it.
    """

    is_ranked, num_slots = False, 0

    def __init__(
        self,
        estimator: Estimator,
        every: int = 1,
        batch_size: int = 16,
        is_live: bool = False,
        layout: SkeletonLayout = COCO17,
    ) -> None:
        self._layout = layout
        self.seconds = 0.0
        self.every = every
        self._estimator = estimator
        self._batch_size = 1 if is_live else batch_size
        self._pace = {"step": 4, "ahead": 0} if is_live else {}

    def run(self, frames: Iterator[Seen]) -> Iterator[Seen]:
        """Yield the frames with the people found in them."""
        waiting: deque[Seen] = deque()
        pictures: list[np.ndarray] = []
        decided: deque[People] = deque()  # of frames that the estimator saw
        follower: Follower | None = None
        for seen in frames:
            follower = follower or Follower(seen.size, **self._pace)
            if seen.picture is not None:
                pictures.append(seen.picture)
                seen.picture = None
            waiting.append(seen)
            if len(pictures) == self._batch_size:
                decided += self._look(pictures, follower)
                pictures = []
                yield from self._released(waiting, decided)
        if follower is not None:
            decided += self._look(pictures, follower)
            begin = time.perf_counter()
            decided += self._converted(follower.end())
            self.seconds += time.perf_counter() - begin
        yield from self._released(waiting, decided)
        for seen in waiting:  # after the last frame that the estimator saw
            yield seen

    def _look(self, pictures: list[np.ndarray], follower: Follower) -> list[People]:
        if not pictures:
            return []
        begin = time.perf_counter()
        people: list[Detections] = self._estimator.detect(np.stack(pictures))
        decided = self._converted([frame for found in people for frame in follower.add(found)])
        self.seconds += time.perf_counter() - begin
        return decided

    def _converted(self, frames: list[People]) -> list[People]:
        if self._layout == COCO17:
            return frames
        return [
            {
                who: Person(convert_keypoints(person.joints, COCO17, self._layout), person.box)
                for who, person in people.items()
            }
            for people in frames
        ]

    def _released(self, waiting: deque[Seen], decided: deque[People]) -> Iterator[Seen]:
        """Yield the frames that are decided; `decided` begins with that before the next frame."""
        while waiting and decided:
            share = waiting[0].number % self.every / self.every
            if share == 0:
                waiting[0].people = decided[0]
            elif len(decided) > 1:
                waiting[0].people = between(decided[0], decided[1], share)
            else:
                return
            is_last = (waiting[0].number + 1) % self.every == 0
            yield waiting.popleft()
            if is_last:
                decided.popleft()


def load_video_poses(path: Path, num_joints: int) -> Poses:
    """Read the keypoints of a whole video and check every number in them.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    lengths: list[int] = []

    def shape_fault(shape: Shape) -> str:
        lengths.append(shape[0] if shape else 0)
        return "" if lengths[0] else "holds no keypoints"

    with blaming(path, _REMEDY, "keypoint file"), open_archive(path) as archive:
        if read_member(archive, "keypoints", shape_fault) is None:
            raise Fault("has no array 'keypoints'")
    return PoseArchive(path, lengths[0], lengths[0], num_joints).load()


def _everybody(keypoints: np.ndarray) -> dict[int, Person]:
    """Return the people of a frame (M, V, 3), each with a box around its joints."""
    found = {}
    for slot, joints in enumerate(keypoints):
        seen = joints[joints[:, 2] > 0, :2]
        if len(seen):
            box = np.concatenate([seen.min(0), seen.max(0)])
            found[slot] = Person(joints, box)
    return found


def _scale_fault(keypoints: np.ndarray, size: tuple[int, int]) -> str:
    """Say why keypoints (N, M, V, 3) are not in pixels of frames of (width, height); "" if not."""
    places = keypoints[keypoints[..., 2] > 0, :2]  # (joints that were seen, 2)
    if not len(places):
        return ""
    if np.abs(places).max() <= _MOST_SHARE < min(size):
        return f"has all joints within {_MOST_SHARE:g} pixels of the corner of the frame"
    limit = np.array(size, np.float32)
    beyond = np.maximum(-places, places - limit) / limit  # (joints, 2)
    share = float((beyond.max(axis=1) > _MARGIN).mean())
    return f"has {share:.0%} of its joints outside of the frame" if share > 0.5 else ""


def find_pose_file(poses: Path, source: Source) -> Path:
    """Return the keypoint file of a source: `poses`, or the one in this folder of its name.

    Raises:
        InputError: it is not there.
    """
    path = poses / f"{source.stem}.npz" if poses.is_dir() else poses
    if not path.is_file():
        raise InputError(
            f"{path} is not there: it should hold the keypoints of {source.name}; correct --poses"
        )
    return path


def check_names(poses: Path, sources: Sequence[Source]) -> None:
    """Make sure that no two videos of one name share a file of the folder `poses`.

    Raises:
        InputError: they do.
    """
    if len(sources) < 2 or not poses.is_dir():
        return
    known: dict[str, Source] = {}
    for source in sources:
        other = known.setdefault(source.stem, source)
        if _place(other) != _place(source):
            raise InputError(
                f"--poses {poses}: {other.name} and {source.name} have the same name and would "
                f"share {source.stem}.npz: predict them one by one, each with --poses FILE.npz"
            )


def _place(source: Source) -> Path | str:
    return source.path.resolve() if source.path else source.name


def _text(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "unknown"
