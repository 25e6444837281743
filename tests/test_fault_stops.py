"""RELIABILITY 1 and 3 to 5: killed, stopped by a signal in every phase, continued bit by bit."""

import json
import random
import signal
import time

import pytest

from tests.conftest import write_dataset
from tests.small_runs import (
    RGB,
    assert_equal_runs,
    begun,
    command,
    planted,
    run_of,
    state_of,
    wait_until,
)

EPOCHS = 3
# 7 clips, one at a time, three a step: 3 steps an epoch, the last of one clip.
STEPS = ("--batch-size", "1", "--iter_size", "3")
CODES = {"TERM": 143, "USR1": 143, "INT": 130, "KILL": -9}


@pytest.fixture(scope="module")
def straight(program, tmp_path_factory):
    """Return a data set and the folder of a run that nothing happened to."""
    root = tmp_path_factory.mktemp("straight")
    data = write_dataset(root / "data" / "FRFS", clips=(7, 3, 2))
    assert program.run(*line_of(data, root / "out")).wait() == 0
    return data, run_of(root / "out")


def line_of(data, out, *more):
    return command(data, out, *STEPS, *more, epochs=EPOCHS)


def at(place, what, nth=1, when="before"):
    return {"at": place, "nth": nth, "what": what, "when": when}


# ---------------------------------------------------------------- 1: kills


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_the_same_command_ends_with_the_same_bits(
    seed, program, straight, tmp_path
):
    """Saved after every step, so that one step is the most that is lost; every file is readable."""
    data, expected = straight
    rng = random.Random(seed)
    line = line_of(data, tmp_path, "--save_every_minutes", "0")
    done = 0
    for _ in range(6):
        place = rng.choice(["forward", "optimizer", "fsync", "replace", "evaluate", "record"])
        order = at(place, "KILL", rng.randint(1, 6), rng.choice(["before", "after"]))
        code = program.run(*line, env=planted(order)).wait()
        assert code in (0, -9)
        for folder in begun(tmp_path):
            state = state_of(folder)
            steps = 3 * state["epoch"] + state["step"]
            assert steps >= done
            done = steps
        is_done = any(state_of(folder)["epoch"] == EPOCHS for folder in begun(tmp_path))
        if is_done:  # killed after its last checkpoint, or not at all
            break
    assert is_done or program.run(*line).wait() == 0
    (folder,) = begun(tmp_path)
    assert_equal_runs(folder, expected)


def test_a_kill_loses_at_most_the_step_since_the_last_checkpoint(program, straight, tmp_path):
    data, _ = straight
    line = line_of(data, tmp_path, "--save_every_minutes", "0")
    assert program.run(*line, env=planted(at("optimizer", "KILL", 5))).wait() == -9
    state = state_of(run_of(tmp_path))
    assert (state["epoch"], state["step"]) == (1, 1)  # four steps were done, of three an epoch


# ---------------------------------------------------------------- 3: signals


# What is signalled when, and the steps that are done by then; None: before there is anything.
PHASES = {
    "building": (at("build", ""), None),
    "compile": (at("compile", ""), None),
    "data wait": (at("data", "", 4), 0),
    "forward": (at("forward", "", 5), 1),
    "inside of the optimiser": (at("optimizer", "", 2), 2),
    "after the optimiser": (at("optimizer", "", 2, "after"), 2),
    "evaluation": (at("evaluate", "", 2), 6),
    "while saving": (at("fsync", "", 3), 0),
    "after saving": (at("save", "", 1, "after"), 0),
    "while the best is saved": (at("save_best", ""), 3),
}


@pytest.mark.parametrize("name", ["TERM", "INT", "USR1"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_saves_and_the_same_command_continues(
    phase, name, program, straight, tmp_path
):
    data, expected = straight
    order, least = PHASES[phase]
    # Within five minutes nothing is due but what a signal saves; the best is written with it.
    more = ("--save_every_minutes", "0") if order["at"] == "save_best" else ()
    line = line_of(data, tmp_path, *more)
    stopped = program.run(*line, env=planted({**order, "what": name}))
    assert stopped.wait() == CODES[name], stopped.stderr
    assert stopped.stderr == ""
    if least is not None:
        assert "the same command continues" in stopped.stdout
        state = state_of(run_of(tmp_path))
        assert 3 * state["epoch"] + state["step"] >= least
        assert not list(run_of(tmp_path).glob(".*.partial"))
    again = program.run(*line)
    assert again.wait() == 0, again.stderr
    assert least is None or "continuing" in again.stdout
    assert_equal_runs(run_of(tmp_path), expected)


def test_a_second_signal_ends_at_once_and_corrupts_nothing(program, straight, tmp_path):
    data, expected = straight
    line = line_of(data, tmp_path, "--save_every_minutes", "0")
    run = program.start(*line, env=planted(at("evaluate", "hang", 2)))
    wait_until(lambda: "epoch 0:" in run.stdout)
    time.sleep(2)  # it hangs in the second evaluation, even on a busy machine
    run.send_signal(signal.SIGTERM)
    time.sleep(1.3)  # within a second it would be the same signal, sent to the group and to it
    assert run.poll() is None
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) in (143, -signal.SIGTERM)
    assert program.run(*line).wait() == 0
    assert_equal_runs(run_of(tmp_path), expected)


def test_a_signal_while_workers_hang_saves_and_the_same_command_continues(
    program, straight, tmp_path
):
    data, _ = straight
    line = command(data, tmp_path, *RGB, *STEPS, "--workers", 2, epochs=1)
    hanging = planted({"at": "sample", "nth": 3, "what": "hang"}, program="rgb")
    run = program.start(*line, env=hanging)
    wait_until(lambda: bool(list(tmp_path.rglob("last.pth.tar"))))
    time.sleep(1)
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 143, run.stderr
    assert run.stderr == ""
    again = program.run(*line, env=planted(program="rgb"))
    assert again.wait() == 0, again.stderr
    assert "continuing" in again.stdout


# ---------------------------------------------------------------- 4, 5: bit by bit


def test_stopped_at_every_step_it_ends_with_the_same_bits(program, straight, tmp_path):
    """Every step of every epoch, first and last, before and after evaluation: one run each."""
    data, expected = straight
    moments = [at("optimizer", "TERM", nth, "after") for nth in range(1, 3 * EPOCHS + 1)]
    moments += [at("forward", "TERM", nth) for nth in (1, 2, 3, 7, 8, 21)]  # amid accumulation
    moments += [at("evaluate", "TERM", 1), at("evaluate", "TERM", 3)]
    moments += [at("evaluate", "TERM", nth, "after") for nth in (1, 2)]
    for number, order in enumerate(moments):
        line = line_of(data, tmp_path / str(number))
        assert program.run(*line, env=planted(order)).wait() == 143, order
        assert program.run(*line).wait() == 0
        assert_equal_runs(run_of(tmp_path / str(number)), expected)


@pytest.mark.parametrize("counts", [("0", "2", "1"), ("2", "0", "4")])
def test_the_number_of_workers_may_change_at_every_stop(counts, program, straight, tmp_path):
    data, expected = straight
    for nth, workers in zip((2, 3), counts, strict=False):
        line = line_of(data, tmp_path, "--workers", workers)
        assert program.run(*line, env=planted(at("optimizer", "TERM", nth))).wait() == 143
    assert program.run(*line_of(data, tmp_path, "--workers", counts[-1])).wait() == 0
    assert_equal_runs(run_of(tmp_path), expected)


@pytest.mark.parametrize("fusion", ["--early_fusion_poses", "--late_fusion_poses_attention"])
def test_networks_of_pixels_are_continued_bit_by_bit_too(fusion, program, straight, tmp_path):
    data, _ = straight
    lines = [
        command(data, tmp_path / name, *RGB, fusion, *STEPS, "--rand_augment") for name in "ab"
    ]
    whole = program.run(*lines[0], env=planted(program="rgb"))
    assert whole.wait() == 0, whole.stderr
    order = at("forward", "TERM", 5)
    assert program.run(*lines[1], env=planted(order, program="rgb")).wait() == 143
    last = program.run(*lines[1], "--workers", "1", env=planted(program="rgb"))
    assert last.wait() == 0, last.stderr
    assert_equal_runs(run_of(tmp_path / "a"), run_of(tmp_path / "b"))


def test_batches_are_equal_for_any_number_of_workers(program, straight, tmp_path):
    data, expected = straight
    for workers in ("1", "4"):
        line = line_of(data, tmp_path / workers, "--workers", workers)
        assert program.run(*line).wait() == 0
        assert_equal_runs(run_of(tmp_path / workers), expected)
    assert json.loads((expected / "args.json").read_text(encoding="utf-8"))["workers"] == 0
