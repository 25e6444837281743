"""Models in ONNX files, run by onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deployment.config import ModelConfig
from deployment.needed import need
from deployment.onnx_export import METADATA
from errors import InputError, one_line
from files import read_regular
from ops.batch import Batch, fill_people

_MOST_BYTES = 2**31 - 1
# Operators of the standard; "" is the usual name of the first.
_DOMAINS = {"", "ai.onnx"}


class OnnxNetwork:
    """A model that onnxruntime computes.

    Attributes:
        config: from the metadata of the file.
        source: the file.
        providers: what computes, in onnxruntime's names, by preference.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        """Load a file that `deployment.onnx_export` wrote.

        Args:
            path: the file.
            device: "cuda" is used where onnxruntime has it, else the CPU.

        Raises:
            InputError: it is no such file, or onnxruntime is missing.
        """
        runtime = need("onnxruntime", "to run ONNX files")
        data, proto = _read(path)
        self.source = path
        self.config = _config_of(proto, path)
        _refuse_strange(proto, path)
        del proto
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin while they wait take the cores from what decodes the video.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.log_severity_level = 4  # what goes wrong is raised
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        wanted = [*wanted, "CPUExecutionProvider"]
        usable = [name for name in wanted if name in runtime.get_available_providers()]
        try:
            self._session: Any = runtime.InferenceSession(data, settings, providers=usable)
        except Exception as error:  # noqa: BLE001 - the runtime raises types of its own
            raise InputError(
                f"{path} cannot be run by onnxruntime ({_first_line(error)}): export the model "
                "again"
            ) from error
        self.providers = tuple(self._session.get_providers())
        self._check_interface()

    def _check_interface(self) -> None:
        config = self.config
        given = {entry.name: entry for entry in self._session.get_inputs()}
        outputs = self._session.get_outputs()
        shapes = {name: tuple(entry.shape[1:]) for name, entry in given.items()}
        expected = {name: config.input_shape(name) for name in config.input_names}
        is_fit = all(entry.type == _type_of(entry.name) for entry in (*given.values(), *outputs))
        answers = [(entry.name, list(entry.shape[1:])) for entry in outputs]
        if shapes != expected or not is_fit or answers != [("logits", [len(config.classes)])]:
            raise InputError(
                f"{self.source}: its graph does not fit the model that its metadata describes: "
                "export the model again"
            )

    def logits(self, batch: Batch) -> Tensor:
        """Return (B*V, K) float32 logits, on the CPU, of a batch on the CPU.

        Raises:
            InputError: the batch lacks an input, has another shape, or cannot be computed.
        """
        batch = batch.prepared()
        self._check_volumes(batch)
        feed = {name: self._feed(batch, name) for name in self.config.input_names}
        try:
            (found,) = self._session.run(["logits"], feed)
        except Exception as error:  # noqa: BLE001 - the runtime raises types of its own
            raise InputError(
                f"{self.source} cannot be computed ({_first_line(error)}): fewer clips at once, "
                "or the checkpoint itself, may work"
            ) from error
        rows = len(next(iter(feed.values())))
        if found.shape != (rows, len(self.config.classes)):
            raise InputError(
                f"{self.source} answers {found.shape} for {rows} clips of "
                f"{len(self.config.classes)} classes: export the model again"
            )
        return torch.from_numpy(found)

    def _check_volumes(self, batch: Batch) -> None:
        """Refuse volumes that the graph does not draw: it has one size, and no mirror."""
        if "skeletons" not in self.config.input_names or self.config.volume_size is None:
            return
        size, mirrored = self.config.volume_size, batch.mirrored
        if batch.volume_size not in (None, size) or (mirrored is not None and bool(mirrored.any())):
            raise InputError(
                f"{self.source} draws heatmap volumes of {size[1]}x{size[0]} pixels and none in "
                "the mirror, the batch asks for others: ask the checkpoint itself"
            )

    def _feed(self, batch: Batch, name: str) -> np.ndarray:
        tensor: Tensor | None = getattr(batch, name)
        shape = self.config.input_shape(name)
        if tensor is not None and name in ("skeletons", "present") and self.config.volume_size:
            tensor = fill_people(tensor, self.config.input_shape("skeletons")[1])
        if tensor is None or tuple(tensor.shape[1:]) != shape:
            what = "none" if tensor is None else str(tuple(tensor.shape))
            raise InputError(
                f"{self.source} takes {name} (B, {', '.join(map(str, shape))}), the batch has "
                f"{what}: give the input that its configuration describes"
            )
        values = tensor.bool() if name == "present" else tensor.float()
        return np.ascontiguousarray(values.numpy())


def _type_of(name: str) -> str:
    """Return what the tensors of this name hold, in the words of onnxruntime."""
    return "tensor(bool)" if name == "present" else "tensor(float)"


def _read(path: Path) -> tuple[bytes, Any]:
    """Read a file and what it says, without any file that it may point to."""
    onnx = need("onnx", "to read ONNX files")
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): copy it again") from error
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:  # noqa: BLE001 - protobuf raises types of its own
        raise InputError(f"{path} is no ONNX file, or damaged: copy it again") from error
    return data, proto


def _config_of(proto: Any, path: Path) -> ModelConfig:
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA not in texts:
        raise InputError(
            f"{path} does not say what it is (no {METADATA} in its metadata): export the model "
            "with tools/export.py"
        )
    return ModelConfig.of_json(texts[METADATA], path)


def _refuse_strange(proto: Any, path: Path) -> None:
    """Refuse what our exports do not hold: it could read files, run for ever, or answer NaN.

    Raises:
        InputError: weights in other files, loops or branches, functions, foreign operators, or
            numbers that are not finite.
    """
    if proto.functions or any(entry.domain not in _DOMAINS for entry in proto.opset_import):
        raise InputError(f"{path} has operators that exports of ours have not: export it again")
    for node in proto.graph.node:
        has_graph = any(a.HasField("g") or len(a.graphs) for a in node.attribute)
        if node.domain not in _DOMAINS or has_graph:
            raise InputError(
                f"{path} has a node {node.op_type[:40]!r}, which exports of ours have not: export "
                "it again"
            )
    tensors = [*proto.graph.initializer, *_tensors_of_nodes(proto)]
    if len(proto.graph.sparse_initializer) or any(
        tensor.external_data or tensor.data_location for tensor in tensors
    ):
        raise InputError(
            f"{path} keeps weights in other files, which are not read: export the model again"
        )
    _refuse_not_finite(tensors, path)


def _tensors_of_nodes(proto: Any) -> list[Any]:
    found = []
    for node in proto.graph.node:
        for attribute in node.attribute:
            found += [attribute.t] if attribute.HasField("t") else []
            found += list(attribute.tensors)
            found += [attribute.sparse_tensor.values] if attribute.HasField("sparse_tensor") else []
    return found


def _refuse_not_finite(tensors: list[Any], path: Path) -> None:
    onnx = need("onnx", "to read ONNX files")
    for tensor in tensors:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        try:
            values = onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path} has damaged weights in {tensor.name[:60]!r}: copy it again"
            ) from error
        # Minus infinity, for masked attention, is a constant of graphs; of weights it is none.
        if np.isnan(values).any() or (values.ndim and np.isinf(values).any()):
            raise InputError(
                f"{path} has numbers in {tensor.name[:60]!r} that are not finite, as after a "
                "training that diverged: use another checkpoint"
            )


def _first_line(error: BaseException) -> str:
    text = one_line(InputError(str(error).strip() or type(error).__name__))
    return text[:120]
