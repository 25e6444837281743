"""Which frames of a clip the network sees. docs/SAMPLING.md compares with the published choice."""

from functools import lru_cache

import numpy as np


def sample_frames(
    num_frames: int,
    num_segments: int,
    interval: int | None = None,
    num_clips: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Pick the frames of all samplings of a clip.

    Args:
        num_frames: clip length N.
        num_segments: frames of one sampling, T.
        interval: None spreads T over the whole clip, else they lie this many frames apart.
        num_clips: samplings of the clip, for evaluation.
        rng: draws one sampling, for training; None is deterministic.

    Returns:
        (num_clips, T) int64 frame indices, 0-based, non-decreasing in each row, in [0, N).
    """
    if interval is not None:
        return sample_dense(num_frames, num_segments, interval, num_clips, rng)
    if rng is not None:
        return sample_segments(num_frames, num_segments, rng)[None]
    return sample_test(num_frames, num_segments, num_clips)


def sample_segments(
    num_frames: int, num_segments: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Pick one frame from each of `num_segments` equal spans of a clip.

    Args:
        num_frames: clip length N, in frames.
        num_segments: T. Where it exceeds N frames repeat, and nothing is drawn.
        rng: draws the frame within each span; None takes the middle one (evaluation).

    Returns:
        (T,) int64 frame indices, 0-based, non-decreasing, in [0, N).

    Raises:
        ValueError: N or T is below 1.

    Source: sparse sampling, Wang et al. 2016, arXiv:1608.00859, section 3.1.
    """
    _check(num_frames, num_segments)
    if rng is None or num_frames <= num_segments:
        return (2 * np.arange(num_segments) + 1) * num_frames // (2 * num_segments)
    starts, lengths = _spans(num_frames, num_segments)
    return starts + rng.integers(lengths)


@lru_cache(maxsize=4096)  # clips have few lengths, and each is sampled in every epoch
def _spans(num_frames: int, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and lengths of T equal spans, each (T,); not to be written to."""
    edges = np.arange(num_segments + 1) * num_frames // num_segments
    return edges[:-1], np.diff(edges)


def sample_test(num_frames: int, num_segments: int, num_clips: int = 1) -> np.ndarray:
    """Pick `num_clips` samplings of a clip that interleave.

    One sampling takes the middle of each of T spans; of n >= 2, sampling k takes the frame k/n
    into each span, so that together they are n T frames spread over the clip.

    Returns:
        (num_clips, T) int64 frame indices, 0-based, non-decreasing in each row, in [0, N).
    """
    _check(num_frames, num_segments, num_clips)
    if num_clips == 1:
        return sample_segments(num_frames, num_segments)[None]
    place = num_clips * np.arange(num_segments) + np.arange(num_clips)[:, None]  # (num_clips, T)
    return place * num_frames // (num_clips * num_segments)


def sample_dense(
    num_frames: int,
    num_segments: int,
    interval: int,
    num_clips: int = 1,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Pick windows of T frames that lie `interval` frames apart.

    With `rng` one window at a random start; without, one window in the middle, or several whose
    starts are spread evenly from the first possible to the last. A clip shorter than the window
    ends by repeating its last frame: a loop back to the start would be a jump that never happened.

    Returns:
        (num_clips, T) int64 frame indices, 0-based, non-decreasing in each row, in [0, N).
    """
    _check(num_frames, num_segments, num_clips)
    if interval < 1:
        raise ValueError(f"frames lie >= 1 apart, got interval {interval}")
    last_start = max(num_frames - (num_segments - 1) * interval - 1, 0)
    if rng is not None:
        starts = rng.integers(last_start + 1, size=num_clips)
    elif num_clips == 1:
        starts = np.array([last_start // 2])
    else:
        starts = np.arange(num_clips) * last_start // (num_clips - 1)
    picks = starts[:, None] + interval * np.arange(num_segments)
    return np.minimum(picks, num_frames - 1)


def _check(num_frames: int, num_segments: int, num_clips: int = 1) -> None:
    if min(num_frames, num_segments, num_clips) < 1:
        raise ValueError(
            "a clip needs >= 1 frame, segment and sampling, got "
            f"{num_frames}, {num_segments}, {num_clips}"
        )
