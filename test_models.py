"""Test a checkpoint on the test list with several samplings and crops of each clip.

python test_models.py --weights <run folder>/best.pth.tar --num_clips 2 --test_crops 10
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import opts
import session
from console import StepLine, say
from datasets.loading import DataSource, build_eval_loader
from datasets.records import PUBLISHED
from engine import evaluate
from errors import InputError, run_script
from files import write_json
from machine import StopRequest, choose_device, prepare_cpu
from models import build_model
from models.weights import checkpoint_options, load_checkpoint, read_checkpoint
from reports import (
    Metrics,
    environment,
    metrics_text,
    plain,
    render_confusion,
    save_scores,
)
from resume import refuse_seen_clips


def main(argv: Sequence[str] | None = None) -> Metrics:
    """Test, print, and write `test_report.json`, `confusion.png` and, if asked, the scores."""
    given = opts.parse_test_args(argv)
    trained = checkpoint_options(given.weights)
    args = opts.adopt_options(given, trained)
    prepare_cpu(args.threads)
    device = choose_device(args.device, args.gpus)
    source = session.open_data(args)
    clips = build_eval_loader(
        args,
        source,
        args.split,
        num_clips=args.num_clips,
        test_crops=args.test_crops,
        batch_size=args.batch_size,
        estimate=session.build_estimate(args, device),
    )
    is_test = args.split == "test" and args.dataset == trained.get("dataset")
    if is_test and not args.allow_overlap:
        content = read_checkpoint(args.weights)
        refuse_seen_clips(
            content,
            session.clips_of(clips),
            args.weights,
            is_published=source.is_published,
        )
    model = build_model(args, len(source.classes)).to(device)
    say(str(load_checkpoint(model, args.weights)))
    output = make_folder(args.output or args.weights.parent)

    with StopRequest() as stop, StepLine(args.split, every=20) as line:
        scores = evaluate(
            model,
            clips,
            device,
            softmax=args.softmax,
            most_rows=max(args.batch_size, 2),
            stop=stop,
            progress=line,
        )
    metrics = Metrics.of(scores.labels, scores.scores, scores.loss)
    say(f"{args.dataset}, {args.split} list, {args.num_clips} x {args.test_crops} views of a clip")
    session.say_missing_poses(clips)
    say(metrics_text(metrics, source.classes))
    write_report(output, args, metrics, source)
    if args.save_scores:
        path = output / f"scores_{args.split}.npz"
        save_scores(path, scores.clips, scores.labels, scores.scores, source.classes)
        say(f"wrote {path}")
    return metrics


def make_folder(path: Path) -> Path:
    """Make the output folder before the work, so that a wrong path costs nothing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise InputError(
            f"--output {path} cannot be written to ({error.strerror}): name another folder"
        ) from error
    return path


def write_report(
    output: Path, args: argparse.Namespace, metrics: Metrics, source: DataSource
) -> None:
    """Write `test_report.json` and `confusion.png`; a val report gets `val_` in front."""
    prefix = "" if args.split == "test" else "val_"
    report = {
        "weights": str(args.weights),
        "split": args.split,
        "classes": list(source.classes),
        "protocol": PUBLISHED if source.is_published else "",
        **metrics.to_json(),
        "options": plain(vars(args)),
        "environment": environment(),
    }
    write_json(output / f"{prefix}test_report.json", report)
    render_confusion(metrics, source.classes, output / f"{prefix}confusion.png")
    say(f"wrote {output / f'{prefix}test_report.json'} and {prefix}confusion.png")


if __name__ == "__main__":
    run_script(main)
