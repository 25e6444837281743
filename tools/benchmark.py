"""Measure how fast this machine is, each part against the published way to do it.

python tools/benchmark.py
python tools/benchmark.py --what module network --threads 1 2 --batch 1 2 8
python tools/benchmark.py --what module network training --device cuda --dtype float32 bfloat16 \
    --arch resnet50 --input_size 224 --batch 8 --layout contiguous channels_last
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say, warn  # noqa: E402
from errors import InputError, Interrupted, run_script  # noqa: E402
from files import write_json, write_text  # noqa: E402
from machine import choose_device, num_cores, prepare_cpu  # noqa: E402
from measuring.chart import render_chart  # noqa: E402
from measuring.loaders import measure_loaders, measure_workers  # noqa: E402
from measuring.machine_facts import machine_facts  # noqa: E402
from measuring.modules import measure_modules  # noqa: E402
from measuring.networks import measure_networks  # noqa: E402
from measuring.plan import Plan  # noqa: E402
from measuring.record import Section  # noqa: E402
from measuring.stages import measure_stages  # noqa: E402
from measuring.tables import markdown_table, text_table  # noqa: E402
from measuring.targets import Outcome, check_targets  # noqa: E402
from measuring.testing import measure_tests  # noqa: E402
from measuring.training import measure_steps, measure_waiting  # noqa: E402
from measuring.volumes import measure_volumes  # noqa: E402
from measuring.zoo import measure_zoo  # noqa: E402
from options.benchmarking import parse_benchmark_args  # noqa: E402
from reports import plain  # noqa: E402

PARTS: dict[str, tuple[Callable[[Plan], Section], ...]] = {
    "module": (measure_modules,),
    "network": (measure_networks,),
    "loader": (measure_loaders, measure_stages, measure_workers),
    "training": (measure_steps, measure_waiting),
    "testing": (measure_tests,),
    "zoo": (measure_zoo, measure_volumes),
}
METHOD = (
    "All ways to do one thing take turns, and each round another one begins; one call of each "
    "warms up and does not count. Times are medians. CPU time is that of all cores together; it "
    "is what ratios are made of where one thread works, elsewhere the clock is."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print tables, write files; exit with 1 when a promise is missed."""
    args = parse_benchmark_args(argv)
    device = choose_device(args.device, None)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--output {args.output} cannot be made a folder ({error.strerror}): name another"
        ) from None
    prepare_cpu(args.threads[0])
    torch.backends.cudnn.benchmark = True  # as in training: the fastest convolution of each size
    signal.signal(signal.SIGTERM, _stop)
    facts = machine_facts(device)
    introduce(args, facts)
    sections: dict[str, Section] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            plan = make_plan(args, device, Path(folder))
            for measure in (measure for part in args.what for measure in PARTS[part]):
                section = measure(plan)
                sections[section.name] = section
                say("\n" + (markdown_table if args.markdown else text_table)(section) + "\n")
    finally:  # what has been measured is kept, whatever stops the rest
        outcomes = check_targets(sections, device.type)
        if sections:
            write_results(args, facts, list(sections.values()), outcomes)
    if args.check:
        check(outcomes)


def _stop(signum: int, _frame: object) -> None:
    """End as after Ctrl-C, so that generated files go."""
    raise Interrupted(signum)


def make_plan(args: argparse.Namespace, device: torch.device, folder: Path) -> Plan:
    """Turn the options into what is measured."""
    return Plan(
        device=device,
        threads=tuple(args.threads),
        batches=tuple(args.batch),
        dtypes=tuple(args.dtype),
        layouts=tuple(args.layout),
        variants=tuple(args.variants),
        archs=tuple(args.arch),
        models=tuple(args.models),
        input_size=args.input_size,
        num_segments=args.num_segments,
        workers=tuple(args.workers),
        sizes=tuple(args.sizes),
        repeats=args.repeats,
        is_quick=args.quick,
        folder=folder,
        progress=lambda text: say(f"measuring {text}"),
    )


def introduce(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Say on what is measured, and what may disturb it."""
    where = facts.get("gpu") or f"{facts['cpu']}, {facts['cores']} cores"
    say(f"{where}; PyTorch {facts['torch']}, commit {facts['commit'] or 'unknown'}")
    say(METHOD)
    if max(args.threads) > num_cores():
        warn(f"--threads {max(args.threads)} is more than the {num_cores()} cores of this machine")
    if args.quick:
        warn("--quick measures little: its numbers are no results")


def write_results(
    args: argparse.Namespace,
    facts: dict[str, Any],
    sections: Sequence[Section],
    outcomes: Sequence[Outcome],
) -> None:
    """Write numbers, tables and chart."""
    values = {
        "machine": facts,
        "options": plain(vars(args)),
        "method": METHOD,
        "sections": [section.as_json() for section in sections],
        "targets": [outcome.as_json() for outcome in outcomes],
    }
    write_json(args.output / "benchmark.json", values)
    tables = "\n".join(markdown_table(section) for section in sections)
    write_text(args.output / "benchmark.md", tables)
    render_chart(sections, args.output / "benchmark.png")
    say(f"wrote {args.output}: benchmark.json, benchmark.md, benchmark.png")


def check(outcomes: Sequence[Outcome]) -> None:
    """Print what became of the promises; exit with 1 when one is missed."""
    measured = [outcome for outcome in outcomes if outcome.is_met is not None]
    for outcome in measured:
        say(outcome.text())
    if len(measured) < len(outcomes):
        say(
            f"{len(outcomes) - len(measured)} more are about other parts, or other settings than "
            "these: without options all of the CPU's are measured"
        )
    if any(outcome.is_met is False for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    run_script(main)
