"""The fused GSF on a CPU: same numbers, whatever the threads, the cuts and the disk."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from errors import InputError
from ops import gsf_cpu
from ops.gsf import GSF, After, formulation
from ops.gsf_plain import GSFWeights

pytest.importorskip("numba")
ROOT = Path(__file__).resolve().parents[1]

# N, C, H, W, T: one pixel, one segment, tails of tiles, blocks of channels and vectors, several
# tiles and clips.
SHAPES = [
    (3, 4, 1, 1, 3),
    (2, 12, 20, 20, 1),
    (6, 132, 14, 14, 2),
    (4, 72, 33, 37, 4),
    (10, 40, 7, 7, 5),
    (40, 8, 3, 50, 8),
]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def a_gsf(channels, num_segments, ratio=100):
    torch.manual_seed(channels)
    gsf = GSF(channels, num_segments, ratio)
    with torch.no_grad():
        for parameter in gsf.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        gsf.bn.running_mean.normal_()
        gsf.bn.running_var.uniform_(0.5, 2)
    return gsf


def results(gsf, x, how="fused"):
    """Output, all gradients and the statistics afterwards."""
    gsf, x = copy.deepcopy(gsf), x.clone().requires_grad_()
    cotangent = torch.linspace(-1, 1, x.numel()).view_as(x).sin().to(x.dtype)
    with formulation(how):
        out = gsf(x)
        grads = torch.autograd.grad(out, [x, *gsf.parameters()], cotangent)
    return [out.detach(), *grads, gsf.bn.running_mean, gsf.bn.running_var]


def assert_all_close(ours, theirs, tolerance=1e-5):
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_formulation_in_double(shape, training):
    *size, num_segments = shape
    gsf = a_gsf(shape[1], num_segments).train(training)
    x = torch.randn(size) * 1.5 + 0.3
    exact = results(copy.deepcopy(gsf).double(), x.double(), "plain")
    assert_all_close(results(gsf, x), exact)


def test_statistics_of_features_far_from_zero():
    gsf = a_gsf(8, 2)
    x = torch.randn(4, 8, 9, 9) * 0.01 + torch.arange(8)[:, None, None] * 50
    fused, exact = results(gsf, x)[-2:], results(gsf.double(), x.double(), "plain")[-2:]
    assert_all_close(fused, exact, 1e-6)
    # A variance of 1e-4 beside a mean of 350: sums of squares in float32 would know nothing of it.
    assert torch.allclose(gsf_cpu._loops().statistics(x)[1], x.double().var((0, 2, 3), False), 1e-3)


def test_the_bits_do_not_depend_on_threads_or_runs(threads):
    gsf, x = a_gsf(136, 4), torch.randn(8, 136, 12, 12)
    found = []
    for number in (1, 3, 1, 2):
        threads(number)
        found.append(results(gsf, x))
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_clips_are_cut_where_no_number_shows_it(monkeypatch):
    gsf, x = a_gsf(16, 2), torch.randn(10, 16, 6, 6)
    whole = results(gsf, x)
    monkeypatch.setattr(gsf_cpu._loops(), "_BYTES_AT_ONCE", 1)
    assert_all_close(results(gsf, x), whole, 1e-6)


@pytest.mark.parametrize("ratio", [50, 25])
def test_a_share_of_the_channels_is_read_in_place(ratio):
    gsf, x = a_gsf(32, 2, ratio), torch.randn(4, 32, 5, 5)
    assert_all_close(results(gsf, x), results(gsf.double(), x.double(), "plain"))


def test_slices_of_larger_tensors():
    gsf, whole = a_gsf(16, 2).eval(), torch.randn(9, 24, 5, 6)
    for x in (whole[1:5, 4:20], whole[::2, :16][:4], whole[1:5, :16, :, :4], whole[:4, ::2][:, :8]):
        module = gsf if x.shape[1] == 16 else a_gsf(8, 2).eval()
        with torch.no_grad():
            assert torch.allclose(module(x), module(x.clone()), atol=1e-6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_not_finite_comes_through(bad, training):
    gsf, x = a_gsf(8, 2).train(training), torch.randn(4, 8, 5, 6)
    x[1, 3, 2, 2] = bad
    with torch.no_grad(), formulation("eager"):
        expected = copy.deepcopy(gsf)(x)
    with torch.no_grad(), formulation("fused"):
        found = gsf(x)
    assert not found[1].isfinite().all()
    assert torch.equal(found.isnan(), expected.isnan())


def test_what_is_kept_for_the_backward_pass_is_input_and_gates():
    gsf, x = a_gsf(64, 8), torch.randn(8, 64, 14, 14)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    leaf = x.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t), formulation("fused"):
        gsf(leaf)
    besides = sum(kept.values()) - x.nbytes - sum(p.nbytes for p in gsf.parameters())
    # The published module keeps 4 tensors of the size of x besides it.
    assert besides < 0.1 * x.nbytes


# ---------------------------------------------------------------- what follows


def test_what_follows_is_done_in_the_same_pass():
    gsf, norm = a_gsf(16, 2).eval(), nn.BatchNorm2d(16).eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x, residual = torch.randn(2, 4, 16, 5, 6)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    offset = norm.bias - norm.running_mean * scale
    with torch.no_grad(), formulation("fused"):
        assert gsf.can_fold(x)
        once = norm(gsf(x))
        assert_all_close([gsf(x, After(scale, offset, None, relu=False))], [once])
        whole = gsf(x, After(scale, offset, residual, relu=True))
        assert_all_close([whole], [(once + residual).relu()])
    assert not gsf.can_fold(x)  # gradients are wanted
    with torch.no_grad():
        assert not gsf.train().can_fold(x)


# ---------------------------------------------------------------- what it does not take


def test_what_it_does_not_take_goes_another_way():
    gsf, x = a_gsf(8, 2), torch.randn(4, 8, 5, 6)
    others = [x.double(), x.bfloat16(), x.to(memory_format=torch.channels_last), x[..., ::2]]
    assert [gsf_cpu.can_run(other) for other in (x, *others)] == [True, False, False, False, False]
    for other in others:
        module = copy.deepcopy(gsf).to(other.dtype)
        assert module(other).shape == other.shape
        with formulation("fused"), pytest.raises(InputError, match=r"the fused GSF takes no"):
            module(other)


def test_without_clips_there_is_nothing():
    gsf, x = a_gsf(8, 2).eval(), torch.zeros(0, 8, 5, 6)
    assert gsf(x).shape == (0, 8, 5, 6)


def test_another_norm_and_listeners_are_called():
    gsf, x = a_gsf(8, 2).eval(), torch.randn(4, 8, 5, 6)
    called = []
    hook = gsf.bn.register_forward_hook(lambda *_: called.append("bn"))
    expected = gsf(x)
    hook.remove()
    assert called == ["bn"]
    assert_all_close([gsf(x)], [expected])
    gsf.bn = nn.SyncBatchNorm.convert_sync_batchnorm(gsf.bn)
    with torch.no_grad():
        assert_all_close([gsf.eval()(x)], [expected])


def test_one_value_per_channel_has_no_statistics():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        GSF(4, 1)(torch.zeros(1, 4, 1, 1))


def test_gradients_of_gradients_are_refused_with_the_way_out():
    gsf, x = a_gsf(8, 2), torch.randn(4, 8, 3, 3, requires_grad=True)
    for how in ("fused", "eager"):
        with formulation(how), pytest.raises(RuntimeError, match=r'formulation\("plain"\)'):
            torch.autograd.grad(gsf(x).square().sum(), x, create_graph=True)
    with formulation("plain"):
        (first,) = torch.autograd.grad(gsf(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    assert second.abs().max() > 0


def test_transforms_of_functions_see_the_plain_formulation():
    gsf, x = a_gsf(8, 2).eval(), torch.randn(3, 2, 8, 4, 4)
    with torch.no_grad():
        each = torch.stack([gsf(clip) for clip in x])
    assert_all_close([torch.vmap(gsf)(x)], [each])
    grad = torch.func.grad(lambda v: gsf(v).sum())(x[0])
    leaf = x[0].clone().requires_grad_()
    assert_all_close([grad], torch.autograd.grad(gsf(leaf).sum(), leaf))


def test_an_unknown_formulation():
    with pytest.raises(ValueError, match="unknown formulation 'quick'"), formulation("quick"):
        pass


# ---------------------------------------------------------------- processes, threads and disk


def run(code, **environment):
    program = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORWARD = """
import torch
from ops.gsf import GSF, formulation
torch.manual_seed(0)
gsf, x = GSF(8, 2).eval(), torch.randn(4, 8, 5, 6)
with torch.no_grad():
    print(gsf(x).double().sum().item())
"""


@pytest.fixture(scope="module")
def usual():
    """Return what FORWARD prints where numba works."""
    return pytest.approx(float(run(FORWARD)), abs=1e-4)


def test_without_numba_the_numbers_are_the_same(usual):
    assert float(run("sys.modules['numba'] = None\n" + FORWARD)) == usual


@pytest.mark.parametrize("broken", ["OSError('no libllvmlite.so')", "RuntimeError()"])
def test_a_numba_that_does_not_work_is_said(broken, usual, tmp_path):
    (tmp_path / "numba.py").write_text(f"raise {broken}")
    path = f"sys.path.insert(0, {str(tmp_path)!r})\nimport warnings\n"
    said = "with warnings.catch_warnings(record=True) as w:\n    warnings.simplefilter('always')\n"
    code = path + said + "    from ops.gsf_cpu import _loops; assert _loops() is None\n"
    code += "assert 'numba does not work here' in str(w[0].message)\n"
    assert float(run(code + FORWARD)) == usual


def test_numba_may_be_switched_off(usual):
    assert float(run(FORWARD, NUMBA_DISABLE_JIT="1")) == usual


def test_a_broken_cache_costs_time_alone_and_is_mended(tmp_path):
    first = run(FORWARD, NUMBA_CACHE_DIR=str(tmp_path))
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc")]
    assert files
    for number, path in enumerate(files):
        path.write_bytes(b"no machine code" * (number % 2))
    assert run(FORWARD, NUMBA_CACHE_DIR=str(tmp_path)) == first
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run(FORWARD, NUMBA_CACHE_DIR=str(tmp_path)) == first
    assert after == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert run(FORWARD, NUMBA_CACHE_DIR=str(tmp_path / "file"))


def test_threads_of_the_caller_and_forked_processes(threads):
    threads(2)
    gsf, x = a_gsf(16, 2).eval(), torch.randn(4, 16, 8, 8)
    with torch.no_grad():
        expected = gsf(x)

        def again(_):
            with torch.no_grad():
                return gsf(x)

        with ThreadPoolExecutor(4) as pool:
            assert all(torch.equal(out, expected) for out in pool.map(again, range(8)))
    # A child of a fork has none of the threads of its parent; torch's own would hang in it.
    code = FORWARD.replace("with torch", "torch.set_num_threads(2)\nwith torch") + (
        "import os\nchild = os.fork()\n"
        "if child == 0: torch.set_num_threads(1)\n"
        "with torch.no_grad():\n    assert gsf(x).isfinite().all()\n"
        "if child == 0: os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    run(code, PYTHONWARNINGS="ignore::DeprecationWarning")


def test_weights_are_a_record():
    fields = ("bn_weight", "bn_bias", "running", "eps", "taps_weight", "gate_bias")
    assert GSFWeights._fields == (*fields, "fuse_weight", "fuse_bias")
