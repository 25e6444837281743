"""Weights from elsewhere: ImageNet's, our checkpoints, the published ones.

Files are read as plain data (`weights_only=True`): whatever a file says, none of its code runs.
"""

import io
import sys
from collections.abc import Collection, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from errors import InputError
from models.anatomy import Anatomy, is_published, published_name
from models.reading import (
    FORMAT,
    FORMAT_VERSION,
    checkpoint_options,
    read_checkpoint,
    read_training_state,
)
from models.resnet_gsf import STEM_WIDTH
from models.skeleton.published import as_pathway, is_toolbox
from models.state_dicts import find_state, find_weights, short
from models.weight_files import FileFault, first_line

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "LoadReport",
    "backbone_weights",
    "checkpoint_options",
    "find_state",
    "load_checkpoint",
    "load_for_finetune",
    "read_checkpoint",
    "read_training_state",
]

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
    except Exception as error:  # noqa: BLE001 - a damaged file makes the unpickler raise anything
        if isinstance(error, OSError) or not (folder / name).exists():
            # No network, no space, or what came is not the file: then it was deleted.
            raise InputError(
                f"the ImageNet weights {name} are not in {folder} and cannot be downloaded from "
                f"{url} ({first_line(error)}): put the file there, or add --pretrained none"
            ) from error
        raise InputError(
            f"the ImageNet weights {folder / name} are damaged ({first_line(error)}): delete the "
            f"file to download it again from {url}, or add --pretrained none"
        ) from error


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
        mismatched: names whose shapes or kinds of numbers differ, with both.
        notes: what else a user should know, in sentences.
        anew: parts of the model that the file has nothing of, as texts call them.
    """

    path: Path
    holds: Anatomy
    matched: int
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Say whether file and model agree in every tensor."""
        return not (self.missing or self.unexpected or self.mismatched)

    def differences(self) -> str:
        """Count what does not match, with one example of each kind."""
        kinds = (
            (self.missing, "missing"),
            # Of the file, which may call them anything.
            (tuple(map(short, self.unexpected)), "unexpected"),
            (self.mismatched, "of another shape or type"),
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
    _fill(model, fitting, report.path)
    return report


def load_for_finetune(model: nn.Module, path: Path | str) -> LoadReport:
    """Load a checkpoint as the start of another training.

    The classifier stays new when its shape differs, GSF where the file has none, and a stream that
    only one side has (RGB weights, or those of a skeleton network, into a late fusion) is left out;
    the report says so. Anything else must fit.

    Raises:
        InputError: the file cannot be read, is another backbone or another skeleton network, or
            has not all of a stream, or more than that, or nothing that fits.
    """
    report, fitting = _match(model, Path(path))
    ours = Anatomy.of(model.state_dict())
    wrong = [line for line in report.mismatched if not line.startswith(_HEADS)]
    encoder = {name for name in fitting if not name.startswith(_HEADS)}
    if wrong or _is_other(report.holds, ours) or not encoder:
        raise InputError(_refusal(report, model))
    if _is_partial(report, encoder):
        raise InputError(_refusal(report, model, "give all of the weights of such a network"))
    if not report.holds.has_features_of(ours):
        # A classifier of other features, whatever its shape.
        fitting = {name: fitting[name] for name in encoder}
        report = replace(report, matched=len(fitting))
    _fill(model, fitting, report.path)
    new = _parts_without(model.state_dict(), fitting)
    if not new:
        return report
    parts = " and ".join(filter(None, (", ".join(new[:-1]), new[-1])))
    note = f"{parts[0].upper()}{parts[1:]} start{'s' * (len(new) == 1)} anew"
    return replace(report, notes=(*report.notes, note), anew=tuple(new))


RGB_PART, CLASSIFIER_PART = "the RGB stream", "the classifier"
# In the name of each of its tensors, which a backbone has beside those of its own.
_GSF = ".gsf."
# Classifiers: of the network, and in training of each stream of a late fusion.
_HEADS = ("head.", "rgb_head.", "pose_head.")
# Parts of a model by the start of their published names, as texts call them.
_PARTS = (
    (RGB_PART, ("base_model.",)),
    ("the pose stream", ("pose_model.",)),
    ("the fusion", ("attention_layer.", "feature_refinement_layer.")),
    (CLASSIFIER_PART, ("new_fc.", *_HEADS)),
)


# What is loaded whole or not at all.
_WHOLE = ("base_model.", "pose_model.", "attention_layer.", "feature_refinement_layer.")


def _is_other(theirs: Anatomy, ours: Anatomy) -> bool:
    """Say whether both sides have a backbone, or a skeleton network, and it is not the same."""
    if None not in (theirs.arch, ours.arch) and theirs.arch != ours.arch:
        return True
    if theirs.skeleton is None or ours.skeleton is None:
        return False
    return not theirs.skeleton.fits(ours.skeleton)


def _is_partial(report: LoadReport, fitting: Collection[str]) -> bool:
    """Say whether a part of the model is filled but for some tensors, or the file has more of it.

    Args:
        report: of a file without tensors of other shapes, but in classifiers.
        fitting: names of the tensors that fit, in the model.
    """
    given, missing, more = (
        [published_name(name) for name in names]
        for names in (
            fitting,
            [name for name in report.missing if _GSF not in name or report.holds.gsf],
            report.unexpected,
        )
    )
    for start in _WHOLE:
        filled, lacks, has_more = (
            any(name.startswith(start) for name in names) for names in (given, missing, more)
        )
        if (filled and lacks) or (has_more and (filled or lacks)):
            return True
    return False


def _parts_without(own: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> list[str]:
    """List the parts of a model that none of the tensors are for."""
    has, given = ({published_name(name) for name in names} for names in (own, fitting))
    parts = [
        part
        for part, starts in _PARTS
        if any(name.startswith(starts) for name in has)
        and not any(name.startswith(starts) for name in given)
    ]
    is_new = RGB_PART not in parts and not any(_GSF in name for name in given)
    return ["GSF", *parts] if is_new and any(_GSF in name for name in has) else parts


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # of a type that cannot be converted
        raise FileFault(path, f"holds tensors that no model has ({first_line(error)})") from error


def _match(model: nn.Module, path: Path) -> tuple[LoadReport, dict[str, Tensor]]:
    """Compare a file with a model; return the tensors that fit, under the model's names."""
    stored = find_weights(read_checkpoint(path), path)
    found = stored.tensors
    own = model.state_dict()
    known = {published_name(name) for name in own}
    # Published names -> names in the file.
    names = as_pathway({published_name(name): name for name in found}, known)
    pairs = {name: found[names[key]] for name in own if (key := published_name(name)) in names}
    misfits = {name: why for name in pairs if (why := _misfit(pairs[name], own[name]))}
    fitting = {name: tensor for name, tensor in pairs.items() if name not in misfits}
    report = LoadReport(
        path=path,
        holds=Anatomy.of(found, stored.meta),
        matched=len(fitting),
        missing=tuple(k for k in own if k not in pairs and not k.endswith("num_batches_tracked")),
        unexpected=tuple(name for key, name in names.items() if key not in known),
        mismatched=tuple(f"{name} {why}" for name, why in misfits.items()),
        notes=(*_notes(found), *stored.notes),
    )
    return report, fitting


def _misfit(given: Tensor, own: Tensor) -> str:
    """Say how a tensor is none that the model can take; "" where it fits.

    Floating-point numbers of any width fit each other. Whole numbers are no weights: whoever
    stores them so keeps their scale elsewhere.
    """
    if given.shape != own.shape:
        return f"{tuple(given.shape)} where the model has {tuple(own.shape)}"
    # Counters of norms are taken as floating-point numbers, too: some halve every tensor.
    if given.is_complex() or (own.is_floating_point() and not given.is_floating_point()):
        theirs, ours = (str(t.dtype).removeprefix("torch.") for t in (given, own))
        return f"of {theirs} where the model has {ours}"
    return ""


_CALLED_18 = 'The published code calls this 34-layer backbone "resnet18"'


def _notes(found: Mapping[str, Tensor]) -> tuple[str, ...]:
    is_gsf = is_published(found) and not is_toolbox(found)
    if is_gsf and Anatomy.of(found).arch == "resnet34":
        return (_CALLED_18,)
    return ()


def _refusal(report: LoadReport, model: nn.Module, way: str = "") -> str:
    """Say in one line what the file is, what the model is, and what to do.

    Args:
        report: what fits and what does not.
        model: that was to be filled.
        way: what to do where both are the same network.
    """
    ours = Anatomy.of(model.state_dict())
    text = f"{report.path} holds {report.holds}, the model is {ours}"
    if "layer1.0.conv1.weight" in report.unexpected:
        return f"{text}: weights in torchvision's naming are for --pretrained {report.path}"
    text = f"{text} ({report.differences()})"
    if _CALLED_18 in report.notes and ours.arch == "resnet18":
        return f'{text}: use --arch resnet34, which the published code calls "resnet18"'
    if way and report.holds.gsf in (None, ours.gsf):
        return f"{text}: {way}"
    return f"{text}: {report.holds.way_from(ours)}"
