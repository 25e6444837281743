"""Trained models as ONNX files that say what they are."""

import copy
import json
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deployment.config import ModelConfig
from deployment.needed import need
from errors import InputError
from files import replacing
from ops.batch import Batch

# Version of the operators: old enough for runtimes of 2022 and later.
OPSET = 18
# The key of the metadata that holds what `config.json` says.
METADATA = "gate_shift_pose"
# What the format, protobuf, can hold in one file.
_MOST_BYTES = 2**31 - 2**20


class _Positional(nn.Module):
    """A model that takes the tensors of a batch one by one, as graphs do."""

    def __init__(
        self, model: nn.Module, names: tuple[str, ...], volume_size: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.volume_size = volume_size

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return (B, K) logits of tensors in the order of `names`."""
        seen: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        return self.model(Batch(**seen, volume_size=self.volume_size))


def example_batch(config: ModelConfig, rows: int, seed: int = 0) -> Batch:
    """Draw an input that a network takes: noise, where some people and joints are not detected.

    Args:
        config: of the network.
        rows: B.
        seed: of the noise.
    """
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Any] = {}
    names = [name for name in config.input_names if name != "present"]
    for name in names:
        tensors[name] = torch.randn(rows, *config.input_shape(name), generator=random)
    if "keypoints" in tensors:
        keypoints = tensors["keypoints"]
        seen = torch.rand(keypoints.shape[:-1], generator=random) < 0.8
        seen[:, ::3] = False  # segments without a person
        seen[::4] = False  # clips without one
        keypoints[..., 2] = 0.9
        keypoints *= seen[..., None]
    if "skeletons" in tensors:
        tensors |= _example_skeletons(config, tensors["skeletons"], random)
    return Batch(**tensors, volume_size=config.volume_size)


def _example_skeletons(
    config: ModelConfig, noise: Tensor, random: torch.Generator
) -> dict[str, Tensor]:
    """Return skeletons (B, L, M, V, C) in pixels of volumes, or as they are, with gaps."""
    seen = torch.rand(noise.shape[:-1], generator=random) < 0.8
    seen[:, ::5] = False  # frames without anybody
    seen[:, 1::2, 1:] = False  # frames of one person
    seen[::4] = False  # clips without anybody
    if config.volume_size is not None:
        side = float(max(config.volume_size))
        noise[..., :2] = side / 2 + side / 4 * noise[..., :2]
        noise[..., 2] = 0.9
    found = {"skeletons": noise * seen[..., None], "present": seen.any(dim=3)}
    return {name: found[name] for name in config.input_names if name in found}


def export_onnx(model: nn.Module, config: ModelConfig, path: Path) -> None:
    """Write a model as an ONNX file: inputs as `config.input_names`, output `logits` (B, K).

    B is free; everything else is fixed. The file holds its weights and its configuration.

    Args:
        model: on the CPU, see `models.build_model`.
        config: of the model.
        path: of the file.

    Raises:
        InputError: the packages for it are missing or fail, or the model is too large for the
            format.
    """
    onnx = need("onnx", "to write ONNX")
    need("onnxscript", "to write ONNX")
    proto = _trace(model, config, path)
    _tidy(proto)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(config.to_json(), allow_nan=False)})
    if proto.ByteSize() > _MOST_BYTES:
        raise InputError(
            f"{path}: the model has {proto.ByteSize() / 2**30:.1f} GiB, an ONNX file at most 2: "
            "use --formats safetensors"
        )
    onnx.checker.check_model(proto, full_check=True)
    with replacing(path) as file:
        file.write(proto.SerializeToString(deterministic=True))


def _trace(model: nn.Module, config: ModelConfig, path: Path) -> Any:
    """Return the graph of a model as protobuf, without a word on stdout."""
    names = config.input_names
    batch = example_batch(config, rows=2)
    plain = _Positional(copy.deepcopy(model), names, config.volume_size).eval()
    was_fast = torch.backends.mha.get_fastpath_enabled()
    # The exporter talks, and warns of names and of its own future.
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        # The fused attention of evaluation exists in no other runtime.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad():
                program = torch.onnx.export(
                    plain,
                    tuple(getattr(batch, name) for name in names),
                    dynamo=True,
                    dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in names),),
                    input_names=list(names),
                    output_names=["logits"],
                    opset_version=OPSET,
                    external_data=False,
                    verbose=False,
                )
            return program.model_proto  # type: ignore[union-attr]
        except Exception as error:  # noqa: BLE001 - tracing raises whatever any layer of it raises
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise InputError(
                f"{path.name} cannot be made with torch {torch.__version__} "
                f"({type(error).__name__}: {first}): update torch and onnxscript, or use --formats "
                "safetensors"
            ) from error
        finally:
            torch.backends.mha.set_fastpath_enabled(was_fast)


def _tidy(proto: Any) -> None:
    """Remove what the exporter notes about the machine and the program that ran it."""
    graph = proto.graph
    proto.producer_name = "gate-shift-pose"
    proto.producer_version = f"torch {torch.__version__}"
    proto.doc_string = ""
    graph.name = "gate_shift_pose"
    for part in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
        for entry in part:
            entry.doc_string = ""
            del entry.metadata_props[:]
    del graph.metadata_props[:]
