"""Encode the segments of a clip, classify each, average: every model of the project is this."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from ops.batch import Batch
from ops.consensus import average


class Encoder(nn.Module):
    """Maps a batch to (B, T, D); every row of the table in `models` is one.

    Attributes:
        feature_dim: D.
    """

    feature_dim: int

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T, D)."""
        raise NotImplementedError

    def segment_mask(self, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Return (B, T) bool, the segments that the average counts; None when all do."""
        return None


class Head(nn.Module):
    """Dropout and the linear classifier of a segment."""

    def __init__(self, feature_dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(feature_dim, num_classes)
        # As in TSN: the first logits are near 0, so the first loss is log(K).
        nn.init.normal_(self.linear.weight, std=0.001)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., D) to (..., K)."""
        return self.linear(self.dropout(features))


class ClipClassifier(nn.Module):
    """Encode segments, classify each, average over the clip."""

    def __init__(self, encoder: Encoder, num_classes: int, dropout: float) -> None:
        super().__init__()
        self._is_frozen = False
        self.encoder: Encoder = encoder
        self.head = Head(encoder.feature_dim, num_classes, dropout)

    @property
    def num_classes(self) -> int:
        """Return K."""
        return self.head.linear.out_features

    def forward(self, batch: Batch | Mapping[str, Any]) -> Tensor:
        """Return (B, K) logits; for a batch with V views per clip, (B*V, K)."""
        # Frames come as bytes. Nothing that autocast would change is done to them.
        batch = Batch.of(batch).prepared()
        logits = self.head(self.encoder(batch))  # (B, T, K)
        return average(logits, self.encoder.segment_mask(batch))

    def freeze_encoder(self) -> None:
        """Train the head alone from here on; running statistics of the encoder stay too."""
        self.encoder.requires_grad_(False)
        self._is_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Switch to training; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self._is_frozen:
            self.encoder.eval()
        return self
