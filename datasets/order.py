"""The order of clips, as a function of seed and epoch alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One clip in one epoch: with the seed, all that its random choices depend on."""

    epoch: int
    index: int


class EpochBatches(Sampler[list[SampleKey]]):
    """Batches of one epoch, from any batch on.

    The order is drawn from seed and epoch, never from state, so continuing an interrupted epoch
    costs nothing and does not depend on the number of workers.
    """

    def __init__(self, num_clips: int, batch_size: int, seed: int, shuffle: bool) -> None:
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.start(epoch=0)

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration run through `epoch`, leaving out its first batches."""
        self.epoch = epoch
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order = np.arange(self.num_clips)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_clips)
        for start in range(self.first_batch * self.batch_size, self.num_clips, self.batch_size):
            yield [SampleKey(self.epoch, int(i)) for i in order[start : start + self.batch_size]]

    def __len__(self) -> int:
        """Return the batches of a whole epoch, the last of which may be smaller."""
        return -(-self.num_clips // self.batch_size)
