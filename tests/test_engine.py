"""Steps, evaluation and checkpoints, on a toy network without files."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine import (
    TrainSettings,
    TrainState,
    deal_of,
    train_one_epoch,
)
from errors import InputError, Interrupted
from machine import StopRequest
from ops.batch import Batch
from optim import Schedule, build_optimizer
from results.metrics import Metrics
from scoring import evaluate

CPU = torch.device("cpu")


class Toy(nn.Module):
    """Logits from the mean keypoint of a clip, with dropout."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(3, 2)

    def forward(self, batch):
        return self.linear(self.drop(Batch.of(batch).keypoints.mean(dim=(1, 2, 3))))


class Order:
    """The part of EpochBatches that the engine uses."""

    def __init__(self, batches):
        self.batches, self.first = batches, 0

    def start(self, epoch, first_batch=0):
        self.first = first_batch

    def __len__(self):
        return len(self.batches)


class Loader:
    """Yields fixed batches from where its order was started."""

    def __init__(self, batches):
        self.batch_sampler = Order(batches)

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        return iter(self.batch_sampler.batches[self.batch_sampler.first :])


def batches(sizes, seed=0, views=1):
    rng = torch.Generator().manual_seed(seed)
    made = []
    for number, size in enumerate(sizes):
        keypoints = torch.randn(size * views, 2, 1, 4, 3, generator=rng)
        label = torch.randint(0, 2, (size,), generator=rng)
        names = tuple(f"clip{number}_{i}" for i in range(size))
        made.append(Batch(None, keypoints, label, names, views))
    return made


def settings(**changes):
    values = {
        "schedule": Schedule(4, 0, 0.1), "iter_size": 1, "clip_gradient": 1e9,
        "amp_dtype": None, "class_weights": None, "seed": 3,
    }  # fmt: skip
    return TrainSettings(**{**values, **changes})


def state_of(model, method="sgd"):
    optimizer = build_optimizer(model, method, 0.1, 0.9, 0.0)
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


def toy_state(dropout=0.0, method="sgd"):
    torch.manual_seed(0)
    return state_of(Toy(dropout), method)


def run_epoch(state, loader, recipe, progress=lambda done, total, loss: None, stop=None):
    loader.batch_sampler.start(state.epoch, state.step * recipe.iter_size)
    return train_one_epoch(state, loader, recipe, CPU, stop or StopRequest(), progress)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.0])])
def test_accumulated_gradient_equals_one_large_batch(weights):
    """Also when the last micro-batch is smaller, and with class weights."""
    parts = batches([3, 3, 1])
    whole = Batch(
        None,
        torch.cat([b.keypoints for b in parts]),
        torch.cat([b.label for b in parts]),
        sum((b.clips for b in parts), ()),
    )
    small, large = toy_state(), toy_state()
    run_epoch(small, Loader(parts), settings(iter_size=3, class_weights=weights))
    run_epoch(large, Loader([whole]), settings(class_weights=weights))
    for a, b in zip(small.model.parameters(), large.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_defect_20_the_logged_loss_is_the_mean_over_clips():
    parts = batches([3, 3, 1])
    state = toy_state()
    expected = [F.cross_entropy(state.model(b), b.label, reduction="none").detach() for b in parts]
    result = run_epoch(state, Loader(parts), settings(iter_size=3))
    assert result.loss == pytest.approx(float(torch.cat(expected).mean()), rel=1e-5)


def test_defect_21_an_odd_number_of_batches_leaks_nothing():
    """The last, smaller group takes its own step; the next epoch starts from zero gradients."""
    loader = Loader(batches([2, 2, 2]))
    state = toy_state()
    steps = []
    run_epoch(state, loader, settings(iter_size=2), lambda done, total, loss: steps.append(done))
    assert steps == [1, 2]
    assert deal_of(loader, 2).num_steps == 2
    state.next_epoch()
    again = copy.deepcopy(state)
    for p in state.model.parameters():
        p.grad = torch.full_like(p, 100.0)  # what a leak would leave behind
    run_epoch(state, loader, settings(iter_size=2))
    run_epoch(again, loader, settings(iter_size=2))
    for a, b in zip(state.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradient_is_clipped_to_the_norm():
    state = toy_state()
    before = [p.detach().clone() for p in state.model.parameters()]
    run_epoch(state, Loader(batches([4])), settings(clip_gradient=1e-3))
    moved = torch.cat(
        [(p.detach() - b).flatten() for p, b in zip(state.model.parameters(), before, strict=True)]
    )
    assert float(moved.norm()) == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_a_non_finite_gradient_takes_no_step_and_names_the_clips():
    bad = batches([2])[0]
    bad.keypoints[1] = torch.nan
    state = toy_state()
    before = [p.detach().clone() for p in state.model.parameters()]
    with pytest.raises(InputError, match="clip0_0, clip0_1") as error:
        run_epoch(state, Loader([bad]), settings())
    assert "\n" not in str(error.value)
    for a, b in zip(state.model.parameters(), before, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
@pytest.mark.parametrize("pause", [1, 2, 3])
def test_resume_equals_no_pause(pause, method):
    """Dropout, momentum, totals: bit for bit, through pack and unpack."""
    loader = Loader(batches([3, 2, 3, 2, 1]))
    recipe = settings(iter_size=2)
    straight = toy_state(0.5, method)
    for _ in range(2):
        expected = run_epoch(straight, loader, recipe)
        straight.next_epoch()

    paused = toy_state(0.5, method)
    stop = StopRequest()

    def ask(done, total, loss):
        if paused.epoch == 0 and done == pause:
            stop.signum = 15

    if pause < 3:
        with pytest.raises(Interrupted):
            run_epoch(paused, loader, recipe, ask, stop)
    else:
        run_epoch(paused, loader, recipe)
    packed = paused.pack()
    torch.manual_seed(99)
    resumed = toy_state(0.5, method)
    resumed.unpack(packed)
    for _ in range(2):
        result = run_epoch(resumed, loader, recipe)
        resumed.next_epoch()
    assert result == expected
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_defect_18_a_checkpoint_holds_the_optimizer(tmp_path):
    state = toy_state()
    run_epoch(state, Loader(batches([4])), settings())
    torch.save(state.pack(), tmp_path / "last.pth.tar")
    saved = torch.load(tmp_path / "last.pth.tar", weights_only=True)
    assert "momentum_buffer" in saved["optimizer"]["state"][0]
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth.tar"]


def test_views_of_a_clip_are_averaged():
    model = Toy().eval()
    (batch,) = batches([3], views=4)
    logits = model(batch).detach()
    scores = evaluate(model, Loader([batch]), CPU, most_rows=5)
    assert scores.scores.shape == (3, 2)
    assert np.allclose(scores.scores[1], logits[4:8].mean(0), atol=1e-6)
    soft = evaluate(model, Loader([batch]), CPU, softmax=True)
    assert np.allclose(soft.scores[1], logits[4:8].softmax(1).mean(0), atol=1e-6)


def test_every_clip_is_scored_once_and_in_order():
    parts = batches([2, 2, 1])
    scores = evaluate(Toy(), Loader(parts), CPU)
    assert scores.clips == ("clip0_0", "clip0_1", "clip1_0", "clip1_1", "clip2_0")
    assert scores.labels.tolist() == torch.cat([b.label for b in parts]).tolist()
    loss = F.cross_entropy(torch.tensor(scores.scores), torch.tensor(scores.labels))
    assert scores.loss == pytest.approx(float(loss), rel=1e-5)


def test_bf16_keeps_weights_and_loss_in_float32():
    state = toy_state()
    result = run_epoch(state, Loader(batches([4])), settings(amp_dtype=torch.bfloat16))
    assert np.isfinite(result.loss)
    assert next(state.model.parameters()).dtype == torch.float32


def test_the_loss_decides_between_equal_accuracies():
    state = toy_state()
    assert state.rank(0.8, 0.5)
    state.next_epoch()
    assert not state.rank(0.8, 0.6)
    assert not state.rank(0.7, 0.1)
    assert state.rank(0.8, 0.4)
    assert (state.best, state.best_loss, state.best_epoch) == (0.8, 0.4, 1)


def test_defect_15_a_test_of_one_clip_has_a_result():
    scores = evaluate(Toy(), Loader(batches([1])), CPU)
    metrics = Metrics.of(scores.labels, scores.scores)
    assert metrics.total == 1


def test_defect_22_class_weights_reach_the_loss():
    plain, weighted = toy_state(), toy_state()
    parts = batches([4, 4])
    run_epoch(plain, Loader(parts), settings())
    run_epoch(weighted, Loader(parts), settings(class_weights=torch.tensor([0.1, 3.0])))
    assert not torch.allclose(plain.model.linear.bias, weighted.model.linear.bias)


class TwoHeads(Toy):
    """Says the same twice in training, the second time with the other sign."""

    head_weights = (1.0, 0.25)

    def forward(self, batch):
        logits = super().forward(batch)
        return torch.stack((logits, -logits), dim=1) if self.training else logits


def test_a_network_of_several_classifiers_is_taught_the_weighted_sum_of_their_losses():
    torch.manual_seed(0)
    model = TwoHeads()
    state = TrainState(
        model, build_optimizer(model, "sgd", 0.1, 0.0, 0.0), torch.amp.GradScaler(enabled=False)
    )
    (batch,) = batches([6])
    copied = copy.deepcopy(model)
    logits = copied(batch)
    smooth = partial(F.cross_entropy, target=batch.label, label_smoothing=0.1)
    (smooth(logits[:, 0]) + 0.25 * smooth(logits[:, 1])).backward()
    result = run_epoch(state, Loader([batch]), settings(label_smoothing=0.1))
    for own, expected in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.allclose(own.grad, expected.grad, atol=1e-6)
    said = logits[:, 0].softmax(1) + 0.25 * logits[:, 1].softmax(1)
    assert result.top1 == pytest.approx(float((said.argmax(1) == batch.label).float().mean()))


def test_defect_08_no_gradient_is_left_to_grow():
    """Every parameter is the optimiser's, so each step starts from zero gradients."""
    state = toy_state()
    norms = []
    for _ in range(3):
        before = [p.detach().clone() for p in state.model.parameters()]
        run_epoch(state, Loader(batches([4])), settings(schedule=Schedule(4, 0, 1e-9)))
        norms.append(float(sum(p.grad.norm() for p in state.model.parameters())))
        assert all(
            torch.allclose(p, b, atol=1e-6)
            for p, b in zip(state.model.parameters(), before, strict=True)
        )
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)
