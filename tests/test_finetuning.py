"""The weights of a checkpoint as the start of another training."""

from pathlib import Path

import pytest
import torch

from models import build_model
from models.anatomy import published_name
from models.weights import FORMAT, FORMAT_VERSION, load_for_finetune
from opts import parse_pose_train_args, parse_train_args
from tests.making_checkpoints import equal, message_of

ATTENTION = "--late_fusion_poses_attention"


def model(*options: str, classes: int = 2, arch: str = "resnet18"):
    options = ("--arch", arch, "--width", "8", "--num_segments", "4", "--gsf", *options)
    args = parse_train_args(["--dataset", "synthetic", "--pretrained", "none", *options])
    return build_model(args, classes)


def published(state: dict) -> dict:
    names = {f"module.{published_name(key)}": tensor for key, tensor in state.items()}
    return {"epoch": 3, "model_state_dict": names}


def ours(state: dict) -> dict:
    return {"format": FORMAT, "version": FORMAT_VERSION, "model": state}


def save(content, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", [published, ours])
def test_defect_17_finetuning_loads_all_but_another_classifier(form, tmp_path):
    source, target = model(classes=5), model(classes=2)
    head = target.head.linear.weight.clone()
    path = save(form(source.state_dict()), tmp_path / "c.pth.tar")
    report = load_for_finetune(target, path)
    assert report.matched == len(source.state_dict()) - 2
    assert equal(source.encoder, target.encoder)
    assert torch.equal(target.head.linear.weight, head)
    assert "The classifier starts anew" in str(report)


def test_finetuning_keeps_a_classifier_that_fits(tmp_path):
    source, target = model(), model()
    report = load_for_finetune(target, save(source.state_dict(), tmp_path / "c.pt"))
    assert equal(source, target)
    assert "anew" not in str(report)


def test_finetuning_takes_an_rgb_stream_into_a_late_fusion(tmp_path):
    source, target = model(classes=5), model(ATTENTION)
    report = load_for_finetune(target, save(ours(source.state_dict()), tmp_path / "c.pt"))
    assert equal(source.encoder.backbone, target.encoder.rgb.backbone)
    assert any(name.startswith("encoder.pose.") for name in report.missing)


def test_finetuning_refuses_another_backbone_and_what_has_nothing_in_common(tmp_path):
    path = save(model(arch="resnet34").state_dict(), tmp_path / "34.pt")
    assert "--arch resnet34" in message_of(load_for_finetune, model(), path)
    wide = save(model("--width", "16").state_dict(), tmp_path / "16.pt")
    assert "--width 16" in message_of(load_for_finetune, model(), wide)
    skeletons = save(
        build_model(parse_pose_train_args(["--dataset", "synthetic"]), 2).state_dict(),
        tmp_path / "pose.pt",
    )
    assert "skeletons alone" in message_of(load_for_finetune, model(classes=5), skeletons)


PARTS = {
    "one tensor": lambda state: dict([next(iter(state.items()))]),
    "half of the blocks": lambda state: {k: v for k, v in state.items() if ".layer3" not in k},
    "one tensor too many": lambda state: state | {"encoder.backbone.layer1.5.x": torch.ones(1)},
    "all but one": lambda state: {k: v for k, v in state.items() if k != ENTRY},
}
ENTRY = "encoder.backbone.layer4.1.bn2.running_var"


@pytest.mark.parametrize("fusion", [(), (ATTENTION,)], ids=["rgb", "late fusion"])
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_finetuning_takes_a_stream_whole_or_not_at_all(part, fusion, tmp_path):
    target = model(*fusion)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    path = save(part(dict(model().state_dict())), tmp_path / "c.pt")
    message = message_of(load_for_finetune, target, path)
    assert "missing" in message or "unexpected" in message
    assert message.rpartition(": ")[2].startswith("give ")
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_gsf_begins_anew_beside_the_backbone_of_a_network_without(tmp_path):
    args = parse_train_args(
        ["--dataset", "synthetic", "--pretrained", "none", "--arch", "resnet18", "--width", "8"]
    )
    plain = build_model(args, 2)
    target = model()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    report = load_for_finetune(target, save(plain.state_dict(), tmp_path / "c.pt"))
    assert str(report).endswith("GSF starts anew.")
    assert report.anew == ("GSF",)
    for name, tensor in target.state_dict().items():
        is_new = ".gsf." in name
        assert torch.equal(tensor, before[name] if is_new else plain.state_dict()[name]), name
    path = save(target.state_dict(), tmp_path / "g.pt")
    assert "unexpected" in message_of(load_for_finetune, plain, path)


def test_finetuning_takes_a_backbone_without_classifier_and_counts(tmp_path):
    source, target = model(), model()
    state = {
        name: tensor
        for name, tensor in source.state_dict().items()
        if not name.startswith("head.") and not name.endswith("num_batches_tracked")
    }
    report = load_for_finetune(target, save(state, tmp_path / "c.pt"))
    assert "The classifier starts anew" in str(report)
    assert equal(source.encoder, target.encoder)


@pytest.mark.parametrize("fusions", [("fast", "attention"), ("attention", "fast")])
def test_finetuning_goes_from_one_late_fusion_to_the_other(fusions, tmp_path):
    source, target = (model(f"--late_fusion_poses_{name}") for name in fusions)
    load_for_finetune(target, save(source.state_dict(), tmp_path / "c.pt"))
    assert equal(source.encoder.refinement, target.encoder.refinement)
