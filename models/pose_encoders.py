"""Skeleton encoders that look at one frame at a time: joint coordinates in, 128 features out.

Each reads x and y of the first person alone; confidence says only which joints count. Joints
that were not detected enter as exactly 0, whatever their coordinates are. None of them mixes
segments: the classifier's average is all that they know of time.
"""

import torch
from torch import Tensor, nn

from errors import InputError
from models.classifier import Encoder
from ops.batch import Batch
from ops.graph import normalized_adjacency
from ops.skeleton import COCO17

NUM_JOINTS = len(COCO17.joints)
FEATURE_DIM = 128


def first_person(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the coordinates of the first person and which of them were detected.

    Returns:
        xy (B, T, V, 2), 0 for joints that were not detected, and seen (B, T, V) bool.

    Raises:
        InputError: keypoints are missing or have the wrong shape.
    """
    keypoints = batch.keypoints
    if keypoints is None:
        raise InputError(
            "the batch has no keypoints, the model has a pose stream: give keypoints "
            f"(B, T, M, {NUM_JOINTS}, 3)"
        )
    if keypoints.ndim != 5 or keypoints.shape[2] < 1 or keypoints.shape[3:] != (NUM_JOINTS, 3):
        raise InputError(
            f"the keypoints are {tuple(keypoints.shape)}, the pose stream needs (B, T, M, V, 3) "
            f"with M >= 1 people and V = {NUM_JOINTS} joints ({COCO17.name}): convert them to "
            "that layout"
        )
    person = keypoints[:, :, 0]
    seen = person[..., 2] > 0
    # Not a product: an unseen joint may hold NaN.
    return torch.where(seen[..., None], person[..., :2], 0), seen


class PoseEncoder(Encoder):
    """Base of the encoders below: they differ in `encode` alone."""

    feature_dim = FEATURE_DIM

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T, 128)."""
        xy, seen = first_person(batch)
        features = self.encode(xy.flatten(0, 1), seen.flatten(0, 1))
        return features.unflatten(0, xy.shape[:2])

    def segment_mask(self, batch: Batch) -> Tensor:
        """Return (B, T) bool: the segments in which at least one joint was detected."""
        return first_person(batch)[1].any(dim=2)

    def encode(self, xy: Tensor, seen: Tensor) -> Tensor:
        """Map N frames, xy (N, V, 2) and seen (N, V) bool, to (N, 128)."""
        raise NotImplementedError


class PoseMLP(PoseEncoder):
    """All coordinates of a frame through three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * NUM_JOINTS, 64)
        self.fc2 = nn.Linear(64, 128)
        self.fc3 = nn.Linear(128, FEATURE_DIM)

    def encode(self, xy: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002
        """Map N frames to (N, 128)."""
        hidden = torch.relu(self.fc1(xy.flatten(1)))
        return self.fc3(torch.relu(self.fc2(hidden)))


class PoseConv1d(PoseEncoder):
    """Convolutions along the joints of a frame.

    The order of COCO joints is a list, not a limb: neighbours in it need not be connected. Kept
    because published pose-only models have it; `PoseGCN` convolves over the bones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(32, 64, kernel_size=3, padding=1)
        self.fc = nn.Linear(64 * NUM_JOINTS, FEATURE_DIM)

    def encode(self, xy: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG002
        """Map N frames to (N, 128)."""
        hidden = torch.relu(self.conv1(xy.transpose(1, 2)))
        return self.fc(torch.relu(self.conv2(hidden)).flatten(1))


class PoseGCN(PoseEncoder):
    """Two graph convolutions over the bones, then the mean over the detected joints.

    A frame without a detected joint takes the mean over all joints, which is a constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gc1 = nn.Linear(2, 64)
        self.gc2 = nn.Linear(64, FEATURE_DIM)
        adjacency = normalized_adjacency(COCO17.edges, NUM_JOINTS)
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.adjacency: Tensor

    def encode(self, xy: Tensor, seen: Tensor) -> Tensor:
        """Map N frames to (N, 128)."""
        hidden = torch.relu(self.adjacency @ self.gc1(xy))
        hidden = torch.relu(self.adjacency @ self.gc2(hidden))  # (N, V, 128)
        counts = (seen | ~seen.any(dim=1, keepdim=True))[..., None].to(hidden.dtype)
        return (hidden * counts).sum(dim=1) / counts.sum(dim=1)


POSE_ENCODERS: dict[str, type[PoseEncoder]] = {
    "mlp": PoseMLP,
    "conv1d": PoseConv1d,
    "gcn": PoseGCN,
}
