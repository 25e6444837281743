"""Turn videos and their labels into a data set: clip lists, and the videos or their frames.

python process_dataset_videos.py --source ~/Videos/jumps --dataset jumps      # a folder per class
python process_dataset_videos.py --table labels.csv --dataset jumps --extract_frames --folds 5

The table has the columns video,label[,split,group,start_seconds,end_seconds]. Writes below
<dataset_path>/<dataset>: videos/ (hard links) or frames/, clips.csv, and the train, val and test
lists. Clips of one group (an athlete, an event; where there is no such column, a video) are never
in two lists.
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from checkup import check_prepared
from console import StepLine, say, warn
from datasets.clip_table import ClipRow
from datasets.prepare import video_output as output
from datasets.prepare import video_steps as steps
from datasets.prepare.extract import JpegSettings
from datasets.prepare.probing import VideoLimits
from datasets.prepare.splits import SPLITS
from datasets.prepare.video_plan import number_labels
from datasets.prepare.video_table import (
    COLUMNS,
    ClipRequest,
    Listing,
    read_class_folders,
    read_table,
)
from errors import InputError, printable, run_script
from options.data import parse_videos_args

_MOST_GAPS_SAID = 10  # classes that a list lacks, each on a line


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data set."""
    args = parse_videos_args(argv)
    root = args.dataset_path / args.dataset
    workers = _count_cores() if args.workers is None else args.workers
    listing = read_listing(args, root)
    labels, classes = number_labels(listing.requests, args.class_names)
    deal(listing.requests, labels, classes, args)  # what cannot be is said before the long work
    with output.alone_in(root):
        found = read_videos(root, listing, labels, args, workers)
        if args.extract_frames:
            extract(root, found, args, workers)
        refuse_damage(found, args.strict)
        groups, shown = steps.group_clips(found)
        say_remarks(found, args.strict)
        kept = [clip.label for clip in found.clips]
        folds = deal([clip.request for clip in found.clips], kept, classes, args, groups)
        rows = (
            output.rows_with_frames(root, found.clips, _jpegs(args), shown)
            if args.extract_frames
            else keep_videos(root, found, args, shown, workers)
        )
        header = output.make_header(classes, len(found.problems))
        output.write_lists(root, found.clips, folds, header, rows)
    say_summary(root, found, folds, groups, classes)
    if not args.no_check:
        check_prepared(
            args.dataset,
            args.dataset_path,
            strict=args.strict,
            decode=False,
            wrote=("folds", "frames", "videos"),
        )


def read_listing(args: argparse.Namespace, root: Path) -> Listing:
    """Read the table, or the folders of the classes.

    Raises:
        InputError: there is nothing to be had from them.
    """
    _refuse_place(args.source or args.table.parent, root)
    if args.table is None:
        listing = read_class_folders(args.source, root)
    else:
        listing = read_table(args.table, args.source, _renamed(args.columns or ()), root)
    for note in listing.notes:
        say(printable(f"note: {note}"))
    if not listing.requests:
        raise InputError(f"{listing.problems[0]} (and no other video of the table is there)")
    return listing


def _refuse_place(source: Path, root: Path) -> None:
    """Make sure that the videos do not lie where the data set is written."""
    for folder in ("videos", "frames"):
        if source.resolve().is_relative_to((root / folder).resolve()):
            raise InputError(
                f"{source} is where the data set is written: move your videos elsewhere, or choose "
                "another --dataset"
            )


def _renamed(pairs: Sequence[str]) -> dict[str, str]:
    """Read 'label=fall' as {'label': 'fall'}."""
    renamed = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if ours not in COLUMNS or not equals or not theirs:
            raise InputError(
                f"--columns {pair!r}: write OURS=THEIRS, where OURS is one of {', '.join(COLUMNS)}"
            )
        renamed[ours] = theirs
    return renamed


def read_videos(
    root: Path, listing: Listing, labels: Sequence[int], args: argparse.Namespace, workers: int
) -> steps.Found:
    """Decode every video once, and find the frames of each clip."""
    limits = VideoLimits(args.max_hours * 3600)
    begin = time.monotonic()
    with StepLine("reading videos", every=50) as line:
        found = steps.read_videos(root, listing.requests, labels, limits, workers, line)
    frames = sum({clip.request.key: clip.info.num_frames for clip in found.clips}.values())
    say(f"read {frames} frames in {time.monotonic() - begin:.1f} s")
    found.problems[:0] = listing.problems
    return found


def extract(root: Path, found: steps.Found, args: argparse.Namespace, workers: int) -> None:
    """Write the frames of all clips as JPEGs."""
    begin = time.monotonic()
    with StepLine("extracting frames: videos", every=50) as line:
        written = steps.extract_clips(root, found, _jpegs(args), workers, line)
    seconds = time.monotonic() - begin
    total = sum(clip.count for clip in found.clips)
    say(
        f"extracted {written} frames in {seconds:.1f} s ({written / max(seconds, 1e-9):.0f} a "
        f"second), {total - written} were there"
    )


def _jpegs(args: argparse.Namespace) -> JpegSettings:
    return JpegSettings(args.short_side, args.jpeg_quality)


def keep_videos(
    root: Path, found: steps.Found, args: argparse.Namespace, shown: Sequence[str], workers: int
) -> list[ClipRow]:
    """Link the videos into the data set; return `clips.csv`."""
    output.refuse_mixture(root, found.clips)
    with StepLine("trying to seek: videos", every=50) as line:
        found.clips = steps.find_seeks(found.clips, workers, line)
    firsts = {clip.request.key: clip for clip in found.clips}
    files = {key: clip.request.path for key, clip in firsts.items()}
    names = dict(zip(files, steps.name_videos(files), strict=True))
    videos = {key: f"{name}{PurePosixPath(key).suffix.lower()}" for key, name in names.items()}
    copied = sum(
        output.link_video(path, root / "videos" / videos[key], args.link, firsts[key].info.sha256)
        for key, path in files.items()
    )
    if copied:
        say(f"note: {copied} videos were copied, the file system cannot make hard links to them")
    return output.rows_with_videos(found.clips, videos, shown)


def refuse_damage(found: steps.Found, strict: bool) -> None:
    """Name the clips that cannot be had.

    Raises:
        InputError: nothing is left, or the user wants no clip left out.
    """
    for problem in found.problems:
        warn(printable(f"left out: {problem}"))
    if found.problems and strict:
        raise InputError(f"{len(found.problems)} clips are damaged (--strict): see above")
    if not found.clips:
        raise InputError(f"none of {len(found.problems)} clips can be used: see above")


def say_remarks(found: steps.Found, strict: bool) -> None:
    """Say what is doubtful or worth knowing.

    Raises:
        InputError: something is doubtful, and the user wants nothing of the kind.
    """
    for note in found.notes:
        say(printable(f"note: {note}"))
    for doubt in found.doubts:
        warn(printable(doubt))
    if found.doubts and strict:
        raise InputError(f"{len(found.doubts)} findings (--strict): see above")


def deal(
    requests: Sequence[ClipRequest],
    labels: Sequence[int],
    classes: Sequence[str],
    args: argparse.Namespace,
    groups: Sequence[str] | None = None,
) -> list[list[str]]:
    """Return for each fold the split of each clip; without groups, a trial of it."""
    settings = steps.DealSettings(
        args.val_fraction, args.test_fraction, args.folds, args.seed, args.allow_overlap
    )
    return steps.deal_clips(requests, labels, classes, settings, groups)


def say_summary(
    root: Path,
    found: steps.Found,
    folds: Sequence[Sequence[str]],
    groups: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Say what is in the lists."""
    labels = [clip.label for clip in found.clips]
    requests = [clip.request for clip in found.clips]
    absent = [name for i, name in enumerate(classes) if i not in set(labels)]
    if absent:
        warn(f"no clip is of class {', '.join(absent)}")
    for number, splits in enumerate(folds, start=1):
        if len(folds) > 1:
            say(f"fold {number} of {len(folds)}:")
        for split in SPLITS:
            places = [i for i, its in enumerate(splits) if its == split]
            counts = Counter(labels[i] for i in places)
            say(f"{split}: {_describe(counts, len({groups[i] for i in places}), classes)}")
            for label in sorted(set(labels) - set(counts))[:_MOST_GAPS_SAID]:
                reason = explain_gap(label, split, requests, labels, groups, is_fold=len(folds) > 1)
                warn(printable(f"{split} has no clip of class {classes[label]}: {reason}"))
    if found.problems:
        warn(f"{len(found.problems)} clips were left out as damaged, each is named above")
    say(f"the lists are {output.list_path(root, '{train,val,test}')}")


def _describe(counts: Mapping[int, int], num_groups: int, classes: Sequence[str]) -> str:
    total = sum(counts.values())
    each = ", ".join(f"{classes[label]} {counts[label]}" for label in sorted(counts)[:20])
    more = "" if len(counts) <= 20 else f" and {len(counts) - 20} more classes"
    majority = max(counts.values()) / total
    return f"{total} clips of {num_groups} groups ({each}{more}), majority rate {majority:.1%}"


def explain_gap(
    label: int,
    split: str,
    requests: Sequence[ClipRequest],
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    is_fold: bool,
) -> str:
    """Say why a list has no clip of a class that is in others, and what helps.

    Args:
        label: the class.
        split: the list.
        requests: N clips.
        labels: number of the class of each.
        groups: of each.
        is_fold: the lists are those of a fold of several.
    """
    given = {request.split for request in requests}
    if split in given:
        return "so says the table's column split"
    wanted = 2 if given - {""} else 3  # lists that the groups were dealt to
    held = {
        group
        for group, request, its in zip(groups, requests, labels, strict=True)
        if its == label and request.split in ("", "train")
    }
    if len(held) < wanted:
        return (
            f"its clips are of {len(held)} group{'s' * (len(held) > 1)}, {wanted} lists share them"
        )
    remedy = "other --folds" if is_fold else f"a larger --{split}_fraction"
    return f"the groups could not be dealt so that it has: choose {remedy} or another --seed"


def _count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    run_script(main)
