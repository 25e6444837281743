"""Programs under test as processes: forked from one that has imported them, or by plain commands.

Importing a program takes seconds, forking it milliseconds. What is forked is killed, signalled and
waited for as any process; it leads a process group of its own. Several processes of one training
get the environment that `torchrun` gives.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from torch.distributed import TCPStore

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("runner.py")
PROGRAMS = ("main", "main_only_pose", "test_models")
LIMIT = 120.0  # seconds that a program may take before it counts as hanging
_POLL = 0.002


class Hanging(Exception):  # noqa: N818 - it is a finding
    """A program did not end in time; it was killed."""


@dataclass
class Running:
    """A program under test: one process, or the processes of one training in order of rank.

    Attributes:
        pids: of the processes.
        log: file of what they print.
        store: through which several processes find each other; torchrun keeps it.
        codes: exit codes of those that have ended, by their ids.
    """

    launcher: "Launcher"
    pids: tuple[int, ...]
    log: Path
    store: TCPStore | None = None
    codes: dict[int, int] = field(default_factory=dict)

    def poll(self) -> bool:
        """Say whether all processes have ended."""
        for pid in self.pids:
            if pid not in self.codes:
                code = self.launcher.ask(poll=pid)
                if code is not None:
                    self.codes[pid] = code
        return len(self.codes) == len(self.pids)

    def send(self, signum: int, whole_group: bool = False, ranks: Sequence[int] = ()) -> None:
        """Signal the processes (or some of them) that have not been waited for."""
        for rank, pid in enumerate(self.pids):
            if pid not in self.codes and (not ranks or rank in ranks):
                with suppress(ProcessLookupError):
                    (os.killpg if whole_group else os.kill)(pid, signum)

    def wait(self, seconds: float = LIMIT) -> list[int]:
        """Return the exit codes in order of rank, negative after a signal.

        Raises:
            Hanging: they have not ended within `seconds`.
        """
        end = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > end:
                self.end()
                raise Hanging(f"still running after {seconds:.0f} s: {self.tail()}")
            time.sleep(_POLL)
        return [self.codes[pid] for pid in self.pids]

    def end(self) -> None:
        """Kill what is left, loader processes too."""
        self.send(signal.SIGKILL, whole_group=True)
        while not self.poll():
            time.sleep(_POLL)

    def text(self) -> str:
        """Return what was printed."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def tail(self) -> str:
        """Return the last lines of it as one."""
        return " | ".join(self.text().strip().splitlines()[-3:])


class Launcher:
    """Starts forks of the programs.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._server = subprocess.Popen(
            [sys.executable, "-B", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )
        self._answer()

    def start(
        self,
        program: str,
        options: Sequence[object],
        orders: Mapping[str, Any] | None = None,
        processes: int = 1,
    ) -> Running:
        """Start a program, with what is planted in it.

        Args:
            program: one of `PROGRAMS`.
            options: of its command line.
            orders: see `hooks.install`.
            processes: of one training, as `torchrun` starts them.
        """
        log = self.new_file("log")
        common = {
            "program": program,
            "options": [str(option) for option in options],
            "orders": dict(orders or {}),
            "log": str(log),
        }
        store, places = None, [dict[str, str]()]
        if processes > 1:
            # As by torchrun, which outlives the processes: who ends can still leave a note there.
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            places = list(torchrun_environments(processes, store.port))
        pids = tuple(self.ask(start={**common, "environment": place}) or 0 for place in places)
        return Running(self, pids, log, store)

    def run(self, program: str, options: Sequence[object], **choices: Any) -> Running:
        """Start a program and wait for its end."""
        running = self.start(program, options, **choices)
        running.wait()
        return running

    def new_file(self, suffix: str) -> Path:
        """Return a name for a file that is not there yet."""
        self._count += 1
        return self.folder / f"{self._count:05d}.{suffix}"

    def close(self) -> None:
        """Kill what still runs."""
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.close()
        self._server.wait(30)
        stdout.close()

    def ask(self, **order: Any) -> int | None:
        """Send an order to the process that forks; return its answer."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return self._answer()

    def _answer(self) -> int | None:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that forks has ended with {self._server.wait(30)}")
        return json.loads(line)


@contextmanager
def launching(folder: Path) -> Iterator[Launcher]:
    """Keep a launcher as long as it is of use."""
    launcher = Launcher(folder)
    try:
        yield launcher
    finally:
        launcher.close()


def torchrun_environments(processes: int, port: int) -> Iterator[dict[str, str]]:
    """Yield what `torchrun --standalone` sets for each of its processes; `port` is of its store."""
    for rank in range(processes):
        yield {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": "chaos",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": "0",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }


def plain_command(
    program: str, options: Sequence[object], orders_file: Path, processes: int = 1
) -> list[str]:
    """Return the command that starts a program anew, by `torchrun` where it is several processes.

    Args:
        program: one of `PROGRAMS`.
        options: of its command line.
        orders_file: JSON of what is planted; each process leaves its exit code beside it.
        processes: of one training.
    """
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone"]
        # Without this, SIGUSR1 would end torchrun itself at once.
        launch += ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]
        launch += [f"--nproc_per_node={processes}"]
    return [*launch, str(RUNNER), str(orders_file), program, *map(str, options)]


# ---------------------------------------------------------------- the process that forks


def serve() -> None:
    """Fork programs as ordered, until there are no more orders."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who gives the orders
    sys.path.insert(0, str(ROOT))
    for name in (*PROGRAMS, "benchmarks.faults.hooks"):
        importlib.import_module(name)
    importlib.import_module("benchmarks.faults.runs").warm_up()
    _reply(0)
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            code = _exit_code(order["poll"])
            alive -= {order["poll"]} if code is not None else set()
            _reply(code)
        elif pid := os.fork():
            with suppress(OSError):  # the child does so too: whoever comes first
                os.setpgid(pid, pid)
            alive.add(pid)
            _reply(pid)
        else:
            _become(order["start"])
    for pid in alive:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os._exit(0)  # taking down what was imported takes seconds


def _reply(value: int | None) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _exit_code(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _become(order: Mapping[str, Any]) -> NoReturn:
    """Be the program."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(file, number)
    os.environ.update(order["environment"])
    os._exit(run_program(order["program"], order["options"], order["orders"]))


def run_program(program: str, options: Sequence[str], orders: Mapping[str, Any]) -> int:
    """Run a program in this process with what is planted in it; return its exit code."""
    code = 1
    try:
        importlib.import_module("benchmarks.faults.hooks").install(orders)
        module = importlib.import_module(program)
        importlib.import_module("errors").run_script(lambda: module.main(list(options)))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - told by the exit code, as by the interpreter
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve()
