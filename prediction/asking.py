"""From frames and windows to questions for the network, and what its answers are about."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from datasets.views import InputSpec
from prediction.people import People, rank_people, tracks_of
from prediction.posing import Seen
from prediction.results import PoseTrack, Window
from prediction.scoring import Question, Scorer, pick_frames
from prediction.windows import Span

# Whoever was found in less of a window, besides the main athlete, is not asked about.
_LEAST_PRESENCE = 0.25


class UnplannedFrames(Exception):  # noqa: N818 - it is an event, not a fault
    """A window holds other frames than was known before the video was decoded."""


class Asker:
    """Keeps the frames that windows still need, asks about these, collects the answers.

    Args:
        people: most time lines at a time; None: everybody. 1 is the main athlete of each window:
            person 0 of a ranked numbering, or else whoever was there longest and largest.
        spec: what the network sees.
        is_ranked: people are numbered in order of importance already.
        scorer: asks the network.
        num_clips: samplings of each window.
        num_joints: V.
        batch_size: questions that are asked together.
        on_window: called with each answer.
        num_slots: numbers that ranked people may have; 0: not known.

    Attributes:
        seconds: that the network took, with preparing what it sees.
    """

    def __init__(
        self,
        people: int | None,
        spec: InputSpec,
        is_ranked: bool,
        scorer: Scorer,
        num_clips: int,
        num_joints: int,
        batch_size: int,
        on_window: Callable[[Window], None] | None,
        num_slots: int = 0,
    ) -> None:
        self._num_slots = num_slots
        self._people, self._spec, self._is_ranked = people, spec, is_ranked
        self._scorer, self._num_clips, self._num_joints = scorer, num_clips, num_joints
        self._batch_size, self._on_window = batch_size, on_window
        self._kept: deque[Seen] = deque()
        self._questions: list[Question] = []
        self._answers: list[tuple[Question, Window]] = []
        self._importance: defaultdict[int, float] = defaultdict(float)
        self._poses = PoseTrack(num_joints) if spec.has_poses else None
        self._nobody = 0  # windows without anybody
        self._others = 0  # windows where somebody stands in for an absent person 0
        self.seconds = 0.0

    # ------------------------------------------------------------ while frames come in

    def see(self, seen: Seen, oldest: int) -> None:
        """Take the next frame, and drop those before `oldest`."""
        self._kept.append(seen)
        if self._poses is not None:
            self._poses.append({who: person.joints for who, person in seen.people.items()})
        while self._kept[0].number < oldest:
            self._kept.popleft()

    def add(self, span: Span) -> None:
        """Ask about a window whose frames have all been seen, soon."""
        begin = self._kept[0].number
        frames = [self._kept[n - begin] for n in range(span.first, span.last + 1)]
        used, place = pick_frames(self._spec, len(frames), self._num_clips)
        images = self._images(frames, used) if self._spec.has_frames else None
        people = [seen.people for seen in frames]
        for who in self._choose(people, frames[0].size):
            tracks = None
            if self._spec.has_poses:
                shown = self._shown_with(who, people, frames[0].size)
                tracks = tracks_of(people, shown, self._num_joints)
            self._questions.append(Question(span, who, place, used, images, tracks))
        if len(self._questions) >= self._batch_size:
            self.ask()

    def ask(self) -> None:
        """Ask what is waiting."""
        begin = time.perf_counter()
        for start in range(0, len(self._questions), self._batch_size):
            part = self._questions[start : start + self._batch_size]
            for question, row in zip(part, self._scorer.ask(part), strict=True):
                self._answer(question, row)
        self._questions = []
        if self._kept:
            self._scorer.forget(self._kept[0].number)
        self.seconds += time.perf_counter() - begin

    def _answer(self, question: Question, row: np.ndarray) -> None:
        span = question.span
        track = 0 if self._people == 1 or question.who is None else question.who
        probabilities = tuple(map(float, row))
        window = Window(track, span.start, span.end, span.first, span.last, probabilities)
        self._answers.append((question_without_data(question), window))
        if self._on_window is not None:
            self._on_window(window)

    def _images(self, frames: Sequence[Seen], used: np.ndarray) -> np.ndarray:
        crops = [frames[row].crops for row in used]
        present = [crop for crop in crops if crop is not None]
        if len(present) < len(crops):
            raise UnplannedFrames
        return np.stack(present)

    def _choose(self, people: Sequence[People], size: tuple[int, int]) -> list[int | None]:
        """Return who is asked about in a window; [None] asks about the frames themselves."""
        if not self._spec.has_poses:
            return [None]
        found: list[int | None] = []
        found += self._main_athlete(people, size) if self._people == 1 else self._all(people, size)
        if not found:
            self._nobody += 1
        # Skeletons alone say nothing where there is none; a picture does.
        return found or ([None] if self._spec.has_frames else [])

    def _shown_with(
        self, who: int | None, people: Sequence[People], size: tuple[int, int]
    ) -> list[int | None]:
        """Return whose skeletons the network is shown, the one that is asked about first.

        Models of whole clips see several people; where everybody has a time line, each alone.
        """
        if self._spec.skeleton is None or self._people != 1:
            return [who]
        if not self._is_ranked:
            return [who, *(other for other in rank_people(people, size) if other != who)]
        # As a test: slot by slot, also those that are empty in this window.
        count = max(self._num_slots, *(slot + 1 for frame in people for slot in frame), 1)
        return [*([] if who is None else [who]), *(n for n in range(count) if n != who)]

    def _main_athlete(self, people: Sequence[People], size: tuple[int, int]) -> list[int]:
        if self._is_ranked and any(0 in frame for frame in people):
            return [0]  # as in tests
        main = list(rank_people(people, size))[:1]
        self._others += bool(main) and self._is_ranked
        return main

    def _all(self, people: Sequence[People], size: tuple[int, int]) -> list[int]:
        scores = rank_people(people, size)
        present = [
            who
            for who in (sorted(scores) if self._is_ranked else scores)
            if sum(who in frame for frame in people) >= _LEAST_PRESENCE * len(people)
        ][: self._people]
        for who in present:
            self._importance[who] += scores[who]
        return present

    # ------------------------------------------------------------ at the end

    def windows(self) -> tuple[Window, ...]:
        """Return all answers in order of track and time; people as `poses` shows them."""
        numbers = self._numbers()
        windows = [
            replace(window, track=numbers.get(window.track, window.track))
            for _, window in self._answers
        ]
        return tuple(sorted(windows, key=lambda w: (w.track, w.start, w.end)))

    def poses(self, num_frames: int) -> PoseTrack | None:
        """Return the keypoints of those whom the windows are about; None for RGB alone."""
        if self._poses is None:
            return None
        if self._people != 1:
            self._poses.assign(self._numbers())
        elif self._is_ranked and not self._others:
            self._poses.assign({0: 0})
        else:
            self._poses.follow(self._shown(num_frames))
        return self._poses

    def notes(self) -> list[str]:
        """Return what the user has to know."""
        notes = []
        if self._nobody:
            what = "the picture alone was asked" if self._spec.has_frames else "no answer there"
            notes.append(f"nobody was found in {self._nobody} windows: {what}")
        if self._others:
            notes.append(
                f"the keypoints have no person 0 in {self._others} windows: asked about the main "
                "athlete among the others there; --people all asks about everybody"
            )
        cache = self._scorer.cache
        if cache is not None and cache.computed < cache.asked:
            notes.append(
                f"{cache.split.what} of {cache.computed} frames were computed for the "
                f"{cache.asked} that windows asked for: what windows share is done once"
            )
        return notes

    def _numbers(self) -> dict[int, int]:
        """Return person -> track, the main athlete first."""
        if self._people == 1 or self._is_ranked:
            return {who: who for who in self._importance}
        order = sorted(self._importance, key=lambda who: (-self._importance[who], who))
        return {who: track for track, who in enumerate(order)}

    def _shown(self, num_frames: int) -> np.ndarray:
        """Return (N,) who is the main athlete of each frame: that of the nearest window."""
        if not self._answers:
            return np.full(num_frames, -1)
        pairs = sorted(
            ((w.first_frame + w.last_frame) / 2, -1 if q.who is None else q.who)
            for q, w in self._answers
        )
        middles = np.array([middle for middle, _ in pairs])
        borders = (middles[1:] + middles[:-1]) / 2
        return np.array([who for _, who in pairs])[np.searchsorted(borders, np.arange(num_frames))]


def question_without_data(question: Question) -> Question:
    """Return a question without frames and keypoints, which would fill the memory."""
    return replace(question, images=None, tracks=None, used=_NOTHING, place=_NOTHING)


_NOTHING = np.zeros(0, np.int64)
