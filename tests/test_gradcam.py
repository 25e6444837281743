import pytest
import torch
from torch import nn

from explanation.gradcam import backbone_of, choose_stage, grad_cam
from explanation.joints import joint_importance
from models.classifier import ClipClassifier
from models.fusion import RGBEncoder
from ops.batch import Batch
from tests.test_gates import batch_of, model_of


class Stem(nn.Module):
    """A backbone whose last stage passes red and green through, then averages."""

    def __init__(self):
        super().__init__()
        self.in_channels, self.num_segments, self.feature_dim = 3, None, 2
        self.layer4 = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.layer4.weight.copy_(torch.eye(3)[:2, :, None, None])

    def forward(self, x):
        return self.layer4(x).mean(dim=(2, 3))


def known_model():
    model = ClipClassifier(RGBEncoder(Stem()), 2, 0.0).eval()
    with torch.no_grad():
        model.head.linear.weight.copy_(torch.eye(2))
    return model


def test_the_map_is_where_the_class_is_and_in_its_segment():
    """Class 0 is red, class 1 is green: each in another quadrant of another segment."""
    frames = torch.zeros(1, 3, 3, 8, 8)
    frames[0, 0, 0, :4, :4] = 1
    frames[0, 2, 1, 4:, 4:] = 1
    for label, segment, rows in ((0, 0, slice(0, 4)), (1, 2, slice(4, 8))):
        found = grad_cam(known_model(), Batch(frames=frames), torch.tensor([label]))
        expected = torch.zeros(1, 3, 8, 8)
        # The weight of a channel is the gradient of one place: 1 of 3 segments, of 64 places.
        expected[0, segment, rows, rows] = 1 / (3 * 64)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gsf", [True, False])
def test_with_an_average_and_one_layer_behind_it_it_is_class_activation_mapping(gsf):
    """The paper's own check: there Grad-CAM is CAM but for a constant factor."""
    model, batch = model_of(gsf=gsf), batch_of(size=64)
    kept = []
    handle = backbone_of(model).layer4.register_forward_hook(lambda m, i, o: kept.append(o))
    with torch.no_grad():
        model(batch)
    handle.remove()
    maps = kept[0].unflatten(0, (2, 4))  # (B, T, C, h, w)
    labels = torch.tensor([2, 0])
    weights = model.head.linear.weight[labels].detach()
    cam = torch.relu(torch.einsum("bc,btchw->bthw", weights, maps)) / (4 * maps[0, 0, 0].numel())
    assert cam.max() > 0
    torch.testing.assert_close(grad_cam(model, batch, labels), cam, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("fusion", "channels"),
    [("none", 3), ("early", 4), ("late", 3), ("late_fast", 3), ("late_attention", 3)],
)
@pytest.mark.parametrize("stage", ["layer4", "layer2"])
def test_every_model_that_sees_frames_has_maps_and_keeps_nothing(fusion, channels, stage):
    model, batch = model_of(fusion=fusion, num_channels=channels), batch_of(channels)
    with torch.no_grad():
        before = model(batch)
    with torch.no_grad():  # a caller without gradients gets maps all the same
        found = grad_cam(model, batch, torch.tensor([1, 1]), stage)
    assert found.shape[:2] == (2, 4)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert not found.requires_grad
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not batch.frames.requires_grad
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert torch.equal(model(batch), before)


def test_hooks_go_when_the_model_fails_before_or_after_the_stage():
    model = model_of()
    with pytest.raises(ValueError, match="channels"):
        grad_cam(model, batch_of(channels=5), torch.tensor([0, 0]))
    with torch.no_grad():
        with pytest.raises(RuntimeError):
            grad_cam(model, batch_of(), torch.tensor([99, 99]))
        assert not torch.is_grad_enabled()
    assert not any(module._forward_hooks for module in model.modules())


def test_clips_do_not_mix():
    model, batch = model_of(), batch_of()
    both = grad_cam(model, batch, torch.tensor([1, 0]))
    alone = grad_cam(model, Batch(frames=batch.frames[:1]), torch.tensor([1]))
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-7)


def test_a_model_without_frames_is_refused():
    with pytest.raises(ValueError, match="needs a model and a batch with frames"):
        grad_cam(model_of(fusion="pose"), batch_of(), torch.tensor([0, 0]))


def test_the_stage_shows_at_least_four_by_four_places():
    chosen = {size: choose_stage(size) for size in (8, 32, 64, 112, 128, 224)}
    assert list(chosen.values()) == ["layer1", "layer2", "layer3", "layer3", "layer4", "layer4"]


# ---------------------------------------------------------------- joints


class OneJoint(nn.Module):
    """Log-odds of class 0 are three times x of joint 5, those of the others nothing."""

    def forward(self, batch):
        x = 3 * batch.keypoints[:, :, 0, 5, 0].mean(dim=1)
        return torch.stack([x, torch.zeros_like(x)], dim=1)


def test_the_joint_that_decides_is_found_and_speaks_against_the_other_class():
    keypoints = torch.full((2, 4, 1, 17, 3), 0.5)
    batch = Batch(keypoints=keypoints)
    found = joint_importance(OneJoint(), batch, torch.tensor([0, 1]))
    expected = torch.zeros(2, 17)
    expected[:, 5] = torch.tensor([1.5, -1.5])
    torch.testing.assert_close(found, expected)
    assert (keypoints == 0.5).all()


@pytest.mark.parametrize("pose_model", ["mlp", "conv1d", "gcn"])
def test_every_pose_model_can_be_asked(pose_model):
    model = model_of(fusion="pose", pose_model=pose_model)
    batch = Batch(keypoints=torch.rand(2, 4, 1, 17, 3))
    found = joint_importance(model, batch, torch.tensor([0, 2]))
    assert torch.isfinite(found).all()
    assert found.abs().max() > 0
    nobody = Batch(keypoints=torch.zeros(1, 4, 1, 17, 3))
    assert (joint_importance(model, nobody, torch.tensor([0])) == 0).all()


def test_joints_need_keypoints():
    with pytest.raises(ValueError, match="keypoints"):
        joint_importance(model_of(), Batch(frames=torch.zeros(1, 4, 3, 8, 8)), torch.tensor([0]))
