"""What PYSKL and MMAction2 keep beside weights: read as nothing, and never run."""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.hostile_files import hostile_files
from errors import InputError
from models.foreign_notes import Nothing, known_names, nothing, number
from models.reading import checkpoint_options, read_checkpoint
from models.weights import load_checkpoint
from tests.making_checkpoints import message_of
from tests.toolbox_files import pose_network, toolbox_state, write_mmaction2, write_pyskl

NETWORK = ("--pose_model", "stgcnpp")


def archive(steps: bytes, **members: bytes) -> bytes:
    """Return an archive of `torch.save` whose pickle is these steps."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in ({"data.pkl": steps, "version": b"3\n"} | members).items():
            file.writestr(f"archive/{name}", data)
    return out.getvalue()


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


# ---------------------------------------------------------------- honest files


@pytest.mark.parametrize("old", [True, False], ids=["first torch", "archive"])
def test_the_course_of_losses_is_read_as_nothing(old, tmp_path, monkeypatch):
    if old:
        monkeypatch.setattr(torch.serialization, "_use_new_zipfile_serialization", False, False)
        save = torch.save
        monkeypatch.setattr(
            torch, "save", lambda *a: save(*a, _use_new_zipfile_serialization=False)
        )
    network = pose_network(*NETWORK)
    path = write_mmaction2(tmp_path / "c.pth", toolbox_state(network, "fc"))
    assert b"HistoryBuffer" in path.read_bytes()
    assert "mmengine" not in sys.modules
    content = read_checkpoint(path)
    history = content["message_hub"]["log_scalars"]["train/loss"]
    assert type(history) is Nothing
    assert not hasattr(history, "__dict__")
    assert type(content["message_hub"]["runtime_info"]["all"]) is Nothing
    assert content["message_hub"]["runtime_info"]["best"] == np.float32(0.9)
    assert content["meta"]["iter"] == 5008
    assert load_checkpoint(pose_network(*NETWORK, seed=1), path).is_complete


def test_what_pyskl_keeps_is_read(tmp_path):
    network = pose_network(*NETWORK)
    path = write_pyskl(tmp_path / "c.pth", toolbox_state(network))
    assert read_checkpoint(path)["meta"]["hook_msgs"]["best_score"] == 0.893
    assert load_checkpoint(pose_network(*NETWORK, seed=1), path).is_complete


def test_dicts_of_configurations_are_dicts(tmp_path):
    steps = (
        b"\x80\x02" + named("mmengine.config.config", "ConfigDict") + b"}X\x01\x00\x00\x00aK\x01s"
    )
    path = tmp_path / "c.pth"
    path.write_bytes(archive(steps + b"\x85R."))
    assert read_checkpoint(path) == OrderedDict(a=1)


def test_the_names_are_known_while_a_file_is_read_alone(tmp_path):
    write_pyskl(tmp_path / "c.pth", toolbox_state(pose_network(*NETWORK)))
    before = set(torch.serialization.get_safe_globals())  # their order is that of a set
    read_checkpoint(tmp_path / "c.pth")
    assert set(torch.serialization.get_safe_globals()) == before


# ---------------------------------------------------------------- hostile files


def test_what_stands_for_others_keeps_nothing_and_does_nothing():
    thing = Nothing("os.system", ["a"], 3)
    thing.__setstate__({"__class__": str, "x": 1})
    assert type(thing) is Nothing
    assert not hasattr(thing, "x")
    assert type(nothing("os", "system")) is Nothing
    names = [entry[1] for entry in known_names() if isinstance(entry, tuple)]
    assert not [name for name in names if name.startswith(("os.", "posix.", "subprocess."))]


SYSTEM = b"X\x06\x00\x00\x00system"
HOSTILE = {
    # getattr(os, "system")("touch ..."): the module is refused.
    "getattr of a module": named("builtins", "getattr") + named("os", "system") + SYSTEM + b"\x86R",
    # What getattr gave is called.
    "getattr, called": named("builtins", "getattr")
    + named("mmengine.logging.history_buffer", "HistoryBuffer")
    + SYSTEM
    + b"\x86R(X\x02\x00\x00\x00lstR",
    "getattr of getattr": named("builtins", "getattr") + named("builtins", "getattr")
    + b"X\x08\x00\x00\x00__self__\x86R" + b"(X\x04\x00\x00\x00evaltR",
    "another name of mmengine": named("mmengine.fileio", "load") + b"(tR",
    "another name of numpy": named("numpy", "load") + b"(X\x01\x00\x00\x00atR",
    "eval": named("builtins", "eval") + b"(X\x01\x00\x00\x001tR",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_not_known_are_refused(name, tmp_path):
    path = tmp_path / "c.pth"
    path.write_bytes(archive(b"\x80\x02" + HOSTILE[name] + b"."))
    message = message_of(read_checkpoint, path)
    assert "holds objects of" in message or "is no checkpoint, or damaged" in message
    message_of(checkpoint_options, path)


def test_state_of_an_array_or_a_history_changes_nothing(tmp_path):
    state = b"}X\x09\x00\x00\x00__class__K\x01s"
    for module, thing in (
        ("mmengine.logging.history_buffer", "HistoryBuffer"),
        ("numpy", "ndarray"),
    ):
        path = tmp_path / "c.pth"
        path.write_bytes(archive(b"\x80\x02" + named(module, thing) + b")\x81" + state + b"b."))
        assert type(read_checkpoint(path)) is Nothing
        assert "holds no weights" in message_of(load_checkpoint, pose_network(*NETWORK), path)


def test_an_array_of_objects_builds_none(tmp_path):
    class Runs:
        def __reduce__(self):
            return open, (str(tmp_path / "canary"), "w")

    content = {"meta": {"x": np.array([Runs()], dtype=object)}, "state_dict": {}}
    torch.save(content, tmp_path / "c.pth")
    message_of(read_checkpoint, tmp_path / "c.pth")
    assert not (tmp_path / "canary").exists()


def test_huge_arrays_take_no_memory(tmp_path):
    shape = pickle.dumps((10**12,), 2)[2:-1]
    steps = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + shape
    path = tmp_path / "c.pth"
    path.write_bytes(archive(b"\x80\x02" + steps + b"K\x01\x87R."))
    assert type(read_checkpoint(path)) is Nothing


@pytest.mark.parametrize("letters", ["V100000000", "S100000000", "O", "f8"])
def test_numbers_without_their_bytes_take_no_memory(letters, tmp_path):
    steps = named("numpy.core.multiarray", "scalar") + named("numpy", "dtype")
    steps += pickle.dumps((letters, False, True), 2)[2:-1] + b"R\x85R"
    path = tmp_path / "c.pth"
    path.write_bytes(archive(b"\x80\x02" + steps + b"."))
    assert type(read_checkpoint(path)) is Nothing


@pytest.mark.parametrize("letter", "?bBhHiIlLqQefd")
def test_plain_numbers_are_numbers(letter):
    value = np.dtype(letter).type(1)
    assert number(value.dtype, value.tobytes()) == value
    assert type(number(value.dtype, value.tobytes())) is type(value)
    for odd in ((value.dtype, value.tobytes() * 2), (np.dtype("V1"), b"x"), (letter, b"x"), ()):
        assert type(number(*odd)) is Nothing


def test_no_hostile_file_is_run(tmp_path):
    canary: Path = tmp_path / "canary"
    path = tmp_path / "c.pth"
    for name, data in hostile_files(canary):
        path.write_bytes(data)
        for call in (checkpoint_options, read_checkpoint):
            with suppress(InputError):
                call(path)
        assert not canary.exists(), name
