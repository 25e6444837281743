"""Heatmap volumes on a CPU: every Gaussian in its window alone, in a loop compiled by numba.

Most of a volume is empty. Whole images, as `ops.heatmap` draws them elsewhere, take 10 to 60 times
as long.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ops.gsf_cpu.compiling import Kernel
from ops.heatmap import Segments

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("numba compiles nothing here")

# exp of less is below what single precision tells from 0 beside 1.
_LEAST_EXPONENT = np.float32(-17)


def draw_windows(segments: Segments, height: int, width: int, sigma: float) -> Tensor:
    """Draw segments of shape (M, B, L, T) on the CPU, people combined by their maximum.

    Args:
        segments: finite, without gradients.
        height: H, pixels.
        width: W, pixels.
        sigma: standard deviation, pixels.

    Returns:
        (B, L, T, H, W) float32.
    """
    # numpy's zeros cost nothing where nothing is drawn.
    volumes = np.zeros((*segments.peak.shape[1:], height, width), np.float32)
    images = volumes.reshape(math.prod(volumes.shape[:-2]), height, width)
    tensors = (segments.middle, segments.direction, segments.low, segments.high)
    pairs = (tensor.reshape(2, -1).numpy() for tensor in tensors)
    alone = (tensor.reshape(-1).numpy() for tensor in (segments.half, segments.peak))
    _draw(images, *pairs, *alone, np.float32(-0.5 / sigma**2))
    return torch.from_numpy(volumes)


def _windows(
    images: Any,
    middle: Any,
    direction: Any,
    low: Any,
    high: Any,
    half: Any,
    peak: Any,
    factor: Any,
) -> None:
    """Draw N segments into their images (I, H, W); segment i belongs to image i modulo I."""
    count, height, width = images.shape
    zero = np.float32(0)
    for place in range(count):
        for i in range(place, len(peak), count):
            if peak[i] == 0 or high[0, i] < 0 or high[1, i] < 0:
                continue
            # Cut to the image before they become whole numbers.
            left, right = int(max(low[0, i], zero)), int(min(high[0, i], np.float32(width - 1)))
            top, bottom = int(max(low[1, i], zero)), int(min(high[1, i], np.float32(height - 1)))
            along_x, along_y = direction[0, i], direction[1, i]
            for row in range(top, bottom + 1):
                y = np.float32(row) - middle[1, i]
                for column in range(left, right + 1):
                    x = np.float32(column) - middle[0, i]
                    beyond = max(abs(x * along_x + y * along_y) - half[i], zero)
                    across = y * along_x - x * along_y
                    exponent = (across * across + beyond * beyond) * factor
                    if exponent > _LEAST_EXPONENT:
                        value = peak[i] * math.exp(exponent)
                        images[place, row, column] = max(images[place, row, column], value)


_draw = Kernel(_windows)
