"""Our programs as child processes: their output in a file, and none of them outlives its parent."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
_END_SECONDS = 120.0
_POLL_SECONDS = 0.05
_MOST_TAIL = 2**16
# A child in a session of its own gets no Ctrl-C of a terminal, so that it is asked to stop once;
# and it ends with its parent, however that ends: a new parent may start the same work again.
_WITH_PARENT = """
import os, runpy, sys, threading, time
def watch(parent):
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)
threading.Thread(target=watch, args=(int(sys.argv[1]),), daemon=True).start()
sys.argv = sys.argv[2:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Child:
    """A running program.

    Attributes:
        process: it.
        log: file of its output, added to what is there.
    """

    process: subprocess.Popen
    log: Path

    @classmethod
    def start(cls, command: Sequence[str], log: Path, parent: int) -> Self:
        """Start a program of ours.

        Args:
            command: its file below the root of the project, and its options.
            log: file of its output.
            parent: id of this process, with which it ends.
        """
        script, *options = command
        wrapped = ["-c", _WITH_PARENT, str(parent), str(ROOT / script), *options]
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *wrapped],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log)

    def poll(self) -> int | None:
        """Return its exit code, None as long as it runs."""
        return self.process.poll()

    def reason(self, code: int) -> str:
        """Say in a line why it ended with `code`, which is not 0."""
        if code < 0:
            with suppress(ValueError):
                return f"ended by {signal.Signals(-code).name}"
            return f"ended by signal {-code}"
        text = last_line(self.log).removeprefix("error: ")
        return text or f"ended with exit code {code}"


def last_line(path: Path) -> str:
    """Return the last line of a text file that says something; "" if none does."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _MOST_TAIL))
        lines = file.read().decode("utf-8", "replace").split("\n")
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")


def end(children: Iterable[Child], signum: int = signal.SIGTERM) -> None:
    """Ask programs to stop and wait until they have; kill those that take minutes."""
    alive = [child for child in children if child.poll() is None]
    for child in alive:
        child.process.send_signal(signum)
    last = time.monotonic() + _END_SECONDS
    while any(child.poll() is None for child in alive) and time.monotonic() < last:
        time.sleep(_POLL_SECONDS)
    for child in alive:
        child.process.kill()
        child.process.wait()
