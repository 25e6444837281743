"""The one data set of clips: lists and files in, samples and batches out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.order import SampleKey
from datasets.records import fingerprints
from datasets.sampling import sample_frames
from datasets.scan import Clip, PoseReport
from ops.batch import Batch
from ops.heatmap import joint_heatmap
from ops.skeleton import COCO17, Normalization, SkeletonLayout, normalize_keypoints
from transforms import (
    CROP_SCALES,
    Augmentation,
    FieldOfView,
    Geometry,
    draw_augmentation,
    eval_geometries,
    to_network_input,
    train_geometry,
)

# (T, H, W, 3) uint8 RGB to (T, M, V, 3) keypoints in pixels.
Estimate = Callable[[np.ndarray], np.ndarray]

# `--heatmap_sigma` is in pixels of a frame with this short side.
_SIGMA_SHORT_SIDE = 360


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a network sees of one view of a clip.

    Attributes:
        num_segments: frames, T.
        input_size: side of the crop in pixels, S.
        interval: frames between segments; None spreads them over the clip.
        has_frames: RGB frames are part of the input.
        has_poses: keypoints are part of the input, or drawn into it.
        heatmap_channel: append the heatmap to RGB.
        mask_background: black out RGB where the heatmap is 0.
        heatmap_sigma: of a joint, in pixels of a frame with a short side of 360.
        pose_normalize: frame of reference of the keypoints.
        field_of_view: crops are squares over the short side, or have the shape of the frame.
        num_people: M; clips with fewer are filled up with undetected people.
    """

    num_segments: int
    input_size: int
    interval: int | None = None
    has_frames: bool = True
    has_poses: bool = True
    heatmap_channel: bool = False
    mask_background: bool = False
    heatmap_sigma: float = 10.0
    pose_normalize: Normalization = "clip"
    field_of_view: FieldOfView = "square"
    num_people: int = 1


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
        frames = keypoints = None
        drawn: list[np.ndarray | None] = [None] * len(crops)
        if spec.has_poses:
            tracks, rows = self._load_tracks(clip, images, used)
            # The frame of reference comes from all frames, so that views of a clip share it.
            moved = [crop.apply_to_keypoints(tracks, self.layout) for crop in crops]
            drawn = [track[rows] for track in moved]
            keypoints = _arrange(
                (self._normalize(track)[rows] for track in moved), place, len(crops)
            )
        if images is not None:
            rendered = (
                self._render(images, crop, track, min(clip.size))
                for crop, track in zip(crops, drawn, strict=True)
            )
            frames = _arrange(rendered, place, len(crops))
        return Sample(frames, keypoints, clip.record.label, clip.record.name)

    def _choose_crops(
        self, size: tuple[int, int], rng: np.random.Generator | None
    ) -> tuple["_Crop", ...]:
        side, field = self.spec.input_size, self.spec.field_of_view
        if rng is None:
            return tuple(map(_Crop, eval_geometries(*size, side, self.views.test_crops, field)))
        views = self.views
        geometry = train_geometry(*size, side, rng, views.may_flip, field, views.crop_scales)
        return (_Crop(geometry, draw_augmentation(rng) if self.views.rand_augment else None),)

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
        return _fit_people(tracks, self.spec.num_people), rows

    def _normalize(self, track: np.ndarray) -> np.ndarray:
        return normalize_keypoints(track, self.spec.pose_normalize, self.layout)

    def _render(
        self, images: np.ndarray, crop: "_Crop", track: np.ndarray | None, short_side: int
    ) -> Tensor:
        """Turn (U, H, W, 3) images and their (U, M, V, 3) keypoints into (U, C, S, S)."""
        spec, side = self.spec, self.spec.input_size
        heatmap = None
        if track is not None and (spec.heatmap_channel or spec.mask_background):
            sigma = spec.heatmap_sigma * short_side / _SIGMA_SHORT_SIDE
            scale_x, scale_y = crop.geometry.scale
            heatmap = joint_heatmap(track, side, side, (sigma * scale_x, sigma * scale_y))
        return to_network_input(
            crop.apply_to_frames(images),
            heatmap,
            as_channel=spec.heatmap_channel,
            mask_background=spec.mask_background,
        )


@dataclass(frozen=True, slots=True)
class _Crop:
    """One way to look at the frames of a clip."""

    geometry: Geometry
    augmentation: Augmentation | None = None

    def apply_to_frames(self, frames: np.ndarray) -> np.ndarray:
        frames = self.geometry.apply_to_frames(frames)
        return self.augmentation.apply_to_frames(frames) if self.augmentation else frames

    def apply_to_keypoints(self, keypoints: np.ndarray, layout: SkeletonLayout) -> np.ndarray:
        keypoints = self.geometry.apply_to_keypoints(keypoints, layout)
        if self.augmentation is None:
            return keypoints
        return self.augmentation.apply_to_keypoints(keypoints, self.geometry.out_size)


def _fit_people(keypoints: np.ndarray, num_people: int) -> np.ndarray:
    """Keep the first `num_people` of (N, M, V, 3), or add undetected ones."""
    missing = max(num_people - keypoints.shape[1], 0)
    kept = keypoints[:, :num_people]
    return np.pad(kept, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else kept


def _arrange(crops: Iterable[Tensor | np.ndarray], place: np.ndarray, num_crops: int) -> Tensor:
    """Give every sampling of every crop its frames.

    Args:
        crops: for each crop (U, ...), the frames that any sampling uses. Taken one at a time:
            10 crops of 64 frames at 224 pixels are half a gigabyte.
        place: (n, T) rows of U.
        num_crops: length of `crops`.

    Returns:
        (n * num_crops, T, ...).
    """
    out = torch.empty(0)
    rows = torch.from_numpy(place)
    for number, crop in enumerate(map(torch.as_tensor, crops)):
        if number == 0:
            out = crop.new_empty(len(place), num_crops, place.shape[1], *crop.shape[1:])
        out[:, number] = crop[rows]
    return out.flatten(0, 1)


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
