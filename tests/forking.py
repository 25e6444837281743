"""Programs forked from one process that has imported them, for tests that start and kill dozens.

Importing a program takes seconds, forking it milliseconds. What is forked is killed, signalled and
waited for as any process; it leads a process group of its own.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Started:
    """A run of the program; stdout and stderr go to files."""

    def __init__(self, launcher: "Launcher", pid: int, out: Path, err: Path) -> None:
        self.pid = pid
        self._launcher, self._out, self._err = launcher, out, err
        self._code: int | None = None

    @property
    def stdout(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def send_signal(self, signum: int, whole_group: bool = False) -> None:
        if self.poll() is None:  # until it is waited for, its id is its own
            (os.killpg if whole_group else os.kill)(self.pid, signum)

    def poll(self) -> int | None:
        """Return the exit code as subprocess does; None as long as it runs."""
        if self._code is None:
            self._code = self._launcher.ask(poll=self.pid)
        return self._code

    def wait(self, timeout: float = 60) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(signal.SIGKILL, whole_group=True)
                raise TimeoutError(f"still running after {timeout} s: {self.stderr}")
            time.sleep(0.002)
        return self._code


class Launcher:
    """Starts forks of a module that has `main(argv)`.

    Args:
        module: its name, as imported from the root of the project.
        folder: for what the program prints.
    """

    def __init__(self, module: str, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._server = subprocess.Popen(
            [sys.executable, "-B", __file__, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )
        self._answer()

    def start(
        self,
        *argv: object,
        env: dict | None = None,
        most_bytes: int = -1,
        cwd: Path | None = None,
    ) -> Started:
        """Start the program; `most_bytes` is the largest file that it can write."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        arguments = [str(argument) for argument in argv]
        places = {"out": str(out), "err": str(err), "cwd": str(cwd or Path.cwd())}
        pid = self.ask(start=arguments, **places, env=env or {}, most=most_bytes)
        return Started(self, pid, out, err)

    def run(self, *argv: object, **choices) -> Started:
        """Start the program and wait for its end."""
        started = self.start(*argv, **choices)
        started.wait()
        return started

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()

    def ask(self, **order: object) -> int | None:
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> int | None:
        line = self._server.stdout.readline()
        assert line, f"the launcher has ended with {self._server.wait(30)}"
        return json.loads(line)


@contextmanager
def launching(module: str, folder: Path) -> Iterator[Launcher]:
    """Keep a launcher as long as it is of use."""
    launcher = Launcher(module, folder)
    try:
        yield launcher
    finally:
        launcher.close()


# ---------------------------------------------------------------- the process that forks


def serve(name: str) -> None:
    sys.path.insert(0, str(ROOT))
    module = importlib.import_module(name)
    answer(0)
    alive = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            code = exit_code(order["poll"])
            alive -= {order["poll"]} if code is not None else set()
            answer(code)
        elif pid := os.fork():
            with suppress(OSError):  # the child does so too: whoever comes first
                os.setpgid(pid, pid)
            alive.add(pid)
            answer(pid)
        else:
            become(module, order)
    for pid in alive:
        os.killpg(pid, signal.SIGKILL)
    os._exit(0)  # taking down what was imported takes seconds


def answer(value: int | None) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def exit_code(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def become(module, order: dict) -> None:
    """Be the program; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        # A shell starts what runs in its background with Ctrl-C ignored, and all children inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, path in enumerate((os.devnull, order["out"], order["err"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags), number)
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        if order["most"] >= 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["most"], order["most"]))
        importlib.import_module("errors").run_script(lambda: module.main(order["start"]))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - told by the exit code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
