"""What prediction says of a video: windows, events, poses and how long it took."""

import tempfile
import weakref
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Window:
    """One answer of the network.

    Attributes:
        track: number of the person, 0 = the main athlete, or the whole frame for RGB alone.
        start: seconds in the video.
        end: seconds in the video, of the end of the last frame.
        first_frame: 0-based.
        last_frame: 0-based, inclusive.
        probabilities: K, in order of the classes.
    """

    track: int
    start: float
    end: float
    first_frame: int
    last_frame: int
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A stretch of time in which a class is likely.

    Attributes:
        track: number of the person.
        label: name of the class.
        start: seconds in the video.
        end: seconds in the video.
        probability: the highest of its windows.
    """

    track: int
    label: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds that each stage took; stages overlap, so that `total` may be less than their sum.

    Attributes:
        video: length of what was seen.
        decode: reading, decoding, cropping and resizing frames (in a thread of its own).
        pose: finding people and following them.
        network: the recognition network.
        output: writing pictures, tables and the annotated video.
        total: from the first frame to the last answer, and `output`.
    """

    video: float
    decode: float
    pose: float
    network: float
    output: float = 0.0
    total: float = 0.0

    @property
    def speed(self) -> float:
        """Return video seconds per second; 0 where nothing was measured."""
        return self.video / self.total if self.total > 0 else 0.0

    def stage_speeds(self) -> dict[str, float]:
        """Return video seconds per second of each stage that took any time."""
        stages = {name: getattr(self, name) for name in ("decode", "pose", "network", "output")}
        return {name: self.video / seconds for name, seconds in stages.items() if seconds > 0}


class PoseTrack:
    """Keypoints of the people of a video of any length, in a temporary file without a name.

    People are appended under the number that tracking knows them by, and shown in the slots that
    `assign` or `follow` give them: slot m is track m of the windows.

    Attributes:
        num_joints: V.
        num_people: M, the slots of `at`.
    """

    def __init__(self, num_joints: int) -> None:
        self.num_joints = num_joints
        self.num_people = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        weakref.finalize(self, self._file.close)
        self._row = np.dtype([("person", "<i4"), ("joints", "<f4", (num_joints, 3))])
        self._starts = array("q", [0])  # row of the first person of each frame, and the end
        self._slots: dict[int, int] = {}
        self._shown: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of frames, N."""
        return len(self._starts) - 1

    def append(self, people: Mapping[int, np.ndarray]) -> None:
        """Add a frame: person -> (V, 3) x, y in pixels of the frame and confidence."""
        rows = np.zeros(len(people), self._row)
        for row, (person, joints) in zip(rows, people.items(), strict=True):
            row["person"], row["joints"] = person, joints
        self._file.seek(0, 2)
        self._file.write(rows.tobytes())
        self._starts.append(self._starts[-1] + len(rows))

    def assign(self, slots: Mapping[int, int]) -> None:
        """Show each person in a slot of its own; people without a slot are not shown."""
        self._slots, self._shown = dict(slots), None
        self.num_people = max(self._slots.values(), default=-1) + 1

    def follow(self, shown: np.ndarray) -> None:
        """Show one person in each frame, in slot 0: (N,) numbers, -1 = nobody."""
        self._shown = np.asarray(shown)
        self.num_people = 1

    def at(self, frame: int) -> np.ndarray:
        """Return (M, V, 3) float32 keypoints of a frame, zeros where somebody was not found.

        Raises:
            IndexError: there is no such frame.
        """
        if not 0 <= frame < len(self):
            raise IndexError(f"frame {frame} of {len(self)}")
        found = np.zeros((self.num_people, self.num_joints, 3), np.float32)
        for row in self._rows(frame):
            slot = self._slot(frame, int(row["person"]))
            if slot is not None:
                found[slot] = row["joints"]
        return found

    def _slot(self, frame: int, person: int) -> int | None:
        if self._shown is not None:
            return 0 if person == self._shown[frame] else None
        return self._slots.get(person)

    def _rows(self, frame: int) -> np.ndarray:
        start, end = self._starts[frame], self._starts[frame + 1]
        self._file.seek(start * self._row.itemsize)
        data = self._file.read((end - start) * self._row.itemsize)
        return np.frombuffer(data, self._row)


@dataclass(frozen=True, slots=True)
class VideoResult:
    """All that is said of a video.

    Attributes:
        source: file, folder, address or camera.
        classes: names in order of the label, K.
        fps: frames per second, measured over the video.
        num_frames: that were read.
        duration: seconds, to the end of the last frame; the first frame begins at 0.
        size: (width, height) of the frames as they are shown.
        windows: in order of track, then of time.
        events: in order of track, then of their start.
        poses: of every frame; None where the model sees none.
        timings: of the stages.
        notes: what the user has to know, a line each.
        fault: why it was not seen to its end, also among the notes; "" where it was.
    """

    source: str
    classes: tuple[str, ...]
    fps: float
    num_frames: int
    duration: float
    size: tuple[int, int]
    windows: tuple[Window, ...]
    events: tuple[Event, ...]
    poses: PoseTrack | None
    timings: Timings
    notes: tuple[str, ...] = ()
    fault: str = ""

    @property
    def tracks(self) -> tuple[int, ...]:
        """Return the numbers of the people who have windows, ascending."""
        return tuple(sorted({window.track for window in self.windows}))
