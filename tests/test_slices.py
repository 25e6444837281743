import numpy as np
import pytest
from scipy import stats

from results.slices import Slicing, adjusted, equality_p_value, slice_by_name, slice_by_value


def show(low, high):
    return f"{low:g}-{high:g}"


def test_parts_by_name_count_every_clip_once():
    is_right = np.array([1, 0, 1, 1, 0], bool)
    found = slice_by_name("class", ["b", "a", "b", "c", "a"], is_right)
    assert [(s.label, s.total, s.correct) for s in found.slices] == [
        ("b", 2, 2), ("a", 2, 0), ("c", 1, 1)
    ]  # fmt: skip
    ends = stats.binomtest(2, 2).proportion_ci(method="wilson")
    assert found.slices[0].interval == pytest.approx((ends.low, ends.high))


@pytest.mark.parametrize("total", [1, 5, 8, 16, 33, 200])
@pytest.mark.parametrize("levels", [1, 2, 3, 1000])
def test_parts_by_value_are_ordered_whole_and_keep_equal_values_together(total, levels):
    rng = np.random.default_rng(total)
    values = rng.integers(0, levels, total).astype(float)
    is_right = rng.random(total) < 0.7
    found = slice_by_value("length", values, is_right, show)
    assert sum(s.total for s in found.slices) == total
    assert sum(s.correct for s in found.slices) == is_right.sum()
    ends = [tuple(map(float, s.label.split("-"))) for s in found.slices]
    assert all(low <= high for low, high in ends)
    assert all(one[1] < other[0] for one, other in zip(ends, ends[1:], strict=False))
    assert len(found.slices) <= min(4, max(1, total // 8), len(np.unique(values)))
    if levels == 1000 and total >= 33:
        assert len(found.slices) == 4
        assert min(s.total for s in found.slices) >= total // 4 - 2


def test_a_value_that_is_a_cut_does_not_swallow_the_next():
    values = np.repeat([1.0, 2.0], 8)
    found = slice_by_value("length", values, np.ones(16, bool), show)
    assert [(s.label, s.total) for s in found.slices] == [("1-1", 8), ("2-2", 8)]


def test_values_that_are_not_known_are_counted_apart():
    values = np.array([np.nan, 1, 1, np.nan])
    found = slice_by_value("rate", values, np.array([1, 1, 0, 0], bool), show)
    assert (found.unknown.total, found.unknown.correct) == (2, 1)
    assert [(s.label, s.total) for s in found.slices] == [("1-1", 2)]
    nothing = slice_by_value("rate", np.full(2, np.nan), np.ones(2, bool), show)
    assert (nothing.slices, nothing.p_value) == ((), None)


def test_two_parts_are_fishers_exact_test_by_the_hypergeometric_sum():
    total, correct = np.array([12, 9]), np.array([11, 4])
    chances = stats.hypergeom(21, 15, 12).pmf(np.arange(13))
    expected = chances[chances <= chances[11] * (1 + 1e-9)].sum()
    assert equality_p_value(total, correct) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("total", "correct"),
    [([300, 300, 300, 300], [240, 250, 258, 243]), ([40, 700, 260], [28, 560, 214])],
)
def test_many_parts_agree_with_the_chi_square_table_where_that_is_valid(total, correct):
    total, correct = np.array(total), np.array(correct)
    table = stats.chi2_contingency(np.stack([correct, total - correct]), correction=False)
    assert 0.05 < table.pvalue < 0.5
    assert equality_p_value(total, correct) == pytest.approx(table.pvalue, abs=0.02)


def test_few_clips_by_all_deals():
    """Parts of 2, 2 and 1 clips of which 2 are right: all 10 deals by hand."""
    total, correct = np.array([2, 2, 1]), np.array([2, 0, 0])

    def statistic(right):
        return ((right - total * 2 / 5) ** 2 / total).sum()

    deals = [(a, b) for a in range(5) for b in range(a)]
    parts = np.array([0, 0, 1, 1, 2])
    hits = [
        statistic(np.bincount(parts[list(deal)], minlength=3)) >= statistic(correct) - 1e-9
        for deal in deals
    ]
    assert equality_p_value(total, correct) == pytest.approx(np.mean(hits), abs=0.02)


def test_chance_alone_is_called_significant_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    p_values = [
        equality_p_value(np.full(3, 20), np.bincount(np.repeat(range(3), 20), rng.random(60) < 0.8))
        for _ in range(200)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.09


@pytest.mark.parametrize(
    ("total", "correct"), [([5], [3]), ([5, 4], [5, 4]), ([5, 4], [0, 0]), ([1], [1])]
)
def test_nothing_to_compare(total, correct):
    assert equality_p_value(np.array(total), np.array(correct)) is None


def test_hundreds_of_groups_take_little_memory(monkeypatch):
    monkeypatch.setattr("results.slices._CELLS", 1000)
    total, correct = np.full(700, 2), np.arange(700) % 3
    assert 0 < equality_p_value(total, correct) <= 1


def test_p_values_are_adjusted_for_their_number():
    slicings = [Slicing("a", (), None, 0.01), Slicing("b", ()), Slicing("c", (), None, 0.2)]
    assert [s.p_adjusted for s in adjusted(slicings)] == [0.02, None, 0.2]
