"""RELIABILITY 13, 14 and 24: numbers that are not finite, and too little memory on the device.

Out of memory is planted, as no GPU is needed then; what follows is the real program.
"""

import json
import math

import pytest
import torch

import checkpoints
import main_only_pose
import session
import test_models as test_script
from errors import InputError
from tests.conftest import write_dataset
from tests.small_runs import (
    RGB,
    assert_equal_runs,
    command,
    numbers_of,
    planted,
    run_of,
    same,
    state_of,
)

EPOCHS = 2
STEPS = ("--batch-size", "2", "--iter_size", "2")  # 7 clips: 2 steps an epoch, 4 micro-batches
CLIPS = {f"train_{number}" for number in range(7)}


@pytest.fixture(scope="module")
def straight(program, tmp_path_factory):
    root = tmp_path_factory.mktemp("straight")
    data = write_dataset(root / "data" / "FRFS", clips=(7, 3, 2))
    assert program.run(*line_of(data, root / "out")).wait() == 0
    return data, run_of(root / "out")


def line_of(data, out, *more):
    return command(data, out, *STEPS, *more, epochs=EPOCHS)


def notes_of(folder):
    text = (folder / "nonfinite.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def is_finite(folder):
    state = state_of(folder)
    tensors = [*state["model"].values()]
    tensors += [t for kept in state["optimizer"]["state"].values() for t in kept.values()]
    return all(torch.isfinite(t).all() for t in tensors if isinstance(t, torch.Tensor))


# ---------------------------------------------------------------- 13: loss, gradient


@pytest.mark.parametrize("what", ["nan", "nan gradient"])
def test_a_step_that_is_not_finite_is_not_taken_and_its_clips_are_written_down(
    what, program, straight, tmp_path
):
    data, _ = straight
    line = line_of(data, tmp_path, "--save_every_minutes", "0")
    # The fourth micro-batch belongs to the second step of the first epoch.
    run = program.run(*line, env=planted({"at": "forward", "nth": 4, "what": what}))
    assert (run.wait(), run.stderr.count("\n")) == (2, 1), run.stderr
    assert "epoch 0, step 1" in run.stderr
    assert "--skip_nonfinite" in run.stderr
    (note,) = notes_of(run_of(tmp_path))
    assert (note["epoch"], note["step"], note["left_out"]) == (0, 1, False)
    named = {name for process in note["processes"] for name in process["clips"]}
    assert len(named) == 3
    assert named < CLIPS
    assert all(name in run.stderr for name in named)
    folder = run_of(tmp_path)
    assert is_finite(folder)
    assert (state_of(folder)["epoch"], state_of(folder)["step"]) == (0, 1)


def test_statistics_of_batch_norm_do_not_see_the_bad_step(program, straight, tmp_path):
    data, _ = straight
    lines = [command(data, tmp_path / name, *RGB, *STEPS, epochs=1) for name in "ab"]
    assert program.run(*lines[0], env=planted(program="rgb")).wait() == 0
    order = {"at": "forward", "nth": 4, "what": "nan"}
    assert program.run(*lines[1], env=planted(order, program="rgb")).wait() == 2
    assert program.run(*lines[1], env=planted(program="rgb")).wait() == 0
    assert_equal_runs(run_of(tmp_path / "a"), run_of(tmp_path / "b"))


@pytest.mark.parametrize("what", ["nan", "nan gradient"])
def test_the_same_command_goes_on_from_before_the_bad_step(what, program, straight, tmp_path):
    """Whatever it was has passed: the run ends as one that it did not befall."""
    data, expected = straight
    line = line_of(data, tmp_path)
    run = program.run(*line, env=planted({"at": "forward", "nth": 4, "what": what}))
    assert run.wait() == 2
    assert program.run(*line).wait() == 0
    assert same(state_of(run_of(tmp_path))["model"], state_of(expected)["model"])
    assert numbers_of(run_of(tmp_path)) == numbers_of(expected)


def test_as_many_steps_as_allowed_are_left_out(program, straight, tmp_path):
    data, expected = straight
    plants = [{"at": "forward", "nth": nth, "what": "nan"} for nth in (1, 5)]
    enough = program.run(
        *line_of(data, tmp_path / "enough", "--skip_nonfinite", "2"), env=planted(*plants)
    )
    assert enough.wait() == 0, enough.stderr
    folder = run_of(tmp_path / "enough")
    assert [note["left_out"] for note in notes_of(folder)] == [True, True]
    assert is_finite(folder)
    assert all(math.isfinite(v) for line in numbers_of(folder) for v in line.values())
    assert not same(state_of(folder)["model"], state_of(expected)["model"])
    line = line_of(data, tmp_path / "few", "--skip_nonfinite", "1")
    few = program.run(*line, env=planted(*plants))
    assert (few.wait(), few.stderr.count("\n")) == (2, 1)
    folder = run_of(tmp_path / "few")
    assert [note["left_out"] for note in notes_of(folder)] == [True, False]
    assert is_finite(folder)


# ---------------------------------------------------------------- 14: the best


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_best_is_never_a_model_that_is_not_finite(value, straight, tmp_path, monkeypatch):
    """A weight that the validation does not see goes bad: the best one before it stays."""
    data, _ = straight
    real, kept = session.evaluate, []

    def evaluate(model, *given, **named):
        scores = real(model, *given, **named)
        if kept:
            with torch.no_grad():
                next(model.parameters()).flatten()[0] = value
        kept.append(scores)
        return scores

    monkeypatch.setattr(session, "evaluate", evaluate)
    monkeypatch.setattr(session.TrainState, "rank", lambda *_: True)
    line = line_of(data, tmp_path, "--save_every_minutes", "0")
    with pytest.raises(InputError) as caught:
        main_only_pose.main(line)
    assert len(str(caught.value).splitlines()) == 1
    best = torch.load(run_of(tmp_path) / "best.pth.tar", weights_only=True)
    assert all(torch.isfinite(t).all() for t in best["model"].values())
    read = checkpoints.CheckpointFolder(run_of(tmp_path)).read_last()
    assert read.content["epoch"] <= 1


# ---------------------------------------------------------------- 24: memory


def test_too_little_memory_halves_what_is_computed_at_once_and_says_so(program, straight, tmp_path):
    """The effective batch, the learning rate and, without batch norm, every number stay."""
    data, expected = straight
    order = {"at": "forward", "nth": 2, "what": "oom"}
    run = program.run(*line_of(data, tmp_path), env=planted(order))
    assert run.wait() == 0, run.stderr
    assert run.stdout.count("WARNING: not enough memory for 2 clips at once") == 1
    assert "the effective batch and the learning rate stay" in run.stdout
    folder = run_of(tmp_path)
    assert state_of(folder)["micro_batch"] == 1
    for one, other in zip(numbers_of(folder), numbers_of(expected), strict=True):
        assert one["lr"] == other["lr"]
        assert one["epoch"] == other["epoch"]
        assert all(math.isfinite(number) for number in one.values())
    again = program.run(*line_of(data, tmp_path / "again"), env=planted(order))
    assert again.wait() == 0
    assert same(state_of(run_of(tmp_path / "again"))["model"], state_of(folder)["model"])


def test_too_little_memory_for_one_clip_is_advice(program, straight, tmp_path):
    data, _ = straight
    orders = [{"at": "forward", "nth": nth, "what": "oom"} for nth in (2, 3)]
    run = program.run(*line_of(data, tmp_path), env=planted(*orders))
    assert (run.wait(), run.stderr.count("\n")) == (2, 1)
    assert "there is not enough memory for a single clip: lower --num_segments" in run.stderr
    assert is_finite(run_of(tmp_path))


def test_too_little_memory_in_evaluation_tries_smaller_parts(
    straight, tmp_path, monkeypatch, capsys
):
    """Validation and tests give the same numbers, and say that they were cut."""
    data, expected = straight
    best = ["--weights", str(expected / "best.pth.tar"), "--workers", "0", "--batch-size", "2"]
    whole = test_script.main([*best, "--output", str(tmp_path / "whole")])
    capsys.readouterr()
    real, sizes = torch.nn.Module.__call__, []

    def call(module, *given, **named):
        if type(module).__name__ == "ClipClassifier":
            sizes.append(len(given[0]))
            if len(given[0]) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory (planted)")
        return real(module, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "__call__", call)
    parts = test_script.main([*best, "--output", str(tmp_path / "parts")])
    assert max(sizes) > 1
    assert parts.confusion == whole.confusion
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert "memory" in capsys.readouterr().out
