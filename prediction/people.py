"""Following people through a video of any length, with a look ahead that is bounded.

The newest frames, some of which are decided already, are linked by `ops.tracking` as a clip is.
What comes out is joined to the people known so far by the detections that both have.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ops.encounters import untangle
from ops.people import Detections, Track, clean, without_doubles
from ops.tracking import join_tracks, link_detections, main_score, rank_tracks

# Frames that are decided and still looked at: more than the longest gap that is joined.
_PAST = 120
# People who are followed at the same time; of a crowd the largest and most central.
_MOST = 30


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in one frame.

    Attributes:
        joints: (V, 3) float32 x, y in pixels and confidence.
        box: (4,) float32 x1, y1, x2, y2 in pixels.
    """

    joints: np.ndarray
    box: np.ndarray


# Everybody in one frame, by number.
People = Mapping[int, Person]


class Follower:
    """Gives people numbers that stay theirs, while frames come in.

    Args:
        size: (width, height) of the frames, pixels.
        step: frames that are decided together.
        ahead: frames that must have come after a frame before it is decided.
    """

    def __init__(self, size: tuple[int, int], step: int = 60, ahead: int = 30) -> None:
        self._size, self._step, self._ahead = size, step, ahead
        self._recent: list[Detections] = []
        self._decided: list[dict[bytes, int]] = []  # of the first frames of `_recent`: box -> who
        self._count = 0  # people so far

    def add(self, found: Detections) -> list[People]:
        """Take the people of the next frame; return frames that are decided now, in order."""
        self._recent.append(without_doubles(clean(found)))
        waiting = len(self._recent) - len(self._decided)
        return self._decide(self._step) if waiting >= self._step + self._ahead else []

    def end(self) -> list[People]:
        """Return all frames that are left."""
        return self._decide(len(self._recent) - len(self._decided))

    def _decide(self, count: int) -> list[People]:
        if not count:
            return []
        tracks = join_tracks(link_detections(self._recent))
        tracks = untangle(rank_tracks(tracks, len(self._recent), self._size)[:_MOST])
        begin = len(self._decided)
        frames: list[dict[int, Person]] = [{} for _ in range(count)]
        self._decided += [{} for _ in range(count)]
        for track, who in zip(tracks, self._names(tracks), strict=True):
            for row, frame in enumerate(track.frames.tolist()):
                if begin <= frame < begin + count:
                    box = track.people.boxes[row]
                    self._decided[frame][box.tobytes()] = who
                    frames[frame - begin][who] = Person(track.people.keypoints[row], box)
        surplus = max(len(self._decided) - _PAST, 0)
        del self._recent[:surplus], self._decided[:surplus]
        return list(frames)

    def _names(self, tracks: Sequence[Track]) -> list[int]:
        """Return who each track is: the person with most of its decided detections, or new."""
        votes: defaultdict[tuple[int, int], int] = defaultdict(int)
        for number, track in enumerate(tracks):
            for row, frame in enumerate(track.frames.tolist()):
                if frame < len(self._decided):
                    who = self._decided[frame].get(track.people.boxes[row].tobytes())
                    if who is not None:
                        votes[number, who] += 1
        known = sorted({who for _, who in votes})
        counts = np.zeros((len(tracks), len(known)))
        for (number, who), count in votes.items():
            counts[number, known.index(who)] = count
        names = {
            row: known[column]
            for row, column in zip(*linear_sum_assignment(-counts), strict=True)
            if counts[row, column]
        }
        for number in range(len(tracks)):
            if number not in names:
                names[number] = self._count
                self._count += 1
        return [names[number] for number in range(len(tracks))]


def between(one: People, two: People, share: float) -> dict[int, Person]:
    """Return the people between two frames, on straight lines.

    Args:
        one: the people of the frame before.
        two: of the frame after. Who, or which joint, is not in both is not in between.
        share: of the way from one to two, 0 to 1.
    """
    found = {}
    for who in one.keys() & two.keys():
        joints = one[who].joints * (1 - share) + two[who].joints * share
        seen = (one[who].joints[:, 2] > 0) & (two[who].joints[:, 2] > 0)
        box = one[who].box * (1 - share) + two[who].box * share
        joints = np.where(seen[:, None], joints, 0)
        found[who] = Person(joints.astype(np.float32), box.astype(np.float32))
    return dict(sorted(found.items()))


def rank_people(frames: Sequence[People], size: tuple[int, int]) -> dict[int, float]:
    """Say how likely each person is the main athlete of some frames, the likeliest first.

    Args:
        frames: of a window, N.
        size: (width, height) in pixels.
    """
    scores = {}
    for who in sorted({who for people in frames for who in people}):
        rows = [row for row, people in enumerate(frames) if who in people]
        boxes = np.stack([frames[row][who].box for row in rows])
        joints = np.stack([frames[row][who].joints for row in rows])
        people = Detections(boxes, np.ones(len(rows), np.float32), joints)
        scores[who] = main_score(Track(np.array(rows), people), len(frames), size)
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def tracks_of(frames: Sequence[People], order: Sequence[int | None], num_joints: int) -> np.ndarray:
    """Return (N, M, V, 3) keypoints of M people in this order, zeros where one was not found."""
    joints = np.zeros((len(frames), len(order), num_joints, 3), np.float32)
    for row, people in enumerate(frames):
        for slot, who in enumerate(order):
            if who is not None and who in people:
                joints[row, slot] = people[who].joints
    return joints
