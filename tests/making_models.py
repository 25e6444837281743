"""Tiny models in every mode, as checkpoints of ours are."""

from pathlib import Path

import torch

from deployment.config import ModelConfig
from models import build_model
from models.weights import FORMAT, FORMAT_VERSION
from options.skeletons import EARLIER_DEFAULTS

OPTIONS = {
    "fusion": "none",
    "arch": "resnet18",
    "width": 4,
    "num_channels": 3,
    "num_segments": 3,
    "gsf": False,
    "gsf_ch_ratio": 100,
    "pose_model": "mlp",
    "attention_scope": "clip",
    "dropout": 0.5,
    "consensus_type": "avg",
    "input_size": 32,
    "field_of_view": "square",
    "frame_interval": None,
    "heatmap_sigma": 10.0,
    "mask_background": False,
    "pose_normalize": "clip",
    **EARLIER_DEFAULTS,
}
MODES = {
    "rgb": {},
    "rgb_gsf": {"gsf": True},
    "early": {"fusion": "early", "num_channels": 4, "gsf": True, "gsf_ch_ratio": 100},
    "late_fast": {"fusion": "late_fast", "pose_model": "gcn"},
    "late_attention": {"fusion": "late_attention"},
    "late_attention_gsf": {"fusion": "late_attention", "gsf": True},
    "late_frame": {"fusion": "late_attention", "attention_scope": "frame"},
    "pose": {"fusion": "pose", "pose_model": "conv1d"},
    "pose_mlp": {"fusion": "pose", "pose_model": "mlp"},
    "pose_gcn": {"fusion": "pose", "pose_model": "gcn"},
}
DATA = {
    "dataset": "FRFS",
    "lists": {"train": {"clips": 4, "sha256": "a" * 64}, "val": {"clips": 2, "sha256": "b" * 64}},
    "clip_frames": 12.0,
    "clip_seconds": None,
    "fps": None,
}


def config_of(mode: str, classes=("stands", "falls"), **changes) -> ModelConfig:
    return ModelConfig.checked(OPTIONS | MODES[mode] | changes, list(classes), DATA, "a test")


def model_of(config: ModelConfig, seed: int = 0) -> torch.nn.Module:
    """Build a model whose logits and running statistics are not all but 0."""
    torch.manual_seed(seed)
    model = build_model(config.args, len(config.classes)).eval()
    for name, tensor in model.state_dict().items():
        if "running_mean" in name or name.endswith("bias"):
            tensor.normal_(std=0.1)
        elif "running_var" in name:
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("weight") and (name.startswith("head") or ".gsf." in name):
            tensor.normal_(std=0.3)
    return model


def write_checkpoint(path: Path, mode: str = "pose", seed: int = 0, args=None, **changes) -> Path:
    """Write what training writes, as far as others read it; `changes` go into the network."""
    config = config_of(mode, **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "args": {**config.options, "class_names": None, **(args or {})},
        "classes": list(config.classes),
        "data": DATA,
        "model": model_of(config, seed).state_dict(),
    }
    torch.save(content, path)
    return path
