"""Grad-CAM: which places of each frame speak for a class."""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from models import Network
from models.fusion import LateFusion, RGBEncoder
from models.skeleton.rgbpose_conv3d import RGBPoseConv3D
from ops.batch import Batch

STAGES = ("layer4", "layer3", "layer2", "layer1")
# A map of fewer cells a side says little about places.
_LEAST_CELLS = 4


def backbone_of(model: Network) -> nn.Module | None:
    """Return the network that sees the frames; None when the model sees skeletons alone."""
    if isinstance(model, RGBPoseConv3D):
        return model.encoder.rgb_path if "rgb" in model.streams else None
    encoder = model.encoder
    if isinstance(encoder, LateFusion):
        encoder = encoder.rgb
    return encoder.backbone if isinstance(encoder, RGBEncoder) else None


def choose_stage(input_size: int) -> str:
    """Return the last stage whose maps have at least 4 x 4 cells.

    From 128 pixels on it is the last one, as in the paper; at 64 pixels that would have 2 x 2.
    """
    cells = {stage: input_size // (32 >> number) for number, stage in enumerate(STAGES)}
    return next((stage for stage in STAGES if cells[stage] >= _LEAST_CELLS), STAGES[-1])


def grad_cam(model: Network, batch: Batch, label: Tensor, stage: str = STAGES[0]) -> Tensor:
    """Return maps of what speaks for a class, one for each segment.

    The gradient of the clip's logit (before softmax, averaged over segments) with respect to the
    maps of a stage, averaged over the places of each segment, weighs the channels; what is
    negative in the weighted sum is cut to 0. Weights are taken for each segment, since
    each has its own maps. GSF mixes segments: a map also answers for what its neighbours got
    of it. Of RGBPose-Conv3D the logit is that of its RGB stream.

    Source: Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2.

    Args:
        model: in evaluation mode, on the device of `batch`; it has a backbone.
        batch: B clips of T segments.
        label: (B,) the class to explain.
        stage: of the backbone.

    Returns:
        (B, T, h, w) float32 on the CPU, at least 0; segments of a clip compare, clips do not.

    Raises:
        ValueError: the model sees skeletons alone.
    """
    backbone = backbone_of(model)
    if backbone is None or batch.frames is None:
        raise ValueError("Grad-CAM needs a model and a batch with frames")
    kept: list[Tensor] = []

    def start_here(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        # What comes before needs no gradients, and no memory for them.
        torch.set_grad_enabled(True)
        kept.append(output.detach().requires_grad_())
        return kept[0]

    hook = cast(nn.Module, getattr(backbone, stage)).register_forward_hook(start_here)
    seen = replace(batch, label=None)
    try:
        with torch.no_grad():  # until the stage; its end restores what the caller had
            if isinstance(model, RGBPoseConv3D):
                logits = model.stream_logits(seen)["rgb"]
            else:
                logits = model(seen)
            score = logits.gather(1, label.to(logits.device)[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        hook.remove()
    maps = kept[0].detach()
    if maps.ndim == 5:  # (B, C, T, h, w): of three dimensions
        gradient, maps = (x.transpose(1, 2).flatten(0, 1) for x in (gradient, maps))
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (B*T, C, 1, 1)
    maps = torch.relu((weights * maps).sum(dim=1))  # (B*T, h, w)
    return maps.float().cpu().unflatten(0, batch.frames.shape[:2])
