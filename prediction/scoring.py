"""Windows through the network: what it sees is made as in tests, shared frames only once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from datasets.sampling import sample_frames
from datasets.views import Crop, InputSpec, Views, fit_people, make_views, see_frames
from deployment.networks import Network
from errors import InputError
from ops.batch import Batch
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
        images: (U, crops, S, S, 3) uint8; None for skeletons alone.
        tracks: (N, 1, V, 3) keypoints of all frames of the window in pixels; None for RGB alone.
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
        batches = [self._views(question) for question in questions]
        joined = Batch(
            frames=_joined([views.frames for views in batches]),
            keypoints=_joined([views.keypoints for views in batches]),
            heatmap=_joined([views.heatmap for views in batches]),
        )
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

    def _views(self, question: Question) -> Views:
        """Return the views of a question, as a clip's in tests; shared ones have been prepared."""
        images = question.images
        views = [
            make_views(
                self._spec,
                [crop],
                question.place,
                None if images is None or self.cache is not None else [images[:, number]],
                question.tracks,
                question.used,
                self._size,
                self._layout,
            )
            for number, crop in enumerate(self._crops)
        ]
        frames = [view.frames for view in views]
        if images is not None and self.cache is not None:
            frames = [self._shared(question, number) for number in range(len(self._crops))]
        return Views(
            _by_sampling(frames),
            _by_sampling([view.heatmap for view in views]),
            _by_sampling([view.keypoints for view in views]),
        )

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


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
