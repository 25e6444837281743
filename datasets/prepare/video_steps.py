"""Steps of `process_dataset_videos.py`: read videos, extract frames, join and deal groups."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets.prepare.extract import ExtractJob, JpegSettings, Part, extract_frames, is_written
from datasets.prepare.jobs import Done, run_jobs
from datasets.prepare.probing import VideoInfo, VideoLimits, hash_file, probe_video
from datasets.prepare.splits import SPLITS, cut_validation, join_groups, make_folds, split_clips
from datasets.prepare.video_output import PROBES, FoundClip
from datasets.prepare.video_plan import find_part, find_start, load_info, name_clips, save_info
from datasets.prepare.video_table import ClipRequest
from errors import InputError

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Found:
    """What became of the clips that were asked for.

    Attributes:
        clips: those that can be had.
        problems: a line for each that cannot.
        doubts: a line for each thing that is wrong without costing a clip.
        notes: a line for each thing worth knowing.
    """

    clips: list[FoundClip] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _ProbeJob:
    path: Path
    known: Path  # what an earlier run found out


def _probe(job: _ProbeJob, limits: VideoLimits) -> VideoInfo:
    sha256 = hash_file(job.path)
    info = load_info(job.known, sha256)
    if info is None:
        info = probe_video(job.path, limits, sha256)
        save_info(job.known, info)
    return info


def read_videos(
    root: Path,
    requests: Sequence[ClipRequest],
    labels: Sequence[int],
    limits: VideoLimits,
    workers: int,
    progress: Progress,
) -> Found:
    """Decode every video once, and find the frames of each clip.

    What is found out about a video is kept, so that the next run need not decode it again.

    Args:
        root: folder of the data set.
        requests: N clips.
        labels: number of the class of each.
        limits: of a video.
        workers: processes.
        progress: called with videos done and videos in all.
    """
    files = {request.key: request.path for request in requests}
    names = dict(zip(files, name_videos(files), strict=True))
    jobs = [_ProbeJob(path, root / PROBES / f"{names[key]}.npz") for key, path in files.items()]
    outcomes: dict[str, Done[VideoInfo]] = {}
    keys = list(files)
    done = run_jobs(partial(_probe, limits=limits), jobs, workers, lambda job: job.path)
    for number, outcome in enumerate(done, start=1):
        outcomes[keys[outcome.place]] = outcome
        progress(number, len(jobs))
    found = Found()
    for key in keys:
        _remark(found, files[key], outcomes[key].result)
    for request, name, label in zip(requests, name_clips(requests), labels, strict=True):
        try:
            found.clips.append(_find_clip(request, name, label, outcomes[request.key]))
        except InputError as error:
            found.problems.append(_placed(request, str(error)))
    return found


def _find_clip(request: ClipRequest, name: str, label: int, outcome: Done[VideoInfo]) -> FoundClip:
    if outcome.result is None:
        raise outcome.error or InputError(f"{request.path} cannot be read")
    try:
        first, count = find_part(outcome.result, request.start, request.end)
    except ValueError as error:
        raise InputError(f"{request.path} {error}") from None
    return FoundClip(request, name, label, outcome.result, first, count)


def name_videos(files: dict[str, Path]) -> list[str]:
    """Return a name without suffix for each video, as for clips that are whole videos."""
    return name_clips([ClipRequest(str(path), path, key, "") for key, path in files.items()])


def _placed(request: ClipRequest, text: str) -> str:
    """Put the line of the table before a message that does not begin with the place already."""
    return text if request.place == str(request.path) else f"{request.place} {text}"


def _remark(found: Found, path: Path, info: VideoInfo | None) -> None:
    if info is None:
        return
    notes = [f"{path} {note}" for note in info.notes]
    if info.ends_early:
        found.doubts.append(notes.pop(0))
    found.notes.extend(notes)


# ---------------------------------------------------------------- frames


@dataclass(frozen=True, slots=True)
class _SeekJob:
    path: Path
    info: VideoInfo
    parts: tuple[tuple[int, int], ...]


def _find_starts(job: _SeekJob) -> list[int | None]:
    return [find_start(job.path, job.info, first, count) for first, count in job.parts]


def find_seeks(clips: Sequence[FoundClip], workers: int, progress: Progress) -> list[FoundClip]:
    """Find out, for parts of videos, whether seeking leads to their very frames."""
    per_video: dict[str, list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        if clip.first:
            per_video[clip.request.key].append(place)
    places = list(per_video.values())
    jobs = [
        _SeekJob(
            clips[of[0]].request.path,
            clips[of[0]].info,
            tuple((clips[i].first, clips[i].count) for i in of),
        )
        for of in places
    ]
    chosen = list(clips)
    done = run_jobs(_find_starts, jobs, workers, lambda job: job.path)
    for number, outcome in enumerate(done, start=1):
        if outcome.error is not None:
            raise outcome.error
        for place, start in zip(places[outcome.place], outcome.result or (), strict=True):
            chosen[place] = replace(clips[place], start_pts=start)
        progress(number, len(jobs))
    return chosen


def extract_clips(
    root: Path,
    found: Found,
    settings: JpegSettings,
    workers: int,
    progress: Progress,
) -> int:
    """Write the frames of all clips into frames/<clip>/; what is written already is kept.

    Clips whose video fails are moved to the problems of `found`.

    Returns:
        Number of frames written.

    Raises:
        InputError: a folder holds frames of other origin.
    """
    per_video: dict[str, list[FoundClip]] = defaultdict(list)
    for clip in found.clips:
        per_video[clip.request.key].append(clip)
    jobs = [_extract_job(root, clips, settings) for clips in per_video.values()]
    todo = [job for job in jobs if not all([is_written(job, part) for part in job.parts])]
    written, failed = 0, {}
    for number, outcome in enumerate(
        run_jobs(extract_frames, todo, workers, lambda job: job.path), start=1
    ):
        if outcome.error is not None:
            failed[todo[outcome.place].path] = str(outcome.error)
        written += outcome.result or 0
        progress(number, len(todo))
    for clip in found.clips:
        if clip.request.path in failed:
            found.problems.append(_placed(clip.request, failed[clip.request.path]))
    found.clips = [clip for clip in found.clips if clip.request.path not in failed]
    return written


def _extract_job(root: Path, clips: Sequence[FoundClip], settings: JpegSettings) -> ExtractJob:
    request, info = clips[0].request, clips[0].info
    parts = tuple(Part(root / "frames" / clip.name, clip.first, clip.count) for clip in clips)
    return ExtractJob(request.path, info.sha256, (info.width, info.height), parts, settings)


# ---------------------------------------------------------------- groups and lists


@dataclass(frozen=True, slots=True)
class DealSettings:
    """How clips are dealt to lists.

    Attributes:
        val_fraction: wanted share of val.
        test_fraction: wanted share of test, without folds.
        folds: test every clip once in this many; None makes one split.
        seed: chooses among equally good ways.
        allow_overlap: the table's splits may share a group.
    """

    val_fraction: float
    test_fraction: float
    folds: int | None
    seed: int
    allow_overlap: bool


def group_clips(found: Found) -> tuple[list[str], list[str]]:
    """Say which clips belong together: by their group, else by their video.

    Files with the same content belong together too, and are noted. Equal parts of them with
    different labels are doubtful.

    Returns:
        For each clip its group, and the group that others should know of: "" where the clip is
        alone and nobody named a group.
    """
    clips = found.clips
    groups = _groups_of([clip.request for clip in clips])
    holders: dict[str, dict[str, FoundClip]] = defaultdict(dict)
    for clip in clips:
        holders[clip.info.sha256].setdefault(clip.request.key, clip)
    for same in holders.values():
        if len(same) > 1:
            paths = [str(clip.request.path) for clip in same.values()]
            found.notes.append(f"{paths[0]} and {', '.join(paths[1:])} are the same: one group")
    _find_contradictions(found)
    contents = [
        clip.info.sha256 if len(holders[clip.info.sha256]) > 1 else f"clip {place}"
        for place, clip in enumerate(clips)
    ]
    groups = join_groups(groups, contents)
    sizes = Counter(groups)
    shown = [
        group if sizes[group] > 1 or clip.request.group else ""
        for group, clip in zip(groups, clips, strict=True)
    ]
    return groups, shown


def _groups_of(requests: Sequence[ClipRequest]) -> list[str]:
    """Return the group of each clip by what was asked for: the one given, else its video."""
    given = {request.group for request in requests}
    files = {request.key: request.path for request in requests}
    names = dict(zip(files, name_videos(files), strict=True))
    return [request.group or _own_group(names[request.key], given) for request in requests]


def _own_group(name: str, given: set[str]) -> str:
    """Return the name of the group of a video, which is no name that somebody gave."""
    name = f"video {name}"
    while name in given:
        name = f"video {name}"
    return name


def _find_contradictions(found: Found) -> None:
    seen: dict[tuple[str, int, int], FoundClip] = {}
    for clip in found.clips:
        other = seen.setdefault((clip.info.sha256, clip.first, clip.count), clip)
        if other.label != clip.label:
            found.doubts.append(
                f"{clip.request.place} has label {clip.request.label!r}, the same frames have "
                f"{other.request.label!r} at {other.request.place}"
            )


def deal_clips(
    requests: Sequence[ClipRequest],
    labels: Sequence[int],
    classes: Sequence[str],
    settings: DealSettings,
    groups: Sequence[str] | None = None,
) -> list[list[str]]:
    """Return for each fold the split of each clip; one fold unless the settings say otherwise.

    A split that the table gives is obeyed; where it has no val, this is cut from train.

    Args:
        requests: N clips.
        labels: number of the class of each.
        classes: names of the classes.
        settings: what is wanted.
        groups: of each clip; None takes what is known before a video is read, to find out in time
            what cannot be: files of the same content may be of one group still.

    Raises:
        InputError: it cannot be done, the table's splits share a group, a list would be empty, or
            train without a class that another list has.
    """
    if groups is None:
        groups = _groups_of(requests)
    folds = _deal(requests, labels, classes, settings, groups)
    for splits in folds:
        _check_classes(labels, splits, classes)
    return folds


def _deal(
    requests: Sequence[ClipRequest],
    labels: Sequence[int],
    classes: Sequence[str],
    settings: DealSettings,
    groups: Sequence[str],
) -> list[list[str]]:
    val, seed = settings.val_fraction, settings.seed
    if not any(request.split for request in requests):
        if settings.folds is not None:
            return make_folds(labels, groups, settings.folds, val, seed, classes)
        return [split_clips(labels, groups, val, settings.test_fraction, seed, classes)]
    if settings.folds is not None:
        raise InputError(
            f"{requests[0].place} gives the split, --folds would choose another one: leave out one "
            "of the two"
        )
    splits = [request.split for request in requests]
    if not settings.allow_overlap:
        _refuse_shared(requests, groups, splits)
    if "val" not in splits:
        train = [i for i, split in enumerate(splits) if split == "train"]
        if not train:
            raise InputError("no clip is in train: put some there, or remove the column split")
        cut = cut_validation(
            [labels[i] for i in train], [groups[i] for i in train], val, seed, classes
        )
        for place, split in zip(train, cut, strict=True):
            splits[place] = split
    return [splits]


def _refuse_shared(
    requests: Sequence[ClipRequest], groups: Sequence[str], splits: Sequence[str]
) -> None:
    seen: dict[str, tuple[str, ClipRequest]] = {}
    for request, group, split in zip(requests, groups, splits, strict=True):
        other_split, other = seen.setdefault(group, (split, request))
        if other_split != split:
            raise InputError(
                f"{request.place} is in {split}, {other.place} of the same group ({group}) in "
                f"{other_split}: put both in one, or give --allow_overlap"
            )


def _check_classes(labels: Sequence[int], splits: Sequence[str], classes: Sequence[str]) -> None:
    """Make sure that each list has clips, and train those of every class that is anywhere."""
    for split in SPLITS:
        if split not in splits:
            raise InputError(f"no clip is in {split}: put some there, or remove the column split")
    used = [
        {label for label, its in zip(labels, splits, strict=True) if its == split}
        for split in SPLITS
    ]
    missing = sorted((used[1] | used[2]) - used[0])
    if missing:
        raise InputError(
            f"no clip of class {classes[missing[0]]!r} is in train, and some are in val or test: "
            "put some in train"
        )
