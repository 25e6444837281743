"""GSF computes the published numbers, in another order."""

import copy
import time

import pytest
import torch
from torch import nn

from benchmarks.published_gsf import published_gsf
from errors import InputError
from ops.gsf import GSF, formulation
from tests.golden_gsf import assert_close, assert_gradients, load, on_golden_cases

SHAPES = [(8, 1, 100), (8, 2, 100), (16, 5, 100), (24, 4, 50), (20, 3, 40)]


@pytest.fixture(params=["eager", "fused", "plain"])
def way(request):
    """Force one formulation for a test."""
    if request.param == "fused":
        pytest.importorskip("numba")
    with formulation(request.param):
        yield request.param


def random_gsf(channels: int, num_segments: int, ratio: int) -> GSF:
    """A module in which no parameter or statistic has a special value."""
    torch.manual_seed(channels + num_segments)
    gsf = GSF(channels, num_segments, ratio)
    with torch.no_grad():
        gsf.bn.running_mean.normal_()
        gsf.bn.running_var.uniform_(0.5, 2)
        gsf.bn.weight.uniform_(0.5, 2)
        gsf.bn.bias.normal_()
    return gsf


def gradients(gsf, x, function, cotangent):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((function(x) * cotangent).sum(), [x, *gsf.parameters()])


# ---------------------------------------------------------------- the published vectors


@on_golden_cases
def test_golden_outputs_and_running_statistics(path, way):
    case, gsf = load(path)
    with torch.no_grad():
        assert_close(gsf.eval()(case["x"]), case["eval_out"])
        assert_close(gsf.train()(case["x"]), case["train_out"])
    after = {k: v for k, v in case.items() if k.startswith("after_train.")}
    assert after
    for key, value in after.items():
        assert_close(gsf.state_dict()[key.removeprefix("after_train.")], value)


@on_golden_cases
@pytest.mark.parametrize("kind", ["sum", "ct"])
def test_golden_gradients(path, kind, way):
    assert_gradients(path, kind, lambda gsf, x: gsf(x))


# ---------------------------------------------------------------- against the plain formulation


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "num_segments", "ratio"), SHAPES)
def test_equals_the_published_formulation(
    channels, num_segments, ratio, memory_format, training, way
):
    if way == "fused" and memory_format == torch.channels_last:
        pytest.skip("the fused formulation takes contiguous maps")
    gsf = random_gsf(channels, num_segments, ratio).train(training)
    x = torch.randn(2 * num_segments, channels, 5, 6).to(memory_format=memory_format)
    cotangent = torch.randn(x.shape)
    with torch.no_grad():
        expected = published_gsf(gsf, x)
        out = gsf(x)
    assert_close(out, expected, 1e-6)
    theirs = gradients(gsf, x, lambda v: published_gsf(gsf, v), cotangent)
    for ours, other in zip(gradients(gsf, x, gsf, cotangent), theirs, strict=True):
        assert_close(ours, other)


def test_keeps_channels_last():
    x = torch.randn(4, 8, 5, 6).to(memory_format=torch.channels_last)
    assert GSF(8, 2)(x).is_contiguous(memory_format=torch.channels_last)


def test_gradients_in_double_precision():
    gsf = random_gsf(8, 3, 100).double()
    names = [name for name, _ in gsf.named_parameters()]
    x = torch.randn(3, 8, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(x, *parameters):
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(gsf, values, (x,))

    assert torch.autograd.gradcheck(run, (x, *gsf.parameters()))


def test_is_much_faster_than_the_published_formulation():
    # Measured 5 times and more; 2 leaves room for a busy machine.
    gsf = GSF(1024, 8)
    x = torch.randn(8, 1024, 14, 14, requires_grad=True)
    threads = torch.get_num_threads()

    def seconds(function):
        times = []
        for _ in range(3):
            start = time.process_time()
            function(x).sum().backward()
            times.append(time.process_time() - start)
        return min(times)

    torch.set_num_threads(1)
    try:
        ratio = seconds(lambda v: published_gsf(gsf, v)) / seconds(gsf)
    finally:
        torch.set_num_threads(threads)
    assert ratio > 2


# ---------------------------------------------------------------- reach


def test_a_frame_reaches_its_neighbours_and_no_other_clip(way):
    # Gate, shift and fusion look one step away each: t-3..t+2 see frame t in the first group,
    # t-2..t+3 in the second.
    gsf = random_gsf(8, 8, 100).eval()
    x = torch.randn(16, 8, 4, 4)
    moved = x.clone()
    moved[4] += 1
    with torch.no_grad():
        changed = (gsf(moved) - gsf(x)).abs().amax(dim=(2, 3)) > 1e-6  # (16, 8)
    first, second = changed[:, :4].any(dim=1), changed[:, 4:].any(dim=1)
    assert first.nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6]
    assert second.nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7]


def test_untouched_channels_pass(way):
    gsf = random_gsf(16, 2, 50)
    x = torch.randn(4, 16, 3, 3)
    assert torch.equal(gsf(x)[:, 8:], x[:, 8:])


# ---------------------------------------------------------------- modes


def test_autocast_runs_in_the_type_of_its_input():
    gsf = random_gsf(16, 4, 100)
    x = torch.randn(8, 16, 6, 6)
    expected = gsf(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = gsf(x.bfloat16().requires_grad_())
        half.float().sum().backward()
        full = gsf(x)
    assert half.dtype == torch.bfloat16
    assert full.dtype == torch.float32
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gsf.parameters())


def test_all_parameters_in_low_precision():
    gsf = random_gsf(16, 4, 100).eval()
    x = torch.randn(8, 16, 6, 6)
    expected = gsf(x)
    out = copy.deepcopy(gsf).bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_compiles_in_one_graph():
    gsf = random_gsf(8, 2, 100)
    x, cotangent = torch.randn(4, 8, 3, 3), torch.randn(4, 8, 3, 3)
    compiled = torch.compile(gsf, backend="aot_eager", fullgraph=True)
    eager = gradients(gsf, x, gsf, cotangent)
    for ours, other in zip(gradients(gsf, x, compiled, cotangent), eager, strict=True):
        assert_close(ours, other)


def test_a_copy_shares_nothing():
    gsf = random_gsf(8, 2, 100)
    twin = copy.deepcopy(gsf)
    x = torch.randn(4, 8, 3, 3)
    with torch.no_grad():
        before = gsf.eval()(x)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(gsf(x), before)


def test_shapes_without_memory():
    assert GSF(8, 2).to("meta")(torch.empty(4, 8, 3, 3, device="meta")).shape == (4, 8, 3, 3)


# ---------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("channels", "ratio", "way_out"),
    [(40, 25, "--gsf_ch_ratio 20"), (66, 100, "--gsf_ch_ratio 98"), (2, 100, "wider backbone")],
)
def test_defect_24_channels_that_cannot_be_split(channels, ratio, way_out):
    with pytest.raises(InputError, match="multiple of 4") as caught:
        GSF(channels, 8, ratio)
    message = str(caught.value)
    assert way_out in message
    assert "\n" not in message
    assert str(channels) in message


@pytest.mark.parametrize("ratio", [0, 125])
def test_defect_24_a_share_beyond_all_channels(ratio):
    with pytest.raises(InputError, match="multiple of 4"):
        GSF(64, 8, ratio)


def test_defect_24_frames_that_are_no_whole_clips():
    with pytest.raises(ValueError, match="9 frames, no multiple of num_segments 8"):
        GSF(8, 8)(torch.zeros(9, 8, 2, 2))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own
def test_forward_mode_keeps_its_tangent():
    gsf = random_gsf(8, 2, 100).eval()
    x, tangent = torch.randn(2, 2, 8, 3, 3).unbind(0)
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        out = gsf(torch.autograd.forward_ad.make_dual(x, tangent))
        found = torch.autograd.forward_ad.unpack_dual(out).tangent
    _, expected = torch.func.jvp(gsf, (x,), (tangent,))
    assert_close(found, expected)


def test_a_norm_without_weights_goes_another_way():
    gsf = random_gsf(8, 2, 100).eval()
    gsf.bn = nn.BatchNorm2d(8, affine=False).eval()
    x = torch.randn(2, 8, 3, 3)
    with torch.no_grad():
        assert_close(gsf(x), published_gsf(gsf, x))
