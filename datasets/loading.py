"""From the options to the loaders of a data set."""

import argparse
from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from console import warn
from datasets.cache import Announce, CacheSpec, cache_clips
from datasets.clips import ClipDataset, Estimate, ViewSpec
from datasets.loaders import STALL_SECONDS, make_loader, num_cores
from datasets.opening import DataSource, cache_folder
from datasets.order import EpochBatches
from datasets.pose_views import SkeletonSpec
from datasets.records import (
    ClipRecord,
)
from datasets.scan import MissingPose, find_clips
from datasets.shards.clips import Needs, build_shard_dataset
from datasets.skeletons import SkeletonDataset
from datasets.views import InputSpec
from errors import InputError
from ops.dealing import ALONE, Share
from ops.pose_augment import SkeletonAugmentation
from ops.skeleton import SkeletonLayout
from options.skeletons import RGBPOSE_SHARE, draws_volumes, needs_frames, sees_whole_clips
from opts import needs_poses


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
        has_frames=needs_frames(args),
        has_poses=needs_poses(args),
        heatmap_channel=needs_frames(args) and args.num_channels == 4,
        mask_background=args.mask_background,
        heatmap_sigma=args.heatmap_sigma,
        pose_normalize=args.pose_normalize,
        field_of_view=args.field_of_view,
        skeleton=_skeleton_spec(args) if sees_whole_clips(args) else None,
    )


def _skeleton_spec(args: argparse.Namespace) -> SkeletonSpec:
    """Return what a model of whole clips sees of skeletons."""
    has_frames = needs_frames(args)
    is_rgbpose = args.fusion == "rgbpose"
    # The parser of tests has no options of training.
    drawn = SkeletonAugmentation(
        rotate=getattr(args, "pose_rotate", 0.0),
        scale=getattr(args, "pose_scale", 0.0),
        shear=getattr(args, "pose_shear", 0.0),
        jitter=getattr(args, "pose_jitter", 0.0),
        drop_joints=getattr(args, "pose_drop", 0.0),
        # Beside RGB they follow the mirror of the frames.
        flip=0.0 if has_frames else getattr(args, "pose_flip", 0.0),
    )
    return SkeletonSpec(
        length=args.pose_frames,
        num_people=args.num_people,
        streams=tuple(args.pose_streams),
        is_volume=draws_volumes(args),
        normalize=args.pose_normalize,
        sampling=args.pose_sampling,
        people_order=args.people_order,
        people_padding=args.people_padding,
        # The pose pathway alone is shown volumes of the size that it will see beside RGB.
        volume_size=round(args.input_size * RGBPOSE_SHARE) if is_rgbpose else args.pose_size,
        augmentation=drawn,
        crop=getattr(args, "pose_crop", 1.0),
        moves_with_frames=has_frames,
        frame_share=RGBPOSE_SHARE if is_rgbpose and has_frames else None,
        double=getattr(args, "double_flip", False),
    )


def _build_dataset(
    args: argparse.Namespace,
    source: DataSource,
    records: tuple[ClipRecord, ...],
    views: ViewSpec,
    estimate: Estimate | None,
    announce: Announce | None,
) -> ClipDataset:
    spec = input_spec(args)
    in_pixels, layout = spec.needs_size, source.row.layout
    if spec.skeleton is not None:
        _check_dimensions(spec.skeleton, layout)
        spec = replace(spec, skeleton=_mirrored_rightly(spec.skeleton, views, layout))
    missing_pose: MissingPose = "estimate" if estimate else args.missing_pose
    if source.shards is not None:
        needs = Needs(spec.has_frames, spec.has_poses, in_pixels, layout)
        packed, by_shards = source.shards.packed, args.shard_order == "shards"
        return build_shard_dataset(
            packed, records, needs, spec, views, missing_pose, args.seed, by_shards, estimate
        )
    if source.annotated is not None:
        root = source.root if spec.has_frames else None
        clips, report = source.annotated.clips(records, root, needs_size=in_pixels)
    else:
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
    kind = ClipDataset if spec.has_frames or spec.skeleton else SkeletonDataset
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


def _check_dimensions(spec: SkeletonSpec, layout: SkeletonLayout) -> None:
    """Refuse frames of reference that are not of so many dimensions."""
    if layout.dims == 3 and spec.is_volume:
        raise InputError(
            f"the keypoints ({layout.name}) are in 3-D, heatmap volumes are drawn of 2-D ones: "
            "choose a graph network, such as --pose_model stgcnpp"
        )
    if layout.dims == 3 and spec.normalize in ("auto", "clip"):
        raise InputError(
            f"--pose_normalize {spec.normalize} is of 2-D keypoints, these ({layout.name}) are in "
            "3-D: give spine or none, or leave it out"
        )
    if layout.dims == 2 and spec.normalize == "spine":
        raise InputError(
            f"--pose_normalize spine is of 3-D keypoints, these ({layout.name}) are in 2-D: give "
            "image, auto, clip or none, or leave it out"
        )


def _mirrored_rightly(spec: SkeletonSpec, views: ViewSpec, layout: SkeletonLayout) -> SkeletonSpec:
    """Return what is seen without mirrors where these would say something wrong."""
    flips = views.train and spec.augmentation.flip > 0
    if flips and not views.may_flip:
        return replace(spec, augmentation=replace(spec.augmentation, flip=0.0))
    # Beside RGB they follow the mirror of the frames.
    follows = views.train and spec.moves_with_frames and views.may_flip
    if (flips or follows or spec.double) and not layout.flip_pairs:
        remedy = "--no_flip" if follows else "--pose_flip 0" if flips else "no --double_flip"
        warn(
            f"the joint layout {layout.name} names no left and right: in a mirror nothing changes "
            'places; add "flip_pairs": [[left, right], ...] to its description, or give '
            f"{remedy}"
        )
    return spec


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
        repeats=args.repeat if dataset.views.train else 1,
        balance=dataset.labels if dataset.views.train and args.balanced_sampling else None,
    )
    return make_loader(
        dataset,
        batches,
        # Processes on one machine share its cores.
        workers=min(args.workers, max(1, num_cores() // share.neighbours)),
        pin_memory=args.device in ("auto", "cuda") and torch.cuda.is_available(),
        stall_seconds=getattr(args, "worker_timeout", STALL_SECONDS),
    )
