"""A trained model on a video: frames in, windows, events and poses out."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets.prepare.ahead import Ahead
from datasets.views import Crop
from deployment.networks import Network
from errors import InputError
from models.estimators import Estimator
from ops.skeleton import SkeletonLayout
from prediction.asking import Asker, UnplannedFrames
from prediction.decoding import Decoder
from prediction.events import EventRule, find_events
from prediction.fitting import check_given, check_network
from prediction.frames import USUAL_RATE, ImageFolder, Source, can_reduce
from prediction.posing import (
    EstimatedPoses,
    GivenPoses,
    NoPoses,
    PoseStage,
    Seen,
    check_names,
    find_pose_file,
)
from prediction.results import Timings, VideoResult, Window
from prediction.scoring import Scorer, pick_frames
from prediction.sources import find_sources
from prediction.windows import RECENT, Cutter, SlidingWindows, Span, WholeVideo, video_length
from transforms import eval_geometries, reduce_decoding

# Where neither the user nor the checkpoint says how long a clip is.
_USUAL_WINDOW = 4.0  # seconds
_AHEAD = 8  # frames that wait for the network


@dataclass(frozen=True, slots=True)
class Settings:
    """How to look at a video.

    Attributes:
        window_seconds: length of a window; None: of a training clip.
        stride_seconds: from window to window; None: half a window.
        whole: one answer for the whole video.
        num_clips: samplings of each window.
        test_crops: crops of each frame: 1, 3, 5 or 10.
        people: time lines, one for each person; None: everybody. 1 is the main athlete.
        events: what makes an event.
        batch_size: windows in a forward pass.
        share: compute what overlapping windows share once.
        seconds: stop there; None sees all of the video.
    """

    window_seconds: float | None = None
    stride_seconds: float | None = None
    whole: bool = False
    num_clips: int = 1
    test_crops: int = 1
    people: int | None = 1
    events: EventRule = field(default_factory=EventRule)
    batch_size: int = 8
    share: bool = True
    seconds: float | None = None


class Predictor:
    """Says what a trained model sees in videos.

    Args:
        network: `deployment.networks.load_network` loads it.
        settings: how to look.
        estimator: finds people, for models that see poses; None: they are given with the video.
        pose_every: the estimator looks at one frame in so many.
        pose_batch: frames that it looks at together.
    """

    def __init__(
        self,
        network: Network,
        settings: Settings = Settings(),  # noqa: B008 - it is frozen
        estimator: Estimator | None = None,
        pose_every: int = 1,
        pose_batch: int = 16,
    ) -> None:
        self.network, self.settings = network, settings
        self.estimator = estimator
        self._pose_every, self._pose_batch = pose_every, pose_batch
        self._facts = network.config.data
        self._spec = network.config.input
        check_network(network, self.estimator, settings.people, settings.test_crops)

    @property
    def layout(self) -> SkeletonLayout:
        """Return the joints that the model was trained on."""
        return self.network.config.layout

    def predict(
        self,
        source: Source | Path | str,
        poses: Path | None = None,
        on_window: Callable[[Window], None] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> VideoResult:
        """Watch a video.

        Args:
            source: a file, a folder of images, an address, the number of a camera, or a `Source`.
            poses: keypoints of the whole video, an .npz, or a folder with <name of the video>.npz.
            on_window: called with each answer as soon as it is there; the tracks of several people
                still have the numbers that following them gave.
            is_stopped: asked at each frame; what was seen until then is the result.

        Raises:
            InputError: nothing of the source can be read, or poses and model do not fit. A source
                that breaks off later gives a result with a note.
        """
        watched = self._as_source(source)
        self._check_source(watched, poses)
        begin = time.perf_counter()
        notes = self._notes_on(watched)
        stage = self._pose_stage(watched, poses)
        self._check_rows(stage, watched, is_stopped)
        plan = self._plan(watched)
        planned = time.perf_counter() - begin
        decoder = self._decoder(watched, plan, is_stopped)
        try:
            found = self._watch(watched, stage, decoder, on_window)
        except UnplannedFrames:  # the file's index and its content differ
            exact = self._exact_plan(watched)
            decoder = self._decoder(watched, exact, is_stopped)
            found = self._watch(watched, stage, decoder, on_window)
        fault = f"read up to {found.duration:.2f} s: {decoder.fault}" if decoder.fault else ""
        notes += [fault] if fault else []
        timings = replace(
            found.timings,
            decode=found.timings.decode + planned,
            total=time.perf_counter() - begin,
        )
        return replace(found, timings=timings, notes=(*notes, *found.notes), fault=fault)

    def _watch(
        self,
        source: Source,
        stage: PoseStage,
        decoder: Decoder,
        on_window: Callable[[Window], None] | None,
    ) -> VideoResult:
        cutter, _ = self._cutter(source)

        def make_asker(size: tuple[int, int]) -> Asker:
            return Asker(
                self.settings.people,
                self._spec,
                stage.is_ranked,
                self._scorer(source, size),
                self.settings.num_clips,
                len(self.layout.joints),
                1 if source.is_live else self.settings.batch_size,
                on_window,
                stage.num_slots,
            )

        with closing(decoder.frames(stage.every)) as items, Ahead(items, _AHEAD) as ahead:
            extent, asker = _watch(stage.run(iter(ahead)), cutter, make_asker)
        if isinstance(stage, GivenPoses) and decoder.is_complete:
            stage.check_length(extent.count)
        windows, classes = asker.windows(), self.network.config.classes
        return VideoResult(
            source=source.name,
            classes=classes,
            fps=extent.count / extent.duration,
            num_frames=extent.count,
            duration=extent.duration,
            size=extent.size,
            windows=windows,
            events=find_events(windows, classes, self.settings.events),
            poses=asker.poses(extent.count),
            timings=Timings(extent.duration, ahead.made, stage.seconds, asker.seconds),
            notes=tuple(asker.notes()),
        )

    # ------------------------------------------------------------ what fits what

    def check_poses(self, poses: Path | None, sources: Sequence[Source] = ()) -> None:
        """Make sure that a model that sees poses gets them, and no other.

        Args:
            poses: a file or folder of keypoints.
            sources: to predict with these; each needs a name of its own in a folder.

        Raises:
            InputError: it does not, or two of the sources would share a file.
        """
        check_given(self.network, poses, self.estimator)
        if poses is not None:
            check_names(poses, sources)

    def _check_source(self, source: Source, poses: Path | None) -> None:
        self.check_poses(poses)
        if source.is_live and poses is not None:
            raise InputError(
                f"--poses {poses}: {source.name} is seen while it goes on: take --pose_weights"
            )
        if source.is_live and self.settings.whole:
            raise InputError(f"--whole needs a video that ends, {source.name} may not")

    def _check_rows(self, stage: PoseStage, source: Source, is_stopped: Callable[[], bool]) -> None:
        """Make sure beforehand that keypoints have a row for each frame of all of the video."""
        if not isinstance(stage, GivenPoses):
            return
        times = source.times()
        if times is None or len(times) == stage.num_frames:
            return
        # What a file says of itself may be wrong, so that its frames are counted.
        decoder = Decoder(source, None, is_stopped=is_stopped)
        count = decoder.count()
        if decoder.is_complete:
            stage.check_length(count)

    def _pose_stage(self, source: Source, poses: Path | None) -> PoseStage:
        if poses is not None:
            return GivenPoses(find_pose_file(poses, source), self.layout, source.name)
        if self.estimator is None:
            return NoPoses()
        return EstimatedPoses(
            self.estimator, self._pose_every, self._pose_batch, source.is_live, self.layout
        )

    def _as_source(self, source: Source | Path | str) -> Source:
        if isinstance(source, str | Path):
            (source,) = _only(find_sources([str(source)]), str(source))
        if isinstance(source, ImageFolder) and source.fps is None:
            return replace(source, fps=self._facts.get("fps") or USUAL_RATE)
        return source

    def _notes_on(self, source: Source) -> list[str]:
        notes = []
        _, text = self._cutter(source)
        if text:
            notes.append(text)
        rate, trained = source.rate(), self._facts.get("fps")
        is_timed = self._spec.interval is not None
        if is_timed and rate and trained and not 0.8 <= rate / trained <= 1.25:
            notes.append(
                f"the model takes frames {self._spec.interval} apart and was trained at "
                f"{trained:g} frames per second, the video has {rate:g}: things look faster or "
                "slower to it"
            )
        return notes

    # ------------------------------------------------------------ the parts

    def _cutter(self, source: Source) -> tuple[Cutter, str]:
        """Return what cuts windows, and in words how; "" where there is nothing to say."""
        if self.settings.whole:
            return WholeVideo(), ""
        length, why = self._window_seconds(source)
        stride = self.settings.stride_seconds or length / 2
        text = f"windows of {length:.2f} s ({why}), one every {stride:.2f} s"
        return SlidingWindows(length, stride), text

    def _window_seconds(self, source: Source) -> tuple[float, str]:
        if self.settings.window_seconds is not None:
            return self.settings.window_seconds, "as asked"
        seconds, frames = (self._facts.get(name) for name in ("clip_seconds", "clip_frames"))
        if seconds:
            return _even(seconds, source.rate()), "the median training clip"
        if frames:
            rate = source.rate() or USUAL_RATE
            return (
                frames / rate,
                f"the median training clip, {frames:g} frames at {rate:g} a second",
            )
        return _USUAL_WINDOW, "the checkpoint does not say how long its training clips were"

    def _crops(self, source: Source, size: tuple[int, int]) -> tuple[Crop, ...]:
        spec = self._spec
        crops = eval_geometries(
            *size, spec.input_size, self.settings.test_crops, spec.field_of_view
        )
        return tuple(map(Crop, reduce_decoding(crops) if can_reduce(source) else crops))

    def _decoder(
        self,
        source: Source,
        plan: frozenset[int] | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Decoder:
        crops = partial(self._crops, source) if self._spec.has_frames else None
        if self._follows_people:
            return Decoder(source, None, plan, self.settings.seconds, is_stopped, whole=True)
        return Decoder(source, crops, plan, self.settings.seconds, is_stopped)

    @property
    def _follows_people(self) -> bool:
        """Say whether the frames are cut around the people of a window."""
        seen = self._spec.skeleton
        return seen is not None and seen.frame_share is not None

    def _plan(self, source: Source) -> frozenset[int] | None:
        """Return the frames that the network will see, by what the file says; None: all may be."""
        if not self._spec.has_frames:
            return None
        times = source.times()
        if times is None:
            return self._exact_plan(source)
        limit = self.settings.seconds
        seen = [moment for moment in times if limit is None or moment < limit]
        cutter, _ = self._cutter(source)
        spans = [span for moment in seen for span in cutter.add(moment)]
        spans += cutter.end(video_length(seen[-RECENT:])) if seen else []
        return frozenset(number for span in spans for number in self._picked(span))

    def _exact_plan(self, source: Source) -> frozenset[int] | None:
        """Return the frames of a whole video by decoding it; None for windows: any may be."""
        if not self.settings.whole:
            return None
        count = self._decoder(source).count()
        return frozenset(self._picked(Span(0.0, 0.0, 0, count - 1)))

    def _picked(self, span: Span) -> list[int]:
        count = span.last - span.first + 1
        used, _ = pick_frames(self._spec, count, self.settings.num_clips)
        return (used + span.first).tolist()

    def _scorer(self, source: Source, size: tuple[int, int]) -> Scorer:
        overlap = not self.settings.whole and self.settings.share
        return Scorer(
            self.network,
            self._crops(source, size),
            size,
            self.layout,
            self.settings.batch_size,
            share=overlap and self._spec.has_frames,
        )


@dataclass(frozen=True, slots=True)
class _Extent:
    """How much was seen: frames, seconds, (width, height)."""

    count: int
    duration: float
    size: tuple[int, int]


def _watch(
    frames: Iterable[Seen], cutter: Cutter, make_asker: Callable[[tuple[int, int]], Asker]
) -> tuple[_Extent, Asker]:
    """Take all frames through windows and network."""
    last: Seen | None = None
    recent: deque[float] = deque(maxlen=RECENT)
    asker: Asker | None = None
    for last in frames:
        asker = asker or make_asker(last.size)
        for span in cutter.add(last.seconds):
            asker.add(span)
        asker.see(last, cutter.oldest)
        recent.append(last.seconds)
    if last is None or asker is None:
        raise InputError("no frame was seen before the end: give it more time")
    duration = video_length(recent)
    for span in cutter.end(duration):
        asker.add(span)
    asker.ask()
    return _Extent(last.number + 1, duration, last.size), asker


def _even(seconds: float, rate: float | None) -> float:
    """Round a length to an even number of frames: windows half of it apart then share frames."""
    return 2 * max(round(seconds * rate / 2), 1) / rate if rate else seconds


def _only(sources: list[Source], name: str) -> list[Source]:
    if len(sources) != 1:
        raise InputError(f"{name} holds {len(sources)} videos: predict them one by one")
    return sources
