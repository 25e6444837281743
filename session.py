"""A training session, from options to the best checkpoint: what both training scripts share."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from assembly import Session, assemble, clips_of, replicate, say_missing_poses
from checkpoints import CheckpointFolder, Restored
from console import StepLine, say, talking, warn
from datasets.facts import data_facts
from datasets.folds import write_fold
from engine import EpochResult, TrainState, train_one_epoch
from errors import InputError, Interrupted
from files import write_json
from machine import StopRequest, num_cores, prepare_cpu
from models.weights import FORMAT, FORMAT_VERSION, load_checkpoint
from optim import NonFinite
from ranks import Ranks
from reports import EpochLog, RunFolder, metrics_text, plain
from results.metrics import Metrics
from resume import check_continues, find_run, runs_folder
from saving import Saver
from scoring import Scores, evaluate
from seen_clips import START

# Seconds in which a second signal is the first one again: torchrun passes on what a terminal or a
# job system has sent to every process already, and sends its own when one of them ends.
_PATIENCE, _PATIENCE_TORCHRUN = 1.0, 30.0
# Options that name where data lie.
_PLACES = ("dataset_path", "annotations", "keypoint_files")


def train(args: argparse.Namespace) -> float:
    """Train, evaluate on the val list, keep `last` and `best`; return the best top-1 (0 to 1).

    Started by torchrun it is one of several processes, which share every step.

    Raises:
        InputError: something that the user can mend.
        SystemExit: 130 after SIGINT, 143 after SIGTERM or SIGUSR1, with `last` saved.
    """
    ranks = Ranks.join()
    stop = StopRequest(_PATIENCE if ranks.count == 1 else _PATIENCE_TORCHRUN)
    try:
        with talking(ranks.is_first), stop, ranks.ending_together():
            best = _train(args, ranks, stop)
    except Interrupted as event:
        raise SystemExit(event.exit_code) from event
    ranks.end_group()
    return best


def _train(args: argparse.Namespace, ranks: Ranks, stop: StopRequest) -> float:
    with stop.at_once():  # nothing is lost before the first step
        prepare_cpu(args.threads or max(1, num_cores() // (2 * ranks.neighbours)))
        found = RunFolder(path) if ranks.is_first and (path := find_run(args)) else None
        goes_on = found is not None and found.has_checkpoint
        goes_on = ranks.from_first("goes on", goes_on, ranks.check)
        session = assemble(args, ranks, fresh=not (goes_on or args.evaluate))
        if args.evaluate:
            return _evaluate_only(session, Path(args.resume))
    with _run_folder(session, found, stop) as (run, saver):
        try:
            _fit(session, run, saver, stop)
        except Interrupted as event:
            say(f"{event}: saved {run.last}; the same command continues it")
            raise
        if ranks.is_first:
            state = session.state
            write_json(run.finished, {"best_top1": state.best, "best_epoch": state.best_epoch})
    say_missing_poses(session.train_clips, session.val_clips)
    best = session.state
    say(f"best val top-1 {best.best:.2%} in epoch {best.best_epoch}: {run.best}")
    return best.best


@contextmanager
def _run_folder(
    session: Session, found: RunFolder | None, stop: StopRequest
) -> Iterator[tuple[RunFolder, Saver]]:
    """Take over the state of the run; give its folder, which nobody else may write meanwhile."""
    if not session.ranks.is_first:
        with stop.at_once():
            _take_over(session, None)
        stop.alone = False  # from here on processes stop together, or when process 0 does
        yield RunFolder(Path()), _saver(session, None)
        return
    with stop.at_once():
        args, fold = session.args, session.source.fold
        run = found or RunFolder.create(runs_folder(args), args.experiment_name, vars(args))
        checkpoints = CheckpointFolder(run.path)
    with checkpoints.alone():
        with stop.at_once():
            checkpoints.clean()
            if fold is not None and not run.has_checkpoint:
                write_fold(run.path / "lists", fold, session.source.classes)
            say(f"run folder: {run.path}")
            _take_over(session, checkpoints.read_last() if run.has_checkpoint else None)
        yield run, _saver(session, checkpoints)


def _saver(session: Session, checkpoints: CheckpointFolder | None) -> Saver:
    # Once: a list of a hundred thousand clips would take its time at every save.
    about = _about(session) if checkpoints is not None else {}
    return Saver(
        checkpoints, session.args.save_every_minutes, lambda: {**about, **session.state.pack()}
    )


# ---------------------------------------------------------------- epochs


def _fit(session: Session, run: RunFolder, saver: Saver, stop: StopRequest) -> None:
    """Run the remaining epochs; on a signal, save and raise `Interrupted`."""
    state, ranks = session.state, session.ranks
    log = run.open_log(state.epoch) if ranks.is_first else None
    try:
        if not run.last.exists():
            saver.save()  # a run that is killed in its first epoch goes on too
        with ranks.losing_others():  # here, so that the state is saved all the same
            while state.epoch < session.settings.schedule.epochs:
                _run_epoch(session, saver, log, stop)
                state.next_epoch()
                saver.end_epoch()
        saver.save()
    except Interrupted:
        saver.save()
        # The others wait for it: torchrun ends all when one has ended.
        ranks.wait_for_first("saved", ranks.check)
        raise
    except (InputError, SystemExit) as error:
        # What it was about is told late on a GPU: then steps are counted that were not taken.
        if not isinstance(error, NonFinite) or error.step == state.step:
            saver.rescue()
        raise
    finally:
        if log is not None:
            log.close()


def _run_epoch(session: Session, saver: Saver, log: EpochLog | None, stop: StopRequest) -> None:
    state, args, start = session.state, session.args, time.monotonic()
    rows = session.train_clips.batch_sampler
    rows.start(state.epoch, first_batch=state.step * args.iter_size)  # type: ignore[union-attr]
    with StepLine(f"epoch {state.epoch}", args.print_freq) as line:
        trained = train_one_epoch(
            state,
            session.train_clips,
            session.settings,
            session.device,
            stop,
            line,
            session.ranks,
            saver,
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
            saver.keep_best()
    values["seconds"] = time.monotonic() - start
    values["waiting"] = trained.waiting
    if log is not None:
        log.record(state.epoch, values)
    say(_epoch_line(state.epoch, trained, values))


def _rate(state: TrainState) -> float:
    return float(state.optimizer.param_groups[0]["lr"])


def _is_due(session: Session) -> bool:
    """Evaluate every `--eval-freq` epochs and after the last one."""
    done = session.state.epoch + 1
    return done % session.args.eval_freq == 0 or done == session.settings.schedule.epochs


def _validate(session: Session, stop: StopRequest | None = None) -> Metrics:
    scores: Scores = evaluate(
        session.state.model,
        session.val_clips,
        session.device,
        amp_dtype=session.settings.amp_dtype,
        stop=stop,
        ranks=session.ranks,
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


def _about(session: Session) -> dict[str, Any]:
    """Return what a checkpoint says beside the state: what it is, and how it was made."""
    options = vars(session.args)
    # Tests run from any folder.
    places = {name: options[name] and options[name].resolve() for name in _PLACES}
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "args": plain({**options, **places}),
        "classes": list(session.source.classes),
        "clips": _seen_clips(session),
        "data": _data_facts(session),
    }


def _seen_clips(session: Session) -> dict[str, torch.Tensor]:
    """Return fingerprints of the clips that decide about the weights, by list."""
    loaders = {"train": session.train_clips, "val": session.val_clips}
    lists = {
        split: torch.from_numpy(clips_of(loader).fingerprints) for split, loader in loaders.items()
    }
    return {**lists, **session.start_clips}


def _data_facts(session: Session) -> dict[str, Any]:
    """Return what the checkpoint keeps of the lists: for prediction and for a model card."""
    loaders = {"train": session.train_clips, "val": session.val_clips}
    lists = {
        split: [clip.record for clip in clips_of(loader).clips] for split, loader in loaders.items()
    }
    return data_facts(session.source.row, session.source.root, lists)


def _take_over(session: Session, restored: Restored | None) -> None:
    """Continue from the checkpoint that process 0 has found, if it has, in all processes.

    Raises:
        InputError: it is of other options, classes or clips.
    """
    for trouble in restored.troubles if restored else ():
        warn(trouble)
    packed = session.ranks.content_of_first(restored.content if restored else None)
    if packed is not None:
        path = restored.path if restored else Path("the checkpoint")
        check_continues(
            path, packed, plain(vars(session.args)), session.source.classes, _seen_clips(session)
        )
        before = packed["clips"].get(START)
        session.start_clips.update({} if before is None else {START: torch.as_tensor(before)})
        try:
            session.state.unpack(packed)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} does not fit this network and optimiser ({str(error).splitlines()[0]}): "
                "continue it with the release that wrote it, or start anew with --resume none"
            ) from error
        say(f"continuing {path} at epoch {session.state.epoch}, step {session.state.step}")
    replicate(session)
