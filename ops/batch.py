"""The batch: what a loader yields and every model takes. Defined here and nowhere else."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ops.pixels import normalize_frames


@dataclass(frozen=True, slots=True)
class Batch:
    """B clips of T segments, ready for a model.

    Attributes:
        frames: (B, T, 3, H, W) uint8 RGB as loaders give them, or (B, T, C, H, W) float32 as
            models take them, normalised, where channel 3 is the pose heatmap if there is one.
            None for models that see skeletons alone.
        keypoints: (B, T, M, V, 3) float32: x, y (normalised or pixels, as `--pose_normalize`
            says) and confidence 0-1, where 0 means "not detected" and x, y are 0. None for
            models that see RGB alone.
        label: (B,) int64 class indices; None when unknown.
        clips: B clip names, for reports.
        views: V, crops and samplings of each clip. Frames, heatmaps and keypoints then have B*V
            rows, the views of one clip adjacent; a model returns (B*V, K).
        heatmap: (B, T, H, W) float32 in 0-1, to become channel 3 of uint8 frames; None where the
            network sees none.
    """

    frames: Tensor | None = None
    keypoints: Tensor | None = None
    label: Tensor | None = None
    clips: tuple[str, ...] = ()
    views: int = 1
    heatmap: Tensor | None = None

    @classmethod
    def of(cls, value: "Batch | Mapping[str, Any]") -> "Batch":
        """Accept a `Batch` or a dict with the same keys."""
        return value if isinstance(value, cls) else cls(**value)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which a copy to a GPU overlaps with work."""
        return self._map(Tensor.pin_memory)

    def prepared(self, channels_last: bool = False) -> "Batch":
        """Return the batch with normalised float32 frames, on the device where it is.

        Frames travel as bytes, a quarter of the size, and are normalised where they are used.
        Frames that are no bytes any more are left as they are.

        Args:
            channels_last: the memory layout of the result, see `normalize_frames`.
        """
        if self.frames is None or self.frames.dtype != torch.uint8:
            return self
        frames = normalize_frames(self.frames, self.heatmap, channels_last)
        return replace(self, frames=frames, heatmap=None)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            frames=None if self.frames is None else change(self.frames),
            keypoints=None if self.keypoints is None else change(self.keypoints),
            label=None if self.label is None else change(self.label),
            heatmap=None if self.heatmap is None else change(self.heatmap),
        )

    def part(self, rows: slice) -> "Batch":
        """Return some of the B*V rows, without labels and names."""
        return Batch(
            frames=None if self.frames is None else self.frames[rows],
            keypoints=None if self.keypoints is None else self.keypoints[rows],
            heatmap=None if self.heatmap is None else self.heatmap[rows],
        )

    def rows(self, most: int) -> "Iterator[Batch]":
        """Yield the B*V rows as batches of at most `most`, without labels and names."""
        total = len(self) * self.views
        for start in range(0, total, most):
            yield self.part(slice(start, start + most))

    def __len__(self) -> int:
        """Return B, the number of clips."""
        rows = next(t for t in (self.frames, self.keypoints) if t is not None)
        return rows.shape[0] // self.views


def labels_of(batch: Batch) -> Tensor:
    """Return the labels of a batch for training or evaluation, which must have them."""
    if batch.label is None:
        raise ValueError("a batch for training or evaluation needs labels")
    return batch.label
