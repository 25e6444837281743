"""The one error type for what a user can mend, and how a script ends because of it."""

import sys
from collections.abc import Callable

_WORKER_PREFIX = "errors.InputError: "


class InputError(ValueError):
    """Something that a user can mend.

    The message is one line: the thing, what it is, what it should be, and the way out.
    """


def one_line(error: InputError) -> str:
    """Return the message of `error` without the traceback that a loader worker wraps around it."""
    last = str(error).strip().splitlines()[-1]
    return last.removeprefix(_WORKER_PREFIX)


def run_script(main: Callable[[], object]) -> None:
    """Run a script: exit 0 on success, 2 with one line on `InputError`, 130 on Ctrl-C."""
    try:
        main()
    except InputError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
