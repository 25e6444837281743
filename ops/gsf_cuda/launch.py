"""Launches the Triton kernels of Gate-Shift-Fuse; the package explains the plan.

Imported only where Triton is there and the kernels are to run.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.gsf_cuda import backward as back
from ops.gsf_cuda import forward as forth
from ops.gsf_cuda import to_input
from ops.gsf_cuda.layout import (
    block,
    ceil_div,
    empty_like,
    even,
    interpreted,
    split,
    strides,
    tiles_of,
)
from ops.gsf_plain import GSFWeights

# Products and sums in one rounding: said aloud because Triton is about to change its default.
FUSED: dict[str, Any] = {"enable_fp_fusion": True}


class After(NamedTuple):
    """What is done to the output before it is written: (F,) factors and terms, a sum, ReLU."""

    scale: Tensor | None = None
    offset: Tensor | None = None
    residual: Tensor | None = None
    relu: bool = False


class Kept(NamedTuple):
    """What the backward pass needs besides input and statistics, float32.

    Attributes:
        gate: (N, 2, P).
        pooled: (parts, N, 2, 2, K): sums of gate * x and of x.
        share: (N, 2, K).
    """

    gate: Tensor
    pooled: Tensor
    share: Tensor


class Gradients(NamedTuple):
    """Gradients of the input (None if not wanted) and of the weights, these in float32."""

    x: Tensor | None
    bn_weight: Tensor
    bn_bias: Tensor
    taps_weight: Tensor
    gate_bias: Tensor
    fuse_weight: Tensor
    fuse_bias: Tensor


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel of (N, F, H, W), (F,) float32 each."""
    frames, channels, height, width = x.shape
    pixels = height * width
    parts = x.new_empty((frames, 2, channels), dtype=torch.float32)
    mean, var = x.new_empty((2, channels), dtype=torch.float32).unbind()
    block_c, block_p = (64, 32) if x.stride(1) == 1 else (16, block(pixels, 256))
    forth.frame_moments_kernel[frames, ceil_div(channels, block_c)](
        x, parts, *strides(x), channels, pixels, BLOCK_C=block_c, BLOCK_P=block_p, num_warps=4,
        **FUSED,
    )  # fmt: skip
    forth.moments_kernel[(ceil_div(channels, 32),)](
        parts, mean, var, frames, channels, pixels, BLOCK_N=64, BLOCK_C=32, num_warps=4, **FUSED
    )
    return mean, var


def forward(
    x: Tensor,
    weights: GSFWeights,
    statistics: tuple[Tensor, Tensor],
    num_segments: int,
    after: After,
    *,
    keep: bool,
) -> tuple[Tensor, Kept]:
    """Run the three kernels.

    Args:
        x: (N, F, H, W), the gated channels, clip by clip.
        weights: of the module; `running` is not read.
        statistics: mean and variance of the norm before the gates.
        num_segments: T.
        after: what is done to the output before it is written.
        keep: write the shares too, for the backward pass.

    Returns:
        (N, F, H, W), and what the backward pass needs.
    """
    frames, channels, height, width = x.shape
    group, pixels = channels // 2, height * width
    tiles = tiles_of(x)
    pixel_blocks = ceil_div(pixels, tiles.pixels)

    norm = (weights.bn_weight, weights.bn_bias, *statistics, weights.eps)
    tap_parts, part_channels = split(group, tiles.tap_channels, frames * 2 * pixel_blocks)
    taps = x.new_empty((tap_parts, frames, 2, 27, pixels), dtype=torch.float32)
    forth.taps_kernel[frames * 2, pixel_blocks, tap_parts](
        x, *norm, weights.taps_weight.contiguous(), taps, *strides(x), group, pixels,
        part_channels, BLOCK_K=tiles.tap_channels, BLOCK_P=tiles.pixels, PRECISION=_precision(x),
        num_warps=tiles.tap_warps, **FUSED,
    )  # fmt: skip

    blocks = ceil_div(group, tiles.channels)
    parts, part_pixels = split(pixels, tiles.pixels, frames * 2 * blocks)
    gate = x.new_empty((frames, 2, pixels), dtype=torch.float32)
    pooled = x.new_empty((parts, frames, 2, 2, group), dtype=torch.float32)
    forth.gate_kernel[frames * 2, blocks, parts](
        x, taps, weights.gate_bias, gate, pooled, *strides(x), group, height, width, num_segments,
        part_pixels, TAP_PARTS=tap_parts, BLOCK_K=tiles.channels, BLOCK_P=tiles.pixels,
        num_warps=8, **FUSED,
    )  # fmt: skip

    out = empty_like(x)
    share = x.new_empty((frames, 2, group) if keep else (1,), dtype=torch.float32)
    pairs = ceil_div(group // 2, tiles.pairs)
    out_parts, part_pixels = split(pixels, tiles.pixels, frames * 2 * pairs, most=pixel_blocks)
    residual = None if after.residual is None else even(after.residual)
    forth.fuse_kernel[frames * 2, pairs, out_parts](
        x, gate, pooled, weights.fuse_weight.contiguous(), weights.fuse_bias, share,
        *(x if t is None else t for t in (after.scale, after.offset, residual)), out,
        *strides(x), *strides(x if residual is None else residual), *strides(out), group, pixels,
        num_segments, part_pixels, PARTS=parts, KEEP_SHARE=keep, SCALED=after.scale is not None,
        RESIDUAL=residual is not None, RELU=after.relu, BLOCK_J=tiles.pairs, BLOCK_P=tiles.pixels,
        num_warps=8, **FUSED,
    )  # fmt: skip
    return out, Kept(gate, pooled, share)


def backward(
    grad: Tensor,
    x: Tensor,
    weights: GSFWeights,
    statistics: tuple[Tensor, Tensor],
    num_segments: int,
    kept: Kept,
    *,
    training: bool,
    input_too: bool,
) -> Gradients:
    """Run the kernels of the backward pass.

    Args:
        grad: (N, F, H, W), gradient of the output.
        x: (N, F, H, W), as in `forward`, like all that follows.
        weights: of the module.
        statistics: mean and variance.
        num_segments: T.
        kept: what `forward` returned.
        training: the statistics are those of x, and so depend on it.
        input_too: find the gradient of x.
    """
    grad = even(grad)
    frames, channels, height, width = x.shape
    group, pixels = channels // 2, height * width
    small: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    norm = (weights.bn_weight, weights.bn_bias, *statistics, weights.eps)
    taps_weight = weights.taps_weight.contiguous()

    means, grad_conv, share_sums = _to_gates(grad, x, weights, num_segments, kept)

    block_p, block_k = block(pixels, 32), 64
    blocks, tiles = ceil_div(group, block_k), frames * ceil_div(pixels, block_p)
    parts, part_tiles = split(tiles, 1, 2 * blocks, most=tiles)
    sums = torch.empty((parts, 2, group, 29), **small)
    to_input.conv_backward_kernel[parts, blocks, 2](
        x, *norm, taps_weight, grad_conv, sums, *strides(x), group, height, width, num_segments,
        tiles, part_tiles, BLOCK_K=block_k, BLOCK_P=block_p, PRECISION=_precision(x), num_warps=8,
        **FUSED,
    )  # fmt: skip
    sums = sums.sum(dim=0)  # (2, K, 29)

    grad_x = None
    if input_too:
        block_p, block_j = tiles_of(x).pixels, tiles_of(x).pairs
        grad_x = empty_like(x)
        grid = frames * 2, ceil_div(group // 2, block_j), ceil_div(pixels, block_p)
        to_input.input_backward_kernel[grid](
            x, grad, kept.gate, kept.share, means, grad_conv, *norm, taps_weight, sums, grad_x,
            *strides(x), *strides(grad), *strides(grad_x), group, height, width, num_segments,
            frames * pixels, TRAINING=training, BLOCK_J=block_j, BLOCK_P=block_p,
            PRECISION=_precision(x), num_warps=8, **FUSED,
        )  # fmt: skip
    return Gradients(
        grad_x,
        sums[..., 28].flatten(),
        sums[..., 27].flatten(),
        sums[..., :27].reshape(taps_weight.shape),
        grad_conv.sum(dim=(0, 2)),
        share_sums[:, :18].reshape(weights.fuse_weight.shape),
        share_sums[:, 18].reshape(weights.fuse_bias.shape),
    )


def _to_gates(
    grad: Tensor, x: Tensor, weights: GSFWeights, num_segments: int, kept: Kept
) -> tuple[Tensor, Tensor, Tensor]:
    """Go back to the gate convolution.

    Returns:
        Gradients of the sums of gate * x and of x (N, 2, 2, K), of the output of the gate
        convolution (N, 2, P), of the share's convolution (2, 19): 2 x 9 weights and the bias.
    """
    frames, channels, height, width = x.shape
    group, pixels = channels // 2, height * width
    tiles = tiles_of(x)
    small: dict[str, Any] = {"dtype": torch.float32, "device": x.device}
    pairs, blocks = ceil_div(group // 2, tiles.pairs), ceil_div(group, tiles.channels)

    parts, part_pixels = split(pixels, tiles.pixels, frames * 2 * pairs)
    mixed = torch.empty((parts, frames, 2, 2, group), **small)
    grad_gate = torch.empty((pairs, frames, 2, pixels), **small)
    back.mix_backward_kernel[frames * 2, pairs, parts](
        x, grad, kept.gate, kept.share, mixed, grad_gate, *strides(x), *strides(grad), group,
        pixels, num_segments, part_pixels, BLOCK_J=tiles.pairs, BLOCK_P=tiles.pixels, num_warps=8,
        **FUSED,
    )  # fmt: skip

    means = torch.empty((frames, 2, 2, group), **small)
    share_sums = torch.empty((blocks, frames, 2, 19), **small)
    back.share_backward_kernel[frames * 2, blocks](
        mixed, kept.share, kept.pooled, weights.fuse_weight.contiguous(), means, share_sums, group,
        pixels, num_segments, PARTS=parts, POOLED_PARTS=kept.pooled.shape[0],
        BLOCK_K=tiles.channels, num_warps=4, **FUSED,
    )  # fmt: skip

    grad_conv = torch.empty((frames, 2, pixels), **small)
    back.gate_backward_kernel[frames * 2, ceil_div(pixels, tiles.pixels)](
        x, kept.gate, grad_gate, means, grad_conv, *strides(x), group, pixels, pairs,
        BLOCK_K=tiles.channels, BLOCK_P=tiles.pixels, num_warps=8, **FUSED,
    )  # fmt: skip
    return means, grad_conv, share_sums.sum(dim=(0, 1))


def _precision(x: Tensor) -> str:
    """Return how float32 products are taken: on tensor cores, in three parts, where they can."""
    if interpreted():
        return "interpreted"
    wide = x.dtype == torch.float32 and torch.cuda.get_device_capability(x.device)[0] >= 8
    return "tf32x3" if wide else "ieee"
