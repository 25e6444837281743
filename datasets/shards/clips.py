"""Clips of shards as data sets: made when they are asked for, so that 100,000 take no memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, overload

import numpy as np

from datasets.clips import ClipDataset, Estimate, ViewSpec
from datasets.poses import PoseSource
from datasets.records import ClipRecord, fingerprints
from datasets.scan import NOMINAL_SIZE, Clip, MissingPose, PoseReport
from datasets.shards.fetching import CachedShards
from datasets.shards.index import VIDEO
from datasets.shards.reading import Packed, ShardImages, ShardPoses, ShardVideo, size_of
from datasets.skeletons import SkeletonDataset
from datasets.views import InputSpec, fit_people
from errors import InputError
from ops.body_frame import BodyTrack
from ops.skeleton import COCO17, SkeletonLayout


@dataclass(frozen=True, slots=True)
class Needs:
    """What a network needs of a clip: see `datasets.scan.find_clips`."""

    has_frames: bool
    has_poses: bool
    in_pixels: bool = False
    layout: SkeletonLayout = COCO17


class ShardClips(Sequence[Clip]):
    """The clips of a list that lie in shards: a `Clip` lives while it is used.

    Objects that live in a loader's worker cost memory twice, since counting who uses them writes
    to pages that it shares with the other processes; arrays do not.

    Args:
        packed: the shards.
        rows: (n,) int64 rows of the clips in their index.
        lengths: (n,) int64 frames of each.
        labels: (n,) int64.
        needs: what is needed of each.
    """

    def __init__(
        self,
        packed: Packed,
        rows: np.ndarray,
        lengths: np.ndarray,
        labels: np.ndarray,
        needs: Needs,
    ) -> None:
        self.packed, self.needs = packed, needs
        self.rows, self.lengths, self.labels = rows, lengths, labels

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Clip: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Clip]: ...
    def __getitem__(self, place: int | slice) -> Clip | Sequence[Clip]:
        """Return a clip, or clips."""
        if isinstance(place, slice):
            parts = (self.rows[place], self.lengths[place], self.labels[place])
            return ShardClips(self.packed, *parts, self.needs)
        row, index, needs = int(self.rows[place]), self.packed.index, self.needs
        record = self.record(place)
        kind = ShardVideo if index.value("kind", row) == VIDEO else ShardImages
        images = kind(self.packed, row, record.num_frames) if needs.has_frames else None
        poses = None
        if needs.has_poses and index.value("has_poses", row):
            joints = len(needs.layout.joints)
            poses = cast(PoseSource, ShardPoses(self.packed, row, record.num_frames, joints))
        return Clip(record, images, poses, self._size(row, has_poses=poses is not None))

    def record(self, place: int) -> ClipRecord:
        """Return the line of a clip in its list."""
        name = self.packed.index.name(int(self.rows[place]))
        return ClipRecord(name, int(self.lengths[place]), int(self.labels[place]))

    def records(self) -> list[ClipRecord]:
        """Return the lines of all clips."""
        return [self.record(place) for place in range(len(self))]

    @property
    def shards(self) -> np.ndarray:
        """Return the shard that each clip lies in, (n,) int64."""
        return self.packed.index.columns["shard"][self.rows].astype(np.int64)

    def _size(self, row: int, *, has_poses: bool) -> tuple[int, int]:
        """Return what `find_clips` finds: the size that keypoints are in."""
        index = self.packed.index
        if self.needs.has_frames or (has_poses and self._has_no_pose_size(row)):
            is_known = self.needs.has_frames or self.needs.in_pixels
            return size_of(index, row) if is_known else NOMINAL_SIZE
        if not has_poses:
            return NOMINAL_SIZE
        return index.value("pose_width", row), index.value("pose_height", row)

    def _has_no_pose_size(self, row: int) -> bool:
        return self.packed.index.value("pose_width", row) == 0


def find_packed_clips(
    packed: Packed,
    records: Sequence[ClipRecord],
    needs: Needs,
    missing_pose: MissingPose = "error",
) -> tuple[ShardClips, PoseReport]:
    """Find the clips of a list in shards, as `find_clips` does in folders.

    Keypoints are not read: they were checked when they were packed.

    Raises:
        InputError: a clip is not there or has other frames than the list says; keypoints are
            missing under "error", or for every clip under "skip".
    """
    rows, place = _rows_of(packed, records), packed.store.path(0).parent
    lengths = np.array([record.num_frames for record in records], np.int64)
    labels = np.array([record.label for record in records], np.int64)
    columns = packed.index.columns
    there = columns["num_frames"][rows]
    is_video = columns["kind"][rows] == VIDEO
    wrong = np.flatnonzero((lengths > there) | (is_video & (lengths != there)))
    if len(wrong):
        record = records[wrong[0]]
        raise InputError(
            f"clip {record.name} has {record.num_frames} frames in its list and {there[wrong[0]]} "
            f"in the shards of {place}: pack the data set again"
        )
    has_poses = columns["has_poses"][rows] > 0
    missing = int((~has_poses).sum()) if needs.has_poses else 0
    if missing and missing_pose == "error":
        name = records[int(np.argmin(has_poses))].name
        raise InputError(
            f"{missing} of {len(rows)} clips have no keypoints in the shards of {place}, such as "
            f"{name}: run preprocess_pose.py and pack the data set again, or choose "
            "--missing_pose skip or zero"
        )
    if missing and missing_pose == "skip":
        rows, lengths, labels = rows[has_poses], lengths[has_poses], labels[has_poses]
    if not len(rows):
        raise InputError(
            f"the shards of {place} have no keypoints for any clip of the list: pack the data set "
            "with them, or choose --missing_pose zero"
        )
    report = PoseReport(len(records), missing, missing_pose)
    return ShardClips(packed, rows, lengths, labels, needs), report


def _rows_of(packed: Packed, records: Sequence[ClipRecord]) -> np.ndarray:
    known = packed.index.rows()
    rows = np.array([known.get(record.name, -1) for record in records], np.int64)
    if (rows < 0).any():
        record = records[int(np.argmin(rows))]
        raise InputError(
            f"clip {record.name} of a list is not in the shards of {packed.store.path(0).parent}: "
            "pack the data set again with all of its lists (--splits train val test)"
        )
    return rows


class ShardDataset(ClipDataset):
    """The same samples as those of `ClipDataset`, out of shards.

    Attributes:
        groups: (clips,) shard of each, where training goes shard by shard; None: at will.
    """

    def __init__(
        self, clips: ShardClips, *args: Any, by_shards: bool = False, **options: Any
    ) -> None:
        """Take what `ClipDataset` takes.

        Args:
            clips: of shards.
            args: as `ClipDataset`.
            by_shards: whether training is to go shard by shard.
            options: as `ClipDataset`.
        """
        super().__init__((), *args, **options)
        self.clips = clips  # type: ignore[assignment]
        self.groups = clips.shards if by_shards else None

    @property
    def labels(self) -> np.ndarray:
        """Return the class of every clip, (len,) int64."""
        return cast(ShardClips, self.clips).labels

    @property
    def fingerprints(self) -> np.ndarray:
        """Return one number for each clip's name, (len,) int64."""
        return fingerprints(cast(ShardClips, self.clips).records())


class ShardSkeletons(ShardDataset, SkeletonDataset):
    """The same samples as those of `SkeletonDataset`, out of shards: read one by one."""

    @property
    def is_quick(self) -> bool:
        """Return false: clips are read from files."""
        return False

    def _track(self, index: int) -> tuple[np.ndarray, BodyTrack | None]:
        """Return the keypoints (N, M, V, 3) of a clip, in pixels of its frames, and its body."""
        clip = self.clips[index]
        keypoints, _ = self._load_tracks(clip, None, np.arange(0))
        people = self.spec.num_people
        return fit_people(keypoints, people), self._measure(keypoints)


def build_shard_dataset(
    packed: Packed,
    records: Sequence[ClipRecord],
    needs: Needs,
    spec: InputSpec,
    views: ViewSpec,
    missing_pose: MissingPose,
    seed: int,
    by_shards: bool,
    estimate: Estimate | None = None,
) -> ShardDataset:
    """Build the data set of a list whose clips lie in shards.

    Args:
        packed: the shards.
        records: the list.
        needs: what is needed of each clip.
        spec: what the network sees.
        views: which views of each clip.
        missing_pose: what to do with clips without keypoints.
        seed: of random choices.
        by_shards: whether training goes shard by shard.
        estimate: finds keypoints in clips that have none.

    Raises:
        InputError: see `find_packed_clips`.
    """
    clips, report = find_packed_clips(packed, records, needs, missing_pose)
    if isinstance(packed.store, CachedShards):
        packed.store.check_room(clips.shards, by_shards=by_shards, shuffled=views.train)
    kind = ShardDataset if spec.has_frames or spec.skeleton else ShardSkeletons
    return kind(
        clips,
        spec,
        views,
        by_shards=by_shards and views.train,
        seed=seed,
        report=report,
        estimate=estimate,
        layout=needs.layout,
    )
