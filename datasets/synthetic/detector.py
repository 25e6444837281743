"""A pose estimator's mistakes: noise, missing joints, frames in which nobody is found.

Nothing here depends on the label. The amounts are those of a real estimator on fast, blurred,
spinning skaters, and large enough that keypoints alone do not settle the question.
"""

import numpy as np

from datasets.synthetic.body import NUM_KEYPOINTS

JITTER = (0.030, 0.040)  # standard deviation, share of body height; drawn per clip
MISSING_RATE = 0.22  # of joints, in frames where somebody is found
MISSING_RUN = 3.0  # mean frames that a missing joint stays missing
BURST_CLIPS = 0.5  # share of clips with bursts of empty frames
BURST_FRAMES = (7, 18)  # length of a burst
BURST_AT_LANDING = 0.75  # share of bursts that start in the blur around the touch-down
BURST_LEAD = (-3, 6)  # frames that these start after it
EMPTY_RATE = 0.03  # single empty frames anywhere


def detect(
    exact: np.ndarray,
    body_height: np.ndarray,
    landing: int,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return what an estimator would say about exact keypoints.

    Args:
        exact: (N, 17, 2) pixels.
        body_height: (N,) pixels that the standing skater would measure.
        landing: frame of the touch-down; blur is worst there.
        size: width, height of the picture.
        rng: draws all mistakes; always the same number of values for the same N.

    Returns:
        (N, 17, 3) float32 x, y in pixels and confidence 0-1; 0, 0, 0 where missing.
    """
    num_frames = len(exact)
    error = rng.normal(size=exact.shape) * rng.uniform(*JITTER)
    confidence = 0.9 - 2.5 * np.linalg.norm(error, axis=-1) + rng.normal(0, 0.06, exact.shape[:2])
    found = exact + error * body_height[:, None, None]
    missing = _missing_runs(num_frames, rng) | _empty_frames(num_frames, landing, rng)[:, None]
    outside = ((found <= 0) | (found >= np.array(size))).any(axis=-1)
    keypoints = np.concatenate([found, np.clip(confidence, 0.05, 1.0)[..., None]], axis=-1)
    keypoints[missing | outside] = 0.0
    return keypoints.astype(np.float32)


def _missing_runs(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return (N, 17): joints that come and go, a two-state chain with the rate above."""
    leave = 1 / MISSING_RUN
    enter = leave * MISSING_RATE / (1 - MISSING_RATE)
    draws = rng.random((num_frames, NUM_KEYPOINTS))
    missing = np.empty(draws.shape, dtype=bool)
    missing[0] = draws[0] < MISSING_RATE
    for i in range(1, num_frames):
        missing[i] = np.where(missing[i - 1], draws[i] >= leave, draws[i] < enter)
    return missing


def _empty_frames(num_frames: int, landing: int, rng: np.random.Generator) -> np.ndarray:
    """Return (N,): frames in which nobody is found, single ones and, in some clips, a burst."""
    empty = rng.random(num_frames) < EMPTY_RATE
    has_burst, at_landing = rng.random(2) < (BURST_CLIPS, BURST_AT_LANDING)
    length = rng.integers(BURST_FRAMES[0], BURST_FRAMES[1] + 1)
    anywhere = rng.integers(0, num_frames - length + 1)
    around = landing + rng.integers(BURST_LEAD[0], BURST_LEAD[1] + 1)
    start = around if at_landing else anywhere
    empty[start : start + length] |= has_burst
    return empty


def has_burst(keypoints: np.ndarray) -> bool:
    """Say whether (N, 17, 3) keypoints hold a run of empty frames as long as a burst."""
    run = 0
    for empty in (keypoints[..., 2] == 0).all(axis=1):
        run = run + 1 if empty else 0
        if run >= BURST_FRAMES[0]:
            return True
    return False
