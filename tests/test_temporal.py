"""Convolutions over time against the published formulation on (N, C, T, V)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ops.temporal import DilatedTCN, MultiScaleTCN, TemporalConv


def settled(module):
    """Return the module in evaluation, its batch norms with statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(torch.randn(norm.num_features, generator=generator) / 5)
            norm.running_var.copy_(1 + torch.rand(norm.num_features, generator=generator))
    return module.double().eval()


def features(channels=12, frames=11, joints=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, frames, joints, generator=generator, dtype=torch.float64)


def turned(x):
    return x.transpose(2, 3).contiguous(memory_format=torch.channels_last)


def reference_branch(branch, x, stride):
    """Run a branch of published modules on (N, C, T, V)."""
    for module in branch:
        if isinstance(module, TemporalConv):
            x = module.bn(module.conv(x))
        elif isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.ReLU):
            x = module(x)
        else:
            x = F.max_pool2d(x, (3, 1), (stride, 1), (1, 0))
    return x


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_temporal_conv_is_the_published_one(stride, dilation):
    unit = settled(TemporalConv(12, 8, 9, stride, dilation=dilation))
    x = features()
    expected = unit.bn(unit.conv(x))
    assert torch.allclose(unit(turned(x)).transpose(2, 3), expected)
    assert expected.shape[2] == -(-11 // stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 11])
def test_multi_scale_is_the_published_one(stride, frames):
    unit = settled(MultiScaleTCN(32, stride))
    x = features(32, frames)
    *scaled, plain = unit.branches
    y = torch.cat([*(reference_branch(b, x, stride) for b in scaled), plain(x)], dim=1)
    expected = unit.bn(unit.transform(y))
    assert torch.allclose(unit(turned(x)).transpose(2, 3), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frames", [1, 11])
def test_dilated_is_the_published_one(stride, frames):
    unit = settled(DilatedTCN(16, stride))
    x = features(16, frames)
    expected = torch.cat([reference_branch(b, x, stride) for b in unit.branches], dim=1).relu()
    assert torch.allclose(unit(turned(x)).transpose(2, 3), expected)


@pytest.mark.parametrize(("channels", "first", "others"), [(64, 14, 10), (128, 23, 21)])
def test_the_first_branch_takes_the_remainder(channels, first, others):
    unit = MultiScaleTCN(channels)
    widths = [branch[0].out_channels for branch in unit.branches[:5]]
    assert widths == [first, *[others] * 4]
    assert unit.branches[5].out_channels == others


@pytest.mark.parametrize("unit", [TemporalConv(12, 12), MultiScaleTCN(12), DilatedTCN(12)])
def test_training_takes_and_follows_the_statistics_of_the_batch(unit):
    before = {name: buffer.clone() for name, buffer in unit.named_buffers()}
    unit.train()(turned(features().float()))
    for name, buffer in unit.named_buffers():
        assert not torch.equal(buffer, before[name]), name


def test_joints_do_not_mix():
    for unit in (TemporalConv(12, 12), MultiScaleTCN(12), DilatedTCN(12)):
        x = features().float()
        moved = x.clone()
        moved[..., 3] += 1
        with torch.no_grad():
            change = (unit.eval()(turned(x)) - unit(turned(moved))).abs().sum(dim=(0, 1, 3))
        assert change[3] > 0
        assert change[[0, 1, 2, 4]].max() < 1e-4


def test_dropout_is_for_training():
    torch.manual_seed(0)
    unit = TemporalConv(12, 12, dropout=0.5)
    x = turned(features().float())
    assert (unit(x) == 0).float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(unit.eval()(x), unit(x))


def test_memory_order_of_the_input_changes_nothing():
    x = features().float().transpose(2, 3)
    for unit in (TemporalConv(12, 12), MultiScaleTCN(12), DilatedTCN(12)):
        unit.eval()
        others = (x.contiguous(), x.contiguous(memory_format=torch.channels_last))
        for other in others:
            assert torch.allclose(unit(x), unit(other), atol=1e-5)
