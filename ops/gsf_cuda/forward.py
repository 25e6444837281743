"""Triton kernels of Gate-Shift-Fuse, forward; `launch.py` launches them.

Tiles are (channels, pixels) whatever the layout: strides decide which of the two is contiguous in
memory, so NCHW and channels_last run the same code. Sums are kept in float32, and every sum that
several programs share is written in parts and added in a fixed order: equal inputs, equal bits.
Names are those of `parts.py`.
"""

import triton
import triton.language as tl

from ops.gsf_cuda.parts import TAPS, around, in_clip, normed, product, share_of, shuffled, tanh


@triton.jit
def frame_moments_kernel(
    x_ptr: tl.tensor,
    moments_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    channels: tl.tensor,
    pixels: tl.tensor,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """Write mean and sum of squared deviations of each channel of a frame: (N, 2, F).

    Tile by tile, each about its own mean: no digits are lost where mean >> deviation.
    """
    n = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    place = x_ptr + n.to(tl.int64) * stride_n + c[:, None] * stride_c
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, pixels, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        inside = (c < channels)[:, None] & (p < pixels)[None, :]
        x = tl.load(place + p[None, :] * stride_p, mask=inside, other=0.0).to(tl.float32)
        count = tl.minimum(pixels - start, BLOCK_P).to(tl.float32)
        tile_mean = tl.sum(x, axis=1) / count
        away = tl.where(inside, x - tile_mean[:, None], 0.0)
        delta = tile_mean - mean
        weight = count / (start + count)
        squares += tl.sum(away * away, axis=1) + delta * delta * start * weight
        mean += delta * weight
    here = moments_ptr + n * 2 * channels + c
    tl.store(here, mean, mask=c < channels)
    tl.store(here + channels, squares, mask=c < channels)


@triton.jit(do_not_specialize=["frames"])
def moments_kernel(
    moments_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    var_ptr: tl.tensor,
    frames: tl.tensor,
    channels: tl.tensor,
    pixels: tl.tensor,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Merge the moments of all frames into mean and biased variance, (F,) each."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, frames, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < frames)[:, None] & (c < channels)[None, :]
        place = moments_ptr + n[:, None] * 2 * channels + c[None, :]
        total += tl.sum(tl.load(place, mask=inside, other=0.0), axis=0)
    mean = total / frames
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(0, frames, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = (n < frames)[:, None] & (c < channels)[None, :]
        place = moments_ptr + n[:, None] * 2 * channels + c[None, :]
        away = tl.load(place, mask=inside, other=0.0) - mean[None, :]
        away = tl.where(inside, away, 0.0)
        squares += tl.sum(tl.load(place + channels, mask=inside, other=0.0), axis=0)
        squares += tl.sum(away * away, axis=0) * pixels
    tl.store(mean_ptr + c, mean, mask=c < channels)
    tl.store(var_ptr + c, squares / frames / pixels, mask=c < channels)


@triton.jit
def taps_kernel(
    x_ptr: tl.tensor,
    bn_weight_ptr: tl.tensor,
    bn_bias_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    var_ptr: tl.tensor,
    eps: tl.tensor,
    taps_weight_ptr: tl.tensor,
    taps_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    part_channels: tl.tensor,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Write the products with the 27 taps of the gate convolution: (parts, N, 2, 27, P).

    BatchNorm and ReLU happen on the way. A part is the sum over `part_channels` channels.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    tap = tl.arange(0, 32)
    first = tl.program_id(2) * part_channels
    place = x_ptr + n.to(tl.int64) * stride_n + p[None, :] * stride_p
    total = tl.zeros((32, BLOCK_P), tl.float32)
    for start in range(first, tl.minimum(first + part_channels, K), BLOCK_K):
        c = start + tl.arange(0, BLOCK_K)
        inside = c < K
        channel = g * K + c
        mask = inside[:, None] & (p < pixels)[None, :]
        x = tl.load(place + channel[:, None] * stride_c, mask=mask, other=0.0)
        _, y, _ = normed(
            x.to(tl.float32), bn_weight_ptr, bn_bias_ptr, mean_ptr, var_ptr, eps, channel, inside
        )
        y = tl.where(y < 0, 0.0, y).to(x.dtype)
        mask = inside[None, :] & (tap < TAPS)[:, None]
        weight = tl.load(
            taps_weight_ptr + channel[None, :] * TAPS + tap[:, None], mask=mask, other=0.0
        )
        total += product(weight.to(x.dtype), y, PRECISION)
    row = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * TAPS * pixels
    mask = (tap < TAPS)[:, None] & (p < pixels)[None, :]
    tl.store(taps_ptr + row + tap[:, None] * pixels + p[None, :], total, mask=mask)


@triton.jit
def gate_kernel(
    x_ptr: tl.tensor,
    taps_ptr: tl.tensor,
    gate_bias_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    pooled_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    K: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    num_segments: tl.tensor,
    part_pixels: tl.tensor,
    TAP_PARTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """Write the gates (N, 2, P) and the sums of gate * x and of x: (parts, N, 2, 2, K).

    A part is the sum over `part_pixels` pixels. Programs of the same frame, group and pixels
    find the same gates, each for its own channels; the first one writes them.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    t = n % num_segments
    pixels = height * width
    c = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    first = tl.program_id(2) * part_pixels
    place = x_ptr + n.to(tl.int64) * stride_n + (g * K + c)[:, None] * stride_c
    taps_part = tl.num_programs(0).to(tl.int64) * TAPS * pixels
    gated = tl.zeros((BLOCK_K, BLOCK_P), tl.float32)
    whole = tl.zeros((BLOCK_K, BLOCK_P), tl.float32)
    for start in range(first, tl.minimum(first + part_pixels, pixels), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        near = tl.zeros((32, BLOCK_P), tl.float32)
        for part in tl.static_range(TAP_PARTS):
            near += around(
                taps_ptr + part * taps_part + g * TAPS * pixels, n, t, p, num_segments, height,
                width, 2 * TAPS * pixels, pixels, 1,
            )  # fmt: skip
        gate = tanh(tl.sum(near, axis=0) + tl.load(gate_bias_ptr + g).to(tl.float32))
        mask = (c < K)[:, None] & (p < pixels)[None, :]
        x = tl.load(place + p[None, :] * stride_p, mask=mask, other=0.0).to(tl.float32)
        gated += x * gate[None, :]
        whole += x
        if tl.program_id(1) == 0:
            here = gate_ptr + tl.program_id(0).to(tl.int64) * pixels + p
            tl.store(here, gate, mask=p < pixels)
    row = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * 2 * K
    tl.store(pooled_ptr + row + c, tl.sum(gated, axis=1), mask=c < K)
    tl.store(pooled_ptr + row + K + c, tl.sum(whole, axis=1), mask=c < K)


@triton.jit
def fuse_kernel(
    x_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    pooled_ptr: tl.tensor,
    fuse_weight_ptr: tl.tensor,
    fuse_bias_ptr: tl.tensor,
    share_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    offset_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    out_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    residual_stride_n: tl.tensor,
    residual_stride_c: tl.tensor,
    residual_stride_p: tl.tensor,
    out_stride_n: tl.tensor,
    out_stride_c: tl.tensor,
    out_stride_p: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    num_segments: tl.tensor,
    part_pixels: tl.tensor,
    PARTS: tl.constexpr,
    KEEP_SHARE: tl.constexpr,
    SCALED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """Write share * moved + (1 - share) * (1 - gate) * x, shuffled, then scale, residual, ReLU.

    The first half of a group becomes its even channels, the second its odd ones. The share is
    found here from the sums of `gate_kernel`, for the channels of this program.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    t = n % num_segments
    half = K // 2
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    o = tl.program_id(1) * 2 * BLOCK_J + tl.arange(0, 2 * BLOCK_J)
    c = o % 2 * half + o // 2
    part_stride = tl.num_programs(0) * 2 * K
    share = share_of(
        pooled_ptr, fuse_weight_ptr, fuse_bias_ptr, n, t, g, c, num_segments, K, pixels,
        part_stride, PARTS,
    )  # fmt: skip
    if KEEP_SHARE:  # noqa: SIM102  (known when compiled: without it there is no share_ptr)
        if tl.program_id(2) == 0:
            tl.store(share_ptr + tl.program_id(0) * K + c, share, mask=o < K)
    source = n + 1 - 2 * g
    come_t = t + 1 - 2 * g
    channel = g * K + j
    here = x_ptr + n.to(tl.int64) * stride_n + channel[:, None] * stride_c
    come = x_ptr + source.to(tl.int64) * stride_n + channel[:, None] * stride_c
    gate_row = gate_ptr + (n.to(tl.int64) * 2 + g) * pixels
    come_row = gate_ptr + (source.to(tl.int64) * 2 + g) * pixels
    first = tl.program_id(2) * part_pixels
    for start in range(first, tl.minimum(first + part_pixels, pixels), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (j < half)[:, None] & (p < pixels)[None, :]
        step = p[None, :] * stride_p
        x = shuffled(
            tl.load(here + step, mask=mask, other=0.0),
            tl.load(here + step + half * stride_c, mask=mask, other=0.0),
        ).to(tl.float32)
        comes = in_clip(mask, come_t, num_segments)
        came = shuffled(
            tl.load(come + step, mask=comes, other=0.0),
            tl.load(come + step + half * stride_c, mask=comes, other=0.0),
        ).to(tl.float32)
        gate = tl.load(gate_row + p, mask=p < pixels, other=0.0)
        comes = in_clip(p < pixels, come_t, num_segments)
        came_gate = tl.load(come_row + p, mask=comes, other=0.0)
        out = share[:, None] * (came * came_gate[None, :])
        out += (1.0 - share)[:, None] * (x * (1.0 - gate)[None, :])
        mask = (o < K)[:, None] & (p < pixels)[None, :]
        channel_out = g * K + o
        if SCALED:
            scale = tl.load(scale_ptr + channel_out, mask=o < K, other=0.0).to(tl.float32)
            offset = tl.load(offset_ptr + channel_out, mask=o < K, other=0.0).to(tl.float32)
            out = out * scale[:, None] + offset[:, None]
        if RESIDUAL:
            place = residual_ptr + n.to(tl.int64) * residual_stride_n
            place += channel_out[:, None] * residual_stride_c + p[None, :] * residual_stride_p
            out += tl.load(place, mask=mask, other=0.0).to(tl.float32)
        if RELU:
            out = tl.where(out < 0, 0.0, out)
        place = out_ptr + n.to(tl.int64) * out_stride_n
        place += channel_out[:, None] * out_stride_c + p[None, :] * out_stride_p
        tl.store(place, out.to(out_ptr.dtype.element_ty), mask=mask)
