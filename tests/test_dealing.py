"""Every clip of a step is computed once, by whichever processes share it."""

import pytest

from ops.dealing import Deal

SHAPES = [(1, 1, 1), (17, 4, 2), (42, 2, 4), (40, 4, 4), (9, 3, 1), (64, 8, 4), (5, 8, 2)]


def deals(shape, count):
    clips, size, pieces = shape
    return [Deal(clips, size, pieces, rank, count) for rank in range(count)]


def can_share(shape, count):
    _, size, pieces = shape
    return count <= pieces or (count % pieces == 0 and count // pieces <= size)


CASES = [(s, n) for s in SHAPES for n in (1, 2, 3, 4, 8, 16) if can_share(s, n)]


@pytest.mark.parametrize(("shape", "count"), CASES)
def test_every_clip_once_in_the_step_it_has_with_one_process(shape, count):
    alone, several = deals(shape, 1)[0], deals(shape, count)
    for step in range(alone.num_steps):
        own = sorted(c for p in alone.parts(step) for c in range(p.start, p.stop))
        parts = [p for deal in several for p in deal.parts(step)]
        assert sorted(c for p in parts for c in range(p.start, p.stop)) == own
        for piece in range(alone.pieces(step)):
            shares = [p.share for p in parts if p.piece == piece]
            assert sum(shares) == pytest.approx(1)
    assert {deal.num_steps for deal in several} == {alone.num_steps}


@pytest.mark.parametrize(("shape", "count"), CASES)
def test_no_more_processes_than_micro_batches_cut_none(shape, count):
    _, size, pieces = shape
    parts = [
        p for deal in deals(shape, count) for s in range(deal.num_steps) for p in deal.parts(s)
    ]
    is_cut = [p.share < 1 for p in parts]
    assert any(is_cut) == (count > pieces and shape[0] >= count // pieces)
    assert all(p.offset == 0 for p in parts if p.share == 1)
    assert all(0 <= p.offset < size for p in parts)


@pytest.mark.parametrize(("shape", "count"), CASES)
@pytest.mark.parametrize("most", [None, 1, 3])
def test_owners_follow_the_clips(shape, count, most):
    for step in range(deals(shape, 1)[0].num_steps):
        passes = [
            (start, deal.rank)
            for deal in deals(shape, count)
            for part in deal.parts(step)
            for start in range(part.start, part.stop, most or shape[1])
        ]
        owners = deals(shape, count)[0].owners(step, most)
        assert owners == tuple(rank for _, rank in sorted(passes))


def test_a_last_step_may_leave_processes_without_work():
    first, second = deals((5, 2, 2), 2)
    assert first.is_shared_by_all(0)
    assert not first.is_shared_by_all(1)
    assert [len(first.parts(1)), len(second.parts(1))] == [1, 0]


@pytest.mark.parametrize(("size", "pieces", "count"), [(4, 2, 3), (2, 2, 8), (1, 1, 2), (8, 3, 4)])
def test_processes_that_cannot_share_evenly_are_refused(size, pieces, count):
    with pytest.raises(ValueError, match="cannot share"):
        Deal(10, size, pieces, 0, count)
