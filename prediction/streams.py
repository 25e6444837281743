"""Sources that go on while they are watched: addresses and cameras."""

import threading
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import av
import av.error
import cv2
import numpy as np

from datasets.video_files import MOST_PIXELS
from errors import InputError
from prediction.frames import USUAL_RATE, Frame, stated_rate, timed

SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp")
# What an address may lead to, as a playlist does: never files of this machine.
_PROTOCOLS = "http,https,httpproxy,tcp,tls,crypto,udp,rtp,srtp,rtsp,rtsps,rtmp"
_PATIENCE = 15.0  # seconds to wait for a server, or for the next frame
_WAITING = 4  # frames of a camera that may wait; older ones are dropped


@dataclass(frozen=True, slots=True)
class Stream:
    """A video at an address, read while it arrives."""

    address: str
    path = None
    is_live = True

    @property
    def name(self) -> str:
        """Return the address without what may be secret: user, password and query."""
        parts = urlsplit(self.address)
        host = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{host}{parts.path}"

    @property
    def stem(self) -> str:
        """Return the last part of the address that says something."""
        parts = urlsplit(self.address)
        last = Path(parts.path).stem
        return last if last.strip("/.") else parts.netloc.rpartition("@")[2].replace(":", "_")

    def rate(self) -> float | None:
        """Return None: to know it the address would have to be opened twice."""
        return None

    def times(self) -> list[float] | None:
        """Return None: nobody knows what will come."""
        return None

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the frames as they arrive; damaged ones are mended or left out by the decoder.

        Raises:
            InputError: the address cannot be opened, gives no video, or breaks off.
        """
        try:
            with av.open(
                self.address,
                timeout=_PATIENCE,
                container_options={"protocol_whitelist": _PROTOCOLS},
                metadata_errors="replace",
            ) as container:
                stream = container.streams.best("video")
                if not isinstance(stream, av.VideoStream):
                    raise InputError(f"{self.name} gives no picture: it should be a video")
                stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
                stream.codec_context.thread_count = 1
                decoded = container.decode(stream)
                yield from timed(decoded, stated_rate(stream) or USUAL_RATE)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"{self.name} cannot be read ({reason}): check the address, and that the server "
                "answers"
            ) from None


class Camera:
    """A camera of this machine, through OpenCV. Frames that nobody took in time are dropped.

    Args:
        index: of the camera, 0 is the first.

    Attributes:
        dropped: frames that came while the newest were still waiting.
    """

    path = None
    is_live = True

    def __init__(self, index: int) -> None:
        self.index = index
        self.dropped = 0
        self.name, self.stem = f"camera {index}", f"camera{index}"

    def rate(self) -> float | None:
        """Return None: the clock tells."""
        return None

    def times(self) -> list[float] | None:
        """Return None: nobody knows what will come."""
        return None

    def frames(self) -> Generator[Frame, None, None]:
        """Yield the newest frames until the camera ends; seconds are those of the clock.

        Raises:
            InputError: there is no such camera, or it stops to answer.
        """
        capture = cv2.VideoCapture(self.index)
        try:
            if not capture.isOpened():
                raise InputError(
                    f"--source {self.index}: there is no camera with this number that can be "
                    "opened; give another number, or a file"
                )
            yield from self._newest(capture)
        finally:
            capture.release()

    def _newest(self, capture: cv2.VideoCapture) -> Generator[Frame, None, None]:
        waiting: deque[tuple[float, np.ndarray]] = deque()
        news, is_over = threading.Condition(), threading.Event()

        def watch() -> None:
            while not is_over.is_set():
                is_there, image = capture.read()
                with news:
                    if not is_there:
                        is_over.set()
                    else:
                        if len(waiting) == _WAITING:
                            waiting.popleft()
                            self.dropped += 1
                        waiting.append((time.monotonic(), image))
                    news.notify()

        thread = threading.Thread(target=watch, name="camera", daemon=True)
        thread.start()
        try:
            yield from self._timed(waiting, news, is_over)
        finally:
            is_over.set()
            thread.join(timeout=_PATIENCE)

    def _timed(
        self,
        waiting: deque[tuple[float, np.ndarray]],
        news: threading.Condition,
        is_over: threading.Event,
    ) -> Generator[Frame, None, None]:
        first: float | None = None
        before = -1.0
        while True:
            with news:
                if not news.wait_for(lambda: waiting or is_over.is_set(), _PATIENCE):
                    raise InputError(f"{self.name} gave no frame for {_PATIENCE:.0f} seconds")
                if not waiting:
                    return
                moment, image = waiting.popleft()
            first = moment if first is None else first
            seconds = moment - first
            if seconds > before:
                before = seconds
                size = (image.shape[1], image.shape[0])
                rgb = np.ascontiguousarray(image[..., ::-1])
                yield Frame(seconds, size, partial(_picture, rgb))


def _picture(rgb: np.ndarray) -> np.ndarray:
    return rgb
