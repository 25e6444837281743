"""What every importer hands over: the people that somebody's estimator found in a clip."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from errors import InputError
from ops.conversion import to_coco17

# As datasets/poses.py reads it: farther away is no place in a picture.
FARTHEST_PIXEL = 1e6
REMEDY = "export it again"
MOST_PEOPLE = 100
_MOST_CONFIDENCE = 1.001
# Heatmap peaks reach a little over 1, sums of them 6 (AlphaPose); more is per cent, or no
# confidence at all.
_NO_CONFIDENCE = 10.0


@dataclass(frozen=True, slots=True)
class People:
    """Everybody who was found in a clip, one row each and frame.

    Attributes:
        frames: (E,) int64 frame number, in the source's own counting.
        keypoints: (E, 17, 3) float32 COCO-17 x, y in pixels and confidence 0-1; undetected joints
            are exactly (0, 0, 0).
        tracks: (E,) int64, who it is through the clip; -1 where the source does not say.
        in_slots: the tracks are slots of an array: slot 0 is the main person.
        size: (width, height) of the frames that the pixels belong to, None when not recorded.
        unusable: joints that were NaN, infinite or absurdly far away, now undetected.
        above_one: confidences above 1, now 1.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    tracks: np.ndarray
    in_slots: bool = False
    size: tuple[int, int] | None = None
    unusable: int = 0
    above_one: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Which frames of a clip a source speaks of, in its own counting.

    Attributes:
        first: lowest number.
        last: highest number.
        sample: file name without its ending that the lowest number was read from; "" for arrays.
        is_array: the rows of an array, one a frame: nothing to match.
    """

    first: int
    last: int
    sample: str = ""
    is_array: bool = False


class KeypointSource(Protocol):
    """Keypoints of many clips, as somebody's program left them.

    A key names the keypoints of one clip in messages.
    """

    @property
    def aliases(self) -> Mapping[str, Sequence[str]]:
        """Return key -> what the clip may be called in the lists, the likeliest first."""

    @property
    def findings(self) -> Sequence[str]:
        """Return what is wrong with the source as a whole, a line each."""

    def span(self, key: str) -> Span:
        """Return which frames the keypoints of a clip are of.

        Raises:
            InputError: they cannot be read.
        """

    def load(self, key: str) -> People:
        """Read the keypoints of a clip.

        Raises:
            InputError: they cannot be read; the message names the file and the place in it.
        """


# A person of a frame: frame number, (V, 2) or (V, 3) keypoints, track or -1.
Row = tuple[int, np.ndarray, int]


def gather_rows(rows: Sequence[Row], place: str) -> People:
    """Put rows together, see `gather`; V and the number of values must be the same in all.

    Raises:
        InputError: the layout is not known, or the confidences are none.
    """
    shape = rows[0][1].shape if rows else (17, 3)
    return gather(
        np.array([row[1] for row in rows], np.float64).reshape(len(rows), *shape),
        place,
        frames=np.array([row[0] for row in rows], np.int64),
        tracks=np.array([row[2] for row in rows], np.int64),
    )


def gather(
    keypoints: np.ndarray,
    place: str,
    *,
    frames: np.ndarray,
    tracks: np.ndarray,
    in_slots: bool = False,
    size: tuple[int, int] | None = None,
) -> People:
    """Clean keypoints; who has no joint at all is nobody.

    Args:
        keypoints: (E, V, 2 or 3), in a layout that `to_coco17` knows.
        place: of the source, for messages.
        frames: (E,), see `People`, as are `tracks`, `in_slots` and `size`.
        tracks: (E,).
        in_slots: the tracks are slots.
        size: of the frames.

    Raises:
        InputError: the layout is not known, or the confidences are none.
    """
    found, unusable, above = clean(keypoints, place)
    seen = (found[..., 2] > 0).any(axis=1)
    crowd = np.unique(frames[seen], return_counts=True)[1].max(initial=0)
    if crowd > MOST_PEOPLE:
        raise InputError(
            f"{place} has {crowd} people in one frame, the most is {MOST_PEOPLE}: export it again"
        )
    return People(frames[seen], found[seen], tracks[seen], in_slots, size, unusable, above)


def clean(keypoints: np.ndarray, place: str) -> tuple[np.ndarray, int, int]:
    """Return COCO-17 keypoints as our files hold them, and what had to be changed.

    Args:
        keypoints: (E, V, 3), or (E, V, 2) without confidences: 1 then, and 0 at (0, 0).
        place: of the source, for messages.

    Returns:
        (E, 17, 3) float32, undetected joints exactly (0, 0, 0); the number of joints that were
        not finite or farther than `FARTHEST_PIXEL`; the number of confidences above 1.

    Raises:
        InputError: the layout is not known, or the confidences are none.
    """
    try:
        keypoints = to_coco17(keypoints)
    except ValueError as error:
        raise InputError(f"{place} {error}: import keypoints of one of these layouts") from None
    if keypoints.shape[-1] == 2:
        keypoints = np.concatenate((keypoints, np.ones_like(keypoints[..., :1])), axis=-1)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(keypoints).all(axis=-1)
        usable &= (np.abs(keypoints[..., :2]) <= FARTHEST_PIXEL).all(axis=-1)
        found = usable & (keypoints[..., 2] > 0) & (keypoints[..., :2] != 0).any(axis=-1)
    kept = np.where(found[..., None], keypoints, 0)
    highest = kept[..., 2].max(initial=0)
    if highest > _NO_CONFIDENCE:
        raise InputError(
            f"{place} has confidences up to {highest:.4g}, they should be 0 to 1: divide them first"
        )
    above = int((kept[..., 2] > _MOST_CONFIDENCE).sum())
    kept[..., 2] = np.minimum(kept[..., 2], 1)
    return kept.astype(np.float32), int((~usable).sum()), above


def regular_file(path: Path, most_bytes: int) -> int:
    """Return the size of a file that is safe to read.

    Raises:
        InputError: it is no regular file (a device or a pipe would never end), cannot be looked
            at, or is larger than `most_bytes`.
    """
    try:
        is_file, size = path.is_file(), path.stat().st_size
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(path)[:300]} cannot be read ({reason})") from None
    if not is_file:
        raise InputError(f"{path} is no regular file: give a file of keypoints")
    if size > most_bytes:
        raise InputError(
            f"{path} has {size:,} bytes, the most is {most_bytes:,}: write the keypoints in "
            "several files, one for each clip"
        )
    return size
