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
