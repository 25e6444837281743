"""RELIABILITY 6 to 8: several processes say what one says, in any number, and end together.

They are what torchrun starts (its environment and nothing else), forked from one that has imported
the program; one test goes through torchrun itself.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import write_dataset
from tests.small_runs import (
    ROOT,
    command,
    numbers_of,
    planted,
    run_of,
    runs_of,
    state_of,
    wait_until,
)

SECONDS = 240  # a machine may have other things to do
EPOCHS = 5
CLOSE = 1e-6
# 20 clips, 2 a micro-batch, at most 4 of these a step: steps of 8, 8 and 4 clips; 15 steps.
STEPS = ("--batch-size", 2, "--iter_size", 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "FRFS", clips=(20, 5, 17))


@pytest.fixture(scope="module")
def alone(program, data, tmp_path_factory):
    """Return the run folder of one process."""
    out = tmp_path_factory.mktemp("alone")
    assert program.run(*line_of(data, out)).wait() == 0
    return run_of(out)


def line_of(data, out, *more):
    return command(data, out, *STEPS, "--lr", 0.05, *more, epochs=EPOCHS)


def start_all(program, count, line, env=None):
    """Start the processes of a run; as with torchrun, the store outlives every one of them."""
    if count == 1:
        return [program.start(*line, env=env)]
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        **(env or {}),
    }
    runs = [
        program.start(*line, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    runs[0].store = store
    return runs


def run_all(program, count, line, env=None):
    """Run processes to their end; return their exit codes and what process 0 said."""
    runs = start_all(program, count, line, env)
    return [run.wait(SECONDS) for run in runs], runs


def assert_close_runs(one, other):
    """Make sure that loss, metrics and weights agree to 1e-6."""
    for first, second in zip(numbers_of(one), numbers_of(other), strict=True):
        assert first["epoch"] == second["epoch"]
        assert first["train/loss"] == pytest.approx(second["train/loss"], rel=CLOSE)
        assert first["val/loss"] == pytest.approx(second["val/loss"], rel=CLOSE)
        assert first["train/top1"] == pytest.approx(second["train/top1"])
        assert first["val/top1"] == pytest.approx(second["val/top1"])
    states = [state_of(folder)["model"] for folder in (one, other)]
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-4, atol=CLOSE), name


# ---------------------------------------------------------------- 6: the same numbers


@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_as_one_does(count, program, data, alone, tmp_path):
    codes, runs = run_all(program, count, line_of(data, tmp_path))
    assert codes == [0] * count, [run.stderr for run in runs]
    assert_close_runs(run_of(tmp_path), alone)
    assert [run.stdout for run in runs[1:]] == [""] * (count - 1)  # one of them speaks


def test_tests_say_the_same_for_every_size_and_number_of_processes(program, data, alone, tmp_path):
    """Nobody is scored twice to fill up a share: exactly the same confusion and scores."""
    lines = (data / "test_videofolder.txt").read_text(encoding="utf-8").splitlines()
    for size in (1, 2, 3, 5, 17):
        path = tmp_path / f"{size}.txt"
        path.write_text("\n".join(lines[:size]) + "\n", encoding="utf-8")
        found = []
        for count in (1, 2, 4):
            out = tmp_path / f"{size}_{count}"
            line = ["--weights", alone / "best.pth.tar", "--workers", 0, "--test_list", path,
                    "--output", out, "--save_scores", "--no_report", "--batch-size", 2]  # fmt: skip
            codes, runs = run_all(program, count, line, planted(program="test"))
            assert codes == [0] * count, [run.stderr for run in runs]
            report = (out / "test_report.json").read_text(encoding="utf-8")
            report = report.replace(str(out), "")
            scores = (out / "scores_test.npz").read_bytes()
            found.append((report, scores))
        assert found[0][1] == found[1][1] == found[2][1]
        assert found[0][0] == found[1][0] == found[2][0]


# ---------------------------------------------------------------- 7: elastic


def test_a_run_goes_on_with_any_number_of_processes(program, data, alone, tmp_path):
    """Two processes, then one, then four: stopped by a signal to one of them each time."""
    line = line_of(data, tmp_path)
    for count, nth in ((2, 4), (1, 6)):
        order = {"at": "optimizer", "nth": nth, "what": "USR1", "rank": 0}
        codes, runs = run_all(program, count, line, planted(order))
        assert codes == [143] * count, [run.stderr for run in runs]
        assert not any(run.stderr for run in runs)
    codes, runs = run_all(program, 4, line)
    assert codes == [0] * 4, [run.stderr for run in runs]
    assert "continuing" in runs[0].stdout
    assert_close_runs(run_of(tmp_path), alone)


# ---------------------------------------------------------------- 8: one of them


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_saves_and_ends_all(rank, program, data, tmp_path):
    order = {"at": "forward", "nth": 9, "what": "TERM", "rank": rank}
    codes, runs = run_all(program, 2, line_of(data, tmp_path), planted(order))
    assert codes == [143, 143], [run.stderr for run in runs]
    assert state_of(run_of(tmp_path))["step"] > 0


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("what", ["KILL", "fail", "nan"])
def test_one_that_ends_ends_the_others_and_the_run_goes_on(
    what, rank, program, data, alone, tmp_path
):
    line = line_of(data, tmp_path, "--rank_timeout", 20)
    order = {"at": "forward", "nth": 9, "what": what, "rank": rank}
    codes, runs = run_all(program, 2, line, planted(order))
    assert 0 not in codes
    said = runs[0].stderr + runs[1].stderr
    if what == "nan":
        assert codes == [2, 2]
        assert said.count("error:") == 1
        assert "must be finite" in said
    elif what == "fail":
        assert "this process fails" in said
    else:
        assert codes[rank] == -signal.SIGKILL
    if what == "KILL":
        assert runs[1 - rank].stderr.count("\n") <= 1, said
    codes, runs = run_all(program, 2, line)
    assert codes == [0, 0], [run.stderr for run in runs]
    assert len(runs_of(tmp_path)) == 1
    assert_close_runs(run_of(tmp_path), alone)


def test_one_that_hangs_is_not_waited_for_beyond_the_timeout(program, data, tmp_path):
    line = line_of(data, tmp_path, "--rank_timeout", 5)
    order = {"at": "forward", "nth": 9, "what": "hang", "rank": 1}
    runs = start_all(program, 2, line, planted(order))
    begin = time.monotonic()
    assert runs[0].wait(SECONDS) not in (0, None)
    assert runs[0].stderr.count("error:") == 1, runs[0].stderr
    assert time.monotonic() - begin < 120
    runs[1].send_signal(signal.SIGKILL)  # as torchrun does when one of them has ended
    runs[1].wait()
    saved = state_of(run_of(tmp_path))  # where the other one hung
    assert (saved["epoch"], saved["step"]) > (0, 0)


@pytest.mark.slow
def test_torchrun_starts_again_by_itself_after_a_kill(data, alone, tmp_path):
    """`--max-restarts`: all processes begin again, and go on from the newest checkpoint."""
    line = line_of(data, tmp_path, "--save_every_minutes", 0)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*torchrun, "--nproc_per_node=2", "--max-restarts=2", "tests/faulty_run.py", *line],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_until(lambda: "epoch 0:" in log.read_text("utf-8", "replace"), SECONDS)
        os.kill(_workers(process.pid)[1], signal.SIGKILL)
        assert process.wait(SECONDS) == 0, log.read_text("utf-8", "replace")
    finally:
        process.kill()
    assert "continuing" in log.read_text("utf-8", "replace")
    assert_close_runs(run_of(tmp_path), alone)


def _workers(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(n) for t in tasks for n in (t / "children").read_text("utf-8").split())
