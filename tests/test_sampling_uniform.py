import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.sampling import pad_to, sample_spread, sample_uniform

lengths, sizes, clips = st.integers(1, 400), st.integers(1, 120), st.integers(1, 12)


def test_evaluation_equals_the_published_picks(golden):
    file = golden.parent / "zoo" / "transforms.npz"
    if not file.is_file():
        pytest.skip("no golden vectors of the zoo")
    with np.load(file) as arrays:
        cases = {key: arrays[key] for key in arrays.files if key.startswith("uniform_test|")}
    assert len(cases) == 20
    for key, expected in cases.items():
        num_frames, length, num_clips = (int(part.lstrip("Tclipn")) for part in key.split("|")[1:])
        picks = sample_uniform(num_frames, length, num_clips)
        assert np.array_equal(picks, expected.reshape(num_clips, length)), key


def formula(num_frames: int, length: int, num_clips: int) -> np.ndarray:
    """The published test picks, a frame after the other."""
    rng = np.random.RandomState(255)
    rows = []
    for clip in range(num_clips):
        if num_frames < length:
            start = clip if num_frames < num_clips else clip * num_frames // num_clips
            rows.append([(start + step) % num_frames for step in range(length)])
        elif num_frames < 2 * length:
            gaps = set(rng.choice(length + 1, num_frames - length, replace=False).tolist())
            row, frame = [], 0
            for slot in range(length):
                frame += slot in gaps
                row.append(frame)
                frame += 1
            rows.append(row)
        else:
            edges = [slot * num_frames // length for slot in range(length + 1)]
            draws = rng.randint(np.diff(edges))
            rows.append([edge + int(draw) for edge, draw in zip(edges[:-1], draws, strict=True)])
    return np.array(rows)


@given(num_frames=lengths, length=sizes, num_clips=clips)
def test_evaluation_equals_an_independent_formula_for_any_length(num_frames, length, num_clips):
    assert np.array_equal(
        sample_uniform(num_frames, length, num_clips), formula(num_frames, length, num_clips)
    )


@pytest.mark.parametrize("num_frames", [19, 20, 21, 39, 40, 41])
def test_evaluation_at_the_lengths_where_the_way_of_drawing_changes(num_frames):
    assert np.array_equal(sample_uniform(num_frames, 20, 3), formula(num_frames, 20, 3))


@given(num_frames=lengths, length=sizes, num_clips=clips, seed=st.integers(0, 99))
def test_training_draws_frames_of_the_clip_in_their_order(num_frames, length, num_clips, seed):
    picks = sample_uniform(num_frames, length, num_clips, np.random.default_rng(seed))
    assert picks.shape == (num_clips, length)
    assert picks.dtype == np.int64
    assert picks.min() >= 0
    assert picks.max() < num_frames
    steps = np.diff(picks, axis=1)
    if num_frames < length:
        assert (steps % num_frames == 1 % num_frames).all()  # one after the other, in a loop
    elif num_frames < 2 * length:
        assert ((steps == 1) | (steps == 2)).all()
    else:
        edges = np.arange(length + 1) * num_frames // length
        assert (picks >= edges[:-1]).all()
        assert (picks < edges[1:]).all()


@pytest.mark.parametrize(
    ("num_frames", "length"), [(5, 12), (12, 12), (17, 12), (24, 12), (50, 12)]
)
def test_training_reaches_every_frame(num_frames, length):
    rng = np.random.default_rng(0)
    assert set(sample_uniform(num_frames, length, 400, rng).ravel()) == set(range(num_frames))


def test_evaluation_neither_reads_nor_moves_a_global_generator():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = sample_uniform(150, 48, 10)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    first[:] = -1  # what a caller does to its picks
    assert sample_uniform(150, 48, 10).min() >= 0


@given(num_frames=lengths, length=sizes, seed=st.integers(0, 99))
def test_picks_of_a_part_stay_in_one(num_frames, length, seed):
    rng = np.random.default_rng(seed)
    picks = sample_uniform(num_frames, length, 3, rng, p_interval=(0.5, 0.5))
    assert picks.min() >= 0
    assert picks.max() < num_frames
    assert (np.ptp(picks, axis=1) < max(num_frames // 2, 1)).all()


def test_parts_differ_in_place_and_size():
    rng = np.random.default_rng(0)
    picks = sample_uniform(1000, 10, 500, rng, p_interval=(0.3, 0.9))
    spans = np.ptp(picks, axis=1)
    assert spans.min() < 350
    assert 700 < spans.max() < 900
    assert picks.min() < 20
    assert picks.max() > 980
    short = sample_uniform(10, 5, 300, rng, p_interval=(0.5, 0.5))
    assert set(short[:, 0]) == set(range(6))


@given(num_frames=lengths, length=sizes, num_clips=clips, seed=st.none() | st.integers(0, 99))
def test_spread_frames_lie_on_equal_parts_of_the_clip(num_frames, length, num_clips, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    picks = sample_spread(num_frames, length, num_clips, rng)
    assert picks.shape == (num_clips, length)
    assert (np.diff(picks, axis=1) >= 0).all()
    edges = np.arange(length + 1) * num_frames / length
    assert (picks > edges[:-1] - 1).all()
    assert (picks < edges[1:]).all()
    assert picks.max() < num_frames


def test_spread_draws_differ_between_rows():
    rows = sample_spread(1000, 10, 4, np.random.default_rng(0))
    assert len({tuple(row) for row in rows}) == 4


@given(num_frames=st.integers(1, 30), length=st.integers(30, 60))
def test_padding_adds_nobody_or_the_clip_again(num_frames, length):
    tracks = np.random.default_rng(0).random((num_frames, 2, 5, 3), np.float32) + 1
    zero, loop = pad_to(tracks, length), pad_to(tracks, length, "loop")
    assert np.array_equal(zero[:num_frames], tracks)
    assert not zero[num_frames:].any()
    for frame in range(length):
        assert np.array_equal(loop[frame], tracks[frame % num_frames])
    zero[:] = loop[:] = 7
    assert tracks.max() < 7


@pytest.mark.parametrize(
    "choose",
    [
        lambda: sample_uniform(0, 8),
        lambda: sample_uniform(8, 0),
        lambda: sample_uniform(8, 8, 0),
        lambda: sample_uniform(8, 8, rng=None, p_interval=(0.5, 1)),
        lambda: sample_uniform(8, 8, rng=np.random.default_rng(), p_interval=(0, 1)),
        lambda: sample_uniform(8, 8, rng=np.random.default_rng(), p_interval=(0.9, 0.5)),
        lambda: sample_spread(8, 8, 0, np.random.default_rng()),
        lambda: pad_to(np.ones((5, 1, 2, 3)), 4),
        lambda: pad_to(np.ones((0, 1, 2, 3)), 4),
        lambda: pad_to(np.ones((3, 1, 2, 3)), 4, "mirror"),
    ],
)
def test_nonsense_is_refused(choose):
    with pytest.raises(ValueError, match="got"):
        choose()
