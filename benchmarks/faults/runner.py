"""Run a program of ours with faults planted in it, as a command of its own or of torchrun.

python benchmarks/faults/runner.py ORDERS.json main --dataset synthetic ...

Each process writes its exit code to ORDERS.json.<rank>.code: `torchrun` itself always ends with 1
when a process did not end with 0.
"""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.faults.forks import run_program  # noqa: E402


def main() -> int:
    """Run it; return its exit code."""
    orders, program, *options = sys.argv[1:]
    code = run_program(program, options, json.loads(Path(orders).read_text(encoding="utf-8")))
    place = Path(f"{orders}.{os.environ.get('RANK', '0')}.code")
    place.write_text(str(code), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
