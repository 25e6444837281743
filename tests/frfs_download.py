"""A FR-FS download as it comes, made up: for tests of everything that reads one.

The frames of a clip show a square that crosses the picture, to the right in clips of label 0 and
downwards in clips of label 1, so that a network can learn it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import xlwt

SIDE = 8


@dataclass(frozen=True)
class MadeDownload:
    """What lies in `folder`.

    Attributes:
        folder: holds Images/, Train.xls, Test.xls and FRFS_Boxes.json.
        train: (key, label) of each row of Train.xls.
        test: the same of Test.xls.
        broken: key of a clip with a truncated frame, "" for none.
        num_frames: of each clip.
    """

    folder: Path
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]
    broken: str
    num_frames: int

    def clip(self, key: str) -> Path:
        return self.folder / "Images" / key

    def frame(self, key: str, index: int) -> Path:
        return self.clip(key) / f"{index}.jpg"

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.train + self.test]


def write_download(
    folder: Path,
    *,
    train: int = 8,
    test: int = 4,
    num_frames: int = 12,
    size: tuple[int, int] = (64, 36),
    broken: bool = False,
    boxes: bool = True,
    seed: int = 0,
) -> MadeDownload:
    """Write a download with unpadded, 0-based frame names; labels are 0 and 1 in turn."""
    rng = np.random.default_rng(seed)
    rows = [(f"{number // 3}_{number % 3 + 1}", number % 2) for number in range(train + test)]
    made = MadeDownload(
        folder, rows[:train], rows[train:], rows[2][0] if broken else "", num_frames
    )
    corners = {}
    for key, label in rows:
        corners[key] = write_clip(made.clip(key), label, num_frames, size, rng)
    if broken:
        path = made.frame(made.broken, num_frames // 2)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_table(folder / "Train.xls", made.train)
    write_table(folder / "Test.xls", made.test)
    if boxes:
        (folder / "FRFS_Boxes.json").write_text(json.dumps(corners))
    return made


def write_clip(
    folder: Path, label: int, num_frames: int, size: tuple[int, int], rng: np.random.Generator
) -> list[list[float]]:
    """Write the frames of one clip; return the 4 corners of the square in each."""
    folder.mkdir(parents=True)
    width, height = size
    image = cv2.resize(rng.integers(0, 90, (9, 16, 3), np.uint8), size)
    across = rng.uniform(0.2, 0.8)
    corners = []
    for frame in range(num_frames):
        along = frame / max(1, num_frames - 1)
        x, y = (along, across) if label == 0 else (across, along)
        left, top = round(x * (width - SIDE)), round(y * (height - SIDE))
        picture = image.copy()
        picture[top : top + SIDE, left : left + SIDE] = 250
        assert cv2.imwrite(str(folder / f"{frame}.jpg"), picture)
        right, bottom = left + SIDE, top + SIDE
        corners.append([float(v) for v in (left, top, right, top, right, bottom, left, bottom)])
    return corners


def write_table(path: Path, rows: Sequence[Sequence[object]], header: bool = True) -> None:
    """Write an .xls as the release has it: Sheet1, header row, key and label."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("Sheet1")
    for number, row in enumerate([("video", "label"), *rows] if header else rows):
        for column, value in enumerate(row):
            sheet.write(number, column, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(str(path))


def state_of(folder: Path) -> dict[str, tuple]:
    """Return name -> kind, change time and content of everything below a folder."""
    state: dict[str, tuple] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else None
        if path.is_file():
            content = (content, path.read_bytes())
        state[str(path.relative_to(folder))] = (
            status.st_mode,
            None if path.is_dir() else status.st_mtime_ns,
            content,
        )
    return state
