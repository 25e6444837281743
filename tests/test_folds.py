"""Folds: every clip is tested once, groups stay whole, and nothing depends on the lists' order."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import main_only_pose
import opts
import test_models as test_script
from datasets import opening
from datasets.clip_table import ClipRow, write_table
from datasets.folds import (
    VAL_SHARE,
    FoldChoice,
    find_fold,
    group_clips,
    hash_folds,
    hash_groups,
    pool_lists,
)
from datasets.leakage import find_overlaps
from datasets.loading import build_train_loader
from datasets.opening import check_disjoint, open_dataset
from datasets.records import PUBLISHED, ClipRecord, load_records, read_header, write_list
from errors import InputError

SPLITS = ("train", "val", "test")
CLASSES = ("landed", "fall", "other")


def write(root, records, rows=(), shares=(0.6, 0.2, 0.2)):
    """Write records as a data set without frames: its lists and `clips.csv`; return the lists."""
    root.mkdir(parents=True, exist_ok=True)
    edges = (np.cumsum([0, *shares]) * len(records)).round().astype(int)
    lists = {split: root / f"{split}_videofolder.txt" for split in SPLITS}
    for split, start, end in zip(SPLITS, edges, edges[1:], strict=False):
        write_list(lists[split], records[start:end])
    if rows:
        write_table(root, rows)
    return lists


def drawn(num_clips, num_groups, num_classes, seed):
    rng = np.random.default_rng(seed)
    records = [
        ClipRecord(f"clip {n}", 10 + n, int(rng.integers(num_classes))) for n in range(num_clips)
    ]
    rows = [ClipRow(r.name, group=f"g{rng.integers(num_groups)}") for r in records]
    return records, rows


def complaint(act):
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(4, 60),
    st.integers(2, 12),
    st.integers(1, 3),
    st.sampled_from(["2", "3", "5", "groups"]),
    st.sampled_from([None, 0.0, 0.3]),
    st.integers(0, 10**6),
)
def test_every_clip_is_tested_once_and_groups_stay_whole(
    tmp_path_factory, num_clips, num_groups, num_classes, count, val_share, seed
):
    root = tmp_path_factory.mktemp("data")
    records, rows = drawn(num_clips, num_groups, num_classes, seed)
    lists, classes = write(root, records, rows), CLASSES[:num_classes]
    try:
        found = find_fold(root, lists, FoldChoice(f"1/{count}", seed, val_share), classes).count
        folds = [
            find_fold(root, lists, FoldChoice(f"{k}/{count}", seed, val_share), classes)
            for k in range(1, found + 1)
        ]
    except InputError:
        assert may_be_hopeless(records, rows, count)
        return
    tested = [record for fold in folds for record in fold.records["test"]]
    assert sorted(tested, key=str) == sorted(records, key=str)
    table = {row.clip: row for row in rows}
    for fold in folds:
        parts = {s: fold.records[s] for s in SPLITS if s != "val" or val_share != 0}
        assert find_overlaps(parts, table) == []
        assert set().union(*parts.values()) == set(records)
        assert all(parts.values())
        trained = {record.label for record in fold.records["train"]}
        assert trained == {record.label for record in records}
        assert fold.is_validated_apart == (val_share != 0)
    if count == "groups":
        assert len(folds) == len({row.group for row in rows})
        assert all(len({table[r.name].group for r in f.records["test"]}) == 1 for f in folds)


def may_be_hopeless(records, rows, count):
    """Say whether there are so few groups, of all clips or of a class, that there may be no way."""
    groups = {row.group for row in rows}
    pairs = {(record.label, row.group) for record, row in zip(records, rows, strict=True)}
    spread = Counter(label for label, _ in pairs)
    needed = 3 if count == "groups" else max(3, int(count))
    # One of two folds may hold all groups but one, from which no val list can be cut.
    return len(groups) < needed or min(spread.values()) < 4 or count == "2"


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.randoms(use_true_random=False), st.sampled_from(["4", "groups"]))
def test_the_order_of_the_lists_changes_nothing(tmp_path_factory, seed, random, count):
    root = tmp_path_factory.mktemp("data")
    records, rows = drawn(60, 14, 2, 3)
    choice = FoldChoice(f"2/{count}", seed)
    one = find_fold(root / "a", write(root / "a", records, rows), choice, CLASSES[:2])
    random.shuffle(records)
    random.shuffle(rows)
    lists = write(root / "b", records, rows, shares=(0.2, 0.2, 0.6))
    assert find_fold(root / "b", lists, choice, CLASSES[:2]).records == one.records


def test_folds_are_stratified_and_the_seed_chooses_among_them(tmp_path):
    records = [ClipRecord(f"c{n}", 9, int(n % 10 == 0)) for n in range(200)]
    lists = write(tmp_path, records)
    made = {}
    for seed in (None, 0, 1):
        folds = [
            find_fold(tmp_path, lists, FoldChoice(f"{k}/5", seed), CLASSES[:2]) for k in range(1, 6)
        ]
        made[seed] = [fold.records for fold in folds]
        for fold in folds:
            counts = {s: Counter(r.label for r in fold.records[s]) for s in SPLITS}
            assert abs(counts["test"][0] - 36) <= 1
            assert abs(counts["test"][1] - 4) <= 1
            assert abs(sum(counts["val"].values()) - VAL_SHARE * 200) <= 2
            assert abs(counts["val"][1] - 3) <= 1
    assert made[None] == made[0] != made[1]
    assert "by clip, as no groups are known" in folds[0].note


def test_the_same_content_is_never_on_two_sides(tmp_path):
    records = [ClipRecord(f"c{n:02}", 9, n % 2) for n in range(30)]
    # c00 and c15, c01 and c16, ... hold the same file, in groups of different names.
    rows = [ClipRow(r.name, group=f"g{n}", sha256=f"{n % 15}") for n, r in enumerate(records)]
    lists = write(tmp_path, records, rows)
    groups, is_known = group_clips({row.clip: row for row in rows}, records)
    assert (len(set(groups)), is_known) == (15, True)
    for k in range(1, 4):
        fold = find_fold(tmp_path, lists, FoldChoice(f"{k}/3"), CLASSES[:2])
        assert find_overlaps(fold.records, {row.clip: row for row in rows}) == []


def test_a_video_is_a_group_and_a_clip_without_either_its_own():
    records = [ClipRecord(name, 9, 0) for name in "abcd"]
    table = {"a": ClipRow("a", "x.mp4"), "b": ClipRow("b", "x.mp4", 50), "c": ClipRow("c")}
    groups, is_known = group_clips(table, records)
    assert is_known
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert group_clips({}, records)[1] is False


def test_lists_with_the_same_clips_are_pooled_once(tmp_path):
    records = [ClipRecord(f"c{n}", 9, n % 2) for n in range(12)]
    lists = write(tmp_path, records, shares=(0.5, 0.5, 0))
    for split in ("val", "test"):
        write_list(lists[split], records[6:], {"protocol": PUBLISHED})
    assert pool_lists(tmp_path, lists) == tuple(sorted(records, key=lambda r: r.name))
    lists["test"].unlink()
    assert len(pool_lists(tmp_path, lists)) == 12
    write_list(lists["test"], [ClipRecord("c7", 9, 0)])
    text = complaint(lambda: pool_lists(tmp_path, lists))
    assert "test_videofolder.txt says 'c7 9 0'" in text
    assert "val_videofolder.txt says 'c7 9 1'" in text
    for path in lists.values():
        path.unlink()
    assert "has no clip list to make folds of" in complaint(lambda: pool_lists(tmp_path, lists))


def test_folds_that_cannot_be_say_why(tmp_path):
    records = [ClipRecord(f"c{n}", 9, n // 6) for n in range(12)]
    rows = [ClipRow(r.name, group=f"g{n % 3}") for n, r in enumerate(records)]
    lists = write(tmp_path, records, rows)

    def find(text, **choice):
        return lambda: find_fold(tmp_path, lists, FoldChoice(text, **choice), CLASSES[:2])

    assert find("3/groups")().count == 3
    assert "belong to 3 groups: choose a fold from 1/groups to 3/groups" in complaint(
        find("4/groups")
    )
    assert "belong to 3 groups, 5 folds need 5" in complaint(find("1/5"))
    rows = [ClipRow(r.name, group=f"g{n % 2}") for n, r in enumerate(records)]
    write_table(tmp_path, rows)
    assert "belong to 2 groups, leaving one out needs 3" in complaint(find("1/groups"))
    assert find("1/groups", val_share=0.0)().count == 2
    write_table(tmp_path, [ClipRow(r.name, group=f"g{r.label}") for r in records])
    assert "class without training clips (class 'landed' is in 1 of 2 groups)" in complaint(
        find("1/groups", val_share=0.0)
    )
    # One group has as many clips as the other two: it is a fold of its own.
    write_table(
        tmp_path, [ClipRow(r.name, group=f"g{max(n % 6 - 3, 0)}") for n, r in enumerate(records)]
    )
    for k in (1, 2):
        assert "of 2 leaves one group, and the lists train and val need 2" in complaint(
            find(f"{k}/2")
        )
    assert find("1/2", val_share=0.0)().count == 2
    (tmp_path / "clips.csv").unlink()
    assert "no groups are known" in complaint(find("1/groups"))


def test_the_hash_of_folds_and_of_groups_tells_lists_and_groups(tmp_path):
    records, rows = drawn(60, 14, 2, 3)
    table = {row.clip: row for row in rows}

    def hashes(name, records, rows, **choice):
        lists = write(tmp_path / name, records, rows)
        folds = [find_fold(tmp_path / name, lists, FoldChoice(f"{k}/4", **choice), CLASSES[:2])
                 for k in range(1, 5)]  # fmt: skip
        return hash_folds(folds)

    first = hashes("a", records, rows)
    assert hashes("b", records[::-1], rows[::-1]) == first
    assert hashes("c", records, rows, val_share=0.3) != first
    assert hashes("d", records, rows, seed=5) != first
    # The clips in turn have the groups of others, as in a table that was corrected.
    turned = [ClipRow(r.name, group=row.group) for r, row in zip(records[::-1], rows, strict=True)]
    assert hashes("e", records, turned) != first
    groups = hash_groups(table, records)
    assert hash_groups(table, records[::-1]) == groups
    assert hash_groups({row.clip: row for row in turned}, records) != groups
    assert hash_groups({}, records) != groups


# ---------------------------------------------------------------- folds that were written


@pytest.fixture
def written(tmp_path):
    """Return a data set with lists of 2 folds, and its own lists."""
    records = [ClipRecord(f"c{n}", 9, n % 2) for n in range(12)]
    lists = write(tmp_path, records)
    for k, (test, val, train) in enumerate([(0, 6, 8), (6, 0, 2)], start=1):
        folder = tmp_path / "folds" / f"{k}of2"
        folder.mkdir(parents=True)
        parts = {"test": records[test : test + 6], "val": records[val : val + 2]}
        parts["train"] = records[train : train + 4]
        for split, part in parts.items():
            write_list(folder / f"{split}_videofolder.txt", part)
    return tmp_path, lists


def test_written_folds_are_used(written):
    root, lists = written
    fold = find_fold(root, lists, FoldChoice("2/2"), CLASSES[:2])
    for split in SPLITS:
        path = root / "folds" / "2of2" / f"{split}_videofolder.txt"
        assert fold.records[split] == load_records(path)
        assert fold.paths[split] == path
    assert "2of2" in fold.note
    assert find_fold(root, lists, FoldChoice("2/3"), CLASSES[:2]).paths == {}


def test_written_folds_can_be_trained_on_whole(written):
    root, lists = written
    fold = find_fold(root, lists, FoldChoice("1/2", val_share=0.0), CLASSES[:2])
    assert [r.name for r in fold.records["train"]] == ["c10", "c11", "c6", "c7", "c8", "c9"]
    assert fold.records["val"] == fold.records["train"]
    assert "val accuracies are those of the training clips" in fold.note


def test_options_of_new_folds_contradict_written_ones(written):
    root, lists = written
    for name, choice in (("--fold_seed 3", {"seed": 3}), ("--fold_val 0.2", {"val_share": 0.2})):
        text = complaint(lambda c=choice: find_fold(root, lists, FoldChoice("1/2", **c), CLASSES))
        assert f"{name} is for folds that are dealt anew" in text
    (root / "folds" / "1of2" / "val_videofolder.txt").unlink()
    text = complaint(lambda: find_fold(root, lists, FoldChoice("1/2"), CLASSES))
    assert "val_videofolder.txt is not there" in text


# ---------------------------------------------------------------- options and data sets


def options(root, *argv):
    where = ("--dataset", root.name, "--dataset_path", str(root.parent), "--workers", "0")
    small = ("--num_segments", "4", "--input_size", "16", "--batch-size", "2", "--device", "cpu")
    return opts.parse_train_args([*where, *small, *argv])


def test_a_data_set_is_opened_with_its_fold(make_dataset):
    root = make_dataset("jumps", clips=(6, 2, 4))
    tested = []
    for k in (1, 2, 3):
        args = options(root, "--fold", f"{k}/3")
        source = open_dataset(args)
        check_disjoint(source, args)
        assert source.classes == ("class 0", "class 1")
        assert source.lists == {}
        assert not source.is_published
        tested += source.records("test")
        clips = build_train_loader(args, source).dataset
        assert [clip.record for clip in clips.clips] == list(source.records("train"))
    assert len({record.name for record in tested}) == len(tested) == 12
    args = options(root, "--fold", "1/3", "--fold_val", "0")
    source = open_dataset(args)
    check_disjoint(source, args)
    assert source.records("val") == source.records("train")
    assert len(source.records("train")) == 8


def test_a_list_beside_an_adopted_fold_takes_its_place(make_dataset, tmp_path):
    root = make_dataset("jumps", clips=(6, 2, 4))
    args = options(root, "--fold", "1/3")
    source = open_dataset(args)
    seen = source.records("train")[:2]
    args.test_list = tmp_path / "mine.txt"
    write_list(args.test_list, seen)
    source = open_dataset(args)
    assert source.records("test") == seen
    text = complaint(lambda: check_disjoint(source, args))
    assert text.startswith("the train list of fold 1 of 3 and ")
    assert "mine.txt share 2 clips" in text


def test_the_built_in_data_set_has_folds(tmp_path):
    line = f"--dataset synthetic --dataset_path {tmp_path} --synthetic_size 64x36 --fold 2/2"
    args = opts.parse_pose_train_args([*line.split(), "--synthetic_clips", "4", "2", "2"])
    source = open_dataset(args)
    assert sum(len(source.records(split)) for split in SPLITS) == 8
    assert source.classes == ("landed", "fall")


def test_published_lists_become_honest_folds(make_dataset):
    root = make_dataset("jumps", clips=(6, 4, 4))
    records = load_records(root / "test_videofolder.txt")
    for split in ("val", "test"):
        write_list(root / f"{split}_videofolder.txt", records, {"protocol": PUBLISHED})
    source = open_dataset(options(root, "--fold", "1/2"))
    assert not source.is_published
    assert sum(len(source.records(split)) for split in SPLITS) == 10
    assert opening.fold_choice(options(root)) is None


def test_a_run_keeps_its_fold_and_is_tested_on_it(make_dataset, tmp_path, capsys):
    root = make_dataset("jumps", clips=(6, 2, 4))
    where = ["--dataset", "jumps", "--dataset_path", str(root.parent), "--workers", "0"]
    small = ["--num_segments", "4", "--batch-size", "2", "--epochs", "1", "--device", "cpu"]
    line = [*where, *small, "--fold", "1/3", "--experiment_path", str(tmp_path / "runs")]
    main_only_pose.main(line)
    (run,) = (tmp_path / "runs").glob("experiments/*/*/*")
    said = capsys.readouterr().out
    assert "fold 1 of 3: dealt anew from all 12 clips" in said
    assert "the data set's own split is not used" in said
    lists = {split: load_records(run / "lists" / f"{split}_videofolder.txt") for split in SPLITS}
    assert read_header(run / "lists" / "val_videofolder.txt")["fold"] == "1 of 3"
    assert sum(len(records) for records in lists.values()) == 12
    metrics = test_script.main(["--weights", str(run / "best.pth.tar"), "--workers", "0"])
    assert metrics.total == len(lists["test"]) == 4
    # The clips of another fold, and the data set's own test list, hold clips of the training.
    for lists_of in (["--fold", "2/3"], ["--test_list", str(run / "lists/train_videofolder.txt")]):
        argv = ["--weights", str(run / "best.pth.tar"), "--workers", "0", *lists_of]
        complaint(lambda argv=argv: test_script.main(argv))
    with pytest.raises(InputError, match="was trained with fold 1/3, this command says 2/3"):
        main_only_pose.main([*line, "--fold", "2/3", "--resume", str(run / "last.pth.tar")])
