"""Checkpoints as PYSKL and MMAction2 write them, of our own networks."""

import itertools
import re
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models import build_model
from models.skeleton.ctrgcn import CTRGCN
from opts import parse_pose_train_args, parse_train_args

GRAPHS = ("stgcn", "agcn", "aagcn", "stgcnpp", "ctrgcn")
CONFIG = """model = dict(
    type='RecognizerGCN',
    backbone=dict(type='STGCN', graph_cfg=dict(layout='{layout}', mode='spatial')),
    cls_head=dict(type='GCNHead', num_classes=60, in_channels=256))
test_pipeline = [
    dict(type='PreNormalize2D'),
    dict(type='GenSkeFeat', dataset='{layout}', feats=['{stream}']),
    dict(type='UniformSample', clip_len={frames}, num_clips=10, test_mode=True),
    dict(type='FormatGCNInput', num_person={people})]
"""


def pose_network(*options: str, classes: int = 5, seed: int = 0) -> nn.Module:
    """Build a pose-only network, its weights drawn from `seed`."""
    torch.manual_seed(seed)
    args = parse_pose_train_args(["--dataset", "synthetic", *options])
    return build_model(args, classes)


def late_fusion(*options: str, classes: int = 5) -> nn.Module:
    """Build a small late fusion."""
    start = ["--dataset", "synthetic", "--pretrained", "none", "--arch", "resnet18", "--width", "8"]
    args = parse_train_args([*start, "--late_fusion_poses_attention", *options])
    return build_model(args, classes)


def toolbox_state(network: nn.Module, head: str = "fc_cls") -> OrderedDict:
    """Return the weights of a network under the names of the toolboxes."""
    names = (
        ("encoder.rgb_path.", "backbone.rgb_path."),
        ("encoder.", "backbone."),
        ("head.linear.", f"cls_head.{head}."),
        ("head.rgb.", "cls_head.fc_rgb."),
        ("head.pose.", "cls_head.fc_pose."),
    )
    state = OrderedDict()
    is_ctrgcn = isinstance(getattr(network, "encoder", None), CTRGCN)
    for name, tensor in network.state_dict().items():
        ours, theirs = next(pair for pair in names if name.startswith(pair[0]))
        key = theirs + name.removeprefix(ours)
        state[as_ctrgcn(key) if is_ctrgcn else key] = tensor
    return state


def as_ctrgcn(key: str) -> str:
    """Rename a tensor of a block as CTR-GCN's files do."""
    key = re.sub(r"^backbone\.gcn\.(\d+)\.(gcn|tcn)\.", r"backbone.net.\1.\g<2>1.", key)
    return re.sub(r"^backbone\.gcn\.(\d+)\.", r"backbone.net.\1.", key)


Shapes = dict[str, tuple[int, ...]]


def ctrgcn_shapes(joints: int, classes: int, people: int = 2) -> Shapes:
    """Return names and shapes of a published CTR-GCN, from Chen et al. 2021, figures 3 and 4."""
    shapes: Shapes = {"backbone.A": (3, joints, joints)}
    shapes |= _norm("backbone.data_bn", people * joints * 3)
    widths = [3, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256]
    for index, (c_in, c_out) in enumerate(itertools.pairwise(widths)):
        block = f"backbone.net.{index}"
        shapes |= _refined(f"{block}.gcn1", joints, c_in, c_out)
        shapes |= _dilated(f"{block}.tcn1", c_out)
        if c_in != c_out and index > 0:
            shapes |= _conv(f"{block}.residual.conv", c_in, c_out)
            shapes |= _norm(f"{block}.residual.bn", c_out)
    return shapes | {"cls_head.fc.weight": (classes, 256), "cls_head.fc.bias": (classes,)}


def _conv(name: str, c_in: int, c_out: int, span: int = 1) -> Shapes:
    return {f"{name}.weight": (c_out, c_in, span, 1), f"{name}.bias": (c_out,)}


def _norm(name: str, channels: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{p}": (channels,) for p in parts} | {f"{name}.num_batches_tracked": ()}


def _refined(name: str, joints: int, c_in: int, c_out: int) -> Shapes:
    inside = 8 if c_in <= 16 else c_in // 8
    ends = ((c_in, inside), (c_in, inside), (c_in, c_out), (inside, c_out))
    shapes = {f"{name}.A": (3, joints, joints), f"{name}.alpha": (1,)} | _norm(f"{name}.bn", c_out)
    for k, (i, pair) in itertools.product(range(3), enumerate(ends, start=1)):
        shapes |= _conv(f"{name}.convs.{k}.conv{i}", *pair)
    if c_in != c_out:
        shapes |= _conv(f"{name}.down.0", c_in, c_out) | _norm(f"{name}.down.1", c_out)
    return shapes


def _dilated(name: str, channels: int) -> Shapes:
    width = channels // 4
    shapes: Shapes = _norm(f"{name}.branches.2.4", width)
    for branch in range(4):
        shapes |= _conv(f"{name}.branches.{branch}.0", channels, width)
        shapes |= _norm(f"{name}.branches.{branch}.1", width)
    for branch in range(2):
        shapes |= _conv(f"{name}.branches.{branch}.3.conv", width, width, 5)
        shapes |= _norm(f"{name}.branches.{branch}.3.bn", width)
    return shapes


def config_of(layout: str = "coco", stream: str = "j", frames: int = 100, people: int = 2) -> str:
    """Return the text of a configuration, as the toolboxes keep it."""
    return CONFIG.format(layout=layout, stream=stream, frames=frames, people=people)


def write_pyskl(path: Path, state: dict, config: str = "", **more) -> Path:
    """Write what mmcv 1.x writes at the end of an epoch of PYSKL's training."""
    meta = {
        "pyskl_version": "0.1.0+abcdef0",
        "config": config,
        "env_info": "sys.platform: linux\nPython: 3.7",
        "seed": 42,
        "epoch": 16,
        "iter": 5008,
        "mmcv_version": "1.5.0",
        "time": "Mon Mar  7 12:00:00 2022",
        "CLASSES": None,
        "hook_msgs": {"best_score": np.float64(0.893), "best_ckpt": "work_dirs/j/best.pth"},
        **more,
    }
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, path)
    return path


def write_mmaction2(path: Path, state: dict, config: str = "", classes=None, **more) -> Path:
    """Write what mmengine writes at the end of an epoch of MMAction2's training.

    The course of the losses is pickled as objects of mmengine, which is not needed here.
    """
    names = ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer")
    modules = {name: types.ModuleType(name) for name in names}

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self._log_history = np.array(values)
            self._count_history = np.array([1] * len(values))
            self.max_length = 1_000_000

        def mean(self) -> float:
            return float(self._log_history.mean())

        def __getstate__(self) -> dict:
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

    HistoryBuffer.__module__ = names[-1]
    HistoryBuffer.__qualname__ = "HistoryBuffer"
    HistoryBuffer.mean.__module__ = names[-1]
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    modules[names[-1]].HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    hub = {
        "log_scalars": OrderedDict({"train/loss": HistoryBuffer([1.0, 0.5])}),
        "runtime_info": OrderedDict({"epoch": 16, "best": np.float32(0.9), "all": np.arange(3)}),
        "resumed_keys": {"train/loss": True},
    }
    content = {
        "meta": {
            "cfg": config,
            "mmengine_version": "0.7.1",
            "epoch": 16,
            "iter": np.int64(5008),
            "experiment_name": "stgcnpp",
            "dataset_meta": {"classes": classes} if classes else {},
            **more,
        },
        "state_dict": OrderedDict({"data_preprocessor.mean": torch.zeros(3, 1, 1), **state}),
        "message_hub": hub,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "param_schedulers": [{"base_values": [0.1], "last_step": 16, "T_max": 16}],
    }
    sys.modules.update(modules)
    try:
        torch.save(content, path)
    finally:
        for name in modules:
            del sys.modules[name]
    return path
