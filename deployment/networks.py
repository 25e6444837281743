"""Trained models ready to be asked, whatever file they come from."""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from deployment.config import ModelConfig
from models import build_model
from models.classifier import ClipClassifier
from models.weights import load_checkpoint
from ops.batch import Batch


class Network(Protocol):
    """A model that can be asked.

    Attributes:
        config: what it is.
        source: the file or folder that it comes from.
    """

    config: ModelConfig
    source: Path

    def logits(self, batch: Batch) -> Tensor:
        """Return (B*V, K) float32 logits, on the CPU, of a batch on the CPU."""


class TorchNetwork:
    """A model in PyTorch.

    Attributes:
        model: in evaluation mode, on `device`.
    """

    def __init__(
        self, config: ModelConfig, source: Path, model: ClipClassifier, device: torch.device
    ) -> None:
        self.config = config
        self.source = source
        self.device = device
        self.model = model.to(device).eval()

    @classmethod
    def of_checkpoint(cls, path: Path, device: torch.device) -> "TorchNetwork":
        """Load a checkpoint.

        Raises:
            InputError: it cannot be read, or does not say what it is.
        """
        config = ModelConfig.of_checkpoint(path)
        model = build_model(config.args, len(config.classes))
        load_checkpoint(model, path)
        return cls(config, path, model, device)

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Return (B*V, K) float32 logits, on the CPU, of a batch on the CPU."""
        return self.model(batch.to(self.device)).float().cpu()


def load_network(path: Path, device: torch.device) -> Network:
    """Load a model: a checkpoint.

    Raises:
        InputError: it cannot be read, or does not say what it is.
    """
    return TorchNetwork.of_checkpoint(path, device)
