"""Give every reader of foreign files wrong ones, and count what is not refused in one line.

python benchmarks/fuzz_inputs.py --lists 20000 --jpegs 2000 --videos 200 --hostile

A reader may read a file or refuse it with one line. Counted are tracebacks (any other exception, a
message of several lines), hangs (5 seconds of computing, or 20 of waiting), crashes of the process,
and canary files of payloads that were run. Cases are functions of --seed; those that fail are kept
with --keep. Each worker is a process of its own, which is replaced when it dies. Ends with 1 when
anything was found.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.fuzz_targets import Target, make_targets  # noqa: E402
from benchmarks.fuzzing import Case, Player, Tally, fuzz  # noqa: E402
from console import say  # noqa: E402
from errors import run_script  # noqa: E402
from files import write_json  # noqa: E402
from options.types import OneLineParser, natural, positive_real  # noqa: E402


def deal_cases(targets: Sequence[Target], counts: dict[str, int], hostile: int) -> list[Case]:
    """Return (target, number) pairs: of each kind as many as wanted, dear readers fewer.

    Args:
        targets: all readers.
        counts: kind -> cases.
        hostile: number of hostile files that every reader is given.
    """
    cases: list[Case] = []
    for kind, count in counts.items():
        members = [n for n, target in enumerate(targets) if target.kind == kind]
        shares = np.array([1 / targets[n].cost for n in members])
        bounds = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
        for member, many in zip(members, np.diff(bounds, prepend=0), strict=True):
            cases += [(member, number) for number in range(many)]
    np.random.default_rng(0).shuffle(cases)
    cases = [(int(target), int(number)) for target, number in cases]
    return [(n, -1 - h) for h in range(hostile) for n in range(len(targets))] + cases


def _parse(argv: Sequence[str] | None) -> Any:
    parser = OneLineParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lists", type=natural, default=20_000, help="lists, tables, arrays ...")
    parser.add_argument("--jpegs", type=natural, default=2_000, help="images")
    parser.add_argument("--videos", type=natural, default=200, help="videos")
    parser.add_argument("--hostile", action="store_true", help="payloads to every reader, too")
    parser.add_argument("--seed", type=natural, default=0, help="of the cases")
    parser.add_argument("--seconds", type=positive_real, default=1e9, help="to begin cases for")
    parser.add_argument("--workers", type=natural, default=2, help="processes")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--keep", type=Path, help="folder for the files that were not refused")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Fuzz, print a table, and end with 1 when there is a fault."""
    args = _parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        player = Player(Path(folder), args.seed, make=make_targets)
        counts = {"table": args.lists, "image": args.jpegs, "video": args.videos}
        hostile = len(player.hostile) if args.hostile else 0
        cases = deal_cases(player.targets, counts, hostile)
        start, workers = time.monotonic(), max(args.workers, 1)
        if args.keep is not None:
            args.keep.mkdir(parents=True, exist_ok=True)
        tally = fuzz(player, cases, args.seed, workers, args.seconds, args.keep)
        say(_table(player, tally))
        say(
            f"{sum(tally.outcomes.values())} cases in {time.monotonic() - start:.0f} s: "
            + ", ".join(f"{tally.count(what)} {what}" for what in _OUTCOMES)
        )
        for fault in tally.faults[:50]:
            say(f"\n{fault['outcome']}: {fault['what']}")
        if args.output is not None:
            write_json(args.output, _report(args, tally))
    if tally.faults:
        sys.exit(1)


_OUTCOMES = ("read", "refused", "traceback", "hang", "crash", "executed")


def _table(player: Player, tally: Tally) -> str:
    heads = "".join(f"{what:>11}" for what in _OUTCOMES)
    lines = [f"{'reader':30}{heads}{'max MiB':>9}{'max s':>7}"]
    for target in player.targets:
        counts = "".join(f"{tally.outcomes[target.name, what]:>11}" for what in _OUTCOMES)
        memory, seconds = tally.memory.get(target.name, 0), tally.seconds.get(target.name, 0)
        lines.append(f"{target.name:30}{counts}{memory:>9.0f}{seconds:>7.2f}")
    return "\n".join(lines)


def _report(args: Any, tally: Tally) -> dict[str, Any]:
    readers = sorted({name for name, _ in tally.outcomes})
    return {
        "seed": args.seed,
        "totals": {what: tally.count(what) for what in _OUTCOMES},
        "readers": {
            name: {
                **{what: tally.outcomes[name, what] for what in _OUTCOMES},
                "most_mib": round(tally.memory[name], 1),
                "most_seconds": round(tally.seconds[name], 3),
            }
            for name in readers
        },
        "faults": tally.faults,
    }


if __name__ == "__main__":
    run_script(main)
