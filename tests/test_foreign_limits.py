"""What a foreign file claims: nothing beyond limits is built, nothing raw reaches a terminal."""

import pytest
import torch

from models.weights import checkpoint_options, load_checkpoint
from tests.making_checkpoints import message_of
from tests.toolbox_files import pose_network, toolbox_state, write_pyskl

STGCNPP = ("--pose_model", "stgcnpp")


def test_names_of_tensors_are_shown_short_and_in_one_line(tmp_path):
    state = {**toolbox_state(pose_network(*STGCNPP)), "\x1b[2J\n" + "x" * 5000: torch.ones(1)}
    path = write_pyskl(tmp_path / "c.pth", state)
    report = load_checkpoint(pose_network(*STGCNPP), path, strict=False)
    for text in (str(report), message_of(load_checkpoint, pose_network(*STGCNPP), path)):
        assert text.isprintable()
        assert "1 unexpected (first: \\x1b[2J\\nxxx" in text
        assert len(text) < 600


HUGE = torch.ones(1)
IMPOSSIBLE = [
    ("stgcnpp", {"backbone.data_bn.weight": HUGE.expand(51 * 10**10)}, "num_people 10000000000"),
    ("agcn", {"backbone.data_bn.weight": HUGE.expand(51 * 101)}, "num_people 101"),
    ("posec3d", {f"backbone.layer1.{i}.x": HUGE for i in range(3000)}, "posec3d_stages a list"),
    ("posec3d", {"backbone.layer4.0.x": HUGE}, "posec3d_stages a list"),
]


@pytest.mark.parametrize(("name", "more", "told"), IMPOSSIBLE, ids=[row[2] for row in IMPOSSIBLE])
def test_networks_that_no_machine_can_hold_are_refused(name, more, told, tmp_path):
    state = toolbox_state(pose_network("--pose_model", name))
    path = write_pyskl(tmp_path / "c.pth", {**state, **more})
    message = message_of(checkpoint_options, path)
    assert f"its tensors say {told}, which should be" in message
    assert len(message) < 400
