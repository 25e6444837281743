"""Frames of a source made ready for the stages behind, in a thread of their own."""

from collections.abc import Callable, Generator
from contextlib import closing

import numpy as np

from datasets.views import Crop, CutFrames
from errors import InputError
from prediction.frames import Frame, Source, check_size
from prediction.posing import Seen

# Makes the crops of frames of a size, (width, height).
Crops = Callable[[tuple[int, int]], tuple[Crop, ...]]


class Decoder:
    """Reads a source as far as it goes, crops and resizes each frame once.

    Args:
        source: to read.
        crops: None where the network sees no frames.
        wanted: numbers of the frames to crop; None is all.
        seconds: stop there; None reads to the end.
        is_stopped: says that the user wants no more.
        whole: keep wanted frames as they are: what is cut out of them is not known yet.

    Attributes:
        fault: why the source could not be read to its end; "" where it could.
        is_complete: the source was read to its end.
    """

    def __init__(
        self,
        source: Source,
        crops: Crops | None,
        wanted: frozenset[int] | None = None,
        seconds: float | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
        whole: bool = False,
    ) -> None:
        self._whole = whole
        self._source, self._make_crops, self._wanted = source, crops, wanted
        self._seconds, self._is_stopped = seconds, is_stopped
        self._size: tuple[int, int] | None = None
        self._crops: tuple[Crop, ...] = ()
        self.fault = ""
        self.is_complete = False

    def frames(self, every: int = 0) -> Generator[Seen, None, None]:
        """Yield the frames.

        Args:
            every: keep the picture of one frame in so many for the pose estimator; 0: of none.

        Raises:
            InputError: not even the first can be read.
        """
        for number, frame in self._frames():
            yield self._seen(number, frame, bool(every) and number % every == 0)

    def count(self) -> int:
        """Return how many frames there are to read, which looks at all of them.

        Raises:
            InputError: not even the first can be read.
        """
        return sum(1 for _ in self._frames())

    def _frames(self) -> Generator[tuple[int, Frame], None, None]:
        number = 0
        try:
            with closing(self._source.frames()) as frames:
                for frame in frames:
                    if self._is_over(frame):
                        return
                    self._settle(frame, number)
                    yield number, frame
                    number += 1
        except InputError as error:
            if not number:
                raise
            self.fault = str(error)
            return
        if not number:
            raise InputError(f"{self._source.name} holds no frame: it should be a video")
        self.is_complete = True

    def _is_over(self, frame: Frame) -> bool:
        return self._is_stopped() or (self._seconds is not None and frame.seconds >= self._seconds)

    def _settle(self, frame: Frame, number: int) -> None:
        if self._size is None:
            self._size = frame.size
            self._crops = self._make_crops(frame.size) if self._make_crops else ()
        check_size(frame, self._size, self._source.name, number)

    def _seen(self, number: int, frame: Frame, is_posed: bool) -> Seen:
        seen = Seen(number, frame.seconds, frame.size)
        is_wanted = self._wanted is None or number in self._wanted
        seen.picture = frame.picture() if is_posed else None
        if self._whole and is_wanted:
            seen.crops = (frame.picture() if seen.picture is None else seen.picture)[None]
        elif self._crops and is_wanted:
            picture = self._picture_for_crops(frame, seen.picture)
            seen.crops = np.concatenate(list(CutFrames([picture], 1, self._crops)))
        return seen

    def _picture_for_crops(self, frame: Frame, whole: np.ndarray | None) -> np.ndarray:
        """Return a picture of the size that tests would decode, whoever else sees the frame."""
        reduction = self._crops[0].geometry.reduction
        if reduction > 1 and frame.reduced is not None:
            return frame.reduced(reduction)
        return frame.picture() if whole is None else whole
