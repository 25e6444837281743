"""RELIABILITY 25 through the programs: a worker that is killed, fails or hangs names its clip."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import write_dataset
from tests.small_runs import RGB, command, planted, run_of, state_of, wait_until

SECONDS = 60

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
CLIP = re.compile(r"(train|val)_\d")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "FRFS", clips=(6, 3, 2))


def line_of(data, out, *more):
    return command(data, out, *RGB, "--workers", 2, *more)


def in_a_worker(what, nth=2):
    """Plant something in the nth sample that a worker loads, of every worker."""
    return planted({"at": "sample", "nth": nth, "what": what}, program="rgb")


def children_of(pid):
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(n) for t in tasks for n in (t / "children").read_text("utf-8").split()]


def refusal(run, seconds):
    """Return the line with which a run ends, in time and with its workers."""
    begin = time.monotonic()
    assert run.wait(SECONDS) == 2, run.stderr
    assert time.monotonic() - begin < seconds
    assert run.stderr.count("\n") == 1, run.stderr
    assert CLIP.search(run.stderr), run.stderr
    return run.stderr


def test_a_worker_that_is_killed_names_its_clip(program, data, tmp_path):
    run = program.start(*line_of(data, tmp_path), env=in_a_worker("KILL"))
    said = refusal(run, SECONDS)
    assert "killed" in said
    assert "signal 9" in said
    assert "--workers" in said


def test_a_worker_that_hangs_names_its_clip(program, data, tmp_path):
    line = line_of(data, tmp_path, "--worker_timeout", "3")
    said = refusal(program.start(*line, env=in_a_worker("hang")), SECONDS)
    assert "3 s" in said
    assert state_of(run_of(tmp_path))["epoch"] == 0  # what was done is saved


def test_by_default_a_worker_that_hangs_is_told_within_a_minute(data, tmp_path):
    import opts

    args = opts.parse_train_args(command(data, tmp_path))
    assert 0 < args.worker_timeout <= SECONDS


def test_an_error_of_ours_in_a_worker_keeps_its_traceback_and_names_the_clip(
    program, data, tmp_path
):
    run = program.start(*line_of(data, tmp_path), env=in_a_worker("fail"))
    assert run.wait(SECONDS) == 1
    assert "this process fails" in run.stderr
    assert CLIP.search(run.stderr)


def test_a_worker_killed_from_outside_is_one_line(program, data, tmp_path):
    run = program.start(*line_of(data, tmp_path, "--epochs", 1000), env=planted(program="rgb"))
    wait_until(lambda: "epoch 0:" in run.stdout)
    os.kill(children_of(run.pid)[0], signal.SIGKILL)
    assert run.wait(SECONDS) == 2, run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert "killed" in run.stderr


def test_after_a_killed_worker_the_same_command_goes_on(program, data, tmp_path):
    line = line_of(data, tmp_path)
    assert program.run(*line, env=in_a_worker("KILL", nth=3)).wait() == 2
    again = program.run(*line, env=planted(program="rgb"))
    assert again.wait() == 0, again.stderr
    assert "continuing" in again.stdout
    assert state_of(run_of(tmp_path))["epoch"] == 2


def test_no_worker_outlives_a_killed_program(program, data, tmp_path):
    run = program.start(*line_of(data, tmp_path, "--epochs", 1000), env=planted(program="rgb"))
    wait_until(lambda: "epoch 0:" in run.stdout)
    wait_until(lambda: len(children_of(run.pid)) >= 2)
    workers = children_of(run.pid)
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in workers), 60)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
