"""What ours is measured against computes the published numbers, at the published cost."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.published_gsf import PublishedGSF, published_gsf
from ops.gsf import GSF
from tests.golden_gsf import assert_close, assert_gradients, load, on_golden_cases

VIEWS = {"view", "transpose", "permute", "slice", "select", "unsqueeze", "expand", "detach"}
VIEWS |= {"alias", "empty", "_unsafe_view", "split", "unbind", "as_strided", "squeeze"}


@on_golden_cases
def test_outputs_and_running_statistics(path):
    case, gsf = load(path)
    module = PublishedGSF(gsf)
    with torch.no_grad():
        assert_close(module.eval()(case["x"]), case["eval_out"])
        assert_close(module.train()(case["x"]), case["train_out"])
    for name in ("bn.running_mean", "bn.running_var"):
        assert_close(gsf.state_dict()[name], case[f"after_train.{name}"])


@on_golden_cases
@pytest.mark.parametrize("kind", ["sum", "ct"])
def test_gradients(path, kind):
    assert_gradients(path, kind, published_gsf)


def test_the_function_leaves_the_module_as_it_was():
    gsf = GSF(8, 2).train()
    before = copy.deepcopy(gsf.state_dict())
    published_gsf(gsf, torch.randn(4, 8, 3, 3))
    assert all(torch.equal(value, before[key]) for key, value in gsf.state_dict().items())


def test_untouched_channels_pass():
    x = torch.randn(4, 16, 3, 3)
    assert torch.equal(published_gsf(GSF(16, 2, 50), x)[:, 8:], x[:, 8:])


class Traffic(TorchDispatchMode):
    """Counts operations that compute or copy, and the elements that they read and write."""

    def __init__(self):
        super().__init__()
        self.kernels = self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ not in VIEWS:
            tensors = [v for v in tree_leaves((args, kwargs, out)) if isinstance(v, torch.Tensor)]
            self.kernels += 1
            self.elements += sum({id(t): t.numel() for t in tensors}.values())
        return out


def test_costs_what_the_published_module_costs():
    """GSP_FACTS: 31.2 to 32.1 F in 40 kernels forward, 64.8 to 65.8 F in 76 backward, 4 F saved."""
    gsf = GSF(256, 8)
    x = torch.randn(8, 256, 14, 14, requires_grad=True)
    saved = {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        out = published_gsf(gsf, x, track=True)
    with Traffic() as forward:
        published_gsf(gsf, x, track=True)
    with Traffic() as backward:
        out.backward(torch.ones_like(out))
    assert 30 < forward.elements / x.numel() < 32.1
    assert 36 <= forward.kernels <= 40
    assert 62 < backward.elements / x.numel() < 70
    assert 66 <= backward.kernels <= 76
    assert 3.9 < sum(saved.values()) / (4 * x.numel()) < 4.1
