"""Which frames of a clip the network sees. docs/SAMPLING.md compares with the published choice."""

from functools import lru_cache
from typing import Literal

import numpy as np

# Seeds the draws of published tests on skeletons, so that everybody tests on the same frames.
_TEST_SEED = 255


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


# ---------------------------------------------------------------- skeletons


def sample_uniform(
    num_frames: int,
    length: int,
    num_clips: int = 1,
    rng: np.random.Generator | None = None,
    p_interval: tuple[float, float] = (1.0, 1.0),
) -> np.ndarray:
    """Pick L frames that lie spread over the clip with random steps, as skeleton models do.

    Of a clip of 2L frames or more one frame is drawn from each of L equal spans. Of L to 2L - 1
    frames as many as are too many are skipped, no two in a row. A shorter clip is played in a
    loop, from a random start.

    Args:
        num_frames: clip length N, in frames.
        length: L.
        num_clips: rows, each a draw of its own.
        rng: draws, for training. None takes the draws of published tests: they depend on the
            arguments alone, and short clips start at spread frames.
        p_interval: training only: the smallest and largest share of the clip to draw from; the
            part is drawn anew for each row, and the picks stay in it.

    Returns:
        (num_clips, L) int64 frame indices, 0-based, in [0, N). Rows of clips shorter than L wrap.

    Raises:
        ValueError: a number is below 1, or `p_interval` is no range of shares or lacks `rng`.

    Source: uniform sampling, Duan et al. 2022, arXiv:2104.13586, section 3.2, with the test draws
    of MMAction2: a legacy generator of seed 255 for each clip. (PYSKL, the release of
    arXiv:2205.09443 where `p_interval` is from, draws one number more before each row, and so
    tests on other frames by chance alike.)
    """
    _check(num_frames, length, num_clips)
    low, high = p_interval
    if not 0 < low <= high <= 1 or (rng is None and low < 1):
        raise ValueError(
            f"a part is 0 < low <= high <= 1 and drawn by a generator, got {low, high}"
        )
    if rng is None:
        return _uniform_test(num_frames, length, num_clips).copy()
    picks = np.empty((num_clips, length), np.int64)
    for row in picks:
        part, first = num_frames, 0
        if low < 1:
            part = max(int(rng.uniform(low, high) * num_frames), 1)
            first = int(rng.integers(num_frames - part + 1))
        if part < length:
            row[:] = (rng.integers(part) + np.arange(length)) % part
        else:
            row[:] = _spread_draw(part, length, rng)
        row += first
    return picks


@lru_cache(maxsize=1024)  # clips have few lengths, and each is sampled in every evaluation
def _uniform_test(num_frames: int, length: int, num_clips: int) -> np.ndarray:
    """Return the picks of `sample_uniform` for tests; not to be written to."""
    if num_frames < length:
        starts = np.arange(num_clips)
        if num_frames >= num_clips:
            starts = starts * num_frames // num_clips
        return (starts[:, None] + np.arange(length)) % num_frames
    rng = np.random.RandomState(_TEST_SEED)  # noqa: NPY002 - the published draws are of this one
    return np.stack([_spread_draw(num_frames, length, rng) for _ in range(num_clips)])


def _spread_draw(
    num_frames: int, length: int, rng: np.random.Generator | np.random.RandomState
) -> np.ndarray:
    """Draw (L,) increasing indices of N >= L frames."""
    if num_frames < 2 * length:
        skips = np.zeros(length + 1, np.int64)
        skips[rng.choice(length + 1, num_frames - length, replace=False)] = 1
        return np.arange(length) + np.cumsum(skips)[:-1]
    starts, lengths = _spans(num_frames, length)
    if isinstance(rng, np.random.Generator):
        return starts + rng.integers(lengths)
    return starts + rng.randint(lengths, dtype=np.int64)


def sample_spread(
    num_frames: int, length: int, num_clips: int = 1, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Pick a frame from each of L equal spans of a clip, however short: time never runs back.

    Unlike with `sample_uniform`, the t-th of T equal parts of a row lies in the t-th of T equal
    parts of the clip (to a frame): features over it can be aligned with those of RGB segments.

    Args:
        num_frames: clip length N, in frames.
        length: L. Where it exceeds N frames repeat.
        num_clips: rows; without `rng` they interleave, as those of `sample_test`.
        rng: draws the frames, for training.

    Returns:
        (num_clips, L) int64 frame indices, 0-based, non-decreasing in each row, in [0, N).
    """
    if rng is None:
        return sample_test(num_frames, length, num_clips)
    _check(num_frames, length, num_clips)
    return np.stack([sample_segments(num_frames, length, rng) for _ in range(num_clips)])


def pad_to(tracks: np.ndarray, length: int, mode: Literal["loop", "zero"] = "zero") -> np.ndarray:
    """Lengthen a clip of skeletons to L frames: all of it is seen, nothing is sampled.

    Args:
        tracks: (N, ...) with 1 <= N <= L frames.
        length: L.
        mode: "loop" plays the clip again from its start, "zero" adds frames without anybody.

    Returns:
        (L, ...), a new array.

    Raises:
        ValueError: the clip has no frame or more than L, or the mode is unknown.

    Source: the 300 frames of ST-GCN, Yan et al. 2018, arXiv:1801.07455 (both ways
    were released: the loop with the paper, zeros in later reproductions).
    """
    num_frames = len(tracks)
    if not 1 <= num_frames <= length:
        raise ValueError(f"only a clip of 1 to {length} frames fills {length}, got {num_frames}")
    if mode == "loop":
        return tracks[np.arange(length) % num_frames]
    if mode != "zero":
        raise ValueError(f"a clip is filled up by loop or zero, got {mode!r}")
    padded = np.zeros((length, *tracks.shape[1:]), tracks.dtype)
    padded[:num_frames] = tracks
    return padded


def _check(num_frames: int, num_segments: int, num_clips: int = 1) -> None:
    if min(num_frames, num_segments, num_clips) < 1:
        raise ValueError(
            "a clip needs >= 1 frame, segment and sampling, got "
            f"{num_frames}, {num_segments}, {num_clips}"
        )
