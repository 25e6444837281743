"""Weights of PYSKL and MMAction2: recognised, loaded whole, or refused in one line."""

import argparse

import pytest
import torch

from models import build_model
from models.anatomy import Anatomy, published_name
from models.weights import checkpoint_options, load_checkpoint, load_for_finetune
from opts import parse_train_args
from tests.golden_zoo import load_keys, needs_golden
from tests.making_checkpoints import equal, message_of
from tests.toolbox_files import (
    GRAPHS,
    config_of,
    ctrgcn_shapes,
    late_fusion,
    pose_network,
    toolbox_state,
    write_mmaction2,
    write_pyskl,
)

STGCNPP = ("--pose_model", "stgcnpp")


def rebuilt(path, classes: int):
    """Build the network that a file tells to be."""
    told = checkpoint_options(path)
    told.pop("class_names", None)
    args = parse_train_args(["--dataset", "synthetic", "--pretrained", "none"])
    return build_model(argparse.Namespace(**{**vars(args), **told}), classes)


# ---------------------------------------------------------------- loading

KEYS = [f"{name}_{layout}" for name in GRAPHS for layout in ("coco", "ntu") if name != "ctrgcn"]
KEYS += ["posec3d_slowonly_r50", "rgbpose_conv3d"]
HEADS = pytest.mark.parametrize("head", ["fc", "fc_cls"])


@needs_golden
@HEADS
@pytest.mark.parametrize("keys", KEYS)
def test_published_key_lists_load_into_the_network_that_they_tell(keys, head, tmp_path):
    loads_whole(load_keys(keys), head, tmp_path)


@HEADS
@pytest.mark.parametrize("joints", [17, 25])
def test_ctrgcn_as_published_loads_into_the_network_that_it_tells(joints, head, tmp_path):
    loads_whole(ctrgcn_shapes(joints, 60), head, tmp_path)


def loads_whole(shapes, head, tmp_path):
    state = {
        key.replace("cls_head.fc.", f"cls_head.{head}."): torch.zeros(
            shape, dtype=torch.int64 if key.endswith("tracked") else torch.float32
        )
        for key, shape in shapes.items()
    }
    path = tmp_path / "c.pth"
    torch.save({"meta": {}, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    report = load_checkpoint(rebuilt(path, 60), path)
    assert report.is_complete
    assert report.matched == len(state)
    assert f"{len(state)} tensors loaded" in str(report)
    assert report.holds.classes == 60


@pytest.mark.parametrize(
    ("writer", "layout"),
    [(write_pyskl, "coco17"), (write_mmaction2, "ntu25"), (write_mmaction2, "openpose18")],
)
@pytest.mark.parametrize("name", GRAPHS)
def test_what_a_toolbox_wrote_is_rebuilt_with_its_numbers(name, layout, writer, tmp_path):
    source = pose_network("--pose_model", name, "--skeleton_layout", layout, seed=3)
    head = "fc_cls" if writer is write_pyskl else "fc"
    path = writer(tmp_path / "c.pth", toolbox_state(source, head))
    target = rebuilt(path, 5)
    report = load_checkpoint(target, path)
    assert equal(source, target)
    told = checkpoint_options(path)
    is_3d = layout == "ntu25"
    flat = "image" if writer is write_pyskl else "image_keep"
    assert told["pose_normalize"] == ("spine" if is_3d else flat)
    assert (told["fusion"], told["pose_model"], told["num_people"]) == ("pose", name, 2)
    toolbox = "PYSKL" if writer is write_pyskl else "MMAction2"
    assert f"of {len(source.encoder.layout)} joints" in str(report)
    assert f"({toolbox}): {len(source.state_dict())} tensors loaded" in str(report)


def test_the_report_names_network_joints_and_toolbox(tmp_path):
    source = pose_network(*STGCNPP, classes=60)
    path = write_pyskl(tmp_path / "j.pth", toolbox_state(source))
    text = str(load_checkpoint(pose_network(*STGCNPP, classes=60), path))
    assert text == f"{path} holds a 60-class ST-GCN++ of 17 joints (PYSKL): 692 tensors loaded."


@pytest.mark.parametrize("stages", [(4, 6, 3), (3, 4, 6)])
@pytest.mark.parametrize("stream", ["joint", "limb"])
def test_volumes_are_rebuilt(stages, stream, tmp_path):
    options = ["--posec3d_stages", *map(str, stages), "--pose_streams", stream]
    source = pose_network("--pose_model", "posec3d", *options)
    path = write_pyskl(tmp_path / f"slowonly_{stream}.pth", toolbox_state(source))
    told = checkpoint_options(path)
    assert told["posec3d_stages"] == list(stages)
    assert told["pose_streams"] == [stream]
    target = rebuilt(path, 5)
    load_checkpoint(target, path)
    assert equal(source, target)


def rgbpose(streams: str, classes: int = 5):
    options = ["--dataset", "synthetic", "--rgbpose_conv3d", "--rgbpose_streams", streams]
    return build_model(parse_train_args(options), classes)


@pytest.mark.parametrize("streams", ["rgb", "pose"])
def test_a_pathway_alone_has_the_names_of_a_network_of_one_stream(streams, tmp_path):
    source, target = rgbpose(streams), rgbpose(streams)
    state = {
        name.replace(f"{streams}_path.", "").replace(f"fc_{streams}", "fc_cls"): tensor
        for name, tensor in toolbox_state(source).items()
    }
    path = tmp_path / f"{streams}_only.pth"
    torch.save({"state_dict": state}, path)
    told = checkpoint_options(path)
    assert (told["fusion"], told["rgbpose_streams"]) == ("rgbpose", streams)
    load_checkpoint(target, path)
    assert equal(source, target)
    assert load_for_finetune(target, path).is_complete
    assert "--stream_checkpoints" in message_of(load_for_finetune, rgbpose("both"), path)


def test_names_are_those_of_the_toolboxes_in_every_mode():
    for ours in ("encoder.gcn.0.gcn.A", "encoder.pose.gcn.0.gcn.A"):
        assert published_name(ours) == published_name("backbone.gcn.0.gcn.A")
    for head in ("fc", "fc_cls"):
        assert published_name(f"cls_head.{head}.bias") == published_name("head.linear.bias")
    for stream in ("rgb", "pose"):
        assert published_name(f"cls_head.fc_{stream}.bias") == f"head.{stream}.bias"


# ---------------------------------------------------------------- what does not fit


def saved(tmp_path, *options: str, classes: int = 5):
    return write_pyskl(tmp_path / "c.pth", toolbox_state(pose_network(*options, classes=classes)))


MISFITS = [
    (("--skeleton_layout", "ntu25"), "--skeleton_layout coco17", "25 joints of ntu25"),
    (("--pose_streams", "joint", "bone"), "--pose_streams with 1 stream instead of 2", "6 numbers"),
    (("--pose_model", "stgcn"), "--pose_model stgcnpp", "ST-GCN of 17"),
    (("--pose_model", "conv1d", "--skeleton_layout", "coco17"), "--pose_model stgcnpp", "model of"),
    (("--pose_model", "posec3d"), "--pose_model stgcnpp", "PoseC3D of 17 channels"),
]


@pytest.mark.parametrize("load", [load_checkpoint, load_for_finetune])
@pytest.mark.parametrize("misfit", MISFITS, ids=lambda m: m[1])
def test_another_network_is_refused_and_the_way_out_named(misfit, load, tmp_path):
    options, way_out, is_named = misfit
    path = saved(tmp_path, *STGCNPP)
    target = pose_network(*STGCNPP, *options)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    message = message_of(load, target, path)
    assert "holds a 5-class ST-GCN++ of 17 joints (PYSKL), the model is" in message
    assert way_out in message.rpartition(": give")[2]
    assert is_named in message
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_people_that_a_batch_norm_knows_are_told(tmp_path):
    path = saved(tmp_path, "--pose_model", "agcn")
    target = pose_network("--pose_model", "agcn", "--num_people", "3")
    assert "give --num_people 2" in message_of(load_for_finetune, target, path)
    assert checkpoint_options(saved(tmp_path, "--pose_model", "aagcn", "--num_people", "3"))[
        "num_people"
    ] == 3  # fmt: skip


def test_blocks_of_the_stages_are_told(tmp_path):
    path = saved(tmp_path, "--pose_model", "posec3d", "--posec3d_stages", "3", "4", "6")
    target = pose_network("--pose_model", "posec3d")
    assert "give --posec3d_stages 3 4 6" in message_of(load_for_finetune, target, path)


def test_other_classes_are_refused_in_tests_and_a_new_classifier_in_finetuning(tmp_path):
    path = saved(tmp_path, *STGCNPP, classes=60)
    target = pose_network(*STGCNPP, classes=14, seed=1)
    head = target.head.linear.weight.clone()
    assert "lists or --class_names of 60 classes (or --finetune)" in message_of(
        load_checkpoint, target, path
    )
    report = load_for_finetune(target, path)
    assert report.matched == 690
    assert "The classifier starts anew" in str(report)
    assert torch.equal(target.head.linear.weight, head)
    assert equal(pose_network(*STGCNPP, classes=60).encoder, target.encoder)


# ---------------------------------------------------------------- late fusion


@pytest.mark.parametrize("classes", [5, 60])
def test_skeleton_weights_become_the_pose_stream_of_a_late_fusion(classes, tmp_path):
    path = saved(tmp_path, *STGCNPP, classes=classes)
    target = late_fusion(*STGCNPP)
    text = str(load_for_finetune(target, path))
    assert equal(pose_network(*STGCNPP).encoder, target.encoder.pose)
    assert "The RGB stream, the fusion and the classifier start anew" in text
    assert "tensors loaded" in text
    refused = message_of(load_for_finetune, late_fusion(), path)
    assert "--pose_model stgcnpp" in refused
    assert "ST-GCN++ of 17 joints" in str(Anatomy.of(target.state_dict()))


def test_a_classifier_of_other_features_is_new_even_if_its_shape_fits(tmp_path):
    target = late_fusion(*STGCNPP)
    state = toolbox_state(pose_network(*STGCNPP))
    fused = target.head.linear.weight
    before = fused.clone()
    state["cls_head.fc_cls.weight"] = torch.ones_like(fused)
    path = write_pyskl(tmp_path / "c.pth", state)
    assert "classifier start anew" in str(load_for_finetune(target, path))
    assert torch.equal(target.head.linear.weight, before)


def test_a_late_fusion_gives_its_pose_stream_to_a_pose_only_network(tmp_path):
    source, target = late_fusion(*STGCNPP), pose_network(*STGCNPP, seed=1)
    torch.save(source.state_dict(), tmp_path / "c.pth")
    load_for_finetune(target, tmp_path / "c.pth")
    assert equal(source.encoder.pose, target.encoder)


@pytest.mark.parametrize("make", [pose_network, late_fusion], ids=["alone", "late fusion"])
@pytest.mark.parametrize("odd", ["one tensor", "half", "more"])
def test_finetuning_takes_a_skeleton_network_whole_or_not_at_all(make, odd, tmp_path):
    state = toolbox_state(pose_network(*STGCNPP))
    names = {"one tensor": list(state)[:1], "half": list(state)[:300], "more": list(state)}[odd]
    state = {name: state[name] for name in names}
    state |= {"backbone.look_alike": torch.ones(1)} if odd == "more" else {}
    path = write_pyskl(tmp_path / "c.pth", state)
    assert ": give " in message_of(load_for_finetune, make(*STGCNPP), path)


# ---------------------------------------------------------------- what a file tells


@pytest.mark.parametrize(
    ("stream", "option"),
    [("j", "joint"), ("b", "bone"), ("jm", "joint_motion"), ("bm", "bone_motion")],
)
def test_configurations_tell_stream_layout_frames_and_people(stream, option, tmp_path):
    source = pose_network(*STGCNPP, "--skeleton_layout", "hand21")
    config = config_of("handmp", stream, frames=64, people=1)
    path = write_pyskl(tmp_path / "bone.pth", toolbox_state(source), config)
    told = checkpoint_options(path)
    assert told == {
        "fusion": "pose",
        "pose_model": "stgcnpp",
        "skeleton_layout": "hand21",
        "pose_frames": 64,
        "pose_streams": [option],
        "num_people": 1,
        "pose_normalize": "image",
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("stgcnpp_ntu60_xsub_hrnet_j.pth", ["joint"]),
        ("bm.pth", ["bone_motion"]),
        ("stgcn_8xb16-joint-motion-u100-80e_ntu60-xsub-keypoint-2d_20221129-f18eb408.pth",
         ["joint_motion"]),
        ("stgcn_8xb16-joint-u100-80e_ntu60-xsub-keypoint-2d_20221129-293878b.pth", ["joint"]),
        ("best.pth", None),
        ("mybones.pth", None),
        ("20221129-293878b.pth", None),
    ],
)  # fmt: skip
def test_published_file_names_tell_the_stream(name, told, tmp_path):
    source = pose_network(*STGCNPP)
    path = write_pyskl(tmp_path / name, toolbox_state(source))
    assert checkpoint_options(path).get("pose_streams") == told


def test_several_streams_in_one_network_are_told_by_the_configuration(tmp_path):
    source = pose_network(*STGCNPP, "--pose_streams", "joint", "bone")
    config = config_of().replace("['j']", "['j', 'b']")
    path = write_pyskl(tmp_path / "j.pth", toolbox_state(source), config)
    assert checkpoint_options(path)["pose_streams"] == ["joint", "bone"]
    # What cannot be true is not told.
    path = write_pyskl(tmp_path / "j.pth", toolbox_state(source), config_of())
    assert "pose_streams" not in checkpoint_options(path)


UNPRINTABLE = [["a", "b", "c", "d", odd] for odd in ("\x1b[2J", "e\nerror: f", "\u202e", "e" * 300)]


def test_classes_are_told_if_they_are_as_many_as_the_network_knows(tmp_path):
    state = toolbox_state(pose_network(*STGCNPP))
    names = ["a", "b", "c", "d", "e"]
    path = write_mmaction2(tmp_path / "c.pth", state, classes=names)
    assert checkpoint_options(path)["class_names"] == names
    for odd in (names[:4], ["a"] * 5, [1, 2, 3, 4, 5], "abcde", *UNPRINTABLE):
        path = write_mmaction2(tmp_path / "c.pth", state, classes=odd)
        assert "class_names" not in checkpoint_options(path)


def test_networks_that_are_not_of_the_zoo_tell_nothing(tmp_path):
    path = tmp_path / "c.pth"
    for state in (
        {"backbone.conv1.weight": torch.zeros(64, 3, 7, 7)},
        {"backbone.A": torch.ones(())},
    ):
        torch.save({"state_dict": state, "meta": {"cfg": 3}}, path)
        assert checkpoint_options(path) == {}
        assert "unexpected" in message_of(load_checkpoint, pose_network(*STGCNPP), path)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 0), (1, 1, 1, 1, 1)])
def test_tensors_of_odd_shapes_are_one_line(shape, tmp_path):
    state = {name: torch.zeros(shape) for name in toolbox_state(pose_network(*STGCNPP))}
    path = write_pyskl(tmp_path / "c.pth", state)
    checkpoint_options(path)
    message_of(load_checkpoint, pose_network(*STGCNPP), path)


@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("a.pth", "dict(type='RandomResizedCrop', area_range=(0.56, 1.0)),\n"
                  "    dict(type='Resize', scale=(48, 48), keep_ratio=False)", 48),
        ("a.pth", "dict(area_range=(\n 0.56,\n 1.0,\n ), type='RandomResizedCrop'),\n"
                  "dict(keep_ratio=False, scale=(\n 56,\n 56,\n ), type='Resize')", 56),
        ("slowonly_kinetics400-pretrained-r50_8xb16-u48-120e_ucf101-split1-keypoint.pth", "", 48),
        ("pyskl-posec3d-hmdb51-split1-joint.pth", "", 48),
        ("slowonly_r50_8xb16-u48-240e_ntu60-xsub-keypoint.pth", "", None),
    ],
)  # fmt: skip
def test_sides_of_volumes_are_told(name, config, told, tmp_path):
    source = pose_network("--pose_model", "posec3d")
    path = write_pyskl(tmp_path / name, toolbox_state(source), config)
    assert checkpoint_options(path).get("pose_size") == told


def test_classifiers_of_streams_are_new_in_finetuning_as_well(tmp_path):
    options = (*STGCNPP, "--stream_losses", "0.5")
    source, target = late_fusion(*options, classes=7), late_fusion(*options)
    torch.save(source.state_dict(), tmp_path / "c.pth")
    before = target.pose_head.linear.weight.clone()
    assert "classifier starts anew" in str(load_for_finetune(target, tmp_path / "c.pth"))
    assert equal(source.encoder, target.encoder)
    assert torch.equal(target.pose_head.linear.weight, before)
