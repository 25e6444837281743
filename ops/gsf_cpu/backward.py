"""The gradients of Gate-Shift-Fuse on a CPU: loops compiled by numba, as in `forward.py`.

`grad` is the gradient of the output, (N*F, P), channels shuffled; `grad_x` (N*F, P) is in the order
of x. What moved from frame n arrived at `target_frame(n)`: both parts of its gradient are there.
"""

from typing import Any

import numpy as np

from ops.gsf_cpu.compiling import (
    BLOCK,
    CHANNELS_AT_ONCE,
    LANES,
    PADDED_TAPS,
    PITCH,
    ROWS_AT_ONCE,
    Kernel,
    U,
    channels_product,
    part,
    weights_product,
)
from ops.gsf_cpu.forward import activate_block, share_maps, source_frame, tile_size


@part
def target_frame(n: Any, i: Any, segments: Any) -> Any:
    """Return the frame that frame n moves to, or -1."""
    return source_frame(n, 1 - i, segments)


@part
def shuffled(k: Any, K: Any) -> Any:
    """Return where channel k of a group is in the output."""
    half = K // 2
    return 2 * k if k < half else 2 * (k - half) + 1


@Kernel
def mix_backward(
    x: Any,
    stride: Any,
    gate: Any,
    share: Any,
    grad: Any,
    segments: Any,
    grad_gate: Any,
    grad_moved: Any,
    grad_stayed: Any,
    first: Any,
    last: Any,
) -> Any:
    """Write the gradients of gate and share by the output, of units (frame, group).

    Args:
        x: (rows, P).
        stride: rows of a frame.
        gate: (N, 2, P).
        share: (N, F).
        grad: (N*F, P).
        segments: T.
        grad_gate: (N, 2, P), written.
        grad_moved: (N, F), written: of the share of the frame that frame n moves to.
        grad_stayed: (N, F), written: of the share of frame n, to be subtracted.
        first: unit.
        last: unit, not included.
    """
    P, F = x.shape[1], share.shape[1]
    K = F // 2
    nothing = np.zeros((1, P), np.float32)
    for unit in range(first, last):
        n, i = unit // 2, unit % 2
        target = target_frame(n, i, segments)
        arrived = grad if target >= 0 else nothing
        grad_gate[n, i] = 0
        for k in range(K):
            f = i * K + k
            row = n * stride + f
            here = n * F + i * K + shuffled(k, K)
            there = target * F + i * K + shuffled(k, K) if target >= 0 else 0
            arrives = share[target, f] if target >= 0 else np.float32(0)
            stays = np.float32(1) - share[n, f]
            moved = np.float32(0)
            stayed = np.float32(0)
            for p in range(P):
                a = x[row, p] * arrived[there, p]
                s = x[row, p] * grad[here, p]
                moved += gate[n, i, p] * a
                stayed += (np.float32(1) - gate[n, i, p]) * s
                grad_gate[n, i, p] += arrives * a - stays * s
            grad_moved[n, f] = moved
            grad_stayed[n, f] = stayed


@Kernel
def share_backward(
    moved: Any,
    mean: Any,
    share: Any,
    grad_moved: Any,
    grad_stayed: Any,
    weight: Any,
    segments: Any,
    pool: Any,
    grad_weight: Any,
    grad_bias: Any,
) -> Any:
    """Write the gradients of the fusing convolutions and of what they took.

    Args:
        moved: (N, F): means of gate * x.
        mean: (N, F): means of x.
        share: (N, F).
        grad_moved: (N, F), see `mix_backward`.
        grad_stayed: (N, F).
        weight: (2, 2, 3, 3).
        segments: T.
        pool: (2, N, F), written: gradients of `moved` and `mean`.
        grad_weight: (2, 2, 3, 3), added to.
        grad_bias: (2,), added to.
    """
    N, K = moved.shape[0], moved.shape[1] // 2
    maps = np.zeros((2, segments + 2, K + 2), np.float32)
    logits = np.zeros((segments + 2, K + 2), np.float32)
    back = np.zeros((2, segments, K), np.float32)
    for clip in range(N // segments):
        for i in range(2):
            share_maps(moved, mean, clip, i, segments, maps)
            for t in range(segments):
                n = clip * segments + t
                source = source_frame(n, i, segments)
                row = logits[t + 1]
                for k in range(K):
                    f = i * K + k
                    change = grad_moved[source, f] if source >= 0 else np.float32(0)
                    change -= grad_stayed[n, f]
                    row[k + 1] = change * share[n, f] * (np.float32(1) - share[n, f])
                    grad_bias[i] += row[k + 1]
            _fuse_backward(maps, logits, weight[i], back, grad_weight[i])
            _pool_backward(back, clip, i, pool)


@part
def _pool_backward(back: Any, clip: Any, i: Any, pool: Any) -> Any:
    """Bring gradients of what arrives and what stays to the frames they came from."""
    segments, K = back.shape[1], back.shape[2]
    for t in range(segments):
        n = clip * segments + t
        target = target_frame(n, i, segments) - clip * segments
        for k in range(K):
            arrived = back[0, target, k] if target >= 0 else np.float32(0)
            pool[0, n, i * K + k] = arrived - back[1, t, k]
            pool[1, n, i * K + k] = back[1, t, k]


@part
def _fuse_backward(maps: Any, logits: Any, weight: Any, back: Any, grad_weight: Any) -> Any:
    """Write the gradient of the maps to `back` (2, T, K), add that of the weights."""
    segments, K = back.shape[1], back.shape[2]
    back[:] = 0
    for which in range(2):
        for dk in range(3):
            for dt in range(3):
                total = np.float64(0)
                for t in range(segments):
                    here, source, to = logits[t + 1], maps[which, t + dt], back[which, t]
                    changed = logits[t + 2 - dt]
                    at, back_at = U(dk), U(2 - dk)
                    one = U(1)
                    product = np.float32(0)
                    for k in range(U(K)):
                        product += here[k + one] * source[k + at]
                        to[k] += weight[which, dk, dt] * changed[k + back_at]
                    total += product
                grad_weight[which, dk, dt] += total


@Kernel
def gate_backward(
    x: Any,
    stride: Any,
    gate: Any,
    pool: Any,
    grad_gate: Any,
    inner: Any,
    size: Any,
    first: Any,
    last: Any,
) -> Any:
    """Turn gradients of gates into those of what they are the tanh of, of units (frame, group).

    Args:
        x: (rows, P).
        stride: rows of a frame.
        gate: (N, 2, P).
        pool: (2, N, F): gradients of the means, of which that of gate * x is a part here.
        grad_gate: (N, 2, P): the part by the output; scratch afterwards.
        inner: (N, 2, H+2, W+2): written inside, its edge is 0.
        size: H, W.
        first: unit.
        last: unit, not included.
    """
    P, K = x.shape[1], pool.shape[2] // 2
    H, W = size
    part_ = np.float32(1) / np.float32(P)
    for unit in range(first, last):
        n, i = unit // 2, unit % 2
        total = grad_gate[n, i]
        for k in range(0, K, 2):  # K is even
            f = i * K + k
            row = n * stride + f
            one, two = pool[0, n, f] * part_, pool[0, n, f + 1] * part_
            for p in range(P):
                total[p] += one * x[row, p] + two * x[row + 1, p]
        for p in range(P):
            total[p] *= np.float32(1) - gate[n, i, p] * gate[n, i, p]
        for h in range(H):
            at = U(h * W)
            line = inner[n, i, h + 1]
            one_ = U(1)
            for w in range(U(W)):
                line[w + one_] = total[at + w]


@part
def _columns(inner: Any, frame: Any, segments: Any, tile: Any, size: Any, out: Any) -> Any:
    """Write, for each tap, the gradient of the gate that it reached: (27, count) and transposed."""
    columns, transposed, at = out
    n, i = frame
    for tap in range(27):
        dt, dh, dw = tap // 9, tap // 3 % 3, tap % 3
        if 0 <= n % segments + 1 - dt < segments:
            _column(inner[n + 1 - dt, i], 2 - dh, 2 - dw, tile, size, columns[tap], at)
        else:
            columns[tap, at : at + tile[1]] = 0
    for q in range(at, at + tile[1]):
        for tap in range(27):
            transposed[q, tap] = columns[tap, q]


@part
def _column(inner: Any, down: Any, right: Any, tile: Any, size: Any, out: Any, at: Any) -> Any:
    """Copy the pixels of a tile, moved by less than the edge of `inner` (H+2, W+2)."""
    p0, count = tile
    W = size[1]
    q = 0
    while q < count:
        h, w = (p0 + q) // W, (p0 + q) % W
        length = min(W - w, count - q)
        line, to, source = inner[h + down], U(at + q), U(w + right)
        for m in range(U(length)):
            out[to + m] = line[source + m]
        q += length


@part
def _row_backward(x: Any, norm: Any, gate: Any, pool: Any, ends: Any, tile: Any, at: Any) -> Any:
    """Write the gradient of x for a tile of a row, all but what the batch statistics add.

    Args:
        x: (rows, P).
        norm: (3, F).
        gate: (N, 2, P).
        pool: factors of the gate and of 1: what the means add.
        ends: the gradient of what stayed, that of what arrived elsewhere, and of the activation,
            the activation, what is written: a matrix, its row and a factor each.
        tile: the first pixel and how many.
        at: frame, group, channel, row of x, place in the rows of scratch.

    Returns:
        Sums of the gradient of the norm's output, and of it times x - mean.
    """
    (grad, here, stays), (arrived, there, arrives), (changed, act, k), (out, to) = ends
    p0, count = tile
    n, i, f, row, q0 = at
    mean, factor = norm[0, f], norm[1, f]
    moved, everything = pool
    total = np.float32(0)
    spread = np.float32(0)
    one = np.float32(1)
    for q in range(count):
        p = p0 + q
        change = np.float32(0) if act[k, q0 + q] <= 0 else changed[k, q0 + q]
        total += change
        spread += change * (x[row, p] - mean)
        open_ = gate[n, i, p]
        value = stays * (one - open_) * grad[here, p] + arrives * open_ * arrived[there, p]
        out[to, p] = value + moved * open_ + everything + factor * change
    return total, spread


@Kernel
def input_backward(
    x: Any,
    stride: Any,
    norm: Any,
    gate: Any,
    share: Any,
    grad: Any,
    pool: Any,
    inner: Any,
    weight: Any,
    segments: Any,
    size: Any,
    frames: Any,
    grad_x: Any,
    sums: Any,
    grad_weight: Any,
    first: Any,
    last: Any,
) -> Any:
    """Write the gradient of x, all but what the batch statistics add to it.

    Args:
        x: (rows, P).
        stride: rows of a frame.
        norm: (3, F): mean, factor and offset of the norm before the gates.
        gate: (N, 2, P).
        share: (N, F).
        grad: (N*F, P).
        pool: (2, N, F): gradients of the means of gate * x and of x.
        inner: (N, 2, H+2, W+2): gradient of what the gates are the tanh of.
        weight: (2, 27, K or more): taps, the channels padded to a multiple of BLOCK.
        segments: T.
        size: H, W.
        frames: in a unit; 1 if a frame has more than TILE pixels.
        grad_x: (N*F, P), written.
        sums: (N, F, 2), written: sum of the gradient of the norm's output, and of it times
            x - mean.
        grad_weight: (units, K or more, 32), zeros: gradients of the taps, written.
        first: unit (block of frames, group).
        last: unit, not included.
    """
    N, F, P = gate.shape[0], share.shape[1], x.shape[1]
    K, padded = F // 2, weight.shape[2]
    act = np.zeros((BLOCK, PITCH), np.float32)
    changed = np.zeros((BLOCK, PITCH), np.float32)
    columns = np.zeros((27, PITCH), np.float32)
    transposed = np.zeros((PITCH, PADDED_TAPS), np.float32)
    nothing = np.zeros((1, P), np.float32)
    share_of = np.float32(1) / np.float32(P)
    step = tile_size(P)
    for unit in range(first, last):
        n0, i = unit // 2 * frames, unit % 2
        n1 = min(n0 + frames, N)
        sums[n0:n1, i * K : i * K + K] = 0
        for p0 in range(0, P, step):
            tile = (p0, min(step, P - p0))
            width = (n1 - n0) * tile[1]
            for n in range(n0, n1):
                out = (columns, transposed, (n - n0) * tile[1])
                _columns(inner, (n, i), segments, tile, size, out)
            for k0 in range(0, K, BLOCK):
                block = min(BLOCK, K - k0)
                activate_block(x, stride, i * K + k0, block, norm, n0, n1, tile, act)
                taps = (weight, i * 27 * padded + k0, padded)
                _multiply_back(taps, columns, changed, block, width)
                place = (grad_weight, (unit * padded + k0) * PADDED_TAPS, PADDED_TAPS)
                _multiply_weights(place, act, transposed, block, width)
                for k in range(k0, k0 + block):
                    f, to = i * K + k, i * K + shuffled(k, K)
                    for n in range(n0, n1):
                        target = target_frame(n, i, segments)
                        arrived = grad if target >= 0 else nothing
                        there = target * F + to if target >= 0 else 0
                        arrives = share[target, f] if target >= 0 else np.float32(0)
                        ends = (
                            (grad, n * F + to, np.float32(1) - share[n, f]),
                            (arrived, there, arrives),
                            (changed, act, k - k0),
                            (grad_x, n * F + f),
                        )
                        means = (pool[0, n, f] * share_of, pool[1, n, f] * share_of)
                        at = (n, i, f, n * stride + f, U((n - n0) * tile[1]))
                        pixels = (U(p0), U(tile[1]))
                        total, spread = _row_backward(x, norm, gate, means, ends, pixels, at)
                        sums[n, f, 0] += total
                        sums[n, f, 1] += spread


@part
def _multiply_back(taps: Any, columns: Any, changed: Any, block: Any, width: Any) -> Any:
    """Write the gradient of a block of activations: taps (27, block) times columns (27, width)."""
    weight, at, padded = taps
    for q in range(0, width, LANES):
        for k in range(0, block, CHANNELS_AT_ONCE):
            to, source = (changed, k * PITCH + q, PITCH), (weight, at + k, padded)
            channels_product(to, source, (columns, q, PITCH), 27, 0)


@part
def _multiply_weights(place: Any, act: Any, transposed: Any, block: Any, width: Any) -> Any:
    """Add the gradient of a block of taps: activations times columns, over the pixels."""
    grad_weight, at, pitch = place
    for k in range(0, block, ROWS_AT_ONCE):
        to, source = (grad_weight, at + k * pitch, pitch), (act, k * PITCH, 1)
        weights_product(to, source, (transposed, 0, PADDED_TAPS), width, 1)


@Kernel
def statistics_backward(x: Any, stride: Any, slope: Any, grad_x: Any, first: Any, last: Any) -> Any:
    """Add to the gradient of x, of frames `first` to `last`, what the batch statistics do.

    `slope` (3, F) are, for each channel, what to take from x, a factor and what to add.
    """
    P, F = x.shape[1], slope.shape[1]
    for n in range(first, last):
        for f in range(F):
            mean, factor, offset = slope[0, f], slope[1, f], slope[2, f]
            row, to = n * stride + f, n * F + f
            for p in range(P):
                grad_x[to, p] += factor * (x[row, p] - mean) + offset
