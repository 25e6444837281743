"""Files of weights that lie: about sizes, types, sums and what they are."""

import io
import json
import os
import pickle
import resource
import struct
import threading
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch

from errors import InputError
from models.reading import checkpoint_options, read_checkpoint
from models.stored import RULES, check_stored, shown
from models.weights import load_checkpoint, load_for_finetune
from opts import INPUT_OPTIONS, MODEL_OPTIONS, POSE_OPTIONS, SOURCE_OPTIONS, parse_train_args
from tests.making_checkpoints import message_of, same, state
from tests.making_models import config_of, model_of, write_checkpoint


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "c.pth.tar"


def archive(change=lambda name, data: data, kind=zipfile.ZIP_STORED, more=()) -> bytes:
    """Return a checkpoint written anew by zipfile, its members changed."""
    buffer, out = io.BytesIO(), io.BytesIO()
    torch.save(state(), buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(out, "w", kind) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in more:
            new.writestr(name, data)
    return out.getvalue()


# ---------------------------------------------------------------- archives


def test_an_archive_that_zipfile_wrote_is_read(path):
    path.write_bytes(archive())
    assert same(read_checkpoint(path), state())


def test_a_packed_archive_is_refused_before_it_is_unpacked(path):
    bomb = ("archive/data/99", bytes(200 * 2**20))
    path.write_bytes(archive(kind=zipfile.ZIP_DEFLATED, more=[bomb]))
    assert path.stat().st_size < 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "has a packed member" in message_of(read_checkpoint, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


@pytest.mark.parametrize("claimed", [2**31, 2**32 - 2])
def test_a_member_that_claims_more_than_the_file_has_is_refused(path, claimed):
    data = bytearray(archive())
    for magic, place in ((b"PK\x01\x02", 20), (b"PK\x03\x04", 18)):
        start = 0
        while (start := data.find(magic, start)) >= 0:
            struct.pack_into("<2L", data, start + place, claimed, claimed)
            start += 4
    path.write_bytes(data)
    said = message_of(read_checkpoint, path)
    assert "its members claim" in said


def test_an_archive_whose_directory_is_not_at_its_end_is_refused(path):
    data = archive()
    for odd in (data + b"x", b"PK" + data, data[:-2] + b"\x05\x00" + b"hello", data + data):
        path.write_bytes(odd)
        assert "is no checkpoint, or damaged" in message_of(read_checkpoint, path)
    assert "a directory of" in message_of(read_checkpoint, path)


def test_more_members_than_any_checkpoint_has_are_refused(path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as new:
        for number in range(70_000):  # beyond 65,535 the directory has another form
            new.writestr(zipfile.ZipInfo(f"a/{number}"), b"")
    path.write_bytes(out.getvalue())
    message_of(read_checkpoint, path)
    data = bytearray(out.getvalue())
    struct.pack_into("<2Q", data, data.rfind(b"PK\x06\x06") + 24, 10**9, 10**9)
    path.write_bytes(data)
    assert "a directory of 1,000,000,000 members" in message_of(read_checkpoint, path)


def test_a_changed_byte_of_a_tensor_is_found_by_its_sum(path):
    torch.save(state(), path)
    data = bytearray(path.read_bytes())
    place = data.find(state()["model"]["linear.weight"].numpy().tobytes())
    data[place + 2] ^= 1
    path.write_bytes(data)
    assert "Bad CRC-32 for file" in message_of(read_checkpoint, path)


def test_an_archive_without_sums_is_read(path, monkeypatch):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_checkpoint(path), {"w": torch.ones(3)})


@pytest.mark.parametrize("numel", [b"J\x00\x00\x00\x7f", b"J\xff\xff\xff\xff", b"K\x00"])
def test_a_tensor_larger_than_its_bytes_is_refused(path, numel):
    def lie(name, data):
        return data.replace(b"K\x06tq", numel + b"tq") if name.endswith("data.pkl") else data

    path.write_bytes(archive(lie))
    assert "is no checkpoint, or damaged" in message_of(read_checkpoint, path)


def test_an_old_pickle_that_claims_a_huge_storage_is_one_line(path):
    torch.save({"w": torch.ones(6)}, path, _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(path), {"w": torch.ones(6)})
    data = path.read_bytes()
    for lie in (b"J\xff\xff\xff\x7f", b"\x8a\x06\xff\xff\xff\xff\xff\x00", b"J\xff\xff\xff\xff"):
        path.write_bytes(data.replace(b"K\x06", lie, 1))
        assert "is no checkpoint, or damaged" in message_of(read_checkpoint, path)


def test_cuts_and_flips_of_an_old_pickle_are_one_line_or_weights(path):
    torch.save(state(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        for broken in (
            data[:place],
            data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :],
        ):
            path.write_bytes(broken)
            try:
                read_checkpoint(path)
            except InputError as error:
                said = str(error)
            assert said.startswith(f"{path} ")


def tuple_bomb(key: bool) -> bytes:
    """Return a pickle of a tuple of 2**60 parts, as the key of a dict or in a list."""
    steps = b"".join(b"q%ch%c\x86" % (number, number) for number in range(60))
    return b"\x80\x02" + (b"}(K\x01" + steps + b"K\x02u." if key else b"](K\x01" + steps + b"e.")


@pytest.mark.parametrize("key", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_tuples_that_would_take_years_to_hash_are_refused(path, key, old):
    def change(name, data):
        return tuple_bomb(key) if name.endswith("data.pkl") else data

    path.write_bytes(tuple_bomb(key) if old else archive(change))
    said: list[str] = []
    thread = threading.Thread(
        target=lambda: said.append(message_of(read_checkpoint, path)), daemon=True
    )
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert "a tuple of more than 100,000 parts" in said[0]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    "name",
    ["builtins\nbytearray", "__builtin__\nbytearray", "torch\nTensor", "torch.cuda\nByteTensor"],
)
def test_what_makes_memory_of_a_number_is_refused(path, name, old):
    call = b"\x80\x02c" + name.encode() + b"\n(J\x00\xca\x9a\x3btR."  # of 1e9

    def change(member, data):
        return call if member.endswith("data.pkl") else data

    path.write_bytes(call if old else archive(change))
    assert "which makes as much as it is told" in message_of(read_checkpoint, path)


def test_shared_tuples_of_ordinary_size_are_read(path):
    pair = (0.9, 0.999)
    groups = [{"betas": pair, "more": (pair, pair, [pair] * 50)} for _ in range(200)]
    torch.save(state() | {"optimizer": {"state": {}, "param_groups": groups}}, path)
    assert read_checkpoint(path)["optimizer"]["param_groups"] == groups


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/full"])
@pytest.mark.parametrize("name", ["c.pth.tar", "c.safetensors"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, kind, name):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(message_of(read_checkpoint, path)))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert "is no regular file" in said[0]


def test_a_file_of_zeros_is_no_checkpoint(path):
    with path.open("wb") as file:
        file.truncate(2**40)  # of which nothing is on the disk
    assert "is no checkpoint, or damaged" in message_of(read_checkpoint, path)
    sparse = path.with_name("c.safetensors")
    path.rename(sparse)
    assert "is no safetensors file" in message_of(read_checkpoint, sparse)


# ---------------------------------------------------------------- safetensors


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


LIES = {
    "empty": b"",
    "a header beyond the file": packed({"w": entry()}, bytes(8), 2**60),
    "a header of 0": packed({"w": entry()}, bytes(8), 0),
    "no json": packed(b"{{{{", bytes(8)),
    "deep json": packed(b"[" * 100_000, bytes(8)),
    "a list": packed([1, 2], bytes(8)),
    "no text": packed(b'{"\xff": 1}', bytes(8)),
    "offsets beyond the file": packed({"w": entry(offsets=(0, 2**40))}, bytes(8)),
    "shape larger": packed({"w": entry(shape=(2**40,))}, bytes(8)),
    "shape overflows": packed({"w": entry(shape=(2**40, 2**40))}, bytes(8)),
    "negative": packed({"w": entry(shape=(-2,))}, bytes(8)),
    "turned": packed({"w": entry(offsets=(8, 0))}, bytes(8)),
    "not numbers": packed({"w": entry(shape=("2",))}, bytes(8)),
    "a flag": packed({"w": entry(shape=(True, 2))}, bytes(8)),
    "unknown type": packed({"w": entry("X32")}, bytes(8)),
    "type is a list": packed({"w": {**entry(), "dtype": ["F32"]}}, bytes(8)),
    "more keys": packed({"w": {**entry(), "code": "x"}}, bytes(8)),
    "overlapping": packed({"w": entry(), "v": entry()}, bytes(8)),
    "a hole": packed({"w": entry(offsets=(8, 16))}, bytes(16)),
    "bytes that nobody names": packed({"w": entry()}, bytes(16)),
    "metadata no text": packed({"__metadata__": {"a": 1}, "w": entry()}, bytes(8)),
    "metadata a list": packed({"__metadata__": [], "w": entry()}, bytes(8)),
    "entry is a number": packed({"w": 3}, bytes(8)),
    "a pickle": pickle.dumps({"w": 1}),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_safetensors_that_lie_are_one_line(tmp_path, lie):
    path = tmp_path / "w.safetensors"
    path.write_bytes(lie)
    assert f"{path} is no safetensors file, or damaged (" in message_of(read_checkpoint, path)


def test_safetensors_of_others_are_weights(tmp_path):
    network = model_of(config_of("pose"))
    path = tmp_path / "w.bin"  # known by its first bytes
    safetensors.torch.save_file(network.state_dict(), path, metadata={"format": "pt"})
    assert checkpoint_options(path) == {}
    other = model_of(config_of("pose"), seed=1)
    assert load_checkpoint(other, path).is_complete
    assert same(dict(other.state_dict()), dict(network.state_dict()))
    assert load_for_finetune(other, path).is_complete


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, "its SHA-256"),
        ({"sha256": "0" * 64}, "its SHA-256"),
        ({"version": "1"}, "its SHA-256"),
    ],
)
def test_metadata_that_were_changed_are_found(tmp_path, told, reason):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(
        {"w": torch.ones(2)}, path, metadata={"format": "gate-shift-pose", **told}
    )
    assert reason in message_of(read_checkpoint, path)


# ---------------------------------------------------------------- what checkpoints say

WRONG = [None, -1, 0.5, "x", "../..", [1], {"a": 1}, float("nan"), 10**40, True, [[1]] * 3, b"x"]


@pytest.mark.parametrize("name", sorted(RULES))
def test_options_of_another_type_are_one_line(path, name):
    for wrong in [*WRONG, torch.ones(2), [None] * 200_000, "x" * 10_000]:
        content = {"args": {name: wrong}}
        if not RULES[name][0](wrong):
            assert "holds damaged options" in message_of(check_stored, content, path)
        else:
            check_stored(content, path)


def test_a_file_with_options_of_another_type_is_refused(path):
    for wrong in (None, "x", [[1]] * 3, b"x"):
        write_checkpoint(path, args={"num_segments": wrong})
        assert "holds damaged options" in message_of(checkpoint_options, path)


def test_every_option_that_is_taken_over_has_a_rule_that_its_defaults_keep():
    taken = {*MODEL_OPTIONS, *INPUT_OPTIONS, *POSE_OPTIONS, *SOURCE_OPTIONS}
    assert taken == set(RULES)
    args = vars(parse_train_args(["--dataset", "synthetic", "--fold", "2/5"]))
    for name in taken - {"dataset_path"}:
        assert RULES[name][0](args[name]), name


def test_nested_lists_that_cost_a_file_nothing_are_not_walked(path):
    bomb: list = []
    for _ in range(60):
        bomb = [bomb, bomb]
    torch.save(state() | {"args": {"notes": bomb}}, path)
    assert "holds damaged options" in message_of(read_checkpoint, path)


def test_values_are_shown_short_and_in_one_line():
    for value in ("a\nb\x1b[31m" * 50, 10**5000, [1] * 10**6, float("inf"), None, b"x"):
        assert len(shown(value)) < 250
        assert shown(value).isprintable()


@pytest.mark.parametrize(
    "odd",
    [torch.empty(2, 128, device="meta"), torch.eye(2, 128).to_sparse(), "text", 3],
    ids=["meta", "sparse", "text", "number"],
)
def test_weights_that_are_no_ordinary_tensors_are_one_line(path, odd):
    network = model_of(config_of("pose"))
    tensors = dict(network.state_dict())
    tensors["head.linear.weight"] = odd
    torch.save({"model": tensors}, path)
    assert "holds no weights" in message_of(load_checkpoint, network, path)


def test_a_value_larger_than_memory_is_one_line(path):
    path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.")
    assert "more bytes than fit into memory" in message_of(read_checkpoint, path)
