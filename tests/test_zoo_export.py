"""Models of whole clips outside of training: configurations, folders, ONNX, hostile files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import predict
from deployment.checks import check_data
from deployment.config import KEPT_OPTIONS, ModelConfig
from deployment.folder import CONFIG, write_config, write_weights
from deployment.model_card import model_card
from deployment.networks import TorchNetwork, load_network
from deployment.onnx_export import example_batch, export_onnx
from deployment.onnx_network import OnnxNetwork
from errors import InputError
from models.skeleton.catalogue import CATALOGUE
from models.skeleton.trunk import SkeletonGCN
from ops.conversion import describe_layout
from ops.skeleton import COCO17, NTU25
from options.exporting import describe_foreign, parse_export_args
from options.skeletons import EARLIER_DEFAULTS
from tests.making_models import config_of, model_of, write_checkpoint
from tests.making_videos import write_video
from tests.making_zoo import CPU, ZOO, zoo_config, zoo_network
from tests.toolbox_files import pose_network, toolbox_state, write_pyskl
from tools import export
from tools.export import source_options

INPUTS = {
    "stgcnpp": {"skeletons": (8, 2, 17, 3)},
    "streams": {"skeletons": (9, 2, 17, 6), "present": (9, 2)},
    "ntu": {"skeletons": (8, 2, 25, 3)},
    "posec3d": {"skeletons": (6, 2, 17, 3)},
    "limb": {"skeletons": (6, 1, 17, 3)},
    "late": {"frames": (3, 3, 32, 32), "skeletons": (8, 2, 17, 3), "present": (8, 2)},
    "rgbpose": {"frames": (2, 3, 32, 32), "skeletons": (8, 2, 17, 3)},
    "rgbpose_pose": {"skeletons": (8, 2, 17, 3)},
}


def told(name: str, **changes) -> dict:
    """Return what `config.json` says of a model, changed, after a way through JSON."""
    value = json.loads(json.dumps(zoo_config(name).to_json()))
    for key, new in changes.items():
        value["network" if key in value["network"] else "input"][key] = new
    return value


def refusal(value: dict) -> str:
    with pytest.raises(InputError) as caught:
        ModelConfig.of_json(json.dumps(value), "x/config.json")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize("name", ZOO)
def test_a_configuration_survives_its_file(name):
    config = zoo_config(name)
    again = ModelConfig.of_json(json.dumps(config.to_json()), "x")
    assert again == config
    assert again.input == config.input
    assert again.layout == config.layout


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_have_the_shapes_that_the_network_takes(name):
    network = zoo_network(name)
    config = network.config
    found = {key: config.input_shape(key) for key in config.input_names}
    assert found == INPUTS[name]
    logits = network.logits(example_batch(config, 5))
    assert logits.shape == (5, 2)
    assert torch.isfinite(logits).all()
    assert logits.std(dim=0).max() > 1e-4


def test_the_file_says_what_becomes_of_skeletons():
    seen = zoo_config("streams").transforms["skeletons"]
    assert seen["streams"] == ["joint", "bone_motion"]
    assert (seen["frames"], seen["people"], seen["skeleton"]) == (9, 2, "coco17")
    assert seen["volume"] is None
    assert zoo_config("posec3d").transforms["skeletons"]["volume"] == [16, 16]
    crop = zoo_config("rgbpose").transforms["crop"]
    assert crop["field_of_view"] == "people"
    assert crop["resized_to"] == [32, 32]
    assert "skeletons" not in config_of("late_attention").transforms


@pytest.mark.parametrize("mode", ["rgb", "early", "late_attention", "pose"])
def test_files_of_earlier_releases_are_read(mode):
    value = config_of(mode).to_json()
    for part in ("network", "input"):
        for name in EARLIER_DEFAULTS:
            value[part].pop(name, None)
    config = ModelConfig.of_json(json.dumps(value), "x")
    assert config == config_of(mode)
    assert config.layout == COCO17


def test_a_layout_of_the_users_own_goes_along(tmp_path):
    own = describe_layout(replace(NTU25, name="mine"))
    config = zoo_config("ntu", skeleton_layout=own)
    assert ModelConfig.of_json(json.dumps(config.to_json()), "x").layout.name == "mine"
    data = {"dataset": "d", "lists": {}, "layout": own}
    assert check_data(data, "x")["layout"] == own
    assert "layout" not in check_data({"dataset": "d", "lists": {}}, "x")
    with pytest.raises(InputError, match="layout 'nonsense'"):
        check_data({**data, "layout": "nonsense"}, "x")


@pytest.mark.parametrize("name", ["stgcnpp", "limb", "late", "rgbpose"])
def test_a_card_says_what_the_model_sees(name):
    config = zoo_config(name)
    card = model_card(config, name="m", sizes={"model.onnx": 5, "model.safetensors": 5})
    assert "coco17, 17 joints" in card
    assert f"in {config.input.skeleton.length} frames" in card
    assert ("heatmap volumes of limbs, 16 x 16" in card) == (name == "limb")
    assert ("`present` bool" in card) == (name == "late")
    assert ("frames of 32 x 32 pixels" in card) == (name in ("late", "rgbpose"))


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("stgcnpp", {"pose_frames": 10**9}, "pose_frames 1000000000"),
        ("stgcnpp", {"pose_frames": True}, "pose_frames True"),
        ("stgcnpp", {"num_people": 10**6}, "num_people"),
        ("stgcnpp", {"num_people": 0}, "num_people 0"),
        ("stgcnpp", {"pose_model": "nonsense"}, "pose_model"),
        ("stgcnpp", {"pose_streams": ["limb"]}, "pose_streams limb"),
        ("stgcnpp", {"pose_streams": ["joint", "joint"]}, "pose_streams joint, joint"),
        ("stgcnpp", {"pose_streams": []}, "pose_streams"),
        ("stgcnpp", {"pose_streams": "joint"}, "pose_streams"),
        ("stgcnpp", {"pose_streams": [["joint"]]}, "pose_streams"),
        ("stgcnpp", {"pose_normalize": "frame"}, "pose_normalize frame"),
        ("stgcnpp", {"pose_pooling": 1}, "pose_pooling"),
        ("stgcnpp", {"pose_sampling": None}, "pose_sampling"),
        ("stgcnpp", {"skeleton_layout": "nonsense"}, "skeleton_layout"),
        ("stgcnpp", {"skeleton_layout": 5}, "skeleton_layout"),
        ("stgcnpp", {"skeleton_layout": {"num_node": 10**6}}, "skeleton_layout"),
        (
            "stgcnpp",
            {"skeleton_layout": {"num_node": 3, "centre": 0, "inward": [[1, 0]] * 10**5}},
            "skeleton_layout",
        ),
        ("stgcnpp", {"tcn_dropout": 2}, "tcn_dropout"),
        ("stgcnpp", {"stream_losses": float("nan")}, "stream_losses"),
        ("posec3d", {"posec3d_stages": [10**6, 1, 1]}, "posec3d_stages"),
        ("posec3d", {"posec3d_stages": [1, 1]}, "posec3d_stages"),
        ("posec3d", {"pose_size": 10**6}, "pose_size"),
        ("posec3d", {"pose_frames": 10_000, "pose_size": 512}, "GiB for each clip"),
        ("posec3d", {"pose_normalize": "image"}, "pose_normalize image"),
        ("posec3d", {"pose_streams": ["joint", "limb"]}, "pose_streams joint, limb"),
        ("rgbpose", {"rgbpose_streams": "all"}, "rgbpose_streams"),
        ("rgbpose", {"pose_frames": 10_000, "input_size": 1008}, "GiB for each clip"),
        ("late", {"num_people": 100, "pose_frames": 10_000, "pose_streams": [
            "joint", "bone", "joint_motion", "bone_motion"], "skeleton_layout": "mediapipe33"},
         "GiB for each clip"),
    ],
)  # fmt: skip
def test_what_no_model_has_ends_in_one_line(name, changes, text):
    assert text in refusal(told(name, **changes))


def test_every_new_option_must_be_there():
    for name in EARLIER_DEFAULTS:
        value = told("stgcnpp")
        del value["network" if name in value["network"] else "input"][name]
        assert name in refusal(value)
    assert EARLIER_DEFAULTS.keys() <= set(KEPT_OPTIONS)


def test_models_of_single_frames_keep_their_own_frames_of_reference():
    value = config_of("pose").to_json()
    value["input"]["pose_normalize"] = "image"
    assert "pose_normalize image of a model of single frames" in refusal(value)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", ["streams", "ntu", "limb", "late", "rgbpose_pose"])
def test_a_folder_says_what_the_model_says(tmp_path, name):
    network = zoo_network(name)
    write_weights(tmp_path, network.model)
    write_config(tmp_path, network.config)
    again = load_network(tmp_path, CPU)
    batch = example_batch(network.config, 5, seed=2)
    assert torch.equal(again.logits(batch), network.logits(batch))
    value = json.loads((tmp_path / CONFIG).read_text("utf-8"))
    value["network"]["num_people"] = 1 if name != "limb" else 2
    value["transforms"]["skeletons"]["people"] = value["network"]["num_people"]
    (tmp_path / CONFIG).write_text(json.dumps(value))
    load_network(tmp_path, CPU)  # any number of people fits these weights


# ---------------------------------------------------------------- ONNX


def exported(folder, network: TorchNetwork) -> OnnxNetwork:
    export_onnx(network.model, network.config, folder / "m.onnx")
    return load_network(folder / "m.onnx", CPU)


def shortened(network: TorchNetwork) -> TorchNetwork:
    """Leave three of the ten blocks, of all widths and strides: tracing takes most of a test."""
    for module in network.model.modules():
        if isinstance(module, SkeletonGCN):
            module.gcn = nn.ModuleList([module.gcn[n] for n in (0, 4, 7)])
    return network


@pytest.mark.parametrize(
    "name",
    [
        "streams",
        "posec3d",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ZOO if name not in (
            "streams", "posec3d")),
    ],
)  # fmt: skip
def test_the_file_answers_as_the_model_for_any_number_of_clips(tmp_path, name):
    network = shortened(zoo_network(name))
    found = exported(tmp_path, network)
    assert found.config == network.config
    for rows in (1, 2, 5):
        batch = example_batch(network.config, rows, seed=rows)
        expected = network.logits(batch)
        np.testing.assert_allclose(found.logits(batch), expected, rtol=1e-4, atol=1e-5)
    for key in network.config.input_names:
        tensor = getattr(batch, key)
        changed = ~tensor if key == "present" else torch.where(tensor == 0, 0, tensor + 0.5)
        other = replace(batch, **{key: changed})
        given, expected = found.logits(other), network.logits(other)
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
        assert (expected - network.logits(batch)).abs().max() > 1e-5
    if network.config.volume_size is not None:  # loaders give as many people as there are
        alone = replace(batch, **{key: one[:, :, :1] for key, one in _people(batch).items()})
        given, expected = found.logits(alone), network.logits(alone)
        np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)
    _refuses_other_inputs(found, batch)


def _people(batch) -> dict[str, torch.Tensor]:
    parts = {key: getattr(batch, key) for key in ("skeletons", "present")}
    return {key: part for key, part in parts.items() if part is not None}


def _refuses_other_inputs(network: OnnxNetwork, batch) -> None:
    if batch.volume_size is not None:
        mirrored = torch.ones(len(batch.skeletons), dtype=torch.bool)
        for changes in ({"mirrored": mirrored}, {"volume_size": (9, 9)}):
            with pytest.raises(InputError, match="draws heatmap volumes of"):
                network.logits(replace(batch, **changes))
    with pytest.raises(InputError, match="takes skeletons"):
        network.logits(replace(batch, skeletons=None))
    with pytest.raises(InputError, match="takes skeletons"):
        network.logits(replace(batch, skeletons=batch.skeletons[:, :-1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stgcn", "aagcn", "ctrgcn"])
def test_whole_networks_are_traced(tmp_path, name):
    network = zoo_network("stgcnpp", pose_model=name)
    found, batch = exported(tmp_path, network), example_batch(network.config, 3)
    np.testing.assert_allclose(found.logits(batch), network.logits(batch), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- published weights


def test_what_a_published_file_tells_need_not_be_said(capsys):
    args = parse_export_args(["--weights", "x.pth", "--class_names", "a", "b"])
    told_options = {"fusion": "pose", "pose_model": "stgcnpp", "num_people": 2}
    described = describe_foreign(args, told_options)
    config = ModelConfig.checked(vars(described), described.class_names, None, "x")
    assert config.options["pose_model"] == "stgcnpp"
    assert config.input_names == ("skeletons",)
    other = parse_export_args(["--weights", "x.pth", "--pose_model", "agcn"])
    with pytest.raises(SystemExit):
        describe_foreign(other, told_options)
    assert "holds a network with pose_model stgcnpp" in capsys.readouterr().err


def test_the_message_names_only_what_a_file_does_not_tell(capsys):
    args = parse_export_args(["--weights", "x.pth"])
    for told_options, unsaid in (
        ({"fusion": "pose"}, "its classes: give --class_names, in order of the label (see"),
        ({}, "its classes and its network: give --class_names and the options of the network"),
    ):
        with pytest.raises(SystemExit):
            describe_foreign(args, told_options)
        assert f"x.pth does not say {unsaid}" in capsys.readouterr().err


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Put published weights where downloads lie; return their name and their file."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    name = "pyskl/stgcnpp/ntu60-xsub-2d-joint"
    path = tmp_path / "hub" / "checkpoints" / CATALOGUE[name].file_name
    path.parent.mkdir(parents=True)
    return name, write_pyskl(path, toolbox_state(pose_network("--pose_model", "stgcnpp")))


def test_published_weights_are_exported_by_their_name(published, tmp_path, capsys):
    name, path = published
    line = ["--weights", name, "--formats", "safetensors", "--clips", "1", "--class_names"]
    line += ["a", "b", "c", "d", "e", "--pose_frames", "8"]
    with pytest.raises(InputError, match=f"{name} are published weights: add --output"):
        export.main(line)
    folder = export.main([*line, "--output", str(tmp_path / "model")])
    assert load_network(folder, CPU).config.options["pose_normalize"] == "image"
    assert str(path) in capsys.readouterr().out


def test_predictions_take_names_of_published_weights(published, tmp_path):
    name, path = published
    write_video(tmp_path / "a.mp4", 5)
    with pytest.raises(InputError) as caught:
        predict.main(["--weights", name, "--source", str(tmp_path / "a.mp4"), "--no_video"])
    assert str(caught.value).startswith(f"{path} does not say ")
    assert str(caught.value).endswith("a model folder of it with tools/export.py and --class_names")


def test_models_of_earlier_releases_are_built_as_before():
    config = config_of("late_fast")
    assert sum(p.numel() for p in model_of(config).parameters()) > 0
    assert config.input.skeleton is None


def test_clips_of_compressed_pickles_are_looked_for_where_they_lie(tmp_path):
    places = {"annotations": "k.pkl", "keypoint_files": "kpfiles", "dataset_path": None}
    path = write_checkpoint(tmp_path / "best.pth.tar", args=places)
    args = parse_export_args(["--weights", str(path)])
    options = source_options(args, zoo_config("stgcnpp"))
    assert (options.annotations, options.keypoint_files) == (Path("k.pkl"), Path("kpfiles"))
