"""Model folders: which files they have, written and read."""

import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from deployment.config import ModelConfig
from errors import InputError
from files import read_regular, replacing, replacing_folder, write_json
from models.pose_weights import sha256_of
from models.weights import FORMAT

CONFIG, WEIGHTS, ONNX, CARD = "config.json", "model.safetensors", "model.onnx", "README.md"
# What a model folder may hold beside these: what the hub adds.
_OF_THE_HUB = {".gitattributes", ".cache", ".git"}
_MOST_CONFIG_BYTES = 2**24
_MOST_WEIGHT_BYTES = 2**33

Kind = Literal["checkpoint", "folder", "onnx"]


# ---------------------------------------------------------------- reading


def find_model(path: Path) -> tuple[Kind, Path]:
    """Say what kind of model a path is, and where its file or folder lies.

    Raises:
        InputError: it is not there, or a folder without a model.
    """
    if path.is_dir():
        if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
            return "folder", path
        if (path / ONNX).is_file():
            return "onnx", path / ONNX
        inside = path / "best.pth.tar"
        way_out = f"give {inside}" if inside.is_file() else "write one with tools/export.py"
        raise InputError(f"{path} is no model folder ({CONFIG} and {WEIGHTS}): {way_out}")
    if not path.is_file():
        raise InputError(
            f"{path} is not there: give a checkpoint (best.pth.tar), a model folder or an .onnx "
            "file"
        )
    if path.suffix.lower() == ".onnx":
        return "onnx", path
    if path.name == WEIGHTS:
        return "folder", path.parent
    return "checkpoint", path


def read_config(folder: Path) -> tuple[ModelConfig, str]:
    """Read the configuration of a model folder, and the SHA-256 that its weights should have.

    Raises:
        InputError: it cannot be read, or describes no model of this release.
    """
    path = folder / CONFIG
    text = _read(path, _MOST_CONFIG_BYTES)
    config = ModelConfig.of_json(text, path)
    weights = json.loads(text).get("weights")
    digest = weights.get("sha256") if isinstance(weights, dict) else None
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise InputError(f"{path} has no SHA-256 of {WEIGHTS}: export the model again")
    return config, digest


def read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    """Read a safetensors file that must have this SHA-256.

    Raises:
        InputError: it cannot be read, is another one, or damaged.
    """
    # Hashed and parsed are the same bytes, whatever happens to the file meanwhile.
    data = _read(path, _MOST_WEIGHT_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(
            f"{path} is not the file that {CONFIG} describes (its SHA-256 differs), so it was "
            "changed or cut: copy the folder again"
        )
    try:
        return parse_tensors(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({' '.join(str(error).split())[:100]}): copy the folder again"
        ) from error


def _read(path: Path, most: int) -> bytes:
    try:
        return read_regular(path, most)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): copy the folder again"
        ) from error


# ---------------------------------------------------------------- writing


@contextmanager
def new_model_folder(path: Path, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends without an error.

    Args:
        path: of the model folder.
        overwrite: whether it may take the place of another model folder, which stays until then.

    Raises:
        InputError: there is something that may not be replaced.
    """
    refuse_existing(path, overwrite)
    path = Path(path).absolute()
    if not path.exists():
        with replacing_folder(path) as folder:
            yield folder
        return
    fresh, old = (path.with_name(f".{path.name}.{part}") for part in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    with replacing_folder(fresh) as folder:
        yield folder
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse a path with anything that an export may not replace.

    Raises:
        InputError: there is a file, a model folder without `overwrite`, or a folder with files
            that no model folder has.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{path} is a file or a link: name another --output")
    if not path.exists() or not any(path.iterdir()):
        if path.exists():
            path.rmdir()
        return
    if not overwrite:
        raise InputError(f"{path} is there: name another --output, or add --overwrite")
    known = {CONFIG, WEIGHTS, ONNX, CARD} | _OF_THE_HUB
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in known)
    is_model = (path / CONFIG).is_file() and FORMAT.encode() in _read(
        path / CONFIG, _MOST_CONFIG_BYTES
    )
    if foreign or not is_model:
        what = f"holds {foreign[0]}" if foreign else f"has no {CONFIG} of ours"
        raise InputError(
            f"{path} {what}, so it is more than a model folder and is not overwritten: name "
            "another --output"
        )


def write_weights(folder: Path, model: nn.Module) -> None:
    """Write `model.safetensors`: the state dict under our names."""
    # Clones: safetensors takes neither shared nor strided memory.
    tensors = {
        name: t.detach().cpu().contiguous().clone() for name, t in model.state_dict().items()
    }
    with replacing(folder / WEIGHTS) as file:
        file.write(tensor_bytes(tensors, metadata={"format": "pt"}))


def write_config(folder: Path, config: ModelConfig, opset: int | None = None) -> None:
    """Write `config.json`, with the SHA-256 of the model files that are in the folder.

    Args:
        folder: with the files.
        config: of the model.
        opset: of the ONNX file, if there is one.
    """
    entries: dict[str, Any] = config.to_json()
    for key, name in (("weights", WEIGHTS), ("onnx", ONNX)):
        path = folder / name
        if path.is_file():
            entries[key] = {"file": name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
    if "onnx" in entries:
        entries["onnx"]["opset"] = opset
    entries["versions"] = versions()
    write_json(folder / CONFIG, entries)


def versions() -> dict[str, str]:
    """Return versions of what computes and writes models."""
    names = ("torch", "torchvision", "safetensors", "onnx", "onnxscript", "onnxruntime")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
