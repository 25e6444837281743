"""Locks that processes of one machine hold on files, which the system lifts when a process ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_POLL_SECONDS = 0.05


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, waiting for others; the system lifts it when the process ends.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(
            f"{path.parent} cannot be written ({error.strerror}): name another folder with "
            "--shard_cache"
        ) from None
    try:
        while not take(lock, exclusive=True):
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)


def take(descriptor: int, *, exclusive: bool) -> bool:
    """Take a lock on an open file if nobody holds one against it; say whether that went."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextmanager
def reading(path: Path, num_bytes: int) -> Iterator[IO[bytes] | None]:
    """Open a kept shard so that nobody removes it; None where it is not there."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name another folder with --shard_cache"
        ) from None
    with file:
        while not take(file.fileno(), exclusive=False):  # it is being removed, or looked at
            time.sleep(_POLL_SECONDS / 10)
        status = os.fstat(file.fileno())
        is_whole = status.st_size == num_bytes and status.st_nlink > 0
        if is_whole:
            with suppress(OSError):  # what is read last goes last
                os.utime(path)
        yield file if is_whole else None


def is_there(path: Path, num_bytes: int) -> bool:
    """Say whether a file is there at its full length."""
    try:
        return path.stat().st_size == num_bytes
    except OSError:
        return False


def removed(path: Path) -> bool:
    """Remove a shard unless somebody reads it."""
    try:
        with path.open("rb") as file:
            if not take(file.fileno(), exclusive=True):
                return False
            path.unlink()
    except OSError:
        return False
    return True


def was_killed(partial: Path) -> bool:
    """Say whether nobody fetches what a partial file is of; then it is removed."""
    name = partial.name.removeprefix(".").removesuffix(".partial")
    try:
        lock = os.open(partial.with_name(f".{name}.lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        if fcntl is None or not take(lock, exclusive=True):
            return False
        partial.unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
