"""Networks with random weights, small enough to be asked in a moment."""

from pathlib import Path

import torch

from deployment.config import KEPT_OPTIONS, ModelConfig
from deployment.networks import TorchNetwork
from models import build_model
from options.testing import adopt_options, parse_test_args

FLAGS = {
    "rgb": (),
    "early": ("--early_fusion_poses",),
    "late": ("--late_fusion_poses_attention",),
    "fast": ("--late_fusion_poses_fast",),
    "pose": ("--pose_only",),
}


def small_network(mode="rgb", *flags, classes=("landed", "fall"), data=None, seed=0):
    """Build a network of one of `FLAGS`, whose answers differ from clip to clip."""
    rgb = () if mode == "pose" else ("--arch", "resnet18", "--width", "8", "--input_size", "32")
    argv = ["--weights", "x", "--dataset", "synthetic", "--num_segments", "4"]
    given = parse_test_args([*argv, *rgb, *FLAGS[mode], *flags])
    args = adopt_options(given, {})
    torch.manual_seed(seed)
    model = build_model(args, len(classes)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    spread = {"rgb": 0.1, "early": 0.2}.get(mode, 1.0)  # answers neither equal nor certain
    torch.nn.init.normal_(model.head.linear.weight, std=spread)
    options = {name: getattr(args, name) for name in KEPT_OPTIONS}
    config = ModelConfig(options, tuple(classes), data or {})
    return TorchNetwork(config, Path("small.pth.tar"), model, torch.device("cpu"))
