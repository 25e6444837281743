"""Torchvision's Keypoint R-CNN (He et al. 2017, arXiv:1703.06870). Licence: BSD-3-Clause."""

from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.models.detection import KeypointRCNN, KeypointRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from errors import InputError
from models.pose_weights import check_frames, find_weights, reason_of
from ops.people import Detections
from ops.skeleton import COCO17

_COCO = KeypointRCNN_ResNet50_FPN_Weights.COCO_V1
ADDRESS = _COCO.url
DEFAULT_WEIGHTS = ADDRESS.rpartition("/")[2]
# The file's name ends in the first digits of its SHA-256.
_COCO_HASH = DEFAULT_WEIGHTS.removesuffix(".pth").rpartition("-")[2]

NUM_JOINTS = len(COCO17.joints)
_NUM_CLASSES = 2  # background and person
_SHORT_SIDE, _LONG_SIDE = 800, 1333
# A joint's score is the height of its heat map, without an upper end. Detectron shows joints above
# 2; the logistic function around it makes a confidence of that, which is not calibrated.
_SHOWN = 2.0


class TorchvisionPose:
    """An estimator: Keypoint R-CNN with a ResNet-50 and COCO's 17 joints.

    Args:
        weights: a state dict in torchvision's naming.
        confidence: people found with less are left out.
        device: where to compute, in torch's naming.
        batch_size: frames per forward pass.
        image_size: shorter side of the network's input, pixels; None is 800.
        download: whether torchvision's own file may be fetched when it is not there.

    Raises:
        InputError: the file is not there, or is no such model.
    """

    name = "torchvision"

    def __init__(
        self,
        weights: Path | str,
        confidence: float = 0.8,
        device: str = "cpu",
        batch_size: int = 16,
        image_size: int | None = None,
        download: bool = False,
    ) -> None:
        path = Path(weights)
        can_fetch = download and path.name == DEFAULT_WEIGHTS
        self.weights_hash = find_weights(
            path,
            "a Keypoint R-CNN of torchvision",
            ADDRESS,
            url=ADDRESS if can_fetch else None,
            sha256=_COCO_HASH,
        )
        self.weights = path.name
        self.version = torchvision.__version__
        self.device = device
        self.batch_size = batch_size
        short = image_size or _SHORT_SIDE
        self._model = KeypointRCNN(
            resnet_fpn_backbone(backbone_name="resnet50", weights=None),
            _NUM_CLASSES,
            num_keypoints=NUM_JOINTS,
            min_size=short,
            max_size=round(short * _LONG_SIDE / _SHORT_SIDE),
            box_score_thresh=confidence,
        )
        _load(self._model, path)
        if self.weights_hash.startswith(_COCO_HASH):  # was trained without it
            for module in self._model.modules():
                if isinstance(module, FrozenBatchNorm2d):
                    module.eps = 0.0
        self._model.to(device).eval()

    def detect(self, frames: np.ndarray) -> list[Detections]:
        """Find people in each frame.

        Args:
            frames: (T, H, W, 3) uint8, RGB.
        """
        check_frames(frames)
        found = []
        for start in range(0, len(frames), self.batch_size):
            part = torch.from_numpy(np.ascontiguousarray(frames[start:][: self.batch_size]))
            images = part.to(self.device).permute(0, 3, 1, 2).float() / 255
            with torch.inference_mode():
                found += [_detections(result) for result in self._model(list(images))]
        return found


def _detections(result: dict[str, Tensor]) -> Detections:
    is_person = result["labels"] == 1
    confidence = torch.sigmoid(result["keypoints_scores"] - _SHOWN)
    joints = torch.cat([result["keypoints"][..., :2], confidence[..., None]], dim=-1)
    parts = (result["boxes"], result["scores"], joints.reshape(-1, NUM_JOINTS, 3))
    return Detections(*(part[is_person].cpu().numpy() for part in parts))


def _load(model: KeypointRCNN, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        raise InputError(
            f"{path} is no Keypoint R-CNN of torchvision, or damaged ({reason_of(error)}): "
            f"download it again from {ADDRESS}"
        ) from None
