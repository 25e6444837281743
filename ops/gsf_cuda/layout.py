"""How feature maps lie in memory, and how kernels are to split them: rules without Triton.

Blocks follow from shape, type and layout by rule, not by trial: a choice by trial could change the
order of sums, and so the bits, between two runs. The rules keep the kernels from spilling
registers (`ptxas` for sm_80 and sm_90; 136 bytes of one in float32 on sm_80 remain); they were
not tuned on a GPU.
"""

import os
from typing import NamedTuple

import torch
from torch import Tensor

# Twice the processors of an H100 or H200: with fewer programs, long sums are split in parts.
WANTED_PROGRAMS = 264
MOST_PARTS = 4


def interpreted() -> bool:
    """Return whether Triton's interpreter runs the kernels, on CPU tensors: for tests."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


class Tiles(NamedTuple):
    """Sizes of blocks: pixels, channels, channels of each half of a group, and warps for taps."""

    pixels: int
    channels: int
    tap_channels: int
    pairs: int
    tap_warps: int


def tiles_of(x: Tensor) -> Tiles:
    """Return the blocks for the gated channels x (N, 2K, H, W)."""
    group, pixels = x.shape[1] // 2, x.shape[2] * x.shape[3]
    narrow = x.element_size() == 2
    many = narrow and x.stride(1) == 1  # else pixels are what is contiguous, and enough of them
    return Tiles(
        block(pixels, 64),
        block(group, 64),
        block(group, 64 if narrow else 32),
        block(group // 2, 32 if many else 16),
        4 if narrow else 8,
    )


def block(length: int, most: int) -> int:
    """Return the power of 2 from 16 to `most` that holds `length`, or `most`."""
    return min(most, max(16, 1 << (length - 1).bit_length()))


def ceil_div(length: int, size: int) -> int:
    """Return how many blocks of `size` hold `length`."""
    return -(-length // size)


def split(length: int, size: int, programs: int, most: int = MOST_PARTS) -> tuple[int, int]:
    """Return in how many parts to split `length`, and the length of a part.

    Args:
        length: of the sum or the row.
        size: of a block; parts are whole blocks.
        programs: how many would run with a single part. So many parts are made that
            WANTED_PROGRAMS run, or
        most: parts. Those of a sum are read again by the next kernel.
    """
    blocks = ceil_div(length, size)
    parts = max(1, min(blocks, most, WANTED_PROGRAMS // programs))
    part = ceil_div(blocks, parts)
    return ceil_div(blocks, part), part * size


def in_reach(x: Tensor) -> bool:
    """Return whether places within a frame of (N, C, H, W) fit 32 bits, and frames the grid."""
    steps = zip(x.shape[1:], x.stride()[1:], strict=True)
    last = sum((size - 1) * abs(step) for size, step in steps)
    # 27 maps of taps a frame, in two groups; the kernels' small tables are (N, 2, 2, K).
    maps = max(last, 54 * x.shape[2] * x.shape[3])
    return maps < 2**31 and x.shape[0] * x.shape[1] * 2 * MOST_PARTS < 2**31


def pixel_stride(x: Tensor) -> int | None:
    """Return the distance of pixels that follow each other in (N, C, H, W), None if it varies."""
    height, width = x.shape[2:]
    if width == 1:
        return x.stride(2)
    if height == 1 or x.stride(2) == width * x.stride(3):
        return x.stride(3)
    return None


def strides(x: Tensor) -> tuple[int, int, int]:
    """Return the distances in memory of frames, channels and pixels."""
    pixel = pixel_stride(x)
    assert pixel is not None
    return x.stride(0), x.stride(1), pixel


def even(x: Tensor) -> Tensor:
    """Return x, or a copy of it if its pixels do not follow each other at one distance."""
    return x if pixel_stride(x) is not None else x.contiguous()


def empty_like(x: Tensor) -> Tensor:
    """Return new memory of the shape, type and layout of (N, C, H, W), without gaps."""
    last = x.stride(1) == 1 and x.shape[2] * x.shape[3] > 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout)
