"""Checkpoints under attack: killed at every call of the system, cut, flipped, on a full disk.

Faults 2, 9, 11 and 14 of the reliability list.
"""

import errno
import hashlib
import itertools
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

import checkpoints
from checkpoints import CheckpointFolder
from errors import InputError
from manifests import Manifest
from models.reading import read_checkpoint
from tests.making_checkpoints import again, message_of, same, state

# What changes files; between other calls there is nothing new to find.
CHANGES = {
    "open", "write", "flush", "fsync", "posix_fadvise", "replace", "rename", "link", "unlink",
    "remove", "ftruncate", "mkdir",
}  # fmt: skip


@contextmanager
def before_each(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with 1, 2 ... before each call of the system that changes files."""
    numbers = itertools.count(1)

    def watch(_frame, event, function):
        if event != "c_call" or function.__name__ not in CHANGES:
            return
        module = getattr(function, "__module__", None) or type(function.__self__).__module__
        if module in ("posix", "_io", "io"):
            act(next(numbers))

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def moments(folder: CheckpointFolder, save: Callable[[], object], copies: Path) -> list[Path]:
    """Return copies of a folder before each change of it: what a kill at that moment leaves.

    A kill keeps what the system was given, and loses what is still in the memory of the program.
    """
    made: list[Path] = []

    def copy(number: int) -> None:
        made.append(shutil.copytree(folder.path, copies / str(number)))

    with before_each(copy):
        save()
    return [*made, shutil.copytree(folder.path, copies / "end")]


def in_a_fork(work: Callable[[], object]) -> int:
    """Do something in a process of its own; return its exit code, negative after a signal."""
    if not (pid := os.fork()):
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def save_killed(folder: CheckpointFolder, epoch: int, moment: int) -> int:
    def kill(number: int) -> None:
        if number == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with before_each(kill):
            folder.save_last(state(epoch))

    return in_a_fork(work)


@pytest.fixture(params=[0, 1, 2], ids=["first save", "second save", "third save"])
def saved(request, tmp_path) -> tuple[Path, int]:
    """Return the folder of a run, and how often it was saved: epochs 0, 1 ..."""
    folder = CheckpointFolder(tmp_path / "template")
    folder.path.mkdir()
    for epoch in range(request.param):
        folder.save_last(state(epoch))
        folder.save_best(state(epoch))
    return folder.path, request.param


def is_known(folder: CheckpointFolder) -> bool:
    manifest, _ = Manifest.read(folder.manifest)
    there = [path for path in folder.path.iterdir() if path.suffix in (".tar", ".safetensors")]
    return all(manifest.find(hashlib.sha256(path.read_bytes()).hexdigest()) for path in there)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_kill_before_any_call_of_save_last_leaves_a_good_checkpoint(
    saved, tmp_path, links, monkeypatch
):
    path, count = saved
    if not links:
        monkeypatch.setattr(os, "link", refuse_links)
    run = CheckpointFolder(path)
    left = moments(run, lambda: run.save_last(state(count)), tmp_path)
    assert len(left) > 50
    epochs = []
    for path in left:
        folder = CheckpointFolder(path)
        assert is_known(folder)
        assert not links or not count or folder.last.is_file()
        if count or folder.last.exists():
            found = folder.read_last()
            assert same(found.content, state(found.content["epoch"]))
            assert not found.troubles or (not links and found.path == folder.previous)
            epochs.append(found.content["epoch"])
        # The next program goes on, whatever is there.
        after = again(folder)
        after.clean()
        after.save_last(state(count + 1))
        found = again(folder).read_last()
        assert (found.troubles, found.content["epoch"]) == ((), count + 1)
        assert is_known(folder)
        assert not list(folder.path.glob(".*"))
    assert epochs == sorted(epochs)
    assert set(epochs) == {count - 1, count} - {-1}


def refuse_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_kill_before_any_call_of_save_best_leaves_a_matching_pair(saved, tmp_path):
    path, count = saved
    run = CheckpointFolder(path)
    for path in moments(run, lambda: run.save_best(state(count)), tmp_path):
        folder = CheckpointFolder(path)
        assert is_known(folder)
        if count or folder.best.exists():
            best = read_checkpoint(folder.best)
            assert same(best, state(best["epoch"]))
            assert best["epoch"] in (count - 1, count)
            if folder.best_weights.exists():
                weights = read_checkpoint(folder.best_weights)
                assert weights["epoch"] == best["epoch"]
                assert same(weights["model"], best["model"])
        if count:
            assert folder.read_last().content["epoch"] == count - 1
        after = again(folder)
        after.clean()
        after.save_best(state(count + 1))
        assert read_checkpoint(folder.best_weights)["epoch"] == count + 1
        assert is_known(folder)


def test_kills_in_a_row_do_not_wear_a_run_down(tmp_path):
    """A run that is killed, with SIGKILL, in each of its saves keeps what it had."""
    folder = CheckpointFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.save_last(state(0))
    rng = random.Random(1)
    for epoch in range(1, 30):
        # The calls at the end are where names change hands.
        moment = rng.choice((rng.randint(1, 60), rng.randint(60, 75)))
        assert save_killed(again(folder), epoch, moment) in (-signal.SIGKILL, 0)
        assert is_known(folder)
        found = again(folder).read_last()
        assert found.troubles == ()
        assert same(found.content, state(found.content["epoch"]))


# ---------------------------------------------------------------- damaged files


def broken_copies(data: bytes) -> list[bytes]:
    """Return a file cut at every 64th byte, and with one bit flipped at 500 places."""
    cuts = [data[:size] for size in range(0, len(data), 64)]
    rng = random.Random(0)
    flips = []
    for _ in range(500):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        flips.append(bytes(changed))
    return cuts + flips


def test_no_cut_and_no_flipped_bit_is_loaded_silently(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save_last(state(0))
    folder.save_last(state(1))
    data = folder.last.read_bytes()
    for broken in broken_copies(data):
        folder.last.write_bytes(broken)
        found = again(folder).read_last()
        assert same(found.content, state(0))
        assert len(found.troubles) == 1


@pytest.mark.parametrize("name", ["last.pth.tar", "best.safetensors"])
def test_without_a_manifest_the_sums_in_the_file_find_what_changes_its_content(tmp_path, name):
    folder = CheckpointFolder(tmp_path)
    folder.save_last(state(0))
    folder.save_best(state(0))
    path, said, refused = tmp_path / name, set(), 0
    whole, data = read_checkpoint(path), path.read_bytes()
    every = broken_copies(data)
    for broken in every:
        path.write_bytes(broken)
        try:
            found = read_checkpoint(path)
        except InputError as error:
            refused += 1
            said.add(str(error))
        else:
            # With another word for "format" it is somebody's file, with the same weights.
            assert same(found, whole) or same(found, whole["model"])
    assert refused > len(every) // 2
    assert all(str(path) in line and "\n" not in line for line in said)


# ---------------------------------------------------------------- what the system refuses


def contents(folder: CheckpointFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.iterdir()}


@pytest.mark.parametrize("name", ["save_last", "save_best"])
def test_a_refused_call_is_one_line_and_the_checkpoints_stay(tmp_path, name):
    template = CheckpointFolder(tmp_path / "template")
    template.path.mkdir()
    for epoch in (0, 1):
        template.save_last(state(epoch))
        template.save_best(state(epoch))
    refused = 0
    for moment in itertools.count(1):
        folder = CheckpointFolder(tmp_path / str(moment))
        shutil.copytree(template.path, folder.path)
        code = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)[moment % 4]
        said, is_over = refuse(getattr(folder, name), moment, code)
        if is_over:
            break
        refused += bool(said)
        for part in (os.strerror(code), "the checkpoints before it are whole") if said else ():
            assert part in said
        assert "\n" not in said
        assert not list(folder.path.glob(".*.partial"))
        assert is_known(folder)
        found = again(folder).read_last()
        assert found.troubles == ()
        assert same(found.content, state(found.content["epoch"]))
        best = read_checkpoint(folder.best)
        assert same(best, state(best["epoch"]))
        getattr(folder, name)(state(3))  # the same program goes on when there is space again
        assert is_known(folder)
        shutil.rmtree(folder.path)
    assert moment > 50
    assert refused > moment // 2


def refuse(save: Callable, moment: int, code: int) -> tuple[str, bool]:
    """Save while one call fails; return what is said, and whether there were fewer calls."""
    is_over = True

    def fail(number: int) -> None:
        nonlocal is_over
        if number == moment:
            is_over = False
            sys.setprofile(None)
            raise OSError(code, os.strerror(code))

    try:
        with before_each(fail):
            save(state(2))
    except InputError as error:
        return str(error), False
    return "", is_over


def test_a_refused_write_that_torch_passes_over_is_told(tmp_path, monkeypatch):
    def save(content, file):
        with suppress(OSError):
            file.write(memoryview(b"a part"))

    folder = CheckpointFolder(tmp_path)
    folder.save_last(state(0))
    before = contents(folder)
    monkeypatch.setattr(torch, "save", save)
    for moment in range(1, 6):
        said, _ = refuse(folder.save_last, moment, errno.ENOSPC)
        assert os.strerror(errno.ENOSPC) in said, moment
        assert contents(folder) == before


@pytest.mark.parametrize("most", [0, 100, 5000, 40_000])
def test_a_limit_of_file_sizes_is_one_line(tmp_path, most):
    folder = CheckpointFolder(tmp_path)
    big = {"model": {"w": torch.zeros(20_000)}}
    folder.save_last(state(0) | big)
    folder.save_best(state(0) | big)
    before = contents(folder)

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        for save in (folder.save_last, folder.save_best):
            assert "cannot be written (File too large)" in message_of(save, state(1) | big)

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    assert in_a_fork(work) == 0
    assert contents(folder) == before


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    folder = CheckpointFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.save_last(state(0))
    shutil.rmtree(folder.path)
    for call in (folder.save_last, folder.save_best):
        assert "its folder is gone" in message_of(call, state(1))
    assert not folder.path.exists()
    assert "is not there" in message_of(folder.read_last)
    folder.clean()


def test_a_disk_that_gives_back_something_else_is_found_out(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    folder.save_last(state(0))
    before = contents(folder)

    def drop(file):
        os.pwrite(file.fileno(), b"\0\1", 700)

    monkeypatch.setattr(checkpoints, "_forget", drop)
    said = message_of(folder.save_last, state(1))
    assert "what was written reads back otherwise: the disk is failing" in said
    assert contents(folder) == before


def test_an_interrupted_save_leaves_nothing_half_written(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save_last(state(0))
    before = contents(folder)

    def interrupt(number: int) -> None:
        if number == 8:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), before_each(interrupt):
        folder.save_last(state(1))
    assert contents(folder) == before
