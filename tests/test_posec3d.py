"""PoseC3D: the published numbers, what reaches what, and the same numbers in every guise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from errors import InputError
from models.classifier import ClipClassifier
from models.skeleton.flops import count_flops
from models.skeleton.posec3d import PoseC3D
from models.skeleton.slowonly import ConvNorm
from ops.batch import Batch
from ops.heatmap import joint_volumes, limb_volumes
from ops.skeleton import COCO17, HAND21, JHMDB15, NTU25
from tests.golden_zoo import fill, load_case, load_keys, needs_golden


def published(name: str) -> str:
    if name.startswith("encoder."):
        return name.replace("encoder.", "backbone.", 1)
    return name.replace("head.linear", "cls_head.fc_cls")


def classifier(num_classes=60, layout=COCO17, **options) -> ClipClassifier:
    torch.manual_seed(0)
    return ClipClassifier(PoseC3D(layout, **options), num_classes, 0.5)


def tiny(layout=COCO17, **options) -> PoseC3D:
    """Return a narrow network in evaluation whose blocks all say something."""
    torch.manual_seed(0)
    model = PoseC3D(layout, (1, 2, 1), base=4, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def batch_of(frames=8, size=16, rows=2, people=2, layout=COCO17, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    skeletons = torch.rand(rows, frames, people, len(layout), 3, generator=generator)
    skeletons[..., :2] *= size
    return Batch(skeletons=skeletons, volume_size=(size, size))


@needs_golden
def test_names_and_shapes_are_the_published_ones():
    own = {published(k): tuple(v.shape) for k, v in classifier().state_dict().items()}
    assert own == load_keys("posec3d_slowonly_r50")


@needs_golden
def test_logits_are_the_published_ones():
    model, case = classifier().eval(), load_case("posec3d_slowonly_r50")
    weights = fill({published(k): v for k, v in model.state_dict().items()})
    model.load_state_dict({k: weights[published(k)] for k in model.state_dict()})
    with torch.inference_mode():
        logits = model.head(model.encoder.encode(case["in0"])).mean(dim=1)
    assert (logits - case["out0"]).abs().max() < 1e-4 * case["out0"].abs().max()


@pytest.mark.parametrize(
    ("options", "classes", "shape", "parameters", "gmac"),
    [
        ({}, 60, (48, 56), 2_024_860, 15.776),
        ({}, 60, (48, 64), 2_024_860, 20.605),
        ({"stages": (3, 4, 6)}, 101, (48, 56), 3_055_173, 14.615),
        ({"temporal_strides": (1, 1, 1)}, 60, (32, 56), 2_024_860, 11.433),
    ],
)
def test_size_and_cost_are_the_published_ones(options, classes, shape, parameters, gmac):
    model = classifier(classes, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    # Every frame costs the same, up to the halving of the last stage.
    frames, side = shape
    cost = count_flops(model, batch_of(frames // 8, side, rows=1)) * 8 / 1e9
    assert cost == pytest.approx(gmac, rel=0.0005)


def test_the_start_is_the_published_one():
    model = classifier()
    for name, module in model.named_modules():
        if isinstance(module, ConvNorm):
            fan_out = module.conv.weight[0, 0].numel() * module.conv.out_channels
            assert module.conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
            assert torch.all(module.bn.weight == (0 if name.endswith("conv3") else 1))
    assert model.head.linear.weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("strides", "frames"), [((1, 1, 2), 5), ((1, 1, 1), 9)])
def test_frames_of_the_features(strides, frames):
    model, batch = tiny(temporal_strides=strides), batch_of(frames=9)
    features = model(batch)
    assert features.shape == (2, frames, model.feature_dim)
    assert model.segment_mask(batch) is None
    assert tiny(temporal_strides=strides)(batch_of(frames=1)).shape[1] == 1


@pytest.mark.parametrize("layout", [COCO17, JHMDB15, HAND21])
@pytest.mark.parametrize("stream", ["joint", "limb"])
@pytest.mark.parametrize("people", [1, 3])
def test_draws_what_it_sees(layout, stream, people):
    model, batch = tiny(layout, stream=stream), batch_of(people=people, layout=layout)
    if stream == "joint":
        volumes = joint_volumes(batch.skeletons, (16, 16), 0.6)
    else:
        volumes = limb_volumes(batch.skeletons, layout.limbs, (16, 16), 0.6)
    assert model.conv1.conv.in_channels == volumes.shape[1]
    assert torch.equal(model(batch), model.encode(volumes))


def test_the_order_of_people_is_of_no_matter_nor_are_missing_ones():
    model, batch = tiny(), batch_of(people=2)
    swapped = replace(batch, skeletons=batch.skeletons.flip(2))
    padded = replace(batch, skeletons=torch.nn.functional.pad(batch.skeletons, (0,) * 5 + (2,)))
    assert torch.equal(model(swapped), model(batch))
    assert torch.equal(model(padded), model(batch))


@pytest.mark.parametrize("stream", ["joint", "limb"])
def test_rows_in_the_mirror(stream):
    model, batch = tiny(stream=stream), batch_of(rows=3)
    mirrored = torch.tensor([False, True, False])
    plain = model.drawing.draw(batch)
    both = model.drawing.draw(replace(batch, mirrored=mirrored))
    assert torch.equal(both[[0, 2]], plain[[0, 2]])
    order = COCO17.mirror_order() if stream == "joint" else COCO17.limb_mirror_order()
    assert torch.equal(both[1], plain[1, order].flip(-1))


def test_a_clip_reaches_itself_alone_and_a_frame_its_whole_neighbourhood():
    model, batch = tiny(temporal_strides=(1, 1, 1)), batch_of(frames=9)
    moved = batch.skeletons.clone()
    moved[1, 4, :, :, :2] += 3
    change = (model(replace(batch, skeletons=moved)) - model(batch)).abs().amax(dim=2)
    assert not change[0].any()
    # Three inflated blocks: three frames to each side.
    assert change[1].nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_every_parameter_learns():
    model = tiny().train()
    model(batch_of()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_folded_norms_change_nothing(monkeypatch):
    model, batch = tiny(), batch_of()
    folded = model(batch)

    def unfolded(self, x):
        conv, bn = self.conv, self.bn
        x = bn(conv(x))
        return x.relu() if self.relu else x

    monkeypatch.setattr(ConvNorm, "forward", unfolded)
    torch.testing.assert_close(model(batch), folded, rtol=1e-4, atol=1e-5)


def test_images_change_nothing(monkeypatch):
    model, batch = tiny(), batch_of(frames=7)
    images = model(batch)
    monkeypatch.setattr("ops.conv3d._takes_images", lambda x: False)
    torch.testing.assert_close(model(batch), images, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stream", ["joint", "limb"])
def test_half_precision_and_whole_graphs(stream):
    model, batch = tiny(stream=stream), batch_of()
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch), expected, rtol=1e-4, atol=1e-5)


class Positional(torch.nn.Module):
    def __init__(self, model: PoseC3D) -> None:
        super().__init__()
        self.model = model

    def forward(self, skeletons, mirrored):
        batch = Batch(skeletons=skeletons, mirrored=mirrored, volume_size=(16, 16))
        return self.model(batch)


@pytest.mark.parametrize("stream", ["joint", "limb"])
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx_says_the_same(stream, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, batch = tiny(stream=stream), batch_of(frames=4, rows=3)
    mirrored = torch.tensor([True, False, True])
    with torch.no_grad():
        torch.onnx.export(
            Positional(model).eval(),
            (batch.skeletons[:2], mirrored[:2]),
            tmp_path / "model.onnx",
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},) * 2,
            opset_version=18,
            external_data=False,
            verbose=False,
        )
        expected = model(replace(batch, mirrored=mirrored))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [put.name for put in session.get_inputs()]
    tensors = (batch.skeletons.numpy(), mirrored.numpy())
    (found,) = session.run(None, dict(zip(names, tensors, strict=True)))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-5)


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(InputError, match=r"no stream 'bone': choose from joint, limb"):
        PoseC3D(COCO17, stream="bone")
    with pytest.raises(InputError, match=r"layout coco17 names no limbs"):
        PoseC3D(replace(COCO17, limbs=(), limb_flip_pairs=()), stream="limb")
    with pytest.raises(InputError, match=r"layout ntu25 is in 3 dimensions"):
        PoseC3D(NTU25)
    with pytest.raises(
        InputError, match=r"asked for 3 channels, the joint stream of coco17 has 17"
    ):
        PoseC3D(COCO17, in_channels=3)
    model, batch = tiny(), batch_of()
    for lacking in (replace(batch, volume_size=None), Batch(volume_size=(16, 16))):
        with pytest.raises(InputError, match="no skeletons to be drawn"):
            model(lacking)
    with pytest.raises(InputError, match=r"\(2, 8, 2, 15, 3\).*V = 17 joints \(coco17\)"):
        model(batch_of(layout=JHMDB15))
