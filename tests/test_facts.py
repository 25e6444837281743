"""What a checkpoint keeps of its data."""

import random

from datasets.catalogue import DatasetRow
from datasets.clip_table import ClipRow, write_table
from datasets.facts import data_facts, hash_records
from datasets.records import ClipRecord

ROW = DatasetRow("mine", "mine", 2)
TRAIN = [ClipRecord("a", 30, 0), ClipRecord("b", 60, 1), ClipRecord("c", 90, 1)]


def test_rates_of_the_table_make_seconds(tmp_path):
    rates = {"a": 30.0, "b": 15.0, "c": 0.0}
    write_table(tmp_path, [ClipRow(name, num_frames=1, fps=fps) for name, fps in rates.items()])
    facts = data_facts(ROW, tmp_path, {"train": TRAIN, "val": TRAIN[:1]})
    assert facts["clip_frames"] == 60
    assert facts["clip_seconds"] == (1 + 4) / 2  # the clip without a rate is left out
    assert facts["fps"] == 22.5
    assert {split: found["clips"] for split, found in facts["lists"].items()} == {
        "train": 3,
        "val": 1,
    }


def test_without_any_rate_there_are_no_seconds(tmp_path):
    facts = data_facts(ROW, tmp_path, {"train": TRAIN})
    assert (facts["clip_seconds"], facts["fps"]) == (None, None)


def test_the_rate_of_the_catalogue_counts_where_the_table_says_none(tmp_path):
    row = DatasetRow("mine", "mine", 2, fps=10.0)
    assert data_facts(row, tmp_path, {"train": TRAIN})["clip_seconds"] == 6


def test_a_hash_knows_the_clips_and_not_their_order():
    shuffled = random.Random(0).sample(TRAIN, len(TRAIN))
    assert hash_records(shuffled) == hash_records(TRAIN)
    for changed in (ClipRecord("a", 31, 0), ClipRecord("a", 30, 1), ClipRecord("x", 30, 0)):
        assert hash_records([changed, *TRAIN[1:]]) != hash_records(TRAIN)
