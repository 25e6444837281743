"""`clips.csv` of a data set: what is known of each clip beside its frames and its label.

It is there when a program of ours prepared the data set, and optional: a data set of the user's own
with frames/ and lists needs none. Clips without images in frames/ find their video here.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path, PurePosixPath

from datasets.images import MOST_PIXELS
from errors import InputError
from files import holds, write_text

NAME = "clips.csv"
_LONGEST_NAME = 1000
# A table of ten million clips.
_MOST_BYTES = 2**32
# As long as the longest side that a JPEG can have, and as many pixels as are decoded.
_LONGEST_SIDE = 65_535


@dataclass(frozen=True, slots=True)
class ClipRow:
    """One clip.

    Attributes:
        clip: its name, as in the lists.
        video: its file, relative to videos/; "" when its frames lie in frames/<clip>/.
        first_frame: 0-based number of its first frame in the video.
        start_pts: time stamp of that frame in units of the video stream, to seek to; None when
            the video has to be decoded from its beginning.
        num_frames: N.
        width: of the frames as they are shown, pixels.
        height: of the frames as they are shown, pixels.
        fps: mean frames per second; 0 when not known.
        group: what must not be on both sides of a split: an athlete, an event, a source video; ""
            when the clip is its own group.
        sha256: of the content (of the video file, or of all frame files); "" when not known.
    """

    clip: str
    video: str = ""
    first_frame: int = 0
    start_pts: int | None = None
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    group: str = ""
    sha256: str = ""

    @property
    def identity(self) -> str:
        """Return what tells these frames from others that may get the same name; "" if unknown."""
        kind = "video" if self.video else "frames"
        return f"{kind} {self.sha256} {self.first_frame} {self.num_frames}" if self.sha256 else ""


COLUMNS = tuple(field.name for field in fields(ClipRow))
_WHOLE = ("first_frame", "num_frames", "width", "height")


def write_table(root: Path, rows: Iterable[ClipRow]) -> None:
    """Write `clips.csv` of the data set in `root`, whole or not at all.

    A table that says the same already stays as it is.
    """
    text = format_table(rows)
    if not holds(root / NAME, text.encode("utf-8")):
        write_text(root / NAME, text)


def format_table(rows: Iterable[ClipRow]) -> str:
    """Return the text of a `clips.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def load_table(root: Path) -> dict[str, ClipRow]:
    """Read `clips.csv` of the data set in `root`: clip -> row; empty when there is none.

    Columns that are not there have their defaults; further columns are left alone.

    Raises:
        InputError: it cannot be read; the message names the line.
    """
    path = root / NAME
    if not path.exists():
        return {}
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: put the table there, or remove it")
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path} has more than {_MOST_BYTES} bytes: prepare the data set again")
    table: dict[str, ClipRow] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for cells in reader:
                row = _parse(f"{path}:{reader.line_num}", cells)
                if row.clip in table:
                    raise InputError(
                        f"{path}:{reader.line_num} repeats clip {row.clip}: remove one of the two"
                    )
                table[row.clip] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as a table ({error}): prepare the data set again, or remove "
            "the file if the clips lie in frames/"
        ) from None
    return table


def groups_of(table: Mapping[str, ClipRow], clips: Sequence[str]) -> tuple[str, ...] | None:
    """Return what each of `clips` belongs to: its group, else its video, "" when it is alone.

    None when the table says neither of any of them.
    """
    rows = [table.get(clip) for clip in clips]
    groups = tuple("" if row is None else row.group or row.video for row in rows)
    return groups if any(groups) else None


def _parse(place: str, cells: Mapping[str, str | None]) -> ClipRow:
    values = {name: cells[name] for name in COLUMNS if cells.get(name)}
    if "clip" not in values:
        raise InputError(
            f"{place} has no clip name: the first line must name the columns {COLUMNS}"
        )
    for name in ("clip", "video"):
        _check_inside(place, name, values.get(name) or "")
    parsed: dict[str, object] = {name: value for name, value in values.items() if value}
    for name in (*_WHOLE, "start_pts"):
        if name in parsed:
            parsed[name] = _whole(place, name, str(parsed[name]), signed=name == "start_pts")
    if "fps" in parsed:
        parsed["fps"] = _rate(place, str(parsed["fps"]))
    row = ClipRow(**parsed)  # type: ignore[arg-type]
    if max(row.width, row.height) > _LONGEST_SIDE or row.width * row.height > MOST_PIXELS:
        raise InputError(
            f"{place} has frames of {row.width}x{row.height} pixels, they may have at most "
            f"{MOST_PIXELS // 1_000_000} million: correct width and height"
        )
    return row


def _check_inside(place: str, name: str, text: str) -> None:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\0" in text or len(text) > _LONGEST_NAME:
        raise InputError(
            f"{place} has {name} {text[:200]!r}: it must lie below the data set's folder, and have "
            f"at most {_LONGEST_NAME} letters"
        )


def _whole(place: str, name: str, text: str, *, signed: bool) -> int:
    digits = text.removeprefix("-") if signed else text
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise InputError(f"{place} has {name} {text!r}: write a whole number")
    return int(text)


def _rate(place: str, text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = -1.0
    if not 0 <= fps < 1e5:
        raise InputError(f"{place} has fps {text!r}: write frames per second, or leave it empty")
    return fps
