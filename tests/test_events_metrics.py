"""Scores of found events equal what trying every pairing gives."""

import itertools
import math

import numpy as np
import pytest

from results.events import interval_iou, match_events, score_events


def overlap(a, b):
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    covered = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / covered if covered > 0 else 0.0


def best_pairing(true, found, least):
    """Try every way to give each true event a found one or none: most pairs, then most overlap."""
    best = (0, 0.0)
    choices = [*range(len(found)), *[None] * len(true)]
    for order in set(itertools.permutations(choices, len(true))):
        values = [overlap(true[i], found[j]) for i, j in enumerate(order) if j is not None]
        if all(value >= least for value in values):
            best = max(best, (len(values), sum(values)))
    return best


def random_events(rng, count):
    starts = rng.integers(0, 20, count)
    return np.stack([starts, starts + rng.integers(0, 9, count)], axis=1).astype(float)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("least", [0.1, 0.3, 0.5])
def test_pairing_is_the_best_of_all(seed, least):
    rng = np.random.default_rng(seed)
    true, found = (random_events(rng, rng.integers(0, 5)) for _ in range(2))
    pairs = match_events(true, found, least)
    sums = sum(overlap(true[i], found[j]) for i, j in pairs)
    count, total = best_pairing(true.tolist(), found.tolist(), least)
    assert len(pairs) == count
    assert sums == pytest.approx(total)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)


def test_overlap_equals_the_formula():
    rng = np.random.default_rng(0)
    a, b = random_events(rng, 7), random_events(rng, 5)
    assert np.allclose(interval_iou(a, b), [[overlap(x, y) for y in b] for x in a])
    assert interval_iou(np.zeros((1, 2)), np.zeros((1, 2))).tolist() == [[0.0]]


def test_one_long_event_counts_once_however_many_it_covers():
    scores = score_events(
        np.array([[0, 2], [3, 5], [6, 8]]), np.array([[0, 8]]), least_iou=0.1, seconds=60
    )
    assert (scores.matched, scores.recall, scores.precision) == (1, pytest.approx(1 / 3), 1.0)


def test_most_pairs_go_before_the_largest_overlap():
    """Taking the pair that fits exactly would leave the second true event alone."""
    true, found = np.array([[0, 10], [6, 16]]), np.array([[0, 10], [-9, 1.5]])
    assert match_events(true, found, 0.05).tolist() == [[0, 1], [1, 0]]


def test_numbers_of_a_video():
    true = np.array([[10, 14], [30, 34], [50, 54]])
    found = np.array([[11, 15], [29, 33], [80, 81], [90, 91]])
    scores = score_events(true, found, least_iou=0.5, seconds=120)
    assert (scores.true, scores.found, scores.matched) == (3, 4, 2)
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.precision == 0.5
    assert scores.f1 == pytest.approx(4 / 7)
    assert scores.mean_iou == pytest.approx(0.6)
    assert (scores.start_error, scores.end_error) == (1.0, 1.0)
    assert scores.false_per_minute == 1.0


def test_nothing_true_or_nothing_found_is_no_number():
    none = np.zeros((0, 2))
    empty = score_events(none, none, 0.1, 10)
    assert all(math.isnan(v) for v in (empty.recall, empty.precision, empty.f1, empty.mean_iou))
    assert empty.false_per_minute == 0
    missed = score_events(np.array([[1, 2]]), none, 0.1, 10)
    assert (missed.recall, missed.f1) == (0.0, 0.0)
    assert math.isnan(missed.precision)


@pytest.mark.parametrize(
    ("true", "least", "seconds", "words"),
    [
        ([[2, 1]], 0.1, 10, "from 2.0 to 1.0"),
        ([[0, np.nan]], 0.1, 10, "nan"),
        ([[0, 1]], 0, 10, "least overlap"),
        ([[0, 1]], 1.5, 10, "least overlap"),
        ([[0, 1]], 0.1, 0, "longer than 0"),
    ],
)
def test_nonsense_is_refused(true, least, seconds, words):
    with pytest.raises(ValueError, match=words):
        score_events(np.array(true), np.zeros((0, 2)), least, seconds)
