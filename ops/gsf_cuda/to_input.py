"""Triton kernels of Gate-Shift-Fuse, backward from the gates to weights, norm and input.

Names are those of `parts.py`, orders of channels those of `backward.py`.
"""

import triton
import triton.language as tl

from ops.gsf_cuda.parts import TAPS, around, in_clip, normed, product, shuffled


@triton.jit
def conv_backward_kernel(
    x_ptr: tl.tensor,
    bn_weight_ptr: tl.tensor,
    bn_bias_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    var_ptr: tl.tensor,
    eps: tl.tensor,
    taps_weight_ptr: tl.tensor,
    grad_conv_ptr: tl.tensor,
    sums_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    K: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_segments: tl.tensor,
    tiles: tl.tensor,
    part_tiles: tl.tensor,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Sum the gradients of the 27 taps, of the norm's bias and of its weight: (parts, 2, K, 29).

    `tiles` counts the pixel tiles of all frames; a part is the sum over `part_tiles` of them.
    """
    g = tl.program_id(2)
    c = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = c < K
    channel = g * K + c
    pixels = height * width
    tap = tl.arange(0, 32)
    mask = inside[:, None] & (tap < TAPS)[None, :]
    weight = tl.load(taps_weight_ptr + channel[:, None] * TAPS + tap[None, :], mask=mask, other=0.0)
    weight = weight.to(x_ptr.dtype.element_ty)
    grad_weight = tl.zeros((BLOCK_K, 32), tl.float32)
    bias_sum = tl.zeros((BLOCK_K, BLOCK_P), tl.float32)
    hat_sum = tl.zeros((BLOCK_K, BLOCK_P), tl.float32)
    frame_tiles = tl.cdiv(pixels, BLOCK_P)
    first = tl.program_id(0) * part_tiles
    for tile in range(first, tl.minimum(first + part_tiles, tiles)):
        n = tile // frame_tiles
        p = tile % frame_tiles * BLOCK_P + tl.arange(0, BLOCK_P)
        place = x_ptr + n.to(tl.int64) * stride_n + channel[:, None] * stride_c
        wanted = inside[:, None] & (p < pixels)[None, :]
        x = tl.load(place + p[None, :] * stride_p, mask=wanted, other=0.0)
        hat, y, _ = normed(
            x.to(tl.float32), bn_weight_ptr, bn_bias_ptr, mean_ptr, var_ptr, eps, channel, inside
        )
        grad_taps = around(
            grad_conv_ptr + g * pixels, n, n % num_segments, p, num_segments, height, width,
            2 * pixels, 0, -1,
        ).to(x.dtype)  # fmt: skip
        grad = tl.where(y <= 0, 0.0, product(weight, grad_taps, PRECISION))
        y = tl.where(y < 0, 0.0, y).to(x.dtype)
        grad_weight += product(y, tl.trans(grad_taps), PRECISION)
        bias_sum += grad
        hat_sum += grad * hat
    row = (tl.program_id(0) * 2 * K + channel) * 29
    tl.store(sums_ptr + row[:, None] + tap[None, :], grad_weight, mask=mask)
    tl.store(sums_ptr + row + 27, tl.sum(bias_sum, axis=1), mask=inside)
    tl.store(sums_ptr + row + 28, tl.sum(hat_sum, axis=1), mask=inside)


@triton.jit
def input_backward_kernel(
    x_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    share_ptr: tl.tensor,
    means_ptr: tl.tensor,
    grad_conv_ptr: tl.tensor,
    bn_weight_ptr: tl.tensor,
    bn_bias_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    var_ptr: tl.tensor,
    eps: tl.tensor,
    taps_weight_ptr: tl.tensor,
    sums_ptr: tl.tensor,
    out_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    grad_stride_n: tl.tensor,
    grad_stride_c: tl.tensor,
    grad_stride_p: tl.tensor,
    out_stride_n: tl.tensor,
    out_stride_c: tl.tensor,
    out_stride_p: tl.tensor,
    K: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_segments: tl.tensor,
    count: tl.tensor,
    TRAINING: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write the gradient of the input: the sum of its ways to the output.

    They are: what stayed, what moved, the spatial means, and gates through convolution and norm.
    `sums` (2, K, 29) ends in the norm's sums over `count` values, constants unless TRAINING.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    t = n % num_segments
    pixels = height * width
    half = K // 2
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    o = tl.program_id(1) * 2 * BLOCK_J + tl.arange(0, 2 * BLOCK_J)
    c = o % 2 * half + o // 2
    inside = o < K
    p = tl.program_id(2) * BLOCK_P + tl.arange(0, BLOCK_P)
    target = n - 1 + 2 * g
    target_t = t - 1 + 2 * g
    half_mask = (j < half)[:, None] & (p < pixels)[None, :]
    place = x_ptr + n.to(tl.int64) * stride_n + (g * K + j)[:, None] * stride_c
    place += p[None, :] * stride_p
    x = shuffled(
        tl.load(place, mask=half_mask, other=0.0),
        tl.load(place + half * stride_c, mask=half_mask, other=0.0),
    )

    tap = tl.arange(0, 32)
    weight_mask = inside[:, None] & (tap < TAPS)[None, :]
    weight_place = taps_weight_ptr + (g * K + c)[:, None] * TAPS + tap[None, :]
    weight = tl.load(weight_place, mask=weight_mask, other=0.0).to(x.dtype)
    grad_taps = around(
        grad_conv_ptr + g * pixels, n, t, p, num_segments, height, width, 2 * pixels, 0, -1
    ).to(x.dtype)
    hat, y, slope = normed(
        x.to(tl.float32), bn_weight_ptr, bn_bias_ptr, mean_ptr, var_ptr, eps, g * K + c, inside
    )
    total = tl.where(y <= 0, 0.0, product(weight, grad_taps, PRECISION))
    if TRAINING:
        sums = sums_ptr + (g * K + c) * 29
        bias_sum = tl.load(sums + 27, mask=inside, other=0.0) / count
        hat_sum = tl.load(sums + 28, mask=inside, other=0.0) / count
        total -= bias_sum[:, None] + hat * hat_sum[:, None]
    total *= slope[:, None]

    means = means_ptr + tl.program_id(0) * 2 * K + c
    gate_row = gate_ptr + tl.program_id(0).to(tl.int64) * pixels + p
    gate = tl.load(gate_row, mask=p < pixels, other=0.0)
    share = tl.load(share_ptr + tl.program_id(0) * K + c, mask=inside, other=0.0)
    far_share = tl.load(
        share_ptr + (target * 2 + g) * K + c,
        mask=in_clip(inside, target_t, num_segments),
        other=0.0,
    )
    mask = inside[:, None] & (p < pixels)[None, :]
    step = (g * K + o)[:, None] * grad_stride_c + p[None, :] * grad_stride_p
    near_row = grad_ptr + n.to(tl.int64) * grad_stride_n
    far_row = grad_ptr + target.to(tl.int64) * grad_stride_n
    near = tl.load(near_row + step, mask=mask, other=0.0).to(tl.float32)
    mask = in_clip(mask, target_t, num_segments)
    far = tl.load(far_row + step, mask=mask, other=0.0).to(tl.float32)
    through = far_share[:, None] * far + tl.load(means, mask=inside, other=0.0)[:, None]
    total += through * gate[None, :] + tl.load(means + K, mask=inside, other=0.0)[:, None]
    total += (1.0 - share)[:, None] * near * (1.0 - gate)[None, :]

    halves = tl.permute(tl.reshape(total, (BLOCK_J, 2, BLOCK_P)), (0, 2, 1))
    first, second = tl.split(halves.to(out_ptr.dtype.element_ty))
    place = out_ptr + n.to(tl.int64) * out_stride_n + (g * K + j)[:, None] * out_stride_c
    place += p[None, :] * out_stride_p
    tl.store(place, first, mask=half_mask)
    tl.store(place + half * out_stride_c, second, mask=half_mask)
