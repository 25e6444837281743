"""Training and evaluation by several processes are those of one."""

import math

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine import TrainSettings, TrainState, train_one_epoch
from machine import StopRequest
from ops.batch import Batch
from ops.dealing import Deal
from ops.sync_norm import synchronise_norms
from optim import Schedule, build_optimizer
from scoring import evaluate
from tests.processes import Failed, in_processes

CPU = torch.device("cpu")
CLIPS = 13


class Net(nn.Module):
    """A norm, dropout and two layers on the keypoints of a clip."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.inner, self.norm = nn.Linear(12, 6), nn.BatchNorm1d(6)
        self.drop, self.outer = nn.Dropout(dropout), nn.Linear(6, 2)

    def forward(self, batch):
        x = Batch.of(batch).keypoints.flatten(0, 1).flatten(1)  # (B * T, 12)
        x = self.drop(torch.relu(self.norm(self.inner(x))))
        return self.outer(x.unflatten(0, (-1, 2)).mean(1))


class Loader:
    """The batches of one process, whose sampler says how they are dealt."""

    def __init__(self, deal, clips=CLIPS, bad=None):
        self.deal, self.clips, self.bad = deal, clips, bad
        self.batch_sampler = self

    def __len__(self):
        return self.deal.num_batches

    def __iter__(self):
        rng = torch.Generator().manual_seed(5)
        keypoints = torch.randn(self.clips, 2, 1, 4, 3, generator=rng)
        label = torch.randint(0, 2, (self.clips,), generator=rng)
        if self.bad is not None:
            keypoints[self.bad] = math.nan
        for step in range(self.deal.num_steps):
            for part in self.deal.parts(step):
                rows = slice(part.start, part.stop)
                names = tuple(f"clip{n}" for n in range(part.start, part.stop))
                yield Batch(keypoints=keypoints[rows], label=label[rows], clips=names)


class Notes:
    """An `engine.Keeper` that keeps nothing but notes."""

    def __init__(self):
        self.records = []

    def is_due(self):
        return False

    def save(self):
        raise AssertionError("it is not due")

    def note_non_finite(self, record):
        self.records.append(dict(record))


def settings(**changes):
    values = {
        "schedule": Schedule(4, 0, 0.05), "iter_size": 4, "clip_gradient": 1.0,
        "amp_dtype": None, "class_weights": torch.tensor([0.5, 2.0]), "seed": 3, "in_order": True,
    }  # fmt: skip
    return TrainSettings(**{**values, **changes})


def state_of(ranks, dropout=0.3, synced=False, micro_batch=None):
    torch.manual_seed(0)
    model = Net(dropout)
    if synced:
        synchronise_norms(model, None)
    optimizer = build_optimizer(model, "sgd", 0.05, 0.9, 0.01)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = TrainState(model, optimizer, scaler, micro_batch=micro_batch)
    if ranks.count > 1:
        state.replica = DistributedDataParallel(model)
    return state


def train(ranks, recipe, size=2, epochs=3, bad=None, **choices):
    state, notes = state_of(ranks, **choices), Notes()
    loader = Loader(Deal(CLIPS, size, recipe.iter_size, ranks.rank, ranks.count), bad=bad)
    losses = []
    for _ in range(epochs):
        stop = StopRequest()
        stop.alone = ranks.is_first
        result = train_one_epoch(state, loader, recipe, CPU, stop, lambda *_: None, ranks, notes)
        losses.append((result.loss, result.top1))
        state.next_epoch()
    weights = {name: value.clone() for name, value in state.model.state_dict().items()}
    return losses, weights, notes.records


def assert_same(one, other, *, bits):
    assert not isinstance(other, Failed), other.text
    for (loss, top1), (found, share) in zip(one[0], other[0], strict=True):
        assert found == pytest.approx(loss, rel=1e-6)
        assert share == top1
    for name, value in one[1].items():
        if bits and "running" not in name:
            assert torch.equal(value, other[1][name]), name
        assert torch.allclose(value.float(), other[1][name].float(), atol=1e-5), name


@pytest.mark.parametrize(
    ("count", "in_order"), [(2, True), (3, True), (4, True), (3, False), (4, False)]
)
def test_training_by_several_processes_is_that_of_one(count, in_order, tmp_path):
    """13 clips in steps of 4 x 2: the last step has three, one of a single clip."""
    recipe = settings(in_order=in_order)
    (alone,) = in_processes(1, train, tmp_path, recipe)
    for found in in_processes(count, train, tmp_path, recipe):
        assert_same(alone, found, bits=in_order)


def test_a_smaller_micro_batch_is_the_same_for_all(tmp_path):
    recipe = settings(iter_size=2)

    def split(ranks):
        return train(ranks, recipe, size=4, micro_batch=2)

    (alone,) = in_processes(1, split, tmp_path)
    for found in in_processes(2, split, tmp_path):
        assert_same(alone, found, bits=True)


@pytest.mark.parametrize(("pieces", "size"), [(1, 5), (1, 13), (2, 3)])
def test_norms_over_processes_make_up_for_cut_micro_batches(pieces, size, tmp_path):
    recipe = settings(iter_size=pieces)
    count = 2 * pieces

    def cut(ranks):
        if ranks.count == 1:
            return train(ranks, recipe, size=size, dropout=0.0)
        group = None
        if pieces > 1:
            for piece in range(pieces):
                made = torch.distributed.new_group([2 * piece, 2 * piece + 1])
                group = made if ranks.rank // 2 == piece else group
        return train_synced(ranks, group)

    def train_synced(ranks, group):
        state = state_of(ranks, dropout=0.0)
        synchronise_norms(state.model, group)
        state.replica = DistributedDataParallel(state.model)
        loader = Loader(Deal(CLIPS, size, pieces, ranks.rank, ranks.count))
        losses = []
        for _ in range(3):
            stop = StopRequest()
            result = train_one_epoch(state, loader, recipe, CPU, stop, lambda *_: None, ranks)
            losses.append((result.loss, result.top1))
            state.next_epoch()
        return losses, dict(state.model.state_dict()), []

    (alone,) = in_processes(1, cut, tmp_path)
    for found in in_processes(count, cut, tmp_path):
        assert_same(alone, found, bits=False)


@pytest.mark.parametrize("allowed", [0, 5])
def test_a_bad_clip_in_one_process_is_known_to_all(allowed, tmp_path):
    """No process takes the step; its clips are written down; the others are taken."""
    recipe = settings(skip_nonfinite=allowed)

    def work(ranks):
        return train(ranks, recipe, epochs=1, bad=3)  # in micro-batch 1 of step 0

    found = in_processes(2, work, tmp_path)
    (alone,) = in_processes(1, work, tmp_path)
    if not allowed:
        assert [one.kind for one in [*found, alone]] == ["NonFinite"] * 3
        return
    for _, weights, records in found:
        (record,) = records
        assert (record["epoch"], record["step"], record["left_out"]) == (0, 0, True)
        clips = [name for one in record["processes"] for name in one["clips"]]
        assert sorted(clips) == sorted(f"clip{n}" for n in range(8))
        owner = next(one for one in record["processes"] if "clip3" in one["clips"])
        assert "nan" in owner["losses"]
        assert all(torch.isfinite(value.float()).all() for value in weights.values())
    assert_same(alone, found[0], bits=True)


def scores(ranks, clips):
    model = state_of(ranks, dropout=0.5).model
    loader = Loader(Deal(clips, 2, ranks.count, ranks.rank, ranks.count), clips)
    found = evaluate(model, loader, CPU, ranks=ranks)
    return found.clips, found.labels, found.scores, found.loss


@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_by_several_processes_has_the_bits_of_one(count, tmp_path):
    def every_size(ranks):
        return [scores(ranks, clips) for clips in range(1, 18)]

    (alone,) = in_processes(1, every_size, tmp_path)
    for found in in_processes(count, every_size, tmp_path):
        for one, other in zip(alone, found, strict=True):
            assert one[0] == other[0]
            assert (one[1] == other[1]).all()
            assert (one[2] == other[2]).all()
            assert one[3] == other[3]
