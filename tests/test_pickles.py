"""The restricted unpickler: honest files of every protocol are read, nothing is ever run."""

import collections
import contextlib
import io
import os
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.importers import pickles, reader
from datasets.importers.pyskl import open_annotations
from errors import InputError
from tests.making_annotations import annotation, write

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ROOT = Path(__file__).resolve().parent.parent


def plain(value):
    return pickles.load_plain(io.BytesIO(value))


def read(path: Path):
    with open_annotations(path) as annotations:
        return {key: annotations.load(key) for key in annotations.aliases}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)),
        np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        np.arange(24, dtype=">f8").reshape(4, 6)[:, ::2],
        np.array([[True, False]]),
        np.arange(3, dtype=np.uint8),
    ],
    ids=["empty", "half", "fortran", "big-endian", "bool", "bytes"],
)
def test_arrays_come_back_as_numpy_reads_them(protocol, array):
    found = plain(pickle.dumps([array], protocol))[0].value
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_and_scalars_come_back(protocol):
    held = {
        "a": [1, 2.5, None, True, "text \u00e9", b"bytes\xff", (1, (2,))],
        "b": {"x", "y"},
        "c": frozenset([3]),
        "d": bytearray(b"zz"),
        "e": collections.OrderedDict(k=[1]),
        "f": (np.int64(7), np.float32(0.5), np.str_("name"), np.bool_(True)),
        "g": 2**80,
    }
    assert plain(pickle.dumps(held, protocol)) == {**held, "e": {"k": [1]}}


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_numpy_1_and_2_spell_their_module_differently(core):
    data = pickle.dumps(np.arange(3.0), protocol=2)
    assert b"numpy._core" in data or b"numpy.core" in data
    spelled = data.replace(b"numpy._core.", b"numpy.core.").replace(
        b"numpy.core.", b"numpy." + core + b"."
    )
    assert plain(spelled).value.tolist() == [0, 1, 2]


def test_files_of_python_2_are_read():
    state = b"(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
    raw = b"S'" + b"".join(b"\\x%02x" % byte for byte in struct.pack("<ff", 1, -2)) + b"'\n"
    data = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        + state
        + raw
        + b"tb."
    )
    assert plain(data).value.tolist() == [1, -2]


def test_every_allowed_name_is_a_stand_in_of_ours():
    assert all(type(call) is pickles._Call for call in pickles.ALLOWED.values())
    names = {f"{module}.{name}" for module, name in pickles.ALLOWED}
    assert names == {
        "numpy.ndarray",
        "numpy.dtype",
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        "collections.OrderedDict",
        "_codecs.encode",
        *(
            f"builtins.{name}"
            for name in ("list", "tuple", "set", "frozenset", "bytearray", "dict", "bytes")
        ),
    }


# ---------------------------------------------------------------- hostile files


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def global_call(module: str, name: str, argument: bytes) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n(" + argument + b"tR."


def short(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY_ARRAY = RECONSTRUCT + b"(cnumpy\nndarray\n(K\x00tU\x01btR"
FLOATS = b"cnumpy\ndtype\n(" + b"X\x02\x00\x00\x00f4" + b"tR"
NAME = "could run a program"


def hostile(canary: str) -> dict[str, tuple[bytes, str]]:
    """Return what each pickle is called: its bytes, and words of the refusal."""
    touch = f"touch {canary}"
    code = f"open({canary!r}, 'w').close()"
    inner = pickle.dumps(Runs(os.system, touch))
    calls = {
        "os.system": inner,
        "protocol 0": pickle.dumps(Runs(os.system, touch), 0),
        "builtins.eval": pickle.dumps(Runs(eval, code)),
        "builtins.exec": pickle.dumps(Runs(exec, code)),
        "subprocess": pickle.dumps(Runs(subprocess.call, ["touch", canary])),
        "in an annotation": pickle.dumps(
            {"split": {}, "annotations": [annotation(keypoint=Runs(os.system, touch))]}
        ),
        "in a set": pickle.dumps([{1, Runs(os.system, touch)}]),
        "pickle.loads": pickle.dumps(Runs(pickle.loads, inner)),
        "getattr": global_call("builtins", "getattr", short("x") + short("__class__")),
        "dotted name": b"\x80\x04\x8c\x08builtins\x8c\x0elist.__class__\x93.",
        "import": global_call("builtins", "__import__", short("os")),
        "numpy.load": global_call("numpy", "load", short(canary)),
        "numpy.fromfile": global_call("numpy", "fromfile", short(canary)),
        "runstring": global_call("numpy.testing._private.utils", "runstring", short(code) + b"}"),
        "copyreg": global_call("copyreg", "_reconstructor", short("x")),
        "operator": global_call("operator", "attrgetter", short("system")),
        "instance opcode": b"(" + short(touch) + b"ios\nsystem\n.",
        "object opcode": b"(cos\nsystem\n" + short(touch) + b"o.",
    }
    others = {
        "in an object array": (
            pickle.dumps([annotation(keypoint=np.array([Runs(os.system, touch)], object))]),
            "it asks for posix.system",
        ),
        "another encoding": (
            global_call("_codecs", "encode", short("x") + short("idna")),
            "something else than bytes",
        ),
        "persistent id": (b"Pcanary\n.", "persistent"),
        "extension code": (b"\x82\x01.", "unregistered extension code"),
        "newobj of a stand-in": (b"\x80\x02cnumpy\nndarray\n(K\x01t\x81.", "NEWOBJ"),
        "state of a function": (
            b"\x80\x02" + RECONSTRUCT + b"}" + short("__code__") + b"Nsb.",
            "it changes a function",
        ),
        "slots of a function": (
            b"\x80\x02cbuiltins\nlist\nN}" + short("_make") + b"cnumpy\ndtype\ns\x86b.",
            "it changes a function",
        ),
        "calling what was made": (
            b"\x80\x02cbuiltins\nlist\n(tR(tR.",
            "'list' object is not callable",
        ),
        "calling an array": (b"\x80\x02" + EMPTY_ARRAY + b"(tR.", "object is not callable"),
        "array without bytes": (
            global_call("numpy", "ndarray", b"(J\xff\xff\xff\x7ft"),
            "makes an array other than by its bytes",
        ),
        "own array class": (
            RECONSTRUCT + b"(cbuiltins\nlist\n(K\x00tU\x01btR.",
            "an array of a class of its own",
        ),
        "object type": (b"cnumpy\ndtype\n(" + short("O8") + b"tR.", "no list of annotations"),
        "number of object type": (
            global_call(
                "numpy.core.multiarray",
                "scalar",
                b"cnumpy\ndtype\n(" + short("O8") + b"tRU\x01a",
            ),
            "an array that is not numbers",
        ),
        "record type": (b"cnumpy\ndtype\n(" + short("f4,O") + b"tR.", "values of type 'f4,O'"),
        "lying shape": (
            EMPTY_ARRAY + b"(K\x01(J\xff\xff\xff\x7ft" + FLOATS + b"\x89U\x04aaaatb.",
            r"an array of shape \(2147483647,\) in 4 bytes",
        ),
        "negative shape": (
            EMPTY_ARRAY + b"(K\x01(J\xff\xff\xff\xfft" + FLOATS + b"\x89U\x00tb.",
            "an array without a plain shape",
        ),
        "bytes of a number": (
            b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
            "makes bytes out of a number",
        ),
        "huge string": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", ""),
        "huge bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b"abc.", "more memory"),
        "huge bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.", "more memory"),
        "huge memo": (b"\x80\x04Nr\xff\xff\xff\x7f.", "more memory"),
        "huge frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b".", ""),
        "huge number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", ""),
        "deep lists": (b"(l" * 200_000 + b"a" * 199_999 + b".", ""),
        "deep tuples as a key": (b"}N" + b"\x85" * 500_000 + b"Ns.", ""),
        "list in itself": (b"\x80\x02]q\x00h\x00a.", "no list of annotations"),
        "hash bomb": (
            b"}N" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns.",
            "more than 3 seconds",
        ),
        "stop at once": (b".", "no readable pickle"),
        "empty": (b"", "is empty"),
        "text": (b"<html>not found</html>", "no readable pickle"),
        "zip": (b"PK\x03\x04" + bytes(200), "no readable pickle"),
        "a number": (pickle.dumps(3), "no list of annotations"),
        "no annotations": (pickle.dumps({"split": {}, "annotations": []}), "has no annotations"),
        "annotations are numbers": (
            pickle.dumps({"annotations": [1, 2]}),
            "no list of annotations",
        ),
        "split is a list": (
            pickle.dumps({"split": [1], "annotations": [annotation()]}),
            "not a dict of names",
        ),
        "split of numbers": (
            pickle.dumps({"split": {"train": [1]}, "annotations": [annotation()]}),
            "clips that are no names",
        ),
        "other keys": (pickle.dumps({"data": 1, 2: 3}), "has the keys data, int"),
    }
    return {name: (content, NAME) for name, content in calls.items()} | others


@pytest.mark.parametrize("name", hostile(""))
def test_nothing_runs_and_the_file_is_named_in_one_line(name, tmp_path):
    canary = tmp_path / "canary"
    content, reason = hostile(str(canary))[name]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(InputError, match=reason or None) as error:
        read(path)
    assert not canary.exists()
    assert str(error.value).startswith(str(path))
    assert len(str(error.value).splitlines()) == 1
    assert time.monotonic() - start < 30


def test_the_unpickler_itself_refuses_without_a_process(tmp_path):
    canary = tmp_path / "canary"
    for name in (
        "os.system",
        "builtins.eval",
        "in an object array",
        "pickle.loads",
        "instance opcode",
    ):
        with pytest.raises(pickles.Forbidden):
            plain(hostile(str(canary))[name][0])
    assert not canary.exists()


def test_the_reader_imports_nothing_of_ours(tmp_path):
    path = write(tmp_path / "x.pkl", [annotation()])
    code = (
        "import sys, runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__'); "
        "print(sorted(sys.modules))"
    )
    script = ROOT / "datasets" / "importers" / "reader.py"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, script, "annotations", path, tmp_path, "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'pickles'" in done.stdout
    assert (tmp_path / "index.json").is_file()
    for ours in ("errors", "files", "datasets", "torch", "cv2"):
        assert f"'{ours}'" not in done.stdout


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_are_read_or_refused(data):
    """In this process, the harder test: no crash, only exceptions that the reader catches."""
    good = bytearray(
        pickle.dumps(
            {"split": {"train": ["a"]}, "annotations": [annotation()]},
            data.draw(st.sampled_from(list(PROTOCOLS))),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(good) - 1))
        kind = data.draw(st.sampled_from(["byte", "cut", "drop", "insert"]))
        if kind == "byte":
            good[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del good[max(place, 1) :]
        elif kind == "drop":
            del good[place : place + data.draw(st.integers(1, 20))]
        else:
            good[place:place] = data.draw(st.binary(max_size=12))
        good = good or bytearray(b".")
    # The reader's process catches every Exception; what else there is would end the test.
    with contextlib.suppress(Exception):
        reader.parts(plain(bytes(good)))
