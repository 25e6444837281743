"""Make an annotation pickle with the published splits out of the files of NTU RGB+D.

python tools/import_ntu.py --source nturgb+d_skeletons --output ntu60_3d.pkl
python tools/import_ntu.py --source nturgb+d_skeletons --output ntu120_3d.pkl --benchmark ntu120

Train from it with --annotations ntu60_3d.pkl --train_split xsub_train --val_split xsub_val.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import StepLine, say, warn  # noqa: E402
from datasets.annotations.exporting import Annotation, write_annotations  # noqa: E402
from datasets.annotations.ntu import NtuName, read_skeletons, splits_of, to_tracks  # noqa: E402
from datasets.importers.names import walk_files  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.annotations import parse_ntu_args  # noqa: E402

_CHUNK = 64


@dataclass(slots=True)
class Left:
    """What is not in the pickle: clips without anybody, and why files are broken."""

    empty: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Import all files of the benchmark; return how many clips there are."""
    args = parse_ntu_args(argv)
    paths = paths_of(args.source, args.benchmark)
    left = Left()
    count = write_annotations(
        args.output,
        annotations_of(paths, args.num_people, args.workers, args.skip_broken, left),
        splits_of(sorted(paths), args.benchmark),
    )
    for line in left.broken:
        warn(f"left out: {line}")
    if left.empty:
        say(f"{len(left.empty)} files without any body are left out, such as {left.empty[0]}")
    say(f"{args.output}: {count} clips")
    return count


def paths_of(source: Path, benchmark: str) -> dict[str, Path]:
    """Return the files of a benchmark by the names of their clips."""
    found: dict[str, Path] = {}
    for path in walk_files(source, ".skeleton"):
        try:
            name = NtuName.parse(path.stem)
        except ValueError as error:
            raise InputError(f"{path} {error}: rename it, or move it away") from None
        if path.stem in found:
            raise InputError(f"{path} is there twice, also as {found[path.stem]}: leave one")
        if name.is_of("ntu60" if benchmark == "ntu60" else "ntu120"):
            found[path.stem] = path
    if not found:
        folder = "give the folder of NTU RGB+D's .skeleton files as --source"
        other = "give --benchmark ntu120, or " if benchmark == "ntu60" else ""
        raise InputError(f"{source} has no file of {benchmark}: {other}{folder}")
    return found


def read_tracks(path: Path, num_people: int) -> np.ndarray | str | None:
    """Return the tracks of a file, None where nobody is in it, or why it is broken."""
    try:
        return to_tracks(read_skeletons(path), num_people)
    except InputError as error:
        return str(error)


def annotations_of(
    paths: dict[str, Path], num_people: int, workers: int, skip_broken: bool, left: Left
) -> Iterator[Annotation]:
    """Yield the annotations of all files in order of their names; what is not there goes to `left`.

    Raises:
        InputError: a file is broken and may not be left out; or no file has anybody.
    """
    names = sorted(paths)
    tracks_of = all_tracks([paths[name] for name in names], num_people, workers)
    with StepLine("files", every=1000) as line:
        for number, (name, tracks) in enumerate(zip(names, tracks_of, strict=True), start=1):
            line(number, len(names))
            if tracks is None:
                left.empty.append(name)
            elif isinstance(tracks, str):
                if not skip_broken:
                    raise InputError(f"{tracks}, or leave it out with --skip_broken")
                left.broken.append(tracks)
            else:
                yield Annotation(name, NtuName.parse(name).action - 1, tracks)
    if len(left.empty) + len(left.broken) == len(names):
        raise InputError(f"none of {len(names)} files has anybody in it: download them again")


def all_tracks(
    paths: Sequence[Path], num_people: int, workers: int
) -> Iterator[np.ndarray | str | None]:
    """Yield the tracks of the files in order, read by several processes."""
    read = partial(read_tracks, num_people=num_people)
    if workers == 0:
        yield from map(read, paths)
        return
    with ProcessPoolExecutor(workers) as pool:
        # Not all at once: what is read waits in memory until it is written.
        rest = iter(paths)
        while part := list(islice(rest, _CHUNK * workers)):
            yield from pool.map(read, part, chunksize=max(1, len(part) // (4 * workers)))


if __name__ == "__main__":
    run_script(main)
