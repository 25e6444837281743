"""The golden vectors of the skeleton zoo, where the reference folder is at hand."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "reference" / "golden" / "zoo"
needs_golden = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the golden vectors of the skeleton zoo are not here"
)


def load_case(name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a case: in0, out0 and, where there are two, in1, out1."""
    with np.load(FOLDER / f"{name}.npz") as case:
        return {key: torch.from_numpy(case[key]) for key in case.files}


def load_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Return the published names of a model and their shapes."""
    text = (FOLDER / "keys" / f"{name}.json").read_text(encoding="utf-8")
    return {key: tuple(shape) for key, shape in json.loads(text).items()}


def _drawn(key: str, value: torch.Tensor, small: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    drawn = torch.randn(value.shape, generator=generator)
    name = key.rsplit(".", 1)[-1]
    if name == "running_var":
        return 1 + 0.1 * drawn.abs()
    if name == "PA" or (name == "weight" and value.ndim == 1):
        return 1 + 0.1 * drawn
    if name == "alpha":
        return torch.full_like(value, 0.05)
    if value.ndim > 1:
        return (0.3 if small else 1.0) * drawn / math.sqrt(value[0].numel())
    return 0.1 * drawn


def fill(state: dict[str, torch.Tensor], small: bool = False) -> dict[str, torch.Tensor]:
    """Return the weights of the golden recipe for a state dict with published names.

    Args:
        state: names such as backbone.gcn.0.tcn.conv.weight and cls_head.fc.weight; graphs (names
            that end in .A) and whole numbers stay as they are.
        small: weights of 0.3 the size, as for the cases agcn and aagcn.
    """
    return {
        key: value
        if key.endswith(".A") or not value.is_floating_point()
        else _drawn(key, value, small)
        for key, value in state.items()
    }
