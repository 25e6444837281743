"""Writing a video frame by frame: whole or not at all, with the time stamps that it is given."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from files import partial_of

# MPEG-4 allows no finer time than 1/65535 s; this one has whole numbers for all usual rates.
TIME_BASE = Fraction(1, 60_000)
# In order of preference. Browsers and phones play the first two. No frame refers to a later one
# (bf 0): packets are then in the order of presentation and their lengths are those of the frames.
ENCODERS = {
    "libx264": {
        "preset": "ultrafast",
        "crf": "23",
        "bf": "0",
        # What the fastest preset leaves out and costs little: smaller files, no blocks.
        "x264-params": "cabac=1:deblock=1,0,0",
    },
    "libopenh264": {},
    "mpeg4": {},
}
_BITS_PER_PIXEL = 0.12  # of encoders that take no quality
_SYSTEM_ERRORS = 200  # numbers of errors from here on are FFmpeg's own
_BT709 = 1  # the number of its matrix, primaries and transfer in the files' own tables


class VideoWriter:
    """An MP4 that is open for writing; made by `writing_video`."""

    def __init__(
        self, container: av.container.OutputContainer, stream: av.VideoStream, threads: int
    ) -> None:
        self._container, self._stream, self._threads = container, stream, threads
        self._reformatter, self._last = VideoReformatter(), -1
        self._lengths: dict[int, int] = {}  # of frames that the encoder still holds

    def write(self, picture: np.ndarray, seconds: float, length: float) -> None:
        """Append a picture.

        Args:
            picture: (H, W, 3) uint8 RGB of the size that was agreed.
            seconds: when it is shown; one that is not after the last is moved behind it.
            length: for how long, in seconds; matters for the last picture.
        """
        # The same colours on every player: without a name, small videos are taken for BT.601.
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(picture, "rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=self._threads,
        )
        self._last = max(self._last + 1, round(seconds / TIME_BASE))
        frame.pts, frame.time_base = self._last, TIME_BASE
        self._lengths[self._last] = max(1, round(length / TIME_BASE))
        self._mux(frame)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._mux(None)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            # Encoders pass time stamps on, but not all of them lengths.
            if packet.pts is not None:
                packet.duration = self._lengths.pop(packet.pts, packet.duration)
            self._container.mux(packet)


def best_encoder() -> str:
    """Return the first of `ENCODERS` that this build of PyAV has."""
    for name in ENCODERS:
        with suppress(UnknownCodecError):
            Codec(name, "w")
            return name
    raise AssertionError("MPEG-4 is part of every FFmpeg")


@contextmanager
def writing_video(
    path: Path, size: tuple[int, int], fps: float, threads: int | None = None, crf: int = 23
) -> Iterator[VideoWriter]:
    """Open an MP4 that takes the place of `path` when the block ends without an error.

    Args:
        path: of the video; what was there stays until the new one is whole.
        size: (width, height), both even.
        fps: frames per second, as a hint to the encoder.
        threads: of the encoder; None for the cores of this machine, 4 at most.
        crf: how much H.264 may lose, from 0, nothing, to 51.

    Raises:
        OSError: it cannot be written, as when the disk is full; names `path`.
    """
    partial = partial_of(path)
    threads = threads or min(4, os.cpu_count() or 1)
    try:
        container = av.open(
            str(partial.absolute()), "w", format="mp4", options={"movflags": "+faststart"}
        )
        try:
            stream = _add_stream(container, size, fps, threads, crf)
            writer = VideoWriter(container, stream, threads)
            yield writer
            writer.finish()
        except BaseException:
            with suppress(OSError, ValueError):  # it cannot be finished, and need not be
                container.close()
            raise
        container.close()
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # PyAV's own errors name the partial file or none
        partial.unlink(missing_ok=True)
        if isinstance(error, av.error.FFmpegError) or error.filename is None:
            code = error.errno or 0
            reason = os.strerror(code) if 0 < code < _SYSTEM_ERRORS else str(error)
            raise OSError(code, reason, str(path)) from None
        raise
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _add_stream(
    container: av.container.OutputContainer,
    size: tuple[int, int],
    fps: float,
    threads: int,
    crf: int,
) -> av.VideoStream:
    name = best_encoder()
    options = ENCODERS[name] | ({"crf": str(crf)} if "crf" in ENCODERS[name] else {})
    rate = Fraction(fps).limit_denominator(1001) if 0 < fps < 1000 else Fraction(25)
    stream = container.add_stream(name, rate=max(rate, Fraction(1)), options=options)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.time_base = TIME_BASE
    codec.thread_count = threads
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = ColorRange.MPEG
    if not ENCODERS[name]:
        codec.bit_rate = round(size[0] * size[1] * float(rate) * _BITS_PER_PIXEL)
    return stream
