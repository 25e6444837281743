"""The order of clips, as a function of seed and epoch alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from ops.dealing import Deal

# Shards that are open at once in an order by shards: their clips are mixed.
_WINDOW = 8


@dataclass(frozen=True, slots=True)
class SampleKey:
    """One clip in one epoch: with the seed, all that its random choices depend on.

    Attributes:
        epoch, index: of the epoch and of the clip.
        draw: how often the clip came before in this epoch.
    """

    epoch: int
    index: int
    draw: int = 0

    def entropy(self, seed: int) -> list[int]:
        """Return what a generator for this clip is made from."""
        return [seed, self.epoch, self.index, *([self.draw] if self.draw else [])]


class EpochBatches(Sampler[list[SampleKey]]):
    """Batches of one epoch, from any batch on: those of one process.

    The order is drawn from seed and epoch, never from state, so continuing an interrupted epoch
    costs nothing and depends neither on the number of workers nor on that of processes.
    """

    def __init__(
        self,
        num_clips: int,
        batch_size: int,
        seed: int,
        shuffle: bool,
        *,
        iter_size: int = 1,
        rank: int = 0,
        count: int = 1,
        groups: np.ndarray | None = None,
        repeats: int = 1,
        balance: np.ndarray | None = None,
    ) -> None:
        """Order clips.

        Args:
            num_clips: of the list.
            batch_size: clips of a micro-batch.
            seed: of the order.
            shuffle: in a new order in each epoch; else in that of the list.
            iter_size: micro-batches of a step.
            rank: number of this process.
            count: of the processes that share each step, see `ops.dealing`.
            groups: (num_clips,) shard of each clip, to go through shard by shard; None: at will.
            repeats: how often an epoch goes through the clips.
            balance: (num_clips,) classes that an epoch is to show equally often, those with few
                clips showing them several times; None: every clip `repeats` times.
        """
        self.deal = Deal(num_clips * repeats, batch_size, iter_size, rank, count)
        self.repeats = repeats
        self.balance = balance
        self.num_clips = num_clips
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.groups = groups
        self.start(epoch=0)

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Make the next iteration run through `epoch`, leaving out its first micro-batches.

        Args:
            epoch: counted from 0.
            first_batch: counted over all processes; with several the first of a step.
        """
        self.epoch = epoch
        self.first_batch = first_batch

    def order(self) -> np.ndarray:
        """Return the epoch in order, (num_clips * repeats,) int64: clip + num_clips * draw."""
        if not self.shuffle:
            return np.arange(self.num_clips * self.repeats)
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.balance is not None:
            return _balanced(self.balance, self.num_clips * self.repeats, rng)
        passes = (
            rng.permutation(self.num_clips) if self.groups is None else _by_groups(self.groups, rng)
            for _ in range(self.repeats)
        )
        return np.concatenate([clips + n * self.num_clips for n, clips in enumerate(passes)])

    def __iter__(self) -> Iterator[list[SampleKey]]:
        order, deal, epoch = self.order(), self.deal, self.epoch
        first_step, skipped = divmod(self.first_batch, deal.iter_size)
        for step in range(first_step, deal.num_steps):
            for part in deal.parts(step):
                if step > first_step or part.piece >= skipped:
                    yield [
                        SampleKey(epoch, place % self.num_clips, place // self.num_clips)
                        for place in order[part.start : part.stop].tolist()
                    ]

    def __len__(self) -> int:
        """Return the micro-batches of a whole epoch, of all processes; the last may be smaller."""
        return self.deal.num_batches


def _balanced(labels: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `total` places so that classes differ by one at most; a class goes through its clips.

    Returns:
        (total,) int64: clip + len(labels) * draw.
    """
    classes = rng.permutation(np.unique(labels))
    places = []
    for number, label in enumerate(classes):
        members = np.flatnonzero(labels == label)
        wanted = (total + len(classes) - 1 - number) // len(classes)
        rounds = -(-wanted // len(members))
        drawn = [rng.permutation(members) + n * len(labels) for n in range(rounds)]
        places.append(np.concatenate(drawn)[:wanted])
    return rng.permutation(np.concatenate(places))


def _by_groups(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the groups, then the clips of some neighbouring groups among each other."""
    numbers, start = np.unique(groups, return_index=True)
    members = np.argsort(groups, kind="stable")
    pieces = np.split(members, np.searchsorted(groups[members], numbers[1:]))
    shuffled = rng.permutation(len(start))
    windows = [shuffled[i : i + _WINDOW] for i in range(0, len(shuffled), _WINDOW)]
    return np.concatenate([
        rng.permutation(np.concatenate([pieces[group] for group in window])) for window in windows
    ])  # fmt: skip
