"""ONNX files answer as the models that they were made of, and say what they are."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from deployment.config import ModelConfig
from deployment.networks import TorchNetwork, load_network
from deployment.onnx_export import METADATA, OPSET, example_batch, export_onnx
from deployment.onnx_network import OnnxNetwork
from deployment.rescore import rescore
from errors import InputError
from models import build_model
from ops.batch import Batch
from ops.gsf import GSF
from tests.making_models import config_of, model_of

CPU = torch.device("cpu")
# The four modes of the project, each once with all that is special in it.
EXPORTED = ("rgb", "early", "late_fast", "late_attention")
CHEAP = ("pose", "pose_mlp", "pose_gcn")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a function that gives a model of a mode and its ONNX file, each made once."""
    made, folder = {}, tmp_path_factory.mktemp("onnx")

    def export(mode: str) -> tuple[TorchNetwork, OnnxNetwork]:
        if mode not in made:
            config = config_of(mode)
            path = folder / f"{mode}.onnx"
            network = TorchNetwork(config, path, model_of(config), CPU)
            export_onnx(network.model, config, path)
            made[mode] = network, load_network(path, CPU)
        return made[mode]

    return export


def test_a_gsf_module_is_few_nodes(exported):
    """Traced in the order that is fast in PyTorch, a module was 370 nodes of index arithmetic."""
    network, file = exported("early")
    count = sum(isinstance(module, GSF) for module in network.model.modules())
    paths = file.source, exported("rgb")[1].source
    nodes, without = (len(onnx.load(path).graph.node) for path in paths)
    assert count == 8
    assert (nodes - without) / count < 56


def test_the_model_stays_as_it_is(tmp_path):
    config = config_of("pose")
    model = model_of(config).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export_onnx(model, config, tmp_path / "m.onnx")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "mode", [*EXPORTED, *CHEAP, pytest.param("late_frame", marks=pytest.mark.slow)]
)
def test_the_file_answers_as_the_model_for_any_number_of_clips(exported, mode):
    torch_network, onnx_network = exported(mode)
    for rows in (1, 2, 5, 9):
        batch = example_batch(torch_network.config, rows, seed=rows)
        expected, found = torch_network.logits(batch), onnx_network.logits(batch)
        assert found.shape == (rows, 2)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=1e-5)
        assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize("mode", ["early", "late_attention", "pose_gcn"])
def test_the_inputs_matter_and_clips_do_not_mix(exported, mode):
    """Against a graph that answers a constant, or mixes the clips of a batch."""
    _, network = exported(mode)
    batch = example_batch(network.config, 3, seed=5)
    batch = replace(batch, **{n: getattr(batch, n).clone() for n in network.config.input_names})
    before = network.logits(batch)
    for name in network.config.input_names:
        tensor = getattr(batch, name)
        tensor[1, ..., :2] += 1 if name == "frames" else 0.5
        after = network.logits(batch)
        assert torch.equal(after[[0, 2]], before[[0, 2]])
        assert (after[1] - before[1]).abs().max() > 1e-4
        before = after


def test_unseen_joints_may_hold_anything(exported):
    _, network = exported("pose_gcn")
    batch = example_batch(network.config, 2, seed=3)
    strange = torch.where(batch.keypoints[..., 2:] > 0, batch.keypoints, torch.nan)
    strange[..., 2] = batch.keypoints[..., 2]
    assert torch.equal(network.logits(Batch(keypoints=strange)), network.logits(batch))


@pytest.mark.parametrize("mode", ["early", "pose"])
def test_a_file_says_what_it_is_and_nothing_of_the_machine(exported, mode):
    _, network = exported(mode)
    assert network.config == config_of(mode)
    assert network.providers == ("CPUExecutionProvider",)
    data = network.source.read_bytes()
    proto = onnx.load_from_string(data)
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [OPSET]
    assert [entry.name for entry in proto.graph.output] == ["logits"]
    assert [entry.name for entry in proto.graph.input] == list(network.config.input_names)
    assert not any(text in data for text in (b"site-packages", b"making_models", b"/home"))


def test_export_is_quiet_and_leaves_no_trace(tmp_path, capfd):
    config = config_of("pose")
    was_fast = torch.backends.mha.get_fastpath_enabled()
    export_onnx(model_of(config), config, tmp_path / "a b ä.onnx")
    assert torch.backends.mha.get_fastpath_enabled() == was_fast
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a b ä.onnx"]


def test_a_trace_that_fails_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no decomposition for aten::new\nlong advice")

    monkeypatch.setattr(torch.onnx, "export", fail)
    config = config_of("pose")
    with pytest.raises(InputError, match=r"no decomposition.*--formats safetensors") as caught:
        export_onnx(model_of(config), config, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime"):
        OnnxNetwork(tmp_path / "m.onnx", CPU)


def test_the_same_model_gives_the_same_file(tmp_path):
    config = config_of("pose")
    for name in ("one", "two"):
        export_onnx(model_of(config), config, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


# ---------------------------------------------------------------- wrong batches, wrong files


def test_a_batch_of_another_shape_is_refused(exported):
    _, network = exported("pose")
    for batch in (
        Batch(frames=torch.zeros(1, 3, 3, 32, 32)),
        Batch(keypoints=torch.zeros(1, 4, 1, 17, 3)),
        Batch(keypoints=torch.zeros(1, 3, 2, 17, 3)),
    ):
        with pytest.raises(InputError, match="takes keypoints"):
            network.logits(batch)


def test_several_views_of_a_clip_are_rows(exported):
    torch_network, network = exported("pose")
    batch = replace(example_batch(network.config, 6), views=3)
    assert torch.allclose(network.logits(batch), torch_network.logits(batch), atol=1e-5)


@pytest.fixture
def changed(exported, tmp_path):
    """Return a function that changes the proto of a good file and says how loading it fails."""

    def change(edit) -> str:
        proto = onnx.load(exported("pose")[1].source)
        edit(proto)
        path = tmp_path / "bad.onnx"
        path.write_bytes(proto.SerializeToString())
        with pytest.raises(InputError) as caught:
            load_network(path, CPU)
        text = str(caught.value)
        assert text.startswith(str(path))
        assert "\n" not in text
        assert len(text) < 500
        return text

    return change


def big_initializer(proto):
    return max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def test_weights_in_other_files_are_not_read(changed, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 10**6)

    def edit(proto):
        tensor = big_initializer(proto)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=str(secret))

    assert "other files" in changed(edit)

    def in_a_node(proto):
        node = onnx.helper.make_node("Constant", [], ["unused"])
        tensor = onnx.TensorProto(name="t", data_type=1, dims=[4])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret")
        node.attribute.append(onnx.helper.make_attribute("value", tensor))
        proto.graph.node.insert(0, node)

    assert "other files" in changed(in_a_node)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(changed, value):
    def edit(proto):
        tensor = big_initializer(proto)
        weights = onnx.numpy_helper.to_array(tensor).copy()
        weights.flat[3] = value
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))

    assert "not finite" in changed(edit)


def test_loops_functions_and_foreign_operators_are_refused(changed):
    def loop(proto):
        graph = onnx.helper.make_graph([], "body", [], [])
        proto.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["x"], body=graph))

    def foreign(proto):
        proto.graph.node[0].domain = "com.evil"

    def domain(proto):
        proto.opset_import.add(domain="com.evil", version=1)

    def function(proto):
        proto.functions.add(name="f", domain="com.evil")

    assert "Loop" in changed(loop)
    assert "node" in changed(foreign)
    assert "operators" in changed(domain)
    assert "operators" in changed(function)


def test_metadata_and_graph_must_belong_together(changed):
    def told(**changes):
        def edit(proto):
            value = json.loads(proto.metadata_props[0].value) | changes
            onnx.helper.set_model_props(proto, {METADATA: json.dumps(value)})

        return edit

    other = config_of("pose", num_segments=4)
    assert "does not fit" in changed(told(classes=["a", "b", "c"]))
    assert "does not fit" in changed(
        told(network=other.to_json()["network"], transforms=other.transforms)
    )
    assert "does not describe" in changed(told(format="bert"))
    assert "does not say what it is" in changed(
        lambda p: onnx.helper.set_model_props(p, {"a": "b"})
    )


def test_a_broken_graph_is_refused(changed):
    def unknown(proto):
        proto.graph.node[0].op_type = "Frobnicate"

    def cut(proto):
        tensor = big_initializer(proto)
        tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2 // 4 * 4]

    assert "onnxruntime" in changed(unknown)
    assert "damaged" in changed(cut)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\0" * 1000, b"\x08\x08"])
def test_what_is_no_onnx_is_refused(content, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.onnx") as caught:
        load_network(path, CPU)
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(exported, tmp_path):
    data = exported("pose")[1].source.read_bytes()
    path = tmp_path / "m.onnx"
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError):
            load_network(path, CPU)


def test_rescore_counts_every_clip_and_sees_one_that_is_off(exported):
    torch_network, onnx_network = exported("pose")
    config = torch_network.config
    batches = [example_batch(config, rows, seed=rows) for rows in (8, 5)]

    class LastIsOff(TorchNetwork):
        def logits(self, batch):
            found = super().logits(batch).clone()
            calls.append(len(found))
            if sum(calls) == 13:
                found[-1, 1 - found[-1].argmax()] += 10
            return found

    calls: list[int] = []
    off = LastIsOff(config, torch_network.source, torch_network.model, CPU)
    good, bad = rescore(torch_network, [onnx_network, off], batches)
    assert good.clips == bad.clips == 13 == good.same_labels
    assert len(set(calls)) > 2
    assert good.holds(1e-4)
    assert not good.holds(good.difference / 2)
    assert bad.difference == pytest.approx(10, abs=1e-4)
    assert bad.same_labels == 12
    assert not bad.holds(1e-4)


def test_nan_is_no_agreement(exported):
    torch_network, _ = exported("pose")

    class Silent(TorchNetwork):
        def logits(self, batch):
            return super().logits(batch) * torch.nan

    silent = Silent(torch_network.config, torch_network.source, torch_network.model, CPU)
    (found,) = rescore(torch_network, [silent], [example_batch(torch_network.config, 4)])
    assert not found.holds(1e9)
    with pytest.raises(InputError, match="not finite"):
        rescore(silent, [torch_network], [example_batch(torch_network.config, 4)])
    (nothing,) = rescore(torch_network, [torch_network], [])
    assert not nothing.holds(1e9)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["none", "early", "late_fast", "late_attention"])
def test_a_model_of_full_size_agrees(fusion, tmp_path):
    channels = 4 if fusion == "early" else 3
    sizes = {"arch": "resnet50", "width": 64, "num_segments": 8, "input_size": 224, "gsf": True}
    config = config_of("rgb", fusion=fusion, num_channels=channels, **sizes)
    assert isinstance(config, ModelConfig)
    network = TorchNetwork(config, tmp_path, fresh_model(config), CPU)
    export_onnx(network.model, config, tmp_path / "m.onnx")
    exported = load_network(tmp_path / "m.onnx", CPU)
    (found,) = rescore(network, [exported], [example_batch(config, 4)])
    assert found.holds(1e-4), found.text()


def fresh_model(config):
    """Build a model as training begins it, whose norms know the inputs.

    With the large random gates of `model_of` 50 layers are chaotic: float32 and float64 differ by
    0.1 in a logit.
    """
    torch.manual_seed(0)
    model = build_model(config.args, len(config.classes))
    torch.nn.init.normal_(model.head.linear.weight, std=0.03)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # a plain mean
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        model.train()(example_batch(config, 4, seed=1))
    return model.eval()
