"""The one data set of clips: lists and files in, samples and batches out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.frames import FrameSource
from datasets.order import SampleKey
from datasets.pose_views import (
    SkeletonSpec,
    SkeletonViews,
    frame_windows,
    people_geometry,
    skeleton_views,
)
from datasets.records import fingerprints
from datasets.sampling import sample_frames
from datasets.scan import Clip, PoseReport
from datasets.views import Crop, CutFrames, InputSpec, make_views
from ops.batch import Batch, equally_many
from ops.body_frame import BodyTrack
from ops.skeleton import COCO17, SkeletonLayout
from transforms import (
    CROP_SCALES,
    draw_augmentation,
    eval_geometries,
    reduce_decoding,
    train_geometry,
)

# Clips whose body is kept once measured: 30 MB for 100 frames each.
_MOST_BODIES = 10_000
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
        frames: (V, T, 3, S, S) uint8 RGB; None for skeletons alone.
        keypoints: (V, T, M, J, 3) float32, None for RGB alone.
        label: class index.
        clip: name.
        heatmap: (V, T, S, S) float32 in 0-1; None where the network sees none.
        skeletons: of whole clips, None where the network sees single frames.
    """

    frames: Tensor | None
    keypoints: Tensor | None
    label: int
    clip: str
    heatmap: Tensor | None = None
    skeletons: SkeletonViews | None = None


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
        self._measured: dict[int, BodyTrack] = {}

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
        """Load one clip; every frame is decoded and resized once, however many views show it."""
        clip, spec = self.clips[key.index], self.spec
        rng = np.random.default_rng(key.entropy(self.seed)) if self.views.train else None
        if spec.skeleton is not None and not spec.has_frames:
            return self._skeletons_alone(clip, spec.skeleton, rng)
        picks = sample_frames(
            clip.record.num_frames, spec.num_segments, spec.interval, self.views.num_clips, rng
        )
        used, place = np.unique(picks, return_inverse=True)
        place = place.reshape(picks.shape)  # (num_clips, T) rows of `used`
        crops = self._choose_crops(clip, rng)
        if spec.skeleton is not None:
            return self._with_skeletons(clip, spec.skeleton, crops, picks, rng)

        whole = self._load_whole(clip, used)
        tracks, rows = self._load_tracks(clip, whole, used) if spec.has_poses else (None, used)
        images = self._cut(clip.images, used, clip.size, crops, whole) if clip.images else None
        body = None if tracks is None or whole is not None else self._body(key.index, tracks)
        views = make_views(spec, crops, place, images, tracks, rows, clip.size, self.layout, body)
        label, name = clip.record.label, clip.record.name
        return Sample(views.frames, views.keypoints, label, name, views.heatmap)

    def _skeletons_alone(
        self, clip: Clip, spec: SkeletonSpec, rng: np.random.Generator | None
    ) -> Sample:
        """Load a clip for a model that sees whole clips of skeletons and nothing else."""
        tracks, _ = self._load_tracks(clip, None, np.arange(0))
        views = skeleton_views(spec, tracks, clip.size, self.layout, self.views.num_clips, rng)
        return Sample(None, None, clip.record.label, clip.record.name, skeletons=views)

    def _with_skeletons(
        self,
        clip: Clip,
        spec: SkeletonSpec,
        crops: Sequence[Crop],
        picks: np.ndarray,
        rng: np.random.Generator | None,
    ) -> Sample:
        """Load a clip for a model that sees frames and whole clips of skeletons."""
        assert clip.images is not None
        tracks, _ = self._load_tracks(clip, None, np.arange(0))
        if spec.frame_share is not None:
            crops = self._crops_of_people(clip, tracks, rng)
        used, place = np.unique(picks, return_inverse=True)
        place = place.reshape(picks.shape)
        images = self._cut(clip.images, used, clip.size, crops, None)
        # Keypoints of single frames are drawn into the frames at most.
        drawn = tracks if self.spec.draws_heatmap else None
        seen_as = replace(self.spec, pose_normalize="none")
        seen = make_views(seen_as, crops, place, images, drawn, used, clip.size, self.layout)
        windows = frame_windows(picks, self.spec.interval)
        geometries = [crop.geometry for crop in crops]
        views = skeleton_views(
            spec, tracks, clip.size, self.layout, len(picks), rng, geometries, windows
        )
        label, name = clip.record.label, clip.record.name
        return Sample(seen.frames, None, label, name, seen.heatmap, views)

    def _crops_of_people(
        self, clip: Clip, tracks: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[Crop, ...]:
        """Return the crop around the people of a clip, which frames and volumes share."""
        geometry = people_geometry(
            clip.size, tracks, self.spec.input_size, rng, self.views.may_flip
        )
        return (Crop(geometry),)

    def _body(self, index: int, tracks: np.ndarray) -> BodyTrack | None:
        """Return what decides the frame of reference of a clip, measured once."""
        if self.spec.pose_normalize != "clip" or self.views.rand_augment:
            return None
        body = self._measured.get(index)
        if body is None:
            body = BodyTrack.of(tracks, self.layout)
            if len(self._measured) < _MOST_BODIES:
                self._measured[index] = body
        return body

    def _choose_crops(self, clip: Clip, rng: np.random.Generator | None) -> tuple[Crop, ...]:
        side, field, views = self.spec.input_size, self.spec.field_of_view, self.views
        augmentation = None
        if rng is None:
            geometries = eval_geometries(*clip.size, side, views.test_crops, field)
        else:
            drawn = train_geometry(*clip.size, side, rng, views.may_flip, field, views.crop_scales)
            geometries = (drawn,)
            augmentation = draw_augmentation(rng) if views.rand_augment else None
        if clip.images is not None and clip.images.can_reduce:
            geometries = reduce_decoding(geometries)
        return tuple(Crop(geometry, augmentation) for geometry in geometries)

    def _load_whole(self, clip: Clip, used: np.ndarray) -> np.ndarray | None:
        """Return the used frames at full size for the estimator of a clip without keypoints."""
        is_estimated = self.spec.has_poses and clip.poses is None and self.estimate is not None
        return clip.images.load(used, clip.size) if is_estimated and clip.images else None

    @staticmethod
    def _cut(
        images: FrameSource,
        used: np.ndarray,
        size: tuple[int, int],
        crops: Sequence[Crop],
        whole: np.ndarray | None,
    ) -> CutFrames:
        """Cut the used frames, which go as they come: only what crops show of them is kept."""
        reduction = crops[0].geometry.reduction
        if whole is None or reduction > 1:
            # What the network sees does not depend on where its keypoints come from.
            return CutFrames(images.stream(used, size, reduction), len(used), crops)
        return CutFrames(whole, len(used), crops)

    def _load_tracks(
        self, clip: Clip, images: np.ndarray | None, used: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return keypoints (N, M, V, 3) of the clip and which rows the used frames are."""
        if images is not None and self.estimate is not None:
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
    skeletons = [sample.skeletons for sample in samples if sample.skeletons is not None]
    keypoints = [sample.keypoints for sample in samples if sample.keypoints is not None]
    heatmaps = [sample.heatmap for sample in samples if sample.heatmap is not None]
    rows = (frames or keypoints or [one.skeletons for one in skeletons])[0]
    return Batch(
        frames=_join_frames(frames) if frames else None,
        keypoints=_join(keypoints),
        label=torch.tensor([sample.label for sample in samples]),
        clips=tuple(sample.clip for sample in samples),
        views=len(rows),
        heatmap=_join(heatmaps),
        skeletons=_join(equally_many([one.skeletons for one in skeletons])),
        present=_join(equally_many([one.present for one in skeletons])),
        mirrored=_join([one.mirrored for one in skeletons if one.mirrored is not None]),
        volume_size=skeletons[0].volume_size if skeletons else None,
    )


def _join(parts: Sequence[Tensor]) -> Tensor | None:
    """Join rows; those of a single clip are not copied."""
    if len(parts) < 2:
        return parts[0] if parts else None
    return torch.cat(list(parts))


def _join_frames(frames: Sequence[Tensor]) -> Tensor:
    """Join (V, T, 3, S, S), keeping each pixel's channels adjacent: torch would part them."""
    if len(frames) == 1:
        return frames[0]
    return torch.cat([one.movedim(2, -1) for one in frames]).movedim(-1, 2)
