"""What the Triton kernels of Gate-Shift-Fuse share: BatchNorm, taps, gates and the share.

Names: n frame, t its segment, g group, K channels of a group, P pixels of a frame, `_ptr` memory.
A comparison such as `where(y < 0, 0, y)`, unlike a maximum, lets NaN pass.
"""

import triton
import triton.language as tl

TAPS = tl.constexpr(27)


@triton.jit
def normed(
    x: tl.tensor,
    weight_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    mean_ptr: tl.tensor,
    var_ptr: tl.tensor,
    eps: tl.tensor,
    channel: tl.tensor,
    inside: tl.tensor,
) -> tl.tensor:
    """Return (normalised x without weight and bias, its BatchNorm, weight / deviation)."""
    mean = tl.load(mean_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    var = tl.load(var_ptr + channel, mask=inside, other=1.0).to(tl.float32)
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(var + eps)
    hat = (x - mean[:, None]) * inverse[:, None]
    return hat, hat * weight[:, None] + bias[:, None], weight * inverse


@triton.jit
def around(
    map_ptr: tl.tensor,
    n: tl.tensor,
    t: tl.tensor,
    pixel: tl.tensor,
    num_segments: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    frame_stride: tl.tensor,
    tap_stride: tl.tensor,
    SIGN: tl.constexpr,
) -> tl.tensor:
    """Return (32, pixels): for each of 27 taps the map at its place around `pixel`, 0 outside.

    SIGN 1 looks where the convolution looks, -1 where it is looked from (its transpose).
    """
    tap = tl.arange(0, 32)[:, None]
    step = SIGN * (tap // 9 - 1)
    row = (pixel // width)[None, :] + SIGN * (tap % 9 // 3 - 1)
    column = (pixel % width)[None, :] + SIGN * (tap % 3 - 1)
    inside = (t + step >= 0) & (t + step < num_segments) & (tap < TAPS)
    inside = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside = inside & (pixel < height * width)[None, :]
    place = (n + step).to(tl.int64) * frame_stride + tap * tap_stride + row * width + column
    return tl.load(map_ptr + place, mask=inside, other=0.0)


@triton.jit
def in_clip(mask: tl.tensor, t: tl.tensor, num_segments: tl.tensor) -> tl.tensor:
    """Return `mask` if t is a segment of the clip, else False everywhere."""
    # A scalar condition becomes a tensor of numbers first: Triton's interpreter spreads booleans
    # as int32, which it then refuses as a mask.
    segment = t + tl.zeros(mask.shape, tl.int32)
    return mask & (segment >= 0) & (segment < num_segments)


@triton.jit
def product(a: tl.tensor, b: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """Return the matrix product in float32; PRECISION as in `tl.dot`, or "interpreted"."""
    if PRECISION == "interpreted":
        # Triton's interpreter multiplies the bits of bfloat16 numbers as if they were integers.
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:  # noqa: RET505  (Triton compiles one branch only where both are named)
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def tanh(z: tl.tensor) -> tl.tensor:
    """Return tanh without overflow; near 0 by its series, where the quotient loses digits."""
    e = tl.exp(-2.0 * tl.abs(z))
    far = (1.0 - e) / (1.0 + e)
    square = z * z
    near = z * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)))
    return tl.where(tl.abs(z) < 0.1, near, tl.where(z < 0, -far, far))


@triton.jit
def sigmoid(z: tl.tensor) -> tl.tensor:
    """Return 1 / (1 + exp(-z)) without overflow."""
    e = tl.exp(-tl.abs(z))
    return tl.where(z < 0, e, 1.0) / (1.0 + e)


@triton.jit
def shuffled(first: tl.tensor, second: tl.tensor) -> tl.tensor:
    """Interleave the rows of two (J, P) tiles to (2J, P): the channel order of the output."""
    pairs = tl.permute(tl.join(first, second), (0, 2, 1))
    return tl.reshape(pairs, (2 * first.shape[0], first.shape[1]))


@triton.jit
def parts_sum(
    parts_ptr: tl.tensor,
    place: tl.tensor,
    inside: tl.tensor,
    part_stride: tl.tensor,
    PARTS: tl.constexpr,
) -> tl.tensor:
    """Add the parts of a sum, in order."""
    total = tl.load(parts_ptr + place, mask=inside, other=0.0)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts_ptr + part * part_stride + place, mask=inside, other=0.0)
    return total


@triton.jit
def maps_at(
    pooled_ptr: tl.tensor,
    n: tl.tensor,
    t: tl.tensor,
    g: tl.tensor,
    c: tl.tensor,
    inside: tl.tensor,
    num_segments: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    part_stride: tl.tensor,
    PARTS: tl.constexpr,
) -> tl.tensor:
    """Return the spatial means of what moved to frame n and of what stayed there, channels c.

    `pooled` (PARTS, N, 2, 2, K) holds sums of gate * x and of x.
    """
    here = (n * 2 + g) * 2 * K + c
    come = ((n + 1 - 2 * g) * 2 + g) * 2 * K + c
    comes = in_clip(inside, t + 1 - 2 * g, num_segments)
    moved = parts_sum(pooled_ptr, come, comes, part_stride, PARTS)
    gated = parts_sum(pooled_ptr, here, inside, part_stride, PARTS)
    whole = parts_sum(pooled_ptr, here + K, inside, part_stride, PARTS)
    return moved / pixels, (whole - gated) / pixels


@triton.jit
def share_of(
    pooled_ptr: tl.tensor,
    fuse_weight_ptr: tl.tensor,
    fuse_bias_ptr: tl.tensor,
    n: tl.tensor,
    t: tl.tensor,
    g: tl.tensor,
    c: tl.tensor,
    num_segments: tl.tensor,
    K: tl.tensor,
    pixels: tl.tensor,
    part_stride: tl.tensor,
    PARTS: tl.constexpr,
) -> tl.tensor:
    """Return how much of the output is the shifted part, in (0, 1), for channels c of frame n."""
    tap = tl.arange(0, 16)[:, None]
    channel = c[None, :] + tap // 3 - 1
    step = tap % 3 - 1
    inside = in_clip((tap < 9) & (channel >= 0) & (channel < K), t + step, num_segments)
    moved, stayed = maps_at(
        pooled_ptr, n + step, t + step, g, channel, inside, num_segments, K, pixels, part_stride,
        PARTS,
    )  # fmt: skip
    weight = fuse_weight_ptr + g * 18 + tap
    of_moved = tl.load(weight, mask=tap < 9, other=0.0).to(tl.float32)
    of_stayed = tl.load(weight + 9, mask=tap < 9, other=0.0).to(tl.float32)
    total = tl.sum(of_moved * moved + of_stayed * stayed, axis=0)
    return sigmoid(total + tl.load(fuse_bias_ptr + g).to(tl.float32))
