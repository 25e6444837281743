"""From the options of a script to loaders: the only file here that sees the namespace."""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import opts
from datasets.cache import Announce, CacheSpec, cache_clips
from datasets.catalogue import DatasetRow, find_row
from datasets.clip_table import load_table
from datasets.clips import ClipDataset, Estimate, ViewSpec
from datasets.folds import Fold, FoldChoice, find_fold, written_lists
from datasets.leakage import find_overlaps
from datasets.loaders import STALL_SECONDS, make_loader, num_cores
from datasets.order import EpochBatches
from datasets.records import (
    PUBLISHED,
    ClipRecord,
    count_classes,
    header_classes,
    load_records,
    read_header,
)
from datasets.scan import MissingPose, find_clips
from datasets.shards.clips import Needs, build_shard_dataset
from datasets.shards.opening import ShardSet, open_shards
from datasets.skeletons import SkeletonDataset
from datasets.synthetic import VERSION, SyntheticSpec, ensure_synthetic
from datasets.views import InputSpec
from errors import InputError
from ops.dealing import ALONE, Share

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
    """

    row: DatasetRow
    root: Path
    lists: Mapping[str, Path]
    classes: tuple[str, ...]
    fold: Fold | None = None
    folded: Mapping[str, tuple[ClipRecord, ...]] = field(default_factory=dict)
    shards: ShardSet | None = None

    def records(self, split: str) -> tuple[ClipRecord, ...]:
        """Return the clips of a split, read from its list or made as part of a fold.

        Raises:
            InputError: see `load_records`.
        """
        if split in self.folded:
            return self.folded[split]
        return load_records(self.lists[split], len(self.classes))

    def has(self, split: str) -> bool:
        """Say whether there are clips of a split."""
        return split in self.folded or self.lists[split].is_file()

    def name_of(self, split: str) -> str:
        """Return what to call the list of a split in a message."""
        if split in self.lists:
            return str(self.lists[split])
        number, count = (self.fold.number, self.fold.count) if self.fold else (0, 0)
        return f"the {split} list of fold {number} of {count}"

    @property
    def is_published(self) -> bool:
        """Say whether val and test are the same clips on purpose, as their headers declare."""
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
    shards = _open_shards(args)
    if shards is not None:
        root = shards.folder
    else:
        root = _make_synthetic(args, progress) if row.name == "synthetic" else _find_root(args, row)
    source = _open_lists(args, row, root)
    return source if shards is None else replace(source, shards=shards)


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


def build_train_loader(
    args: argparse.Namespace,
    source: DataSource,
    estimate: Estimate | None = None,
    announce: Announce | None = None,
    share: Share = ALONE,
) -> DataLoader:
    """Build the loader of the train list: `loader.batch_sampler` is an `EpochBatches`.

    Args:
        args: options of a training script.
        source: the data set.
        estimate: finds keypoints in clips that have none.
        announce: hears what the frame cache stores.
        share: of this process in every step.

    Raises:
        InputError: list, frames or keypoints are not as they should be.
    """
    views = ViewSpec(
        train=True,
        may_flip=source.row.may_flip and not args.no_flip,
        rand_augment=args.rand_augment,
        crop_scales=tuple(args.crop_scales),
    )
    dataset = _build_dataset(args, source, source.records("train"), views, estimate, announce)
    return _build_loader(args, dataset, args.batch_size, args.iter_size, share)


def build_eval_loader(
    args: argparse.Namespace,
    source: DataSource,
    split: str,
    num_clips: int = 1,
    test_crops: int = 1,
    batch_size: int = 1,
    estimate: Estimate | None = None,
    announce: Announce | None = None,
    share: Share = ALONE,
) -> DataLoader:
    """Build the loader of a list for evaluation: every clip once, in order of the list.

    Args:
        args: options of a script.
        source: the data set.
        split: "train", "val" or "test".
        num_clips: samplings of each clip.
        test_crops: crops of each frame: 1, 3, 5 or 10.
        batch_size: clips in a batch, each with num_clips * test_crops views.
        estimate: finds keypoints in clips that have none.
        announce: hears what the frame cache stores.
        share: of this process; processes take whole batches in turn.

    Raises:
        InputError: list, frames or keypoints are not as they should be.
    """
    records = source.records(split)[: getattr(args, "max_num", None)]
    views = ViewSpec(num_clips=num_clips, test_crops=test_crops)
    dataset = _build_dataset(args, source, records, views, estimate, announce)
    return _build_loader(args, dataset, batch_size, share.count, share)


def input_spec(args: argparse.Namespace) -> InputSpec:
    """Return what the network that the options describe sees of a clip."""
    return InputSpec(
        num_segments=args.num_segments,
        input_size=args.input_size,
        interval=args.frame_interval,
        has_frames=opts.needs_frames(args),
        has_poses=opts.needs_poses(args),
        heatmap_channel=opts.needs_frames(args) and args.num_channels == 4,
        mask_background=args.mask_background,
        heatmap_sigma=args.heatmap_sigma,
        pose_normalize=args.pose_normalize,
        field_of_view=args.field_of_view,
    )


# ---------------------------------------------------------------- the data set


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


def _build_dataset(
    args: argparse.Namespace,
    source: DataSource,
    records: tuple[ClipRecord, ...],
    views: ViewSpec,
    estimate: Estimate | None,
    announce: Announce | None,
) -> ClipDataset:
    spec = input_spec(args)
    in_pixels, layout = spec.pose_normalize == "none", source.row.layout
    missing_pose: MissingPose = "estimate" if estimate else args.missing_pose
    if source.shards is not None:
        needs = Needs(spec.has_frames, spec.has_poses, in_pixels, layout)
        packed, by_shards = source.shards.packed, args.shard_order == "shards"
        return build_shard_dataset(
            packed, records, needs, spec, views, missing_pose, args.seed, by_shards, estimate
        )
    clips, report = find_clips(
        source.root,
        records,
        has_frames=spec.has_frames,
        has_poses=spec.has_poses,
        in_pixels=in_pixels,
        missing_pose=missing_pose,
        layout=layout,
    )
    # Programs that load clips only in passing have no options of the cache.
    if getattr(args, "cache", "none") != "none":
        clips = cache_clips(clips, _cache_spec(args, source), announce)
    kind = ClipDataset if spec.has_frames else SkeletonDataset
    return kind(
        clips,
        spec,
        views,
        seed=args.seed,
        report=report,
        estimate=estimate,
        layout=layout,
    )


def _cache_spec(args: argparse.Namespace, source: DataSource) -> CacheSpec:
    return CacheSpec.choose(
        source.root,
        args.input_size,
        args.cache_short_side,
        base=args.cache_dir,
        default_base=cache_folder() / "frames",
        workers=min(args.workers, num_cores()),
    )


# ---------------------------------------------------------------- the loader


def _build_loader(
    args: argparse.Namespace,
    dataset: ClipDataset,
    batch_size: int,
    iter_size: int,
    share: Share,
) -> DataLoader:
    batches = EpochBatches(
        len(dataset),
        batch_size,
        args.seed,
        shuffle=dataset.views.train,
        iter_size=iter_size,
        rank=share.rank,
        count=share.count,
        groups=getattr(dataset, "groups", None),
    )
    return make_loader(
        dataset,
        batches,
        # Processes on one machine share its cores.
        workers=min(args.workers, max(1, num_cores() // share.neighbours)),
        pin_memory=args.device in ("auto", "cuda") and torch.cuda.is_available(),
        stall_seconds=getattr(args, "worker_timeout", STALL_SECONDS),
    )
