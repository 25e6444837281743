"""Encode the segments of a clip, classify each, average: every model of the project is this."""

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from ops.batch import Batch
from ops.consensus import average


class Encoder(nn.Module):
    """Maps a batch to (B, T, D); every row of the table in `models` is one.

    Attributes:
        feature_dim: D.
        shares_dropout: the classifier drops the same features in all segments of a clip: as if it
            had one vector for each clip, which is how skeleton models are published.
        head_std: of the classifier's first weights.
    """

    feature_dim: int
    shares_dropout: bool = False
    # As in TSN: the first logits are near 0, so the first loss is log(K).
    head_std: float = 0.001

    def forward(self, batch: Batch) -> Tensor:
        """Return (B, T, D)."""
        raise NotImplementedError

    def segment_mask(self, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Return (B, T) bool, the segments that the average counts; None when all do."""
        return None


class Head(nn.Module):
    """Dropout and the linear classifier of a segment."""

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        dropout: float,
        std: float = Encoder.head_std,
        *,
        shares_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.shares_dropout = shares_dropout
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(feature_dim, num_classes)
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, K)."""
        if self.shares_dropout:
            by_feature = features.transpose(1, 2)  # (B, D, T)
            return self.linear(F.dropout1d(by_feature, self.dropout.p, self.training).mT)
        return self.linear(self.dropout(features))


class Classifier(nn.Module):
    """An encoder and a head; the encoder may be frozen.

    Attributes:
        encoder: what the head classifies the features of.
    """

    encoder: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self._is_frozen = False

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


class ClipClassifier(Classifier):
    """Encode segments, classify each, average over the clip."""

    def __init__(self, encoder: Encoder, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder: Encoder = encoder
        self.head = Head(
            encoder.feature_dim,
            num_classes,
            dropout,
            encoder.head_std,
            shares_dropout=encoder.shares_dropout,
        )

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
