"""Convolutions of volumes that see pixels or frames, but not both: on a CPU as those of images.

A kernel (1, k, k) sees frames one by one: they are B*T images. A kernel (k, 1, 1) sees pixels one
by one: a clip is an image of T x H*W. Both are views where channels lie innermost in memory
(channels_last_3d), and convolutions of such images run two to three times as fast there as those
of volumes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Triple = tuple[int, int, int]

# Kernels of one pixel with a stride, channels innermost: where channels are fewer than a block of
# oneDNN (8 with AVX2), backward writes past its memory (uxlfoundation/oneDNN issue 6035).
_FEW_CHANNELS = 16


def innermost_channels(x: Tensor) -> Tensor:
    """Return (B, C, T, H, W) in the memory layout that is fastest on its device."""
    if not _takes_images(x):
        return x
    return x.contiguous(memory_format=torch.channels_last_3d)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Triple = (1, 1, 1)
) -> Tensor:
    """Convolve volumes with kernels of odd sizes, padded so that stride 1 keeps the size.

    Args:
        x: (B, C, T, H, W).
        weight: (C', C, t, h, w), where t or h and w are 1.
        bias: (C',).
        stride: in T, H and W.

    Returns:
        (B, C', T', H', W').

    Raises:
        ValueError: the kernel sees frames and pixels at once.
    """
    frames, *pixels = weight.shape[2:]
    if frames > 1 and max(pixels) > 1:
        raise ValueError(f"a kernel of {tuple(weight.shape[2:])} is no kernel of images")
    if not _takes_images(x):
        padding = [side // 2 for side in weight.shape[2:]]
        return F.conv3d(x, weight, bias, stride, padding)
    if frames > 1:
        return _over_time(x, weight[..., 0], bias, stride)
    # Frames between the strides are seen by nobody.
    images = _as_images(x[:, :, :: stride[0]])
    if pixels == [1, 1] and x.shape[1] < _FEW_CHANNELS:  # nor are pixels
        images, stride = images[..., :: stride[1], :: stride[2]], (1, 1, 1)
    padding = [side // 2 for side in pixels]
    return _as_volumes(F.conv2d(images, weight[:, :, 0], bias, stride[1:], padding), len(x))


def max_pool(x: Tensor, side: int, stride: int) -> Tensor:
    """Take the maximum of side x side pixels of each frame: (B, C, T, H', W').

    Args:
        x: (B, C, T, H, W).
        side: odd; padded so that stride 1 keeps the size.
        stride: in H and W.
    """
    if not _takes_images(x):
        return F.max_pool3d(x, (1, side, side), (1, stride, stride), (0, side // 2, side // 2))
    return _as_volumes(F.max_pool2d(_as_images(x), side, stride, side // 2), len(x))


def _takes_images(x: Tensor) -> bool:
    """Say whether views cost nothing: not in graphs for other runtimes, which would copy."""
    is_exported = torch.compiler.is_exporting() or torch.jit.is_tracing()
    return x.device.type == "cpu" and not is_exported


def _as_images(x: Tensor) -> Tensor:
    """View (B, C, T, H, W) as (B*T, C, H, W), channels innermost."""
    return x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)


def _as_volumes(images: Tensor, count: int) -> Tensor:
    """View (B*T, C, H, W) as (B, C, T, H, W), channels innermost."""
    return images.permute(0, 2, 3, 1).unflatten(0, (count, -1)).permute(0, 4, 1, 2, 3)


def _over_time(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple) -> Tensor:
    x = x[..., :: stride[1], :: stride[2]]
    side = x.shape[3:]
    clips = x.permute(0, 2, 3, 4, 1).flatten(2, 3).permute(0, 3, 1, 2)  # (B, C, T, H*W)
    out = F.conv2d(clips, weight, bias, (stride[0], 1), (weight.shape[2] // 2, 0))
    return out.permute(0, 2, 3, 1).unflatten(2, side).permute(0, 4, 1, 2, 3)
