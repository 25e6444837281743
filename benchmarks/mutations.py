"""Honest files made wrong: bytes, lines, numbers, JSON values, members of archives, headers.

Everything is a function of the generator that is given, so that a case can be had again.
"""

import contextlib
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?")
_NUMBERS = (
    b"-1", b"0", b"1", b"1e400", b"-1e400", b"nan", b"inf", b"-0", b"2147483648", b"4294967296",
    b"9223372036854775808", b"1" * 30, b"9" * 5000, b"1_000", b"+1", b"0x10", b"1.5", b"1e3",
    "\u0661".encode(), b"00", b"1e-400", b"- 1", b"",
)  # fmt: skip
_WORDS = (
    b"\0", b"\r\n", b"\r", b"\n", b"\t", b'"', b"'", b'""', b",", b";", b"#", b"# ", b"../", b"/",
    b"/dev/zero", b"/etc/passwd", b"..\\", b"~", b"C:\\x", b"%00", b"${HOME}", b"$(touch x)",
    b"=cmd|' /C calc'!A0", b"@SUM(1)", b"+1", b"-1", b"<script>alert(1)</script>", b"{{7*7}}",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80",
    "\u202e".encode(), "\u2028".encode(), "\x85".encode(), "\u0130".encode(), b"\x1b[31m", b" ",
    b"a" * 300, b"a" * 5000, b"x/" * 600, b"[" * 3000, b"{" * 3000, b"\\ud800", b"\\u0000",
    b"# classes: [1" + b"0" * 5000 + b"]\n", b'# classes: ["\\ud800"]\n', b"# classes: {}\n",
    b"null", b"true", b"[]", b"{}", b'"x"', b"NaN", b"Infinity", b"-Infinity", b"file:", b"http://",
)  # fmt: skip
_MARKERS = tuple(bytes([0xFF, code]) for code in (0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD))
_WIDE = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_STRANGE: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1.5, 1e308, -1e308, float("nan"),
    float("inf"), "", "x", "\ud800", "\0", "\n", "a" * 2000, "../..", "<b>", [], {}, [[]], [None],
    {"x": 1}, [1, "a"], "1", "nan", [1e308, 1e308], [float("nan")],
)  # fmt: skip

Change = Callable[[np.random.Generator, bytes], bytes]


def mutate(rng: np.random.Generator, seeds: Sequence[bytes]) -> bytes:
    """Return one of the files with one to six changes."""
    data = seeds[int(rng.integers(len(seeds)))]
    for change in _choose(rng, data):
        for _ in range(int(rng.geometric(0.5))):
            data = change(rng, data)
    return data if len(data) < 2**24 else data[: 2**24]


def _choose(rng: np.random.Generator, data: bytes) -> list[Change]:
    """Return the changes of a case: mostly one kind, so that the rest of the file stays honest."""
    kinds: list[Change] = [_raw]
    if data.startswith(b"PK\x03\x04"):
        kinds = [_member, _member, _member, _central, _raw]
    elif data.startswith(b"\x93NUMPY"):
        kinds = [_npy, _npy, _npy, _raw]
    elif data[:1] in (b"{", b"["):
        kinds = [_json, _json, _token, _raw]
    elif _is_text(data):
        kinds = [_token, _line, _number, _raw]
    elif data.startswith(b"\xff\xd8"):
        kinds = [_raw, _raw, _raw, _marker]
    elif data[8:9] == b"{":  # safetensors
        kinds = [_token, _number, _length, _raw]
    count = 1 if rng.random() < 0.8 else 2
    return [kinds[rng.integers(len(kinds))] for _ in range(count)]


def _is_text(data: bytes) -> bool:
    head = data[:2000]
    return bool(head) and b"\0" not in head and sum(byte < 9 for byte in head) == 0


# ---------------------------------------------------------------- bytes


def _raw(rng: np.random.Generator, data: bytes) -> bytes:
    if not data:
        return rng.bytes(int(rng.integers(1, 40)))
    place = int(rng.integers(len(data)))
    length = int(min(len(data) - place, rng.geometric(0.1)))
    before, part, after = data[:place], data[place : place + length], data[place + length :]
    wide = _WIDE[rng.integers(len(_WIDE))]
    parts = (
        bytes([part[0] ^ (1 << int(rng.integers(8)))]) + part[1:],  # a flipped bit
        bytes([int(rng.integers(256))]) + part[1:],
        b"",
        rng.bytes(length) + part,
        part * int(rng.integers(2, 50)),
        bytes(length),
        struct.pack(rng.choice(["<I", ">I"]), wide),
    )
    choice = int(rng.integers(len(parts) + 1))
    return before if choice == len(parts) else before + parts[choice] + after


def _marker(rng: np.random.Generator, data: bytes) -> bytes:
    place = int(rng.integers(len(data) + 1))
    marker = _MARKERS[rng.integers(len(_MARKERS))]
    return data[:place] + marker + rng.bytes(2) + data[place + 4 * int(rng.integers(2)) :]


def _length(rng: np.random.Generator, data: bytes) -> bytes:
    wide = int(rng.choice([0, 1, len(data), 2**31, 2**40])) + int(rng.integers(-9, 9))
    return struct.pack("<Q", max(wide, 0)) + data[8:]


# ---------------------------------------------------------------- text


def _token(rng: np.random.Generator, data: bytes) -> bytes:
    place = int(rng.integers(len(data) + 1))
    words = _WORDS if rng.random() < 0.7 else _NUMBERS
    return data[:place] + words[rng.integers(len(words))] + data[place:]


def _number(rng: np.random.Generator, data: bytes) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return _token(rng, data)
    match = found[rng.integers(len(found))]
    words = _NUMBERS if rng.random() < 0.7 else _WORDS
    return data[: match.start()] + words[rng.integers(len(words))] + data[match.end() :]


def _line(rng: np.random.Generator, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = int(rng.integers(len(lines)))
    kind = int(rng.integers(6))
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    elif kind == 2:
        lines[place] = _token(rng, lines[place])
    elif kind == 3:
        rng.shuffle(lines)
    elif kind == 4:
        lines[place] = lines[place].replace(rng.choice([b" ", b","]), rng.choice([b"", b"\t"]))
    else:
        return data.decode("utf-8", "replace").encode(
            str(rng.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"])), "replace"
        )
    return b"\n".join(lines)


# ---------------------------------------------------------------- JSON


def _json(rng: np.random.Generator, data: bytes) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _token(rng, data)
    return json.dumps(_altered(rng, value)).encode()


def _altered(rng: np.random.Generator, value: object) -> object:
    """Return a value with one part of it replaced, dropped or repeated."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return _STRANGE[rng.integers(len(_STRANGE))]
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = keys[int(rng.integers(len(keys)))]
    if rng.random() < 0.15:
        return _without(value, key)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = _altered(rng, value[key])  # type: ignore[index,call-overload]
    return copy


def _without(value: dict | list, key: object) -> object:
    if isinstance(value, dict):
        return {name: kept for name, kept in value.items() if name != key}
    return [kept for index, kept in enumerate(value) if index != key]


# ---------------------------------------------------------------- arrays and archives


def _npy(rng: np.random.Generator, data: bytes) -> bytes:
    """Change the header of an .npy, its length kept right, or what follows it."""
    size = int.from_bytes(data[8:10], "little")
    head, body = data[10 : 10 + size], data[10 + size :]
    kind = int(rng.integers(5))
    if kind == 0:
        types = ("<f2", "<f8", ">f4", "<c8", "|O", "<U9", "|S5", "<M8[s]", "|V4", "?", "<i8", "<u1")
        head = re.sub(rb"'[<>|=][^']*'", f"'{rng.choice(types)}'".encode(), head, count=1)
    elif kind == 1:
        head = _number(rng, head)
    elif kind == 2:
        head = _token(rng, head)
    elif kind == 3:
        values = np.array([np.nan, np.inf, -1, 1e30, 0], "<f4")
        body = body[: len(body) // 2] + values.tobytes() + body[len(body) // 2 + 20 :]
    else:
        body = _raw(rng, body)
    return data[:8] + struct.pack("<H", min(len(head), 65535)) + head[:65535] + body


def _member(rng: np.random.Generator, data: bytes) -> bytes:
    """Change a member of an archive, or the list of members, with right check sums."""
    members = _members(data)
    if not members:
        return _raw(rng, data)
    place = int(rng.integers(len(members)))
    name, content = members[place]
    kind = int(rng.integers(10))
    if kind == 0:
        del members[place]
    elif kind == 1:
        members.append((name, content[: len(content) // 2]))
    elif kind == 2:
        members[place] = (rng.choice(["x", "../x", "/x", "keypoints.npy", "\u00e9", ""]), content)
    else:
        is_array = content.startswith(b"\x93NUMPY")
        change = _npy if is_array else (_token if _is_text(content) else _raw)
        members[place] = (name, change(rng, content))
    return _zipped(members)


def _members(data: bytes) -> list[tuple[str, bytes]]:
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]
    return []


def _zipped(members: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(str(name) or "-"), content)
    return file.getvalue()


def _central(rng: np.random.Generator, data: bytes) -> bytes:
    """Change what an archive says of its members: sizes, methods, places, flags."""
    starts = [match.start() for match in re.finditer(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", data)]
    if not starts:
        return _raw(rng, data)
    place = int(starts[rng.integers(len(starts))]) + int(rng.integers(4, 46))
    changed = bytearray(data)
    wide = struct.pack("<I", _WIDE[rng.integers(len(_WIDE))])[: int(rng.choice([1, 2, 4]))]
    changed[place : place + len(wide)] = rng.choice([wide, bytes([14, 0]), bytes([99, 0])])
    return bytes(changed)
