"""The batch: what a loader yields and every model takes. Defined here and nowhere else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ops.pixels import normalize_frames

# Tensors with one row for each view of each clip.
_ROWS = ("frames", "keypoints", "heatmap", "skeletons", "present", "mirrored")


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
        skeletons: (B, L, M, V, C) float32: what the models of the skeleton zoo take. L frames of
            the whole clip, C = 3 channels for each stream, zeros where a person is missing; for
            heatmap volumes x, y in their pixels and confidence.
        present: (B, L, M) bool: at least one joint of the person was detected in the frame.
        mirrored: (B,) bool: rows whose heatmap volume is to be mirrored once it is drawn.
        volume_size: (height, width) of heatmap volumes, pixels.
    """

    frames: Tensor | None = None
    keypoints: Tensor | None = None
    label: Tensor | None = None
    clips: tuple[str, ...] = ()
    views: int = 1
    heatmap: Tensor | None = None
    skeletons: Tensor | None = None
    present: Tensor | None = None
    mirrored: Tensor | None = None
    volume_size: tuple[int, int] | None = None

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

    def _map(
        self, change: Callable[[Tensor], Tensor], names: Sequence[str] = (*_ROWS, "label")
    ) -> "Batch":
        changed: dict[str, Any] = {
            name: change(tensor) for name in names if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **changed)

    def part(self, rows: slice) -> "Batch":
        """Return some of the B*V rows, without labels and names."""
        bare = replace(self, label=None, clips=(), views=1)
        return bare._map(lambda tensor: tensor[rows], _ROWS)

    def rows(self, most: int) -> "Iterator[Batch]":
        """Yield the B*V rows as batches of at most `most`, without labels and names."""
        total = len(self) * self.views
        for start in range(0, total, most):
            yield self.part(slice(start, start + most))

    def __len__(self) -> int:
        """Return B, the number of clips."""
        return self.first.shape[0] // self.views

    @property
    def first(self) -> Tensor:
        """Return one of the tensors that have B*V rows: where and how many they are."""
        return next(t for name in _ROWS if (t := getattr(self, name)) is not None)


def labels_of(batch: Batch) -> Tensor:
    """Return the labels of a batch for training or evaluation, which must have them."""
    if batch.label is None:
        raise ValueError("a batch for training or evaluation needs labels")
    return batch.label


def fill_people(view: Tensor, count: int) -> Tensor:
    """Add nobody to the people of (R, L, M, ...) skeletons or presences until there are `count`.

    Where people are drawn, nobody leaves no trace, so clips of more and of fewer go together.
    """
    if view.shape[2] >= count:
        return view
    nobody = view.new_zeros(*view.shape[:2], count - view.shape[2], *view.shape[3:])
    return torch.cat((view, nobody), dim=2)


def equally_many(views: Sequence[Tensor]) -> list[Tensor]:
    """Fill the people of (R, L, M, ...) views up to the most that one of them has."""
    most = max((view.shape[2] for view in views), default=0)
    return [fill_people(view, most) for view in views]
