"""Clips of which a network sees skeletons alone: many at once, and never an image.

One by one a clip took longer to load than the network needed for it: its frame of reference was
measured anew in each epoch, and all of its frames were moved for the few that are used. Here each
clip is measured once; then one product and one sum move the used frames of many batches.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets.clips import ClipDataset, Sample, collate
from datasets.order import EpochBatches, SampleKey
from datasets.sampling import sample_frames
from datasets.views import fit_people
from ops.batch import Batch
from ops.body_frame import BodyTrack, normalize_keypoints
from ops.skeleton import swap_left_right
from transforms import Geometry, crop_sizes

# Some 30 MB.
_MOST_UNITS = 200_000
# Views that `SkeletonLoader` makes at once: 2 MB of 8 frames each.
_VIEWS_AT_ONCE = 512


class SkeletonDataset(ClipDataset):
    """The same samples as those of `ClipDataset`, by batches; clips have no images."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what `ClipDataset` takes, and measure the clips whose keypoints are in memory."""
        super().__init__(*args, **options)
        if self.spec.has_frames:
            raise ValueError("a data set of skeletons has no frames")
        # Units of clips in boxes of some size, of which training has a dozen.
        self._units: dict[tuple[int, int, int], float] = {}
        nobody = np.zeros((1, 1, len(self.layout.joints), 3), np.float32)
        self._bodies = [
            self._measure(nobody if clip.keypoints is None else clip.keypoints)
            for clip in self.clips
        ]
        if self.views.train:
            self._measure_crops()

    def _measure_crops(self) -> None:
        """Find the units of every size of crop now: later it would take time in every epoch."""
        views, side = self.views, self.spec.input_size
        for index, (clip, body) in enumerate(zip(self.clips, self._bodies, strict=True)):
            sizes = crop_sizes(*clip.size, self.spec.field_of_view, views.crop_scales)
            is_read = clip.keypoints is None and clip.poses is not None
            if body is None or is_read or len(self._units) + len(sizes) > _MOST_UNITS:
                continue
            units = body.units(np.array([(side / width, side / height) for width, height in sizes]))
            keys = ((index, width, height) for width, height in sizes)
            self._units.update(zip(keys, units.tolist(), strict=True))

    @property
    def is_quick(self) -> bool:
        """Say whether clips are not read from files, and moved by whole batches."""
        is_read = (clip.poses is not None and clip.keypoints is None for clip in self.clips)
        return not self.views.rand_augment and not any(is_read)

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        """Return the batch of some clips: what torch's loader asks for, if it is there."""
        if self.views.rand_augment:  # turns and shears: the frame of reference follows no scale
            return collate([self[key] for key in keys])
        tracks, moves, flips = [], [], []
        for key, rng in zip(keys, self._generators(keys), strict=True):
            clip = self.clips[key.index]
            picks = sample_frames(
                clip.record.num_frames,
                self.spec.num_segments,
                self.spec.interval,
                self.views.num_clips,
                rng,
            )
            views = self._choose_crops(clip, rng)
            track, body = self._track(key.index)
            tracks.append(track[picks])  # (n, T, M, V, 3)
            moves.append([self._move(key.index, crop.geometry, body) for crop in views])
            flips.append([crop.geometry.flip for crop in views])
        keypoints = self._place(np.stack(tracks), np.array(moves), np.array(flips))
        return Batch(
            keypoints=torch.from_numpy(keypoints),
            label=torch.tensor([self.clips[key.index].record.label for key in keys]),
            clips=tuple(self.clips[key.index].record.name for key in keys),
            views=len(keypoints) // len(keys),
        )

    def _generators(self, keys: Sequence[SampleKey]) -> Iterator[np.random.Generator | None]:
        """Yield what a clip's choices are drawn from; None where nothing is."""
        if not self.views.train:
            yield from (None for _ in keys)
            return
        # As one array: numpy would make one of each list of three numbers.
        if any(key.draw for key in keys):
            seeds = [np.array(key.entropy(self.seed), np.uint32) for key in keys]
        else:
            seeds = list(np.array([(self.seed, k.epoch, k.index) for k in keys], np.uint32))
        for seed in seeds:  # what `default_rng` makes of them, without its detours
            yield np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))

    def _measure(self, keypoints: np.ndarray) -> BodyTrack | None:
        if self.spec.pose_normalize != "clip":
            return None
        return BodyTrack.of(keypoints, self.layout)

    def _track(self, index: int) -> tuple[np.ndarray, BodyTrack | None]:
        """Return the keypoints (N, M, V, 3) of a clip, in pixels of its frames, and its body."""
        clip = self.clips[index]
        body, keypoints = self._bodies[index], clip.keypoints
        if keypoints is None:
            keypoints, _ = self._load_tracks(clip, None, np.arange(0))
            body = body if clip.poses is None else self._measure(keypoints)
        return fit_people(keypoints, self.spec.num_people), body

    def _move(
        self, index: int, geometry: Geometry, body: BodyTrack | None
    ) -> tuple[float, float, float, float]:
        """Return factors and offsets of x and y: from pixels of the frame to what a network sees.

        That is pixels of the crop, or with `body` the clip's frame of reference there.
        """
        (scale_x, scale_y), box = geometry.scale, geometry.box
        if body is None:
            if geometry.flip:
                offset_x = geometry.out_size + scale_x * box.left
                return -scale_x, scale_y, offset_x, -scale_y * box.top
            return scale_x, scale_y, -scale_x * box.left, -scale_y * box.top
        unit = self._unit(index, geometry, body)
        factor_x, factor_y = scale_x / unit, scale_y / unit
        if geometry.flip:
            factor_x = -factor_x
        return factor_x, factor_y, -factor_x * body.origin[0], -factor_y * body.origin[1]

    def _unit(self, index: int, geometry: Geometry, body: BodyTrack) -> float:
        key = (index, geometry.box.width, geometry.box.height)
        unit = self._units.get(key)
        if unit is None:
            unit = body.unit(geometry.scale)
            if len(self._units) < _MOST_UNITS:
                self._units[key] = unit
        return unit

    def _place(self, tracks: np.ndarray, moves: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """Move the used frames of each clip into each of its crops.

        Args:
            tracks: (B, n, T, M, V, 3) keypoints of n samplings, in pixels of the frames.
            moves: (B, C, 4) factors and offsets of x, y in each of C crops.
            flips: (B, C) bool, crops that are mirrored.

        Returns:
            (B * n * C, T, M, V, 3) float32, in the frame of reference of the network.
        """
        moves = moves[:, None, :, None, None, None]  # (B, 1, C, 1, 1, 1, 4)
        tracks = tracks[:, :, None]  # (B, n, 1, T, M, V, 3)
        B, n, C = *tracks.shape[:2], flips.shape[1]
        placed = np.empty((B, n, C, *tracks.shape[3:]), np.float32)
        seen = tracks[..., 2] > 0
        for axis in (0, 1):  # one at a time: numpy is slow along axes of 2
            moved = tracks[..., axis] * moves[..., axis] + moves[..., 2 + axis]
            placed[..., axis] = np.where(seen, moved, 0)
        placed[..., 2] = np.where(seen, tracks[..., 2], 0)
        views = placed.swapaxes(1, 2)
        views[flips] = swap_left_right(views[flips], self.layout)
        rows = placed.reshape(-1, *placed.shape[3:])  # (B * n * C, T, M, V, 3)
        if self.spec.pose_normalize != "frame":
            return rows
        return normalize_keypoints(rows.reshape(-1, *rows.shape[2:]), "frame", self.layout).reshape(
            rows.shape
        )


class SkeletonLoader(DataLoader):
    """Makes several batches at once, in this process: to send them here would cost more."""

    def __init__(
        self, dataset: SkeletonDataset, batches: EpochBatches, *, pin_memory: bool
    ) -> None:
        super().__init__(dataset, batch_sampler=batches, collate_fn=as_batch)
        self._pins = pin_memory
        views = dataset.views.num_clips * dataset.views.test_crops
        self._batches_at_once = max(1, _VIEWS_AT_ONCE // (batches.batch_size * views))

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = iter(self.batch_sampler)  # type: ignore[arg-type]
        while block := list(islice(batches, self._batches_at_once)):
            whole = self.dataset.__getitems__([key for keys in block for key in keys])  # type: ignore[attr-defined]
            start = 0
            for keys in block:
                batch = _part(whole, start, len(keys))
                yield batch.pin_memory() if self._pins else batch
                start += len(keys)


def _part(whole: Batch, start: int, count: int) -> Batch:
    """Return `count` clips of a batch of skeletons."""
    assert whole.keypoints is not None
    assert whole.label is not None
    clips = slice(start, start + count)
    rows = slice(start * whole.views, (start + count) * whole.views)
    return Batch(
        keypoints=whole.keypoints[rows],
        label=whole.label[clips],
        clips=whole.clips[clips],
        views=whole.views,
    )


def as_batch(loaded: Batch | Sequence[Sample]) -> Batch:
    """Return what a data set gave, by batches or by samples, as a batch."""
    return loaded if isinstance(loaded, Batch) else collate(loaded)
