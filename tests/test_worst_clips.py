import numpy as np
import pytest

from results.score_files import ClipScores
from results.worst_clips import choose_clips, judge_clips


def scores(shares, labels):
    shares = np.array(shares)
    clips = tuple(f"clip {n}" for n in range(len(shares)))
    return ClipScores(clips, np.array(labels), np.log(shares), tuple("abc"[: shares.shape[1]]))


def test_worst_are_wrong_and_sure_and_unsure_are_the_rest_by_entropy():
    found = judge_clips(
        scores([[0.9, 0.1], [0.4, 0.6], [0.01, 0.99], [0.55, 0.45], [0.99, 0.01]], [0, 0, 0, 0, 1])
    )
    worst, unsure = choose_clips(found, 2)
    # Equal losses keep the order of the list.
    assert [v.row for v in worst] == [2, 4]
    assert [v.row for v in unsure] == [3, 1]
    assert [v.is_right for v in unsure] == [True, False]
    # A wrong clip is shown once, however unsure it is.
    assert [[v.row for v in kind] for kind in choose_clips(found, 3)] == [[2, 4, 1], [3, 0]]
    assert worst[0].loss == pytest.approx(-np.log(0.01))


def test_entropy_is_0_when_sure_and_1_at_a_draw():
    found = judge_clips(scores([[1 / 3] * 3, [1.0, 1e-300, 1e-300]], [0, 0]))
    assert [v.entropy for v in found] == pytest.approx([1, 0])


def test_none_wrong_none_asked_and_one_class():
    found = judge_clips(scores([[1.0], [1.0]], [0, 0]))
    assert [v.entropy for v in found] == [0, 0]
    worst, unsure = choose_clips(found, 8)
    assert (worst, len(unsure)) == ([], 2)
    assert choose_clips(found, 0) == ([], [])
