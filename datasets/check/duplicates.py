"""Clips that look the same although no byte of them is: found without comparing all pairs.

A clip is described by a few small grey pictures: their mean, which shows the place, and what
differs from it, which shows the movement. Two clips of one camera share the place; a copy of a
clip, at another size, quality or brightness, shares the movement too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

NUM_FRAMES = 5
_SIDE = 12
_PIXELS = _SIDE * _SIDE
# Grey levels: below it nothing moves but noise, and the place alone is compared.
_LEAST_MOVEMENT = 1.0
_LEAST_CONTRAST = 1.0
_LIKE_PLACE, _LIKE_MOVEMENT, _LIKE_STILL = 0.9, 0.85, 0.995
# Clips whose movement correlates by .85 agree in a bit with probability .82, in one band of 16
# bits of the 80 with .97 (by .95: more than .9999); unrelated ones with 1 in 820.
_BANDS, _BITS = 80, 16
# Clips of one bucket are compared with this many others: the work grows with the clips, not with
# their pairs, even when all of them are the same.
_NEIGHBOURS = 12
_CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Signature:
    """What a clip looks like.

    Attributes:
        place: (144,) int8, the mean of its pictures, contrast stretched.
        movement: (720,) int8, what differs from it; zeros for a clip in which nothing moves.
    """

    place: np.ndarray
    movement: np.ndarray


@dataclass(frozen=True, slots=True)
class Pair:
    """Two clips, by index, and the correlation of what was compared."""

    one: int
    other: int
    likeness: float


def sample_indices(num_frames: int) -> list[int]:
    """Return the frames of a clip that its signature shows, spread over it."""
    return [(2 * i + 1) * num_frames // (2 * NUM_FRAMES) for i in range(NUM_FRAMES)]


def shrink(frame: np.ndarray) -> np.ndarray:
    """Return a small grey picture (12, 12) float32 of a frame (H, W, 3) uint8 RGB."""
    small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def describe(pictures: Sequence[np.ndarray]) -> Signature | None:
    """Return the signature of small pictures; None where they show nothing."""
    stack = np.stack(pictures).reshape(len(pictures), _PIXELS)
    place = stack.mean(axis=0)
    movement = (stack - place).reshape(-1)
    if place.std() < _LEAST_CONTRAST:
        return None
    if movement.std() < _LEAST_MOVEMENT:
        movement = np.zeros_like(movement)
    return Signature(_stretch(place - place.mean()), _stretch(movement))


def find_near_duplicates(signatures: Sequence[Signature], groups: Sequence[int]) -> list[Pair]:
    """Find clips that look like an earlier one of another group.

    Args:
        signatures: of n clips.
        groups: a number for each clip; pairs within a group are not looked for.

    Returns:
        for each such clip the earlier one that it is most like, of those that were compared; the
        most alike first.
    """
    if len(signatures) < 2:
        return []
    place = _normalised(signature.place for signature in signatures)
    movement = _normalised(signature.movement for signature in signatures)
    moves = movement.any(axis=1)
    number = np.asarray(groups)
    pairs = []
    for is_used, compared, least in (
        (moves, movement, _LIKE_MOVEMENT),
        (~moves, place, _LIKE_STILL),
    ):
        members = np.flatnonzero(is_used)
        for one, other in _candidates(compared[members], members, number):
            alike = _correlation(compared, one, other)
            keep = (alike >= least) & (_correlation(place, one, other) >= _LIKE_PLACE)
            pairs += _best(one[keep], other[keep], alike[keep])
    best: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (-pair.likeness, pair.one, pair.other)):
        best.setdefault(pair.other, pair)
    return list(best.values())


def _best(one: np.ndarray, other: np.ndarray, alike: np.ndarray) -> list[Pair]:
    """Return for each different value of `other` the pair that is most alike."""
    order = np.lexsort((one, -alike, other))
    first = order[np.unique(other[order], return_index=True)[1]]
    values = (one[first].tolist(), other[first].tolist(), alike[first].tolist())
    return [Pair(*pair) for pair in zip(*values, strict=True)]


def _stretch(values: np.ndarray) -> np.ndarray:
    return np.rint(values * (127 / max(float(np.abs(values).max()), 1e-6))).astype(np.int8)


def _normalised(rows: Iterable[np.ndarray]) -> np.ndarray:
    matrix = np.stack(list(rows)).astype(np.float32)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(norms > 0, norms, 1)


def _correlation(rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", rows[one], rows[other])


def _candidates(rows: np.ndarray, members: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Return pairs (2, n) of members, in chunks, that share the signs of some projections.

    Source: random hyperplanes, Charikar 2002, doi 10.1145/509907.509965.
    """
    count = len(members)
    if count < 2:
        return []
    rng = np.random.default_rng(0)
    found = [np.empty(0, np.int64)]
    for _ in range(_BANDS):
        planes = rng.standard_normal((rows.shape[1], _BITS), np.float32)
        keys = ((rows @ planes) > 0) @ (1 << np.arange(_BITS))
        order = np.lexsort((rng.random(count), keys))
        for step in range(1, min(_NEIGHBOURS, count - 1) + 1):
            one, other = order[:-step], order[step:]
            is_pair = keys[one] == keys[other]
            if not is_pair.any():
                break
            is_pair &= groups[members[one]] != groups[members[other]]
            low, high = np.minimum(one, other)[is_pair], np.maximum(one, other)[is_pair]
            found.append(low * count + high)
    pairs = np.unique(np.concatenate(found))
    chunks = np.array_split(pairs, max(1, -(-len(pairs) // _CHUNK)))
    return [np.stack((members[chunk // count], members[chunk % count])) for chunk in chunks]
