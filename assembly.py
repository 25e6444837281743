"""From options to the parts of a training session, built and checked: nothing is written yet."""

import argparse
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from console import StepLine, say, warn
from datasets.clips import ClipDataset, Estimate
from datasets.labels import find_class_gaps
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import DataSource, check_disjoint, open_dataset
from engine import TrainSettings, TrainState, deal_of
from errors import InputError
from machine import (
    choose_amp_dtype,
    choose_channels_last,
    choose_own_device,
    has_fast_bf16,
    tune_network,
)
from models import Network
from models.estimators import EstimatorOpts, build_estimator
from models.weights import checkpoint_options
from ops.dealing import Deal
from ops.sync_norm import synchronise_norms
from ops.tracking import follow_people
from optim import Schedule, balanced_class_weights, build_optimizer
from options.recipes import is_of_volumes
from options.skeletons import draws_volumes, needs_frames, sees_whole_clips, with_layout
from ranks import Ranks
from starts import initial_model, start_clips


@dataclass(frozen=True, slots=True)
class Session:
    """The parts of a training session, built and checked, nothing yet written."""

    args: argparse.Namespace
    device: torch.device
    source: DataSource
    train_clips: DataLoader
    val_clips: DataLoader
    settings: TrainSettings
    state: TrainState
    ranks: Ranks = field(default_factory=Ranks)
    # Clips that the weights were trained on before, by `seen_clips.START`.
    start_clips: dict[str, torch.Tensor] = field(default_factory=dict)


def say_missing_poses(*loaders: DataLoader) -> None:
    """Say how many clips lacked keypoints and what became of them, if any did."""
    for loader in loaders:
        report = clips_of(loader).report
        if report is not None and report.text():
            say(report.text())


# ---------------------------------------------------------------- building


def open_data(args: argparse.Namespace) -> DataSource:
    """Open the data set, making the built-in one if need be; refuse lists that share clips."""
    with StepLine("making the built-in data set", every=100) as line:
        source = open_dataset(args, progress=line)
    check_disjoint(source, args)
    if source.fold is not None:
        say(source.fold.note)
    if source.is_published:
        warn(
            "published protocol: val is the test list, so the epoch of best.pth.tar is chosen on "
            "the test clips, and its accuracy optimistic; last.pth.tar is chosen by nothing"
        )
    return source


@contextmanager
def announce(text: str) -> Iterator[Callable[[int, int], None]]:
    """Say what is about to be done to the clips of a list, and show how far it is."""
    say(text)
    with StepLine(text.partition(":")[0], every=20) as line:
        yield line


def build_estimate(args: argparse.Namespace, device: torch.device) -> Estimate | None:
    """Build what finds keypoints while loading, if `--pose_weights` is given.

    It follows the main athlete through the frames that the network sees.
    """
    if args.pose_weights is None:
        return None
    opts_of_pose = EstimatorOpts(weights=args.pose_weights, device=str(device))
    estimator = build_estimator(args.pose_backend, opts_of_pose)

    def estimate(frames: np.ndarray) -> np.ndarray:
        height, width = frames.shape[1:3]
        return follow_people(estimator.detect(frames), (width, height), max_people=1)

    return estimate


def assemble(args: argparse.Namespace, ranks: Ranks, *, fresh: bool) -> Session:
    """Build loaders, model and optimiser of this process; `fresh` models take initial weights.

    Raises:
        InputError: something that the user can mend.
    """
    device = choose_own_device(args.device, args.gpus, ranks.own_share)
    _check_share(args, ranks)
    # Process 0 first: it may make the built-in data set, or store frames.
    with ranks.first_goes_first("data", ranks.check):
        source = open_data(args)
        estimate = build_estimate(args, device)
        train_clips = build_train_loader(args, source, estimate, announce, ranks.own_share)
        val_clips = build_eval_loader(
            args,
            source,
            "val",
            batch_size=args.batch_size,
            estimate=estimate,
            announce=announce,
            share=ranks.own_share,
        )
    _check_batches(args, deal_of(train_clips, args.iter_size))
    # Pickles say what joints they have; the network must have the same.
    own = with_layout(args, source.row.layout)
    torch.manual_seed(args.seed)
    with ranks.first_goes_first("weights", ranks.check):  # they may be downloaded
        model = initial_model(own, source, fresh=fresh).to(device)
    ranks.start_group(device, args.rank_timeout)
    _synchronise(model, args, ranks)
    amp_dtype = choose_amp_dtype(args.with_amp, args.amp_dtype, device)
    tune_network(
        model,
        device,
        channels_last=choose_channels_last(args.channels_last, device, amp_dtype),
        compiled=args.compile,
    )
    settings = TrainSettings(
        schedule=Schedule(
            args.epochs,
            args.warmup,
            args.lr * lr_factor(args),
            args.lr_schedule,
            tuple(args.lr_steps or ()),
        ),
        iter_size=args.iter_size,
        clip_gradient=args.clip_gradient,
        amp_dtype=amp_dtype,
        class_weights=_class_weights(args, train_clips, source),
        seed=args.seed,
        # On a CPU the traffic is small beside the work.
        in_order=args.gradient_sum == "ordered"
        or (args.gradient_sum == "auto" and device.type == "cpu"),
        skip_nonfinite=args.skip_nonfinite,
        label_smoothing=args.label_smoothing,
    )
    optimizer = build_optimizer(
        model,
        args.optimizer,
        settings.schedule.peak,
        args.momentum,
        args.weight_decay,
        nesterov=args.nesterov,
        decay_all=args.decay == "all",
    )
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    state = TrainState(
        model, optimizer, scaler, epoch=args.start_epoch or 0, micro_batch=args.micro_batch
    )
    session = Session(args, device, source, train_clips, val_clips, settings, state, ranks)
    if fresh:
        session.start_clips.update(start_clips(args, clips_of(val_clips)))
    _introduce(session)
    return session


def lr_factor(args: argparse.Namespace) -> float:
    """Return what `--auto_scale_lr` multiplies the learning rate by; 1 without it."""
    base = args.auto_scale_lr
    return 1.0 if base is None else args.batch_size * args.iter_size / base


def replicate(session: Session) -> None:
    """Let the processes add up their gradients; their weights become those of process 0."""
    state, ranks = session.state, session.ranks
    if ranks.count > 1:
        # Running statistics are followed by `steps.RunningStatistics`, exactly.
        names = inspect.signature(DistributedDataParallel).parameters
        name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
        options: dict[str, Any] = {name: False}
        state.replica = DistributedDataParallel(state.model, **options)


def _check_share(args: argparse.Namespace, ranks: Ranks) -> None:
    """Refuse a number of processes that cannot share the forward passes of a step evenly."""
    try:
        Deal(1, args.batch_size, args.iter_size, ranks.rank, ranks.count)
    except ValueError:
        raise InputError(
            f"torchrun started {ranks.count} processes, and a step has --iter_size "
            f"{args.iter_size} forward passes of --batch-size {args.batch_size} clips: let "
            f"--iter_size be {ranks.count} or a multiple of it (--auto_scale_lr keeps the learning "
            "rate in step)"
        ) from None


def _synchronise(model: Network, args: argparse.Namespace, ranks: Ranks) -> None:
    """With `--sync_bn`, join the batch norms of the processes that share a forward pass."""
    deal = Deal(1, args.batch_size, args.iter_size, ranks.rank, ranks.count)
    if not args.sync_bn or deal.cuts == 1:
        return
    own: dist.ProcessGroup | None = None
    for piece in range(args.iter_size):  # every process must take part in making every group
        members = list(range(piece * deal.cuts, (piece + 1) * deal.cuts))
        group = dist.new_group(members)
        if ranks.rank in members and isinstance(group, dist.ProcessGroup):
            own = group
    synchronise_norms(model, own)


def _check_batches(args: argparse.Namespace, deal: Deal) -> None:
    """Refuse a training batch of one frame, of which batch norm has no statistics."""
    if not needs_frames(args) or args.num_segments > 1:
        return
    most = args.micro_batch or args.batch_size
    for step in {0, deal.num_steps - 1}:
        for part in (part for rank in range(deal.count) for part in deal.parts(step, rank)):
            size = part.stop - part.start
            if size == 1 or size % most == 1 or most == 1:
                raise InputError(
                    f"--num_segments 1 and --batch-size {args.batch_size} leave a batch of one "
                    f"frame of {deal.num_clips} clips, which batch norm cannot train on: use "
                    "another --batch-size"
                )


def clips_of(loader: DataLoader) -> ClipDataset:
    """Return the clips of a loader that `datasets.loading` built."""
    return cast(ClipDataset, loader.dataset)


def _class_weights(
    args: argparse.Namespace, clips: DataLoader, source: DataSource
) -> torch.Tensor | None:
    if args.class_weights == "none":
        return None
    return balanced_class_weights(clips_of(clips).labels, len(source.classes))


def network_of(args: argparse.Namespace) -> str:
    """Name the network that the options describe."""
    if args.fusion == "rgbpose":
        alone = args.rgbpose_streams
        return "RGBPose-Conv3D" + ("" if alone == "both" else f", {alone} stream alone")
    skeletons = args.pose_model
    if sees_whole_clips(args):
        skeletons += f", {' + '.join(args.pose_streams).replace('_', ' ')}"
    if args.fusion == "pose":
        return f"pose only ({skeletons})"
    beside = f" ({skeletons})" if sees_whole_clips(args) else ""
    return f"{args.arch}{' + GSF' if args.gsf else ''}, fusion {args.fusion}{beside}"


def say_tested_network(args: argparse.Namespace) -> None:
    """Say what network is tested, and where nothing tells which skeletons it sees.

    Args:
        args: options of a test, with those of its checkpoint.
    """
    say(f"network: {network_of(args)}")
    is_told = "pose_streams" in {*checkpoint_options(args.weights), *getattr(args, "given", ())}
    if args.fusion == "pose" and sees_whole_clips(args) and not is_told:
        warn(
            f"{args.weights} does not say which stream it sees: {' + '.join(args.pose_streams)} is "
            "assumed; give --pose_streams where it is another"
        )


def _introduce(session: Session) -> None:
    """Say what is about to happen, in a few lines."""
    args, state = session.args, session.state
    parameters = sum(p.numel() for p in state.model.parameters())
    network = network_of(args)
    if not needs_frames(args) and args.gsf:
        say("note: --arch, --num_channels and --gsf have no effect on skeletons alone")
    if not needs_frames(args) and sees_whole_clips(args):
        others = "--num_segments and --input_size are of models of single frames and of RGB"
        if args.fusion == "rgbpose":
            others = "4 for each of --num_segments, a quarter of --input_size, as beside RGB"
        frames = f"{args.pose_frames} frames of a clip (--pose_frames, --pose_sampling)"
        say(f"it sees {frames}; {others}")
    if args.with_amp and session.device.type == "cpu" and not has_fast_bf16():
        say("note: this CPU has no bfloat16 instructions: --with_amp makes it slower here")
    if args.fusion == "late" and args.pose_weights is None:
        say("note: --late_fusion_poses without --pose_weights reads keypoint files, as _fast does")
    if args.recipe is not None and is_of_volumes(args.recipe) != draws_volumes(args):
        kind = "heatmap volumes" if is_of_volumes(args.recipe) else "graphs of joints"
        say(f"note: --recipe {args.recipe} was made for {kind}, which {network} does not see")
    train, val = (len(clips_of(loader)) for loader in (session.train_clips, session.val_clips))
    say(
        f"{args.dataset}: {train} training and {val} validation clips, "
        f"{len(session.source.classes)} classes"
    )
    _warn_of_labels(session)
    say(f"model: {network}, {parameters:,} parameters, on {session.device}")
    deal = deal_of(session.train_clips, args.iter_size)
    scaled = "" if args.auto_scale_lr is None else f" (--lr {args.lr:.4g} x {lr_factor(args):.4g})"
    say(
        f"effective batch {args.batch_size} x {args.iter_size} = "
        f"{args.batch_size * args.iter_size} clips, {deal.num_steps} steps an epoch, peak learning "
        f"rate {session.settings.schedule.peak:.4g}{scaled}"
    )
    if session.ranks.count > 1:
        _introduce_share(args, deal)


def _warn_of_labels(session: Session) -> None:
    loaders = {"train": session.train_clips, "val": session.val_clips}
    labels = {split: clips_of(loader).labels for split, loader in loaders.items()}
    for line in find_class_gaps(labels, session.source.classes):
        warn(line)


def _introduce_share(args: argparse.Namespace, deal: Deal) -> None:
    """Say how processes share a step, and what that does to the numbers."""
    if deal.cuts == 1:
        say(
            f"{deal.count} processes share the {deal.iter_size} forward passes of a step: the "
            "numbers are those of one process"
        )
        return
    norms = "batch norm sees them all" if args.sync_bn else "batch norm sees these alone"
    say(
        f"note: {deal.cuts} processes share each forward pass of {deal.batch_size} clips, "
        f"{-(-deal.batch_size // deal.cuts)} at most for each; {norms}. Numbers differ from those "
        f"of other numbers of processes; with --iter_size {deal.count} or a multiple they do not"
    )
