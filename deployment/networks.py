"""Trained models ready to be asked, whatever file they come from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from deployment.config import ModelConfig
from deployment.folder import WEIGHTS, find_model, read_config, read_weights
from errors import InputError
from models import Network as Model
from models import build_model
from models.weights import load_checkpoint
from ops.batch import Batch

# The largest backbone of the project, wide_resnet101_2, has 1.3e8.
_MOST_PARAMETERS = 2**30


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
        self, config: ModelConfig, source: Path, model: Model, device: torch.device
    ) -> None:
        self.config = config
        self.source = source
        self.device = device
        self.model = model.to(device).eval()
        refuse_not_finite(self.model.state_dict(), source)

    @classmethod
    def of_checkpoint(
        cls, path: Path, device: torch.device, config: ModelConfig | None = None
    ) -> "TorchNetwork":
        """Load a checkpoint.

        Args:
            path: the file.
            device: to compute on.
            config: of a checkpoint that does not say it; None reads it from there.

        Raises:
            InputError: it cannot be read, or does not say what it is.
        """
        config = config or ModelConfig.of_checkpoint(path)
        model = build_network(config, path)
        load_checkpoint(model, path)
        return cls(config, path, model, device)

    @classmethod
    def of_folder(cls, folder: Path, device: torch.device) -> "TorchNetwork":
        """Load a model folder.

        Raises:
            InputError: a file is missing, damaged, or does not belong to the others.
        """
        config, digest = read_config(folder)
        path = folder / WEIGHTS
        weights = read_weights(path, digest)
        with torch.device("meta"):  # sizes without memory
            expected = _build(config, path).state_dict()
        _refuse_other_weights(weights, expected, path)
        model = _build(config, path)
        model.load_state_dict(weights)
        return cls(config, folder, model, device)

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Return (B*V, K) float32 logits, on the CPU, of a batch on the CPU."""
        return self.model(batch.to(self.device)).float().cpu()


def load_network(path: Path, device: torch.device) -> Network:
    """Load a model: a checkpoint, a model folder (or its `model.safetensors`) or an ONNX file.

    Args:
        path: of it. Of a folder with several files, `model.safetensors` is taken.
        device: to compute on; an ONNX file computes on the CPU where its runtime has nothing else.

    Raises:
        InputError: it cannot be read, or does not say what it is.
    """
    kind, found = find_model(path)
    if kind == "onnx":
        from deployment.onnx_network import OnnxNetwork

        return OnnxNetwork(found, device)
    if kind == "folder":
        return TorchNetwork.of_folder(found, device)
    return TorchNetwork.of_checkpoint(found, device)


def build_network(config: ModelConfig, where: object) -> Model:
    """Build the network of a configuration, with random weights.

    Args:
        config: what to build.
        where: it comes from, for messages.

    Raises:
        InputError: it describes a network that cannot be, or one of absurd size.
    """
    with torch.device("meta"):
        count = sum(p.numel() for p in _build(config, where).parameters())
    if count > _MOST_PARAMETERS:
        raise InputError(
            f"{where} describes a network of {count:.1e} parameters, at most "
            f"{_MOST_PARAMETERS:.1e} are taken: its width or its classes are damaged, copy it again"
        )
    return _build(config, where)


def _build(config: ModelConfig, where: object) -> Model:
    try:
        return build_model(config.args, len(config.classes))
    except InputError as error:
        raise InputError(f"{where} describes a network that cannot be: {error}") from None


def refuse_not_finite(weights: Mapping[str, Tensor], where: object) -> None:
    """Refuse weights with NaN or infinite numbers: every answer would be one.

    Raises:
        InputError: there are some; the first tensor is named.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"{where} has numbers in {name} that are not finite, as after a training that "
                "diverged: use another checkpoint"
            )


def _refuse_other_weights(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path
) -> None:
    """Refuse tensors that are not exactly those of the network, before it is built."""
    for name in sorted(given.keys() | expected.keys()):
        one, other = given.get(name), expected.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            raise InputError(
                f"{path} has {name} {_shape(one)}, the network of its config.json "
                f"{_shape(other)}: these files do not belong together, copy the folder again"
            )


def _shape(tensor: Tensor | None) -> str:
    if tensor is None:
        return "absent"
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
