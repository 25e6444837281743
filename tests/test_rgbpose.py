"""RGBPose-Conv3D: the published numbers, who hears whom, and how it begins."""

from dataclasses import replace

import pytest
import torch

from errors import InputError
from models.classifier import ClipClassifier
from models.skeleton.flops import count_flops
from models.skeleton.posec3d import PoseC3D
from models.skeleton.rgbpose_conv3d import RGBPoseConv3D
from models.skeleton.rgbpose_start import initialise_from_streams
from ops.batch import Batch
from ops.skeleton import COCO17, NTU25
from tests.golden_zoo import fill, load_case, load_keys, needs_golden


def published(name: str) -> str:
    if name.startswith("encoder."):
        return name.replace("encoder.", "backbone.", 1)
    return name.replace("head.", "cls_head.fc_", 1)


def build(streams="both", num_classes=5, seed=0, **options) -> RGBPoseConv3D:
    torch.manual_seed(seed)
    return RGBPoseConv3D(num_classes, COCO17, streams, **options)


def batch_of(rows=2, frames=2, side=64, seed=0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    skeletons = torch.rand(rows, 4 * frames, 2, 17, 3, generator=generator)
    skeletons[..., :2] *= side // 4
    return Batch(
        frames=torch.randn(rows, frames, 3, side, side, generator=generator),
        skeletons=skeletons,
        volume_size=(side // 4, side // 4),
    )


@pytest.fixture(scope="module")
def model():
    """Return a network of both streams in evaluation whose blocks all say something."""
    model = build()
    for name, parameter in model.named_parameters():
        if name.endswith("conv3.bn.weight"):
            torch.nn.init.constant_(parameter, 0.5)
    return model.eval()


@needs_golden
def test_names_logits_and_size_are_the_published_ones():
    model = build(num_classes=60).eval()
    own = {published(k): v for k, v in model.state_dict().items()}
    assert {k: tuple(v.shape) for k, v in own.items()} == load_keys("rgbpose_conv3d")
    assert sum(p.numel() for p in model.parameters()) == 36_147_928
    weights, case = fill(own), load_case("rgbpose_conv3d")
    model.load_state_dict({k: weights[published(k)] for k in model.state_dict()})
    with torch.inference_mode():
        logits = model.head(model.encoder(case["in0"], case["in1"]))
    for stream, expected in (("rgb", case["out0"]), ("pose", case["out1"])):
        assert (logits[stream] - expected).abs().max() < 1e-4 * expected.abs().max()


def test_cost_is_the_published_one():
    # A quarter of the published clip of 8 frames.
    cost = count_flops(build(num_classes=60), batch_of(rows=1, frames=2, side=224))
    assert 4 * cost / 1e9 == pytest.approx(58.286, rel=0.0005)


def test_what_it_returns(model):
    batch = batch_of()
    logits = model.stream_logits(batch)
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "rgb": (2, 5),
        "pose": (2, 5),
    }
    mean = (logits["rgb"].softmax(1) + logits["pose"].softmax(1)) / 2
    torch.testing.assert_close(model(batch), mean.log())
    torch.testing.assert_close(model(batch).softmax(1), mean)
    assert build().train()(batch).shape == (2, 2, 5)


@pytest.mark.parametrize(("stream", "width"), [("rgb", 2048), ("pose", 512)])
def test_a_stream_alone_sees_the_other_input_not(stream, width):
    model, batch = build(stream).eval(), batch_of()
    unseen = {"frames": None} if stream == "pose" else {"skeletons": None, "volume_size": None}
    alone = model(replace(batch, **unseen))
    assert torch.equal(alone, model(batch))
    torch.testing.assert_close(alone, model.stream_logits(batch)[stream].log_softmax(1))
    assert model.train()(batch).shape == (2, 1, 5)
    assert getattr(model.head, stream).in_features == width


def test_the_pose_stream_alone_is_posec3d_that_keeps_all_frames():
    model, batch = build("pose").eval(), batch_of()
    twin = ClipClassifier(PoseC3D(COCO17, temporal_strides=(1, 1, 1), sigma=0.6), 5, 0.5).eval()
    names = {"encoder.pose_path.": "encoder.", "head.pose.": "head.linear."}
    state = {}
    for key, value in model.state_dict().items():
        prefix = next(p for p in names if key.startswith(p))
        state[key.replace(prefix, names[prefix])] = value
    twin.load_state_dict(state)
    torch.testing.assert_close(twin(batch), model.stream_logits(batch)["pose"])


def heard(model, stream):
    """Return whether the logits of a stream depend on the input of the other."""
    batch = batch_of()
    other = batch_of(seed=1)
    changed = (
        replace(batch, skeletons=other.skeletons)
        if stream == "rgb"
        else replace(batch, frames=other.frames)
    )
    torch.manual_seed(0)
    first = model.stream_logits(batch)[stream]
    torch.manual_seed(0)
    return not torch.equal(first, model.stream_logits(changed)[stream])


def still(model):
    """Return a model in training whose batch norms and dropout do not move."""
    model.train()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm3d, torch.nn.Dropout)):
            module.eval()
    return model


def test_both_streams_hear_each_other(model):
    assert heard(model, "rgb")
    assert heard(model, "pose")


@pytest.mark.parametrize(("drop", "deaf"), [("rgb_drop_path", "rgb"), ("pose_drop_path", "pose")])
def test_a_dropped_path_is_silent_in_training_alone(drop, deaf):
    model = build(**{drop: 1.0})
    other = "pose" if deaf == "rgb" else "rgb"
    for name, parameter in model.named_parameters():
        if name.endswith("conv3.bn.weight"):
            torch.nn.init.constant_(parameter, 0.5)
    still(model)
    assert not heard(model, deaf)
    assert heard(model, other)
    assert heard(model.eval(), deaf)


def test_paths_are_dropped_as_often_as_asked():
    paths = build(rgb_drop_path=0.3).train().encoder
    torch.manual_seed(1)
    heard = [bool(paths._hears("rgb", torch.zeros(1))) for _ in range(1000)]
    assert 0.65 < sum(heard) / 1000 < 0.75
    assert paths._hears("pose", torch.zeros(1)) is None


@pytest.mark.parametrize("detached", ["rgb", "pose"])
def test_detached_streams_teach_the_other_nothing(detached):
    model = still(build(**{f"{detached}_detach": True}))
    other = "pose" if detached == "rgb" else "rgb"
    model.stream_logits(batch_of())[detached].square().sum().backward()
    path = getattr(model.encoder, f"{other}_path")
    assert all(p.grad is None or not p.grad.any() for p in path.parameters())
    # What translates for the detached stream belongs to it, and learns.
    lateral = getattr(model.encoder, f"{detached}_path").layer2_lateral
    assert lateral.conv.weight.grad.any()


def test_every_parameter_learns(model):
    model = still(model)
    try:
        sum(value.square().sum() for value in model.stream_logits(batch_of()).values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    finally:
        model.zero_grad()
        model.eval()


def test_a_frozen_encoder_stays_as_it_is():
    model = build("pose")
    model.freeze_encoder()
    assert not model.train().encoder.training
    assert model.head.training
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "head.pose.weight",
        "head.pose.bias",
    }


def test_half_precision_and_whole_graphs(model):
    batch = batch_of()
    expected = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(batch)
    assert half.dtype == torch.float32
    assert (half - expected).abs().max() < 0.1
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(batch), expected, rtol=1e-3, atol=1e-4)


def test_bytes_are_normalised(model):
    frames = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    batch = replace(batch_of(), frames=frames)
    assert torch.equal(model(batch), model(batch.prepared()))


def names_of_toolbox(state, stream):
    """Return a state of one stream under the published names."""
    changed = {}
    for key, value in state.items():
        name = key.replace(f"encoder.{stream}_path.", "backbone.")
        changed[name.replace(f"head.{stream}.", "cls_head.fc_cls.")] = value
    return changed


@pytest.mark.parametrize("is_published", [False, True])
def test_begins_as_two_streams_that_do_not_mind_each_other(is_published):
    batch, streams = batch_of(), {}
    for seed, stream in enumerate(("rgb", "pose"), start=1):
        streams[stream] = build(stream, seed=seed).eval()
        for module in streams[stream].modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                torch.nn.init.uniform_(module.weight, 0.5, 1)
    states = {stream: alone.state_dict() for stream, alone in streams.items()}
    if is_published:
        states = {stream: names_of_toolbox(state, stream) for stream, state in states.items()}
    model = build(seed=3).eval()
    laterals = {k: v.clone() for k, v in model.state_dict().items() if "lateral" in k}

    report = initialise_from_streams(model, states["rgb"], states["pose"])
    assert (len(report.copied), len(report.widened), len(report.fresh)) == (572, 8, 14)
    assert str(report).startswith("572 tensors copied, 8 continued by zeros, 14 of lateral")
    # Trained alone, the pose pathway is shown narrower joints, as published.
    assert (streams["pose"].drawing.sigma, model.drawing.sigma) == (0.6, 0.7)
    streams["pose"].drawing.sigma = 0.7
    for stream, alone in streams.items():
        expected = alone.stream_logits(batch)[stream]
        torch.testing.assert_close(
            model.stream_logits(batch)[stream], expected, rtol=1e-3, atol=1e-4
        )
    assert all(torch.equal(model.state_dict()[k], v) for k, v in laterals.items())


def test_a_posec3d_may_be_the_pose_stream():
    pose = ClipClassifier(PoseC3D(COCO17, temporal_strides=(1, 1, 1)), 5, 0.5)
    report = initialise_from_streams(build(), build("rgb").state_dict(), pose.state_dict())
    assert len(report.widened) == 8


def test_classifiers_of_other_classes_stay_new():
    model, rgb = build(), build("rgb").state_dict()
    heads = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("head.")}
    other = build("pose", num_classes=7).state_dict()
    without = {k: v for k, v in other.items() if not k.startswith("head.")}
    for pose in (other, without):
        report = initialise_from_streams(model, rgb, pose)
        assert report.new_heads == ("pose",)
        assert str(report).endswith(
            "and the classifier of pose (of other classes, or without one)."
        )
        for name, tensor in model.state_dict().items():
            if name.startswith("head.pose"):
                assert torch.equal(tensor, heads[name])
            elif name.startswith("head.rgb"):
                assert torch.equal(tensor, rgb[name])


def test_streams_that_do_not_fit_are_named_and_change_nothing():
    model, rgb, pose = build(), build("rgb").state_dict(), build("pose").state_dict()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    short = {k: v for k, v in rgb.items() if k != "encoder.rgb_path.layer4.2.conv1.conv.weight"}
    stem = {**pose, "encoder.pose_path.conv1.conv.weight": torch.zeros(32, 15, 1, 7, 7)}
    deep = ClipClassifier(PoseC3D(COCO17, (4, 6, 4)), 5, 0.5).state_dict()
    for given, wording in (
        ((short, pose), r"rgb_path.layer4.2.conv1.conv.weight is missing \(and 0 more\)"),
        ((rgb, rgb), r"is missing|is not known"),
        ((rgb, deep), r"pose_path.layer3.3.conv1.bn.bias is not known"),
        ((rgb, stem), r"pose_path.conv1.conv.weight is \(32, 15, 1, 7, 7\)"),
        (
            (rgb, {**pose, "cls_head.fc_cls.weight": torch.ones(5, 512)}),
            "have head.pose.weight twice",
        ),
    ):
        with pytest.raises(InputError, match=wording):
            initialise_from_streams(model, *given)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    with pytest.raises(InputError, match="of both streams"):
        initialise_from_streams(build("rgb"), rgb, pose)


def test_inputs_that_do_not_fit_are_named(model):
    batch = batch_of()
    with pytest.raises(InputError, match="no frames, the RGB pathway"):
        model(replace(batch, frames=None))
    with pytest.raises(InputError, match=r"frames \(2, 2, 4, 64, 64\)"):
        model(replace(batch, frames=torch.zeros(2, 2, 4, 64, 64)))
    with pytest.raises(InputError, match="4 skeletons for each frame"):
        model(replace(batch, skeletons=batch.skeletons[:, :6]))
    with pytest.raises(InputError, match="1/4 of the frame's"):
        model(replace(batch, volume_size=(32, 32)))
    with pytest.raises(InputError, match="no streams 'flow'"):
        build("flow")
    with pytest.raises(InputError, match="3 dimensions"):
        RGBPoseConv3D(5, NTU25)
