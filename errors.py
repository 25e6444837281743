"""The one error type for what a user can mend, and how a script ends because of it."""

import os
import signal
import sys
from collections.abc import Callable

_WORKER_PREFIX = "errors.InputError: "


class InputError(ValueError):
    """Something that a user can mend.

    The message is one line: the thing, what it is, what it should be, and the way out.
    """


class Interrupted(BaseException):  # noqa: N818 - it is an event, not a fault
    """A signal asked the program to stop; `signum` says which.

    It may be raised anywhere, also inside of libraries, whose `except Exception` must not keep it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """Return 130 or 143; job systems announce the end by SIGUSR1, and mean SIGTERM."""
        return 128 + (signal.SIGINT if self.signum == signal.SIGINT else signal.SIGTERM)


def one_line(error: InputError) -> str:
    """Return the message of `error` without the traceback that a loader worker wraps around it."""
    last = str(error).strip().splitlines()[-1]
    return last.removeprefix(_WORKER_PREFIX)


def printable(text: object) -> str:
    """Return text as a terminal can show it: names of files may hold anything but / and NUL."""
    escaped = (c if c.isprintable() else ascii(c)[1:-1] for c in str(text))
    return "".join(escaped)


def csv_cell(text: object) -> str:
    """Return text as a cell of a table that a spreadsheet may open: none of it is a formula."""
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(("=", "+", "-", "@")) else shown


def run_script(main: Callable[[], object]) -> None:
    """Run a script and end it as users and job systems expect.

    Exit codes: 0 on success; 2 with one line on an `InputError` or when a file cannot be read or
    written; 130 after SIGINT, 143 after SIGTERM and SIGUSR1.
    """
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        _end(one_line(error))
    except Interrupted as event:
        sys.exit(event.exit_code)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does; nothing may be flushed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except MemoryError as error:
        _end(f"there is not enough memory ({error or 'none is left'}): ask for less at a time")
    except OSError as error:
        # With two names, as of a copy, the second is the one that is written.
        name = error.filename2 or error.filename or "a file that is written"
        _end(f"{name}: {error.strerror or error}")


def _end(line: str) -> None:
    sys.stderr.write(f"error: {printable(line)}\n")
    sys.exit(2)
