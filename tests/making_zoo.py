"""Small models of whole clips of skeletons, and the clips that they see."""

from pathlib import Path

import torch

from deployment.config import ModelConfig
from deployment.networks import TorchNetwork
from options.skeletons import EARLIER_DEFAULTS
from tests.making_models import DATA, OPTIONS, model_of

CPU = torch.device("cpu")
_POSE = {"fusion": "pose", "num_people": 2, "pose_normalize": "image", "pose_frames": 8}
_VOLUMES = {
    **_POSE,
    "pose_model": "posec3d",
    "pose_normalize": "none",
    "pose_frames": 6,
    "pose_size": 14,
    "posec3d_stages": [1, 1, 1],
}
_RGBPOSE = {
    **_POSE,
    "fusion": "rgbpose",
    "pose_normalize": "none",
    "num_segments": 2,
    "input_size": 28,
}
ZOO = {
    "stgcn": {**_POSE, "pose_model": "stgcn"},
    "stgcnpp": {**_POSE, "pose_model": "stgcnpp"},
    "streams": {
        **_POSE,
        "pose_model": "stgcnpp",
        "pose_streams": ["joint", "bone_motion"],
        "pose_pooling": "masked",
        "pose_frames": 9,
    },
    "keep": {**_POSE, "pose_model": "stgcnpp", "num_people": 3, "pose_normalize": "image_keep"},
    "agcn": {**_POSE, "pose_model": "agcn"},
    "ntu": {
        **_POSE,
        "pose_model": "stgcnpp",
        "skeleton_layout": "ntu25",
        "pose_normalize": "spine",
        "pose_streams": ["bone"],
    },
    "openpose": {**_POSE, "pose_model": "stgcnpp", "skeleton_layout": "openpose18"},
    "posec3d": _VOLUMES,
    "limb": {**_VOLUMES, "pose_streams": ["limb"], "num_people": 1},
    "late": {
        **_POSE,
        "fusion": "late_attention",
        "pose_model": "stgcnpp",
        "pose_sampling": "spread",
    },
    "late_volumes": {**_VOLUMES, "fusion": "late_fast"},
    "rgbpose": _RGBPOSE,
    "rgbpose_pose": {**_RGBPOSE, "rgbpose_streams": "pose"},
}


def zoo_config(name: str, data=DATA, **changes) -> ModelConfig:
    options = {**OPTIONS, **EARLIER_DEFAULTS, **ZOO[name], **changes}
    return ModelConfig.checked(options, ["stands", "falls"], data, "a test")


def zoo_network(name: str, data=DATA, **changes) -> TorchNetwork:
    """Build a network whose answers differ from clip to clip and are not certain."""
    config = zoo_config(name, data, **changes)
    model = model_of(config)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.startswith("head") and key.endswith("weight"):
                tensor.mul_(0.2)
    return TorchNetwork(config, Path(f"{name}.pth.tar"), model, CPU)
