"""Work on single frames that overlapping windows share, split off from a network exactly.

Up to some place a network looks at each frame alone. What it finds there does not depend on the
window, and is computed once: without GSF the features of the whole backbone, with GSF, which mixes
frames from the first residual block on, the stem before it.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deployment.networks import Network, TorchNetwork
from models.fusion import LateFusion, RGBEncoder
from models.resnet_gsf import Backbone
from ops.batch import Batch


class Stem(nn.Module):
    """The backbone before its first residual block: (N, C, H, W) to (N, c, h, w)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.layers = nn.Sequential(backbone.conv1, backbone.bn1, backbone.relu, backbone.maxpool)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (N, c, h, w)."""
        return self.layers(frames)


class AfterStem(nn.Module):
    """The backbone from its first residual block on, in the place of the whole."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.in_channels = backbone.conv1.out_channels
        self.num_segments = backbone.num_segments
        self.feature_dim = backbone.feature_dim
        self.layers = nn.Sequential(
            backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4, backbone.avgpool
        )

    def forward(self, stems: Tensor) -> Tensor:
        """Map (N, c, h, w) to (N, D)."""
        return self.layers(stems).flatten(1)


class Features(nn.Module):
    """The whole backbone: (N, C, H, W) to (N, D, 1, 1)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, frames: Tensor) -> Tensor:
        """Return (N, D, 1, 1)."""
        return self.backbone(frames)[..., None, None]


class AfterFeatures(nn.Module):
    """Nothing more to do, in the place of the backbone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.in_channels, self.num_segments = backbone.feature_dim, None
        self.feature_dim = backbone.feature_dim

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, D, 1, 1) to (N, D)."""
        return features.flatten(1)


@dataclass(frozen=True, slots=True)
class SplitNetwork:
    """A network in two parts.

    Attributes:
        what: is shared, for the user.
        front: of single frames, on `device`.
        rest: the network with what `front` gives in the place of frames.
        device: of both.
    """

    what: str
    front: nn.Module
    rest: nn.Module
    device: torch.device

    @classmethod
    def of(cls, network: Network) -> "SplitNetwork | None":
        """Split a network; None where that cannot be, as for skeletons alone and for ONNX files."""
        if not isinstance(network, TorchNetwork):
            return None
        encoder = network.model.encoder
        rgb = encoder.rgb if isinstance(encoder, LateFusion) else encoder
        if not isinstance(rgb, RGBEncoder):
            return None
        backbone = rgb.backbone
        mixes = backbone.num_segments is not None
        front, rest = (Stem, AfterStem) if mixes else (Features, AfterFeatures)
        # All of the network is copied but the backbone, which the new one replaces.
        replaced = copy.deepcopy(network.model, {id(backbone): rest(backbone)})
        what = "first layers" if mixes else "backbone features"
        return cls(what, front(backbone).eval(), replaced.eval(), network.device)


class FrameCache:
    """What the front of a network says of single frames, computed once for each key.

    Attributes:
        asked: frames that windows wanted.
        computed: frames that went through the front.
    """

    def __init__(self, split: SplitNetwork, batch_size: int = 32) -> None:
        self.split = split
        self.asked = self.computed = 0
        self._batch_size = batch_size
        self._known: dict[tuple[int, Hashable], Tensor] = {}

    @torch.inference_mode()
    def get(
        self, keys: Sequence[tuple[int, Hashable]], render: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Return what the front says of some frames.

        Args:
            keys: of U frames: number of the frame, and whatever else decides what is seen of it.
            render: makes (n, C, S, S) of the places in `keys` that are not known.

        Returns:
            (U, ...) on the device.
        """
        missing = [place for place, key in enumerate(keys) if key not in self._known]
        for start in range(0, len(missing), self._batch_size):
            part = missing[start : start + self._batch_size]
            found = self.split.front(render(part).to(self.split.device))
            # Each its own memory: a part of a batch would keep the whole of it alive.
            self._known |= {
                keys[place]: row.clone() for place, row in zip(part, found, strict=True)
            }
        self.asked += len(keys)
        self.computed += len(missing)
        return torch.stack([self._known[key] for key in keys])

    def forget(self, before: int) -> None:
        """Drop frames with a smaller number."""
        self._known = {key: row for key, row in self._known.items() if key[0] >= before}

    def __len__(self) -> int:
        """Return how many frames are kept."""
        return len(self._known)

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Return (B*V, K) float32 logits, on the CPU, of a batch whose frames `get` gave."""
        rest: Any = self.split.rest
        return rest(batch.to(self.split.device)).float().cpu()
