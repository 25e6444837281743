"""Windows through the network: what it sees is made as in tests, shared frames only once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.pose_views import frame_windows, people_geometry, skeleton_views
from datasets.sampling import sample_frames
from datasets.views import Crop, CutFrames, InputSpec, fit_people, make_views, see_frames
from deployment.networks import Network
from errors import InputError
from ops.batch import Batch, equally_many
from ops.pixels import normalize_frames
from ops.skeleton import SkeletonLayout
from prediction.sharing import FrameCache, SplitNetwork
from prediction.windows import Span


@dataclass(frozen=True, slots=True)
class Question:
    """A window and a person: what the network is asked about.

    Attributes:
        span: the window.
        who: number of the person; None is nobody, or the whole frame.
        place: (n, T) rows of `used`.
        used: (U,) frames that the network sees, counted from the first of the window.
        images: (U, crops, S, S, 3) uint8, or (U, 1, H, W, 3) whole frames where the crop depends on
            the people of the window; None for skeletons alone.
        tracks: (N, M, V, 3) keypoints of all frames of the window in pixels, of the person and,
            for models of whole clips, of others; None for RGB alone.
    """

    span: Span
    who: int | None
    place: np.ndarray
    used: np.ndarray
    images: np.ndarray | None
    tracks: np.ndarray | None


def pick_frames(spec: InputSpec, num_frames: int, num_clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the frames of a window as tests choose those of a clip.

    Returns:
        The frames that are used (U,), ascending, and (n, T) rows of them.
    """
    picks = sample_frames(num_frames, spec.num_segments, spec.interval, num_clips)
    used, place = np.unique(picks, return_inverse=True)
    return used, place.reshape(picks.shape)


class Scorer:
    """Asks a network.

    Args:
        network: to ask.
        crops: of each frame.
        size: (width, height) of the frames, pixels.
        layout: of the keypoints.
        batch_size: windows in a forward pass.
        share: compute what overlapping windows share once.

    Attributes:
        cache: of single frames; None where nothing is shared.
    """

    def __init__(
        self,
        network: Network,
        crops: Sequence[Crop],
        size: tuple[int, int],
        layout: SkeletonLayout,
        batch_size: int = 8,
        share: bool = True,
    ) -> None:
        self._network, self._size, self._layout = network, size, layout
        self._spec = network.config.input
        self._crops = crops
        self._batch_size = batch_size
        split = SplitNetwork.of(network) if share else None
        self.cache = FrameCache(split) if split is not None else None

    def ask(self, questions: Sequence[Question]) -> np.ndarray:
        """Return (len(questions), K) float64 probabilities: the mean of the views' logits.

        Raises:
            InputError: the network answers with something that is no number.
        """
        joined = _joined([self._views(question) for question in questions])
        logits = self.cache.logits if self.cache is not None else self._network.logits
        most = max(self._batch_size, 2)
        found = torch.cat([logits(part) for part in joined.rows(most)])
        if not torch.isfinite(found).all():
            raise InputError(
                f"{self._network.source} answers with numbers that are not finite: its weights are "
                "damaged, or its training failed"
            )
        means = found.unflatten(0, (len(questions), -1)).mean(1)  # as tests average
        return means.double().softmax(1).numpy()

    def forget(self, before: int) -> None:
        """Drop what is kept of frames with a smaller number."""
        if self.cache is not None:
            self.cache.forget(before)

    def _views(self, question: Question) -> Batch:
        """Return the views of a question, as a clip's in tests; shared ones have been prepared."""
        images, spec = question.images, self._spec
        crops, cut = self._crops, None
        if images is not None:
            crops, cut = self._cut(question, images)
        seen = self._skeletons(question, crops)
        # Single frames show keypoints, or what is drawn of them; whole clips have been seen.
        tracks = question.tracks if not seen or spec.draws_heatmap else None
        if not spec.has_frames and seen:
            return Batch(**seen)
        views = [
            make_views(
                spec,
                [crop],
                question.place,
                None if cut is None or self.cache is not None else [cut[number]],
                tracks,
                question.used,
                self._size,
                self._layout,
            )
            for number, crop in enumerate(crops)
        ]
        frames = [view.frames for view in views]
        if images is not None and self.cache is not None:
            frames = [self._shared(question, number) for number in range(len(crops))]
        keypoints = None if seen else _by_sampling([view.keypoints for view in views])
        heatmap = _by_sampling([view.heatmap for view in views])
        return Batch(_by_sampling(frames), keypoints, heatmap=heatmap, **seen)

    def _cut(
        self, question: Question, images: np.ndarray
    ) -> tuple[Sequence[Crop], Sequence[np.ndarray]]:
        """Return the crops of a window, and of each (U, S, S, 3) what it shows."""
        spec = self._spec
        if spec.skeleton is None or spec.skeleton.frame_share is None:
            return self._crops, [images[:, number] for number in range(len(self._crops))]
        assert question.tracks is not None
        side = spec.input_size
        crop = Crop(people_geometry(self._size, question.tracks, side, None, may_flip=False))
        return [crop], CutFrames(images[:, 0], len(images), [crop])

    def _skeletons(self, question: Question, crops: Sequence[Crop]) -> dict[str, Any]:
        """Return the fields of a batch that models of whole clips see; {} for other models."""
        spec = self._spec.skeleton
        if spec is None or question.tracks is None:
            return {}
        has_frames, windows = self._spec.has_frames, None
        if has_frames:
            windows = frame_windows(question.used[question.place], self._spec.interval)
        views = skeleton_views(
            spec,
            question.tracks,
            self._size,
            self._layout,
            len(question.place),
            crops=[crop.geometry for crop in crops] if has_frames else (),
            windows=windows,
        )
        return {
            "skeletons": views.skeletons,
            "present": views.present,
            "mirrored": views.mirrored,
            "volume_size": views.volume_size,
        }

    def _shared(self, question: Question, number: int) -> Tensor:
        """Return (n, T, ...): what the front of the network says of one crop of the frames."""
        assert self.cache is not None
        assert question.images is not None
        crop, images = self._crops[number], question.images[:, number]
        is_drawn = self._spec.draws_heatmap
        tracks = None
        if question.tracks is not None and is_drawn:
            tracks = fit_people(question.tracks[question.used], self._spec.num_people)

        def render(places: list[int]) -> Tensor:
            drawn = None if tracks is None else tracks[places]
            seen, heatmap = see_frames(
                self._spec, images[places], crop, drawn, self._size, self._layout
            )
            return normalize_frames(seen, heatmap)

        seen_as = (number, question.who if is_drawn else None)
        keys = [(question.span.first + int(frame), seen_as) for frame in question.used]
        return self.cache.get(keys, render)[torch.from_numpy(question.place)]


def _by_sampling(crops: Sequence[Tensor | None]) -> Tensor | None:
    """Join (n, T, ...) of each crop to (n * crops, T, ...), the crops of a sampling adjacent."""
    present = [crop for crop in crops if crop is not None]
    return torch.stack(present, dim=1).flatten(0, 1) if present else None


def _joined(batches: Sequence[Batch]) -> Batch:
    """Join the rows of the batches of several questions."""
    fields: dict[str, Any] = {"volume_size": batches[0].volume_size}
    for name in ("frames", "keypoints", "heatmap", "skeletons", "present", "mirrored"):
        parts = [part for batch in batches if (part := getattr(batch, name)) is not None]
        if name in ("skeletons", "present"):
            parts = equally_many(parts)  # people to draw are as many as there are in a window
        fields[name] = torch.cat(parts) if parts else None
    return Batch(**fields)
