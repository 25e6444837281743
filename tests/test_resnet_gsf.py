"""Backbones: torchvision's own networks, with GSF where it belongs."""

import pytest
import torch
import torchvision
from torch import nn

from errors import InputError
from models.resnet_gsf import LAYOUTS, Backbone, build_resnet, insert_gsf
from ops.gsf import GSF


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in network.state_dict().items() if not k.startswith("fc.")}


def gsf_modules(network: nn.Module) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, GSF)]


@pytest.mark.parametrize("arch", LAYOUTS)
class TestEveryArchitecture:
    def test_names_and_shapes_are_torchvisions(self, arch):
        with torch.device("meta"):
            ours, theirs = Backbone(arch), torchvision.models.get_model(arch)
        assert shapes(ours) == shapes(theirs)
        assert ours.feature_dim == theirs.fc.in_features

    def test_gsf_goes_into_torchvisions_own_network(self, arch):
        with torch.device("meta"):
            network = torchvision.models.get_model(arch)
            before = shapes(network)
            insert_gsf(network, num_segments=4)
            out = network(torch.empty(8, 3, 64, 64))
        after = shapes(network)
        assert {k: v for k, v in after.items() if ".gsf." not in k} == before
        assert len(gsf_modules(network)) == sum(LAYOUTS[arch][1])
        assert out.shape == (8, 1000)

    def test_half_the_width_is_half_of_every_stage(self, arch):
        with torch.device("meta"):
            whole = Backbone(arch)
            half = build_resnet(arch, width=32, gsf=True, num_segments=4, in_channels=4)
            out = half(torch.empty(8, 4, 64, 64))
        assert out.shape == (8, half.feature_dim)
        assert half.feature_dim == whole.feature_dim // 2
        assert half.conv1.weight.shape == (32, 4, 7, 7)
        for stage in range(1, 5):
            last = f"layer{stage}.0.bn2.weight"
            assert 2 * len(half.state_dict()[last]) == len(whole.state_dict()[last])


def test_without_gsf_it_computes_what_torchvision_computes():
    theirs = torchvision.models.resnet18()
    ours = build_resnet("resnet18", gsf=False, num_segments=8, weights=theirs.state_dict())
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_resnet18_has_18_layers():
    convolutions = [m for m in Backbone("resnet18").modules() if isinstance(m, nn.Conv2d)]
    without_shortcuts = [m for m in convolutions if m.kernel_size != (1, 1)]
    assert len(without_shortcuts) + 1 == 18


@pytest.mark.parametrize(("arch", "last"), [("resnet18", "2"), ("resnet50", "3")])
def test_gsf_stands_between_the_last_convolution_and_its_norm(arch, last):
    network = build_resnet(arch, width=8, gsf=True, num_segments=2)
    block, calls = network.layer1[0], []
    for name, module in block.named_children():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    network(torch.randn(2, 3, 32, 32))
    order = [name for name in calls if name in (f"conv{last}", "gsf", f"bn{last}")]
    assert order == [f"conv{last}", "gsf", f"bn{last}"]


@torch.no_grad()
def test_listeners_see_the_same_in_evaluation_without_gradients():
    torch.manual_seed(0)
    network = build_resnet("resnet18", width=8, gsf=True, num_segments=2).eval()
    x = torch.randn(2, 3, 32, 32)
    gsf = network.layer1[0].gsf
    seen = []
    handle = gsf.register_forward_hook(lambda _, inputs, out: seen.append((inputs, out)))
    network(x)
    (features,), out = seen[0]
    handle.remove()
    assert torch.allclose(out, gsf(features), atol=1e-6)

    handle = gsf.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.5,))
    changed = network(x)
    handle.remove()
    with torch.enable_grad():  # nothing is folded
        handle = gsf.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 1.5,))
        expected = network(x)
        handle.remove()
    assert torch.allclose(changed, expected, atol=1e-4)


@torch.no_grad()
def test_listeners_to_all_modules_see_every_norm():
    network = build_resnet("resnet18", width=8, gsf=True, num_segments=2).eval()
    called = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: called.append(m))
    network(torch.randn(2, 3, 32, 32))
    handle.remove()
    norms = {m for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms <= set(called)


# ---------------------------------------------------------------- channels and weights


@pytest.mark.parametrize("gsf", [True, False])
@pytest.mark.parametrize("channels", [3, 4, 5])
def test_defects_26_29_any_number_of_channels_with_or_without_gsf(channels, gsf):
    torch.manual_seed(0)
    rgb = torchvision.models.resnet18().state_dict()
    network = build_resnet("resnet18", in_channels=channels, gsf=gsf, num_segments=2, weights=rgb)
    stem = network.conv1.weight
    assert torch.equal(stem[:, :3], rgb["conv1.weight"])
    assert network(torch.randn(2, channels, 32, 32)).shape == (2, 512)
    if channels > 3:
        # Kaiming, fan-out: std = sqrt(2 / (64 * 7 * 7)) = 0.0253 on 3,136 values a channel.
        assert stem[:, 3:].std().item() == pytest.approx(0.0253, rel=0.05)


def test_old_files_without_batch_counters_load():
    state = torchvision.models.resnet18().state_dict()
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    build_resnet("resnet18", gsf=False, num_segments=1, weights=old)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s | {"layer1.0.conv1.weight": torch.zeros(2, 2)}, r"layer1.0.conv1.weight is"),
        (lambda s: {k: v for k, v in s.items() if k != "bn1.bias"}, "bn1.bias is absent"),
        (lambda s: s | {"layer5.0.bn1.bias": torch.zeros(1)}, "the network has absent"),
        (lambda s: s | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, r"conv1.weight is \(64, 2"),
    ],
)
def test_weights_of_another_network(change, reason):
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(InputError, match=reason) as caught:
        build_resnet("resnet18", in_channels=4, gsf=False, num_segments=1, weights=change(state))
    assert "--pretrained none" in str(caught.value)


# ---------------------------------------------------------------- wrong options


@pytest.mark.parametrize(
    ("arch", "width", "way_out"),
    [
        ("resnet18", 30, "try 28"),
        ("resnet18", 2, "try 4"),
        ("resnext50_32x4d", 8, "use 16 or more"),
    ],
)
def test_widths_that_cannot_be(arch, width, way_out):
    with pytest.raises(InputError, match=way_out):
        build_resnet(arch, width=width, gsf=False, num_segments=1)


@pytest.mark.parametrize(("arch", "width"), [("resnet18", 4), ("resnext50_32x4d", 16)])
def test_the_widths_that_the_messages_offer_work(arch, width):
    with torch.device("meta"):
        network = build_resnet(arch, width=width, gsf=True, num_segments=1)
        assert network(torch.empty(1, 3, 64, 64)).shape == (1, network.feature_dim)


def test_a_ratio_that_does_not_fit_the_width():
    with pytest.raises(InputError, match="--gsf_ch_ratio 10 of 64 channels is 6 channels"):
        build_resnet("resnet18", gsf=True, gsf_ch_ratio=10, num_segments=8)


def test_unknown_backbone_and_block():
    with pytest.raises(InputError, match="unknown backbone 'resnet19'"):
        build_resnet("resnet19", gsf=False, num_segments=8)
    network = torchvision.models.resnet18()
    network.layer1[0] = nn.Identity()
    with pytest.raises(ValueError, match="not into Identity"):
        insert_gsf(network, 8)
