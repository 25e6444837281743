"""Frames in bytes to what a network takes: each channel less its mean, over its deviation."""

import torch
from torch import Tensor

# ImageNet, of RGB in [0, 1]: what pretrained backbones expect.
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
# Of one person's heatmap in [0, 1]. Over all pixels of a crop the mean and deviation were .07 and
# .21 on 26 real videos (GMDCSA-24), .06 and .19 on the built-in data set.
HEATMAP_MEAN = 0.06
HEATMAP_STD = 0.2

# Frames that a CPU normalises together: 3 MB of 224 x 224.
_BLOCK = 4


def normalize_frames(
    frames: Tensor, heatmap: Tensor | None = None, channels_last: bool = False
) -> Tensor:
    """Normalise frames on the device where they are, and add the heatmap as channel 3.

    Args:
        frames: (..., 3, H, W) uint8 RGB, in any memory layout.
        heatmap: (..., H, W) float32 in [0, 1].
        channels_last: lay the pixels of the result out one after the other, each with all its
            channels; otherwise plane after plane.

    Returns:
        (..., C, H, W) float32, C = 3 or 4; the same numbers in both layouts.
    """
    *lead, _, height, width = frames.shape
    video = frames.reshape(-1, 3, height, width)  # (N, 3, H, W)
    if channels_last and heatmap is None:
        out = _by_pixel(video)
    else:
        out = _by_plane(video, heatmap)
        if channels_last:
            # Faster than writing every fourth number three times.
            out = out.contiguous(memory_format=torch.channels_last)
    return out.view(*lead, *out.shape[1:])


def _by_plane(video: Tensor, heatmap: Tensor | None) -> Tensor:
    """Return (N, C, H, W), contiguous, of (N, 3, H, W) uint8 frames and (..., H, W) heatmaps."""
    factor, shift = (values.view(3, 1, 1) for values in _constants(video.device))
    number, _, height, width = video.shape
    channels = 3 if heatmap is None else 4
    shape = (number, channels, height, width)
    out = torch.empty(shape, dtype=torch.float32, device=video.device)
    # On a CPU a few frames at a time, which stay in its cache from step to step.
    is_blocked = video.device.type == "cpu" and not torch.compiler.is_compiling()
    step = _BLOCK if is_blocked else max(number, 1)
    planes = None if heatmap is None else heatmap.reshape(number, height, width)
    for start in range(0, number, step):
        block = slice(start, start + step)
        out[block, :3].copy_(video[block]).mul_(factor).sub_(shift)
        if planes is not None:
            out[block, 3].copy_(planes[block]).sub_(HEATMAP_MEAN).div_(HEATMAP_STD)
    return out


def _by_pixel(video: Tensor) -> Tensor:
    """Return (N, 3, H, W) in memory as (N, H, W, 3)."""
    number, _, height, width = video.shape
    rows = video.permute(0, 2, 3, 1).reshape(number, height, width * 3)
    # Three constants, repeated along the row: loops as long as the row, not of three steps.
    factor, shift = (values.repeat(width) for values in _constants(video.device))
    out = torch.mul(rows, factor).sub_(shift)
    return out.view(number, height, width, 3).permute(0, 3, 1, 2)


def _constants(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what RGB in 0-255 is multiplied by, and what is then taken off: (3,) each."""
    mean, std = torch.tensor((RGB_MEAN, RGB_STD), dtype=torch.float32, device=device)
    return 1 / (255 * std), mean / std
