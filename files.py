"""Files that are there whole or not at all, and links to files that belong to somebody else."""

import errno
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Literal

from errors import InputError, printable

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LinkMode = Literal["hard", "copy", "symlink"]

# What a hard link cannot do (another file system, one without links, a foreign owner): copy then.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EACCES}
_BINARY = getattr(os, "O_BINARY", 0)


def partial_of(path: Path) -> Path:
    """Return where a file or folder is written before it gets its name."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when the block ends without an error.

    A program that is killed leaves `partial_of(path)`, which the next one overwrites.
    """
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.filename is None and error.errno is not None:  # as when the disk is full
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with plain line ends, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def holds(path: Path, data: bytes) -> bool:
    """Say whether `path` is a regular file with this content; then it need not be written."""
    try:
        return path.stat().st_size == len(data) and read_regular(path, len(data)) == data
    except OSError:
        return False


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON so that `path` is never half a file."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; never wait for a pipe, never drain a device.

    Raises:
        OSError: it cannot be opened, or is not a regular file (EINVAL).
    """
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path to open
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        yield file


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append a JSON object to a file of lines, to stay there.

    A program that is killed meanwhile leaves a last line without an end.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_regular(path: Path, most: int) -> bytes:
    """Read a regular file of at most `most` bytes; never wait for a pipe, never drain a device.

    Raises:
        OSError: it cannot be read, is not a regular file (EINVAL), or is larger (EFBIG).
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        # Not `most` + 1 bytes: as much memory would be asked for, and given back.
        data = file.read(min(size, most) + 1)
        if len(data) > size:  # it grows, or its size is not known
            data += file.read(most + 1 - len(data))
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def sync_folder(path: Path) -> None:
    """Make the names in a folder outlast a loss of power, where the system can."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows does not open folders
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` when the block ends without an error.

    `path` must not be there yet.
    """
    partial = partial_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def link_file(source: Path, target: Path, mode: LinkMode = "hard") -> bool:
    """Make `target` hold what `source` holds; return whether it was copied.

    A hard link that the file system refuses becomes a copy. A symbolic link is absolute.
    """
    if mode == "symlink":
        target.symlink_to(source.resolve())
        return False
    if mode == "hard":
        try:
            os.link(source.resolve(), target)
            return False
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
    try:
        shutil.copy2(source, target)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # named after the source otherwise
            raise OSError(error.errno, error.strerror, str(target)) from None
        raise
    return True


@contextmanager
def alone_in(folder: Path, seconds: float = 3.0) -> Iterator[None]:
    """Keep other programs that ask for the same out of a folder, which is made.

    The system lifts the lock when the process ends, however it ends. Processes that are forked
    meanwhile hold it too: after a kill they may live on for a moment.

    Args:
        folder: to work in.
        seconds: to wait for another program to end.

    Raises:
        InputError: another program is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:  # a system without such locks
        yield
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        _wait_for(lock, folder, seconds)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, folder: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise InputError(
                    f"{folder} is being written by another program of ours: wait until it has "
                    "ended, or stop it"
                ) from None
            time.sleep(0.05)
        except OSError:  # a file system without locks
            return


# Locks that this process holds: those of the system do not keep a process out of its own files.
_held: set[tuple[int, int, int]] = set()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which stays and says who has it.

    The system lifts the lock when this process ends, however it ends; processes that are forked
    meanwhile do not hold it. Closing another handle of the file in this process would lift it too.

    Raises:
        InputError: another program has it, or this one already.
        OSError: the file cannot be made.
    """
    if fcntl is None:  # a system without such locks
        yield
        return
    place = path.parent.stat()
    key = (os.getpid(), place.st_dev, place.st_ino)
    if key in _held:
        raise InputError(_in_use(path, f"process {os.getpid()}, this one"))
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        _take(descriptor, path)
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise InputError(_in_use(path, _holder(descriptor))) from None
    except OSError:  # a file system without locks
        return
    owner = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %X")}
    with suppress(OSError):  # as when the disk is full: only a message is the poorer
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _in_use(path: Path, who: str) -> str:
    return (
        f"{path.parent} is in use by {who}: wait until that has ended, or stop it (the lock is "
        f"{path.name})"
    )


def _holder(descriptor: int) -> str:
    """Say who holds a lock file, as far as it can be read."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        pid, host, since = (str(owner[key])[:60] for key in ("pid", "host", "since"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another program"
    return f"process {printable(pid)} on {printable(host)} since {printable(since)}"


def remove_partials(folder: Path) -> int:
    """Remove what killed programs left anywhere below `folder`; return how many there were."""
    found = sorted(folder.rglob(".*.partial")) if folder.is_dir() else []
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)
