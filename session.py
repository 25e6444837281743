"""A training session, from options to the best checkpoint: what both training scripts share."""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

import opts
from console import StepLine, say, warn
from datasets.clips import ClipDataset, Estimate
from datasets.facts import data_facts
from datasets.folds import write_fold
from datasets.loading import (
    DataSource,
    build_eval_loader,
    build_train_loader,
    check_disjoint,
    open_dataset,
)
from engine import (
    EpochResult,
    Scores,
    TrainSettings,
    TrainState,
    evaluate,
    save_checkpoint,
    steps_per_epoch,
    train_one_epoch,
)
from errors import InputError, Interrupted
from machine import (
    StopRequest,
    choose_amp_dtype,
    choose_channels_last,
    choose_device,
    has_fast_bf16,
    prepare_cpu,
    tune_network,
)
from models import build_model
from models.classifier import ClipClassifier
from models.estimators import EstimatorOpts, build_estimator
from models.weights import (
    FORMAT,
    FORMAT_VERSION,
    load_checkpoint,
    load_for_finetune,
    read_training_state,
)
from ops.tracking import follow_people
from optim import balanced_class_weights, build_optimizer
from reports import EpochLog, RunFolder, metrics_text, plain
from results.metrics import Metrics
from resume import check_continues, find_checkpoint, runs_folder


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


def train(args: argparse.Namespace) -> float:
    """Train, evaluate on the val list, keep `last` and `best`; return the best top-1 (0 to 1).

    Raises:
        InputError: something that the user can mend.
        SystemExit: 130 or 143 after SIGINT or SIGTERM, with `last` saved.
    """
    prepare_cpu(args.threads)
    resumed = find_checkpoint(args)
    session = _build(args, fresh=resumed is None and not args.evaluate)
    if args.evaluate:
        return _evaluate_only(session, Path(args.resume))
    if resumed is None:
        run = RunFolder.create(runs_folder(args), args.experiment_name, vars(args))
        if session.source.fold is not None:
            write_fold(run.path / "lists", session.source.fold, session.source.classes)
        say(f"run folder: {run.path}")
    else:
        run = RunFolder(resumed.parent)
        _restore(session, resumed)
    try:
        with StopRequest() as stop:
            _fit(session, run, stop)
    except Interrupted as event:
        say(f"{event}: saved {run.last}; continue with --resume {run.last}")
        raise SystemExit(128 + event.signum) from event
    say_missing_poses(session.train_clips, session.val_clips)
    best = session.state
    say(f"best val top-1 {best.best:.2%} in epoch {best.best_epoch}: {run.best}")
    return best.best


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
            "published protocol: val is the test list, so the epoch is chosen on the test clips; "
            "accuracies are optimistic"
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


def _build(args: argparse.Namespace, *, fresh: bool) -> Session:
    """Build loaders, model and optimiser; `fresh` models take their initial weights."""
    device = choose_device(args.device, args.gpus)
    source = open_data(args)
    estimate = build_estimate(args, device)
    train_clips = build_train_loader(args, source, estimate, announce)
    val_clips = build_eval_loader(
        args, source, "val", batch_size=args.batch_size, estimate=estimate, announce=announce
    )
    _check_batches(args, len(clips_of(train_clips)))
    torch.manual_seed(args.seed)
    model = _initial_model(args, source, fresh=fresh).to(device)
    amp_dtype = choose_amp_dtype(args.with_amp, args.amp_dtype, device)
    tune_network(
        model,
        device,
        channels_last=choose_channels_last(args.channels_last, device, amp_dtype),
        compiled=args.compile,
    )
    settings = TrainSettings(
        epochs=args.epochs,
        warmup=args.warmup,
        lr=args.lr,
        iter_size=args.iter_size,
        clip_gradient=args.clip_gradient,
        amp_dtype=amp_dtype,
        class_weights=_class_weights(args, train_clips, source),
        seed=args.seed,
    )
    optimizer = build_optimizer(model, args.optimizer, args.lr, args.momentum, args.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16)
    state = TrainState(model, optimizer, scaler, epoch=args.start_epoch or 0)
    session = Session(args, device, source, train_clips, val_clips, settings, state)
    _introduce(session)
    return session


def _check_batches(args: argparse.Namespace, clips: int) -> None:
    """Refuse a training batch of one frame, of which batch norm has no statistics."""
    smallest = clips % args.batch_size or min(args.batch_size, clips)
    if opts.needs_frames(args) and args.num_segments * smallest == 1:
        raise InputError(
            f"--num_segments 1 and --batch-size {args.batch_size} leave a batch of one frame of "
            f"{clips} clips, which batch norm cannot train on: use another --batch-size"
        )


def clips_of(loader: DataLoader) -> ClipDataset:
    """Return the clips of a loader that `datasets.loading` built."""
    return cast(ClipDataset, loader.dataset)


def _initial_model(args: argparse.Namespace, source: DataSource, *, fresh: bool) -> ClipClassifier:
    """Build the model; weights that a checkpoint will replace are not looked for."""
    start = args.finetune or args.feature_extractor
    if start or not fresh:
        args = argparse.Namespace(**{**vars(args), "pretrained": "none"})
    model = build_model(args, len(source.classes))
    if start and fresh:
        say(str(load_for_finetune(model, args.checkpoint_path)))
    if args.feature_extractor:
        model.freeze_encoder()
    return model


def _class_weights(
    args: argparse.Namespace, clips: DataLoader, source: DataSource
) -> torch.Tensor | None:
    if args.class_weights == "none":
        return None
    return balanced_class_weights(clips_of(clips).labels, len(source.classes))


def _introduce(session: Session) -> None:
    """Say what is about to happen, in a few lines."""
    args, state = session.args, session.state
    parameters = sum(p.numel() for p in state.model.parameters())
    network = f"pose only ({args.pose_model})" if args.fusion == "pose" else args.arch
    if opts.needs_frames(args):
        network += f"{' + GSF' if args.gsf else ''}, fusion {args.fusion}"
    elif args.gsf:
        say("note: --arch, --num_channels and --gsf have no effect on skeletons alone")
    if args.with_amp and session.device.type == "cpu" and not has_fast_bf16():
        say("note: this CPU has no bfloat16 instructions: --with_amp makes it slower here")
    if args.fusion == "late" and args.pose_weights is None:
        say("note: --late_fusion_poses without --pose_weights reads keypoint files, as _fast does")
    train, val = (len(clips_of(loader)) for loader in (session.train_clips, session.val_clips))
    say(
        f"{args.dataset}: {train} training and {val} validation clips, "
        f"{len(session.source.classes)} classes"
    )
    say(f"model: {network}, {parameters:,} parameters, on {session.device}")
    say(
        f"effective batch {args.batch_size} x {args.iter_size} = "
        f"{args.batch_size * args.iter_size} clips, "
        f"{steps_per_epoch(session.train_clips, args.iter_size)} steps an epoch"
    )


# ---------------------------------------------------------------- epochs


def _fit(session: Session, run: RunFolder, stop: StopRequest) -> None:
    """Run the remaining epochs; on a signal, save and raise `Interrupted`."""
    state = session.state
    log = run.open_log(state.epoch)
    try:
        while state.epoch < session.settings.epochs:
            _run_epoch(session, run, log, stop)
            state.next_epoch()
            _save(session, run.last)
    except Interrupted:
        _save(session, run.last)
        raise
    finally:
        log.close()


def _run_epoch(session: Session, run: RunFolder, log: EpochLog, stop: StopRequest) -> None:
    state, args, start = session.state, session.args, time.monotonic()
    rows = session.train_clips.batch_sampler
    rows.start(state.epoch, first_batch=state.step * args.iter_size)  # type: ignore[union-attr]
    with StepLine(f"epoch {state.epoch}", args.print_freq) as line:
        trained = train_one_epoch(
            state, session.train_clips, session.settings, session.device, stop, line
        )
    values = {"train/loss": trained.loss, "train/top1": trained.top1, "lr": _rate(state)}
    if _is_due(session):
        metrics = _validate(session, stop)
        values |= {
            "val/loss": metrics.loss,
            "val/top1": metrics.accuracy,
            "val/macro_f1": metrics.macro_f1,
        }
        if state.rank(metrics.accuracy, metrics.loss):
            _save(session, run.best)
    values["seconds"] = time.monotonic() - start
    values["waiting"] = trained.waiting
    log.record(state.epoch, values)
    say(_epoch_line(state.epoch, trained, values))


def _rate(state: TrainState) -> float:
    return float(state.optimizer.param_groups[0]["lr"])


def _is_due(session: Session) -> bool:
    """Evaluate every `--eval-freq` epochs and after the last one."""
    done = session.state.epoch + 1
    return done % session.args.eval_freq == 0 or done == session.settings.epochs


def _validate(session: Session, stop: StopRequest | None = None) -> Metrics:
    scores: Scores = evaluate(
        session.state.model,
        session.val_clips,
        session.device,
        amp_dtype=session.settings.amp_dtype,
        stop=stop,
    )
    return Metrics.of(scores.labels, scores.scores)


def _epoch_line(epoch: int, trained: EpochResult, values: dict[str, float]) -> str:
    text = f"epoch {epoch}: train loss {trained.loss:.4f} top-1 {trained.top1:.1%}"
    if "val/top1" in values:
        text += f"; val loss {values['val/loss']:.4f} top-1 {values['val/top1']:.1%}"
    return (
        f"{text}; lr {values['lr']:.2g}; {values['seconds']:.0f} s, "
        f"waiting for data {trained.waiting:.0%}"
    )


def _evaluate_only(session: Session, path: Path) -> float:
    say(str(load_checkpoint(session.state.model, path)))
    metrics = _validate(session)
    say(metrics_text(metrics, session.source.classes))
    return metrics.accuracy


# ---------------------------------------------------------------- checkpoints


def _save(session: Session, path: Path) -> None:
    place = session.args.dataset_path and session.args.dataset_path.resolve()
    save_checkpoint(
        path,
        {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            **session.state.pack(),
            "args": plain({**vars(session.args), "dataset_path": place}),
            "classes": list(session.source.classes),
            "clips": _seen_clips(session),
            "data": _data_facts(session),
        },
    )


def _seen_clips(session: Session) -> dict[str, torch.Tensor]:
    """Return fingerprints of the clips that decide about the weights, by list."""
    loaders = {"train": session.train_clips, "val": session.val_clips}
    return {
        split: torch.from_numpy(clips_of(loader).fingerprints) for split, loader in loaders.items()
    }


def _data_facts(session: Session) -> dict[str, Any]:
    """Return what the checkpoint keeps of the lists: for prediction and for a model card."""
    loaders = {"train": session.train_clips, "val": session.val_clips}
    lists = {
        split: [clip.record for clip in clips_of(loader).clips] for split, loader in loaders.items()
    }
    return data_facts(session.source.row, session.source.root, lists)


def _restore(session: Session, path: Path) -> None:
    """Continue from a checkpoint of the same options.

    Raises:
        InputError: not a checkpoint of this training, or of other options.
    """
    packed = read_training_state(path)
    check_continues(
        path, packed, plain(vars(session.args)), session.source.classes, _seen_clips(session)
    )
    session.state.unpack(packed)
    say(f"continuing {path} at epoch {session.state.epoch}, step {session.state.step}")
