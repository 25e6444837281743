"""Layouts and compilation: faster or not, the same network."""

import copy
import shlex

import pytest
import torch
from torch import nn

import machine
from engine import TrainSettings, TrainState, train_one_epoch
from errors import InputError
from machine import (
    StopRequest,
    choose_channels_last,
    compile_model,
    has_fast_bf16,
    tune_network,
    use_channels_last,
)
from models import build_model
from ops.batch import Batch
from optim import Schedule, build_optimizer
from opts import parse_pose_train_args, parse_train_args
from scoring import evaluate

CPU = torch.device("cpu")
SMALL = (
    "--dataset synthetic --arch resnet18 --width 8 --num_segments 4 --pretrained none --dropout 0"
)
MODES = {
    "plain": [],
    "gsf": ["--gsf"],
    "early": ["--gsf", "--early_fusion_poses"],
    "late": ["--gsf", "--late_fusion_poses_attention"],
    "pose": None,
}


def network(mode):
    flags = MODES[mode]
    torch.manual_seed(0)
    if flags is None:
        return build_model(parse_pose_train_args(["--dataset", "synthetic"]), 2)
    return build_model(parse_train_args([*shlex.split(SMALL), *flags]), 2)


def batches(mode, sizes, seed=0):
    rng = torch.Generator().manual_seed(seed)
    made = []
    for number, size in enumerate(sizes):
        shape = (size, 4, 4 if mode == "early" else 3, 32, 32)
        frames = None if mode == "pose" else torch.randn(shape, generator=rng)
        keypoints = torch.rand(size, 4, 1, 17, 3, generator=rng)
        label = torch.randint(0, 2, (size,), generator=rng)
        names = tuple(f"clip {seed}-{number}-{i}" for i in range(size))
        made.append(Batch(frames=frames, keypoints=keypoints, label=label, clips=names))
    return made


class Loader:
    def __init__(self, made):
        self.batch_sampler = made

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        return iter(self.batch_sampler)


def train(model, made):
    optimizer = build_optimizer(model, "sgd", 0.01, 0.9, 0.0)
    state = TrainState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    recipe = TrainSettings(Schedule(4, 0, 0.01), 1, 20.0, None, None, 0)
    return train_one_epoch(state, Loader(made), recipe, CPU, StopRequest(), lambda *_: None)


class Graphs:
    """A compiler that only counts, and runs the graph as it is."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, _inputs):
        self.count += 1
        return graph


@pytest.fixture
def graphs():
    torch._dynamo.reset()
    yield Graphs()
    torch._dynamo.reset()


@pytest.mark.parametrize("mode", ["late", "pose"])  # together all parts of all modes
def test_a_network_is_one_graph_for_each_size_of_a_batch(mode, graphs):
    """Names of clips and epochs make no new one; the weights keep their names."""
    model = network(mode)
    if mode == "late":  # one stage is as good as four, and traced in a quarter of the time
        backbone = model.encoder.rgb.backbone
        backbone.layer2 = backbone.layer3 = nn.Identity()
        backbone.layer4 = nn.Conv2d(8, 64, 1)
    names = set(model.state_dict())
    plain = copy.deepcopy(model)
    model.compile(backend=graphs, fullgraph=True, dynamic=False)
    made = batches(mode, (2, 2, 1))
    assert train(model, made).loss == pytest.approx(train(plain, made).loss, rel=1e-4)
    train(model, batches(mode, (2,), seed=1))
    assert graphs.count == 2
    scores = [evaluate(model, Loader(batches(mode, (2,), seed=s)), CPU).scores for s in (2, 3)]
    assert graphs.count == 3
    assert scores[0].shape == (2, 2)
    assert set(model.state_dict()) == names


def test_a_machine_without_compiler_is_told_in_one_line(monkeypatch):
    def fail(function):
        def call(*_):
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore\nlines")

        return call

    monkeypatch.setattr(torch, "compile", fail)
    model = network("pose")
    with pytest.raises(InputError, match="--compile does not work on this machine") as error:
        compile_model(model, CPU)
    assert "\n" not in str(error.value)
    assert "No working C++ compiler found" in str(error.value)
    assert "drop --compile" in str(error.value)
    assert model._compiled_call_impl is None


@pytest.mark.parametrize("mode", ["plain", "late"])
def test_channels_last_changes_the_layout_alone(mode):
    plain, other = network(mode), network(mode)
    use_channels_last(other)
    stem = other.get_parameter(next(n for n, _ in other.named_parameters() if "conv1" in n))
    assert stem.is_contiguous(memory_format=torch.channels_last)
    for (name, a), (other_name, b) in zip(
        plain.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(a, b)
    made = batches(mode, (3,))
    assert train(plain, made).loss == pytest.approx(train(other, made).loss, rel=1e-4)
    expected = evaluate(plain, Loader(made), CPU).scores
    assert evaluate(other, Loader(made), CPU).scores == pytest.approx(expected, abs=1e-3)


def test_a_checkpoint_fits_either_layout():
    plain, other = network("gsf"), network("gsf")
    use_channels_last(other)
    train(other, batches("gsf", (3,)))
    plain.load_state_dict(other.state_dict())
    assert plain.get_parameter("encoder.backbone.conv1.weight").is_contiguous()
    made = batches("gsf", (3,), seed=1)
    expected = evaluate(other, Loader(made), CPU).scores
    assert evaluate(plain, Loader(made), CPU).scores == pytest.approx(expected, abs=1e-4)


def test_the_layout_is_chosen_by_device_and_type():
    cuda = torch.device("cuda")
    assert choose_channels_last("auto", cuda, torch.bfloat16)
    assert not choose_channels_last("auto", cuda, None)
    assert not choose_channels_last("auto", CPU, torch.bfloat16)
    assert choose_channels_last("on", CPU, None)
    assert not choose_channels_last("off", cuda, torch.float16)


def test_a_network_stays_as_it_is_unless_asked():
    model = network("gsf")
    tune_network(model, CPU, channels_last=False, compiled=False)
    assert model._compiled_call_impl is None
    assert all(
        m.weight.is_contiguous()
        for m in model.modules()
        if isinstance(m, nn.Conv2d) and m.weight[0, 0].numel() > 1
    )


def test_bf16_is_fast_where_the_cpu_has_it(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(machine.torch.cpu, name, lambda: False, raising=False)
    assert not has_fast_bf16()
    monkeypatch.setattr(machine.torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert has_fast_bf16()


def test_channels_last_on_is_refused_for_skeletons(capsys):
    with pytest.raises(SystemExit) as error:
        parse_pose_train_args(["--dataset", "synthetic", "--channels_last", "on"])
    assert error.value.code == 2
    assert "--channels_last on needs RGB frames" in capsys.readouterr().err
