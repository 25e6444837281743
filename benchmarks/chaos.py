"""Fault injection: kill, signal, stop and split real training runs, and measure what is kept.

python benchmarks/chaos.py                     # all parts, about 30 minutes on 2 cores
python benchmarks/chaos.py --quick             # a few of each, a minute or two
python benchmarks/chaos.py --only kills --kills 200 --seed 1

The programs are the real ones, on the built-in data set with 24 clips and a tiny network. Most are
forked from a process that has imported them, which takes milliseconds instead of seconds; some are
started by the plain command, and by `torchrun`. The table says how many of each. Exit code 1 says
that a promise was broken.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.faults.costs import measure_costs  # noqa: E402
from benchmarks.faults.forks import Hanging, Launcher, launching  # noqa: E402
from benchmarks.faults.kills import kill_runs  # noqa: E402
from benchmarks.faults.processes import compare_processes  # noqa: E402
from benchmarks.faults.resuming import resume_runs  # noqa: E402
from benchmarks.faults.runs import MODES, Recipe, References, make_data  # noqa: E402
from benchmarks.faults.signals import signal_runs  # noqa: E402
from benchmarks.faults.table import Deadline, Findings, markdown, write  # noqa: E402
from console import say  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from options.types import OneLineParser, natural, positive, positive_real  # noqa: E402
from reports import plain  # noqa: E402

WORKERS = (0, 2)
# Of kills, signals, resumes: as promised, and as many as fit into a minute or two.
FULL, QUICK = (200, 60, 40), (12, 10, 4)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts that are asked for; print and write the table.

    Raises:
        SystemExit: 1, a promise was broken.
    """
    args = parse(argv)
    start, findings = time.monotonic(), Findings()
    args.output.mkdir(parents=True, exist_ok=True)  # now, not after an hour
    with tempfile.TemporaryDirectory(prefix="chaos_", dir=args.work) as folder:
        # Set before anything is forked: --compile keeps what it has made here.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "compiled")
        with launching(Path(folder) / "logs") as launcher:
            bench = Bench.of(launcher, Path(folder), args)
            for part in args.only:
                say(f"{part} ...")
                findings.add(attempt(part, bench))
    say("\n" + markdown(findings.rows))
    for line in findings.broken:
        say(f"broken: {' '.join(line.split())}")
    write(args.output, findings, plain(vars(args)), time.monotonic() - start)
    say(f"written: {args.output / 'chaos.json'}, {args.output / 'chaos.md'}")
    if not findings.is_kept:
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every part works with: see `Bench.of`."""

    launcher: Launcher
    references: References
    work: Path
    data: Path
    args: argparse.Namespace
    deadline: Deadline

    @classmethod
    def of(cls, launcher: Launcher, work: Path, args: argparse.Namespace) -> "Bench":
        """Make the data set, and nothing else."""
        data = make_data(work / "data")
        return cls(launcher, References(launcher, work), work, data, args, Deadline(args.minutes))

    @property
    def recipes(self) -> list[Recipe]:
        """Return every mode with every number of loader processes."""
        return [Recipe(mode, workers, self.data) for workers in WORKERS for mode in self.args.modes]


def attempt(part: str, bench: Bench) -> Findings:
    """Run a part; what stops it altogether is a broken promise, and the others still run."""
    try:
        return PARTS[part](bench)
    except (Hanging, InputError) as error:
        return Findings(broken=[f"{part}: {error}"])


def kills(bench: Bench) -> Findings:
    """Kill runs."""
    args = bench.args
    return kill_runs(
        bench.launcher,
        bench.recipes,
        bench.references,
        bench.work,
        kills=args.kills,
        seed=args.seed,
        deadline=bench.deadline,
    )


def signals(bench: Bench) -> Findings:
    """Signal runs."""
    args = bench.args
    return signal_runs(
        bench.launcher,
        bench.references,
        bench.args.modes,
        bench.data,
        bench.work,
        signals=args.signals,
        seed=args.seed,
        deadline=bench.deadline,
    )


def resume(bench: Bench) -> Findings:
    """Stop runs and let them go on."""
    args = bench.args
    return resume_runs(
        bench.launcher,
        bench.recipes,
        bench.references,
        bench.work,
        resumes=args.resumes,
        seed=args.seed,
        deadline=bench.deadline,
    )


def processes(bench: Bench) -> Findings:
    """Compare numbers of processes, in the cheapest mode and in one with frames."""
    quick = bench.args.quick
    modes = [mode for mode in ("pose", "early") if mode in bench.args.modes] or bench.args.modes
    return compare_processes(
        bench.launcher,
        modes[:1] if quick else modes,
        bench.data,
        bench.work / "processes",
        quick=quick,
        deadline=bench.deadline,
    )


def cost(bench: Bench) -> Findings:
    """Measure what checkpoints cost."""
    return measure_costs(bench.work / "cost", quick=bench.args.quick, deadline=bench.deadline)


PARTS: dict[str, Callable[[Bench], Findings]] = {
    "kills": kills,
    "signals": signals,
    "resume": resume,
    "processes": processes,
    "cost": cost,
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options."""
    parser = OneLineParser(description="Fault injection with a table of what is kept.")
    parser.add_argument("--quick", action="store_true", help="a few of each, small comparisons")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts, in this order"
    )
    parser.add_argument(
        "--modes", nargs="+", choices=MODES, default=list(MODES), help="what is trained"
    )
    for number, (name, what) in enumerate(
        (("kills", "kill -9"), ("signals", "signals"), ("resumes", "pauses"))
    ):
        parser.add_argument(
            f"--{name}", type=positive, help=f"{what}; {FULL[number]}, with --quick {QUICK[number]}"
        )
    parser.add_argument("--seed", type=natural, default=0, help="of moments and places")
    parser.add_argument(
        "--minutes", type=positive_real, default=60.0, help="after which nothing new is begun"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "runs" / "chaos", help="for chaos.json and chaos.md"
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder for the runs, removed at the end; default: a temporary one",
    )
    args = parser.parse_args(argv)
    if args.work is not None and not args.work.is_dir():
        parser.error(f"--work {args.work} is no folder: make it, on the disk to be tested")
    defaults = QUICK if args.quick else FULL
    for name, value in zip(("kills", "signals", "resumes"), defaults, strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


if __name__ == "__main__":
    run_script(main)
