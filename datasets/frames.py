"""Frames of a clip: a folder of numbered images, whatever their numbering."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.images import decode_image, image_size
from errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_REDUCIBLE = (".jpg", ".jpeg")
_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>[0-9]+)", re.DOTALL)
_REMEDY = "extract the frames of this clip again"


class FrameSource(Protocol):
    """The frames of one clip, wherever they lie: a folder of images, or a part of a video."""

    @property
    def place(self) -> Path:
        """Return the folder or file that holds the frames, for messages."""

    @property
    def count(self) -> int:
        """Return the number of frames, N."""

    @property
    def found(self) -> int:
        """Return how many frames are there: N or more."""

    @property
    def first(self) -> int:
        """Return the number that the first frame has on disk."""

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the first frame without decoding it."""

    @property
    def can_reduce(self) -> bool:
        """Say whether frames can be decoded at a part of their size."""

    def load(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Decode frames (T,), 0-based, as (T, H, W, 3) uint8 RGB, all of `size` (width, height).

        Raises:
            InputError: a frame cannot be read whole, or is of another size.
        """

    def stream(
        self, indices: np.ndarray, size: tuple[int, int], reduction: int = 1
    ) -> Iterator[np.ndarray]:
        """Decode frames one after the other, so that none is held longer than it is needed.

        Args:
            indices: (T,) of the frames, 0-based, ascending, each once.
            size: (width, height) that all have.
            reduction: k, decode at 1/k of the size, rounded up; 1 where `can_reduce` is false.

        Yields:
            (H, W, 3) uint8 RGB; to be read only.

        Raises:
            InputError: as `load`.
            ValueError: the source cannot reduce frames.
        """

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all N frames in order, up to `most` at a time: (n, H, W, 3) uint8 RGB."""


@dataclass(frozen=True, slots=True)
class NumberedFiles:
    """A run of files whose names count up, such as 00001.jpg to 00103.jpg.

    Attributes:
        folder: where they lie.
        prefix: of every name.
        first: number of the first file.
        digits: least digits of a number, zeros in front.
        suffix: with the dot.
        count: files used, N.
        found: files in the folder, N or more.
    """

    folder: Path
    prefix: str
    first: int
    digits: int
    suffix: str
    count: int
    found: int

    def path(self, index: int) -> Path:
        """Return the file of 0-based frame `index`.

        Raises:
            IndexError: the clip has no such frame; nothing is ever read in its place.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"{self.folder} has frames 0 to {self.count - 1}, asked for {index}")
        return self.folder / self._name(self.first + index)

    def _name(self, number: int) -> str:
        return f"{self.prefix}{number:0{self.digits}d}{self.suffix}"


def scan_folder(
    folder: Path, num_files: int, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> NumberedFiles:
    """Find the files of a clip and how they are numbered.

    Args:
        folder: of the clip. Files with other endings, and hidden ones, are not looked at.
        num_files: N, as the list says. Of more files the first N are used.
        suffixes: endings of the files to find, lower case.

    Raises:
        InputError: the folder is not there; it holds fewer files than N; a number is missing; the
            names are not of one kind.
    """
    names = _list_files(folder, suffixes)
    kind = "/".join(suffix[1:] for suffix in suffixes)
    if not names:
        raise InputError(
            f"{folder} holds no {kind} file, the list says {num_files} frames: {_REMEDY}"
        )
    numbers = _parse_names(folder, names)
    first = min(numbers)
    sample = Path(numbers[first])
    files = NumberedFiles(
        folder=folder,
        prefix=_parse(sample.stem)[0],
        first=first,
        digits=_least_digits(names),
        suffix=sample.suffix,
        count=num_files,
        found=len(names),
    )
    _check_names(files, numbers)
    return files


def _list_files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [
                entry.name
                for entry in entries
                if entry.name.lower().endswith(suffixes)
                and not entry.name.startswith(".")
                and entry.is_file()
            ]
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not there: it should hold the frames of this clip; {_REMEDY} or "
            "remove its line from the list"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} cannot be read ({error}): it should be a folder with the frames of a clip"
        ) from None


def _parse(stem: str) -> tuple[str, str]:
    """Split 'img_00012' into ('img_', '00012'); the number is '' where there is none."""
    match = _NUMBERED.fullmatch(stem)
    return (match["prefix"], match["number"]) if match else (stem, "")


def _parse_names(folder: Path, names: list[str]) -> dict[int, str]:
    """Return number -> name, or complain about the name that breaks the pattern of the others."""
    numbers: dict[int, str] = {}
    for name in sorted(names):
        _, digits = _parse(Path(name).stem)
        if not digits:
            raise InputError(
                f"{folder / name} has no frame number in its name: remove it or name it as 00001"
            )
        if int(digits) in numbers:
            raise InputError(
                f"{folder} holds frame {int(digits)} twice, {numbers[int(digits)]} and {name}: "
                "remove one of the two"
            )
        numbers[int(digits)] = name
    return numbers


def _least_digits(names: list[str]) -> int:
    """Return the width that numbers are padded to: that of any padded one, else 1."""
    padded = [digits for name in names if (digits := _parse(Path(name).stem)[1]).startswith("0")]
    return max((len(digits) for digits in padded), default=1)


def _check_names(files: NumberedFiles, numbers: dict[int, str]) -> None:
    last = max(numbers)
    for number in range(files.first, min(files.first + files.count, last + 1)):
        name = files._name(number)
        if number not in numbers:
            raise InputError(
                f"{files.folder / name} is missing: the clip's frames go from "
                f"{numbers[files.first]} to {numbers[last]}; {_REMEDY}"
            )
        if numbers[number] != name:
            raise InputError(
                f"{files.folder / numbers[number]} breaks the naming of its clip, it should be "
                f"called {name}: {_REMEDY}"
            )
    if files.found < files.count:
        raise InputError(
            f"{files.folder} holds {files.found} {files.suffix[1:]} files, the list says "
            f"{files.count} frames: {_REMEDY} or correct the list"
        )


@dataclass(frozen=True, slots=True)
class ImageFrames:
    """A clip whose frames are numbered images in a folder: a `FrameSource`."""

    files: NumberedFiles

    @classmethod
    def find(cls, folder: Path, num_frames: int) -> "ImageFrames":
        """Find the first `num_frames` images of a folder.

        Raises:
            InputError: see `scan_folder`.
        """
        return cls(scan_folder(folder, num_frames))

    @property
    def place(self) -> Path:
        """Return the folder."""
        return self.files.folder

    @property
    def count(self) -> int:
        """Return the number of frames, N."""
        return self.files.count

    @property
    def found(self) -> int:
        """Return the number of images in the folder."""
        return self.files.found

    @property
    def first(self) -> int:
        """Return the number of the first image."""
        return self.files.first

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the first frame, from its header."""
        return image_size(self.files.path(0))

    def load(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Decode frames (T,) as (T, H, W, 3) uint8 RGB.

        Raises:
            InputError: a frame cannot be read, or is of another size.
        """
        width, height = size
        frames = np.empty((len(indices), height, width, 3), np.uint8)
        for place, frame in enumerate(self.stream(indices, size)):
            frames[place] = frame
        return frames

    @property
    def can_reduce(self) -> bool:
        """Say whether the images are JPEGs."""
        return self.files.suffix.lower() in _REDUCIBLE

    def stream(
        self, indices: np.ndarray, size: tuple[int, int], reduction: int = 1
    ) -> Iterator[np.ndarray]:
        """Decode frames one after the other, at 1/`reduction` of their size, rounded up.

        Raises:
            InputError: as `load`.
        """
        for index in indices:
            yield decode_image(self.files.path(int(index)), reduction, size)

    def blocks(self, size: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """Yield all frames in order, up to `most` at a time."""
        for start in range(0, self.count, most):
            yield self.load(np.arange(start, min(start + most, self.count)), size)
