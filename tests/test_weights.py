"""Checkpoints of ours and of others: found, named, compared, and never run."""

import os
import pickle
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from errors import InputError, run_script
from models import build_model
from models.anatomy import Anatomy, published_name
from models.weights import (
    FORMAT,
    FORMAT_VERSION,
    backbone_weights,
    checkpoint_options,
    load_checkpoint,
    load_for_finetune,
    read_checkpoint,
)
from opts import parse_pose_train_args, parse_train_args
from tests.making_checkpoints import equal, message_of

ATTENTION = "--late_fusion_poses_attention"


def model(*options: str, classes: int = 2, arch: str = "resnet18"):
    options = ("--arch", arch, "--width", "8", "--num_segments", "4", "--gsf", *options)
    args = parse_train_args(["--dataset", "synthetic", "--pretrained", "none", *options])
    return build_model(args, classes)


def pose_model(*options: str):
    args = parse_pose_train_args(["--dataset", "synthetic", "--pretrained", "none", *options])
    return build_model(args, 2)


def published(state: dict) -> dict:
    """Rename a state dict of ours as the published code writes it."""
    return {f"module.{published_name(key)}": tensor for key, tensor in state.items()}


def save(content, path: Path) -> Path:
    torch.save(content, path)
    return path


def ours(state: dict, **more) -> dict:
    return {"format": FORMAT, "version": FORMAT_VERSION, "model": state, **more}


# ---------------------------------------------------------------- formats

FORMATS = {
    "ours": ours,
    "published": lambda s: {"epoch": 3, "model_state_dict": published(s), "best": np.float64(9.5)},
    "defect 19, without module.": lambda s: {
        "state_dict": {published_name(key): tensor for key, tensor in s.items()}
    },
    "raw": lambda s: s,
    "raw, DataParallel": lambda s: {f"module.{key}": tensor for key, tensor in s.items()},
    "raw, compiled": lambda s: {f"_orig_mod.{key}": tensor for key, tensor in s.items()},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "make",
    [
        model,
        lambda: model("--early_fusion_poses"),
        lambda: model("--late_fusion_poses_fast"),
        lambda: model(ATTENTION),
        pose_model,
        lambda: pose_model("--pose_model", "gcn"),
    ],
    ids=["rgb", "early", "late", "attention", "pose", "pose gcn"],
)
def test_every_format_loads_into_every_mode(make, form, tmp_path):
    source, target = make(), make()
    path = save(FORMATS[form](source.state_dict()), tmp_path / "c.pth.tar")
    report = load_checkpoint(target, path)
    assert report.is_complete
    assert report.matched == len(source.state_dict())
    assert equal(source, target)
    assert f"{report.matched} tensors loaded" in str(report)
    assert "\n" not in str(report)


def test_weights_load_in_both_attention_scopes(tmp_path):
    path = save(model(ATTENTION).state_dict(), tmp_path / "c.pt")
    assert load_checkpoint(model(ATTENTION, "--attention_scope", "frame"), path).is_complete


def test_options_are_read_back_from_our_checkpoints_alone(tmp_path):
    state = model().state_dict()
    mine = save(ours(state, args={"arch": "resnet18", "width": 8}), tmp_path / "ours.pt")
    # Beside what a checkpoint of before the skeleton zoo does not say.
    assert checkpoint_options(mine).items() >= {"arch": "resnet18", "width": 8}.items()
    assert checkpoint_options(save({"state_dict": state, "args": {}}, tmp_path / "o.pt")) == {}


def test_a_newer_format_is_refused(tmp_path):
    content = ours({}, args={}) | {"version": FORMAT_VERSION + 1}
    path = save(content, tmp_path / "c.pt")
    for call in (lambda: checkpoint_options(path), lambda: load_checkpoint(model(), path)):
        assert "version 2, this is version 1: use the release that wrote it" in message_of(call)


# ---------------------------------------------------------------- what does not fit

MISFITS = [
    (lambda: model(arch="resnet34"), "a 2-class resnet34 of width 8", "--arch resnet34"),
    (lambda: model("--width", "16"), "width 16", "--width 16"),
    (lambda: model("--early_fusion_poses"), "4 channels", "--early_fusion_poses"),
    (
        lambda: model(classes=5),
        "a 5-class resnet18",
        "lists or --class_names of 5 classes (or --finetune)",
    ),
    (lambda: model(ATTENTION), "late fusion with attention", "--late_fusion_poses_attention"),
    (pose_model, "a 2-class model of skeletons alone", "main_only_pose.py"),
    (lambda: model("--gsf_ch_ratio", "50"), "GSF", "the options that it was trained with"),
]


@pytest.mark.parametrize("misfit", MISFITS, ids=lambda m: m[2])
def test_a_checkpoint_of_another_model_is_named_and_nothing_is_loaded(misfit, tmp_path):
    make, holds, way_out = misfit
    target, before = model(), model()
    before.load_state_dict(target.state_dict())
    path = save(ours(make().state_dict()), tmp_path / "c.pt")
    message = message_of(load_checkpoint, target, path)
    held, _, rest = message.partition(", the model is ")
    assert holds in held
    assert rest.startswith("a 2-class resnet18 of width 8 with 3 channels, with GSF, frames alone")
    assert way_out in rest.rpartition(": give")[2]
    assert equal(before, target)


def test_loading_what_fits_reports_the_rest(tmp_path):
    state = model().state_dict()
    del state["head.linear.bias"]
    state["encoder.backbone.bn1.weight"] = torch.zeros(5)
    state["encoder.extra"] = torch.zeros(1)
    path = save(state, tmp_path / "c.pt")
    report = load_checkpoint(model(), path, strict=False)
    assert report.matched == len(state) - 2
    assert report.missing == ("head.linear.bias",)
    assert report.unexpected == ("encoder.extra",)
    assert report.mismatched == ("encoder.backbone.bn1.weight (5,) where the model has (8,)",)
    for part in ("1 missing (first: head.linear.bias)", "1 unexpected", "1 of another shape"):
        assert part in str(report)
        assert part in message_of(load_checkpoint, model(), path)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_numbers_of_another_kind_do_not_fit(kind, tmp_path):
    source, target = model(), model()
    name = "encoder.backbone.bn1.weight"
    state = source.state_dict() | {name: source.state_dict()[name].to(kind)}
    path = save(state, tmp_path / "c.pt")
    told = f"{name} of {str(kind)[6:]} where the model has float32"
    assert told in message_of(load_checkpoint, target, path)
    assert told in message_of(load_for_finetune, target, path)
    assert load_checkpoint(target, path, strict=False).mismatched == (told,)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_numbers_of_any_width_fit(kind, tmp_path):
    source, target = model(), model()
    # Of every tensor, also of counters, as scripts do that halve a file.
    state = {name: tensor.to(kind) for name, tensor in source.state_dict().items()}
    path = save(state, tmp_path / "c.pt")
    assert load_checkpoint(target, path).is_complete
    assert target.head.linear.weight.dtype is torch.float32
    assert torch.equal(target.head.linear.weight, source.head.linear.weight.to(kind).float())


def test_nothing_that_fits_is_an_error_even_when_not_strict(tmp_path):
    path = save({"other.weight": torch.zeros(3)}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="1 unexpected"):
        load_checkpoint(model(), path, strict=False)


def test_torchvisions_files_are_for_pretrained(tmp_path):
    path = save(torchvision.models.resnet18().state_dict(), tmp_path / "c.pt")
    assert f"for --pretrained {path}" in message_of(load_checkpoint, model(), path)


def test_the_published_resnet18_has_34_layers(tmp_path):
    source = model(arch="resnet34")
    path = save({"model_state_dict": published(source.state_dict())}, tmp_path / "c.pth.tar")
    message = message_of(load_checkpoint, model(arch="resnet18"), path)
    assert message.endswith('use --arch resnet34, which the published code calls "resnet18"')
    report = load_checkpoint(model(arch="resnet34"), path)
    assert 'The published code calls this 34-layer backbone "resnet18"' in str(report)


ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d")
ARCHS += ("resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2")


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("width", ["64", "32"])
def test_architectures_are_recognised_by_their_shapes(arch, width):
    with torch.device("meta"):
        anatomy = Anatomy.of(model("--width", width, arch=arch).state_dict())
    assert (anatomy.arch, anatomy.width) == (arch, int(width))
    assert anatomy.gsf
    assert anatomy.channels == 3


# ---------------------------------------------------------------- files that are no checkpoints


class Hostile:
    """Creates a folder when a naive reader rebuilds it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("as_zip", [True, False])
def test_code_in_a_checkpoint_is_not_run(as_zip, tmp_path):
    path, trap = tmp_path / "c.pt", tmp_path / "was run"
    content = ours(model().state_dict(), extra=Hostile(trap))
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    message = message_of(load_checkpoint, model(), path)
    assert f"holds objects of {os.mkdir.__module__}.mkdir" in message
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap is real
    assert trap.exists()


def test_a_plain_pickle_is_not_run(tmp_path):
    path, trap = tmp_path / "c.pkl", tmp_path / "was run"
    path.write_bytes(pickle.dumps(Hostile(trap), protocol=2))
    message_of(load_checkpoint, model(), path)
    assert not trap.exists()


def test_damaged_files(tmp_path):
    path = save(ours(pose_model().state_dict()), tmp_path / "c.pt")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint", whole[100:], b"\x80\x02]q"):
        path.write_bytes(damaged)
        assert f"{path} is no checkpoint, or damaged" in message_of(
            load_checkpoint, pose_model(), path
        )


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"model": {"lr": 0.1}}, "text"])
def test_files_without_weights(content, tmp_path):
    path = save(content, tmp_path / "c.pt")
    assert "holds no weights" in message_of(load_checkpoint, model(), path)


def test_no_file(tmp_path):
    assert "is a folder" in message_of(load_checkpoint, model(), tmp_path)
    assert "is not there" in message_of(load_checkpoint, model(), tmp_path / "best.pth.tar")


# ---------------------------------------------------------------- --pretrained


def test_pretrained_none_and_a_file(tmp_path):
    assert backbone_weights("resnet18", "none", 8) is None
    state = torchvision.models.resnet18().state_dict()
    path = save(state, tmp_path / "r18.pth")
    loaded = backbone_weights("resnet18", str(path), 64)
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    args = ["--dataset", "synthetic", "--arch", "resnet18", "--gsf", "--pretrained", str(path)]
    built = build_model(parse_train_args([*args, "--early_fusion_poses"]), 2)
    assert torch.equal(built.encoder.backbone.conv1.weight[:, :3], state["conv1.weight"])
    assert torch.equal(built.encoder.backbone.layer4[1].bn2.weight, state["layer4.1.bn2.weight"])


def test_imagenet_weights_exist_for_one_width():
    message = message_of(backbone_weights, "resnet18", "imagenet", 32)
    assert "no ImageNet weights for --width 32" in message
    assert "--pretrained none" in message


def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(
    monkeypatch, tmp_path, capfd
):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    message = message_of(backbone_weights, "resnet50", "imagenet", 64)
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in message
    assert str(tmp_path / "checkpoints") in message
    assert "--pretrained none" in message
    assert capfd.readouterr() == ("", "")  # the message is all that a log gets


def test_imagenet_weights_that_are_there_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, file)
    loaded = backbone_weights("resnet18", "imagenet", 64)
    assert torch.equal(loaded["conv1.weight"], state["conv1.weight"])
    file.write_bytes(file.read_bytes()[:1000])
    message = message_of(backbone_weights, "resnet18", "imagenet", 64)
    assert f"{file} are damaged" in message
    assert "delete the file" in message


def test_a_lack_of_memory_is_not_blamed_on_the_file(tmp_path, monkeypatch, capsys):
    def lack(*_, **__):
        raise MemoryError("cannot allocate 1 PiB")

    (tmp_path / "x.pt").write_bytes(b"x")
    monkeypatch.setattr(torch, "load", lack)
    with pytest.raises(SystemExit) as end:
        run_script(lambda: read_checkpoint(tmp_path / "x.pt"))
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "not enough memory (cannot allocate 1 PiB)" in told
    assert "damaged" not in told


def test_slips_of_a_reader_are_not_told(tmp_path):
    path = tmp_path / "video.avi"
    path.write_bytes(b".")  # a pickle that ends before it begins
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert str(caught.value) == f"{path} is no checkpoint, or damaged: copy it again"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><html>", "but a web page: take the link of the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS: run git lfs pull"),
    ],
)
def test_what_stands_in_for_weights_is_named(tmp_path, content, words):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_checkpoint(path)
