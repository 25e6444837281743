"""Batch norm over processes is batch norm over all of their clips."""

import pytest
import torch
from torch import nn

from ops.gsf import GSF
from ops.sync_norm import set_synced, synchronise_norms
from tests.processes import in_processes

SHAPES = {"2d": (5, 4, 3, 3), "1d": (5, 4, 6)}


def network(kind):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d if kind == "2d" else nn.BatchNorm1d
    model = nn.Sequential(norm(4), nn.ReLU(), norm(4))
    model[0].weight.data.uniform_(0.5, 2)
    return model


def clips(kind):
    return torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(1)) * 3 + 1


def run(model, x):
    x = x.clone().requires_grad_()
    out = model(x)
    (out * out.detach().cos()).sum().backward()
    grads = [p.grad for p in model.parameters()]
    return out.detach(), x.grad, grads, [b.clone() for b in model.buffers()]


def share(ranks, kind):
    model = network(kind)
    synchronise_norms(model, None)
    cut = {0: slice(0, 2), 1: slice(2, 5)}[ranks.rank]
    return run(model, clips(kind)[cut])


@pytest.mark.parametrize("kind", SHAPES)
def test_parts_together_are_the_whole(kind, tmp_path):
    """Output, gradients and running statistics, with parts of different sizes."""
    out, grad, grads, buffers = run(network(kind), clips(kind))
    first, second = in_processes(2, share, tmp_path, kind)
    assert torch.allclose(torch.cat([first[0], second[0]]), out, atol=1e-5)
    assert torch.allclose(torch.cat([first[1], second[1]]), grad, atol=1e-5)
    for whole, a, b in zip(grads, first[2], second[2], strict=True):
        assert torch.allclose(a + b, whole, atol=1e-4)
    for part in (first, second):
        for whole, own in zip(buffers, part[3], strict=True):
            assert torch.allclose(own.float(), whole.float(), atol=1e-5)


def test_names_and_tensors_stay():
    model = nn.Sequential(GSF(8, 2), nn.BatchNorm2d(8))
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    synchronise_norms(model, None)
    assert not {type(norm) for norm in (model[0].bn, model[1])} & {nn.BatchNorm2d}
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_plain_batch_norm(training):
    plain, synced = network("2d").train(training), network("2d").train(training)
    synchronise_norms(synced, None)
    set_synced(synced, False)
    for a, b in zip(run(plain, clips("2d")), run(synced, clips("2d")), strict=True):
        for x, y in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
            assert torch.equal(x, y)
