import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.sampling import sample_dense, sample_frames, sample_segments, sample_test

lengths, segments = st.integers(1, 400), st.integers(1, 64)


@given(
    num_frames=lengths,
    num_segments=segments,
    interval=st.none() | st.integers(1, 20),
    num_clips=st.integers(1, 12),
    seed=st.none() | st.integers(0, 99),
)
def test_defect_02_every_index_is_a_frame_of_the_clip(
    num_frames, num_segments, interval, num_clips, seed
):
    rng = None if seed is None else np.random.default_rng(seed)
    clips = num_clips if rng is None else 1
    picks = sample_frames(num_frames, num_segments, interval, clips, rng)
    assert picks.shape == (clips, num_segments)
    assert picks.min() >= 0
    assert picks.max() < num_frames
    assert (np.diff(picks, axis=1) >= 0).all()


@given(num_frames=lengths, num_segments=segments)
def test_one_frame_of_each_span(num_frames, num_segments):
    edges = np.arange(num_segments + 1) * num_frames / num_segments
    for rng in (None, np.random.default_rng(0)):
        picks = sample_segments(num_frames, num_segments, rng)
        assert (picks > edges[:-1] - 1).all()
        assert (picks < edges[1:]).all()


@pytest.mark.parametrize(("num_frames", "num_segments"), [(103, 8), (103, 32), (50, 32), (24, 8)])
def test_defect_01_and_04_training_reaches_every_frame(num_frames, num_segments):
    rng = np.random.default_rng(0)
    drawn = [sample_segments(num_frames, num_segments, rng) for _ in range(400)]
    assert set(np.concatenate(drawn)) == set(range(num_frames))


@pytest.mark.parametrize("num_clips", [1, 2, 3, 7, 10])
def test_defect_16_any_number_of_clips(num_clips):
    picks = sample_test(100, 10, num_clips)
    assert picks.shape == (num_clips, 10)
    assert len({tuple(row) for row in picks}) == num_clips


def test_several_samplings_interleave_to_one_denser_sampling():
    picks = sample_test(240, 8, 3)
    assert np.array_equal(np.sort(picks.ravel()), np.arange(24) * 10)


def golden_cases(golden) -> list[dict]:
    return json.loads((golden / "sampler.json").read_text())


@pytest.mark.parametrize(("key", "num_clips"), [("val", 1), ("test1", 1), ("test2", 2)])
def test_evaluation_equals_the_published_choice_counted_from_0(golden, key, num_clips):
    for case in golden_cases(golden):
        picks = sample_test(case["num_frames"], case["T"], num_clips)
        assert np.array_equal(picks, np.reshape(case[key], picks.shape) - 1), case


def test_training_differs_from_the_published_choice_where_that_misses_the_tail(golden):
    """With N a multiple of T the spans are the same; else the published ones end early."""
    for case in golden_cases(golden):
        N, T = case["num_frames"], case["T"]
        edges = np.arange(T + 1) * N // T
        published = np.array(case["train"]) - 1
        if N <= T:
            drawn = sample_segments(N, T, np.random.default_rng(0))
            assert np.array_equal(drawn, published)
        elif N % T == 0:
            assert ((published >= edges[:-1]) & (published < edges[1:])).all()
        else:
            assert published.max() < T * (N // T) < N


def test_middle_differs_from_the_float_formula_only_as_documented():
    """The published middle, int(tick / 2 + tick * t), rounds in floating point."""
    differ = 0
    for N in range(1, 401):
        for T in range(1, 65):
            tick = N / T
            published = np.array([int(tick / 2 + tick * t) for t in range(T)])
            gap = np.abs(sample_segments(N, T) - published)
            assert gap.max() <= 1
            differ += bool(gap.any())
    assert differ == 1417


def test_dense_frames_lie_an_interval_apart():
    picks = sample_dense(100, 8, 5)
    assert (np.diff(picks) == 5).all()
    assert picks[0, 0] == 32  # (100 - 36) // 2
    rng = np.random.default_rng(0)
    starts = {int(sample_dense(100, 8, 5, rng=rng)[0, 0]) for _ in range(2000)}
    assert starts == set(range(65))
    assert sample_dense(100, 8, 5, 3)[:, 0].tolist() == [0, 32, 64]


def test_dense_sampling_of_a_short_clip_holds_the_last_frame():
    for rng in (None, np.random.default_rng(0)):
        assert sample_dense(10, 6, 4, rng=rng).tolist() == [[0, 4, 8, 9, 9, 9]]


@pytest.mark.parametrize(
    "choose",
    [lambda: sample_segments(0, 8), lambda: sample_test(8, 0), lambda: sample_dense(8, 8, 0)],
)
def test_nonsense_is_refused(choose):
    with pytest.raises(ValueError, match="got"):
        choose()
