"""Tiny checkpoints, as a session saves them."""

import pytest
import torch

from checkpoints import CheckpointFolder
from errors import InputError
from models.reading import FORMAT, FORMAT_VERSION


def state(epoch: int = 0, **changes) -> dict:
    """Return what a session saves, tiny; every epoch has other numbers."""
    generator = torch.Generator().manual_seed(epoch)
    weight = torch.randn(3, 2, generator=generator)
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model": {"linear.weight": weight, "linear.count": torch.tensor(epoch)},
        "optimizer": {"state": {0: {"momentum_buffer": weight + 1}}, "param_groups": [{"lr": 0.1}]},
        "scaler": {},
        "epoch": epoch,
        "step": 0,
        "totals": torch.zeros(3),
        "best": 0.5,
        "best_loss": 0.25,
        "best_epoch": 0,
        "args": {"arch": "resnet18", "crop_scales": [1.0, 0.5], "fold": None},
        "classes": ["stands", "fälls"],
        "clips": {"train": torch.tensor([-(2**62), 5]), "val": torch.tensor([7])},
        "data": {"dataset": "FRFS", "lists": {"train": {"clips": 2, "sha256": "a" * 64}}},
        **changes,
    }


def same(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


def again(folder: CheckpointFolder) -> CheckpointFolder:
    """Return the folder as the next program sees it."""
    return CheckpointFolder(folder.path)


def equal(first, second) -> bool:
    """Say whether a network has the numbers of another."""
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in first.state_dict().items())


def message_of(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)
