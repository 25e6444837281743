"""Whole models equal the published ones, through the public loader and the published names."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from models import build_model
from models.weights import load_checkpoint
from ops.batch import Batch
from opts import parse_pose_train_args, parse_train_args

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "reference" / "golden" / "gsp"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the golden vectors of the published models are not here"
)

COMMON = ["--dataset", "synthetic", "--pretrained", "none", "--num_segments", "8", "--gsf"]
# The published "resnet18" has 34 layers.
OPTIONS = {
    "early_resnet18": ["--arch", "resnet34", "--early_fusion_poses"],
    "early_resnet50": ["--arch", "resnet50", "--early_fusion_poses"],
    "rgb3_resnet18": ["--arch", "resnet34"],
    "late_attn_resnet50": [
        *("--arch", "resnet50", "--late_fusion_poses_attention"),
        *("--attention_scope", "frame"),
    ],
    "late_fast_resnet18": ["--arch", "resnet34", "--late_fusion_poses_fast"],
    "pose_conv1d": [],
}


def published_value(key: str, shape: list[int]) -> torch.Tensor:
    """Draw the value of one tensor as the golden vectors' recipe says, from its name alone."""
    n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        value = 1 + np.abs(0.1 * n)
    elif key.endswith("running_mean"):
        value = 0.05 * n
    elif key.endswith("weight") and len(shape) == 1:
        value = 1 + 0.05 * n
    elif len(shape) == 1:
        value = 0.05 * n
    else:
        value = n * np.sqrt(1 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def published_batch(channels: int) -> Batch:
    frames = np.random.default_rng(12345).standard_normal((2, 8 * channels, 64, 64))
    pose = np.random.default_rng(54321).random((2, 8, 34)) * np.tile([640, 360], 17)
    keypoints = np.concatenate([pose.reshape(2, 8, 1, 17, 2), np.ones((2, 8, 1, 17, 1))], axis=-1)
    return Batch(
        frames=torch.from_numpy(frames.astype(np.float32)).view(2, 8, channels, 64, 64),
        keypoints=torch.from_numpy(keypoints.astype(np.float32)),
    )


def published_model(tag: str, folder: Path) -> torch.nn.Module:
    """Build our model of `tag` and load a checkpoint as the published code writes it."""
    keys = json.loads((GOLDEN / f"keys_{tag}.json").read_text())
    state = {f"module.{key}": published_value(key, shape) for key, shape in keys.items()}
    torch.save({"epoch": 3, "arch": "resnet18", "model_state_dict": state}, folder / "p.pth.tar")
    parse = parse_pose_train_args if tag.startswith("pose") else parse_train_args
    model = build_model(parse([*COMMON, *OPTIONS[tag]]), num_classes=2)
    report = load_checkpoint(model, folder / "p.pth.tar")
    assert report.matched == len(keys)
    return model.eval()


@pytest.mark.parametrize("tag", OPTIONS)
def test_logits_and_parameter_count_are_the_published_ones(tag, tmp_path):
    expected = json.loads((GOLDEN / "model_logits.json").read_text())[tag]
    model = published_model(tag, tmp_path)
    with torch.inference_mode():
        logits = model(published_batch(expected["num_channels"]))
    scale = np.abs(expected["logits"]).max()
    assert np.abs(logits.numpy() - expected["logits"]).max() < 1e-4 * scale
    assert sum(p.numel() for p in model.parameters()) == expected["n_params"]
