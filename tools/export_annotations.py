"""Write the keypoints and lists of a data set as a pickle that PYSKL and MMAction2 read.

python tools/export_annotations.py --dataset FRFS --dataset_path dataset --output frfs.pkl
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import StepLine, say  # noqa: E402
from datasets.annotations.exporting import Annotation, write_annotations  # noqa: E402
from datasets.catalogue import DatasetRow, find_row  # noqa: E402
from datasets.clip_table import ClipRow, load_table  # noqa: E402
from datasets.poses import find_poses  # noqa: E402
from datasets.records import ClipRecord, load_records  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.annotations import SPLITS, parse_export_args  # noqa: E402
from options.skeletons import layout_of  # noqa: E402

Lists = dict[str, tuple[ClipRecord, ...]]


def main(argv: Sequence[str] | None = None) -> int:
    """Export the clips of the lists; return how many there are."""
    args = parse_export_args(argv)
    row, layout = find_row(args.dataset), layout_of(args.skeleton_layout)
    if layout is not None:
        row = replace(row, layout=replace(layout, dims=2))
    root = args.dataset_path / row.folder
    lists = lists_of(root, args.splits)
    count = write_annotations(
        args.output,
        annotations_of(root, row, lists, load_table(root)),
        {split: [record.name for record in records] for split, records in lists.items()},
        np.float16 if args.float16 else np.float32,
    )
    shown = ", ".join(f"{split} {len(records)}" for split, records in lists.items())
    say(f"{args.output}: {count} clips ({shown})")
    return count


def lists_of(root: Path, splits: Sequence[str] | None) -> Lists:
    """Read the lists of a data set."""
    paths = {split: root / f"{split}_videofolder.txt" for split in splits or SPLITS}
    found = {
        split: load_records(path)
        for split, path in paths.items()
        if splits is not None or path.is_file()
    }
    if not found:
        raise InputError(
            f"{root} has no clip list (*_videofolder.txt): name its place with --dataset and "
            "--dataset_path"
        )
    return found


def annotations_of(
    root: Path, row: DatasetRow, lists: Lists, table: Mapping[str, ClipRow]
) -> Iterator[Annotation]:
    """Yield the annotation of each clip of the lists, each once.

    Raises:
        InputError: a clip has no keypoints, or two labels; or the size of its frames is not known.
    """
    done: dict[str, ClipRecord] = {}
    total = len({record.name for records in lists.values() for record in records})
    with StepLine("clips", every=1000) as line:
        for split, records in lists.items():
            for record in records:
                if done.setdefault(record.name, record) is not record:
                    refuse_other(root, split, done[record.name], record)
                    continue
                yield annotation_of(root, row, record, table.get(record.name))
                line(len(done), total)


def refuse_other(root: Path, split: str, first: ClipRecord, second: ClipRecord) -> None:
    """Make sure that a clip of two lists is the same in both."""
    if first != second:
        raise InputError(
            f"{root} has clip {first.name} with {first.num_frames} frames and label {first.label}, "
            f"and in the {split} list with {second.num_frames} and {second.label}: correct a line"
        )


def annotation_of(
    root: Path, row: DatasetRow, record: ClipRecord, known: ClipRow | None
) -> Annotation:
    """Read the keypoints of a clip."""
    source = find_poses(root, record, None, row.layout, known)
    if source is None:
        raise InputError(
            f"clip {record.name} of {root} has no keypoints: run preprocess_pose.py, or remove it "
            "from the lists"
        )
    poses = source.load()
    size = poses.size or ((known.width, known.height) if known and known.width else None)
    if size is None:
        raise InputError(
            f"{source.path} does not say the size of the frames, nor does clips.csv: run "
            "preprocess_pose.py again for this clip"
        )
    return Annotation(record.name, record.label, poses.keypoints, size)


if __name__ == "__main__":
    run_script(main)
