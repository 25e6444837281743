"""What the Triton kernels compute, by Triton's interpreter: `test_gsf_cuda.py` runs this file.

The interpreter is chosen when Triton is imported, so this needs a process of its own, with
TRITON_INTERPRET=1. Blocks are interpreted one by one: inputs are small, and so is the number of
programs that sums are split for.
"""

import pytest
import torch

from benchmarks.published_gsf import published_gsf
from ops import gsf_cuda
from ops.gsf import GSF
from ops.gsf_cuda import launch, layout
from ops.gsf_plain import GSFWeights
from tests.golden_gsf import CASES, assert_gradients, load

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    monkeypatch.setattr(layout, "WANTED_PROGRAMS", 16)


def module(channels, num_segments, *, training):
    """A module in which no parameter or statistic has a special value."""
    torch.manual_seed(channels + num_segments)
    gsf = GSF(channels, num_segments).train(training)
    with torch.no_grad():
        gsf.bn.running_mean.normal_()
        gsf.bn.running_var.uniform_(0.5, 2)
        gsf.bn.weight.uniform_(0.5, 2)
        gsf.bn.bias.normal_()
        gsf.conv3D.weight.mul_(3)
    return gsf


def weights_of(gsf):
    convs = gsf.channel_conv1, gsf.channel_conv2
    return GSFWeights(
        gsf.bn.weight,
        gsf.bn.bias,
        None if gsf.training else (gsf.bn.running_mean, gsf.bn.running_var),
        gsf.bn.eps,
        gsf.conv3D.weight.unflatten(0, (2, 1)).squeeze(1),
        gsf.conv3D.bias,
        torch.stack([c.weight for c in convs]),
        torch.stack([c.bias for c in convs]),
    )


def fused(gsf, x):
    assert gsf_cuda.can_run(x)
    return gsf_cuda.apply_gsf(x, weights_of(gsf), gsf.num_segments)[0]


def exactly(gsf, x):
    """The published order of computation, in double precision."""
    return published_gsf(gsf.double(), x.double())


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    scale = max(1.0, theirs.abs().max().item())
    assert (ours.double() - theirs.double()).abs().max() < tolerance * scale


def assert_same(gsf, x, tolerance):
    """Output and every gradient, against double precision."""
    x = x.requires_grad_()
    cotangent = torch.randn(x.shape).to(x.dtype)
    out = fused(gsf, x)
    assert out.dtype == x.dtype
    ours = torch.autograd.grad(out, [x, *gsf.parameters()], cotangent)
    assert [g.dtype for g in ours[1:]] == [p.dtype for p in gsf.parameters()]
    twin = x.detach().double().requires_grad_()
    expected = exactly(gsf, twin)
    theirs = torch.autograd.grad(expected, [twin, *gsf.parameters()], cotangent.double())
    assert_close(out, expected, tolerance)
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our, their, tolerance)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("clips", "channels", "num_segments", "size", "layout", "training"),
    [
        (2, 8, 3, (5, 3), torch.contiguous_format, True),
        (2, 12, 3, (3, 5), LAST, True),
        (1, 8, 2, (1, 4), LAST, False),
        (1, 4, 1, (1, 1), torch.contiguous_format, False),
        (1, 136, 2, (9, 8), torch.contiguous_format, True),  # several blocks of everything
    ],
    ids=["nchw", "nhwc", "row", "one", "blocks"],
)
def test_equals_the_published_formulation(clips, channels, num_segments, size, layout, training):
    gsf = module(channels, num_segments, training=training)
    x = torch.randn(clips * num_segments, channels, *size).to(memory_format=layout)
    assert_same(gsf, x, 2e-6)


@pytest.mark.parametrize(
    ("dtype", "layout", "tolerance"),
    [(torch.bfloat16, LAST, 0.02), (torch.float16, torch.contiguous_format, 0.003)],
)
def test_half_precision(dtype, layout, tolerance):
    gsf = module(8, 3, training=True)
    x = torch.randn(3, 8, 4, 3).to(dtype).to(memory_format=layout)
    assert_same(gsf, x, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [path for path in CASES if path.stem.endswith("_t8_r100")], ids=lambda p: p.stem
)
def test_published_vectors(path):
    case, gsf = load(path)
    with torch.no_grad():
        assert_close(fused(gsf.eval(), case["x"]), case["eval_out"], 1e-5)
        assert_close(fused(gsf.train(), case["x"]), case["train_out"], 1e-5)
    assert_gradients(path, "ct", fused)


def test_statistics_of_a_batch_far_from_zero():
    x = 1000 + torch.randn(5, 20, 7, 9)
    mean, var = launch.moments(x)
    expected_var, expected_mean = torch.var_mean(x.double(), dim=(0, 2, 3), correction=0)
    assert_close(mean, expected_mean, 1e-6)
    assert_close(var, expected_var, 1e-5)
    assert_close(launch.moments(x.to(memory_format=LAST))[1], expected_var, 1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_evaluation_with_what_follows(layout):
    gsf = module(12, 2, training=False)
    x = torch.randn(2, 12, 3, 4).to(memory_format=layout)
    scale, offset, residual = torch.randn(12), torch.randn(12), torch.randn(2, 12, 3, 4)
    args = weights_of(gsf), 2
    plain = gsf_cuda.infer_gsf(x, *args)
    alone = gsf_cuda.infer_gsf(x, *args, relu=True)
    both = gsf_cuda.infer_gsf(x, *args, scale, offset, residual, relu=True)
    assert not plain.requires_grad
    expected = exactly(gsf, x)
    assert plain.is_contiguous(memory_format=layout)
    assert_close(plain, expected, 2e-6)
    assert_close(alone, expected.relu(), 2e-6)
    scaled = expected * scale[:, None, None] + offset[:, None, None]
    assert_close(both, (scaled + residual).relu(), 2e-6)


# ---------------------------------------------------------------- inputs of other kinds


def test_views_and_expanded_gradients_need_no_copy():
    gsf = module(8, 2, training=True)
    whole = torch.randn(2, 12, 3, 4).to(memory_format=LAST)
    x = whole[:, :8].requires_grad_()
    out = fused(gsf, x)
    assert torch.equal(out, fused(gsf, x.detach().contiguous()))
    ones = torch.ones(()).expand_as(out)
    grad = torch.autograd.grad(out, x, ones, retain_graph=True)[0]
    assert torch.equal(grad, torch.autograd.grad(out, x, ones.contiguous())[0])


def test_rows_with_gaps_are_refused_and_such_gradients_copied():
    gsf = module(8, 2, training=True)
    x = torch.randn(2, 8, 3, 4)
    assert not gsf_cuda.can_run(torch.randn(2, 8, 3, 8)[..., ::2][..., :3])
    cotangent = torch.randn(2, 8, 3, 6)[..., :4]
    out = fused(gsf, x.requires_grad_())
    grad = torch.autograd.grad(out, x, cotangent, retain_graph=True)[0]
    assert torch.equal(grad, torch.autograd.grad(out, x, cotangent.contiguous())[0])


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, of inf - inf
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_comes_out(value):
    gsf = module(8, 3, training=False)
    x = torch.randn(3, 8, 3, 3)
    x[0, 2, 1, 1] = value
    with torch.no_grad():
        out, expected = fused(gsf, x), published_gsf(gsf, x)
    assert not out.isfinite().all()
    assert torch.equal(out.isfinite(), expected.isfinite())
    assert_close(out[expected.isfinite()], expected[expected.isfinite()], 2e-6)


def test_equal_inputs_give_equal_bits():
    gsf = module(8, 2, training=True)
    x = torch.randn(2, 8, 3, 3, requires_grad=True)
    runs = []
    for _ in range(2):
        out = fused(gsf, x)
        runs.append([out, *torch.autograd.grad(out.square().sum(), [x, *gsf.parameters()])])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_returns_the_statistics_that_it_used():
    x = torch.randn(2, 8, 3, 4)
    gsf = module(8, 2, training=True)
    _, mean, var = gsf_cuda.apply_gsf(x, weights_of(gsf), 2)
    assert_close(mean, x.mean((0, 2, 3)), 1e-6)
    assert_close(var, x.var((0, 2, 3), correction=0), 1e-6)
    assert not mean.requires_grad
    _, mean, var = gsf_cuda.apply_gsf(x, weights_of(gsf.eval()), 2)
    assert mean is gsf.bn.running_mean
    assert var is gsf.bn.running_var


def test_second_derivatives_are_refused_with_a_way_out():
    gsf = module(8, 2, training=False)
    x = torch.randn(2, 8, 2, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r'within ops\.gsf\.formulation\("plain"\)'):
        torch.autograd.grad(fused(gsf, x).sum(), x, create_graph=True)
