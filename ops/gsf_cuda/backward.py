"""Triton kernels of Gate-Shift-Fuse, backward to the gates; `to_input.py` goes on from there.

Nothing of the forward pass is kept but the input, the gates, the shares and the statistics: the
normed input and the products with the taps are found again where they are needed. Gradients of
the output are read in the shuffled order of its channels (o), the input in its own (c).
Names are those of `parts.py`.
"""

import triton
import triton.language as tl

from ops.gsf_cuda.parts import in_clip, maps_at, parts_sum, shuffled


@triton.jit
def mix_backward_kernel(
    x_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    share_ptr: tl.tensor,
    mixed_ptr: tl.tensor,
    grad_gate_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    grad_stride_n: tl.tensor,
    grad_stride_c: tl.tensor,
    grad_stride_p: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    num_segments: tl.tensor,
    part_pixels: tl.tensor,
    BLOCK_J: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """Sum what the fusion sends back, over pixels for the share, over channels for the gate.

    mixed (parts, N, 2, 2, K): sums over `part_pixels` pixels of the gradient times what stayed,
    and of the gradient of the frame it went to times what moved.
    grad_gate (blocks of channels, N, 2, P): sums over the channels of this program.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    t = n % num_segments
    half = K // 2
    j = tl.program_id(1) * BLOCK_J + tl.arange(0, BLOCK_J)
    o = tl.program_id(1) * 2 * BLOCK_J + tl.arange(0, 2 * BLOCK_J)
    c = o % 2 * half + o // 2
    target = n - 1 + 2 * g
    target_t = t - 1 + 2 * g
    share = tl.load(share_ptr + tl.program_id(0) * K + c, mask=o < K, other=0.0)
    far_share = tl.load(
        share_ptr + (target * 2 + g) * K + c, mask=in_clip(o < K, target_t, num_segments), other=0.0
    )
    here = x_ptr + n.to(tl.int64) * stride_n + (g * K + j)[:, None] * stride_c
    channel = (g * K + o)[:, None] * grad_stride_c
    near_row = grad_ptr + n.to(tl.int64) * grad_stride_n + channel
    far_row = grad_ptr + target.to(tl.int64) * grad_stride_n + channel
    stayed = tl.zeros((2 * BLOCK_J, BLOCK_P), tl.float32)
    moved = tl.zeros((2 * BLOCK_J, BLOCK_P), tl.float32)
    first = tl.program_id(2) * part_pixels
    for start in range(first, tl.minimum(first + part_pixels, pixels), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        mask = (j < half)[:, None] & (p < pixels)[None, :]
        place = here + p[None, :] * stride_p
        x = shuffled(
            tl.load(place, mask=mask, other=0.0),
            tl.load(place + half * stride_c, mask=mask, other=0.0),
        ).to(tl.float32)
        mask = (o < K)[:, None] & (p < pixels)[None, :]
        step = p[None, :] * grad_stride_p
        near = x * tl.load(near_row + step, mask=mask, other=0.0).to(tl.float32)
        mask = in_clip(mask, target_t, num_segments)
        far = x * tl.load(far_row + step, mask=mask, other=0.0).to(tl.float32)
        row = tl.program_id(0).to(tl.int64) * pixels + p
        gate = tl.load(gate_ptr + row, mask=p < pixels, other=0.0)
        stayed += near * (1.0 - gate)[None, :]
        moved += far * gate[None, :]
        grad_gate = tl.sum(far_share[:, None] * far - (1.0 - share)[:, None] * near, axis=0)
        block = tl.program_id(1) * tl.num_programs(0).to(tl.int64) * pixels
        tl.store(grad_gate_ptr + block + row, grad_gate, mask=p < pixels)
    row = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)) * 2 * K
    tl.store(mixed_ptr + row + c, tl.sum(stayed, axis=1), mask=o < K)
    tl.store(mixed_ptr + row + K + c, tl.sum(moved, axis=1), mask=o < K)


@triton.jit
def before_sigmoid(
    mixed_ptr: tl.tensor,
    share_ptr: tl.tensor,
    n: tl.tensor,
    t: tl.tensor,
    g: tl.tensor,
    c: tl.tensor,
    inside: tl.tensor,
    num_segments: tl.tensor,
    K: tl.tensor,
    part_stride: tl.tensor,
    PARTS: tl.constexpr,
) -> tl.tensor:
    """Return the gradient of what the sigmoid of the share got, channels c of frame n."""
    comes = in_clip(inside, t + 1 - 2 * g, num_segments)
    here = (n * 2 + g) * 2 * K + c
    come = ((n + 1 - 2 * g) * 2 + g) * 2 * K + K + c
    grad = parts_sum(mixed_ptr, come, comes, part_stride, PARTS)
    grad -= parts_sum(mixed_ptr, here, inside, part_stride, PARTS)
    share = tl.load(share_ptr + (n * 2 + g) * K + c, mask=inside, other=0.0)
    return grad * (share * (1.0 - share))


@triton.jit
def map_gradient(
    mixed_ptr: tl.tensor,
    share_ptr: tl.tensor,
    fuse_weight_ptr: tl.tensor,
    n: tl.tensor,
    t: tl.tensor,
    g: tl.tensor,
    c: tl.tensor,
    exists: tl.tensor,
    num_segments: tl.tensor,
    K: tl.tensor,
    part_stride: tl.tensor,
    PARTS: tl.constexpr,
    MAP: tl.constexpr,
) -> tl.tensor:
    """Return the gradient of map MAP (0 moved, 1 stayed) at frame n: the 3x3 transposed."""
    tap = tl.arange(0, 16)[:, None]
    channel = c[None, :] - tap // 3 + 1
    step = 1 - tap % 3
    inside = (tap < 9) & exists[None, :] & (channel >= 0) & (channel < K)
    grad = before_sigmoid(
        mixed_ptr, share_ptr, n + step, t + step, g, channel,
        in_clip(inside, t + step, num_segments), num_segments, K, part_stride, PARTS,
    )  # fmt: skip
    place = fuse_weight_ptr + g * 18 + MAP * 9 + tap
    return tl.sum(tl.load(place, mask=tap < 9, other=0.0).to(tl.float32) * grad, axis=0)


@triton.jit
def share_backward_kernel(
    mixed_ptr: tl.tensor,
    share_ptr: tl.tensor,
    pooled_ptr: tl.tensor,
    fuse_weight_ptr: tl.tensor,
    means_ptr: tl.tensor,
    sums_ptr: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    num_segments: tl.tensor,
    PARTS: tl.constexpr,
    POOLED_PARTS: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Send the gradient of the share back to the spatial means, and sum it for its convolution.

    means (N, 2, 2, K): gradients of the sums of gate * x and of x.
    sums (blocks, N, 2, 19): of 2 x 9 weights, moved first, and of the bias.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    t = n % num_segments
    c = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = c < K
    part_stride = tl.num_programs(0) * 2 * K
    target_t = t - 1 + 2 * g
    moved = map_gradient(
        mixed_ptr, share_ptr, fuse_weight_ptr, n - 1 + 2 * g, target_t, g, c,
        in_clip(inside, target_t, num_segments), num_segments, K, part_stride, PARTS, 0,
    )  # fmt: skip
    stayed = map_gradient(
        mixed_ptr, share_ptr, fuse_weight_ptr, n, t, g, c, inside, num_segments, K, part_stride,
        PARTS, 1,
    )  # fmt: skip
    row = means_ptr + tl.program_id(0) * 2 * K + c
    tl.store(row, (moved - stayed) / pixels, mask=inside)
    tl.store(row + K, stayed / pixels, mask=inside)

    grad = before_sigmoid(
        mixed_ptr, share_ptr, n, t, g, c, inside, num_segments, K, part_stride, PARTS
    )
    sums = sums_ptr + (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 19
    tl.store(sums + 18, tl.sum(grad, axis=0))
    tap = tl.arange(0, 16)
    channel = c[None, :] + tap[:, None] // 3 - 1
    step = tap[:, None] % 3 - 1
    there = (tap < 9)[:, None] & inside[None, :] & (channel >= 0) & (channel < K)
    moved, stayed = maps_at(
        pooled_ptr, n + step, t + step, g, channel, in_clip(there, t + step, num_segments),
        num_segments, K, pixels, part_stride, POOLED_PARTS,
    )  # fmt: skip
    tl.store(sums + tap, tl.sum(grad[None, :] * moved, axis=1), mask=tap < 9)
    tl.store(sums + 9 + tap, tl.sum(grad[None, :] * stayed, axis=1), mask=tap < 9)


@triton.jit
def gate_backward_kernel(
    x_ptr: tl.tensor,
    gate_ptr: tl.tensor,
    grad_gate_ptr: tl.tensor,
    means_ptr: tl.tensor,
    grad_conv_ptr: tl.tensor,
    stride_n: tl.tensor,
    stride_c: tl.tensor,
    stride_p: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    blocks: tl.tensor,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """Write the gradient of the gate convolution's output, (N, 2, P).

    The parts of `mix_backward_kernel` are added and the way through the spatial means is added.
    """
    n = tl.program_id(0) // 2
    g = tl.program_id(0) % 2
    p = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = p < pixels
    row = tl.program_id(0).to(tl.int64) * pixels + p
    place = x_ptr + n.to(tl.int64) * stride_n + p[None, :] * stride_p
    total = tl.zeros((BLOCK_K, BLOCK_P), tl.float32)
    for start in range(0, K, BLOCK_K):
        c = start + tl.arange(0, BLOCK_K)
        mask = (c < K)[:, None] & inside[None, :]
        x = tl.load(place + (g * K + c)[:, None] * stride_c, mask=mask, other=0.0)
        grad = tl.load(means_ptr + tl.program_id(0) * 2 * K + c, mask=c < K, other=0.0)
        total += grad[:, None] * x.to(tl.float32)
    grad_gate = tl.sum(total, axis=0)
    for block in range(0, blocks):
        part = block * tl.num_programs(0).to(tl.int64) * pixels
        grad_gate += tl.load(grad_gate_ptr + part + row, mask=inside, other=0.0)
    gate = tl.load(gate_ptr + row, mask=inside, other=0.0)
    tl.store(grad_conv_ptr + row, grad_gate * (1.0 - gate * gate), mask=inside)
