"""Groups stay whole, classes keep their shares, and few groups are dealt as well as can be."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from datasets.prepare.splits import (
    SPLITS,
    cut_validation,
    deal_groups,
    join_groups,
    make_folds,
    split_clips,
)
from errors import InputError


def drawn(num_clips, num_groups, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    group_of = rng.integers(0, num_groups, num_clips)
    labels = rng.integers(0, num_classes, num_clips)
    return [int(label) for label in labels], [f"g{group}" for group in group_of]


def unevenness(labels, lists, shares):
    """Sum of squared deviations of each class in each list, relative to what is wanted."""
    total = 0.0
    for name, share in shares.items():
        for label, count in Counter(labels).items():
            have = sum(x == label and y == name for x, y in zip(labels, lists, strict=True))
            total += (have - share * count) ** 2 / (share * count)
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 40), st.integers(3, 12), st.integers(1, 4), st.integers(0, 99))
def test_groups_are_never_split_and_no_list_is_empty(num_clips, num_groups, num_classes, seed):
    labels, groups = drawn(num_clips, num_groups, num_classes, seed)
    try:
        splits = split_clips(labels, groups, 0.2, 0.2, seed)
    except InputError:
        if len(set(groups)) >= 3:  # then it must be true that nothing will do
            names = sorted(set(groups))
            of = [names.index(group) for group in groups]
            for way in product(range(3), repeat=len(names)) if len(names) <= 7 else ():
                train = {x for x, g in zip(labels, of, strict=True) if way[g] == 0}
                assert train != set(labels) or len(set(way)) < 3
        return
    assert set(splits) == set(SPLITS)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))
    train = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    assert train == set(labels)


def test_the_order_of_clips_changes_nothing_and_the_seed_does():
    labels, groups = drawn(300, 60, 3)
    splits = split_clips(labels, groups, 0.15, 0.2, 0)
    order = np.random.default_rng(1).permutation(300)
    again = split_clips([labels[i] for i in order], [groups[i] for i in order], 0.15, 0.2, 0)
    assert [splits[i] for i in order] == again
    assert split_clips(labels, groups, 0.15, 0.2, 1) != splits


@pytest.mark.parametrize(("num_clips", "num_groups"), [(26, 4), (60, 8), (400, 30), (2000, 2000)])
def test_shares_are_kept_at_least_as_well_as_by_sklearn(num_clips, num_groups):
    labels, groups = drawn(num_clips, num_groups, 3)
    folds = make_folds(labels, groups, 4, 0.1, 0)
    ours = [next(k for k in range(4) if folds[k][i] == "test") for i in range(num_clips)]
    theirs = np.zeros(num_clips, int)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    for fold, (_, tested) in enumerate(splitter.split(labels, labels, groups)):
        theirs[tested] = fold
    shares = dict.fromkeys(range(4), 0.25)
    assert unevenness(labels, ours, shares) <= unevenness(labels, list(theirs), shares) + 0.05


def test_few_groups_are_dealt_in_the_best_way():
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 9, (6, 2)) + np.eye(6, 2, dtype=int)
    choice = deal_groups(counts, (0.6, 0.2, 0.2), rng)
    labels = [c for g in range(6) for c in range(2) for _ in range(counts[g, c])]
    groups = [g for g in range(6) for c in range(2) for _ in range(counts[g, c])]
    shares = {0: 0.6, 1: 0.2, 2: 0.2}

    def cost(way):
        lists = [way[g] for g in groups]
        sizes = Counter(lists)
        n = len(labels)
        overall = sum((sizes[s] - f * n) ** 2 / (f * n) for s, f in shares.items())
        return unevenness(labels, lists, shares) + overall

    ways = [way for way in product(range(3), repeat=6) if len(set(way)) == 3]
    ways = [w for w in ways if (counts[np.array(w) == 0].sum(0) > 0).all()]
    assert cost(choice) == pytest.approx(min(map(cost, ways)))


def test_a_class_of_one_group_stays_in_train():
    labels = [0] * 10 + [1] * 10 + [2]
    groups = [f"g{i}" for i in range(21)]
    for seed in range(5):
        assert split_clips(labels, groups, 0.3, 0.3, seed)[20] == "train"
    with pytest.raises(InputError, match="class 2 is in 1 of 21 groups"):
        make_folds(labels, groups, 3, 0.2, 0)


def test_every_list_has_every_class_wherever_groups_allow_it():
    labels = [0] * 12 + [1] * 12
    sizes = [9, 2, 1, 9, 2, 1]  # the best shares alone would leave val with one class
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        splits = split_clips(labels, groups, 0.15, 0.2, seed)
        assert len(set(zip(labels, splits, strict=True))) == 6
    rng = np.random.default_rng(0)
    for num_groups in (6, 9, 20, 40):  # all ways, and a search
        counts = rng.integers(1, 9, (num_groups, 4)) * (rng.random((num_groups, 4)) < 0.15)
        for label in range(4):
            counts[label % num_groups, label] += 1
            counts[(label + 1) % num_groups, label] += 1
            counts[(label + 2) % num_groups, label] += 30
        counts[counts.sum(1) == 0, 0] = 1
        choice = deal_groups(counts, (0.65, 0.15, 0.2), rng)
        possible = num_groups > 9 or any(
            all((counts[np.array(way) == i].sum(0) > 0).all() for i in range(3))
            for way in product(range(3), repeat=num_groups)
        )
        lists = np.stack([counts[choice == i].sum(0) for i in range(3)])
        assert (lists > 0).all() == possible


def test_messages_name_classes_by_their_names():
    with pytest.raises(InputError, match=r"\(class 'fall' is in 1 of 3 groups\)"):
        split_clips([0, 0, 0, 1, 2], list("abccb"), 0.2, 0.2, 0, ["landed", "fall", "x"])
    with pytest.raises(InputError, match=r"class 'x' is in 1 of 3 groups"):
        make_folds([0, 0, 0, 1, 1, 2], list("abcabc"), 3, 0.2, 0, ["landed", "fall", "x"])


def test_every_group_is_tested_in_one_fold():
    labels, groups = drawn(80, 9, 2)
    folds = make_folds(labels, groups, 9, 0.2, 0)  # leaves one group out at a time
    assert len(folds) == 9
    tested = [{g for g, s in zip(groups, fold, strict=True) if s == "test"} for fold in folds]
    assert all(len(one) == 1 for one in tested)
    assert set.union(*tested) == set(groups)
    for fold in folds:
        assert set(fold) == set(SPLITS)
        assert len(set(zip(groups, fold, strict=True))) == 9
        assert {x for x, s in zip(labels, fold, strict=True) if s == "train"} == {0, 1}


def test_the_validation_share_of_folds_is_one_of_all_clips():
    labels, groups = drawn(400, 400, 2)
    for fold in make_folds(labels, groups, 4, 0.2, 0):
        counts = Counter(fold)
        assert abs(counts["val"] - 80) <= 2
        assert abs(counts["test"] - 100) <= 2


def test_too_few_groups_are_refused():
    with pytest.raises(InputError, match=r"belong to 2 group\(s\), the lists train, val, test"):
        split_clips([0, 1, 0, 1], ["a", "a", "b", "b"], 0.2, 0.2, 0)
    with pytest.raises(InputError, match="belong to 3 groups, 5 folds need 5"):
        make_folds([0, 1] * 3, ["a", "a", "b", "b", "c", "c"], 5, 0.2, 0)
    with pytest.raises(InputError, match="leaves every class in train"):
        split_clips([0, 1, 2], ["a", "b", "c"], 0.2, 0.2, 0)
    with pytest.raises(InputError, match=r"belong to 1 group\(s\)"):
        cut_validation([0, 1], ["a", "a"], 0.2, 0)


def test_large_data_sets_take_seconds():
    labels, groups = drawn(10_000, 10_000, 10)
    counts = Counter(split_clips(labels, groups, 0.15, 0.2, 0))
    assert abs(counts["val"] - 1500) <= 5
    assert abs(counts["test"] - 2000) <= 5


def test_equal_contents_join_groups_through_others():
    groups = ["b", "a", "c", "d", "e", "b"]
    contents = ["1", "1", "2", "3", "4", "2"]
    assert join_groups(groups, contents) == ["a", "a", "a", "d", "e", "a"]
    assert join_groups([], []) == []
