"""Pack a prepared data set into tar files to train from, for a disk that is too small for it.

python tools/pack_dataset.py --dataset FRFS --dataset_path dataset --output shards/FRFS
python main.py --dataset FRFS --shards shards/FRFS --arch resnet50 --gsf
python tools/pack_dataset.py --verify shards/FRFS

A program that was stopped goes on when the same command is given again. docs/SHARDS.md describes
the files.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import StepLine, say  # noqa: E402
from datasets.catalogue import find_row  # noqa: E402
from datasets.shards.members import Encoding  # noqa: E402
from datasets.shards.packing import Packing, pack_dataset, verify_shards  # noqa: E402
from datasets.shards.planning import SPLITS, PackSpec  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.packing import parse_pack_args  # noqa: E402


def main(argv: Sequence[str] | None = None) -> None:
    """Pack, or verify what was packed."""
    args = parse_pack_args(argv)
    with StepLine("files" if args.verify else "shards", every=20) as line:
        if args.verify is not None:
            count = verify_shards(args.verify, line)
            say(f"{args.verify}: all {count} files are as they were packed")
            return
        packed = pack_dataset(pack_spec(args), line)
    report(args.output, packed)


def pack_spec(args: argparse.Namespace) -> PackSpec:
    """Return what the options ask for.

    Raises:
        InputError: the data set is not there.
    """
    row = find_row(args.dataset)
    root = args.dataset_path / row.folder
    if not root.is_dir():
        raise InputError(
            f"{root} is not there: it should hold frames/ or videos/ and the clip lists of "
            f"{row.name}; correct --dataset_path"
        )
    there = tuple(s for s in SPLITS if (root / f"{s}_videofolder.txt").is_file())
    if not there and not args.splits:
        raise InputError(f"{root} has no clip list: it needs train_videofolder.txt")
    return PackSpec(
        row=row,
        root=root,
        output=args.output,
        splits=args.splits or there,
        shard_bytes=args.shard_mb * 10**6,
        encoding=Encoding(args.frames, args.short_side, args.quality),
        seed=args.seed,
        workers=args.workers,
    )


def report(output: Path, packed: Packing) -> None:
    """Say what was written."""
    if packed.reused:
        say(f"{packed.reused} of the shards were there already")
    if packed.without_poses:
        say(f"note: {packed.without_poses} of {packed.clips:,} clips have no keypoints")
    say(
        f"{output}: {packed.clips:,} clips in {packed.shards} shards, "
        f"{packed.num_bytes / 1e6:,.1f} MB"
    )


if __name__ == "__main__":
    run_script(main)
