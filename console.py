"""Lines and progress bars for the user: the only file that prints.

Apart from `reports.py`, whose libraries take seconds to load, so that a program that needs none of
them answers at once.
"""

import io
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Self

from tqdm import tqdm


def say(text: str) -> None:
    """Print a line for the user, above a progress bar if there is one.

    Names of files need not be text, and not every place that output goes to takes all letters (a
    pipe on Windows, the C locale): what cannot be written is printed as escapes.
    """
    encoding = sys.stdout.encoding or "utf-8"
    tqdm.write(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stdout)
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print a line that must not be missed: red on a terminal."""
    line = f"WARNING: {text}"
    say(f"\033[31m{line}\033[0m" if sys.stdout.isatty() else line)


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
