"""What files say of models: kept exactly, and refused in one line when it cannot be true."""

import json

import numpy as np
import pytest
import torch

from datasets import views
from datasets.views import Crop, InputSpec, see_frames
from deployment.config import KEPT_OPTIONS, ModelConfig
from errors import InputError
from ops.pixels import normalize_frames
from tests.making_models import DATA, MODES, OPTIONS, config_of, write_checkpoint
from transforms import eval_geometries


def refusal(value: dict) -> str:
    with pytest.raises(InputError) as caught:
        ModelConfig.of_json(json.dumps(value), "config.json")
    text = str(caught.value)
    assert text.startswith("config.json")
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize("mode", MODES)
def test_the_text_of_a_configuration_gives_it_back(mode):
    config = config_of(mode, classes=("stands", '<script>"&\n', "fällt 🤸"))
    again = ModelConfig.of_json(json.dumps(config.to_json()), "x")
    assert again == config
    assert again.input == config.input
    assert vars(again.args) == vars(config.args)


def test_a_checkpoint_says_what_its_text_says(tmp_path):
    path = write_checkpoint(tmp_path / "c.pth.tar", "early", frame_interval=4)
    config = ModelConfig.of_checkpoint(path)
    assert config == config_of("early", frame_interval=4)
    assert config.data == DATA


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("rgb", ("frames",)),
        ("early", ("frames",)),
        ("late_fast", ("frames", "keypoints")),
        ("pose", ("keypoints",)),
    ],
)
def test_inputs_are_those_that_the_network_reads(mode, names):
    config = config_of(mode)
    assert config.input_names == names
    assert [config.transforms[name] is not None for name in ("frames", "keypoints")] == [
        name in names for name in ("frames", "keypoints")
    ]


def test_a_program_of_others_gets_the_same_pixels_from_the_transforms():
    """Computed from the numbers in the file alone, against the frames that networks see."""
    spec = InputSpec(num_segments=1, input_size=28, heatmap_channel=True)
    told = config_of("early", input_size=28, num_segments=1).transforms
    frame = np.full((1, 64, 96, 3), (10, 128, 250), np.uint8)
    geometry = eval_geometries(96, 64, 28, 1, "square")[0]
    crop, size, nobody = Crop(geometry), (96, 64), np.zeros((1, 1, 17, 3))
    found = normalize_frames(*see_frames(spec, crop.apply_to_frames(frame), crop, nobody, size))
    pixel = np.array([10, 128, 250, 0]) / 255
    expected = (pixel - told["frames"]["mean"]) / told["frames"]["std"]
    assert np.allclose(found[0, :, 5, 7], expected, atol=1e-5)
    assert told["crop"]["share"] * 64 == geometry.box.width
    assert told["heatmap"]["of_short_side"] == views._SIGMA_SHORT_SIDE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fusion", "middle"),
        ("fusion", ["early"]),
        ("fusion", None),
        ("arch", "__import__('os')"),
        ("width", 10**9),
        ("width", -4),
        ("width", 8.0),
        ("num_channels", True),
        ("num_segments", 10**12),
        ("num_segments", 0),
        ("num_segments", "8"),
        ("gsf", 1),
        ("gsf_ch_ratio", 101),
        ("pose_model", {}),
        ("dropout", float("nan")),
        ("dropout", 1),
        ("consensus_type", "max"),
        ("attention_scope", "world"),
    ],
)
def test_options_that_no_model_has_are_refused(name, value):
    told = config_of("early").to_json()
    told["network"][name] = value
    assert name in refusal(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_size", 10**6),
        ("frame_interval", 0),
        ("heatmap_sigma", float("inf")),
        ("heatmap_sigma", True),
        ("field_of_view", "x" * 10**6),
        ("mask_background", "no"),
        ("pose_normalize", 3),
    ],
)
def test_inputs_that_no_model_has_are_refused(name, value):
    told = config_of("early").to_json()
    told["input"][name] = value
    assert name in refusal(told)


def test_absent_options_are_named():
    for name in KEPT_OPTIONS:
        told = config_of("early").to_json()
        del told["network" if name in told["network"] else "input"][name]
        assert name in refusal(told)


def test_clips_that_fill_the_memory_are_refused():
    told = config_of("early", num_segments=64, input_size=512).to_json()
    assert ModelConfig.of_json(json.dumps(told), "x").input.input_size == 512
    told["network"]["num_segments"] = 1000
    assert "GiB" in refusal(told)


@pytest.mark.parametrize(
    "classes", [None, [], "ab", [1, 2], [""], ["a" * 501], [["a"]], ["a"] * 10_001, {"a": 1}]
)
def test_classes_that_are_no_names_are_refused(classes):
    assert "class" in refusal(config_of("rgb").to_json() | {"classes": classes})


@pytest.mark.parametrize(
    "data",
    [
        [],
        "FRFS",
        {"dataset": "x"},
        DATA | {"dataset": 3},
        DATA | {"fps": -1},
        DATA | {"fps": float("nan")},
        DATA | {"clip_seconds": "long"},
        DATA | {"lists": {"train": {"clips": -1, "sha256": "a" * 64}}},
        DATA | {"lists": {"train": {"clips": 4, "sha256": "z" * 64}}},
        DATA | {"lists": {"train": 4}},
        DATA | {"lists": {"../../x": {"clips": 4, "sha256": "a" * 64}}},
    ],
)
def test_facts_of_data_that_cannot_be_are_refused(data):
    refusal(config_of("rgb").to_json() | {"data": data})


def test_other_transforms_than_ours_are_refused():
    told = config_of("rgb").to_json()
    told["transforms"]["frames"]["mean"] = [0.5, 0.5, 0.5]
    assert "transforms" in refusal(told)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "NaN", "{}", "[" * 100_000, b"\xff\xfe\x00", '{"format": "bert"}'],
)
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(InputError, match="does not describe a model of this project"):
        ModelConfig.of_json(text, "config.json")


def test_another_version_is_refused():
    assert "version 2" in refusal(config_of("rgb").to_json() | {"format_version": 2})
    assert "network" in refusal(config_of("rgb").to_json() | {"network": None})


def test_contradictions_are_refused():
    told = config_of("rgb").to_json()
    told["network"]["num_channels"] = 4
    assert "4 channels" in refusal(told)


@pytest.mark.parametrize("name", ["num_segments", "width"])
def test_a_hostile_checkpoint_is_refused_before_anything_is_built(tmp_path, name):
    path = write_checkpoint(tmp_path / "c.pth.tar", args={name: 10**10})
    with pytest.raises(InputError, match=name):
        ModelConfig.of_checkpoint(path)


def test_a_foreign_checkpoint_is_sent_to_the_export(tmp_path):
    torch.save({"state_dict": {"new_fc.weight": torch.zeros(2, 8)}}, tmp_path / "p.pth")
    with pytest.raises(InputError, match=r"tools/export\.py"):
        ModelConfig.of_checkpoint(tmp_path / "p.pth")


def test_the_options_of_the_tests_are_those_that_are_kept():
    assert set(OPTIONS) == set(KEPT_OPTIONS)
