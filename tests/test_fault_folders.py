"""RELIABILITY 10 and 26: places that cannot be written, used by two, or deleted meanwhile."""

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reports import RunFolder
from tests.small_runs import command, numbers_of, run_of, runs_of, wait_until

LONG = 100_000  # epochs: it runs until it is stopped


def refusal(program, line, **choices):
    """Return the one line with which the program ends."""
    run = program.run(*line, **choices)
    assert (run.wait(), run.stderr.count("\n")) == (2, 1), run.stderr
    assert "epoch 0" not in run.stdout
    return run.stderr


def begun(program, line, out):
    """Start a run that goes on and on, and return it when it has done an epoch."""
    run = program.start(*line)
    wait_until(lambda: run.poll() is not None or "epoch 0:" in run.stdout)
    assert run.poll() is None, run.stderr
    return run, run_of(out)


# ---------------------------------------------------------------- 10: places


def place_of(kind, tmp_path):
    path = tmp_path / "out"
    if kind == "file":
        path.write_text("mine")
    elif kind == "below a file":
        path.write_text("mine")
        path /= "deeper"
    elif kind == "its folder is a file":
        path.mkdir()
        (path / "experiments").write_text("mine")
    elif kind == "link to nowhere":
        path.symlink_to(tmp_path / "nowhere" / "deep")
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:  # a file system that takes no files from anybody
        path.symlink_to("/proc/self")
    return path


@pytest.mark.parametrize(
    "kind",
    ["file", "below a file", "its folder is a file", "link to nowhere", "device", "read-only"],
)
def test_a_place_that_cannot_be_written_is_refused_before_training(
    kind, program, dataset, tmp_path
):
    path = place_of(kind, tmp_path)
    said = refusal(program, command(dataset, path))
    assert str(path) in said
    assert "choose another --experiment_path" in said
    kept = path if kind == "file" else tmp_path / "out" / "experiments"
    assert kind not in ("file", "its folder is a file") or kept.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_rights_is_refused_before_training(program, dataset, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    said = refusal(program, command(dataset, out))
    assert "Permission denied" in said


def test_a_place_that_is_not_there_is_made(program, dataset, tmp_path):
    out = tmp_path / "a" / "b" / "c"
    assert program.run(*command(dataset, out, epochs=1)).wait() == 0
    assert (run_of(out) / "last.pth.tar").is_file()


def test_a_disk_without_any_room_is_refused_before_training(program, dataset, tmp_path):
    # What the program says needs some room too: it goes into files.
    said = refusal(program, command(dataset, tmp_path / "out"), most_bytes=2000)
    assert str(tmp_path / "out") in said
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".partial"] == []


@pytest.mark.parametrize("deep", ["x" * 300, "/".join(["y" * 200] * 30), "/".join(["z"] * 1500)])
def test_a_place_that_no_disk_has_is_refused_before_training(deep, program, dataset, tmp_path):
    said = refusal(program, command(dataset, tmp_path / deep))
    assert str(tmp_path) in said
    assert runs_of(tmp_path) == []


# ---------------------------------------------------------------- 26: while it runs


def test_a_second_run_in_the_same_folder_is_refused(program, dataset, tmp_path):
    line = command(dataset, tmp_path, epochs=LONG)
    run, folder = begun(program, line, tmp_path)
    try:
        for more in ((), ("--resume", "auto"), ("--resume", folder / "last.pth.tar")):
            said = refusal(program, [*line, *more])
            assert str(run.pid) in said
            assert str(folder) in said
        assert runs_of(tmp_path) == [folder]
        assert run.poll() is None
        anew = program.run(*command(dataset, tmp_path, "--resume", "none", epochs=1))
        assert anew.wait() == 0
        assert len(runs_of(tmp_path)) == 2
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()


def test_runs_that_begin_at_the_same_moment_get_folders_of_their_own(tmp_path):
    gate = threading.Barrier(8)

    def create(number):
        gate.wait()
        return RunFolder.create(tmp_path / "runs", "run", {"number": number}).path

    with ThreadPoolExecutor(8) as pool:
        paths = [path for _ in range(5) for path in pool.map(create, range(8))]
    assert len(set(paths)) == 40
    assert all((path / "args.json").is_file() for path in paths)


def test_a_lock_of_a_killed_run_is_nobodys(program, dataset, tmp_path):
    line = command(dataset, tmp_path, epochs=LONG)
    first, folder = begun(program, line, tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = program.start(*line)
    wait_until(lambda: second.poll() is not None or "epoch " in second.stdout)
    second.send_signal(signal.SIGTERM)
    assert second.wait() == 143, second.stderr
    assert runs_of(tmp_path) == [folder]
    assert "continuing" in second.stdout


@pytest.mark.parametrize("how", ["deleted", "moved away", "a file in its place"])
def test_a_folder_that_goes_meanwhile_is_one_line(how, program, dataset, tmp_path):
    run, folder = begun(program, command(dataset, tmp_path / "out", epochs=LONG), tmp_path / "out")
    wait_until((folder / "last.pth.tar").is_file)
    away = tmp_path / "away"
    folder.rename(away)
    if how == "deleted":
        shutil.rmtree(away)
    elif how == "a file in its place":
        folder.write_text("mine")
    assert run.wait(60) == 2
    assert run.stderr.count("\n") == 1, run.stderr
    assert str(folder) in run.stderr
    if how == "moved away":
        assert numbers_of(away)  # whole lines, and what was saved is there
        assert (away / "last.pth.tar").stat().st_size > 1000


def test_a_clock_that_jumps_changes_nothing(program, dataset, tmp_path, monkeypatch):
    """Days forwards and backwards: numbers are equal, and nothing is taken for stalled or due."""
    import main_only_pose

    assert program.run(*command(dataset, tmp_path / "straight")).wait() == 0
    real, count = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(count) * 9e6)
    main_only_pose.main(command(dataset, tmp_path / "jumping"))
    straight, jumping = (run_of(tmp_path / name) for name in ("straight", "jumping"))
    assert numbers_of(straight) == numbers_of(jumping)


def test_runs_are_continued_in_order_also_when_the_clock_was_set_back(program, dataset, tmp_path):
    """A run of the future is there: the same command begins a new one and continues that."""
    assert program.run(*command(dataset, tmp_path, epochs=1)).wait() == 0
    first = run_of(tmp_path)
    future = first.with_name(f"2099{first.name[4:]}")
    first.rename(future)
    line = command(dataset, tmp_path, epochs=LONG)
    run = program.start(*line)
    wait_until(lambda: run.poll() is not None or "epoch 0:" in run.stdout)
    run.send_signal(signal.SIGKILL)
    run.wait()
    again = program.start(*line)
    wait_until(lambda: again.poll() is not None or "epoch " in again.stdout)
    again.send_signal(signal.SIGTERM)
    assert again.wait() == 143, again.stderr
    assert "continuing" in again.stdout
    assert len(runs_of(tmp_path)) == 2
