"""Steps that a GPU takes without the host waiting for them, and what they must refuse."""

import copy
import math
import time
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import engine
from engine import TrainSettings, TrainState, train_one_epoch
from errors import InputError, Interrupted
from machine import StopRequest
from ops.batch import Batch
from optim import Schedule, StepWatch, build_optimizer, is_fused
from scoring import TimedBatches, evaluate

CPU = torch.device("cpu")


class Line(nn.Module):
    """Logits from the mean keypoint of a clip."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, batch):
        return self.linear(batch.keypoints.mean(dim=(1, 2, 3)))


class Loader:
    """Yields fixed batches, each after `pause` seconds."""

    def __init__(self, batches, pause=0.0):
        self.batch_sampler, self.pause = batches, pause

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        for batch in self.batch_sampler:
            time.sleep(self.pause)
            yield batch


def batches(count, size=3):
    rng = torch.Generator().manual_seed(1)
    return [
        Batch(
            keypoints=torch.randn(size, 2, 1, 4, 3, generator=rng),
            label=torch.randint(0, 2, (size,), generator=rng),
            clips=tuple(f"clip{number}_{i}" for i in range(size)),
        )
        for number in range(count)
    ]


def state_of(method):
    torch.manual_seed(0)
    model = Line()
    optimizer = build_optimizer(model, method, 0.1, 0.9, 0.01)
    return TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))


def recipe(**changes):
    values = {
        "schedule": Schedule(4, 0, 0.1), "iter_size": 1, "clip_gradient": 20.0,
        "amp_dtype": None, "class_weights": None, "seed": 3,
    }  # fmt: skip
    return TrainSettings(**{**values, **changes})


def run(state, loader, progress=lambda done, total, loss: None, stop=None, **changes):
    stop = stop or StopRequest()
    return train_one_epoch(state, loader, recipe(**changes), CPU, stop, progress)


@pytest.fixture
def late(monkeypatch):
    """Make the engine treat this CPU as a device that is not waited for."""

    class Late(StepWatch):
        def __init__(self, optimizer, epoch, *, late, overflows):
            super().__init__(optimizer, epoch, late=True, overflows=overflows)

    monkeypatch.setattr(engine, "StepWatch", Late)


def weights_of(state):
    return torch.cat([p.detach().flatten().clone() for p in state.model.parameters()])


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_reading_late_changes_no_number(method, late, monkeypatch):
    losses = []
    one = state_of(method)
    result = run(one, Loader(batches(5)), lambda done, total, loss: losses.append(loss))
    monkeypatch.undo()
    other, expected = state_of(method), []
    assert run(other, Loader(batches(5)), lambda d, t, loss: expected.append(loss)) == result
    assert torch.equal(weights_of(one), weights_of(other))
    assert math.isnan(losses[0])
    assert losses[1:] == expected[:-1]  # of the step before
    assert expected[-1] == pytest.approx(result.loss, rel=1e-6)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
@pytest.mark.parametrize("bad", [0, 2, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_step_changes_nothing_and_is_named(value, bad, method, late):
    """Neither do those queued behind it; the last step of an epoch is read too."""
    parts = batches(5)
    parts[bad].keypoints[1] = value
    state, seen = state_of(method), []

    def note(done, total, loss):
        seen.append(weights_of(state))

    with pytest.raises(InputError) as error:
        run(state, Loader(parts), note)
    message = str(error.value)
    assert f"step {bad} (clips clip{bad}_0, clip{bad}_1, clip{bad}_2)" in message
    assert "\n" not in message
    good = state_of(method)
    before = [weights_of(good)]
    run(good, Loader(parts[:bad]), lambda *_: before.append(weights_of(good)))
    assert torch.equal(weights_of(state), before[bad])
    assert len(seen) <= bad + 1


def test_a_signal_does_not_save_a_bad_state(late):
    """The step before the signal was bad, and nobody has read it yet."""
    parts = batches(3)
    parts[1].keypoints[:] = math.nan
    state, stop = state_of("sgd"), StopRequest()

    def ask(done, total, loss):
        stop.signum = 15 if done == 2 else None

    with pytest.raises(InputError, match="step 1"):
        run(state, Loader(parts), ask, stop)


def test_a_signal_after_good_steps_interrupts(late):
    state, stop = state_of("sgd"), StopRequest()

    def ask(done, total, loss):
        stop.signum = 15 if done == 2 else None

    with pytest.raises(Interrupted):
        run(state, Loader(batches(3)), ask, stop)
    assert state.step == 2
    assert getattr(state.optimizer, "found_inf", None) is None


def test_another_error_is_not_hidden_by_what_is_unread(late):
    parts = batches(2)
    parts[0].keypoints[:] = math.nan

    def fail(done, total, loss):
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        run(state_of("sgd"), Loader(parts), fail)


class Syncs(TorchDispatchMode):
    """Counts what makes the host wait: numbers and sizes that it reads from a device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal.")
        Syncs.count += any(name in str(func) for name in names)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.0])])
def test_a_step_reads_nothing_from_the_device(weights, late, monkeypatch):
    """Whatever the number of steps: what is read is read at the end of the epoch."""
    # What stands for a copy that is on its way; on a GPU it is no wait.
    monkeypatch.setattr(StepWatch, "_read", lambda self, leave: None)
    counts = []
    for steps in (2, 9):
        Syncs.count = 0
        with Syncs():
            run(state_of("adamw"), Loader(batches(steps)), class_weights=weights)
        counts.append(Syncs.count)
    assert counts[0] == counts[1]


def test_evaluation_copies_once(monkeypatch):
    copies = []
    real = torch.Tensor.cpu

    def cpu(tensor, *args, **options):
        copies.append(tuple(tensor.shape))
        return real(tensor, *args, **options)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    scores = evaluate(Line(), Loader(batches(4)), CPU)
    assert copies == [(12, 2)]
    assert scores.scores.shape == (12, 2)


def test_the_watch_needs_a_kernel_that_can_be_told():
    slow = torch.optim.SGD(Line().parameters(), lr=0.1)
    assert not is_fused(slow)
    with pytest.raises(ValueError, match="fused"):
        StepWatch(slow, 0, late=True)


def test_waiting_for_data_is_measured():
    result = run(state_of("sgd"), Loader(batches(4), pause=0.05))
    assert 0.2 <= result.waited <= result.seconds
    assert result.waiting == pytest.approx(result.waited / result.seconds)
    quick = run(state_of("sgd"), Loader(batches(4)))
    assert quick.waited < 0.1


def test_time_spent_in_steps_is_no_waiting():
    loader = TimedBatches(Loader(batches(3)))
    for _ in loader:
        time.sleep(0.05)
    assert loader.waited < 0.05


# ---------------------------------------------------------------- the optimiser


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_a_fused_step_equals_the_loop_over_parameters(method):
    models = []
    for fused in (True, False):
        state = state_of(method)
        assert is_fused(state.optimizer)
        for group in state.optimizer.param_groups:
            group["fused"] = fused
        for _ in range(3):
            run(state, Loader(batches(5)))
        models.append(weights_of(state))
    assert torch.allclose(*models, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_an_older_checkpoint_goes_on(method):
    """Its optimiser looped over the parameters: the state is the same, the kernel is ours."""
    old = state_of(method)
    for group in old.optimizer.param_groups:
        group["fused"] = None
    run(old, Loader(batches(3)))
    packed = copy.deepcopy(old.pack())
    resumed = state_of(method)
    resumed.unpack(packed)
    assert is_fused(resumed.optimizer)
    run(old, Loader(batches(3)))
    run(resumed, Loader(batches(3)))
    assert torch.allclose(weights_of(old), weights_of(resumed), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_a_first_step_that_is_not_taken_leaves_nothing_behind(method):
    """torch's kernel takes the memory of new buffers as it finds it."""
    torch.manual_seed(0)
    weights = torch.randn(1000)
    ours, other = (nn.Parameter(weights.clone()) for _ in range(2))
    fused = build_optimizer(nn.ParameterList([ours]), method, 0.1, 0.9, 0.0)
    loop = type(fused)([other], lr=0.1, **({"momentum": 0.9} if method == "sgd" else {}))
    if method == "adamw":
        loop.param_groups[0]["weight_decay"] = 0.0
    for step in range(3):
        poison = [torch.full((1000,), 1e30) for _ in range(20)]
        del poison
        gradient = torch.full((1000,), float(step + 1))
        ours.grad, other.grad = gradient.clone(), gradient.clone()
        fused.found_inf = torch.tensor(float(step == 0))
        fused.step()
        if step:
            loop.step()
    assert torch.allclose(ours, other, atol=1e-6)


def test_a_parameter_may_get_its_first_gradient_late():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    optimizer = build_optimizer(layers, "sgd", 0.1, 0.9, 0.0)
    for layer in layers:
        optimizer.zero_grad(set_to_none=True)
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in layers.parameters())


class Keeper:
    """Takes note of steps that were not taken."""

    def __init__(self, is_due=False):
        self.records, self._is_due = [], is_due

    def is_due(self):
        return self._is_due

    def save(self):
        return None

    def note_non_finite(self, record):
        self.records.append(record)


@pytest.mark.parametrize(("bad", "is_due"), [(4, False), (1, True), (1, False)])
def test_a_step_told_late_is_written_down_wherever_it_is_told(bad, is_due, late):
    """In the next step, before a save, and at the end of the epoch."""
    made = batches(5)
    made[bad] = replace(made[bad], keypoints=made[bad].keypoints * math.nan)
    keeper = Keeper(is_due)
    with pytest.raises(InputError, match=f"step {bad} "):
        train_one_epoch(
            state_of("sgd"),
            Loader(made),
            recipe(),
            CPU,
            StopRequest(),
            lambda *_: None,
            None,
            keeper,
        )
    (record,) = keeper.records
    assert record["step"] == bad
    assert record["processes"][0]["clips"] == list(made[bad].clips)


def test_a_loss_scale_may_leave_out_some_steps_in_a_row_and_not_all():
    watch = StepWatch(state_of("sgd").optimizer, 0, late=False)
    loss, fine, bad = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(math.inf)

    def look(norm, step):
        watch.look(norm, loss, loss, step, ("clip",), may_skip=True)

    for step in range(20):
        look(bad, step)
    look(fine, 20)
    for step in range(24):
        look(bad, step)
    with pytest.raises(InputError, match="norm of its gradient inf"):
        look(bad, 24)
