"""Lines and progress bars for the user: the only file that prints.

Apart from `reports.py`, whose libraries take seconds to load, so that a program that needs none of
them answers at once.
"""

import io
import math
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Self

from tqdm import tqdm

# A terminal obeys these; lines may be broken and indented.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str) -> None:
    """Print a line for the user, above a progress bar if there is one.

    Names of files need not be text, not every place that output goes to takes all letters (a pipe
    on Windows, the C locale), and names of clips and classes come from anywhere: what cannot be
    written, and what a terminal would obey, is printed as escapes.
    """
    _write(text, "", "")


def warn(text: str) -> None:
    """Print a line that must not be missed: red on a terminal."""
    red = ("\033[31m", "\033[0m") if sys.stdout.isatty() else ("", "")
    _write(f"WARNING: {text}", *red)


def _write(text: str, before: str, after: str) -> None:
    shown = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    encoding = sys.stdout.encoding or "utf-8"
    written = shown.encode(encoding, "backslashreplace").decode(encoding)
    tqdm.write(f"{before}{written}{after}", file=sys.stdout)
    sys.stdout.flush()


class _Nowhere(io.TextIOBase):
    """An output that nobody reads."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def talking(speaks: bool) -> Iterator[None]:
    """Let this process print lines and bars, or not; errors are always printed."""
    if speaks:
        yield
        return
    with redirect_stdout(_Nowhere()):
        yield


class StepLine:
    """Progress of one pass: a bar on a terminal, else a line every `every` steps."""

    def __init__(self, name: str, every: int) -> None:
        self._name, self._every, self._start = name, every, time.monotonic()
        self._bar: tqdm | None = None

    def __call__(self, done: int, total: int, loss: float = math.nan) -> None:
        """Report that `done` of `total` steps are done, with the mean loss so far."""
        shown = "" if math.isnan(loss) else f"loss {loss:.4f}"
        if sys.stderr.isatty() and not isinstance(sys.stdout, _Nowhere):
            if self._bar is None:
                self._bar = tqdm(total=total, desc=self._name, initial=done - 1, leave=False)
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(done - self._bar.n)
        elif done and done % self._every == 0:
            seconds = time.monotonic() - self._start
            say(f"{self._name}: {done}/{total}  {shown}  {seconds:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
