"""Frames of videos as JPEG files: one pass over each video, every clip whole or not at all."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import cv2

from datasets.video_files import shown_size, upright_rgb
from datasets.videos import VideoFrames
from errors import InputError
from files import partial_of, replacing_folder

# Beside the frames of a clip: what they were made of, so that a later run can trust them.
STAMP = ".made_of.json"


@dataclass(frozen=True, slots=True)
class JpegSettings:
    """How frames are written.

    Attributes:
        short_side: pixels; smaller frames keep their size.
        quality: 1 to 100.
    """

    short_side: int = 256
    quality: int = 95

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) that a frame is written in."""
        short = min(width, height)
        if short <= self.short_side:
            return width, height
        longer = max(1, round(max(width, height) * self.short_side / short))
        return (longer, self.short_side) if width >= height else (self.short_side, longer)


@dataclass(frozen=True, slots=True)
class Part:
    """A clip to write.

    Attributes:
        folder: for its frames.
        first: 0-based number of its first frame in the video.
        count: frames, N.
    """

    folder: Path
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class ExtractJob:
    """A video and all clips that are parts of it.

    Attributes:
        path: the video.
        sha256: of the video.
        size: (width, height) as shown.
        parts: the clips.
        settings: how frames are written.
    """

    path: Path
    sha256: str
    size: tuple[int, int]
    parts: tuple[Part, ...]
    settings: JpegSettings

    def stamp(self, part: Part) -> str:
        """Return what the frames of a part are made of, as text."""
        made_of = {
            "video_sha256": self.sha256,
            "first_frame": part.first,
            "num_frames": part.count,
            "short_side": self.settings.short_side,
            "jpeg_quality": self.settings.quality,
            "made_with": f"PyAV {av.__version__}, OpenCV {cv2.__version__}",
        }
        return json.dumps(made_of, indent=1) + "\n"


def extract_frames(job: ExtractJob) -> int:
    """Write the frames of all parts of a video that are not written yet.

    A part is `<folder>/00001.jpg` and so on, beside a hidden stamp.

    Returns:
        Number of frames written.

    Raises:
        InputError: the video cannot be read that far, or a folder holds frames of other origin.
    """
    parts = sorted((p for p in job.parts if not is_written(job, p)), key=lambda p: p.first)
    if not parts:
        return 0
    begin = parts[0].first
    end = max(part.first + part.count for part in parts)
    video = VideoFrames(job.path, end, 0, None, job.size)
    with closing(video.decode(end)) as frames, _Writers(job, parts) as writers:
        for number, frame in enumerate(frames):
            if shown_size(frame) != job.size:
                raise InputError(
                    f"{job.path} changes its size at frame {number}: export it again at one size"
                )
            if number >= begin and (open_now := list(writers.at(number))):
                data = _encode(frame, job)
                for part in open_now:
                    writers.write(part, number, data)
    return sum(part.count for part in parts)


def is_written(job: ExtractJob, part: Part) -> bool:
    """Tell whether an earlier run wrote these very frames.

    Raises:
        InputError: the folder was not written by this program.
    """
    if not part.folder.exists():
        return False
    try:
        return (part.folder / STAMP).read_text(encoding="utf-8") == job.stamp(part)
    except FileNotFoundError:
        raise InputError(
            f"{part.folder} holds frames that were not extracted by this program: move them away, "
            "or choose another --dataset"
        ) from None
    except (OSError, UnicodeDecodeError):
        return False


class _NotFinished(Exception):  # noqa: N818 - tells a folder that it is not to be kept
    pass


class _Writers:
    """The folders that are being written in one pass over a video."""

    def __init__(self, job: ExtractJob, parts: Sequence[Part]) -> None:
        self._job = job
        self._waiting = list(parts)[::-1]
        self._open: dict[Part, tuple[ExitStack, Path]] = {}

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, *reason: object) -> None:
        for stack, _ in self._open.values():
            with suppress(_NotFinished):
                stack.__exit__(_NotFinished, _NotFinished(), None)

    def at(self, number: int) -> Iterator[Part]:
        """Yield the parts that hold a frame; their folders are open."""
        while self._waiting and self._waiting[-1].first <= number:
            part = self._waiting.pop()
            stack = ExitStack()
            if part.folder.exists():  # of other settings
                shutil.rmtree(partial_of(part.folder), ignore_errors=True)
                part.folder.rename(partial_of(part.folder))
            self._open[part] = (stack, stack.enter_context(replacing_folder(part.folder)))
        yield from list(self._open)

    def write(self, part: Part, number: int, data: bytes) -> None:
        """Write a frame, and finish the part with its last one."""
        stack, folder = self._open[part]
        (folder / f"{number - part.first + 1:05d}.jpg").write_bytes(data)
        if number == part.first + part.count - 1:
            (folder / STAMP).write_text(self._job.stamp(part), encoding="utf-8")
            del self._open[part]
            stack.close()


def _encode(frame: av.VideoFrame, job: ExtractJob) -> bytes:
    size = job.settings.scaled(*job.size)
    image = upright_rgb(frame, size, "AREA")
    done, data = cv2.imencode(
        ".jpg",
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, job.settings.quality],
    )
    if not done:
        raise InputError(f"{job.path}: a frame of {size[0]}x{size[1]} pixels cannot be a JPEG")
    return data.tobytes()


def hash_frames(folder: Path, num_frames: int) -> str:
    """Return the SHA-256 of the frames that `extract_frames` wrote, one after the other."""
    digest = hashlib.sha256()
    for number in range(1, num_frames + 1):
        digest.update((folder / f"{number:05d}.jpg").read_bytes())
    return digest.hexdigest()
