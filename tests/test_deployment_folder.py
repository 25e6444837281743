"""Model folders: whole or not there, and nothing is believed that their files do not prove."""

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save

from deployment.folder import (
    CONFIG,
    WEIGHTS,
    find_model,
    new_model_folder,
    write_config,
    write_weights,
)
from deployment.networks import TorchNetwork, build_network, load_network
from deployment.onnx_export import example_batch
from errors import InputError
from tests.making_models import MODES, config_of, model_of, write_checkpoint

CPU = torch.device("cpu")


def write_model(folder, mode="pose", seed=0):
    config = config_of(mode)
    with new_model_folder(folder, overwrite=False) as new:
        write_weights(new, model_of(config, seed))
        write_config(new, config)
    return folder


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        load_network(path, CPU)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "my model ä")


def rewrite_config(folder, **changes):
    value = json.loads((folder / CONFIG).read_text("utf-8"))
    (folder / CONFIG).write_text(json.dumps(value | changes), encoding="utf-8")


def rewrite_weights(folder, data: bytes):
    """Write weights that `config.json` knows of, as a forger would."""
    (folder / WEIGHTS).write_bytes(data)
    rewrite_config(folder, weights={"sha256": hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_answers_bit_for_bit_as_its_checkpoint(mode, tmp_path):
    checkpoint = load_network(write_checkpoint(tmp_path / "c.pth.tar", mode), CPU)
    folder = load_network(write_model(tmp_path / "m", mode), CPU)
    assert folder.config == checkpoint.config
    batch = example_batch(folder.config, 5, seed=1)
    assert torch.equal(folder.logits(batch), checkpoint.logits(batch))
    assert not folder.model.training


def test_the_weights_file_stands_for_its_folder(model):
    assert load_network(model / WEIGHTS, CPU).source == model
    assert find_model(model) == ("folder", model)


def test_other_programs_can_read_the_weights(model):
    found = load_file(model / WEIGHTS)
    expected = model_of(config_of("pose")).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    told = json.loads((model / CONFIG).read_text("utf-8"))
    assert told["weights"]["sha256"] == hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()
    assert told["weights"]["bytes"] == (model / WEIGHTS).stat().st_size
    assert torch.__version__.startswith(told["versions"]["torch"])


def test_files_can_be_read_by_everybody_that_the_system_lets(model):
    usual = model / "usual"
    usual.write_bytes(b"")
    modes = {path.stat().st_mode & 0o777 for path in model.iterdir()}
    assert modes == {usual.stat().st_mode & 0o777}


# ---------------------------------------------------------------- hostile and broken folders


def test_weights_that_were_changed_or_cut_are_refused(model):
    data = bytearray((model / WEIGHTS).read_bytes())
    data[-5] ^= 1
    (model / WEIGHTS).write_bytes(data)
    assert "SHA-256 differs" in refusal(model)
    (model / WEIGHTS).write_bytes(data[:-100])
    assert "SHA-256 differs" in refusal(model)
    (model / WEIGHTS).write_bytes(b"")
    assert "SHA-256 differs" in refusal(model)


def test_damaged_weights_with_the_right_sum_are_refused(model):
    data = (model / WEIGHTS).read_bytes()
    header = b'{"a": {"dtype": "F32", "shape": [9999999999], "data_offsets": [0, 4]}}'
    for bad in (
        data[:-100],
        b"",
        b"<html>",
        b"\xff" * 8 + data[8:],
        len(header).to_bytes(8, "little") + header + b"\0" * 4,
    ):
        rewrite_weights(model, bad)
        assert "damaged" in refusal(model)


def test_weights_of_another_network_are_refused(model):
    state = model_of(config_of("pose")).state_dict()
    shapes = {name: tensor.clone() for name, tensor in state.items()}
    shapes["head.linear.weight"] = torch.zeros(3, 128)
    types = {name: tensor.half() for name, tensor in state.items()}
    fewer = {name: tensor for name, tensor in state.items() if "fc" not in name}
    for bad in (shapes, types, fewer, {**state, "more": torch.zeros(1)}):
        rewrite_weights(model, save(bad))
        assert "belong together" in refusal(model)
    rewrite_weights(model, save(state))
    load_network(model, CPU)


def test_a_configuration_of_a_larger_network_takes_no_memory(model):
    """Otherwise a folder of a few bytes would fill the machine before it is refused."""
    value = json.loads((model / CONFIG).read_text("utf-8"))
    network = {"fusion": "none", "arch": "resnext101_32x8d", "width": 1024}
    large = config_of("rgb", **network)
    value |= {"network": value["network"] | network, "transforms": large.transforms}
    (model / CONFIG).write_text(json.dumps(value), encoding="utf-8")
    assert "belong together" in refusal(model)


def test_a_network_of_absurd_size_is_not_built():
    with pytest.raises(InputError, match="parameters"):
        build_network(config_of("rgb", arch="resnext101_32x8d", width=1024), "c.pth.tar")


def test_a_width_that_cannot_be_is_refused_in_one_line(tmp_path):
    path = write_checkpoint(tmp_path / "c.pth.tar", "rgb", args={"width": 6})
    assert "describes a network that cannot be" in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    network = model_of(config_of("pose"))
    network.head.linear.bias.data[0] = value
    with new_model_folder(tmp_path / "m", overwrite=False) as folder:
        write_weights(folder, network)
        write_config(folder, config_of("pose"))
    assert "head.linear.bias" in refusal(tmp_path / "m")
    with pytest.raises(InputError, match="not finite"):
        TorchNetwork(config_of("pose"), tmp_path, network, CPU)


def test_configurations_without_a_sum_or_damaged_are_refused(model):
    for weights in (None, {}, {"sha256": 3}, {"sha256": "../x"}, []):
        rewrite_config(model, weights=weights)
        assert "SHA-256" in refusal(model)
    (model / CONFIG).write_bytes(b"\x80\x04")
    assert "does not describe" in refusal(model)
    (model / CONFIG).write_bytes(b"[" * (2**24 + 1))
    assert "cannot be read" in refusal(model)


def test_pipes_and_links_to_nowhere_do_not_hang(model):
    (model / WEIGHTS).unlink()
    os.mkfifo(model / WEIGHTS)
    refusal(model)
    refusal(model / WEIGHTS)
    (model / WEIGHTS).unlink()
    (model / WEIGHTS).symlink_to("nowhere")
    refusal(model)


def test_what_is_no_model_says_what_to_give(tmp_path):
    assert "not there" in refusal(tmp_path / "nothing")
    assert "no model folder" in refusal(tmp_path)
    (tmp_path / "best.pth.tar").write_bytes(b"")
    assert "give" in refusal(tmp_path)
    assert "best.pth.tar" in refusal(tmp_path)
    (tmp_path / "other.safetensors").write_bytes(b"")
    assert "no safetensors file, or damaged" in refusal(tmp_path / "other.safetensors")


# ---------------------------------------------------------------- writing


def fail_while_writing(folder):
    with new_model_folder(folder, overwrite=True) as new:
        write_weights(new, model_of(config_of("pose"), seed=1))
        raise ZeroDivisionError


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_replaced_only_when_asked_and_only_at_the_end(model):
    before = (model / WEIGHTS).read_bytes()
    with pytest.raises(InputError, match="--overwrite"), new_model_folder(model, overwrite=False):
        pass
    with pytest.raises(ZeroDivisionError):
        fail_while_writing(model)
    assert (model / WEIGHTS).read_bytes() == before
    with new_model_folder(model, overwrite=True) as folder:
        write_weights(folder, model_of(config_of("pose"), seed=1))
        write_config(folder, config_of("pose"))
        assert (model / WEIGHTS).read_bytes() == before
    assert (model / WEIGHTS).read_bytes() != before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_nothing_but_model_folders_is_overwritten(tmp_path, model):
    (model / "thesis.tex").write_text("ten years")
    with pytest.raises(InputError, match=r"thesis\.tex"), new_model_folder(model, overwrite=True):
        pass
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "README.md").write_text("hand-written")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(model)
    for name in ("plain", "file", "link"):
        with pytest.raises(InputError), new_model_folder(tmp_path / name, overwrite=True):
            pass
    assert (plain / "README.md").read_text() == "hand-written"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "m").mkdir()
    assert load_network(write_model(tmp_path / "m"), CPU)
