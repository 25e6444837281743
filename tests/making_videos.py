"""Small videos whose pixels say which frame they are."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (64, 48)


def grey_of(frame: int) -> int:
    """Return the grey level of a frame; neighbours are far enough apart to survive a codec."""
    return 16 + (frame * 3) % 222


def picture(frame: int, size=SIZE) -> np.ndarray:
    """Return a grey picture with a white upper left quarter."""
    image = np.full((size[1], size[0], 3), grey_of(frame), np.uint8)
    image[: size[1] // 2, : size[0] // 2] = 255
    return image


def number_of(image: np.ndarray, most: int = 74) -> int:
    """Return which frame a picture shows, by its lower right quarter."""
    level = np.median(image[-image.shape[0] // 3 :, -image.shape[1] // 3 :])
    return int(np.argmin([abs(grey_of(frame) - level) for frame in range(most)]))


def write_video(
    path: Path,
    num_frames: int = 30,
    size=SIZE,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 25,
    gop: int = 10,
    rotation: int | None = None,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    first: int = 0,
    sound: bool = False,
) -> Path:
    """Write a video; `pts` are time stamps in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", container_options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        audio = file.add_stream("aac", rate=16000) if sound else None
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, size), "rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[number], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if audio is not None:
            file.mux(audio.encode(_silence()))
            file.mux(audio.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """Write a file with sound and no picture."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        file.mux(stream.encode(_silence()))
        file.mux(stream.encode(None))
    return path


def _silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.sample_rate = 16000
    frame.pts = 0
    return frame


def cut(path: Path, target: Path, share: float) -> Path:
    """Write the first part of a file."""
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target
