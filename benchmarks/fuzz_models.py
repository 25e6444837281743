"""Readers of models from elsewhere: checkpoints, model folders, ONNX files."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save as tensor_bytes

from deployment.config import ModelConfig
from deployment.folder import read_config, read_weights
from deployment.networks import load_network
from deployment.onnx_export import METADATA
from files import read_regular
from models import build_model
from models.weights import (
    FORMAT,
    FORMAT_VERSION,
    checkpoint_options,
    find_state,
    read_checkpoint,
    read_training_state,
)

CPU = torch.device("cpu")
_OPTIONS = {
    "fusion": "pose",
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
}
_CLASSES = ["stands", "falls"]


def model_targets(home: Path, make: Callable[..., Any]) -> list[Any]:
    """Return the targets of the readers of models, made by `make(name, path, seeds, read)`."""
    config = ModelConfig.checked(_OPTIONS, _CLASSES, None, "a seed")
    torch.manual_seed(0)
    model = build_model(config.args, len(_CLASSES)).eval()
    state = model.state_dict()
    held = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "model": {name: tensor[:2].clone() for name, tensor in list(state.items())[:3]},
        "optimizer": {"state": {}, "param_groups": []},
        "args": {**_OPTIONS, "class_names": None},
        "classes": _CLASSES,
        "data": None,
        "epoch": 1,
        "step": 2,
        "scaler": {},
        "totals": torch.zeros(3),
        "best": 0.5,
        "best_loss": 0.7,
        "best_epoch": 0,
    }
    checkpoint = io.BytesIO()
    torch.save(held, checkpoint)
    weights = tensor_bytes({name: t.contiguous().clone() for name, t in state.items()})
    written = {**config.to_json(), "weights": {"sha256": hashlib.sha256(weights).hexdigest()}}
    (home / "model.safetensors").write_bytes(weights)
    (home / "tensors").mkdir(exist_ok=True)
    return [
        make("checkpoint", home / "x.pth.tar", [checkpoint.getvalue()], read_as_checkpoint, cost=4),
        make(
            "config.json",
            home / "config.json",
            [json.dumps(written).encode()],
            lambda path: read_config(path.parent),
        ),
        make("model.safetensors", home / "tensors" / "model.safetensors", [weights], read_tensors),
        make(
            "ONNX",
            home / "x.onnx",
            [_onnx(config)],
            lambda path: load_network(path, CPU),
            cost=8,
        ),
    ]


def _onnx(config: ModelConfig) -> bytes:
    """Return a network of one linear layer that says it is of `config`."""
    shape = config.input_shape("keypoints")
    weights = np.zeros((int(np.prod(shape)), len(config.classes)), np.float32)
    flat = helper.make_node("Flatten", ["keypoints"], ["flat"], axis=1)
    graph = helper.make_graph(
        [flat, helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, ["b", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", len(config.classes)])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(made, {METADATA: json.dumps(config.to_json())})
    return made.SerializeToString()


def read_as_checkpoint(path: Path) -> None:
    """Read a file in every way that a checkpoint is read."""
    find_state(read_checkpoint(path), path)
    checkpoint_options(path)
    ModelConfig.of_checkpoint(path)
    read_training_state(path)


def read_tensors(path: Path) -> None:
    """Read a safetensors file whose sum is right."""
    try:
        digest = hashlib.sha256(read_regular(path, 2**24)).hexdigest()
    except OSError:
        digest = ""
    read_weights(path, digest)
