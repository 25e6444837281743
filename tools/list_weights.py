"""List the published weights of skeleton models that are fetched by their names.

python tools/list_weights.py stgcnpp
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from console import say  # noqa: E402
from errors import InputError, run_script  # noqa: E402
from models.skeleton.catalogue import catalogue_table  # noqa: E402
from options.types import OneLineParser  # noqa: E402


def main(argv: Sequence[str] | None = None) -> int:
    """Print the weights whose names or networks contain all of the words; return how many."""
    parser = OneLineParser(
        prog="list_weights.py",
        description="List the published weights of skeleton models, with the accuracy that was "
        "published for ten clips of each video (of FineGYM the mean of the classes).",
        epilog="example: python tools/list_weights.py stgcnpp 2d",
    )
    parser.add_argument("words", nargs="*", help="parts of the names or networks that are wanted")
    words = [word.lower() for word in parser.parse_args(argv).words]
    rows = [row for row in catalogue_table() if all(word in _searched(row) for word in words)]
    if not rows:
        raise InputError(
            f"no published weights have {' and '.join(words)} in their names: give no words to "
            "list all of them"
        )
    columns = list(rows[0])
    widths = [max(len(column), *(len(str(row[column])) for row in rows)) for column in columns]
    for values in (columns, *(list(row.values()) for row in rows)):
        cells = (str(v).ljust(width) for v, width in zip(values, widths, strict=True))
        say("  ".join(cells).rstrip())
    return len(rows)


def _searched(row: dict[str, Any]) -> str:
    return " ".join(row[column] for column in ("name", "network", "data", "from")).lower()


if __name__ == "__main__":
    run_script(main)
