"""Who is who: people of single frames to the slots of an array, the main athlete first."""

from dataclasses import dataclass

import numpy as np

from datasets.importers.people import People
from ops.people import Detections, Track
from ops.tracking import follow_people, join_tracks, rank_tracks

# A box around joints is smaller than the person: hands, feet and head go on.
_MARGIN = 0.1
# Joints of a person are at most this many times as far from its middle as half of them are.
_FARTHEST = 3.0


@dataclass(frozen=True, slots=True)
class Slots:
    """People in slots.

    Attributes:
        keypoints: (N, M, 17, 3) float32, zeros where nobody is.
        left_over: people of single frames who are in no slot.
        twice: of these, those whose track was in their frame already.
    """

    keypoints: np.ndarray
    left_over: int
    twice: int = 0


def slots_of(
    people: People,
    num_frames: int,
    size: tuple[int, int],
    most: int | None = None,
    boxes: np.ndarray | None = None,
    link: bool = False,
) -> Slots:
    """Put the people of a clip into slots, each slot one person.

    Slots of an array stay as they are. Tracks of the source are kept, joined where one ends and
    goes on under another number (`join_tracks`), and ranked. Without tracks people are linked
    over time (`follow_people`).

    Args:
        people: of the clip; frames are 0-based, in [0, N).
        num_frames: N.
        size: (width, height) of the frames that the keypoints are of.
        most: M; None for 1, or all slots of an array.
        boxes: (N, 4) of the main athlete in these frames, NaN where unknown.
        link: do not trust slots and tracks of the source.
    """
    if people.in_slots and not link:
        return _array_slots(people, num_frames, most)
    has_tracks = bool((people.tracks >= 0).all()) and not people.in_slots and not link
    if has_tracks:
        return _track_slots(people, num_frames, size, most or 1, boxes)
    found = follow_people(_by_frame(people, num_frames), size, most or 1, boxes)
    return Slots(found, len(people.frames) - _persons(found))


def _array_slots(people: People, num_frames: int, most: int | None) -> Slots:
    count = most or int(people.tracks.max(initial=0)) + 1
    found = np.zeros((num_frames, count, 17, 3), np.float32)
    kept = people.tracks < count
    found[people.frames[kept], people.tracks[kept]] = people.keypoints[kept]
    return Slots(found, int((~kept).sum()))


def _track_slots(
    people: People,
    num_frames: int,
    size: tuple[int, int],
    most: int,
    boxes: np.ndarray | None,
) -> Slots:
    first = _most_confident_of_each(people)
    tracks = []
    for track in np.unique(people.tracks):
        rows = first[people.tracks[first] == track]
        tracks.append(Track(people.frames[rows], _detections(people, rows)))
    tracks.sort(key=lambda track: int(track.frames[0]))
    ranked = rank_tracks(join_tracks(tracks), num_frames, size, boxes)
    found = np.zeros((num_frames, most, 17, 3), np.float32)
    for slot, track in enumerate(ranked[:most]):
        found[track.frames, slot] = track.people.keypoints
    twice = len(people.frames) - len(first)
    return Slots(found, len(people.frames) - _persons(found), twice)


def _most_confident_of_each(people: People) -> np.ndarray:
    """Return the rows, in order of frames, of which no other has the same track and frame."""
    confidence = people.keypoints[..., 2].mean(axis=1)
    order = np.lexsort((-confidence, people.tracks, people.frames))
    pairs = np.stack((people.frames[order], people.tracks[order]), axis=1)
    is_first = np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(order)]
    return order[is_first]


def _by_frame(people: People, num_frames: int) -> list[Detections]:
    order = np.argsort(people.frames, kind="stable")
    edges = np.searchsorted(people.frames[order], np.arange(num_frames + 1))
    return [
        _detections(people, order[edges[frame] : edges[frame + 1]]) for frame in range(num_frames)
    ]


def _detections(people: People, rows: np.ndarray) -> Detections:
    keypoints = people.keypoints[rows]
    return Detections(_boxes(keypoints), keypoints[..., 2].mean(axis=1), keypoints)


def _boxes(keypoints: np.ndarray) -> np.ndarray:
    """Return (P, 4) boxes around the joints of (P, 17, 3) people, a little larger.

    Joints far off the others are wrong more often than not, and would make a box of another size.
    """
    seen = keypoints[..., 2] > 0
    places = np.ma.masked_array(keypoints[..., :2], np.repeat(~seen[..., None], 2, axis=-1))
    middle = np.ma.median(places, axis=1).filled(0)
    away = np.linalg.norm(keypoints[..., :2] - middle[:, None], axis=-1)
    typical = np.ma.median(np.ma.masked_array(away, ~seen), axis=1).filled(0)
    near = (seen & (away <= _FARTHEST * np.maximum(typical, 1)[:, None]))[..., None]
    low = np.where(near, keypoints[..., :2], np.inf).min(axis=1, initial=np.inf)
    high = np.where(near, keypoints[..., :2], -np.inf).max(axis=1, initial=-np.inf)
    margin = np.maximum((high - low) * _MARGIN, 1)
    return np.concatenate((low - margin, high + margin), axis=1).astype(np.float32)


def _persons(found: np.ndarray) -> int:
    return int((found[..., 2] > 0).any(axis=-1).sum())
