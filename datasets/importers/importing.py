"""Keypoints of a source to the keypoints of the clips of a data set, or why not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.arrays import blaming, open_array, read_array, unless
from datasets.clip_table import ClipRow, load_table
from datasets.frames import ImageFrames
from datasets.importers.names import Matches, match_clips
from datasets.importers.numbering import Target, choose_offsets
from datasets.importers.people import KeypointSource, People, Span
from datasets.importers.slots import Slots, slots_of
from datasets.poses import Poses
from datasets.records import ClipRecord
from datasets.sources import find_frames
from errors import InputError

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user says about an import.

    Attributes:
        people: M of the files; None for 1, or as many as the arrays of the source have.
        frame_offset: to add to the source's frame numbers; None to find it.
        frame_size: (width, height) that the keypoints are of, where the source does not say it.
        link: link people over time, whatever tracks or slots the source gives.
    """

    people: int | None = None
    frame_offset: int | None = None
    frame_size: Size | None = None
    link: bool = False


@dataclass(frozen=True, slots=True)
class ClipPoses:
    """Keypoints of a clip, and what was seen on the way.

    Attributes:
        clip: its name.
        keypoints: (N, M, 17, 3) float32.
        size: (width, height) of the frames that they are of.
        crowd: (C,) int64, how many frames have 0, 1, ... C-1 people.
        left_over: people of single frames who are in no slot.
        twice: of these, those whose track was in their frame already.
        unusable: joints that were NaN, infinite or absurdly far away.
        above_one: confidences above 1.
        outside: joints outside of the frame.
        joints: joints that were found, of all people.
        hint: something odd that may be right, "" for nothing.
    """

    clip: str
    keypoints: np.ndarray
    size: Size
    crowd: np.ndarray
    left_over: int
    twice: int
    unusable: int
    above_one: int
    outside: int
    joints: int
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A clip whose keypoints cannot be used, and why: one line that names the file."""

    clip: str
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which keypoints go to which clips, before any is read.

    Attributes:
        root: folder of the data set.
        source: the keypoints.
        choices: what the user says.
        matches: of clips and keys.
        targets: clip -> its frames.
        offsets: clip -> what to add to the source's frame numbers.
        damaged: clips that are ruled out already.
    """

    root: Path
    source: KeypointSource
    choices: Choices
    matches: Matches
    targets: Mapping[str, Target]
    offsets: Mapping[str, int]
    damaged: tuple[Damaged, ...]


def plan_import(
    root: Path, records: Sequence[ClipRecord], source: KeypointSource, choices: Choices
) -> Plan:
    """Match clips, and find how the source numbers frames.

    Raises:
        InputError: a name fits several clips; or how frames are numbered is ambiguous.
    """
    matches = _match(source, records)
    table = load_table(root)
    targets: dict[str, Target] = {}
    spans: dict[str, Span] = {}
    damaged = []
    for record in records:
        if record.name not in matches.keys:
            continue
        try:
            spans[record.name] = source.span(matches.keys[record.name])
            targets[record.name] = find_target(root, record, table)
        except InputError as error:
            spans.pop(record.name, None)
            damaged.append(Damaged(record.name, str(error)))
    offsets, faults = choose_offsets(targets, spans, choices.frame_offset)
    damaged += [Damaged(clip, f"{matches.keys[clip]} {why}") for clip, why in faults.items()]
    return Plan(root, source, choices, matches, targets, offsets, tuple(damaged))


def _match(source: KeypointSource, records: Sequence[ClipRecord]) -> Matches:
    matches = match_clips(source.aliases, [record.name for record in records])
    if not matches.keys and len(source.aliases) == len(records) == 1:
        # A single clip and a single set of keypoints: there is nothing to mix up.
        return Matches({records[0].name: next(iter(source.aliases))}, (), ())
    return matches


def find_target(root: Path, record: ClipRecord, table: Mapping[str, ClipRow]) -> Target:
    """Return the frames that keypoints of a clip are wanted for.

    Raises:
        InputError: the clip has frames, but they are not as its list says.
    """
    row = table.get(record.name)
    has_frames = (root / "frames" / record.name).is_dir() or bool(row and row.video)
    if not has_frames:
        size = (row.width, row.height) if row and row.width and row.height else None
        return Target(record.name, record.num_frames, record.num_frames, size=size)
    frames = find_frames(root, record, table)
    stem = frames.files.path(0).stem if isinstance(frames, ImageFrames) else ""
    return Target(record.name, frames.count, frames.found, frames.first, True, stem, frames.size())


def read_clips(plan: Plan, clips: Sequence[str] | None = None) -> Iterator[ClipPoses | Damaged]:
    """Read the keypoints of the clips of a plan one after the other.

    Args:
        plan: from `plan_import`.
        clips: only these.
    """
    wanted = None if clips is None else set(clips)
    for clip, key in plan.matches.keys.items():
        if clip in plan.offsets and (wanted is None or clip in wanted):
            try:
                yield _read_clip(plan, clip, key)
            except InputError as error:
                yield Damaged(clip, str(error))


def _read_clip(plan: Plan, clip: str, key: str) -> ClipPoses:
    target = plan.targets[clip]
    people = plan.source.load(key)
    size = _size_of(key, people, target, plan.choices.frame_size)
    index = people.frames + (plan.offsets[clip] - target.first)
    inside = (index >= 0) & (index < target.count)  # the list may use the first frames alone
    people = People(
        index[inside],
        people.keypoints[inside],
        people.tracks[inside],
        people.in_slots,
        people.size,
        people.unusable,
        people.above_one,
    )
    outside, joints = _count_outside(key, people, size)
    boxes = _athlete_boxes(plan.root, target, size)
    slots: Slots = slots_of(
        people, target.count, size, plan.choices.people, boxes, plan.choices.link
    )
    per_frame = np.bincount(people.frames, minlength=target.count)
    return ClipPoses(
        clip,
        slots.keypoints,
        size,
        np.bincount(per_frame),
        slots.left_over,
        slots.twice,
        people.unusable,
        people.above_one,
        outside,
        joints,
        _turned_hint(key, people),
    )


def _size_of(key: str, people: People, target: Target, given: Size | None) -> Size:
    """Return the (width, height) that keypoints are of; it must have the shape of the frames."""
    size = people.size or given or target.size
    if size is None:
        raise InputError(
            f"{key} does not say of how large frames its pixels are, and clip {target.clip} has "
            "no frames: give --frame_size WIDTHxHEIGHT"
        )
    if target.size is None or _have_one_shape(size, target.size):
        return size
    turned = _have_one_shape(size[::-1], target.size)
    raise InputError(
        f"{key} is for frames of {size[0]}x{size[1]} pixels, the frames of clip {target.clip} "
        f"have {target.size[0]}x{target.size[1]}: "
        + (
            "its img_shape seems to be (width, height) and should be (height, width)"
            if turned
            else "import the keypoints of these frames"
        )
    )


def _have_one_shape(one: Size, other: Size) -> bool:
    return Poses(np.zeros(0), one).fits(other)


def _count_outside(key: str, people: People, size: Size) -> tuple[int, int]:
    """Return how many joints are outside of the frame, and how many there are.

    Raises:
        InputError: they are no pixels of such frames.
    """
    seen = people.keypoints[..., 2] > 0
    places = people.keypoints[..., :2][seen]
    # More than a joint or two in the corner pixel: these are shares of the frame.
    if len(places) > 2 and np.abs(places).max() <= 1 and max(size) > 2:
        raise InputError(
            f"{key} has coordinates between {places.min():.3g} and {places.max():.3g}: they "
            "should be pixels, multiply them by the size of the frames"
        )
    outside = int(((places < 0) | (places > size)).any(axis=1).sum())
    if outside > len(places) / 2:
        raise InputError(
            f"{key} has {outside} of {len(places)} joints outside of frames of "
            f"{size[0]}x{size[1]} pixels: they are of other frames; say their size with "
            "--frame_size WIDTHxHEIGHT, or correct img_shape (height, width)"
        )
    return outside, len(places)


def _turned_hint(key: str, people: People) -> str:
    """Say so when a size that the source gives would fit better turned by 90 degrees."""
    if people.size is None:
        return ""
    width, height = people.size
    x, y = people.keypoints[..., :2].reshape(-1, 2).max(axis=0, initial=0)
    if width < x <= height and y <= width:
        return (
            f"{key} is for frames of {width}x{height} pixels and has x up to {x:.0f}, y up to "
            f"{y:.0f}: img_shape should be (height, width)"
        )
    return ""


def _athlete_boxes(root: Path, target: Target, size: Size) -> np.ndarray | None:
    """Return the boxes of the main athlete (N, 4) in pixels of frames of `size`, None if unknown.

    Raises:
        InputError: the file of the boxes is damaged.
    """
    path = root / "boxes" / f"{target.clip}.npy"
    if target.size is None or not path.is_file():
        return None
    with blaming(path, "export it again"), open_array(path) as stream:
        wanted = (target.count, 4)
        boxes = read_array(stream, unless(lambda shape: shape == wanted, f"{wanted}"))
    return boxes * np.tile(np.divide(size, target.size), 2)
