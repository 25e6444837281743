"""Check a prepared data set and write a report of what is wrong with it.

python tools/check_dataset.py --dataset FRFS --dataset_path dataset
python tools/check_dataset.py --dataset FRFS --dataset_path dataset --verify --strict

Writes check/findings.csv, check/summary.json and check/report.html into the data set's folder, and
manifest.csv where there is none. docs/CHECKING.md explains every kind of finding. Exits with 2
when --strict is given and anything was found, errors or warnings.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from checkup import Checkup, check_prepared  # noqa: E402
from errors import run_script  # noqa: E402
from options.data import parse_check_args  # noqa: E402


def main(argv: Sequence[str] | None = None) -> Checkup:
    """Check what the options name."""
    args = parse_check_args(argv)
    return check_prepared(
        args.dataset,
        args.dataset_path,
        strict=args.strict,
        decode=not args.no_decode,
        verify=args.verify,
        workers=args.workers,
        output=args.output,
        report=not args.no_report,
        update_manifest=args.update_manifest,
    )


if __name__ == "__main__":
    run_script(main)
