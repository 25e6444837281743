"""The frames of one clip: every file of its folder, or its part of a video."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from datasets.check.duplicates import Signature, describe, sample_indices, shrink
from datasets.check.findings import Tally, without_remedy
from datasets.check.images import inspect_bytes
from datasets.clip_table import ClipRow
from datasets.frames import IMAGE_SUFFIXES, FrameSource, decode_image
from datasets.records import ClipRecord
from datasets.sources import find_frames
from datasets.strict_images import is_whole_jpeg
from datasets.videos import VideoFrames
from errors import InputError
from files import read_regular

# A frame of 50 million pixels, the most that is decoded, as a PNG without compression.
_MOST_BYTES = 200 * 2**20
_MOST_PIXELS = 50_000_000
_JPEG_START = b"\xff\xd8\xff"
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
_NUMBER = re.compile(r"[0-9]+$")
_BLOCK = 16
# A clip in which this share of the frames repeats the one before was probably sped up or padded;
# single repeats are common in real videos.
_LEAST_REPEATS, _REPEATED_SHARE = 3, 0.1


@dataclass(slots=True)
class FrameFacts:
    """What is known of the frames of a clip after looking at them.

    Attributes:
        images: where training finds them, None if it would not.
        count: frames that are there.
        sizes: (width, height) -> how many frames have it.
        sha256: of the sums of all frame files; "" for a video.
        keys: (N,) uint64, the begin of each file's sum; empty for a video.
        signature: what the clip looks like; None where that was not looked at.
    """

    images: FrameSource | None = None
    count: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    sha256: str = ""
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    signature: Signature | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Return the size of most frames, None when no frame told its own."""
        return self.sizes.most_common(1)[0][0] if self.sizes else None


def check_frames(
    root: Path,
    record: ClipRecord,
    table: Mapping[str, ClipRow],
    decode: bool,
    tally: Tally,
    has_frames: bool = True,
) -> FrameFacts:
    """Look at all frames of a clip; what is wrong goes to `tally`.

    Args:
        root: folder of the data set.
        record: the clip.
        table: its row of `clips.csv`, if there is one.
        decode: decode every frame; without, only the files' own words and a few images.
        tally: takes the findings.
        has_frames: False for a data set of skeletons alone, where nothing is missing.
    """
    facts, refusal = FrameFacts(), ""
    if not has_frames:
        return facts
    try:
        facts.images = find_frames(root, record, table)
    except InputError as error:
        refusal = str(error)
    if isinstance(facts.images, VideoFrames):
        _check_video(facts.images, facts, decode, tally)
        return facts
    folder = root / "frames" / record.name
    names = _list_images(folder)
    if names is None or not names:
        tally.add("frames_missing", folder, _after(refusal, folder) or "holds no frame")
        return facts
    facts.count = len(names)
    _check_numbers(folder, names, record.num_frames, tally)
    _check_files([folder / name for name in names], facts, decode, tally)
    if refusal and not tally.has_errors():
        tally.add("frame_names", folder, _after(refusal, folder))
    return facts


# ---------------------------------------------------------------- folders of images


def _list_images(folder: Path) -> list[str] | None:
    """Return the names of the images in order of their numbers, None if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(IMAGE_SUFFIXES)
                and not entry.name.startswith(".")
                and entry.is_file()
            ]
    except (OSError, ValueError):
        return None
    return sorted(names, key=lambda name: (_number(name), name))


def _number(name: str) -> int:
    digits = _NUMBER.search(Path(name).stem)
    # A longer number is no count of frames, and slow to read.
    return int(digits[0][:18]) if digits else -1


def _check_numbers(folder: Path, names: list[str], num_frames: int, tally: Tally) -> None:
    numbers = [_number(name) for name in names]
    if numbers[0] < 0:
        tally.add("frame_names", folder / names[0], "has no frame number in its name")
    for (one, name), (other, next_name) in pairwise(zip(numbers, names, strict=True)):
        if one == other >= 0:
            tally.add("frame_names", folder / next_name, f"has the number of {name}")
        elif other - one > 1 and one >= 0:
            gap = f"{one + 1}" if other - one == 2 else f"{one + 1} to {other - 1}"
            tally.add("frame_gap", folder, f"lacks frame {gap}, between {name} and {next_name}")
    if len(names) < num_frames:
        tally.add("frames_fewer", folder, f"holds {len(names)} frames, the list says {num_frames}")
    elif len(names) > num_frames:
        tally.add("frames_more", folder, f"holds {len(names)} frames, the list says {num_frames}")


def _check_files(paths: list[Path], facts: FrameFacts, decode: bool, tally: Tally) -> None:
    """Look at every file: bytes, size, sum, and pixels if asked."""
    shown = set(sample_indices(len(paths)))
    digests, pictures = [], []
    for index, path in enumerate(paths):
        digest, is_sound = _check_file(path, index, facts, decode, tally)
        digests.append(digest)
        if index in shown and is_sound:
            pictures += _small_picture(path, tally)
    sizes = facts.sizes.most_common()
    if len(sizes) > 1:
        many = ", ".join(f"{w}x{h} ({count})" for (w, h), count in sizes[:4])
        tally.add("size_changes", paths[0].parent, f"holds frames of {len(sizes)} sizes: {many}")
    same = [one == other != b"" for one, other in pairwise(digests)]
    _report_repeats(same, paths[0].parent, tally)
    facts.sha256 = sha256(b"".join(digests)).hexdigest() if all(digests) else ""
    facts.keys = np.array([int.from_bytes(d[:8], "little") for d in digests if d], np.uint64)
    if len(pictures) == len(shown):
        facts.signature = describe(pictures)


def _check_file(
    path: Path, index: int, facts: FrameFacts, decode: bool, tally: Tally
) -> tuple[bytes, bool]:
    """Check one image; return its SHA-256, b"" if it cannot be read, and whether it is sound."""
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        tally.add("frame_corrupt", path, f"cannot be read ({error.strerror})", index)
        return b"", False
    seen, faults = inspect_bytes(data)
    for kind, words in faults:
        tally.add(kind, path, words, index)
    kinds = {kind for kind, _ in faults}
    if seen.size is not None:
        facts.sizes[seen.size] += 1
    is_sound = not kinds - {"frame_tail", "frame_unusual"}
    if decode and is_sound:
        is_sound = _decodes(path, index, data, seen.size, tally)
    return sha256(data).digest(), is_sound


def _decodes(
    path: Path, index: int, data: bytes, size: tuple[int, int] | None, tally: Tally
) -> bool:
    """Decode an image twice: as training does, and with a decoder that stops at every fault."""
    if size is not None and size[0] * size[1] > _MOST_PIXELS:
        words = f"is {size[0]}x{size[1]} pixels, frames may have {_MOST_PIXELS:,}"
        tally.add("frame_oversized", path, words, index)
        return False
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    except cv2.error:
        image = None
    if image is None or (data.startswith(_JPEG_START) and not is_whole_jpeg(data)):
        words = f"does not decode to its end ({len(data)} bytes)"
        tally.add("frame_corrupt", path, words, index)
        return False
    return True


def _small_picture(path: Path, tally: Tally) -> list[np.ndarray]:
    try:
        return [shrink(decode_image(path))]
    except InputError as error:
        if "frame_oversized" not in tally:
            tally.add("frame_corrupt", path, _after(str(error), path))
        return []


def _report_repeats(same: list[bool], place: Path, tally: Tally) -> None:
    """Report frames that equal the one before, (N-1,) flags, when there are many."""
    total, longest, run = sum(same), 0, 0
    for is_same in same:
        run = run + 1 if is_same else 0
        longest = max(longest, run)
    if total >= _LEAST_REPEATS and (total >= _REPEATED_SHARE * len(same) or longest >= 5):
        text = f"has {total} of {len(same) + 1} frames equal to the one before, at most {longest}"
        tally.add("frames_repeated", place, f"{text} in a row")


# ---------------------------------------------------------------- videos


def _check_video(video: VideoFrames, facts: FrameFacts, decode: bool, tally: Tally) -> None:
    """Decode a clip's part of a video from end to end, or only see that the file is there."""
    if not video.path.is_file():
        tally.add("frames_missing", video.path, "is not there")
        return
    if video.path.stat().st_size == 0:
        tally.add("video_damaged", video.path, "has 0 bytes")
        return
    facts.sizes[video.shown] = facts.count = video.count
    if not decode:
        return
    try:
        same, pictures = _watch(video)
    except InputError as error:
        tally.add("video_damaged", video.path, _after(str(error), video.path))
        return
    _report_repeats(same, video.path, tally)
    facts.signature = describe(pictures)


def _watch(video: VideoFrames) -> tuple[list[bool], list[np.ndarray]]:
    """Decode all frames; say which equal the one before, and return a few of them, small.

    Raises:
        InputError: they cannot be decoded, or are fewer than the list says.
    """
    shown = set(sample_indices(video.count))
    same, pictures, last = [], [], None
    for index, frame in enumerate(_each(video)):
        if last is not None:
            same.append(np.array_equal(last, frame))
        if index in shown:
            pictures.append(shrink(frame))
        last = frame
    if len(same) + 1 != video.count:
        raise InputError(
            f"{video.path} gives {len(same) + 1} frames for this clip, the list says {video.count}"
        )
    return same, pictures


def _each(video: VideoFrames) -> Iterator[np.ndarray]:
    for block in video.blocks(video.shown, _BLOCK):
        yield from block


def _after(message: str, path: Path) -> str:
    """Return what a message says about `path`, without the path and the remedy."""
    return without_remedy(message.removeprefix(str(path)).strip())
