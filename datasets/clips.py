"""The one data set of clips: lists and files in, samples and batches out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.order import SampleKey
from datasets.records import fingerprints
from datasets.sampling import sample_frames
from datasets.scan import Clip, PoseReport
from datasets.views import Crop, InputSpec, make_views
from ops.batch import Batch
from ops.skeleton import COCO17, SkeletonLayout
from transforms import (
    CROP_SCALES,
    draw_augmentation,
    eval_geometries,
    train_geometry,
)

# (T, H, W, 3) uint8 RGB to (T, M, V, 3) keypoints in pixels.
Estimate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """Which views of a clip are taken: one at random for training, else a fixed set.

    Attributes:
        train: draw sampling, crop, mirror and augmentation from seed, epoch and clip.
        may_flip: training may mirror a clip.
        rand_augment: training applies RandAugment.
        crop_scales: sizes of training crops, as shares of the field of view.
        num_clips: samplings of each clip in evaluation.
        test_crops: crops of each frame in evaluation.
    """

    train: bool = False
    may_flip: bool = True
    rand_augment: bool = False
    crop_scales: tuple[float, ...] = CROP_SCALES
    num_clips: int = 1
    test_crops: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """All V views of one clip.

    Attributes:
        frames: (V, T, C, S, S) float32, normalised; None for skeletons alone.
        keypoints: (V, T, M, J, 3) float32, None for RGB alone.
        label: class index.
        clip: name.
    """

    frames: Tensor | None
    keypoints: Tensor | None
    label: int
    clip: str


class ClipDataset(Dataset[Sample]):
    """Clips by `SampleKey`: a sample is a function of seed, epoch and clip."""

    def __init__(
        self,
        clips: Sequence[Clip],
        spec: InputSpec,
        views: ViewSpec,
        seed: int = 0,
        report: PoseReport | None = None,
        estimate: Estimate | None = None,
        layout: SkeletonLayout = COCO17,
    ) -> None:
        self.clips = tuple(clips)
        self.spec = spec
        self.views = views
        self.seed = seed
        self.report = report
        self.estimate = estimate
        self.layout = layout

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def labels(self) -> np.ndarray:
        """Return the class of every clip, (len,) int64."""
        return np.array([clip.record.label for clip in self.clips], np.int64)

    @property
    def fingerprints(self) -> np.ndarray:
        """Return one number for each clip's name, (len,) int64."""
        return fingerprints([clip.record for clip in self.clips])

    def __getitem__(self, key: SampleKey) -> Sample:
        """Load one clip; every frame is decoded once, however many views show it."""
        clip, spec = self.clips[key.index], self.spec
        rng = np.random.default_rng([self.seed, key.epoch, key.index]) if self.views.train else None
        picks = sample_frames(
            clip.record.num_frames, spec.num_segments, spec.interval, self.views.num_clips, rng
        )
        used, place = np.unique(picks, return_inverse=True)
        place = place.reshape(picks.shape)  # (num_clips, T) rows of `used`
        crops = self._choose_crops(clip.size, rng)

        images = clip.images.load(used, clip.size) if clip.images else None
        tracks, rows = self._load_tracks(clip, images, used) if spec.has_poses else (None, used)
        frames, keypoints = make_views(
            spec, crops, place, images, tracks, rows, clip.size, self.layout
        )
        return Sample(frames, keypoints, clip.record.label, clip.record.name)

    def _choose_crops(
        self, size: tuple[int, int], rng: np.random.Generator | None
    ) -> tuple[Crop, ...]:
        side, field = self.spec.input_size, self.spec.field_of_view
        if rng is None:
            return tuple(map(Crop, eval_geometries(*size, side, self.views.test_crops, field)))
        views = self.views
        geometry = train_geometry(*size, side, rng, views.may_flip, field, views.crop_scales)
        return (Crop(geometry, draw_augmentation(rng) if self.views.rand_augment else None),)

    def _load_tracks(
        self, clip: Clip, images: np.ndarray | None, used: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return keypoints (N, M, V, 3) of the clip and which rows the used frames are."""
        if clip.poses is None and self.estimate is not None and images is not None:
            # Estimation costs more than all else: only the frames that the network sees.
            tracks, rows = self.estimate(images), np.arange(len(used))
        elif clip.poses is None:
            tracks = np.zeros((clip.record.num_frames, 1, len(self.layout.joints), 3), np.float32)
            rows = used
        else:
            keypoints = clip.keypoints
            tracks = clip.poses.load().keypoints_at(clip.size) if keypoints is None else keypoints
            rows = used
        return tracks, rows


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples with equally many views into a batch of B * V rows."""
    frames = [sample.frames for sample in samples if sample.frames is not None]
    keypoints = [sample.keypoints for sample in samples if sample.keypoints is not None]
    rows = (frames or keypoints)[0]
    return Batch(
        frames=torch.cat(frames) if frames else None,
        keypoints=torch.cat(keypoints) if keypoints else None,
        label=torch.tensor([sample.label for sample in samples]),
        clips=tuple(sample.clip for sample in samples),
        views=len(rows),
    )
