r"""Bring keypoints that you already have into a data set: writes poses/<clip>.npz.

python tools/import_poses.py --format alphapose --source results --dataset FRFS
python tools/import_poses.py --format pyskl --source ntu60_hrnet.pkl --dataset ntu60 \
    --make_lists --train_split xsub_train --val_split xsub_val
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from checkup import check_prepared  # noqa: E402
from console import StepLine, say, warn  # noqa: E402
from datasets.catalogue import find_row  # noqa: E402
from datasets.clip_table import load_table  # noqa: E402
from datasets.importers import READERS  # noqa: E402
from datasets.importers.importing import (  # noqa: E402
    Choices,
    ClipPoses,
    Damaged,
    Plan,
    plan_import,
    read_clips,
)
from datasets.importers.pyskl import Annotations  # noqa: E402
from datasets.importers.skeleton_lists import (  # noqa: E402
    Lists,
    choose_lists,
    existing_lists,
    write_lists,
)
from datasets.importers.summary import Summary  # noqa: E402
from datasets.pose_files import read_notes  # noqa: E402
from datasets.poses import OTHER_FRAMES, is_of_other_frames, save_poses  # noqa: E402
from datasets.records import ClipRecord, load_records  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from files import alone_in, remove_partials  # noqa: E402
from options.poses import parse_import_args  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Import, report, check; return how many clips were written (or would be, in a dry run)."""
    args = parse_import_args(argv)
    root = args.dataset_path / find_row(args.dataset).folder
    if not args.source.exists():
        raise InputError(f"--source {args.source} is not there: name the file or folder to import")
    with READERS[args.format](args.source) as source, ExitStack() as stack:
        lists, damaged = lists_of(args, root, source)
        records = listed_clips(root) if lists is None else records_of(lists)
        choices = Choices(args.people, args.frame_offset, args.frame_size, args.link)
        plan = plan_import(root, records, source, choices)
        if args.strict:
            refuse_findings(plan, damaged)
        if not args.dry_run:
            stack.enter_context(alone_in(root / "poses"))
            # Not everything below the data set's folder is ours: the download may lie there.
            remove_partials(root / "poses")
        summary = write_clips(args, root, plan)
    damaged += [*plan.damaged, *summary.damaged]
    tell(plan, summary, damaged, args.dry_run)
    if lists is not None and not args.dry_run:
        header = {"made_by": "tools/import_poses.py"}
        if args.class_names:
            header["classes"] = json.dumps(args.class_names, ensure_ascii=False)
        write_lists(root, lists, summary.sizes, len(damaged), header)
        say(f"lists written: {', '.join(path.name for path in existing_lists(root))}")
    if not (args.dry_run or args.no_check):
        check_prepared(
            args.dataset, args.dataset_path, strict=args.strict, decode=False, wrote=("poses",)
        )
    return summary.clips


def lists_of(
    args: argparse.Namespace, root: Path, source: object
) -> tuple[Lists | None, list[Damaged]]:
    """Return the lists to be made, and clips that cannot be in them; None without --make_lists."""
    if not args.make_lists:
        return None, []
    assert isinstance(source, Annotations)
    there = existing_lists(root)
    if there and not args.overwrite:
        raise InputError(
            f"{there[0]} is there already: give --overwrite to replace the lists, or leave out "
            "--make_lists to import for the clips that they name"
        )
    return choose_lists(
        source,
        {"train": args.train_split, "val": args.val_split, "test": args.test_split},
        args.val_fraction,
        args.seed,
    )


def records_of(lists: Lists) -> list[ClipRecord]:
    """Return the clips of all lists, each once."""
    return list({record.name: record for records in lists.values() for record in records}.values())


def listed_clips(root: Path) -> list[ClipRecord]:
    """Return the clips of the lists of a data set, each once."""
    paths = sorted(root.glob("*_videofolder.txt"))
    if not paths:
        raise InputError(
            f"{root} has no clip list (*_videofolder.txt): prepare the data set first, or name its "
            "place with --dataset and --dataset_path; skeletons alone: --format pyskl --make_lists"
        )
    return records_of({path.name: load_records(path) for path in paths})


def refuse_findings(plan: Plan, damaged: Sequence[Damaged]) -> None:
    """Stop before anything is written if anything is to be named."""
    found = [clip for clip in read_clips(plan) if isinstance(clip, Damaged)]
    lines = [*plan.source.findings, *(clip.reason for clip in (*damaged, *plan.damaged, *found))]
    lines += [f"clip {clip} has no keypoints" for clip in plan.matches.clips_without]
    lines += [f"{key} is of no clip of the lists" for key in plan.matches.keys_without]
    for line in lines:
        warn(line)
    if lines:
        raise InputError(
            f"--strict: {len(lines)} findings, nothing was written; the first: {lines[0]}"
        )


def write_clips(args: argparse.Namespace, root: Path, plan: Plan) -> Summary:
    """Read the keypoints of all clips, and write those that are not there yet."""
    summary, table = Summary(), load_table(root)
    with StepLine("clips", every=100) as line:
        for number, clip in enumerate(read_clips(plan), start=1):
            line(number, len(plan.offsets))
            if isinstance(clip, Damaged):
                summary.damaged.append(clip)
                continue
            path = root / "poses" / f"{clip.clip}.npz"
            identity = table[clip.clip].identity if clip.clip in table else ""
            is_there = path.is_file() and not args.overwrite and not is_stale(path, identity)
            summary.add(clip, is_there=is_there)
            if not (is_there or args.dry_run):
                write_clip(path, clip, f"{args.format} {args.source.name}", identity)
    return summary


def is_stale(path: Path, identity: str) -> bool:
    """Tell, and say, whether a keypoint file was made for other frames of the same name."""
    try:
        noted = read_notes(path).get("clip", "")
    except (OSError, ValueError, zipfile.BadZipFile):
        return False  # damaged: the check names it
    is_other = is_of_other_frames(noted, identity)
    if is_other:
        warn(f"{path} {OTHER_FRAMES}: it is replaced")
    return is_other


def write_clip(path: Path, clip: ClipPoses, origin: str, identity: str) -> None:
    """Write the keypoints of a clip."""
    save_poses(path, clip.keypoints, clip.size, origin, {"clip": identity})


def tell(plan: Plan, summary: Summary, damaged: Sequence[Damaged], is_dry: bool) -> None:
    """Say what was found; every clip that was left out has a line."""
    for text in summary.warnings(plan, damaged):
        warn(text)
    for text in summary.lines(plan, len(damaged), is_dry):
        say(text)
    if not summary.clips:
        raise InputError(reason_for_nothing(plan, damaged))


def reason_for_nothing(plan: Plan, damaged: Sequence[Damaged]) -> str:
    """Say why no clip has keypoints now."""
    if damaged:
        return f"none of {len(damaged)} clips could be used; the first: {damaged[0].reason}"
    clip, key = plan.matches.clips_without[0], plan.matches.keys_without
    held = f"such as {key[0]}" if key else "none at all"
    return (
        f"{plan.root}: the source has keypoints for none of the clips, such as {clip}; it has "
        f"{held}: name files or folders after the clips"
    )


if __name__ == "__main__":
    run_script(main)
