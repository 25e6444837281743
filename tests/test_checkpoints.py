"""The checkpoints of a run: what is written is what is read, and every fault is said."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from checkpoints import CheckpointFolder
from errors import InputError
from files import partial_of
from manifests import Manifest
from models.reading import checkpoint_options, read_checkpoint
from models.stored import check_plain
from tests.making_checkpoints import again, message_of, same, state

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run(tmp_path) -> CheckpointFolder:
    """Return a run of two epochs with its best in the first."""
    folder = CheckpointFolder(tmp_path / "run ü <script>")
    folder.path.mkdir()
    folder.save_last(state(0))
    folder.save_best(state(0))
    folder.save_last(state(1))
    return folder


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


# ---------------------------------------------------------------- what is written is what is read


def test_the_newest_is_read_and_the_one_before_is_kept(run):
    assert names(run) == [
        "best.pth.tar", "best.safetensors", "last.pth.tar", "manifest.json", "previous.pth.tar",
    ]  # fmt: skip
    found = again(run).read_last()
    assert found.path == run.last
    assert found.troubles == ()
    assert same(found.content, state(1))
    assert same(read_checkpoint(run.previous), state(0))
    assert same(read_checkpoint(run.best), state(0))


def test_the_manifest_knows_every_file_and_its_state(run):
    manifest, trouble = Manifest.read(run.manifest)
    assert trouble == ""

    for name, epoch in (
        ("last.pth.tar", 1), ("previous.pth.tar", 0), ("best.pth.tar", 0), ("best.safetensors", 0),
    ):  # fmt: skip
        data = (run.path / name).read_bytes()
        entry = manifest.files[name]
        assert (entry.sha256, entry.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert (entry.epoch, entry.step) == (epoch, 0)
    assert set(manifest.files) == set(names(run)) - {"manifest.json"}


def test_the_best_weights_say_what_testing_needs(run):
    found, best = read_checkpoint(run.best_weights), read_checkpoint(run.best)
    assert checkpoint_options(run.best_weights) == checkpoint_options(run.best)
    for key in best.keys() - {"optimizer", "scaler", "totals"}:
        assert same(found[key], best[key]), key
    assert message_of(CheckpointFolder(run.path)._read, run.best_weights, None).startswith(
        f"{run.best_weights} is not the checkpoint of a training run"
    )


def test_shared_and_strided_tensors_become_safetensors(run):
    weight = torch.randn(4, 6)
    model = {"a": weight, "b": weight, "c": weight.t(), "d": weight[1:3, ::2], "e": torch.ones(())}
    run.save_best(state(3, model=model))
    assert same(read_checkpoint(run.best_weights)["model"], model)
    assert same(read_checkpoint(run.best)["model"], model)


def test_a_training_state_of_torch_is_plain_data():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for optimizer in (
        torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True),
        torch.optim.AdamW(model.parameters(), 0.1, fused=True),
    ):
        model(torch.randn(4, 2)).sum().backward()
        optimizer.step()
        scaler = torch.amp.GradScaler("cpu", enabled=True)
        packed = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        check_plain(packed | {"scaler": scaler.state_dict()})


ODD = {
    "numpy number": np.float64(1),
    "path": Path("x"),
    "array": np.zeros(2),
    "set": {1},
    "size": torch.Size([1]),
    "sparse": torch.eye(2).to_sparse(),
    "meta": torch.empty(1, device="meta"),
    "function": len,
    "key": {1.5: 1},
    "bytes": b"x",
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_only_plain_data_is_written(run, odd):
    before = {name: (run.path / name).read_bytes() for name in names(run)}
    for save in (run.save_last, run.save_best):
        with pytest.raises(ValueError, match="checkpoint") as caught:
            save(state(2, args={"odd": [odd]}))
        assert not isinstance(caught.value, InputError)
    assert {name: (run.path / name).read_bytes() for name in names(run)} == before


def test_a_payload_that_contains_itself_is_a_slip():
    knot: list = []
    knot.append(knot)
    with pytest.raises(ValueError, match="contains itself"):
        check_plain({"knot": knot})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_that_is_not_finite_never_is_the_best(run, value):
    before = {name: (run.path / name).read_bytes() for name in names(run)}
    model = {"fine": torch.ones(2), "head.bias": torch.tensor([1.0, value])}
    said = message_of(run.save_best, state(2, model=model))
    assert "head.bias of the model of epoch 2 holds NaN or infinity" in said
    assert str(run.best) in said
    assert {name: (run.path / name).read_bytes() for name in names(run)} == before
    run.save_last(state(2, model=model))  # a state to look at, not to boast of


# ---------------------------------------------------------------- reading in spite of faults

FAULTS = {
    "not there": (lambda path: path.unlink(), "is not there"),
    "empty": (lambda path: path.write_bytes(b""), "has 0 of"),
    "cut": (lambda path: os.truncate(path, 1000), "has 1,000 of"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is no regular file"),
    "a device": (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "no regular file"),
    "text": (lambda path: path.write_text("hello"), "has 5 of"),
    "another file": (
        lambda path: torch.save({"a": 1}, path), "by manifest.json"
    ),
}  # fmt: skip


def flip(path: Path, place: int = -300) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_previous_one_takes_the_place_of_a_bad_last_loudly(run, fault):
    damage, reason = FAULTS[fault]
    damage(run.last)
    found = again(run).read_last()
    assert found.path == run.previous
    assert same(found.content, state(0))
    (line,) = found.troubles
    assert line.startswith(f"{run.last} ")
    assert reason in line
    assert line.endswith(": previous.pth.tar of epoch 0, step 0 is used instead")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "is a checkpoint of version 2, this is version 1"),
        ({"version": torch.ones(2)}, "is a checkpoint of version a Tensor"),
        ({"format": "other"}, "is not the checkpoint of a training run"),
        ({"args": [1]}, "holds damaged options (a list)"),
        ({"epoch": "1"}, "holds a training state whose epoch is damaged"),
        ({"totals": torch.zeros(2)}, "whose totals is damaged"),
        ({"optimizer": {}}, "whose optimizer is damaged"),
        ({"model": {"a": 1}}, "whose model is damaged"),
        (
            {"clips": {"train": torch.zeros(1, dtype=torch.int64).expand(10**12)}},
            "damaged fingerprints",
        ),
        ({"classes": ["a", 1]}, "damaged classes"),
        ({"data": {"lists": {"train": 3}}}, "damaged facts"),
    ],
)
def test_what_a_file_says_is_looked_at_also_when_its_sum_is_right(run, changes, reason):
    run.save_last(state(2) | changes)
    found = again(run).read_last()
    assert found.path == run.previous
    assert reason in found.troubles[0]


def test_no_good_file_is_an_error_that_names_both_and_the_way_out(run):
    run.last.write_bytes(b"")
    run.previous.unlink()
    said = message_of(again(run).read_last)
    for part in (f"{run.last} has 0 of", f"{run.previous} is not there", "--resume none"):
        assert part in said
    assert f"the weights of {run.best} with --finetune --checkpoint_path" in said
    run.best.unlink()
    assert "--finetune" not in message_of(again(run).read_last)


def test_the_good_file_is_kept_when_a_run_goes_on_after_a_bad_one(run):
    flip(run.last)
    folder = again(run)
    folder.clean()
    assert folder.read_last().path == run.previous
    folder.save_last(state(2))
    assert same(again(run).read_last().content, state(2))
    assert same(read_checkpoint(run.previous), state(0))  # not the bad one
    run.last.unlink()
    assert same(again(run).read_last().content, state(0))


def test_a_bad_file_stays_found_out_by_a_program_that_only_saves(run):
    flip(run.best)
    again(run).save_last(state(2))
    manifest, _ = Manifest.read(run.manifest)

    digest = hashlib.sha256(run.best.read_bytes()).hexdigest()
    assert manifest.find(digest) is None
    assert "best.pth.tar" in manifest.files


# ---------------------------------------------------------------- manifests


MANIFESTS = {
    "not there": None,
    "empty": b"",
    "no json": b"{",
    "not text": b"\xff\xfe\x00",
    "deep": b"[" * 200_000,
    "a list": b"[]",
    "newer": b'{"version": 2, "files": {}}',
    "no version": b"{}",
    "files are a list": b'{"version": 1, "files": []}',
    "no sum": b'{"version": 1, "files": {"last.pth.tar": {"bytes": 3}}}',
    "odd sum": b'{"version": 1, "files": {"last.pth.tar": {"sha256": "../../x", "bytes": 3}}}',
    "odd size": b'{"version": 1, "files": {"last.pth.tar": {"sha256": "%s", "bytes": "3"}}}'
    % (b"a" * 64),
    "huge": b" " * (2**20 + 1),
    "huge number": b'{"version": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_a_broken_manifest_keeps_nobody_from_a_good_checkpoint(run, content):
    if content is None:
        run.manifest.unlink()
    else:
        run.manifest.write_bytes(content)
    found = again(run).read_last()
    assert found.path == run.last
    assert same(found.content, state(1))
    (line,) = found.troubles
    assert line.startswith(f"{run.manifest} ")
    again(run).save_last(state(2))
    assert again(run).read_last().troubles == ()


def test_a_pipe_as_manifest_is_not_waited_for(run):
    run.manifest.unlink()
    os.mkfifo(run.manifest)
    assert "not a regular file" in again(run).read_last().troubles[0]


def test_a_manifest_that_lies_about_every_file_is_outvoted_by_the_files(run):
    value = json.loads(run.manifest.read_text())
    for entry in value["files"].values():
        entry["sha256"] = "0" * 64
    value["replaced"] = {}
    run.manifest.write_text(json.dumps(value))
    found = again(run).read_last()
    assert found.path == run.last
    assert any("is whole by its own sums: it is used, at epoch 1" in t for t in found.troubles)
    flip(run.last, run.last.stat().st_size // 2)
    flip(run.previous, 700)
    message_of(again(run).read_last)


def test_a_checkpoint_alone_elsewhere_and_one_of_another_name_are_read(run, tmp_path):
    alone = CheckpointFolder(tmp_path / "alone")
    alone.path.mkdir()
    alone.last.write_bytes(run.last.read_bytes())
    assert same(alone.read_last().content, state(1))
    run.last.write_bytes(run.previous.read_bytes())  # known by its sum, whatever its name
    assert again(run).read_last().troubles == ()


# ---------------------------------------------------------------- one program at a time


def test_a_second_program_is_told_who_is_there(run):
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom files import locked\n"
        f"with locked(Path({str(run.path)!r}) / '.lock'):\n"
        "    print('in', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(InputError) as refused, run.alone():
            pytest.fail("two at once")
        assert f"{run.path} is in use by process {other.pid} on {os.uname().nodename}" in str(
            refused.value
        )
        with pytest.raises(InputError), again(run).alone():  # the refusal did not lift the lock
            pytest.fail("two at once")
        other.kill()
        other.wait()
        with run.alone():
            pass


def test_a_second_time_in_the_same_program_is_refused_too(run, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(run.path)
    with run.alone():
        for folder in (again(run), CheckpointFolder(link)):
            with pytest.raises(InputError, match=f"process {os.getpid()}, this one"):
                folder.alone().__enter__()
        assert str(os.getpid()) in (run.path / ".lock").read_text()
    with run.alone():
        pass
    assert (run.path / ".lock").read_text() == ""


def test_forked_processes_do_not_hold_the_lock(run):
    read, write = os.pipe()
    with run.alone():
        if not (pid := os.fork()):
            os.close(write)
            os.read(read, 1)  # until the parent has let go, and longer
            os._exit(0)
        os.close(read)
        with pytest.raises(InputError):
            again(run).alone().__enter__()
    with run.alone():  # although the child lives on
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(write)
    os.waitpid(pid, 0)


def test_what_the_body_raises_comes_through_and_frees_the_lock(run):
    for error in (OSError(5, "disk"), KeyboardInterrupt()):
        with pytest.raises(type(error)), run.alone():
            raise error
    with run.alone():
        pass


def test_an_odd_lock_file_is_one_line(run):
    lock = run.path / ".lock"
    lock.mkdir()
    assert "cannot be written" in message_of(run.alone().__enter__)
    lock.rmdir()
    os.mkfifo(lock)
    assert "not a regular file" in message_of(run.alone().__enter__)
    lock.unlink()
    lock.symlink_to("/etc/hostname")
    assert "cannot be written" in message_of(run.alone().__enter__)
    gone = CheckpointFolder(run.path / "gone")
    assert "its folder is gone" in message_of(gone.alone().__enter__)


def test_cleaning_takes_what_killed_programs_left_and_nothing_else(run):
    before = names(run)
    for path in (run.last, run.previous, run.best, run.best_weights, run.manifest):
        partial_of(path).write_bytes(b"half")
    run.clean()
    assert names(run) == before
