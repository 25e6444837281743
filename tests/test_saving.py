"""When checkpoints are written, and that the best one is never newer in memory than on disk."""

import json

import pytest
import torch

import saving
from errors import InputError
from saving import Saver


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


class Folder:
    """Takes note of what is written; each writing takes `cost` seconds."""

    def __init__(self, path, clock, cost):
        self.path, self.clock, self.cost, self.written = path, clock, cost, []

    def save_last(self, payload):
        self.clock.now += self.cost
        self.written.append(("last", float(payload["model"]["w"])))

    def save_best(self, payload):
        self.clock.now += self.cost
        self.written.append(("best", float(payload["model"]["w"])))
        assert "optimizer" not in payload


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(saving, "time", clock)
    return clock


@pytest.fixture
def make(tmp_path, clock):
    def make(minutes=5.0, cost=0.1):
        weight = torch.zeros(())
        folder = Folder(tmp_path, clock, cost)
        saver = Saver(folder, minutes, lambda: {"model": {"w": weight}, "optimizer": {"m": weight}})
        return saver, folder, weight

    return make


def test_saving_takes_one_per_cent_of_the_time_at_most(make, clock):
    saver, folder, _ = make(cost=0.1)
    saver.save()
    start = clock.now
    for _ in range(2000):  # epochs of 50 milliseconds
        clock.now += 0.05
        saver.end_epoch()
    assert 5 <= len(folder.written) <= 12
    assert saver.spent <= 0.011 * (clock.now - start + 20)


def test_long_epochs_are_saved_each(make, clock):
    saver, folder, _ = make(cost=0.1)
    for _ in range(5):
        clock.now += 60
        saver.end_epoch()
    assert folder.written == [("last", 0.0)] * 5


def test_within_an_epoch_it_is_due_after_the_longest_time(make, clock):
    saver, folder, _ = make(minutes=2.0)
    clock.now += 119
    assert not saver.is_due()
    clock.now += 2
    assert saver.is_due()
    saver.save()
    assert not saver.is_due()
    always, _, _ = make(minutes=0.0)
    assert always.is_due()


def test_the_best_is_written_before_any_newer_state_and_as_it_was(make, clock):
    saver, folder, weight = make(cost=1.0)
    saver.save()
    weight.fill_(1.0)
    saver.keep_best()  # one second of a few: too dear
    weight.fill_(2.0)
    assert folder.written == [("last", 0.0)]
    saver.save()
    assert folder.written == [("last", 0.0), ("best", 1.0), ("last", 2.0)]
    clock.now += 1000
    weight.fill_(3.0)
    saver.keep_best()
    assert folder.written[-1] == ("best", 3.0)
    saver.save()
    assert folder.written[-1] == ("last", 3.0)


def test_a_process_that_writes_nothing(tmp_path):
    saver = Saver(None, 0.0, dict)
    saver.save()
    saver.keep_best()
    saver.end_epoch()
    saver.note_non_finite({"step": 1})
    assert not saver.is_due()
    assert list(tmp_path.iterdir()) == []


def test_steps_that_were_not_taken_are_written_down(make, tmp_path):
    saver, _, _ = make()
    for step in (3, 5):
        saver.note_non_finite({"step": step, "clips": ["a \n b"]})
    lines = (tmp_path / "nonfinite.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 5]


def test_a_rescue_does_not_hide_why_the_run_ends(make, monkeypatch):
    saver, folder, _ = make()

    def full(_):
        raise InputError("the disk is full")

    monkeypatch.setattr(folder, "save_last", full)
    saver.rescue()
    with pytest.raises(InputError):
        saver.save()


def test_a_best_that_was_only_copied_does_not_make_writing_look_cheap(make, clock):
    saver, folder, _ = make(cost=0.5)
    saver.save()
    clock.now += 60
    for _ in range(20):
        saver.keep_best()
        saver.end_epoch()
        clock.now += 1
    assert len(folder.written) == 1
