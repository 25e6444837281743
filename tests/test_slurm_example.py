"""The SLURM example, between programs that stand in for srun, scontrol and torchrun."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "slurm_train.sh"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="there is no bash")

SRUN = """#!/bin/bash
while [[ "$1" == -* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "$@" >> "$LOGS/scontrol"; fi
"""
# What torchrun does: on a signal the run is saved, and its own exit code is 1.
TORCHRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$LOGS/torchrun"
trap 'sleep 0.3; touch "$LOGS/saved"; exit "$ON_SIGNAL"' USR1
touch "$LOGS/started"
if [ -n "$EXIT" ]; then exit "$EXIT"; fi
while true; do sleep 0.05; done
"""


class Job:
    """A job whose training ends with `exit_code`, or runs until it gets a signal."""

    def __init__(self, folder: Path, exit_code="", on_signal=1, argv=("main.py", "--a b"), **env):
        self.logs = folder / "logs"
        self.logs.mkdir()
        tools = folder / "bin"
        tools.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", TORCHRUN)):
            (tools / name).write_text(text, encoding="utf-8")
            (tools / name).chmod(0o755)
        settings = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "LOGS": str(self.logs),
            "EXIT": str(exit_code),
            "ON_SIGNAL": str(on_signal),
            "SLURM_JOB_ID": "20041",
            "SLURM_JOB_NODELIST": "node[7-8]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_GPUS_ON_NODE": "4",
            "SLURM_SUBMIT_DIR": str(folder),
        }
        settings |= {name: str(value) for name, value in env.items()}
        self.process = subprocess.Popen(
            [BASH, str(SCRIPT), *argv], env=settings, stderr=subprocess.PIPE, text=True
        )

    def signal(self, signum) -> None:
        end = time.monotonic() + 20
        while not (self.logs / "started").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.1)
        self.process.send_signal(signum)

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, err

    @property
    def requeued(self) -> list[str]:
        log = self.logs / "scontrol"
        return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_the_signal_before_the_end_saves_and_puts_the_job_back(tmp_path):
    job = Job(tmp_path)
    job.signal(signal.SIGUSR1)
    assert job.end()[0] == 0
    assert (job.logs / "saved").exists()
    assert job.requeued == ["requeue 20041"]


def test_signals_that_come_again_do_not_cut_the_saving_short(tmp_path):
    job = Job(tmp_path)
    job.signal(signal.SIGUSR1)
    job.signal(signal.SIGUSR1)
    job.end()
    assert (job.logs / "saved").exists()
    assert job.requeued == ["requeue 20041"]


def test_a_training_that_ends_is_not_put_back(tmp_path):
    job = Job(tmp_path, exit_code=0)
    assert job.end()[0] == 0
    assert not job.requeued


def test_a_training_that_ends_when_the_signal_comes_is_not_put_back(tmp_path):
    job = Job(tmp_path, on_signal=0)
    job.signal(signal.SIGUSR1)
    assert job.end()[0] == 0
    assert not job.requeued


@pytest.mark.parametrize("code", [1, 2, 137])
def test_a_failure_is_not_put_back(tmp_path, code):
    job = Job(tmp_path, exit_code=code)
    found, err = job.end()
    assert found == code
    assert f"failed with exit code {code}" in err
    assert not job.requeued


def test_a_program_that_has_saved_by_itself_is_put_back(tmp_path):
    job = Job(tmp_path, exit_code=143)
    assert job.end()[0] == 0
    assert job.requeued == ["requeue 20041"]


def test_a_job_is_put_back_only_so_often(tmp_path):
    job = Job(tmp_path, exit_code=143, SLURM_RESTART_COUNT=3, MOST_REQUEUES=3)
    code, err = job.end()
    assert code == 143
    assert "MOST_REQUEUES" in err
    assert not job.requeued


def test_somebody_who_ends_the_job_gets_it_saved_and_not_put_back(tmp_path):
    job = Job(tmp_path)
    job.signal(signal.SIGTERM)
    assert job.end()[0] == 1
    assert (job.logs / "saved").exists()
    assert not job.requeued


def test_torchrun_meets_on_the_first_machine_and_gets_the_program_as_it_is(tmp_path):
    job = Job(tmp_path, exit_code=0, SLURM_RESTART_COUNT=2)
    job.end()
    argv = (job.logs / "torchrun").read_text(encoding="utf-8").splitlines()
    assert argv[-2:] == ["main.py", "--a b"]
    for option in ("--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=node7:20041"):
        assert option in argv
    assert "--rdzv-id=20041-2" in argv


def test_torchrun_knows_the_options():
    from torch.distributed.run import get_args_parser

    known = get_args_parser().format_help()
    words = SCRIPT.read_text(encoding="utf-8").split("torchrun \\\n")[1].split('"$@"')[0].split()
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    assert len(options) == 7
    assert all(option in known for option in options)


@pytest.mark.parametrize("argv", [(), ("main.py",)])
def test_what_is_missing_is_said(tmp_path, argv):
    job = Job(tmp_path, argv=argv, **({"SLURM_JOB_ID": ""} if argv else {}))
    code, err = job.end()
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
