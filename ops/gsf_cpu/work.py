"""Gate-Shift-Fuse on a CPU: the compiled loops in their order, over clips and threads.

A few clips at a time go through all steps, so that what one step has read is still in the cache of
the processor for the next. The order of every sum is fixed by the batch alone: the numbers do not
depend on the number of threads. Shapes as in `forward.py`.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops.gsf_cpu import backward as back
from ops.gsf_cpu import forward as forth
from ops.gsf_cpu.compiling import BLOCK, PADDED_TAPS
from ops.gsf_plain import GSFWeights

# Of x, worked on from start to end before the next: what stays in the cache of most processors.
_BYTES_AT_ONCE = 8 << 20
# Pixels: as many frames as have these are worked on at a time where frames are small.
_SMALL = 256


# ---------------------------------------------------------------- threads

# By what they were made for: process (a fork has none of its parent's threads), threads, denormals.
# None is shut down: another thread may be about to use it, and a program has one or two.
_pools: dict[tuple[int, int, bool], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that treat denormal numbers as this one does; made when first needed."""
    flush = bool(np.float32(1e-38) * np.float32(1e-3) == 0)
    key = (os.getpid(), threads, flush)
    if key not in _pools:
        pool = ThreadPoolExecutor(
            threads, "gsf", initializer=torch.set_flush_denormal, initargs=(flush,)
        )
        return _pools.setdefault(key, pool)
    return _pools[key]


def _spread(units: int, kernel: Callable[..., None], *arguments: Any) -> None:
    """Run a kernel over all units, in as many threads as torch uses; this one works too."""
    threads = min(torch.get_num_threads(), units)
    if threads == 1:
        kernel(*arguments, 0, units)
        return
    edges = [units * i // threads for i in range(threads + 1)]
    ranges = list(zip(edges[:-1], edges[1:], strict=True))
    pool = _pool(torch.get_num_threads())
    others = [pool.submit(kernel, *arguments, *ends) for ends in ranges[1:]]
    kernel(*arguments, *ranges[0])
    for other in others:
        other.result()


# ---------------------------------------------------------------- tensors and arrays


def frame_stride(x: Tensor) -> int | None:
    """Return how many rows of H*W numbers lie from frame to frame, or None if rows have gaps."""
    if not x[0].is_contiguous():
        return None
    if x.shape[0] == 1:
        return x.shape[1]
    stride, rest = divmod(x.stride(0), x.shape[2] * x.shape[3])
    return None if rest or stride < x.shape[1] else stride


def _array(values: Tensor) -> np.ndarray:
    return values.detach().contiguous().numpy()


def _rows(x: Tensor) -> tuple[np.ndarray, int]:
    """View (N, F, H, W) as (rows, P), and say how many rows lie from frame to frame."""
    stride = frame_stride(x)
    assert stride is not None
    pixels = x.shape[2] * x.shape[3]
    rows = (x.shape[0] - 1) * stride + x.shape[1]
    return x.detach().as_strided((rows, pixels), (pixels, 1)).numpy(), stride


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance, (F,) each, float64, of (N, F, H, W)."""
    rows, stride = _rows(x)
    frames, channels = x.shape[:2]
    means, squares = np.empty((2, frames, channels))
    _spread(frames, forth.channel_statistics, rows, stride, means, squares)
    mean = means.mean(axis=0)
    # Of each frame about its own mean, and of these means about theirs (Chan et al. 1983).
    var = squares.sum(axis=0) / (frames * rows.shape[1]) + ((means - mean) ** 2).mean(axis=0)
    return torch.from_numpy(mean), torch.from_numpy(var)


# ---------------------------------------------------------------- forward and backward


@dataclass(frozen=True, slots=True)
class Parameters:
    """The weights as arrays, in the order in which the loops read them."""

    norm: np.ndarray  # (3, F): mean, factor, offset
    taps: np.ndarray  # (F, 32)
    gate_bias: np.ndarray  # (2,)
    fuse: np.ndarray  # (2, 2, 3, 3)
    fuse_bias: np.ndarray  # (2,)

    @classmethod
    def of(cls, weights: GSFWeights) -> "Parameters":
        """Lay out weights whose `running` is given."""
        assert weights.running is not None
        mean, var = weights.running
        channels = len(mean)
        factor = weights.bn_weight / (var.double() + weights.eps).sqrt()
        norm = torch.stack([mean.float(), factor.float(), weights.bn_bias])
        taps = torch.zeros(channels, PADDED_TAPS)
        taps[:, :27] = weights.taps_weight.reshape(channels, 27)
        fuse = _array(weights.fuse_weight).reshape(2, 2, 3, 3)
        gate_bias, fuse_bias = _array(weights.gate_bias), _array(weights.fuse_bias).ravel()
        return cls(_array(norm), _array(taps), gate_bias, fuse, fuse_bias)

    def transposed_taps(self) -> np.ndarray:
        """Return the taps as (2, 27, K or more), the channels padded to whole blocks."""
        K = len(self.taps) // 2
        taps = np.zeros((2, 27, -(-K // BLOCK) * BLOCK), np.float32)
        taps[:, :, :K] = self.taps.reshape(2, K, PADDED_TAPS)[:, :, :27].transpose(0, 2, 1)
        return taps


@dataclass(frozen=True, slots=True)
class Work:
    """A batch, or some clips of it, and what has been found out about it.

    Attributes:
        x: (rows, P).
        stride: rows of a frame.
        size: H, W.
        segments: T.
        first: frame of the batch that is frame 0 here.
        parameters: of the module.
        gate: (N, 2, P).
        share: (N, F) in the order of x.
        moved: (N, F): means of gate * x.
        mean: (N, F): means of x.
    """

    x: np.ndarray
    stride: int
    size: tuple[int, int]
    segments: int
    first: int
    parameters: Parameters
    gate: Tensor
    share: Tensor
    moved: Tensor
    mean: Tensor

    @classmethod
    def of(
        cls,
        x: Tensor,
        weights: GSFWeights,
        segments: int,
        found: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    ) -> "Work":
        """Lay out a batch; `found` are gate, share, moved and mean if they are known."""
        frames, channels, height, width = x.shape
        if found is None:
            share, moved, mean = torch.empty(3, frames, channels).unbind()
            found = (torch.empty(frames, 2, height * width), share, moved, mean)
        rows, stride = _rows(x)
        return cls(rows, stride, (height, width), segments, 0, Parameters.of(weights), *found)

    def found(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return gate, share, moved and mean."""
        return self.gate, self.share, self.moved, self.mean

    def clips(self) -> "Iterator[Work]":
        """Cut into a few clips each."""
        clip = self.segments * self.share.shape[1] * self.gate.shape[2] * 4
        step = self.segments * max(1, _BYTES_AT_ONCE // clip)
        for first in range(0, len(self.share), step):
            part = slice(first, min(first + step, len(self.share)))
            yield Work(
                self.x[first * self.stride :],
                self.stride,
                self.size,
                self.segments,
                first,
                self.parameters,
                *(values[part] for values in self.found()),
            )

    def _of_batch(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of these frames out of (N*F, P) of the whole batch."""
        channels = self.share.shape[1]
        return rows[self.first * channels : (self.first + len(self.share)) * channels]

    def _blocks(self) -> tuple[int, int]:
        """Return how many frames are worked on at a time, and how many times that is."""
        most = max(1, _SMALL // self.gate.shape[2])
        blocks = -(-len(self.share) // most)
        frames = -(-len(self.share) // blocks)
        return frames, -(-len(self.share) // frames)

    def open_gates(self) -> None:
        """Find gates, means and shares."""
        kernels, weights = forth, self.parameters
        gate, share, moved, mean = (values.numpy() for values in self.found())
        frames, blocks = self._blocks()
        maps = np.empty((len(share), 2, 3, gate.shape[2]), np.float32)
        where = (self.x, self.stride)
        _spread(
            2 * blocks,
            *(kernels.gate_maps, *where, weights.norm, weights.taps, maps, self.size, frames),
        )
        kernels.gate_sums(maps, weights.gate_bias, self.segments, gate)
        self.gate.tanh_()
        _spread(2 * len(share), kernels.pooled_means, *where, gate, moved, mean)
        kernels.share_logits(moved, mean, weights.fuse, weights.fuse_bias, self.segments, share)
        self.share.sigmoid_()

    def mix(self, out: np.ndarray, affine: np.ndarray, residual: np.ndarray, rectify: bool) -> None:
        """Write these frames of `out`, see `forward.mix`; rows of the whole batch."""
        _spread(
            2 * len(self.share),
            forth.mix,
            *(self.x, self.stride, self.gate.numpy(), self.share.numpy(), affine),
            *(self._of_batch(residual), rectify, self.segments, self._of_batch(out)),
        )

    def go_back(self, grad: np.ndarray, taps: np.ndarray, grads: "Gradients") -> None:
        """Write these frames of the gradient of x, and add to those of the parameters.

        Args:
            grad: (N*F, P) of the whole batch.
            taps: `Parameters.transposed_taps()`.
            grads: of the whole batch.
        """
        kernels, weights, segments = back, self.parameters, self.segments
        gate, share, moved, mean = (values.numpy() for values in self.found())
        N, F = share.shape
        grad, where, units = self._of_batch(grad), (self.x, self.stride), 2 * N
        grad_gate = np.empty_like(gate)
        of_moved, of_stayed = np.empty((2, N, F), np.float32)
        _spread(
            units,
            *(kernels.mix_backward, *where, gate, share, grad, segments),
            *(grad_gate, of_moved, of_stayed),
        )
        pool = np.empty((2, N, F), np.float32)
        kernels.share_backward(
            *(moved, mean, share, of_moved, of_stayed, weights.fuse, segments),
            *(pool, grads.fuse, grads.fuse_bias),
        )
        inner = np.zeros((N, 2, self.size[0] + 2, self.size[1] + 2), np.float32)
        _spread(units, kernels.gate_backward, *where, gate, pool, grad_gate, inner, self.size)
        grads.gate_bias += inner.sum(axis=(2, 3)).sum(axis=0)
        frames, blocks = self._blocks()
        sums = np.empty((N, F, 2), np.float32)
        grad_taps = np.zeros((2 * blocks, taps.shape[2], PADDED_TAPS), np.float32)
        _spread(
            2 * blocks,
            *(kernels.input_backward, *where, weights.norm, gate, share, grad, pool, inner),
            *(taps, segments, self.size, frames, self._of_batch(grads.x), sums, grad_taps),
        )
        grads.sums += sums.sum(axis=0, dtype=np.float64)
        both = grad_taps.reshape(blocks, 2, -1, PADDED_TAPS).sum(axis=0)
        grads.taps += both[:, : F // 2, :27]

    def finish(self, spread: np.ndarray, grad_x: np.ndarray) -> None:
        """Add what the statistics of the batch add to the gradient of x."""
        _spread(
            len(self.share),
            back.statistics_backward,
            *(self.x, self.stride, spread, grad_x),
        )


@dataclass(slots=True)
class Gradients:
    """Gradients of x and of the parameters, added up over the clips of a batch.

    Attributes:
        x: (N*F, P).
        sums: (F, 2) of the norm: see `backward.input_backward`.
        taps: (2, K, 27).
        gate_bias: (2,).
        fuse: (2, 2, 3, 3).
        fuse_bias: (2,).
    """

    x: np.ndarray
    sums: np.ndarray
    taps: np.ndarray
    gate_bias: np.ndarray
    fuse: np.ndarray
    fuse_bias: np.ndarray

    @classmethod
    def zeros(cls, frames: int, channels: int, pixels: int) -> "Gradients":
        """Begin with nothing; x is not filled."""
        return cls(
            np.empty((frames * channels, pixels), np.float32),
            np.zeros((channels, 2)),
            np.zeros((2, channels // 2, 27), np.float32),
            np.zeros(2),
            np.zeros((2, 2, 3, 3)),
            np.zeros(2),
        )


def run(
    work: Work, affine: np.ndarray, residual: np.ndarray | None = None, rectify: bool = False
) -> Tensor:
    """Return the output (N, F, H, W) of a batch; see `forward.mix`."""
    out = torch.empty(*work.share.shape, *work.size)
    rows = out.view(-1, work.gate.shape[2]).numpy()
    for clips in work.clips():
        clips.open_gates()
        clips.mix(rows, affine, rows[:0] if residual is None else residual, rectify)
    return out


def gradients(work: Work, grad: Tensor, var: Tensor, eps: float, of_batch: bool) -> "Gradients":
    """Return all gradients of a batch.

    Args:
        work: with everything found.
        grad: (N, F, H, W) of the output.
        var: (F,) of the norm.
        eps: of the norm.
        of_batch: whether mean and variance are those of this batch, and not constants.
    """
    N, F = work.share.shape
    P = work.gate.shape[2]
    grads = Gradients.zeros(N, F, P)
    taps = work.parameters.transposed_taps()
    rows = _array(grad).reshape(-1, P)
    for clips in work.clips():
        clips.go_back(rows, taps, grads)
    if of_batch:
        mean, factor, _ = work.parameters.norm
        total, spread = grads.sums.T / (N * P)
        slope = np.stack([mean, -factor * spread / (var.numpy() + eps), -factor * total])
        work.finish(slope.astype(np.float32), grads.x)
    return grads
