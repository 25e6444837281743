from argparse import Namespace

import pytest
import torch
from torch.nn import functional as F

from explanation.gates import early_and_late, gate_blocks, gate_maps, recorded_gates
from models import build_model
from ops.batch import Batch
from ops.gsf import GSF

OPTIONS = {
    "fusion": "none", "arch": "resnet18", "num_channels": 3, "width": 8, "gsf": True,
    "gsf_ch_ratio": 100, "num_segments": 4, "pose_model": "mlp", "dropout": 0.0,
    "attention_scope": "clip", "stream_losses": 0.0,
}  # fmt: skip


def model_of(**changes):
    torch.manual_seed(0)
    model = build_model(Namespace(**(OPTIONS | changes)), 3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch_of(channels=3, size=32):
    torch.manual_seed(1)
    return Batch(
        frames=torch.randn(2, 4, channels, size, size), keypoints=torch.rand(2, 4, 1, 17, 3)
    )


def gate_by_conv3d(module, x):
    """The published form: a 3-D convolution over the normalised, rectified channels."""
    clips = x[:, : module.gated_channels].unflatten(0, (-1, module.num_segments))
    bn = module.bn
    volume = clips.transpose(1, 2)  # (B, C, T, H, W)
    normal = F.batch_norm(volume, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)
    gate = torch.tanh(module.conv3D(F.relu(normal)))
    return gate.transpose(1, 2)  # (B, T, 2, H, W)


def test_gate_maps_are_the_gates_of_the_published_formula():
    model, batch = model_of(), batch_of()
    names = gate_blocks(model)
    inputs = {}
    for name in names:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(
            lambda module, args, name=name: inputs.update({name: args[0].clone()})
        )
    found = gate_maps(model, batch, names)
    assert len(found) == 8
    for name, maps in zip(names, found, strict=True):
        expected = gate_by_conv3d(model.get_submodule(name), inputs[name])
        assert maps.gates.shape == expected.shape
        torch.testing.assert_close(maps.gates, expected, rtol=1e-4, atol=1e-5)
        assert maps.gates.abs().max() > 0.01


def test_a_gate_of_zero_lets_nothing_through_and_groups_move_as_they_say():
    gsf = GSF(8, num_segments=3).eval()
    with torch.no_grad():
        # The share of what moved looks at neighbours too: fix it at one half.
        for part in (gsf.conv3D, gsf.channel_conv1, gsf.channel_conv2):
            for parameter in part.parameters():
                parameter.zero_()
    x = torch.randn(3, 8, 4, 4)
    still = gsf(x)
    assert (gsf.gate(x) == 0).all()
    other = x.clone()
    other[1] += 1
    assert (gsf(other)[0] == still[0]).all()
    assert (gsf(other)[2] == still[2]).all()
    for group, reached in ((0, 0), (1, 2)):
        with torch.no_grad():
            gsf.conv3D.bias.zero_()
            gsf.conv3D.bias[group] = 1
        change = (gsf(other) - gsf(x)).abs().flatten(1).sum(1)
        assert (gsf.gate(x)[:, group] > 0.7).all()
        assert [n for n in (0, 2) if change[n] > 1e-3] == [reached]


@pytest.mark.parametrize("fusion", ["none", "late"])
def test_recording_changes_no_number_and_leaves_no_hook(fusion):
    model, batch = model_of(fusion=fusion), batch_of()
    with torch.no_grad():
        before = model(batch)
        with recorded_gates(model, gate_blocks(model)):
            during = model(batch)
    # What follows GSF is not done in the same pass while somebody listens: another rounding.
    assert torch.allclose(before, during, atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError), recorded_gates(model, gate_blocks(model)):
        raise RuntimeError
    assert not any(module._forward_hooks for module in model.modules())


def test_an_early_and_a_late_block_are_chosen():
    names = early_and_late(model_of())
    found = gate_maps(model_of(), batch_of(), names)
    assert [maps.block for maps in found] == ["layer1.1", "layer3.1"]
    assert early_and_late(model_of(gsf=False)) == []
    assert early_and_late(model_of(fusion="pose")) == []
    assert gate_maps(model_of(gsf=False), batch_of(), []) == []
