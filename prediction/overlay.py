"""A video with what is said of it: skeletons, probabilities, events, and where one is in time.

Below each picture stand the bars of the likeliest classes (of several people: a bar each) and a
time line with the events. The picture itself carries the skeletons and the running events.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from errors import InputError
from ops.skeleton import COCO17, SkeletonLayout
from prediction.lettering import letters, line_height, write
from prediction.results import Event, VideoResult
from prediction.style import (
    GREY,
    Colour,
    by_track,
    class_colours,
    clock,
    person_colour,
    probability_curve,
    shorten,
)
from prediction.video_writer import writing_video

# Smaller videos are enlarged so that text can be read, larger ones reduced so that they play.
SMALLEST, LARGEST = 640, 3840
_NARROWEST = 320  # of a tall video: the rest is left empty
_MOST_ROWS, _MOST_BANNERS = 4, 3
_GROUND, _GROOVE, _TEXT = (24, 26, 30), (62, 66, 74), (235, 235, 235)
_SHIFT = 4  # cv2 draws in 1/16 pixels
_FAR = 30_000  # pixels; what lies beyond would not fit into cv2's whole numbers


def write_annotated(
    path: Path,
    frames: Iterable[tuple[float, np.ndarray]],
    result: VideoResult,
    layout: SkeletonLayout = COCO17,
    threshold: float | None = None,
    threads: int | None = None,
) -> int:
    """Write the annotated video as MP4: H.264 where this PyAV can, else MPEG-4.

    Frames are encoded as they come, so memory does not grow with the video's length, but for the
    index of the MP4. Their time stamps and the total length are kept, also of a variable frame
    rate. The sound is not copied.

    Args:
        path: of the MP4. It is there whole or not at all.
        frames: (seconds, (H, W, 3) uint8 RGB as shown) of every frame of the video, in order.
        result: what is said of the video; `poses` in pixels of these frames.
        layout: of the keypoints.
        threshold: of events, drawn as a mark in the bars; None draws none.
        threads: of the encoder; None for the cores of this machine, 4 at most.

    Returns:
        The number of frames written.

    Raises:
        InputError: there is no frame, or `frames` raises it.
        OSError: the file cannot be written, as when the disk is full.
    """
    timed = _with_lengths(iter(frames), result)
    first = next(timed, None)
    if first is None:
        raise InputError(f"{result.source} has no frame to annotate: it should have at least one")
    painter = Painter(result, first[2].shape[1::-1], layout, threshold)
    with writing_video(path, painter.size, result.fps, threads) as video:
        number = 0
        while first is not None:
            seconds, length, picture = first
            video.write(painter.paint(number, seconds, picture), seconds, length)
            number, first = number + 1, next(timed, None)
    return number


def _with_lengths(
    frames: Iterator[tuple[float, np.ndarray]], result: VideoResult
) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield (seconds, length, picture): each frame is shown until the next or the video's end."""
    usual = 1 / result.fps if result.fps > 0 else 0.04
    last: tuple[float, np.ndarray] | None = None
    for frame in frames:
        if last is not None:
            yield last[0], frame[0] - last[0], last[1]
        last = frame
    if last is not None:
        rest = result.duration - last[0]
        yield last[0], rest if rest > 0 else usual, last[1]


class Painter:
    """Paints frames of one video.

    Attributes:
        size: (width, height) of the pictures that `paint` returns, both even.
    """

    def __init__(
        self,
        result: VideoResult,
        size: tuple[int, int],
        layout: SkeletonLayout,
        threshold: float | None = None,
    ) -> None:
        self._result, self._layout = result, layout
        longest = max(size)
        scale = min(max(1.0, SMALLEST / longest), LARGEST / longest)
        self._picture = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        width = max(_NARROWEST, self._picture[0] + self._picture[0] % 2)
        self._font = max(12, round(14 + (width - 640) / 90))
        self._panel = Panel(result, width, self._font, threshold)
        height = self._picture[1] + self._panel.height
        self.size = (width, height + height % 2)
        self._left = (width - self._picture[0]) // 2
        self._canvas = np.full((self.size[1], width, 3), _GROUND, np.uint8)
        self._events = sorted(result.events, key=lambda event: event.start)
        self._starts = [event.start for event in self._events]
        self._longest = max((event.end - event.start for event in self._events), default=0.0)
        self._colours = class_colours(result)
        self._is_crowd = len(result.tracks) > 1

    def paint(self, number: int, seconds: float, picture: np.ndarray) -> np.ndarray:
        """Return the annotated frame (H, W, 3) uint8; the next call overwrites it.

        Args:
            number: of the frame, 0-based.
            seconds: when it is shown.
            picture: (h, w, 3) uint8 RGB.
        """
        width, height = self._picture
        view = self._canvas[:height, self._left : self._left + width]
        if picture.shape[1::-1] == self._picture:
            view[...] = picture
        else:
            is_smaller = picture.shape[1] < width
            how = cv2.INTER_CUBIC if is_smaller else cv2.INTER_AREA
            view[...] = cv2.resize(picture, self._picture, interpolation=how)
        self._draw_people(view, number, np.divide(self._picture, picture.shape[1::-1]))
        self._draw_banners(view, seconds)
        self._panel.draw(self._canvas[height:], seconds)
        return self._canvas

    def _draw_people(self, view: np.ndarray, number: int, factors: np.ndarray) -> None:
        poses = self._result.poses
        if poses is None or number >= len(poses):
            return
        thick = max(2, self._font // 7)
        for track, person in enumerate(poses.at(number)):
            seen = person[:, 2] > 0
            if not seen.any():
                continue
            places = np.clip(person[:, :2] * factors, -_FAR, _FAR)
            colour = person_colour(track)
            draw_skeleton(view, places, seen, self._layout, colour, thick)
            x, y = places[seen, 0].mean(), places[seen, 1].min()
            self._name_person(view, str(track), (x, y - thick), colour)

    def _name_person(
        self, view: np.ndarray, name: str, place: tuple[float, float], colour: Colour
    ) -> None:
        width, height = letters(name, self._font).shape[1], line_height(self._font)
        pad = self._font // 4
        x = int(np.clip(place[0] - width / 2, pad, max(view.shape[1] - width - pad, pad)))
        y = int(np.clip(place[1] - height, 0, max(view.shape[0] - height, 0)))
        view[y : y + height, max(x - pad, 0) : x + width + pad] = colour
        write(view, name, (x, y), self._font, (0, 0, 0))

    def _running(self, seconds: float) -> list[Event]:
        before = bisect_right(self._starts, seconds)
        first = bisect_right(self._starts, seconds - self._longest - 1e-9)
        return [event for event in self._events[first:before] if seconds < event.end]

    def _draw_banners(self, view: np.ndarray, seconds: float) -> None:
        running = self._running(seconds)
        font, pad = round(self._font * 1.3), self._font // 2
        y = pad
        for event in running[:_MOST_BANNERS]:
            who = f"{event.track}  " if self._is_crowd else ""
            text = f"{who}{shorten(event.label)}  {event.probability:.0%}"
            colour = self._colours[self._result.classes.index(event.label)]
            right = min(view.shape[1], 3 * pad + letters(text, font).shape[1])
            view[y : y + line_height(font) + pad // 2, pad:right] = colour
            write(view[:, :right], text, (2 * pad, y + pad // 4), font, _ink(colour))
            y += line_height(font) + pad
        more = len(running) - _MOST_BANNERS
        if more > 0:
            write(view, f"+ {more}", (2 * pad, y), font, _TEXT)


def draw_skeleton(
    picture: np.ndarray,
    places: np.ndarray,
    seen: np.ndarray,
    layout: SkeletonLayout,
    colour: Colour,
    thick: int,
) -> None:
    """Draw bones and joints into a picture.

    Args:
        picture: (H, W, 3) uint8, changed in place.
        places: (V, 2) pixels of the picture; pixel i covers [i, i + 1).
        seen: (V,) bool, which joints were found.
        layout: which of them bones connect.
        colour: RGB, 0-255.
        thick: width of the bones, pixels.
    """
    points = (places * 16 - 8).round().astype(int).tolist()
    for a, b in layout.edges:
        if seen[a] and seen[b]:
            cv2.line(picture, points[a], points[b], colour, thick, cv2.LINE_AA, _SHIFT)
    for point, is_seen in zip(points, seen, strict=True):
        if is_seen:
            cv2.circle(picture, point, (thick + 1) * 16, colour, -1, cv2.LINE_AA, _SHIFT)


class Panel:
    """What stands below the picture: bars of probabilities, and the time line of all events.

    It is drawn anew only when other windows cover the moment; the cursor and the clock move on.

    Attributes:
        height: pixels.
    """

    def __init__(self, result: VideoResult, width: int, font: int, threshold: float | None) -> None:
        self._result, self._width, self._font, self._threshold = result, width, font, threshold
        self._colours = class_colours(result)
        tracks = by_track(result.windows)
        self._shown = list(tracks)[:_MOST_ROWS]
        self._curves = [probability_curve(tracks[track]) for track in self._shown]
        self._edges = [edges.tolist() for edges, _ in self._curves]
        num_classes = len(result.classes)
        rows = len(self._shown) if len(tracks) > 1 else min(num_classes, _MOST_ROWS)
        self._row, self._pad = round(font * 1.5), font // 2
        self._strip = max(6, font // 2)
        self._line_top = 2 * self._pad + rows * self._row
        strips = max(1, len(self._shown)) * (self._strip + 2)
        self.height = self._line_top + max(strips, line_height(font)) + self._pad
        self._line_end = width - letters("0:00:00.0 ", font).shape[1] - self._pad
        self._line = self._draw_line()
        self._pieces: list[int] | None = None

    def draw(self, area: np.ndarray, seconds: float) -> None:
        """Draw the panel of a moment into (height or one more, width, 3) uint8."""
        pieces = [bisect_right(edges, seconds) - 1 for edges in self._edges]
        if pieces != self._pieces:
            self._pieces = pieces
            area[...] = _GROUND
            self._draw_bars(area, pieces)
        line = area[self._line_top : self.height]
        line[...] = self._line
        x = self._place(seconds)
        line[: len(line) - self._pad + 2, max(x - 1, 0) : x + 2] = _TEXT
        place = (self._line_end + self._pad, 0)
        write(line, clock(seconds), place, self._font, _TEXT)

    def _place(self, seconds: float) -> int:
        length = self._line_end - self._pad
        share = seconds / self._result.duration if self._result.duration > 0 else 0.0
        return self._pad + round(min(max(share, 0.0), 1.0) * length)

    def _draw_line(self) -> np.ndarray:
        line = np.full((self.height - self._line_top, self._width, 3), _GROUND, np.uint8)
        for row, track in enumerate(self._shown or [0]):
            top = row * (self._strip + 2)
            strip = line[top : top + self._strip]
            strip[:, self._pad : self._line_end] = _GROOVE
            for event in self._result.events:
                if event.track == track:
                    left = self._place(event.start)
                    right = max(self._place(event.end), left + 2)
                    label = self._result.classes.index(event.label)
                    strip[:, left:right] = self._colours[label]
        return line

    def _draw_bars(self, area: np.ndarray, pieces: list[int]) -> None:
        now = [
            _values_at(values, piece)
            for (_, values), piece in zip(self._curves, pieces, strict=True)
        ]
        if len(now) > 1:
            for row, (track, chances) in enumerate(zip(self._shown, now, strict=True)):
                label = int(np.nan_to_num(chances, nan=-1.0).argmax())
                name = f"{track}  {shorten(self._result.classes[label], 20)}"
                self._draw_bar(area, row, name, label, chances[label])
                top = self._pad + row * self._row + self._font // 4
                area[top : top + self._font, 2 : self._pad] = person_colour(track)
        elif now:
            for row, label in enumerate(_rows_of(now[0])):
                name = shorten(self._result.classes[label], 22)
                self._draw_bar(area, row, name, label, now[0][label])

    def _draw_bar(self, area: np.ndarray, row: int, name: str, label: int, chance: float) -> None:
        top, font = self._pad + row * self._row, self._font
        left, right = round(self._width * 0.34), self._width - letters("100% ", font).shape[1]
        right -= 2 * self._pad
        write(area[:, : left - self._pad], name, (self._pad + 4, top), font, _TEXT)
        high = slice(top + font // 4, top + font + font // 8)
        area[high, left:right] = _GROOVE
        if np.isnan(chance):
            write(area, "–", (right + self._pad, top), font, GREY)
            return
        area[high, left : left + round((right - left) * float(chance))] = self._colours[label]
        if self._threshold is not None:
            x = left + round((right - left) * min(max(self._threshold, 0.0), 1.0))
            area[high, x : x + max(1, font // 10)] = _TEXT
        write(area, f"{chance:.0%}", (right + self._pad, top), font, _TEXT)


def _rows_of(chances: np.ndarray) -> list[int]:
    """Return the labels to draw: all of a few classes, of many the likeliest, best first."""
    if len(chances) <= _MOST_ROWS:
        return list(range(len(chances)))
    return np.argsort(-np.nan_to_num(chances, nan=-1.0), kind="stable")[:_MOST_ROWS].tolist()


def _values_at(values: np.ndarray, piece: int) -> np.ndarray:
    """Return the (K,) probabilities of a piece of a curve, NaN before its start and after its end.

    The end itself counts as the last piece: the last frame may be shown there.
    """
    if piece == len(values):
        piece -= 1
    return values[piece] if 0 <= piece < len(values) else np.full(values.shape[1], np.nan)


def _ink(colour: Colour) -> Colour:
    """Return black or white, which is better read on a colour."""
    return (0, 0, 0) if np.dot(colour, (0.3, 0.59, 0.11)) > 120 else (255, 255, 255)
