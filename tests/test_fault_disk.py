"""RELIABILITY 2, 9 and 11 through the programs: killed in a write, a full disk, damaged files."""

import hashlib

import pytest

from tests.conftest import write_dataset
from tests.small_runs import (
    assert_equal_runs,
    begun,
    command,
    numbers_of,
    planted,
    run_of,
    runs_of,
    state_of,
)

EPOCHS = 3
SAVES = ("--save_every_minutes", "0")


@pytest.fixture(scope="module")
def straight(program, tmp_path_factory):
    root = tmp_path_factory.mktemp("straight")
    data = write_dataset(root / "data" / "FRFS")
    assert program.run(*line_of(data, root / "out")).wait() == 0
    return data, run_of(root / "out")


def line_of(data, out, *more):
    return command(data, out, *SAVES, *more, epochs=EPOCHS)


def stopped(program, straight, out):
    """Return the folder of a run that was stopped in its second epoch, and its command."""
    line = line_of(straight[0], out)
    order = {"at": "optimizer", "nth": 2, "what": "TERM"}
    assert program.run(*line, env=planted(order)).wait() == 143
    return run_of(out), line


def sums_of(folder):
    names = ("last.pth.tar", "previous.pth.tar", "best.pth.tar", "best.safetensors")
    there = [folder / name for name in names if (folder / name).exists()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


# ---------------------------------------------------------------- 2: killed within a write


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_killed_within_each_write_it_goes_on_and_tidies_up(place, program, straight, tmp_path):
    """At every fsync and every rename of the first checkpoints, one after the other."""
    data, expected = straight
    line = line_of(data, tmp_path)
    for nth in range(4, 14):
        run = program.run(*line, env=planted({"at": place, "nth": nth, "what": "KILL"}))
        assert run.wait() in (0, -9), run.stderr
        if any(state["epoch"] == EPOCHS for state in map(state_of, begun(tmp_path))):
            break  # killed after its last checkpoint, or not at all
    else:
        assert program.run(*line).wait() == 0
    (folder,) = begun(tmp_path)
    assert_equal_runs(folder, expected)
    # Those of the last kill: a file and the manifest. Each start removes those of the one before.
    assert len(list(folder.glob(".*.partial"))) <= 2


# ---------------------------------------------------------------- 9: a full disk


@pytest.mark.parametrize("room", [5_000, 100_000, 700_000])
def test_a_disk_that_is_full_from_the_start_is_one_line(room, program, straight, tmp_path):
    data, expected = straight
    line = line_of(data, tmp_path)
    run = program.run(*line, most_bytes=room)
    assert (run.wait(), run.stderr.count("\n")) == (2, 1), run.stderr
    assert "error: " in run.stderr
    assert list(tmp_path.rglob(".*.partial")) == []
    assert program.run(*line).wait() == 0
    (folder,) = begun(tmp_path)
    assert_equal_runs(folder, expected)


def test_a_disk_that_fills_later_leaves_every_checkpoint_as_it_was(program, straight, tmp_path):
    _, expected = straight
    folder, line = stopped(program, straight, tmp_path)
    before = sums_of(folder)
    assert len(before) == 4
    run = program.run(*line, most_bytes=200_000)
    assert (run.wait(), run.stderr.count("\n")) == (2, 1), run.stderr
    assert str(folder) in run.stderr
    assert sums_of(folder) == before
    assert list(folder.glob(".*.partial")) == []
    assert program.run(*line).wait() == 0
    assert_equal_runs(folder, expected)


# ---------------------------------------------------------------- 11: damaged files


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "a flipped bit": flipped,
    "a page": lambda data: b"<html>404</html>",
    "zeros": lambda data: bytes(len(data)),
    "not there": None,
}


def damage(path, how):
    if DAMAGES[how] is None:
        path.unlink()
    else:
        data = DAMAGES[how](path.read_bytes())
        path.unlink()  # the one before may be the same file
        path.write_bytes(data)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_newest_file_is_named_and_the_one_before_it_goes_on(how, program, straight, tmp_path):
    _, expected = straight
    folder, line = stopped(program, straight, tmp_path)
    damage(folder / "last.pth.tar", how)
    run = program.run(*line)
    assert run.wait() == 0, run.stderr
    warnings = [text for text in run.stdout.splitlines() if text.startswith("WARNING: ")]
    assert any("last.pth.tar" in text for text in warnings)
    assert "previous.pth.tar at epoch" in run.stdout
    assert runs_of(tmp_path) == [folder]
    assert_equal_runs(folder, expected)


@pytest.mark.parametrize("how", ["cut", "a flipped bit", "a page"])
def test_where_both_are_bad_nothing_is_guessed(how, program, straight, tmp_path):
    """The same command says so and begins anew beside it; --resume auto stops with one line."""
    _, expected = straight
    folder, line = stopped(program, straight, tmp_path)
    for name in ("last.pth.tar", "previous.pth.tar"):
        damage(folder / name, how)
    before = sums_of(folder)
    run = program.run(*line, "--resume", "auto")
    assert (run.wait(), run.stderr.count("\n")) == (2, 1)
    assert "last.pth.tar" in run.stderr
    assert "previous.pth.tar" in run.stderr
    assert sums_of(folder) == before
    anew = program.run(*line)
    assert anew.wait() == 0, anew.stderr
    assert "WARNING: " in anew.stdout
    (other,) = set(runs_of(tmp_path)) - {folder}
    assert numbers_of(other) == numbers_of(expected)
    assert sums_of(folder) == before
