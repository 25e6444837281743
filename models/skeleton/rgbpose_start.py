"""How RGBPose-Conv3D begins: from a network of RGB and one of skeletons, trained alone.

Duan et al. 2022, arXiv:2104.13586, section 3.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from errors import InputError, printable
from models.skeleton.rgbpose_conv3d import RGBPoseConv3D

# Stages that hear the other stream: their first convolutions have more inputs than alone.
_HEARING = {"rgb_path": ("layer3", "layer4"), "pose_path": ("layer2", "layer3")}


@dataclass(frozen=True, slots=True)
class StreamsReport:
    """What became of the weights of two networks of one stream each.

    Attributes:
        copied: names of tensors that were taken as they are.
        widened: names whose inputs were continued by zeros, for what the other stream says.
        fresh: names that neither network has: the lateral connections, which stay random.
        new_heads: streams whose classifier stays new, because that of its network is of other
            classes or not there.
    """

    copied: tuple[str, ...]
    widened: tuple[str, ...]
    fresh: tuple[str, ...]
    new_heads: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one sentence for the user."""
        heads = " and ".join(self.new_heads)
        told = f", and the classifier of {heads} (of other classes, or without one)"
        return (
            f"{len(self.copied)} tensors copied, {len(self.widened)} continued by zeros, "
            f"{len(self.fresh)} of lateral connections start anew{told if heads else ''}."
        )


def initialise_from_streams(
    model: RGBPoseConv3D, rgb_state: Mapping[str, Tensor], pose_state: Mapping[str, Tensor]
) -> StreamsReport:
    """Start a network of both streams from one of RGB and one of skeletons.

    At first no stream minds the other: where it hears it, its weights are 0. Classifiers of other
    classes, or missing ones, stay new.

    Args:
        model: of both streams; changed.
        rgb_state: weights of the RGB pathway alone, in our names or the published ones.
        pose_state: weights of the pose pathway alone, or of a `PoseC3D` of that shape.

    Raises:
        InputError: a tensor is missing, is not known or has another shape; nothing is changed.

    Source: Duan et al. 2022, arXiv:2104.13586, section 3.3 (the two are trained first).
    """
    if len(model.streams) != 2:
        raise InputError(
            f"this RGBPose-Conv3D has the stream {model.streams[0]} alone, weights of two streams "
            "begin one of both streams: add --rgbpose_streams both"
        )
    own = model.state_dict()
    given = {**_named(rgb_state, "rgb"), **_named(pose_state, "pose")}
    fresh = tuple(name for name in own if "_lateral." in name)
    new_heads = tuple(stream for stream in ("rgb", "pose") if not _has_head(given, own, stream))
    left = tuple(f"head.{stream}." for stream in new_heads)
    given = {name: tensor for name, tensor in given.items() if not name.startswith(left)}
    wanted = {name for name in own if name not in fresh and not name.startswith(left)}
    odd = sorted((given.keys() - wanted) | (wanted - given.keys()))
    odd = [name for name in odd if not name.endswith("num_batches_tracked")]
    if odd:
        fault = "is missing" if odd[0] in wanted else "is not known"
        raise InputError(
            f"the weights do not make a network of both streams: {odd[0]} {fault} (and "
            f"{len(odd) - 1} more): give those of --rgbpose_streams rgb and of pose"
        )
    filled, widened = {}, []
    for name in sorted(wanted & given.keys()):
        filled[name] = _widened(name, given[name], own[name])
        if filled[name] is not given[name]:
            widened.append(name)
    model.load_state_dict({**own, **filled})
    copied = tuple(name for name in filled if name not in widened)
    return StreamsReport(copied, tuple(widened), fresh, new_heads)


def _has_head(given: Mapping[str, Tensor], own: Mapping[str, Tensor], stream: str) -> bool:
    """Say whether the weights of a stream have a classifier of as many classes."""
    names = [name for name in own if name.startswith(f"head.{stream}.")]
    return all(name in given and len(given[name]) == len(own[name]) for name in names)


def _named(state: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """Return the weights of one stream under the names that they have in a network of both.

    Raises:
        InputError: two of them would have the same one.
    """
    named: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = key.removeprefix("module.")
        if name.startswith(("head.", "cls_head.")):
            new = f"head.{stream}.{name.rpartition('.')[2]}"
        else:
            for prefix in ("backbone.", "encoder.", f"{stream}_path."):
                name = name.removeprefix(prefix)
            new = f"encoder.{stream}_path.{name}"
        if new in named:
            raise InputError(
                f"the weights of the {stream} stream have {new} twice, {printable(key)[:60]} is "
                "one of them: give those of one network alone"
            )
        named[new] = tensor
    return named


def _widened(name: str, given: Tensor, own: Tensor) -> Tensor:
    """Return a tensor with the shape of the model's: zeros for inputs that it does not know."""
    if given.shape == own.shape:
        return given
    is_first = any(f".{layer}.0." in name for layer in _HEARING.get(name.split(".")[1], ()))
    hears = is_first and name.endswith(("conv1.conv.weight", "downsample.conv.weight"))
    fits = given.ndim == own.ndim and _without_inputs(given) == _without_inputs(own)
    if not (hears and fits and given.shape[1] < own.shape[1]):
        raise InputError(
            f"{name} is {tuple(given.shape)} in the weights of one stream, the network of both "
            f"has {tuple(own.shape)}: give weights of the same classes, joints and stages"
        )
    padded = torch.zeros_like(own)
    padded[:, : given.shape[1]] = given
    return padded


def _without_inputs(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.shape[0], *tensor.shape[2:])
