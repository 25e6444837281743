"""Splits by group: who or what is in one list is in no other, and classes keep their shares.

Every way to deal the groups is tried where they are few, which is where it matters: with 4 athletes
a greedy choice can leave a list without a class that another choice gives it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from errors import InputError

SPLITS = ("train", "val", "test")

# All ways are tried up to this number: 3 lists of 10 groups, 5 folds of 7.
_MOST_WAYS = 80_000
_RESTARTS = 8
_TRIED = 256  # changes tried at a time
_PATIENCE = 30  # times without finding a better one
# Above any cost of shares: what must not be is avoided first.
_FORBIDDEN = 1e12
_LACKING = 1e7  # a class that val, test or a fold is without


@dataclass(frozen=True, slots=True)
class _Task:
    """Groups to deal to lists.

    Attributes:
        counts: (G, K) clips of each class in each group.
        shares: (S,) wanted share of each list, summing to 1.
        is_fold: the lists are test folds: the others together must hold every class. Else the
            first list is for training and must hold every class itself.
    """

    counts: np.ndarray
    shares: np.ndarray
    is_fold: bool

    def cost(self, dealt: np.ndarray) -> np.ndarray:
        """Return how bad ways to deal are, (W,) float64, for (W, S, K) clips in each list.

        The sum of squared deviations from the wanted number of each class and of all clips, each
        relative to the number wanted. A class that a list lacks outweighs all of these, a class
        that is not trained outweighs everything.
        """
        totals = self.counts.sum(0)
        present = totals > 0
        wanted = self.shares[:, None] * totals  # (S, K)
        each = ((dealt - wanted) ** 2 / np.where(wanted > 0, wanted, 1)).sum((1, 2))
        sizes = dealt.sum(2)
        wanted_sizes = self.shares * totals.sum()
        overall = ((sizes - wanted_sizes) ** 2 / wanted_sizes).sum(1)
        if self.is_fold:
            untrained = ((dealt == totals) & present).sum((1, 2))
        else:
            untrained = ((dealt[:, 0] == 0) & present).sum(1)
        lacking = ((dealt == 0) & present).sum((1, 2))
        forbidden = (sizes == 0).sum(1) + untrained
        return each + overall + _LACKING * lacking + _FORBIDDEN * forbidden


def deal_groups(
    counts: np.ndarray, shares: Sequence[float], rng: np.random.Generator, *, is_fold: bool = False
) -> np.ndarray | None:
    """Deal groups to lists so that the classes have their shares in each.

    Args:
        counts: (G, K) clips of each class in each group; no group is empty.
        shares: wanted share of each list; they sum to 1.
        rng: chooses among equally good ways.
        is_fold: the lists are test folds, see below.

    Returns:
        (G,) int64, the list of each group. No list is empty. Every class is in the first list, or,
        of folds, in more than one. The other lists, or folds, have as many of the classes as was
        found to be possible. None where that cannot be, or was not found.
    """
    if len(counts) < len(shares):
        return None
    task = _Task(np.asarray(counts, np.float64), np.asarray(shares, np.float64), is_fold)
    ways = len(shares) ** len(counts)
    choice, cost = _try_all(task, rng) if ways <= _MOST_WAYS else _search(task, rng)
    return choice if cost < _FORBIDDEN else None


def _try_all(task: _Task, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    num_lists = len(task.shares)
    ways = np.array(list(product(range(num_lists), repeat=len(task.counts))), np.int64)  # (W, G)
    dealt = np.stack([(ways == i).astype(float) @ task.counts for i in range(num_lists)], 1)
    costs = task.cost(dealt)
    best = np.flatnonzero(costs <= costs.min() + 1e-9)
    way = int(rng.choice(best))
    return ways[way], float(costs[way])


def _search(task: _Task, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    found = (_climb(task, _deal_greedily(task, rng), rng) for _ in range(_RESTARTS))
    return min(found, key=lambda pair: pair[1])


def _deal_greedily(task: _Task, rng: np.random.Generator) -> np.ndarray:
    """Deal the groups in turn, large ones first, each to where it is wanted most."""
    order = rng.permutation(len(task.counts))
    order = order[np.argsort(-task.counts[order].sum(1), kind="stable")]
    missing = task.shares[:, None] * task.counts.sum(0)  # (S, K)
    wanted = np.where(missing > 0, missing, 1)
    choice = np.zeros(len(order), np.int64)
    for group in order:
        count = task.counts[group]
        gain = ((missing**2 - (missing - count) ** 2) / wanted).sum(1)
        choice[group] = int(gain.argmax())
        missing[choice[group]] -= count
    return choice


def _climb(task: _Task, choice: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Move one group, or swap two, as long as that is found to be better."""
    num_lists, num_groups = len(task.shares), len(choice)
    dealt = np.stack([task.counts[choice == i].sum(0) for i in range(num_lists)])
    cost = float(task.cost(dealt[None])[0])
    fruitless = 0
    while fruitless < _PATIENCE:
        one, other = rng.integers(num_groups, size=(2, _TRIED))
        old, new = choice[one], (choice[one] + rng.integers(1, num_lists, _TRIED)) % num_lists
        is_swap = choice[other] == new
        change = task.counts[one] - is_swap[:, None] * task.counts[other]
        tried = np.repeat(dealt[None], _TRIED, 0)  # (W, S, K)
        tried[np.arange(_TRIED), old] -= change
        tried[np.arange(_TRIED), new] += change
        costs = task.cost(tried)
        best = int(costs.argmin())
        if costs[best] >= cost - 1e-9:
            fruitless += 1
            continue
        choice[one[best]] = new[best]
        if is_swap[best]:
            choice[other[best]] = old[best]
        dealt, cost, fruitless = tried[best], float(costs[best]), 0
    return choice, cost


# ---------------------------------------------------------------- clips


def split_clips(
    labels: Sequence[int],
    groups: Sequence[str],
    val_fraction: float,
    test_fraction: float,
    seed: int,
    classes: Sequence[str] = (),
) -> list[str]:
    """Split clips into train, val and test by group, stratified.

    Args:
        labels: class of each clip, N.
        groups: group of each clip, N.
        val_fraction: wanted share of val.
        test_fraction: wanted share of test.
        seed: chooses among equally good splits.
        classes: names of the classes, for messages; without them their numbers are said.

    Returns:
        N of "train", "val", "test": the same whatever the order of the clips.

    Raises:
        InputError: it cannot be done; the message says why.
    """
    shares = (1 - val_fraction - test_fraction, val_fraction, test_fraction)
    return _deal_clips(labels, groups, shares, SPLITS, seed, classes)


def cut_validation(
    labels: Sequence[int],
    groups: Sequence[str],
    val_fraction: float,
    seed: int,
    classes: Sequence[str] = (),
) -> list[str]:
    """Split clips that are not for testing into train and val, by group, stratified.

    Args:
        labels: class of each clip, N.
        groups: group of each clip, N.
        val_fraction: wanted share of val among these clips.
        seed: chooses among equally good splits.
        classes: names of the classes, for messages; without them their numbers are said.

    Raises:
        InputError: it cannot be done; the message says why.
    """
    shares = (1 - val_fraction, val_fraction)
    return _deal_clips(labels, groups, shares, SPLITS[:2], seed, classes)


def make_folds(
    labels: Sequence[int],
    groups: Sequence[str],
    num_folds: int,
    val_fraction: float,
    seed: int,
    classes: Sequence[str] = (),
) -> list[list[str]]:
    """Split clips once for each fold: every clip is tested in one fold.

    Args:
        labels: class of each clip, N.
        groups: group of each clip, N.
        num_folds: at least 2; as many as groups leaves one group out at a time.
        val_fraction: wanted share of val among all clips, cut from what is not tested.
        seed: chooses among equally good splits.
        classes: names of the classes, for messages; without them their numbers are said.

    Returns:
        For each fold N of "train", "val", "test".

    Raises:
        InputError: it cannot be done; the message says why.
    """
    fold_of = deal_folds(labels, groups, num_folds, seed, classes)
    return [
        cut_fold(labels, groups, [of == fold for of in fold_of], val_fraction, seed, classes)
        for fold in range(num_folds)
    ]


def deal_folds(
    labels: Sequence[int],
    groups: Sequence[str],
    num_folds: int,
    seed: int,
    classes: Sequence[str] = (),
    *,
    least: int = 3,
) -> list[int]:
    """Deal clips to test folds, by group, stratified.

    Args:
        labels: class of each clip, N.
        groups: group of each clip, N.
        num_folds: at least 2; as many as groups leaves one group out at a time.
        seed: chooses among equally good ways.
        classes: names of the classes, for messages; without them their numbers are said.
        least: groups that are needed in any case: 3 where val is cut from what is not tested.

    Returns:
        The fold of each clip, 0 to num_folds - 1: the same whatever the order of the clips.

    Raises:
        InputError: it cannot be done; the message says why.
    """
    names, index, counts = _tabulate(labels, groups)
    if len(names) < max(num_folds, least):
        raise InputError(
            f"the clips belong to {len(names)} groups, {num_folds} folds need "
            f"{max(num_folds, least)}: choose fewer --folds, or name finer groups"
        )
    rng = np.random.default_rng(seed)
    fold_of = deal_groups(counts, [1 / num_folds] * num_folds, rng, is_fold=True)
    if fold_of is None:
        raise InputError(
            f"no {num_folds} folds keep every class for training ({_scarcest(counts, classes)}): "
            "choose other --folds, or name finer groups"
        )
    left = len(names) - np.bincount(fold_of, minlength=num_folds)
    if left.min() < least - 1:
        raise InputError(
            f"fold {int(left.argmin()) + 1} of {num_folds} leaves one group, and the lists train "
            "and val need 2: choose more --folds, or name finer groups"
        )
    return [int(fold) for fold in fold_of[index]]


def deal_single_groups(
    labels: Sequence[int], groups: Sequence[str], classes: Sequence[str] = (), *, least: int = 3
) -> list[int]:
    """Make a fold of each group: leave one group out.

    Args:
        labels: class of each clip, N.
        groups: group of each clip, N.
        classes: names of the classes, for messages; without them their numbers are said.
        least: groups that are needed: 3 where val is cut from what is not tested.

    Returns:
        The fold of each clip: the place of its group among the sorted names.

    Raises:
        InputError: too few groups, or a class is in one group alone, so that no clip of it would be
            left for training.
    """
    names, index, counts = _tabulate(labels, groups)
    if len(names) < least:
        raise InputError(
            f"the clips belong to {len(names)} groups, leaving one out needs {least}: name finer "
            "groups"
        )
    if ((counts > 0).sum(0) == 1).any():
        raise InputError(
            f"leaving one group out leaves a class without training clips "
            f"({_scarcest(counts, classes)}): choose a number of folds, or name finer groups"
        )
    return [int(fold) for fold in index]


def cut_fold(
    labels: Sequence[int],
    groups: Sequence[str],
    is_tested: Sequence[bool],
    val_fraction: float,
    seed: int,
    classes: Sequence[str] = (),
) -> list[str]:
    """Split the clips that a fold does not test into train and val.

    Args:
        labels: class of each clip, N.
        groups: group of each clip, N.
        is_tested: whether the fold tests it, N.
        val_fraction: wanted share of val among all clips; at most half of the rest is taken.
        seed: chooses among equally good splits.
        classes: names of the classes, for messages; without them their numbers are said.

    Returns:
        N of "train", "val", "test".

    Raises:
        InputError: it cannot be done; the message says why.
    """
    rest = [i for i, tested in enumerate(is_tested) if not tested]
    share = min(val_fraction * len(labels) / len(rest), 0.5)
    cut = cut_validation([labels[i] for i in rest], [groups[i] for i in rest], share, seed, classes)
    split_of = dict(zip(rest, cut, strict=True))
    return [split_of.get(i, "test") for i in range(len(labels))]


def _deal_clips(
    labels: Sequence[int],
    groups: Sequence[str],
    shares: Sequence[float],
    splits: Sequence[str],
    seed: int,
    classes: Sequence[str],
) -> list[str]:
    names, index, counts = _tabulate(labels, groups)
    if len(names) < len(splits):
        raise InputError(
            f"the clips belong to {len(names)} group(s), the lists {', '.join(splits)} need "
            f"{len(splits)}: add videos, or name finer groups"
        )
    choice = deal_groups(counts, shares, np.random.default_rng(seed))
    if choice is None:
        raise InputError(
            f"no way to deal {len(names)} groups to {', '.join(splits)} leaves every class in "
            f"train ({_scarcest(counts, classes)}): add videos, or name finer groups"
        )
    return [splits[choice[i]] for i in index]


def _tabulate(
    labels: Sequence[int], groups: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the groups sorted, the row (N,) of each clip's group, and counts (G, K)."""
    names, index = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((len(names), max(labels) + 1), np.int64)
    np.add.at(counts, (index, np.asarray(labels)), 1)
    return [str(name) for name in names], index, counts


def _scarcest(counts: np.ndarray, classes: Sequence[str]) -> str:
    """Say which class is in the fewest groups."""
    spread = (counts > 0).sum(0)
    label = int(np.where(spread > 0, spread, len(counts) + 1).argmin())
    name = repr(classes[label]) if classes else label
    return f"class {name} is in {spread[label]} of {len(counts)} groups"


# ---------------------------------------------------------------- groups


def join_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Make groups one where they hold the same content.

    Args:
        groups: group of each clip, N.
        contents: what identifies the content of each clip, N.

    Returns:
        Group of each clip; joined ones have the name that sorts first.
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    holder: dict[str, str] = {}
    for group, content in zip(groups, contents, strict=True):
        one, other = sorted((root(group), root(holder.setdefault(content, group))))
        parent[other] = one
    return [root(group) for group in groups]
