import numpy as np
import pytest

from datasets.order import EpochBatches, SampleKey


def indices(batches: EpochBatches) -> list[int]:
    return [key.index for batch in batches for key in batch]


def test_every_clip_comes_once_in_an_order_of_its_own_per_epoch_and_seed():
    batches = EpochBatches(10, 4, seed=3, shuffle=True)
    first = indices(batches)
    assert sorted(first) == list(range(10))
    assert indices(batches) == first
    batches.start(1)
    assert sorted(indices(batches)) == list(range(10))
    assert indices(batches) != first
    assert indices(EpochBatches(10, 4, seed=4, shuffle=True)) != first


def test_evaluation_keeps_the_order_of_the_list():
    batches = EpochBatches(5, 2, seed=0, shuffle=False)
    assert list(batches) == [
        [SampleKey(0, 0), SampleKey(0, 1)],
        [SampleKey(0, 2), SampleKey(0, 3)],
        [SampleKey(0, 4)],
    ]


@pytest.mark.parametrize("first_batch", [0, 1, 3, 4])
def test_starting_late_gives_the_rest_of_the_same_epoch(first_batch):
    batches = EpochBatches(15, 4, seed=1, shuffle=True)
    batches.start(7)
    whole = list(batches)
    batches.start(7, first_batch)
    assert list(batches) == whole[first_batch:]
    assert {key.epoch for batch in whole for key in batch} == {7}
    assert len(batches) == 4 == len(whole)


def test_the_order_ignores_global_generators():
    before = indices(EpochBatches(20, 4, 0, shuffle=True))
    np.random.seed(5)  # noqa: NPY002
    assert indices(EpochBatches(20, 4, 0, shuffle=True)) == before


def test_an_epoch_that_repeats_shows_every_clip_as_often_with_other_draws():
    batches = EpochBatches(5, 2, seed=0, shuffle=True, repeats=3)
    keys = [key for batch in batches for key in batch]
    assert len(batches) == 8
    assert sorted((key.index, key.draw) for key in keys) == [
        (index, draw) for index in range(5) for draw in range(3)
    ]
    assert len({tuple(key.entropy(7)) for key in keys}) == 15
    assert SampleKey(2, 3).entropy(7) == [7, 2, 3]  # as without repeats


def test_a_balanced_epoch_shows_every_class_equally_often():
    labels = np.array([0] * 17 + [1] * 3 + [4] * 2)
    batches = EpochBatches(22, 4, seed=0, shuffle=True, balance=labels)
    keys = [key for batch in batches for key in batch]
    counts = np.bincount(labels[[key.index for key in keys]])
    assert sorted(counts[counts > 0].tolist()) == [7, 7, 8]
    assert len({(key.index, key.draw) for key in keys}) == 22
    shown = np.bincount([key.index for key in keys], minlength=22)
    for label in (0, 1, 4):  # a class goes through its clips before any comes again
        of_class = shown[labels == label]
        assert of_class.max() - of_class.min() <= 1
    batches.start(epoch=1)
    assert [key.index for batch in batches for key in batch] != [key.index for key in keys]


def test_processes_share_a_repeated_epoch():
    whole = EpochBatches(6, 2, 0, shuffle=True, iter_size=2, repeats=2)
    shares = [
        EpochBatches(6, 2, 0, shuffle=True, iter_size=2, rank=rank, count=2, repeats=2)
        for rank in range(2)
    ]
    together = [batch for pair in zip(*shares, strict=True) for batch in pair]
    assert together == list(whole)
