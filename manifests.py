"""Manifests of checkpoints: which files a run has, and their SHA-256."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from files import read_regular, write_json

VERSION = 1
_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a checkpoint file.

    Attributes:
        sha256: 64 hexadecimal digits.
        bytes: size of the file.
        epoch, step: of the training state in it, where that has them.
        time: when it was written, as text.
    """

    sha256: str
    bytes: int
    epoch: int | None = None
    step: int | None = None
    time: str = ""

    @classmethod
    def of(cls, value: Any) -> Self:
        """Read an entry.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, dict):
            raise ValueError("an entry is no object")
        digest, size = value.get("sha256"), value.get("bytes")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError("an entry has no SHA-256")
        if type(size) is not int or size < 0:
            raise ValueError("an entry has no size")
        epoch, step = (v if type(v) is int else None for v in map(value.get, ("epoch", "step")))
        return cls(digest, size, epoch, step, str(value.get("time", ""))[:40])


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a run.

    Attributes:
        files: name -> what it names, or will when the program that wrote this has not been killed.
        replaced: name -> what it named before.
    """

    files: Mapping[str, Entry] = field(default_factory=dict)
    replaced: Mapping[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> tuple[Self, str]:
        """Read a manifest, whatever it holds.

        Returns:
            The manifest, empty if it cannot be read; and what is wrong with it, in words that
            follow its name.
        """
        try:
            value = json.loads(read_regular(path, _MOST_BYTES))
        except FileNotFoundError:
            return cls(), "is not there"
        except OSError as error:
            return cls(), f"cannot be read ({error.strerror or error})"
        except (ValueError, RecursionError):
            return cls(), "is damaged (no JSON)"
        try:
            return cls._of(value), ""
        except ValueError as error:
            return cls(), f"is damaged ({error})"

    @classmethod
    def _of(cls, value: Any) -> Self:
        if not isinstance(value, dict) or type(value.get("version")) is not int:
            raise ValueError("no manifest")
        if value["version"] != VERSION:
            raise ValueError(f"of version {str(value['version'])[:20]}, this is {VERSION}")
        parts = [value.get(name, {}) for name in ("files", "replaced")]
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("it lists no files")
        files, replaced = ({n: Entry.of(entry) for n, entry in part.items()} for part in parts)
        return cls(files, replaced)

    def find(self, digest: str) -> Entry | None:
        """Return the entry of a file with this SHA-256, whatever its name."""
        every = (*self.files.values(), *self.replaced.values())
        return next((entry for entry in every if entry.sha256 == digest), None)

    def write(self, path: Path) -> None:
        """Write the manifest, whole or not at all."""
        parts = {"files": self.files, "replaced": self.replaced}
        entries = {name: {n: asdict(e) for n, e in part.items()} for name, part in parts.items()}
        write_json(path, {"version": VERSION, **entries})


def now() -> str:
    """Return the time as entries have it, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
