"""Found events against true ones: recall, precision, overlap and the errors of their ends.

Events are intervals in seconds of one class and one person; (N, 2) arrays of start and end.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True, slots=True)
class EventScores:
    """How well found events fit the true ones. What nothing can be said of is NaN.

    Attributes:
        least_iou: overlap from which on a found event is a true one.
        true: number of true events.
        found: number of found events.
        matched: pairs, each event in one at most.
        recall: share of the true events that were found.
        precision: share of the found events that are true.
        f1: harmonic mean of both.
        mean_iou: of the pairs.
        start_error: mean absolute error of the start over the pairs, seconds.
        end_error: the same of the end.
        false_per_minute: found events without a true one, per minute of the video.
    """

    least_iou: float
    true: int
    found: int
    matched: int
    recall: float
    precision: float
    f1: float
    mean_iou: float
    start_error: float
    end_error: float
    false_per_minute: float


def interval_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (N, M): what the intervals (N, 2) and (M, 2) share, over what they cover together.

    Two intervals of no length cover nothing; their value is 0.
    """
    starts = np.maximum(first[:, None, 0], second[None, :, 0])
    ends = np.minimum(first[:, None, 1], second[None, :, 1])
    shared = np.maximum(ends - starts, 0.0)
    lengths = np.diff(first)[:, :1] + np.diff(second)[None, :, 0]
    covered = lengths - shared
    return np.divide(shared, covered, out=np.zeros_like(shared), where=covered > 0)


def match_events(true: np.ndarray, found: np.ndarray, least_iou: float) -> np.ndarray:
    """Pair true events (N, 2) with found ones (M, 2), one to one.

    Of all such pairings the one with the most pairs is taken, and of those the one with the
    largest sum of overlaps: no event that could be counted is lost to the order of the list.

    Returns:
        (P, 2) int64: indices into `true` and `found`, by the first.

    Raises:
        ValueError: `least_iou` is not in (0, 1], or an interval ends before it starts.
    """
    true, found = _intervals(true), _intervals(found)
    if not 0 < least_iou <= 1:
        raise ValueError(f"the least overlap is {least_iou}: it should be above 0 and at most 1")
    iou = interval_iou(true, found)
    is_match = iou >= least_iou
    # One more pair outweighs whatever the overlaps of the others, at most 1 each, can add up to.
    most_pairs = min(iou.shape) + 1
    rows, columns = linear_sum_assignment(is_match * (most_pairs + iou), maximize=True)
    kept = is_match[rows, columns]
    return np.stack([rows[kept], columns[kept]], axis=1).astype(np.int64)


def score_events(
    true: np.ndarray, found: np.ndarray, least_iou: float, seconds: float
) -> EventScores:
    """Score found events (M, 2) against true ones (N, 2) of a video of so many seconds.

    Raises:
        ValueError: as `match_events`, or the video has no length.
    """
    if not seconds > 0:
        raise ValueError(f"the video lasts {seconds} seconds: it should last longer than 0")
    true, found = _intervals(true), _intervals(found)
    pairs = match_events(true, found, least_iou)
    paired_true, paired_found = true[pairs[:, 0]], found[pairs[:, 1]]
    errors = np.abs(paired_true - paired_found)
    overlaps = np.diagonal(interval_iou(paired_true, paired_found))
    matched = len(pairs)
    return EventScores(
        least_iou=least_iou,
        true=len(true),
        found=len(found),
        matched=matched,
        recall=_share(matched, len(true)),
        precision=_share(matched, len(found)),
        f1=_share(2 * matched, len(true) + len(found)),
        mean_iou=_share(float(overlaps.sum()), matched),
        start_error=_share(float(errors[:, 0].sum()), matched),
        end_error=_share(float(errors[:, 1].sum()), matched),
        false_per_minute=(len(found) - matched) * 60 / seconds,
    )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _intervals(values: np.ndarray) -> np.ndarray:
    intervals = np.asarray(values, np.float64).reshape(-1, 2)
    is_sound = np.isfinite(intervals).all(1) & (intervals[:, 0] <= intervals[:, 1])
    if not is_sound.all():
        start, end = intervals[int(is_sound.argmin())]
        raise ValueError(f"an event goes from {start} to {end}: it should end after its start")
    return intervals
