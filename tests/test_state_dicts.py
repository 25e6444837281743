"""Weights in whatever they are wrapped: found alike by who loads them and who asks for options."""

from collections import OrderedDict

import pytest
import torch

from models.state_dicts import find_state, find_weights, short
from models.weights import checkpoint_options, load_checkpoint, load_for_finetune
from tests.making_checkpoints import equal, message_of
from tests.toolbox_files import pose_network, toolbox_state

NETWORK = ("--pose_model", "stgcnpp")
META = {"mmengine_version": "0.7.1", "cfg": "clip_len=64"}


def prefixed(prefix: str):
    return lambda state: {"state_dict": {f"{prefix}{k}": v for k, v in state.items()}}


WRAPPED = {
    "bare": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model": lambda state: {"model": state},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "nested": lambda state: {"state_dict": {"model": {"model_state_dict": state}}},
    **{prefix: prefixed(prefix) for prefix in ("module.", "_orig_mod.", "_orig_mod.module.")},
    "module.module.": prefixed("module.module."),
    "module._orig_mod.module.": prefixed("module._orig_mod.module."),
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_wrapped_weights_load_and_tell_their_options(wrap, tmp_path):
    source, target = pose_network(*NETWORK), pose_network(*NETWORK, seed=1)
    content = wrap(toolbox_state(source, "fc"))
    is_bare = wrap is WRAPPED["bare"]
    path = tmp_path / "c.pth"
    torch.save(content if is_bare else {**content, "meta": META}, path)
    assert load_checkpoint(target, path).is_complete
    assert equal(source, target)
    told = checkpoint_options(path)
    assert told["pose_model"] == "stgcnpp"
    assert told["pose_normalize"] == "image_keep"
    assert told.get("pose_frames") == (None if is_bare else 64)


def test_averages_beside_the_weights_are_left_out_and_named(tmp_path):
    source, target = pose_network(*NETWORK), pose_network(*NETWORK, seed=1)
    state = toolbox_state(source)
    averages = {f"ema_{name.replace('.', '_')}": v + 1 for name, v in state.items() if v.ndim}
    names = {f"module.{name}": tensor for name, tensor in (state | averages).items()}
    torch.save({"n_averaged": torch.tensor(3), **names}, tmp_path / "c.pth")
    for load in (load_checkpoint, load_for_finetune):
        report = load(target, tmp_path / "c.pth")
        assert report.is_complete
        assert f"{len(averages)} averages beside the weights (ema_...) are left out" in str(report)
        assert "n_averaged of averaged weights is left out" in str(report)
    assert equal(source, target)


def test_what_is_called_an_average_without_its_weights_stays():
    state = {"ema_a_b": torch.ones(1), "a.c": torch.ones(1)}
    assert find_state(state, "c.pth") == state
    assert not find_weights(state, "c.pth").notes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("head.linear.bias", "module.head.linear.bias"),
        ("cls_head.fc.bias", "cls_head.fc_cls.bias"),
        ("cls_head.fc.bias", "new_fc.bias"),
        ("backbone.data_bn.bias", "encoder.data_bn.bias"),
    ],
)
def test_two_tensors_that_become_one_are_refused_with_both_names(first, second, tmp_path):
    path = tmp_path / "c.pth"
    state = toolbox_state(pose_network(*NETWORK))
    del state["cls_head.fc_cls.bias"], state["backbone.data_bn.bias"]
    torch.save({**state, first: torch.zeros(5), second: torch.ones(5)}, path)
    for call in (checkpoint_options, lambda p: load_checkpoint(pose_network(*NETWORK), p)):
        message = message_of(call, path)
        assert f"two tensors that are one in the model, {first} and {second}: save" in message


def test_a_dict_that_holds_itself_is_no_weights():
    content: dict = {"epoch": 3}
    content["model"] = content["state_dict"] = content
    assert "holds no weights (a dict with epoch, model, state_dict)" in message_of(
        find_state, content, "c.pth"
    )


def test_names_of_a_file_are_shown_short_and_in_one_line():
    content = OrderedDict({"\x1b[31m\n" + "x" * 500: 3})
    message = message_of(find_state, content, "c.pth")
    assert message.isprintable()
    assert len(message) < 300
    assert short("a" * 100) == "a" * 100
