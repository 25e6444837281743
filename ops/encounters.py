"""Where two people meet, tracks are easily exchanged: judged again from both sides.

While people overlap, single frames say little about who is who. The frames before and after the
meeting say more: where each came from and went to, how fast, and how large.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ops.people import Track, areas, centres, concatenate

# People closer than this, in sizes of the person, have met.
_MEETING = 0.3
# Meetings with fewer frames between them are one.
_APART = 10
# Frames on each side that are looked at, and how many detections a side needs.
_WINDOW, _LEAST = 20, 4
# An exchange must fit better by this much, in sizes: else the tracks stay.
_MARGIN = 0.25


@dataclass(frozen=True, slots=True)
class _Side:
    """One person on one side of a meeting: a straight path and a size.

    Attributes:
        frame: mean frame of what was seen.
        place: (2,) mean centre, pixels.
        velocity: (2,) pixels per frame.
        size: typical square root of the box area, pixels.
    """

    frame: float
    place: np.ndarray
    velocity: np.ndarray
    size: float

    def at(self, frame: float) -> np.ndarray:
        """Return where the path leads to."""
        return self.place + self.velocity * (frame - self.frame)


def untangle(tracks: Sequence[Track]) -> list[Track]:
    """Exchange what follows a meeting between two tracks where that fits motion and size better.

    Args:
        tracks: of a clip, each person once.

    Returns:
        As many tracks, in the same order; the detections are the same.
    """
    result = list(tracks)
    for first in range(len(result)):
        for second in range(first + 1, len(result)):
            for begin, end in _meetings(result[first], result[second]):
                pair = (result[first], result[second])
                if _is_exchanged(pair, begin, end):
                    result[first], result[second] = _exchange(pair, (begin + end) // 2)
    return result


def _meetings(one: Track, two: Track) -> list[tuple[int, int]]:
    """Return first and last frame of each meeting of two people."""
    begin = max(one.frames[0], two.frames[0])
    end = min(one.frames[-1], two.frames[-1])
    if end <= begin:
        return []
    frames = np.arange(begin, end + 1)
    path, other = _path(one, frames), _path(two, frames)
    size = np.sqrt(np.median(areas(one.people.boxes)) * np.median(areas(two.people.boxes))) ** 0.5
    near = frames[np.linalg.norm(path - other, axis=1) < _MEETING * size]
    if not len(near):
        return []
    breaks = np.flatnonzero(np.diff(near) > _APART)
    starts = near[np.append(0, breaks + 1)]
    ends = near[np.append(breaks, len(near) - 1)]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _path(track: Track, frames: np.ndarray) -> np.ndarray:
    """Return (n, 2) centres in `frames`, straight lines where the person was not found."""
    place = centres(track.people.boxes)
    return np.stack([np.interp(frames, track.frames, place[:, axis]) for axis in (0, 1)], axis=1)


def _is_exchanged(pair: tuple[Track, Track], begin: int, end: int) -> bool:
    before = [_side(track, begin - _WINDOW, begin) for track in pair]
    after = [_side(track, end, end + _WINDOW) for track in pair]
    if None in before or None in after:
        return False
    cost = np.array([[_misfit(a, b) for b in after if b] for a in before if a])
    return bool(np.trace(cost) > cost[0, 1] + cost[1, 0] + _MARGIN)


def _side(track: Track, begin: int, end: int) -> _Side | None:
    """Describe a person from frame `begin` to `end`; None where too little was seen."""
    inside = (track.frames >= begin) & (track.frames <= end)
    if inside.sum() < _LEAST:
        return None
    frames, boxes = track.frames[inside].astype(np.float64), track.people.boxes[inside]
    middle, place = frames.mean(), centres(boxes).astype(np.float64)
    spread = frames - middle
    velocity = spread @ (place - place.mean(0)) / (spread @ spread)
    return _Side(middle, place.mean(0), velocity, float(np.sqrt(np.median(areas(boxes)))))


def _misfit(before: _Side, after: _Side) -> float:
    """Say how badly one side continues the other, in sizes of the person."""
    size = np.sqrt(before.size * after.size)
    middle = (before.frame + after.frame) / 2
    straight = np.linalg.norm(before.at(middle) - after.at(middle)) / size
    turn = np.linalg.norm(before.velocity - after.velocity) * _WINDOW / 2 / size
    growth = abs(np.log(before.size / after.size))
    return float(min(straight, 2) + 0.5 * min(turn, 2) + 2 * growth)


def _exchange(pair: tuple[Track, Track], last: int) -> tuple[Track, Track]:
    """Return the tracks with what follows frame `last` exchanged."""
    heads = [_part(track, track.frames <= last) for track in pair]
    tails = [_part(track, track.frames > last) for track in pair]
    return _glued(heads[0], tails[1]), _glued(heads[1], tails[0])


def _part(track: Track, mask: np.ndarray) -> Track:
    return Track(track.frames[mask], track.people.pick(mask))


def _glued(head: Track, tail: Track) -> Track:
    frames = np.concatenate([head.frames, tail.frames])
    return Track(frames, concatenate([head.people, tail.people]))
