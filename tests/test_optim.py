import numpy as np
import pytest
import torch
from torch import nn

from errors import InputError
from models import build_model
from optim import Schedule, balanced_class_weights, build_optimizer, parameter_groups
from opts import parse_train_args


def test_schedule_equals_the_published_one():
    # GSP: epochs 120, warm-up 10, lr 0.01; values measured from the published code.
    published = {
        0: 0.001, 1: 0.0019, 5: 0.0055, 9: 0.0091, 10: 0.01, 11: 0.009998, 12: 0.009992,
        60: 0.005712, 110: 2.03e-4, 119: 2.04e-6,
    }  # fmt: skip
    for epoch, rate in published.items():
        assert Schedule(120, 10, 0.01).rate(epoch) == pytest.approx(rate, rel=3e-3)


def test_schedule_of_a_run_shorter_than_its_warm_up():
    assert Schedule(1, 10, 0.01).rate(0) == pytest.approx(0.001)
    assert Schedule(3, 0, 0.01).rate(0) == pytest.approx(0.01)


def test_a_cosine_by_steps_falls_within_an_epoch_to_zero_at_the_end():
    schedule = Schedule(16, 0, 0.1, "cosine_step")
    rates = [schedule.rate(step // 10, step % 10 / 10) for step in range(160)]
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(160) / 160))
    assert np.allclose(rates, expected)
    assert Schedule(16, 0, 0.1).rate(3, 0.9) == Schedule(16, 0, 0.1).rate(3)


def test_a_rate_by_milestones_falls_to_a_tenth_at_each():
    schedule = Schedule(16, 0, 0.1, "multistep", (2, 10))
    rates = [schedule.rate(epoch) for epoch in range(16)]
    assert rates == pytest.approx([0.1] * 2 + [0.01] * 8 + [0.001] * 6)


def test_nesterov_and_decay_of_all_are_those_of_torch():
    torch.manual_seed(0)
    ours, reference = nn.Linear(3, 2), nn.Linear(3, 2)
    reference.load_state_dict(ours.state_dict())
    one = build_optimizer(ours, "sgd", 0.1, 0.9, 0.01, nesterov=True, decay_all=True)
    two = torch.optim.SGD(reference.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=True)
    for _ in range(4):
        for model, optimizer in ((ours, one), (reference, two)):
            optimizer.zero_grad()
            model(torch.ones(5, 3)).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, reference.weight, atol=1e-6)
    assert torch.allclose(ours.bias, reference.bias, atol=1e-6)


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_defect_07_every_parameter_is_in_exactly_one_group():
    model = small_network()
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))


def test_defect_09_norms_and_biases_do_not_decay():
    model = small_network()
    decayed, free = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert len(free["params"]) == 4


def test_decay_reaches_weights_alone():
    model = small_network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, "sgd", 0.5, 0.0, 0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"0.weight", "3.weight"}


def test_frozen_parameters_are_left_out():
    model = small_network()
    model[0].requires_grad_(False)
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert len(grouped) == 4


def test_balanced_weights_give_classes_equal_sums():
    labels = np.array([0, 0, 0, 1, 2, 2])
    weights = balanced_class_weights(labels, 3).numpy()
    assert np.bincount(labels) * weights == pytest.approx([2.0, 2.0, 2.0])


def test_balanced_weights_need_a_clip_of_each_class():
    with pytest.raises(InputError, match="class 1 has no clip in the training list"):
        balanced_class_weights(np.array([0, 0, 2]), 3)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--early_fusion_poses"],
        ["--late_fusion_poses"],
        ["--late_fusion_poses_fast", "--pose_model", "gcn"],
        ["--late_fusion_poses_attention"],
    ],
)
def test_defect_07_every_model_is_wholly_optimised(flags):
    line = "--dataset synthetic --arch resnet18 --width 8 --gsf --pretrained none"
    model = build_model(parse_train_args([*line.split(), *flags]), num_classes=2)
    grouped = [p for group in parameter_groups(model, 0.1) for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))
