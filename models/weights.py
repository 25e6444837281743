"""Weights from elsewhere: ImageNet's, our checkpoints, the published ones.

Files are read as plain data (`weights_only=True`): whatever a file says, none of its code runs.
"""

import io
import pickle
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from errors import InputError
from models.anatomy import Anatomy, is_published, published_name
from models.resnet_gsf import STEM_WIDTH

FORMAT = "gate-shift-pose"
FORMAT_VERSION = 1

# Where a state dict may lie in a checkpoint: ours, published, published by GSF alone.
STATE_KEYS = ("model", "model_state_dict", "state_dict")
# What DataParallel and torch.compile put before every name.
WRAPPERS = ("module.", "_orig_mod.")


# ---------------------------------------------------------------- ImageNet and torchvision files


def backbone_weights(arch: str, pretrained: str, width: int) -> dict[str, Tensor] | None:
    """Fetch the weights that `--pretrained` names, in torchvision's naming.

    Args:
        arch: a torchvision ResNet.
        pretrained: "imagenet" (torchvision's IMAGENET1K_V1, downloaded once), "none", or a file.
        width: of the backbone; ImageNet weights exist for 64 alone.

    Returns:
        A state dict, or None for "none".

    Raises:
        InputError: the weights do not exist, cannot be reached or cannot be read.
    """
    if pretrained == "none":
        return None
    if pretrained != "imagenet":
        return find_state(read_checkpoint(Path(pretrained)), Path(pretrained))
    if width != STEM_WIDTH:
        raise InputError(
            f"there are no ImageNet weights for --width {width}, only for {STEM_WIDTH}: "
            "add --pretrained none"
        )
    url = get_model_weights(arch)["IMAGENET1K_V1"].url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    name = url.rpartition("/")[2]
    # The progress of a download is for terminals, not for logs or what is piped on.
    screen = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with redirect_stdout(screen), redirect_stderr(screen):
            return torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
    except OSError as error:  # no network, no such address, no space
        raise InputError(
            f"the ImageNet weights {name} are not in {folder} and cannot be downloaded from {url} "
            f"({_first_line(error)}): put the file there, or add --pretrained none"
        ) from error
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        raise InputError(
            f"the ImageNet weights {folder / name} are damaged ({_first_line(error)}): delete the "
            f"file to download it again from {url}, or add --pretrained none"
        ) from error


# ---------------------------------------------------------------- reading


def read_checkpoint(path: Path) -> Any:
    """Read a file of `torch.save` as plain data, on the CPU.

    Raises:
        InputError: no such file, no such format, or it holds more than plain data.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        raise InputError(f"{path} is {what}: give a checkpoint file, such as best.pth.tar of a run")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_numpy_scalars()):
            warnings.simplefilter("ignore")  # of a strange pickle protocol: it fails anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden:
            raise InputError(
                f"{path} holds objects of {forbidden[1]}, which only its own code can rebuild, "
                "and code of a file is never run: save the state dict of the model alone"
            ) from error
        raise InputError(
            f"{path} is no checkpoint, or damaged{_reason(error)}: copy it again"
        ) from error


def find_state(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what `read_checkpoint` returned; wrappers' prefixes are removed.

    Raises:
        InputError: there is none.
    """
    _check_version(content, path)
    inner = [content.get(key) for key in STATE_KEYS] if isinstance(content, Mapping) else []
    for state in (*inner, content):
        if isinstance(state, Mapping) and state and all(map(_is_entry, state.items())):
            return {_without_wrappers(key): tensor for key, tensor in state.items()}
    keys = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else "no keys"
    raise InputError(
        f"{path} holds no weights (a {type(content).__name__} with {keys}): give a state dict, or "
        f"a dict that has one under {', '.join(STATE_KEYS)}"
    )


def checkpoint_options(path: Path) -> dict[str, Any]:
    """Return the options that one of our checkpoints was trained with, {} for foreign files."""
    content = read_checkpoint(path)
    _check_version(content, path)
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return {}
    options = content.get("args", {})
    if not isinstance(options, Mapping):
        what = type(options).__name__
        raise InputError(f"{path} holds damaged options (a {what}): copy it again")
    # The classes that the network knows, also where the lists of another split lack some.
    classes = options.get("class_names") or content.get("classes")
    return {**options, "class_names": classes} if classes else dict(options)


def read_training_state(path: Path) -> dict[str, Any]:
    """Read one of our checkpoints with all that is needed to continue its run.

    Raises:
        InputError: it is not such a file.
    """
    content = read_checkpoint(path)
    _check_version(content, path)
    is_ours = isinstance(content, Mapping) and content.get("format") == FORMAT
    if not is_ours or not isinstance(content.get("args"), Mapping) or "optimizer" not in content:
        raise InputError(
            f"{path} is not the checkpoint of a training run, so it cannot be continued: to start "
            f"from its weights use --finetune --checkpoint_path {path}"
        )
    return dict(content)


def _check_version(content: Any, path: Path) -> None:
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        return
    version = content.get("version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} is a checkpoint of version {version}, this is version {FORMAT_VERSION}: "
            "use the release that wrote it"
        )


def _is_entry(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _without_wrappers(key: str) -> str:
    for prefix in WRAPPERS:
        key = key.removeprefix(prefix)
    return key


def _numpy_scalars() -> list[Any]:
    """List what a numpy number needs to be read: published files keep the best accuracy as one."""
    scalar = np.float64(0).__reduce__()[0]  # its module has another name in numpy 1
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [np.dtype, *((scalar, name) for name in names), *{type(np.dtype(c)) for c in "?iqfd"}]


def _reason(error: BaseException) -> str:
    """Return in brackets what a reader says; other errors are its slips on a foreign file."""
    says = isinstance(error, (RuntimeError, OSError, EOFError, pickle.UnpicklingError))
    return f" ({_first_line(error)})" if says else ""


def _first_line(error: BaseException) -> str:
    # The first sentence: torch goes on with advice to load the file unsafely.
    text = re.split(r"(?<=[a-z])[.:] |\n", str(error).strip(), maxsplit=1)[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---------------------------------------------------------------- loading


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of the tensors of a checkpoint.

    Attributes:
        path: the file.
        holds: what it is.
        matched: number of tensors loaded.
        missing: names that the model has and the file has not.
        unexpected: names that the file has and the model has not.
        mismatched: names whose shapes differ, with both shapes.
        notes: what else a user should know, in sentences.
    """

    path: Path
    holds: Anatomy
    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Say whether file and model agree in every tensor."""
        return not (self.missing or self.unexpected or self.mismatched)

    def differences(self) -> str:
        """Count what does not match, with one example of each kind."""
        kinds = (
            (self.missing, "missing"),
            (self.unexpected, "unexpected"),
            (self.mismatched, "of another shape"),
        )
        return ", ".join(f"{len(v)} {what} (first: {v[0]})" for v, what in kinds if v)

    def __str__(self) -> str:
        """Return one paragraph for the user."""
        text = f"{self.path} holds {self.holds}: {self.matched} tensors loaded"
        text += "" if self.is_complete else f", {self.differences()}"
        return ". ".join((text, *self.notes)) + "."


def load_checkpoint(model: nn.Module, path: Path | str, strict: bool = True) -> LoadReport:
    """Load a checkpoint of ours, a published one or a bare state dict.

    Args:
        model: a `ClipClassifier`.
        path: the file.
        strict: stop unless file and model agree in every tensor; otherwise load what fits.

    Returns:
        What matched and what did not.

    Raises:
        InputError: the file cannot be read, does not fit, or nothing in it fits.
    """
    report, fitting = _match(model, Path(path))
    if (strict and not report.is_complete) or not fitting:
        raise InputError(_refusal(report, model))
    model.load_state_dict(fitting, strict=False)
    return report


def load_for_finetune(model: nn.Module, path: Path | str) -> LoadReport:
    """Load a checkpoint as the start of another training.

    The classifier stays new when its shape differs, and a stream that only one side has (RGB
    weights into a late fusion) is left out; the report says so. Anything else must fit.

    Raises:
        InputError: the file cannot be read, is another backbone, or nothing in it fits.
    """
    report, fitting = _match(model, Path(path))
    ours = Anatomy.of(model.state_dict())
    wrong = [line for line in report.mismatched if not line.startswith("head.")]
    is_other = None not in (report.holds.arch, ours.arch) and report.holds.arch != ours.arch
    encodes = any(not name.startswith("head.") for name in fitting)
    if wrong or is_other or not encodes:
        raise InputError(_refusal(report, model))
    model.load_state_dict(fitting, strict=False)
    if any(name.startswith("head.") for name in fitting):
        return report
    return replace(report, notes=(*report.notes, "The classifier starts anew"))


def _match(model: nn.Module, path: Path) -> tuple[LoadReport, dict[str, Tensor]]:
    """Compare a file with a model; return the tensors that fit, under the model's names."""
    found = find_state(read_checkpoint(path), path)
    given = {published_name(key): tensor for key, tensor in found.items()}
    own = model.state_dict()
    pairs = {name: given[key] for name in own if (key := published_name(name)) in given}
    fitting = {name: tensor for name, tensor in pairs.items() if tensor.shape == own[name].shape}
    known = {published_name(name) for name in own}
    report = LoadReport(
        path=path,
        holds=Anatomy.of(found),
        matched=len(fitting),
        missing=tuple(k for k in own if k not in pairs and not k.endswith("num_batches_tracked")),
        unexpected=tuple(key for key in found if published_name(key) not in known),
        mismatched=tuple(
            f"{name} {tuple(tensor.shape)} where the model has {tuple(own[name].shape)}"
            for name, tensor in pairs.items()
            if name not in fitting
        ),
        notes=_notes(found),
    )
    return report, fitting


def _notes(found: Mapping[str, Tensor]) -> tuple[str, ...]:
    if is_published(found) and Anatomy.of(found).arch == "resnet34":
        return ('The published code calls this 34-layer backbone "resnet18"',)
    return ()


def _refusal(report: LoadReport, model: nn.Module) -> str:
    """Say in one line what the file is, what the model is, and what to do."""
    ours = Anatomy.of(model.state_dict())
    text = f"{report.path} holds {report.holds}, the model is {ours}"
    if "layer1.0.conv1.weight" in report.unexpected:
        return f"{text}: weights in torchvision's naming are for --pretrained {report.path}"
    text = f"{text} ({report.differences()})"
    if report.notes and ours.arch == "resnet18":
        return f'{text}: use --arch resnet34, which the published code calls "resnet18"'
    return f"{text}: {report.holds.way_from(ours)}"
