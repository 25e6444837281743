"""The boxes of the athlete that come with FR-FS: FRFS_Boxes.json to one .npy per clip.

`FRFS_Boxes.json` maps the key of a clip to one list per frame, the 4 corners of a tracked box as
8 numbers x, y in pixels (or as 4 pairs); `null` or an empty list says that there is none. A clip's
`boxes/<clip>.npy` holds (N, 4) float32 x1, y1, x2, y2, upright, NaN in frames without a box.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from errors import InputError
from files import read_regular

_MOST_BYTES = 512 * 2**20
_CORNERS = 8
# Trackers overshoot the frame by a little; more says that the boxes are of other frames.
_SLACK = 0.05


@dataclass(frozen=True, slots=True)
class ClipBoxes:
    """The boxes of one clip, and what was wrong with them.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels within the frame, NaN rows without a box;
            None when the entry is of no use at all.
        faults: what was wrong, in words that follow the name of the clip.
    """

    boxes: np.ndarray | None
    faults: tuple[str, ...]


def load_boxes(path: Path) -> dict[str, object]:
    """Read the file: key of a clip -> its entry, which `parse_boxes` judges.

    Raises:
        InputError: it is not a JSON object with distinct keys; the message names the line.
    """
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=_distinct)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): unpack it again") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno} is no JSON (column {error.colno}: {error.msg}): unpack the "
            "file again, or remove it to go without boxes"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no JSON object of boxes ({error!s:.100}): unpack the file again, or remove "
            "it to go without boxes"
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, it should be an object of clip keys: unpack "
            "it again, or remove it to go without boxes"
        )
    return content


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:60]!r} is there twice")
    return content


def parse_boxes(entry: object, num_frames: int, size: tuple[int, int]) -> ClipBoxes:
    """Turn the corners of a clip's boxes into upright boxes, clipped to the frame.

    Args:
        entry: what the file holds for the clip.
        num_frames: N.
        size: (width, height) of its frames, pixels.
    """
    if not isinstance(entry, list) or len(entry) != num_frames:
        held = f"{len(entry)} boxes" if isinstance(entry, list) else f"a {type(entry).__name__}"
        return ClipBoxes(None, (f"has {held} for {num_frames} frames: not used",))
    boxes = np.full((num_frames, 4), np.nan)
    faults: dict[str, list[int]] = {}
    for frame, corners in enumerate(entry):
        if corners is None or corners == []:
            continue
        numbers = _flatten(corners)
        if numbers is None:
            faults.setdefault("is not 8 finite numbers", []).append(frame)
            continue
        box, fault = _within(numbers, size)
        boxes[frame] = box
        if fault:
            faults.setdefault(fault, []).append(frame)
    texts = tuple(
        f"has a box that {fault}, in {len(frames)} of {num_frames} frames from frame {frames[0]} on"
        for fault, frames in faults.items()
    )
    if np.isnan(boxes).all():
        return ClipBoxes(None, texts or ("has no box in any frame",))
    return ClipBoxes(boxes.astype(np.float32), texts)


def _flatten(corners: object) -> list[float] | None:
    """Return 8 finite numbers from a list of 8 or of 4 pairs; None if that is not what it is."""
    if not isinstance(corners, list):
        return None
    if len(corners) * 2 == _CORNERS and all(isinstance(c, list) and len(c) == 2 for c in corners):
        corners = [number for corner in corners for number in corner]
    if len(corners) != _CORNERS:
        return None
    numbers = []
    for value in corners:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if isinstance(value, int) and abs(value) > 10**9:  # may not even fit in a float
            return None
        numbers.append(float(value))
    return numbers if all(math.isfinite(n) and abs(n) < 1e9 for n in numbers) else None


def _within(numbers: list[float], size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Return the upright box around 4 corners, clipped to the frame, and what is wrong with it."""
    corners = np.array(numbers).reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    if (high <= low).any():
        return np.full(4, np.nan), "has no area"
    limit = np.array(size, float)
    clipped = np.concatenate((np.clip(low, 0, limit), np.clip(high, 0, limit)))
    if (clipped[2:] <= clipped[:2]).any():
        return np.full(4, np.nan), f"lies outside of the frame of {size[0]}x{size[1]} pixels"
    beyond = (low < -_SLACK * limit).any() or (high > (1 + _SLACK) * limit).any()
    fault = f"reaches far out of the frame of {size[0]}x{size[1]} pixels and was cut off there"
    return clipped, fault if beyond else ""


def encode_boxes(boxes: np.ndarray) -> bytes:
    """Return the bytes of the .npy that holds (N, 4) float32 boxes."""
    file = io.BytesIO()
    np.save(file, boxes.astype(np.float32), allow_pickle=False)
    return file.getvalue()
