"""From the options to one data set on disk: its folder, lists, classes, fold, shards, pickle."""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from datasets.annotated import AnnotatedClips, open_annotated, row_of
from datasets.catalogue import DatasetRow, find_row
from datasets.clip_table import load_table
from datasets.folds import Fold, FoldChoice, find_fold, written_lists
from datasets.leakage import find_overlaps
from datasets.records import (
    PUBLISHED,
    ClipRecord,
    count_classes,
    header_classes,
    load_records,
    read_header,
)
from datasets.shards.opening import ShardSet, open_shards
from datasets.synthetic import VERSION, SyntheticSpec, ensure_synthetic
from errors import InputError
from ops.skeleton import SkeletonLayout
from options.skeletons import has_pose_stream, layout_of, needs_frames

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class DataSource:
    """One data set on disk.

    Attributes:
        row: its row of the catalogue.
        root: folder with frames/ and poses/.
        lists: split -> clip list; not every one need be there.
        classes: class names in order of the label.
        fold: the fold of cross-validation that the options name; None without `--fold`.
        folded: split -> clips of the fold; those of a list that was named beside it are not here.
        shards: what its clips are read from; None where they lie in folders.
        annotated: clips of an annotation pickle; None where lists name them.
    """

    row: DatasetRow
    root: Path
    lists: Mapping[str, Path]
    classes: tuple[str, ...]
    fold: Fold | None = None
    folded: Mapping[str, tuple[ClipRecord, ...]] = field(default_factory=dict)
    shards: ShardSet | None = None
    annotated: AnnotatedClips | None = None

    def records(self, split: str) -> tuple[ClipRecord, ...]:
        """Return the clips of a split, read from its list or made as part of a fold.

        Raises:
            InputError: see `load_records`.
        """
        if split in self.folded:
            return self.folded[split]
        if self.annotated is not None:
            known = ", ".join(name[:80] for name in self.annotated.found.splits) or "none at all"
            raise InputError(
                f"{self.annotated.found.path} has no {split} split: give --{split}_split one of "
                f"{known}"
            )
        return load_records(self.lists[split], len(self.classes))

    def has(self, split: str) -> bool:
        """Say whether there are clips of a split."""
        return split in self.folded or (split in self.lists and self.lists[split].is_file())

    def name_of(self, split: str) -> str:
        """Return what to call the list of a split in a message."""
        if self.annotated is not None:
            return f"the {split} split of {self.annotated.found.path}"
        if split in self.lists:
            return str(self.lists[split])
        number, count = (self.fold.number, self.fold.count) if self.fold else (0, 0)
        return f"the {split} list of fold {number} of {count}"

    @property
    def is_published(self) -> bool:
        """Say whether val and test are the same clips on purpose, as their headers declare.

        Pickles of published data sets have no third split: val is what results are told on.
        """
        if self.annotated is not None:
            return self.folded.get("val") == self.folded.get("test")
        declared = [
            read_header(self.lists[split]).get("protocol")
            for split in ("val", "test")
            if split in self.lists and self.lists[split].is_file()
        ]
        return declared == [PUBLISHED, PUBLISHED]


def cache_folder() -> Path:
    """Return where the built-in data set is kept unless `--dataset_path` says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gate-shift-pose"


def open_dataset(
    args: argparse.Namespace, progress: Callable[[int, int], None] | None = None
) -> DataSource:
    """Find the data set that the options name; the built-in one is made if it is not there.

    Args:
        args: options of a script.
        progress: called with clips made and clips in all, while the built-in data set is made.

    Raises:
        InputError: the folder is not there, or the class names do not fit.
    """
    row = find_row(args.dataset)
    if getattr(args, "annotations", None) is not None:
        return _open_annotations(args, row)
    layout = layout_of(getattr(args, "skeleton_layout", None))
    _refuse_dimensions(args, layout, 2, f"keypoint files of {args.dataset}")
    # Keypoint files of ours are in pixels, whatever the layout is in elsewhere.
    row = row if layout is None else replace(row, layout=replace(layout, dims=2))
    shards = _open_shards(args)
    if shards is not None:
        root = shards.folder
    else:
        root = _make_synthetic(args, progress) if row.name == "synthetic" else _find_root(args, row)
    source = _open_lists(args, row, root)
    return source if shards is None else replace(source, shards=shards)


def _open_annotations(args: argparse.Namespace, row: DatasetRow) -> DataSource:
    """Open an annotation pickle; its splits are the lists."""
    annotated = open_annotated(args, cache_folder() / "annotations")
    asked = layout_of(args.skeleton_layout)
    _refuse_dimensions(args, asked, annotated.layout.dims, str(args.annotations))
    row, classes = row_of(row, annotated)
    if args.class_names is not None:
        classes = tuple(args.class_names)
    root = args.annotations.parent
    if needs_frames(args):
        root = _find_root(args, row)
    return DataSource(row, root, {}, classes, folded=annotated.chosen.records, annotated=annotated)


def _refuse_dimensions(
    args: argparse.Namespace, trained: SkeletonLayout | None, dims: int, where: str
) -> None:
    """Refuse to test a model on joints in other dimensions than it was trained with.

    Raises:
        InputError: they are.
    """
    is_test = getattr(args, "weights", None) is not None
    if is_test and trained is not None and has_pose_stream(args) and trained.dims != dims:
        raise InputError(
            f"{where}: joints in {dims} dimensions, the model was trained with joints in "
            f"{trained.dims} ({trained.name}): name clips of the same kind"
        )


def _open_lists(args: argparse.Namespace, row: DatasetRow, root: Path) -> DataSource:
    """Find the lists in the folder of a data set, and the classes."""
    given = {split: getattr(args, f"{split}_list", None) for split in SPLITS}
    lists = {split: given[split] or root / f"{split}_videofolder.txt" for split in SPLITS}
    choice = fold_choice(args)
    if choice is None:
        return DataSource(row, root, lists, _name_classes(args.class_names, row, lists))
    return _open_fold(args, row, root, choice)


def check_disjoint(source: DataSource, args: argparse.Namespace) -> None:
    """Make sure that two lists share no clip, content or group, unless `--allow_overlap`.

    Lists of the published protocol, which say so in their headers, share val and test.

    Raises:
        InputError: they do; an example is named.
    """
    if args.allow_overlap:
        return
    present = {split: source.records(split) for split in SPLITS if source.has(split)}
    for overlap in find_overlaps(present, load_table(source.root)):
        pair = (overlap.one, overlap.other)
        if source.is_published and pair == ("val", "test"):
            continue
        if pair == ("train", "val") and present["train"] == present["val"] and source.folded:
            continue  # --fold_val 0 asked for that
        raise InputError(
            f"{source.name_of(overlap.one)} and {source.name_of(overlap.other)} {overlap.text()}: "
            "a result on them would be no test; separate the lists or add --allow_overlap"
        )


# ---------------------------------------------------------------- where it lies


def _make_synthetic(args: argparse.Namespace, progress: Callable[[int, int], None] | None) -> Path:
    spec = SyntheticSpec(
        size=tuple(args.synthetic_size),
        clips=tuple(args.synthetic_clips),
        seed=args.synthetic_seed,
    )
    if args.dataset_path is not None:
        return ensure_synthetic(spec, args.dataset_path, progress=progress)
    # The cache holds one data set per generator and choice of options; a folder of the user's one.
    choice = (VERSION, *spec.size, *spec.clips, spec.seed)
    name = "synthetic-v{}-{}x{}-{}-{}-{}-seed{}".format(*choice)
    return ensure_synthetic(spec, cache_folder(), name, progress=progress)


def _find_root(args: argparse.Namespace, row: DatasetRow) -> Path:
    if args.dataset_path is None:  # as of a checkpoint that was trained from shards
        raise InputError(f"where the data set {row.name} lies is not known: add --dataset_path")
    root = args.dataset_path / row.folder
    if not root.is_dir():
        raise InputError(
            f"{root} is not there: it should hold frames/ and the clip lists of {row.name}; "
            "correct --dataset_path, or try --dataset synthetic, which needs no files"
        )
    return root


def _open_shards(args: argparse.Namespace) -> ShardSet | None:
    """Open what `--shards` names; programs that load clips only in passing have no such option."""
    if getattr(args, "shards", None) is None:
        return None
    cache = args.shard_cache or cache_folder() / "shards"
    return open_shards(args.shards, args.dataset, cache, int(args.shard_cache_gb * 1e9))


def fold_choice(args: argparse.Namespace) -> FoldChoice | None:
    """Return the fold that the options name; None where they name none."""
    text = getattr(args, "fold", None)
    return FoldChoice(text, args.fold_seed, args.fold_val) if text else None


def _open_fold(
    args: argparse.Namespace, row: DatasetRow, root: Path, choice: FoldChoice
) -> DataSource:
    """Open the lists of a fold; a list that an option names takes the place of one of them."""
    own = {split: root / f"{split}_videofolder.txt" for split in SPLITS}
    written = written_lists(root, choice)
    classes = _name_classes(args.class_names, row, written or own)
    fold = find_fold(root, own, choice, classes)
    given = {s: path for s in SPLITS if (path := getattr(args, f"{s}_list", None)) is not None}
    folded = {split: clips for split, clips in fold.records.items() if split not in given}
    return DataSource(row, root, {**fold.paths, **given}, classes, fold, folded)


def _name_classes(
    names: list[str] | None, row: DatasetRow, lists: Mapping[str, Path]
) -> tuple[str, ...]:
    """Return the class names: those of the option, of the lists' headers, of the catalogue."""
    where = "--class_names"
    if names is None:
        where, names = _listed_classes(lists)
    num_classes = row.num_classes
    if num_classes is None:
        num_classes = len(names) if names else _count_classes(lists)
    if names is None:
        return row.class_names or tuple(f"class {label}" for label in range(num_classes))
    if len(names) != num_classes:
        raise InputError(
            f"{where} has {len(names)} names, {row.name} has {num_classes} classes: give "
            "one name per class, in order of the label"
        )
    return tuple(names)


def _listed_classes(lists: Mapping[str, Path]) -> tuple[str, list[str] | None]:
    """Return a list that names the classes in its header, and the names; lists must agree."""
    found = [
        (path, names)
        for path in lists.values()
        if path.is_file() and (names := header_classes(path, read_header(path)))
    ]
    for path, names in found[1:]:
        if names != found[0][1]:
            raise InputError(
                f"{found[0][0]} names the classes {', '.join(found[0][1])}, {path} says "
                f"{', '.join(names)}: correct their first lines, or give --class_names"
            )
    return (str(found[0][0]), list(found[0][1])) if found else ("", None)


def _count_classes(lists: Mapping[str, Path]) -> int:
    """Count the classes of a data set of the user's own, by its train list if there is one."""
    path = next((path for path in lists.values() if path.is_file()), lists["train"])
    return count_classes(path, load_records(path))
