"""The golden vectors of the published GSF, where the reference folder is at hand."""

from pathlib import Path

import pytest
import torch

from ops.gsf import GSF

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "reference" / "golden" / "gsf"
CASES = sorted(GOLDEN.glob("*.pt"))


def on_golden_cases(test):
    """Give a test every file of vectors as `path`."""
    test = pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)(test)
    reason = "the golden vectors of the published GSF are not here"
    return pytest.mark.skipif(not CASES, reason=reason)(test)


def load(path):
    """Return the vectors, and a module with their weights."""
    case = torch.load(path, weights_only=True)
    channels, num_segments, ratio = (int(v) for v in case["config"][:3])
    gsf = GSF(channels, num_segments, ratio)
    state = {k.removeprefix("sd."): v for k, v in case.items() if k.startswith("sd.")}
    gsf.load_state_dict(state)
    return case, gsf


def assert_close(ours, theirs, tolerance=1e-5):
    scale = max(1.0, theirs.abs().max().item())
    assert (ours - theirs).abs().max() < tolerance * scale


def assert_gradients(path, kind, run):
    """Compare the gradients of `run(gsf, x)` in training, for a sum ("sum") or a cotangent."""
    case, gsf = load(path)
    x = case["x"].requires_grad_()
    out = run(gsf.train(), x)
    cotangent = torch.ones_like(out)
    if kind == "ct":
        generator = torch.Generator().manual_seed(int(case["cotangent_seed"]))
        cotangent = torch.randn(out.shape, generator=generator)
    out.backward(cotangent)
    assert_close(x.grad, case[f"grad_x_{kind}"])
    for name, parameter in gsf.named_parameters():
        assert_close(parameter.grad, case[f"grad_{kind}.{name}"])
