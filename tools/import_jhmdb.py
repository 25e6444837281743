"""Make an annotation pickle of JHMDB, out of its own files or of those that came with DD-Net.

python tools/import_jhmdb.py --positions joint_positions --splits splits --output jhmdb_split1.pkl
python tools/import_jhmdb.py --ddnet GT_train_1.pkl GT_test_1.pkl --output jhmdb14_split1.pkl

The first has 21 classes and pixels, the second 14 of them and coordinates in sizes of the person.
Its splits are called train and test; train with --val_split test, and test the last epoch.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from datasets.annotations.exporting import Annotation, write_annotations  # noqa: E402
from datasets.annotations.jhmdb import (  # noqa: E402
    SIZE,
    ListedClip,
    annotation_of,
    read_ddnet,
    read_positions,
    read_splits,
)
from errors import run_script  # noqa: E402
from options.annotations import parse_jhmdb_args  # noqa: E402

_SPLITS = ("train", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pickle; return how many clips there are."""
    args = parse_jhmdb_args(argv)
    if args.ddnet:
        classes, splits, clips = from_ddnet(args.ddnet)
    else:
        classes, splits, clips = from_positions(args.positions, args.splits, args.split)
    count = write_annotations(args.output, clips, splits)
    say(f"{args.output}: {count} clips of {len(classes)} classes")
    say(f"in order of the label: --class_names {' '.join(classes)}")
    return count


Clips = tuple[list[str], dict[str, list[str]], Iterator[Annotation]]


def from_positions(positions: Path, lists: Path, number: int) -> Clips:
    """Return the classes, the splits and the annotations of the published files."""
    listed = read_splits(lists, number)
    classes = sorted({clip.action for clip in listed})
    splits = {split: [c.name for c in listed if c.split == split] for split in _SPLITS}

    def annotation(clip: ListedClip) -> Annotation:
        path = positions / clip.action / clip.name / "joint_positions.mat"
        label = classes.index(clip.action)
        return annotation_of(clip.name, label, read_positions(path), SIZE)

    return classes, splits, map(annotation, listed)


def from_ddnet(paths: Sequence[Path]) -> Clips:
    """Return the same of the two files of DD-Net, for training and for tests.

    One is added to coordinates, in a frame of two by two: what scales by the frame, as PYSKL does,
    gives the published ones back.
    """
    found = {split: read_ddnet(path) for split, path in zip(_SPLITS, paths, strict=True)}
    classes = sorted({label for _, labels in found.values() for label in labels})
    splits = {
        split: [f"{split}_{number:04}" for number in range(len(poses))]
        for split, (poses, _) in found.items()
    }
    clips = (
        annotation_of(name, classes.index(label), pose + 1, (2, 2))
        for split, (poses, labels) in found.items()
        for name, pose, label in zip(splits[split], poses, labels, strict=True)
    )
    return classes, splits, clips


if __name__ == "__main__":
    run_script(main)
