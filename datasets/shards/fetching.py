"""Where shards lie: in a folder, or behind a URL or a command, from which they are fetched whole.

Fetched shards are kept in a folder of limited size that all processes of a machine share. A shard
gets its name when its length and SHA-256 are right; who reads one holds a lock on it, and what
nobody reads goes first when room is needed, least recently used before others.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol, TypeVar

import numpy as np

from datasets.shards.index import StoredFile
from datasets.shards.locks import is_there, locked, reading, removed, was_killed
from errors import InputError
from files import open_regular, partial_of, replacing

_Result = TypeVar("_Result")
_EXIT = re.compile(r": exit (-?\d+) ")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.ASCII)
_PIECE = 2**20
_TRIES = 3
# Shards that an order by shards mixes, see `datasets.order`, and the first of the next ones.
_AT_ONCE = 9
_PAUSE_SECONDS = 1.0
_POLL_SECONDS = 0.05
# How long to wait for room that other processes hold, before it is said.
_PATIENCE_SECONDS = 600.0


class _FetchError(Exception):
    """A file did not come whole; the reason follows its name."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A place that is no folder.

    Attributes:
        location: URL that names are appended to, or a template with {} for the name; what begins
            with "pipe:" is a command of the user's own.
    """

    location: str

    def url(self, name: str) -> str:
        """Return what to open for a file; `name` is one of the plain names of an index."""
        if "{}" in self.location:
            return self.location.replace("{}", name)
        return f"{self.location.rstrip('/')}/{name}"

    @property
    def shown(self) -> str:
        """Return the location for messages, without what may be a secret in a query."""
        return self.location.partition("?")[0]

    def read(self, name: str, most: int) -> bytes:
        """Return a small file.

        Raises:
            InputError: it does not come, or is longer than `most` bytes.
        """
        return self._tried(name, lambda: b"".join(self._pieces(name, most)))

    def copy(self, stored: StoredFile, path: Path, claim: Callable[[], None] | None = None) -> None:
        """Write a file to `path` if it is the one that the index describes; else try again.

        Args:
            stored: the file.
            path: its place.
            claim: makes room for it, before each try.

        Raises:
            InputError: it does not come, or is another one, or there is no room for it.
        """
        self._tried(stored.name, lambda: self._copy(stored, path, claim))

    def _copy(self, stored: StoredFile, path: Path, claim: Callable[[], None] | None) -> None:
        if claim is not None:
            claim()
        digest, total = hashlib.sha256(), 0
        try:
            with replacing(path) as file:
                file.truncate(stored.num_bytes)  # says to others how much room will be taken
                for piece in self._pieces(stored.name, stored.num_bytes):
                    digest.update(piece)
                    total += len(piece)
                    file.write(piece)
                if total != stored.num_bytes:
                    raise _FetchError(f"ends after {total:,} of {stored.num_bytes:,} bytes")
                if digest.hexdigest() != stored.sha256:
                    raise _FetchError("has another SHA-256 than the index says")
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror}): make room there, or name another "
                "folder with --shard_cache"
            ) from None

    def _pieces(self, name: str, most: int) -> Iterator[bytes]:
        """Yield what comes, at most `most` bytes."""
        from webdataset import gopen  # loads torch

        total = 0
        try:
            with gopen(self.url(name), "rb", bufsize=_PIECE) as stream:
                while piece := stream.read(_PIECE):
                    total += len(piece)
                    if total > most:
                        raise _FetchError(f"has more than {most:,} bytes")
                    yield piece
        except (_FetchError, GeneratorExit):
            raise
        except Exception as error:  # noqa: BLE001 - any library may stand behind a URL
            raise _FetchError(f"does not come ({self._reason(error)})") from None

    def _reason(self, error: Exception) -> str:
        """Return why a file does not come, without the query of the location."""
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        ended = _EXIT.search(text)  # as webdataset says of a command, which it repeats in full
        if ended:
            return f"what fetches it ends with exit code {ended[1]}"
        query = self.location.partition("?")[2]
        return (text.replace(query, "...") if query else text)[:200]

    def _tried(self, name: str, action: Callable[[], _Result]) -> _Result:
        for number in range(1, _TRIES + 1):
            try:
                return action()
            except _FetchError as error:
                reason = str(error)
                time.sleep(_PAUSE_SECONDS * number if number < _TRIES else 0)
        raise InputError(
            f"{name} from {self.shown} {reason}, {_TRIES} times: see whether it is there and can "
            "be reached, then start the same command again"
        )


def is_remote(location: str) -> bool:
    """Say whether a location is a URL or a command; what is neither is a folder."""
    return "{}" in location or _SCHEME.match(location) is not None


class ShardStore(Protocol):
    """Where the bytes of shards come from."""

    def path(self, shard: int) -> Path:
        """Return the file of a shard, for messages; it need not be there."""

    def read(self, shard: int, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a shard, each given by its place and length.

        Raises:
            InputError: they cannot be read whole.
        """

    def remedy(self, shard: int) -> str:
        """Return the way out where what a shard holds cannot be used."""


@dataclass(frozen=True, slots=True)
class LocalShards:
    """Shards in a folder: a `ShardStore`. Files are open only while they are read."""

    folder: Path
    shards: tuple[StoredFile, ...]

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / self.shards[shard].name

    def read(self, shard: int, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a shard; see `ShardStore`."""
        path = self.path(shard)
        try:
            with open_regular(path) as file:
                return _read_spans(path, file, spans)
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}): copy the packed data set again"
            ) from None

    def remedy(self, shard: int) -> str:
        """Return how to find what is wrong; see `ShardStore`."""
        return (
            f"compare with tools/pack_dataset.py --verify {self.path(shard).parent}, and copy the "
            "shard or pack the data set again"
        )


def _read_spans(path: Path, file: IO[bytes], spans: Sequence[tuple[int, int]]) -> list[bytes]:
    parts = []
    for start, length in spans:
        file.seek(start)
        part = file.read(length)
        if len(part) < length:
            raise InputError(
                f"{path} is cut short, it should go on after {start + len(part):,} bytes: copy it "
                "again"
            )
        parts.append(part)
    return parts


@dataclass(frozen=True, slots=True)
class CachedShards:
    """Shards that are fetched when they are first needed: a `ShardStore`.

    Attributes:
        remote: where they come from.
        folder: where they are kept, one data set.
        shards: all of them.
        base: folder of `folder`, whose shards together take at most `most` bytes.
        most: bytes.
    """

    remote: Remote
    folder: Path
    shards: tuple[StoredFile, ...]
    base: Path
    most: int

    def path(self, shard: int) -> Path:
        """Return where a shard is kept."""
        return self.folder / self.shards[shard].name

    def read(self, shard: int, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a shard; it is fetched if it is not here. See `ShardStore`."""
        path = self.path(shard)
        while True:
            with reading(path, self.shards[shard].num_bytes) as file:
                if file is not None:
                    return _read_spans(path, file, spans)
            self._fetch(shard)

    def remedy(self, shard: int) -> str:
        """Return the way out; a kept shard that is not as it was packed is removed."""
        path, stored = self.path(shard), self.shards[shard]
        try:
            with path.open("rb") as file:
                is_whole = hashlib.file_digest(file, "sha256").hexdigest() == stored.sha256
            if not is_whole:
                path.unlink()
        except OSError:  # another process has removed it
            is_whole = False
        if is_whole:
            return f"so it is at {self.remote.shown} too: pack the data set again"
        return "what was kept of its shard was damaged and is removed, run the same command again"

    def check_room(self, needed: np.ndarray, *, by_shards: bool, shuffled: bool) -> None:
        """Make sure that shards need not be fetched over and over in one epoch.

        Args:
            needed: (n,) shard of each clip, in the order of the list.
            by_shards: whether a shuffled order goes shard by shard.
            shuffled: whether the order is shuffled; else it is that of the list.

        Raises:
            InputError: too few of them can be kept.
        """
        sizes = {shard: self.shards[shard].num_bytes for shard in np.unique(needed).tolist()}
        total = room = sum(sizes.values())
        if total <= self.most:
            return
        if shuffled and by_shards:
            room = sum(sorted(sizes.values())[-_AT_ONCE:])
        elif not shuffled:
            changes = int((np.diff(needed) != 0).sum()) + 1
            # In the order that they were packed in each is needed once.
            room = total if changes > 2 * len(sizes) else sum(sorted(sizes.values())[-2:])
        if room > self.most:
            way = ", or choose --shard_order shards" if shuffled and not by_shards else ""
            raise InputError(
                f"this order of clips needs {room / 1e9:.3g} GB of shards at hand, "
                f"--shard_cache_gb {self.most / 1e9:g} would fetch them over and over: raise it"
                f"{way}"
            )

    def _fetch(self, shard: int) -> None:
        """Fetch a shard, unless another process does so meanwhile."""
        stored, path = self.shards[shard], self.path(shard)
        with locked(path.with_name(f".{path.name}.lock")):
            if is_there(path, stored.num_bytes):
                return
            claim = partial(self._make_room, stored.num_bytes, partial_of(path))
            self.remote.copy(stored, path, claim)

    def _make_room(self, needed: int, place: Path) -> None:
        """Remove shards that nobody reads until `needed` more bytes may be kept, and claim them.

        Raises:
            InputError: the limit is less than that, or others do not let go of their shards.
        """
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with locked(self.base / ".room.lock"):
                if needed <= self.most and self._shrink(needed, place):
                    self._claim(needed, place)
                    return
            if needed > self.most or time.monotonic() > end:
                raise InputError(
                    f"{self.base} may hold {self.most / 1e9:.3g} GB of shards, too little for one "
                    f"more of {needed / 1e9:.3g} GB: raise --shard_cache_gb"
                )
            time.sleep(_POLL_SECONDS * 4)

    @staticmethod
    def _claim(needed: int, place: Path) -> None:
        try:
            with place.open("wb") as file:
                file.truncate(needed)
        except OSError as error:
            raise InputError(
                f"{place.parent} cannot be written ({error.strerror}): name another folder with "
                "--shard_cache"
            ) from None

    def _shrink(self, needed: int, own: Path) -> bool:
        """Remove shards until there is room for `needed` more bytes; say whether that went."""
        most = self.most - needed
        kept = []
        total = 0
        # What is being fetched first: one that gets its name meanwhile is then counted as a shard.
        for path in list(self.base.glob("*/.*.tar.partial")):
            if path != own and not was_killed(path):
                with suppress(OSError):
                    # One that has just been opened says nothing yet; shards are about alike.
                    total += max(path.stat().st_size, needed)
        for path in self.base.glob("*/*.tar"):
            with suppress(OSError):
                status = path.stat()
                kept.append((status.st_mtime_ns, status.st_size, path))
        total += sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= most:
                break
            if removed(path):
                total -= size
        return total <= most
