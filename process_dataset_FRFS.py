"""Turn the FR-FS download into frames, boxes and clip lists.

python process_dataset_FRFS.py                         # the download lies in dataset/FRFS
python process_dataset_FRFS.py --source ~/Downloads/FR-FS

Reads Images/<key>/*.jpg, Train.xls, Test.xls and, when there, FRFS_Boxes.json. Writes below
<dataset_path>/FRFS: frames/ (hard links), boxes/, clips.csv, and the train, val and test lists. val
is cut from train, so that the test list chooses nothing.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from checkup import check_prepared
from console import StepLine, say, warn
from datasets.prepare import frfs, frfs_output
from datasets.prepare.frfs import Download, Tables
from datasets.prepare.frfs_output import SPLITS, ListChoices, list_path
from errors import InputError, printable, run_script
from options.data import parse_frfs_args

NEEDED = """FR-FS is not part of this program, which needs the unpacked download:
    {root}/Images/<key>/0.jpg 1.jpg ...     a folder of frames for each clip
    {root}/Train.xls, {root}/Test.xls       a header row, then a row 'key, label' for each clip
    {root}/FRFS_Boxes.json                  if there is one: the athlete's box in every frame
With the same files elsewhere: python process_dataset_FRFS.py --source <folder of Images/>"""

LINKS = {"hard": "hard links", "copy": "copies", "symlink": "symbolic links"}


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare the data set, or say what is needed for it."""
    args = parse_frfs_args(argv)
    root = args.dataset_path / "FRFS"
    found = frfs.find_download(args.source) if args.source else frfs.find_default(args.dataset_path)
    if found is None:
        return accept_prepared(root, args.source)
    tables = frfs.read_tables(found)
    with frfs_output.opened(root):
        prepare(root, found, tables, args)
    if not args.no_check:
        wrote = ("boxes", "frames")
        check_prepared("FRFS", args.dataset_path, decode=False, strict=args.strict, wrote=wrote)
    return None


def prepare(root: Path, found: Download, tables: Tables, args: argparse.Namespace) -> None:
    """Check and link the frames, write boxes and lists."""
    mode = frfs_output.choose_mode(found, root, args.link)
    with StepLine("clips with checked frames", every=50) as line:
        checked = frfs.check_download(
            found, tables, root, mode, workers=args.workers, progress=line
        )
    say_all(findings := checked.findings())
    if args.strict and findings:
        raise InputError(
            f"{len(findings)} findings, named above: mend them, or leave out --strict to go on "
            f"without the {len(checked.broken)} damaged clips; the lists are as they were"
        )
    choices = ListChoices(
        published=args.published_protocol,
        val_fraction=args.val_fraction,
        seed=args.seed,
        class_names=args.class_names,
        allow_overlap=args.allow_overlap,
    )
    lists = frfs_output.make_lists(tables, checked, choices)
    new, changed = frfs_output.link_clips(root, checked, mode)
    say(f"frames/: {new} new {LINKS[mode]}, {changed} put in the place of links of another kind")
    if mode != args.link:
        say("the file system cannot make hard links to the download: its frames were copied")
    if checked.boxes:
        say(f"boxes of {frfs_output.write_boxes(root, checked)} clips: {root / 'boxes'}")
    say_all(frfs_output.write_lists(root, lists))
    say_all(frfs_output.leftovers(root, checked))
    say_all(frfs_output.summary(root, lists))
    for text in frfs_output.warnings(lists, checked):
        warn(text)


def say_all(lines: Iterable[str]) -> None:
    """Say lines that may hold the names of files."""
    for line in lines:
        say(printable(line))


def accept_prepared(root: Path, source: Path | None) -> None:
    """Accept a data set that already has its lists; else explain what is needed.

    Raises:
        InputError: there is neither a download nor a prepared data set.
    """
    if source is None and all(list_path(root, split).is_file() for split in SPLITS):
        say(f"{root} is already prepared: it has its clip lists, and no Images/ to read again")
        return
    say(NEEDED.format(root=root))
    raise InputError(
        f"{source or root} has no folder Images/: unpack FR-FS there, or name its place with "
        "--source"
    )


if __name__ == "__main__":
    run_script(main)
