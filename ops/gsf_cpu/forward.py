"""Gate-Shift-Fuse forward on a CPU: loops compiled by numba; `work.py` calls them in order.

Shapes: N = B*T frames (clip by clip), 2 groups, K channels in each, F = 2K, P = H*W pixels. `x` is
(rows, P): channel f of frame n is row n * stride + f. `out` is (N*F, P) with shuffled channels,
`gate` is (N, 2, P). A kernel takes a range of units, each a block of frames and a group: they
write to different places and add up in an order that does not depend on who does which, so
threads may share them.

Sums may be reordered by the compiler; NaN and infinity come through.
"""

from typing import Any

import numpy as np

from ops.gsf_cpu.compiling import (
    BLOCK,
    LANES,
    PADDED_TAPS,
    PITCH,
    TAPS_AT_ONCE,
    TILE,
    Kernel,
    U,
    part,
    taps_product,
)


@Kernel
def channel_statistics(x: Any, stride: Any, means: Any, squares: Any, first: Any, last: Any) -> Any:
    """Write mean and sum of squares about it, (N, F) float64, of frames `first` to `last`."""
    P = x.shape[1]
    for n in range(first, last):
        for f in range(means.shape[1]):
            row = n * stride + f
            total = np.float32(0)
            for p in range(P):
                total += x[row, p]
            about = np.float32(total / np.float32(P))
            rest = np.float32(0)
            square = np.float32(0)
            for p in range(P):
                difference = x[row, p] - about
                rest += difference
                square += difference * difference
            # `about` is rounded: where the mean is large, `rest` says by how much.
            means[n, f] = about + np.float64(rest) / P
            squares[n, f] = square - np.float64(rest) * rest / P


@part
def _activate(x: Any, row: Any, p0: Any, count: Any, norm: Any, f: Any, act: Any, at: Any) -> Any:
    """Write relu(norm(x)) of `count` pixels from `p0` to `act[at:]`."""
    mean, factor, offset = norm[0, f], norm[1, f], norm[2, f]
    for q in range(count):
        value = (x[row, p0 + q] - mean) * factor + offset
        act[at + q] = np.float32(0) if value < 0 else value


@part
def activate_block(
    x: Any, stride: Any, f0: Any, block: Any, norm: Any, n0: Any, n1: Any, tile: Any, act: Any
) -> Any:
    """Write relu(norm(x)) of a block of channels and a tile of pixels to `act` (BLOCK, PITCH)."""
    p0, count = tile
    for k in range(block):
        for n in range(n0, n1):
            at = U((n - n0) * count)
            _activate(x, n * stride + f0 + k, U(p0), U(count), norm, f0 + k, act[k], at)


@part
def tile_size(P: Any) -> Any:
    """Return how many pixels of a frame are worked on at a time."""
    tiles = (P + TILE - 1) // TILE
    return (P + tiles * 16 - 1) // (tiles * 16) * 16 if tiles > 1 else P


@Kernel
def gate_maps(
    x: Any,
    stride: Any,
    norm: Any,
    weight: Any,
    maps: Any,
    size: Any,
    frames: Any,
    first: Any,
    last: Any,
) -> Any:
    """Write, for each tap in time, the sum over the channels and the 9 taps in space.

    Args:
        x: (rows, P).
        stride: rows of a frame.
        norm: (3, F): mean, factor and offset of the norm before the gates.
        weight: (F, 32): taps of each channel.
        maps: (N, 2, 3, P), written.
        size: H, W.
        frames: in a unit; 1 if a frame has more than TILE pixels.
        first: unit.
        last: unit, not included.
    """
    N, K, P = maps.shape[0], norm.shape[1] // 2, maps.shape[3]
    act = np.zeros((BLOCK, PITCH), np.float32)
    pitch = frames * P + LANES
    taps = np.zeros((27, pitch), np.float32)
    step = tile_size(P)
    for unit in range(first, last):
        n0, i = unit // 2 * frames, unit % 2
        n1 = min(n0 + frames, N)
        for p0 in range(0, P, step):
            count = min(step, P - p0)
            for k0 in range(0, K, BLOCK):
                block = min(BLOCK, K - k0)
                f0 = i * K + k0
                activate_block(x, stride, f0, block, norm, n0, n1, (p0, count), act)
                for q in range(0, (n1 - n0) * count, LANES):
                    for tap in range(0, 27, TAPS_AT_ONCE):
                        taps_product(
                            (taps, tap * pitch + p0 + q, pitch),
                            (weight, f0 * PADDED_TAPS + tap, PADDED_TAPS),
                            (act, q, PITCH),
                            block,
                            k0 > 0,
                        )
        for n in range(n0, n1):
            _sum_in_space(taps, (n - n0) * P, maps[n, i], size)


@part
def _sum_in_space(taps: Any, at: Any, out: Any, size: Any) -> Any:
    """Add up the 9 taps in space of each tap in time, each moved to where it belongs."""
    H, W = size
    out[:] = 0
    for tap in range(27):
        dt, dh, dw = tap // 9, tap // 3 % 3 - 1, tap % 3 - 1
        begin, width = max(0, -dw), U(W - abs(dw))
        for h in range(max(0, -dh), min(H, H - dh)):
            to = U(h * W + begin)
            source = U(at + (h + dh) * W + begin + dw)
            for w in range(width):
                out[dt, to + w] += taps[tap, source + w]


@Kernel
def gate_sums(maps: Any, bias: Any, segments: Any, gate: Any) -> Any:
    """Write what the gates are the tanh of, (N, 2, P), from the three maps of each frame."""
    N, _, _, P = maps.shape
    for n in range(N):
        t = n % segments
        for i in range(2):
            for p in range(P):
                gate[n, i, p] = maps[n, i, 1, p] + bias[i]
            if t > 0:
                for p in range(P):
                    gate[n, i, p] += maps[n - 1, i, 0, p]
            if t < segments - 1:
                for p in range(P):
                    gate[n, i, p] += maps[n + 1, i, 2, p]


@Kernel
def pooled_means(
    x: Any, stride: Any, gate: Any, moved: Any, mean: Any, first: Any, last: Any
) -> Any:
    """Write the spatial means of gate * x and of x, (N, F), of units (frame, group)."""
    P, K = x.shape[1], mean.shape[1] // 2
    part = np.float32(1) / np.float32(P)
    for unit in range(first, last):
        n, i = unit // 2, unit % 2
        for f in range(i * K, i * K + K):
            row = n * stride + f
            gated = np.float32(0)
            total = np.float32(0)
            for p in range(P):
                gated += gate[n, i, p] * x[row, p]
                total += x[row, p]
            moved[n, f] = gated * part
            mean[n, f] = total * part


@part
def share_maps(moved: Any, mean: Any, clip: Any, i: Any, segments: Any, maps: Any) -> Any:
    """Fill `maps` (2, T + 2, K + 2): means of what arrives and of what stays, 0 around."""
    K = moved.shape[1] // 2
    maps[:] = 0
    for t in range(segments):
        n = clip * segments + t
        to = t if i == 0 else t + 2  # of frame t moves to t - 1 or t + 1, and the edge is 1 wide
        for k in range(K):
            if 0 < to <= segments:
                maps[0, to, k + 1] = moved[n, i * K + k]
            maps[1, t + 1, k + 1] = mean[n, i * K + k] - moved[n, i * K + k]


@Kernel
def share_logits(moved: Any, mean: Any, weight: Any, bias: Any, segments: Any, logits: Any) -> Any:
    """Write what the shares are the sigmoid of, (N, F), from `weight` (2, 2, 3, 3)."""
    N, K = moved.shape[0], moved.shape[1] // 2
    maps = np.zeros((2, segments + 2, K + 2), np.float32)
    for clip in range(N // segments):
        for i in range(2):
            share_maps(moved, mean, clip, i, segments, maps)
            for t in range(segments):
                row = logits[clip * segments + t]
                for k in range(K):
                    row[i * K + k] = bias[i]
                _add_convolution(row, U(i * K), U(K), maps, t, weight[i])


@part
def _add_convolution(row: Any, to: Any, K: Any, maps: Any, t: Any, weight: Any) -> Any:
    """Add the 3x3 convolution of two maps at segment t to `row[to:]`."""
    for which in range(2):
        for dk in range(3):
            for dt in range(3):
                factor = weight[which, dk, dt]
                source, at = maps[which, t + dt], U(dk)
                for k in range(K):
                    row[to + k] += factor * source[at + k]


@part
def source_frame(n: Any, i: Any, segments: Any) -> Any:
    """Return the frame that moves to frame n, or -1."""
    t = n % segments
    if i == 0:
        return n + 1 if t < segments - 1 else -1
    return n - 1 if t > 0 else -1


@Kernel
def mix(
    x: Any,
    stride: Any,
    gate: Any,
    share: Any,
    affine: Any,
    residual: Any,
    rectify: Any,
    segments: Any,
    out: Any,
    first: Any,
    last: Any,
) -> Any:
    """Write the output, of units (frame, group): shifted and fused, then the norm that follows.

    Args:
        x: (rows, P).
        stride: rows of a frame.
        gate: (N, 2, P).
        share: (N, F) in the order of x.
        affine: (2, F): factor and offset in the order of the output.
        residual: (N*F, P) to be added, or (0, P).
        rectify: whether a ReLU follows.
        segments: T.
        out: (N*F, P), written.
        first: unit.
        last: unit, not included.
    """
    P, F = x.shape[1], share.shape[1]
    K = F // 2
    nothing = np.zeros((1, P), np.float32)
    least = np.float32(0) if rectify else np.float32(-np.inf)
    for unit in range(first, last):
        n, i = unit // 2, unit % 2
        source = source_frame(n, i, segments)
        moved = x if source >= 0 else nothing
        moved_gate = gate[source, i] if source >= 0 else nothing[0]
        for j in range(K):
            f = i * K + (j % 2) * (K // 2) + j // 2
            to, here = n * F + i * K + j, n * stride + f
            there = source * stride + f if source >= 0 else 0
            factor, offset = affine[0, i * K + j], affine[1, i * K + j]
            arrives, stays = factor * share[n, f], factor * (np.float32(1) - share[n, f])
            if residual.shape[0]:
                for p in range(P):
                    stayed = stays * (np.float32(1) - gate[n, i, p]) * x[here, p]
                    value = stayed + arrives * moved_gate[p] * moved[there, p] + offset
                    value += residual[to, p]
                    out[to, p] = least if value < least else value
            else:
                for p in range(P):
                    stayed = stays * (np.float32(1) - gate[n, i, p]) * x[here, p]
                    value = stayed + arrives * moved_gate[p] * moved[there, p] + offset
                    out[to, p] = least if value < least else value
