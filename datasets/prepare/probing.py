"""What a video really holds.

Headers are not believed: a video is decoded once from end to end before its frames are counted.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from datasets.video_files import (
    Damaged,
    OpenVideo,
    check_file,
    decode_frames,
    open_video,
    orientation_of,
    overhear_decoder,
    shown_size,
)
from datasets.videos import checksum
from errors import InputError

_CHUNK = 2**20
# Seconds by which a header may exceed what is there before it counts as an early end.
_SLACK = 0.5
# Formats whose header says nothing of their length: FFmpeg finds it from what is there.
_UNPROMISING = frozenset({"mpegts", "mpeg", "mpegvideo", "m4v", "h264", "hevc", "obu"})
# Codecs with a check sum in each frame: what they report is damage to the frame that comes next.
_CHECKED = frozenset({"ffv1"})
# A video is steady but for gaps if they are at most this share of its steps in time.
_MOST_GAPS = 0.1
# Frames at the end of a video that a decoder may have put in order: more than any holds back.
_TAIL = 8


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """How much of a video is looked at before it is refused.

    Attributes:
        seconds: longest duration.
    """

    seconds: float = 4 * 3600.0

    @property
    def frames(self) -> int:
        """Return the most frames: 120 a second."""
        return int(self.seconds * 120)

    def refuse(self, path: Path, seconds: float) -> InputError:
        """Return the complaint about a video of this length."""
        return InputError(
            f"{path} lasts {seconds / 3600:.1f} hours or more, at most {self.seconds / 3600:g} "
            "are read: cut it into parts, or raise --max_hours"
        )


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video holds, found by decoding all of it.

    Attributes:
        codec: its name.
        width: as shown, pixels.
        height: as shown, pixels.
        fps: mean frames per second, by time stamps where they are usable; 0 when not known.
        header_fps: what the header says; 0 when it says nothing.
        is_variable: the time between frames varies.
        has_times: every frame has a time stamp, each later than the one before.
        time_base: seconds of a unit of time stamps.
        pts: (N,) int64 time stamps in order of presentation, 0 where there is none.
        sums: (N,) uint32 check sums of what was decoded.
        keyframes: (n,) int64 numbers of the frames that can be decoded alone.
        sha256: of the file.
        notes: what is worth knowing, in words: where it ends early, how it is turned.
        ends_early: it is damaged or cut after these frames.
    """

    codec: str
    width: int
    height: int
    fps: float
    header_fps: float
    is_variable: bool
    has_times: bool
    time_base: Fraction
    pts: np.ndarray
    sums: np.ndarray
    keyframes: np.ndarray
    sha256: str
    notes: tuple[str, ...]
    ends_early: bool

    @property
    def num_frames(self) -> int:
        """Return the number of whole frames, N."""
        return len(self.pts)

    @property
    def seconds(self) -> float:
        """Return from the first frame to the end of the last; 0 when not known."""
        last = float(self.times()[-1])
        return last + 1 / self.fps if self.fps else last

    def times(self) -> np.ndarray:
        """Return when each frame is shown, (N,) seconds after the first.

        Without usable time stamps: by the frame rate; all 0 when that is not known either.
        """
        if self.has_times:
            return (self.pts - self.pts[0]) * float(self.time_base)
        return np.arange(self.num_frames) / self.fps if self.fps else np.zeros(self.num_frames)


def probe_video(
    path: Path, limits: VideoLimits | None = None, sha256: str | None = None
) -> VideoInfo:
    """Decode a video from end to end and say what it holds.

    Args:
        path: the video.
        limits: how much of it is looked at.
        sha256: of the file, where it is known already.

    Raises:
        InputError: it is no video, has no whole frame, changes its size, or is over the limits.
    """
    limits = limits or VideoLimits()
    with open_video(path) as video:
        _check_duration(video, limits)
        tally = _Tally(path)
        try:
            for frame in _decode_heard(video, tally):
                tally.add(frame)
                if len(tally.pts) > limits.frames or tally.seconds(video) > limits.seconds:
                    raise limits.refuse(path, tally.seconds(video))
        except Damaged as error:
            if not tally.pts:
                raise
            tally.end = error.reason
        if not tally.pts:
            raise InputError(f"{path} has no frame that can be decoded: leave it out")
        return tally.conclude(video, sha256 or hash_file(path))


def _decode_heard(video: OpenVideo, tally: "_Tally") -> Iterator[av.VideoFrame]:
    with overhear_decoder() as reports:
        try:
            for frame in decode_frames(video):
                if reports and video.stream.codec_context.name in _CHECKED:
                    raise Damaged(video.path, "has a damaged frame")
                tally.hear(reports)
                yield frame
        finally:
            tally.hear(reports)


def _check_duration(video: OpenVideo, limits: VideoLimits) -> None:
    seconds = _header_seconds(video)
    if seconds > limits.seconds:
        raise limits.refuse(video.path, seconds)


def _header_seconds(video: OpenVideo) -> float:
    """Return the duration that the header claims; 0 when it claims none."""
    stream, container = video.stream, video.container
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


class _Tally:
    """Collects what one pass over a video shows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pts: list[int] = []
        self.sums: list[int] = []
        self.keyframes: list[int] = []
        self.end = ""
        self.lacks_times = False
        self._num_reports, self._report = 0, ""
        self._first: av.VideoFrame | None = None
        self._size = (0, 0)

    def add(self, frame: av.VideoFrame) -> None:
        size = shown_size(frame)
        if self._first is None:
            self._first, self._size = frame, size
        if size != self._size:
            raise InputError(
                f"{self.path} changes from {self._size[0]}x{self._size[1]} to {size[0]}x{size[1]} "
                "pixels: export it again at one size"
            )
        if frame.key_frame:
            self.keyframes.append(len(self.pts))
        self.lacks_times |= frame.pts is None
        self.pts.append(frame.pts or 0)
        self.sums.append(checksum(frame))

    def hear(self, reports: list[tuple[int, str, str]]) -> None:
        """Count what the decoder reported, and keep the first of it."""
        if reports and not self._num_reports:
            self._report = f"{reports[0][1]}: {' '.join(reports[0][2].split())[:80]}"
        self._num_reports += len(reports)
        reports.clear()

    def seconds(self, video: OpenVideo) -> float:
        return (self.pts[-1] - self.pts[0]) * float(video.stream.time_base or 0)

    def conclude(self, video: OpenVideo, sha256: str) -> VideoInfo:
        assert self._first is not None
        promised, base = _header_seconds(video), video.stream.time_base or Fraction(0)
        is_complete = len(self.pts) == video.stream.frames  # as many as its index lists
        counted_on = 0.0 if video.container.format.name in _UNPROMISING else promised
        if not self.end and not is_complete and self._trim(counted_on, float(base)):
            self.end = "ends with a gap in time, as a cut video does,"
        pts = np.array(self.pts, np.int64)
        steps = np.diff(pts)
        has_times = not self.lacks_times and bool((steps > 0).all()) and base > 0
        header_fps = float(video.stream.average_rate or 0)
        by_times = has_times and len(steps) > 0
        fps = float(1 / (steps.mean() * float(base))) if by_times else header_fps
        end = self._end_note(promised, fps)
        gaps = _gap_note(steps, float(base)) if by_times and not is_complete else ""
        damage: tuple[str, ...] = ()
        if not end:
            listed = video.stream.frames
            order = "has time stamps that are out of order, which are not used"
            # Those of AVI are counted, not stored, and go back in healthy files.
            is_stored = not self.lacks_times and base > 0 and video.container.format.name != "avi"
            is_disordered = is_stored and not has_times
            damage = self._report_note(), self._index_note(listed), order * is_disordered
        turn, aspect = orientation_of(self._first).text, _aspect_note(video.stream)
        notes = (end, *damage, gaps, turn, aspect)
        return VideoInfo(
            codec=video.stream.codec_context.name,
            width=self._size[0],
            height=self._size[1],
            fps=fps,
            header_fps=header_fps,
            is_variable=by_times and _varies(steps),
            has_times=has_times,
            time_base=base,
            pts=pts,
            sums=np.array(self.sums, np.uint32),
            keyframes=np.array(self.keyframes, np.int64),
            sha256=sha256,
            notes=tuple(note for note in notes if note),
            ends_early=bool(end),
        )

    def _trim(self, promised: float, base: float) -> bool:
        """Drop the last frames behind a gap in time; return whether there was one.

        Where a video is cut, the decoder gives frames out of order that come after missing ones.
        A gap counts if the video is shorter than promised: by any frame where it is steady
        elsewhere, by much where it is not. Without a promise it counts if all else is steady.

        Args:
            promised: seconds; 0 when nothing says how long the video was before it was cut.
            base: seconds of a unit of time stamps.
        """
        steps = np.diff(np.array(self.pts, np.int64))
        if self.lacks_times or len(steps) <= _TAIL or (steps <= 0).any():
            return False
        usual = float(np.median(steps))
        is_gap = steps > int(1.5 * usual + 1)
        short = promised - (self.pts[-1] - self.pts[0] + usual) * base
        if is_gap[:-_TAIL].any():
            is_cut = short > _SLACK
        else:
            is_cut = not promised or short > min(1.5 * usual * base, _SLACK)
        if not is_cut or not is_gap[-_TAIL:].any():
            return False
        kept = len(steps) - _TAIL + int(is_gap[-_TAIL:].argmax()) + 1
        del self.pts[kept:], self.sums[kept:]
        self.keyframes = [number for number in self.keyframes if number < kept]
        return True

    def _report_note(self) -> str:
        if not self._num_reports:
            return ""
        times = "once" if self._num_reports == 1 else f"{self._num_reports} times"
        return f"made its decoder complain {times} ({self._report}): pictures may be damaged"

    def _index_note(self, listed: int) -> str:
        number = len(self.pts)
        return f"gives {number} of the {listed} frames that it lists" if number < listed else ""

    def _end_note(self, promised: float, fps: float) -> str:
        number = len(self.pts)
        if self.end:
            return f"{self.end} after {number} frames, which are used"
        if fps and promised - number / fps > _SLACK:
            return (
                f"ends after {number} frames ({number / fps:.1f} s), which are used; its header "
                f"promises {promised:.1f} s"
            )
        return ""


def _aspect_note(stream: av.VideoStream) -> str:
    aspect = stream.sample_aspect_ratio
    if not aspect or aspect == 1:
        return ""
    return f"has pixels that are shown {float(aspect):.3g} times as wide as high, used as stored"


def _gap_note(steps: np.ndarray, base: float) -> str:
    """Say where an otherwise steady video has gaps in time; empty where it has none.

    Args:
        steps: (N - 1,) between time stamps, all above 0.
        base: seconds of a unit of them.
    """
    usual = float(np.median(steps))
    is_gap = steps > int(1.5 * usual + 1)
    places = np.flatnonzero(is_gap)
    if not 0 < len(places) <= max(1, _MOST_GAPS * len(steps)) or _varies(steps[~is_gap]):
        return ""
    missing = int(np.round(steps[is_gap] / usual - 1).sum())
    return (
        f"has {len(places)} gap{'s' * (len(places) > 1)} in time (the first after "
        f"{steps[: places[0]].sum() * base:.2f} s) where about {missing} frames "
        "may be missing: damaged, or recorded so"
    )


def _varies(steps: np.ndarray) -> bool:
    """Tell whether the time between frames varies by more than the rounding of time stamps."""
    spread = float(steps.max() - steps.min())
    return spread > 2 and spread > 0.1 * float(steps.mean())


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: it is no regular file, is empty, or cannot be read.
    """
    check_file(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): it should be a video"
        ) from None
    return digest.hexdigest()
