"""OpenPose keypoints: a tree of JSON files, one a frame, `<clip>_000000000012_keypoints.json`.

A clip is a folder, or all files whose names begin alike. Body-25 and COCO-18 are told apart by the
number of joints. The files of AlphaPose's form "open", one an image, are read as well. A file
without people is a frame with nobody.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from datasets.importers.jsons import numbers_of, read_json, whole_number
from datasets.importers.names import FrameTree
from datasets.importers.people import People, Row, gather_rows
from errors import InputError

_MOST_BYTES = 16 * 2**20
_KEYPOINTS = ("pose_keypoints_2d", "pose_keypoints")
_REMEDY = "export this frame again"


@dataclass(slots=True)
class OpenPose(FrameTree):
    """Keypoints of OpenPose, by clip: a `KeypointSource`."""

    suffix: ClassVar[str] = ".json"

    def load(self, key: str) -> People:
        """Read the people of a clip.

        Raises:
            InputError: a file is not as OpenPose writes it, or of another model than the others.
        """
        rows: list[Row] = []
        for number, path in sorted(self.groups[key].files.items()):
            for person, keypoints, track in _people(path):
                if rows and len(keypoints) != len(rows[0][1]):
                    raise InputError(
                        f"{path}, person {person} has {len(keypoints)} joints, frames before "
                        f"{len(rows[0][1])}: {_REMEDY} with one model"
                    )
                rows.append((number, keypoints, track))
        return gather_rows(rows, key)


def _people(path: Path) -> list[tuple[int, np.ndarray, int]]:
    """Return number, (V, 3) keypoints and track of the people of a frame."""
    content = read_json(path, _MOST_BYTES)
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list):
        raise InputError(f"{path} has no list of people: it is no frame of OpenPose; {_REMEDY}")
    found = []
    for number, person in enumerate(people, start=1):
        held = person if isinstance(person, dict) else {}
        values = next((held[name] for name in _KEYPOINTS if name in held), None)
        if values == []:  # a face or a hand without a body
            continue
        keypoints = numbers_of(values)
        if keypoints is None or len(keypoints) % 3:
            raise InputError(
                f"{path}, person {number} has no pose_keypoints_2d of x, y, confidence for each "
                f"joint: {_REMEDY}"
            )
        found.append((number, keypoints.reshape(-1, 3), _track(held.get("person_id"))))
    return found


def _track(value: object) -> int:
    """Return the id of --tracking, which is [-1] without."""
    number = whole_number(value[0] if isinstance(value, list) and value else value)
    return -1 if number is None or number < 0 else number
