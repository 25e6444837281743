"""Who is who: detections of single frames linked into people, and the main athlete among them.

Everything is a pure function of the detections: nothing is drawn, and neither the order of people
within a frame nor mirroring the clip changes who is followed.

1. `link_detections`: frame by frame, people go to the tracks that predict them best (box overlap,
   joint distance and size after constant motion; one optimal assignment per frame).
2. `join_tracks`: tracks that ended and tracks that begin later are the same person when motion,
   distance and size allow it; one optimal assignment over the whole clip.
3. `untangle` (ops/encounters.py): where two people met, who is who afterwards is judged by both
   sides of the meeting.
4. `rank_tracks`: the main athlete first, by `main_score` or by given boxes.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from ops.encounters import untangle
from ops.people import (
    Detections,
    Track,
    areas,
    centre_distances,
    centres,
    clean,
    concatenate,
    displacements,
    ious,
    joint_distances,
    moved,
    without_doubles,
)

# A track without detections for more frames ends; `join_tracks` may still continue it.
_LINK_GAP = 30
_JOIN_GAP = 90
# Distances are in sizes of the person (the square root of the box area), so that neither the
# resolution nor the distance from the camera matters.
_GATE, _GATE_PER_FRAME, _WIDEST_GATE = 1.3, 0.1, 3.0
# Two boxes of one person differ in area by less than this factor.
_AREA_FACTOR = 5.0
_FORBIDDEN = 1e6
# Tracks beside those asked for that are looked at where people meet; the others are too small or
# too short to be anybody who is kept.
_RIVALS = 20
# Share of the newest step in the running mean of the velocity, pixels per frame.
_NEWEST = 0.15
# Motion is not predicted further than this many frames: people stop and turn.
_PREDICTED = 20
# Below this mean IoU with the given boxes nobody is the person whom they show.
_LEAST_AGREEMENT = 0.1


def follow_people(
    detections: Sequence[Detections],
    size: tuple[int, int],
    max_people: int,
    boxes: np.ndarray | None = None,
) -> np.ndarray:
    """Follow people through a clip and return the main athlete first.

    Args:
        detections: of the N frames, in order.
        size: (width, height) of the frames, pixels.
        max_people: M.
        boxes: (N, 4) x1, y1, x2, y2 of the main athlete where known, NaN elsewhere.

    Returns:
        (N, M, V, 3) float32. Slot 0 is the main athlete, the others are further people in order
        of `main_score`; a slot holds one track. Zeros where nobody was found.
    """
    tracks = join_tracks(link_detections(detections, boxes))
    leading = rank_tracks(tracks, len(detections), size, boxes)[: max_people + _RIVALS]
    ranked = rank_tracks(untangle(leading), len(detections), size, boxes)
    num_joints = detections[0].keypoints.shape[1] if detections else 0
    found = np.zeros((len(detections), max_people, num_joints, 3), np.float32)
    for slot, track in enumerate(ranked[:max_people]):
        found[track.frames, slot] = track.people.keypoints
    return found


def most_confident(detections: Sequence[Detections], max_people: int) -> np.ndarray:
    """Return the most confident people of each frame, whoever they are: the published choice.

    Returns:
        (N, M, V, 3) float32, zeros where nobody was found.
    """
    num_joints = detections[0].keypoints.shape[1] if detections else 0
    found = np.zeros((len(detections), max_people, num_joints, 3), np.float32)
    for frame, people in enumerate(map(clean, detections)):
        best = people.keypoints[:max_people]  # `clean` sorts by score
        found[frame, : len(best)] = best
    return found


# ---------------------------------------------------------------- linking


class _Open:
    """The tracks that may still continue, as arrays: K of them."""

    def __init__(self, num_joints: int) -> None:
        self.number = np.zeros(0, np.int64)  # of the track
        self.last = np.zeros(0, np.int64)  # frame
        self.length = np.zeros(0, np.int64)  # detections so far
        self.boxes = np.zeros((0, 4), np.float32)
        self.keypoints = np.zeros((0, num_joints, 3), np.float32)
        self.velocity = np.zeros((0, 2), np.float32)  # pixels per frame
        self.agreement = np.zeros(0, np.float32)  # running mean IoU with the given box

    def keep(self, mask: np.ndarray) -> None:
        """Forget the other tracks."""
        for name, values in vars(self).items():
            setattr(self, name, values[mask])

    def predict(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where boxes (K, 4) and keypoints (K, V, 3) should be in `frame`."""
        steps = np.minimum(frame - self.last, _PREDICTED)[:, None]
        return moved(self.boxes, self.keypoints, self.velocity * steps)

    def update(self, rows: np.ndarray, people: Detections, near: np.ndarray, frame: int) -> None:
        """Continue the tracks `rows` with one person each."""
        step = displacements(self.keypoints[rows], people.keypoints, self.boxes[rows], people)
        step /= (frame - self.last[rows])[:, None]
        share = np.maximum(1 / self.length[rows], _NEWEST)[:, None]
        self.velocity[rows] += share * (step - self.velocity[rows])
        self.agreement[rows] += share[:, 0] * (near - self.agreement[rows])
        self.boxes[rows] = people.boxes
        self.keypoints[rows] = people.keypoints
        self.last[rows] = frame
        self.length[rows] += 1

    def begin(self, numbers: np.ndarray, people: Detections, near: np.ndarray, frame: int) -> None:
        """Begin a track with each person."""
        count = len(people)
        self.number = np.append(self.number, numbers)
        self.last = np.append(self.last, np.full(count, frame))
        self.length = np.append(self.length, np.ones(count, np.int64))
        self.boxes = np.concatenate([self.boxes, people.boxes])
        self.keypoints = np.concatenate([self.keypoints, people.keypoints])
        self.velocity = np.concatenate([self.velocity, np.zeros((count, 2), np.float32)])
        self.agreement = np.append(self.agreement, near)


def link_detections(
    detections: Sequence[Detections], boxes: np.ndarray | None = None
) -> list[Track]:
    """Link people of neighbouring frames; gaps of up to 30 frames are bridged.

    Args:
        detections: of the N frames, in order.
        boxes: (N, 4) of the main athlete, NaN = unknown: a person inside it is not taken for one
            who was outside.

    Returns:
        The tracks, each of at least one frame, in order of their beginning.
    """
    if not detections:
        return []
    frames = [without_doubles(clean(people)) for people in detections]
    members: list[list[tuple[int, int]]] = []  # of each track: (frame, person)
    alive = _Open(detections[0].keypoints.shape[1])
    for frame, people in enumerate(frames):
        alive.keep(frame - alive.last <= _LINK_GAP)
        near, is_known = _agreements(people.boxes, boxes, frame)
        rows, columns = _match(alive, people, near if is_known else None, frame)
        alive.update(rows, people.pick(columns), near[columns], frame)
        for row, column in zip(alive.number[rows], columns, strict=True):
            members[row].append((frame, int(column)))
        new = np.setdiff1d(np.arange(len(people)), columns)
        alive.begin(len(members) + np.arange(len(new)), people.pick(new), near[new], frame)
        members += [[(frame, int(column))] for column in new]
    return [_gather(frames, pairs) for pairs in members]


def _match(
    alive: _Open, people: Detections, agreement: np.ndarray | None, frame: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of `alive` and the people who continue them."""
    if not len(people) or not len(alive.last):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    gap = (frame - alive.last)[:, None]
    boxes, keypoints = alive.predict(frame)
    growth = np.abs(np.log(areas(boxes)[:, None] / areas(people.boxes)[None]))
    gate = np.minimum(_GATE + _GATE_PER_FRAME * (gap - 1), _WIDEST_GATE)
    near = (centre_distances(boxes, people.boxes) <= gate) & (growth <= np.log(_AREA_FACTOR))
    joints = joint_distances(keypoints, people.keypoints, boxes, people.boxes, near)
    cost = 0.5 * (1 - ious(boxes, people.boxes)) + np.minimum(joints, 2) + 0.25 * growth
    cost += 0.02 * gap
    if agreement is not None:
        cost += 0.5 * np.abs(alive.agreement[:, None] - agreement[None])
    cost[~near] = _FORBIDDEN
    return _assign(cost)


def _assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the cheapest one-to-one assignment that is allowed."""
    rows, columns = linear_sum_assignment(cost)
    allowed = cost[rows, columns] < _FORBIDDEN
    return rows[allowed], columns[allowed]


def _gather(frames: Sequence[Detections], pairs: Sequence[tuple[int, int]]) -> Track:
    people = [frames[frame].pick(np.array([person])) for frame, person in pairs]
    return Track(np.array([frame for frame, _ in pairs]), concatenate(people))


# ---------------------------------------------------------------- joining


def join_tracks(tracks: Sequence[Track]) -> list[Track]:
    """Join tracks of one person that was not found for a while.

    A track may continue in one that begins up to 90 frames after its end, of about its size, where
    motion could have brought it. Who continues whom is decided for all tracks at once.
    """
    if len(tracks) < 2:
        return list(tracks)
    rows, columns = _assign(_join_costs(tracks))
    following = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    joined = []
    for first in sorted(set(range(len(tracks))) - set(following.values())):
        chain = [first]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        parts = [tracks[index] for index in chain]
        people = concatenate([part.people for part in parts])
        joined.append(Track(np.concatenate([part.frames for part in parts]), people))
    return joined


def _join_costs(tracks: Sequence[Track]) -> np.ndarray:
    """Return (K, K) costs of continuing a row's track with a column's."""
    ends = np.array([track.frames[-1] for track in tracks])
    starts = np.array([track.frames[0] for track in tracks])
    gap = starts[None] - ends[:, None]
    is_possible = (gap >= 1) & (gap <= _JOIN_GAP)
    last, leaving = _edges(tracks, at_end=True)
    first, arriving = _edges(tracks, at_end=False)
    steps = np.clip(gap, 0, _PREDICTED)[..., None]
    place, next_place = centres(last)[:, None], centres(first)[None]
    size = np.sqrt(np.sqrt(areas(last)[:, None] * areas(first)[None]))
    forward = np.linalg.norm(place + leaving[:, None] * steps - next_place, axis=-1)
    backward = np.linalg.norm(next_place - arriving[None] * steps - place, axis=-1)
    still = np.linalg.norm(place - next_place, axis=-1)
    away = np.minimum((forward + backward) / 2, still + 0.2 * size) / size
    growth = np.abs(np.log(areas(last)[:, None] / areas(first)[None]))
    gate = np.minimum(_GATE + _GATE_PER_FRAME * np.maximum(gap - 1, 0), _WIDEST_GATE)
    cost = away + 0.5 * growth + 0.02 * gap
    cost[~is_possible | (away > gate) | (growth > np.log(_AREA_FACTOR))] = _FORBIDDEN
    return cost


def _edges(tracks: Sequence[Track], at_end: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return typical boxes (K, 4) and velocities (K, 2) at one end of each track."""
    boxes, velocities = [], []
    for track in tracks:
        span = slice(-5, None) if at_end else slice(None, 5)
        near, frames = track.people.boxes[span], track.frames[span]
        outer = near[-1 if at_end else 0]
        shape = np.median(near[:, 2:] - near[:, :2], axis=0)
        centre = (outer[:2] + outer[2:]) / 2
        boxes.append(np.concatenate([centre - shape / 2, centre + shape / 2]))
        path = centres(near)
        velocities.append((path[-1] - path[0]) / max(frames[-1] - frames[0], 1))
    return np.array(boxes), np.array(velocities)


# ---------------------------------------------------------------- the main athlete


def rank_tracks(
    tracks: Sequence[Track],
    num_frames: int,
    size: tuple[int, int],
    boxes: np.ndarray | None = None,
) -> list[Track]:
    """Sort tracks, the main athlete first.

    Args:
        tracks: of a clip.
        num_frames: N of the clip.
        size: (width, height) of its frames, pixels.
        boxes: (N, 4) of the main athlete, NaN where unknown: then the main athlete is the track
            that overlaps them most, followed through other tracks where it was lost. Boxes that
            fit nobody are not used.
    """
    scores = [main_score(track, num_frames, size) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda index: (-scores[index], index))
    ranked = [tracks[index] for index in order]
    return ranked if boxes is None else _boxed_first(ranked, boxes)


def main_score(track: Track, num_frames: int, size: tuple[int, int]) -> float:
    """Say how likely a track is the main athlete: present, large and in the middle.

    The product of three factors, each 0 to 1: the share of the clip's frames in which the person
    was found; the median size (square root of the share of the frame's area); and 0.2 + 0.8 c,
    where c is the mean of a Gaussian (standard deviation 0.3 of the sides) around the middle of
    the frame. The confidence of the detector has no part in it.
    """
    width, height = size
    presence = len(track.frames) / num_frames
    extent = np.sqrt(np.median(areas(track.people.boxes)) / (width * height))
    offset = centres(track.people.boxes) / (width, height) - 0.5
    central = np.exp(-(offset**2).sum(1) / (2 * 0.3**2)).mean()
    return float(presence * min(extent, 1.0) * (0.2 + 0.8 * central))


def _boxed_first(ranked: list[Track], boxes: np.ndarray) -> list[Track]:
    """Put the track that fits the given boxes first, completed where it was lost."""
    is_known = np.isfinite(boxes).all(1)
    if not ranked or not is_known.any():
        return ranked
    fits = [_fit(track, boxes, is_known) for track in ranked]
    best = int(np.argmax([fit.sum() for fit in fits]))
    if fits[best].sum() < _LEAST_AGREEMENT * is_known.sum():
        return ranked
    parts = [best]
    taken = set(ranked[best].frames.tolist())
    for index in np.argsort([-fit.sum() for fit in fits], kind="stable").tolist():
        # Somebody else, found while the athlete was, is no part of the athlete.
        is_apart = taken.isdisjoint(ranked[index].frames.tolist())
        if is_apart and fits[index].size and fits[index].mean() > 3 * _LEAST_AGREEMENT:
            parts.append(index)
            taken |= set(ranked[index].frames.tolist())
    frames = np.concatenate([ranked[index].frames for index in parts])
    people = concatenate([ranked[index].people for index in parts])
    order = np.argsort(frames)
    others = [track for index, track in enumerate(ranked) if index not in parts]
    return [Track(frames[order], people.pick(order)), *others]


def _fit(track: Track, boxes: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    """Return the IoU of a track with the given box in each of its frames that has one."""
    shared = is_known[track.frames]
    pairs = zip(track.people.boxes[shared], boxes[track.frames[shared]], strict=True)
    return np.array([ious(own[None], given[None])[0, 0] for own, given in pairs])


def _agreements(
    people: np.ndarray, boxes: np.ndarray | None, frame: int
) -> tuple[np.ndarray, bool]:
    """Return the IoU of each person with the given box of a frame, and whether there is one."""
    if boxes is None or not np.isfinite(boxes[frame]).all():
        return np.zeros(len(people), np.float32), False
    return ious(people, boxes[frame][None])[:, 0].astype(np.float32), True
