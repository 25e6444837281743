"""The kinds of findings, each with its level, its meaning and its remedy."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Attributes:
        name: as in findings.csv.
        level: an error stops training or falsifies its result; a warning may be as it should be.
        title: what it is, in a few words.
        remedy: what to do about it.
    """

    name: str
    level: Level
    title: str
    remedy: str


_AGAIN = "prepare the data set again"
_EXTRACT = "extract the frames of this clip again, or remove its line from the list"
_POSES = "run preprocess_pose.py again for this clip"
_LINE = "correct the line"
_LOOK = "look at the clip in report.html"
_SEPARATE = "keep them in one split"

_ROWS = (
    # Lists and tables
    Kind("list_missing", "warning", "a split has no list", "write it, or train without this split"),
    Kind("list_unreadable", "error", "a list cannot be read", "write it again as UTF-8 text"),
    Kind("list_header", "error", "a list's header is wrong", _AGAIN),
    Kind("list_line", "error", "a line of a list is malformed", _LINE),
    Kind("list_repeat", "error", "a list names a clip twice", "remove one of the two lines"),
    Kind("list_empty", "error", "a list names no clip", "write a line 'folder num_frames label'"),
    Kind("label_unknown", "error", "a label is outside the classes", _LINE),
    Kind("table_unreadable", "error", "clips.csv cannot be read", _AGAIN),
    Kind("left_out", "warning", "damaged clips were left out of a list", "mend them and prepare"),
    Kind("unlisted", "warning", "files that no list names", "list them, or move them away"),
    Kind("clip_unusable", "error", "a clip cannot be checked", "rename it, or remove its line"),
    # Frames
    Kind("frames_missing", "error", "a clip has no frames", _EXTRACT),
    Kind("frames_fewer", "error", "fewer frames than the list says", _EXTRACT),
    Kind("frames_more", "warning", "more frames than the list says", "correct the list"),
    Kind("frame_gap", "error", "frame numbers have gaps", _EXTRACT),
    Kind("frame_names", "error", "frame files are not named alike", "rename or remove them"),
    Kind("frame_empty", "error", "a frame file has 0 bytes", _EXTRACT),
    Kind("frame_not_image", "error", "a frame is no JPEG or PNG", _EXTRACT),
    Kind("frame_truncated", "error", "a frame file is cut short", _EXTRACT),
    Kind("frame_corrupt", "error", "a frame does not decode", _EXTRACT),
    Kind("frame_oversized", "error", "a frame is too large to be one", _EXTRACT),
    Kind("frame_tail", "warning", "bytes after the end of a frame", "check where they came from"),
    Kind(
        "frame_unusual", "warning", "a frame is stored in an unusual form", "save it as 8-bit RGB"
    ),
    Kind("size_changes", "error", "the frame size changes within a clip", _EXTRACT),
    Kind("frames_repeated", "warning", "a frame equals the one before it", _LOOK),
    Kind("video_damaged", "error", "a video does not decode", "replace the video, or " + _EXTRACT),
    Kind("sizes_differ", "warning", "clips have different frame sizes", "nothing, if intended"),
    Kind("rates_differ", "warning", "clips have different frame rates", "nothing, if intended"),
    # Keypoints
    Kind("keypoints_missing", "error", "a clip has no keypoints", "run preprocess_pose.py"),
    Kind("keypoints_unreadable", "error", "a keypoint file cannot be read", _POSES),
    Kind("keypoints_nan", "error", "keypoints are NaN or infinite", _POSES),
    Kind("keypoints_length", "error", "as many poses as frames are needed", _POSES),
    Kind("keypoints_stale", "error", "keypoints are of other frames", _POSES),
    Kind("keypoints_size", "error", "keypoints are for frames of another shape", _POSES),
    Kind("keypoints_scale", "error", "keypoints are not in pixels", "multiply by width and height"),
    Kind("keypoints_empty", "warning", "nobody was found in a clip", _POSES + " with lower --conf"),
    Kind("keypoints_few", "warning", "somebody is found in few frames", _LOOK),
    Kind("keypoints_outside", "warning", "joints lie outside of the frame", _LOOK),
    Kind("keypoints_frozen", "warning", "a pose does not move at all", _POSES),
    Kind("keypoints_jump", "warning", "a body jumps from frame to frame", _LOOK),
    Kind("keypoints_swapped", "warning", "left and right change places", _LOOK),
    Kind("boxes_unusable", "error", "the boxes of a clip are unusable", "remove boxes/<clip>.npy"),
    # Splits
    Kind("published", "warning", "val and test are the same clips", "report no result as honest"),
    Kind("one_class", "warning", "a split has only one class", "put clips of it there"),
    Kind("class_not_trained", "error", "the train list lacks a class", "put clips of it there"),
    Kind("class_not_tested", "warning", "val or test lacks a class", "put clips of it there"),
    Kind("shared_clip", "error", "a clip is in two splits", "remove one of the two lines"),
    Kind("shared_content", "error", "two splits hold the same content", _SEPARATE),
    Kind("shared_frames", "error", "clips of two splits share frames", _SEPARATE),
    Kind("shared_group", "error", "a group is in two splits", "split by group"),
    Kind("near_duplicate", "warning", "clips of two splits look the same", _SEPARATE),
    Kind("repeated_content", "warning", "a split holds the same content twice", "remove one"),
    # Manifest
    Kind("manifest_unreadable", "error", "manifest.csv cannot be read", "--update_manifest"),
    Kind("manifest_changed", "error", "a file is not as it was", "restore it, or " + _AGAIN),
    Kind("manifest_gone", "error", "a file of the manifest is gone", "restore it, or " + _AGAIN),
    Kind("manifest_new", "warning", "a file is not in the manifest", "--update_manifest"),
)

KINDS = {kind.name: kind for kind in _ROWS}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or looks wrong.

    Attributes:
        kind: a name of `KINDS`.
        clip: the clip that it is about; "" for the data set.
        path: the file or folder, with the line of a list where that helps.
        text: what is wrong, without the path and the remedy, on one line.
        frame: 0-based frame of the clip that shows it; None where no single one does.
    """

    kind: str
    clip: str
    path: str
    text: str
    frame: int | None = None

    @property
    def level(self) -> Level:
        """Return "error" or "warning"."""
        return KINDS[self.kind].level

    @property
    def remedy(self) -> str:
        """Return what to do."""
        return KINDS[self.kind].remedy

    def line(self) -> str:
        """Return one line for a person."""
        return f"{self.path} {self.text}: {self.remedy}"

    def printable(self) -> "Finding":
        """Return it without what would disturb a terminal or is no UTF-8."""
        clip, path, text = map(printable, (self.clip, self.path, self.text))
        return Finding(self.kind, clip, path, text, self.frame)


def printable(text: str) -> str:
    """Write control characters, line ends and bytes that are no UTF-8 as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_remedy(message: str) -> str:
    """Return the first part of a message 'what it is: what to do'; findings have their own."""
    return message.rpartition(": ")[0] or message


class Tally:
    """Findings about many files of one clip: one for each kind, that counts and gives the first."""

    def __init__(self, clip: str) -> None:
        self._clip = clip
        self._first: dict[str, tuple[str, str, int | None]] = {}
        self._count: dict[str, int] = {}

    def add(self, kind: str, path: Path | str, text: str, frame: int | None = None) -> None:
        """Count one more."""
        self._first.setdefault(kind, (str(path), text, frame))
        self._count[kind] = self._count.get(kind, 0) + 1

    def __iter__(self) -> Iterator[Finding]:
        for kind, (path, text, frame) in self._first.items():
            more = self._count[kind] - 1
            rest = f" (and {more} more of this clip)" if more else ""
            yield Finding(kind, self._clip, path, " ".join(text.split()) + rest, frame)

    def __contains__(self, kind: str) -> bool:
        return kind in self._first

    def has_errors(self) -> bool:
        """Say whether any is an error."""
        return any(KINDS[kind].level == "error" for kind in self._first)
