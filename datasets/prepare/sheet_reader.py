"""Read the first two columns of a spreadsheet, as a program of its own.

python -P datasets/prepare/sheet_reader.py TABLE

The reader of the spreadsheet library allocates what a damaged or hostile file asks for, and aborts
the process when it cannot. So `label_tables.py` runs it here, with limits, and loses nothing.
Writes a JSON list with one [type, value] pair of cells for each row, from the first row on.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from python_calamine import CalamineWorkbook

_MOST_MEMORY = 2**30
_MOST_SECONDS = 2
_COLUMNS = 2
_USUAL_SHEET = "Sheet1"


def set_limits() -> None:
    """Limit memory and computing time of this process where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def read_cells(path: str) -> list[list[tuple[str, object]]]:
    """Return the first cells of every row of the sheet, each as (type, value)."""
    # By content, not by ending: tables are renamed.
    book = CalamineWorkbook.from_filelike(io.BytesIO(Path(path).read_bytes()))
    names = book.sheet_names
    sheet = book.get_sheet_by_name(_USUAL_SHEET if _USUAL_SHEET in names else names[0])
    rows = sheet.to_python(skip_empty_area=False)
    return [[_describe(cell) for cell in row[:_COLUMNS]] for row in rows]


def _describe(cell: object) -> tuple[str, object]:
    plain = isinstance(cell, str | int | float)
    return type(cell).__name__, cell if plain else str(cell)


if __name__ == "__main__":
    set_limits()
    json.dump(read_cells(sys.argv[1]), sys.stdout)
