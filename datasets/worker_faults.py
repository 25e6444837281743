"""What a loader says to users about workers that died, and about what they lack."""

import errno
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from errors import InputError

_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
_NO_ROOM = ("shared memory", "(shm)", "unable to mmap")
_NO_MEMORY = ("can't allocate memory", "insufficient memory", "cannot allocate memory")


def is_no_memory(error: BaseException) -> bool:
    """Say whether memory could not be had: numpy, OpenCV and torch have an error each for it."""
    return isinstance(error, MemoryError) or _says(error, _NO_MEMORY)


def is_no_room(error: BaseException) -> bool:
    """Say whether shared memory could not be had."""
    return isinstance(error, RuntimeError) and _says(error, _NO_ROOM)


def _says(error: BaseException, texts: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(text in said for text in texts)


def say_death(name: str, doing: str, code: int, others: int) -> InputError:
    """Return the line about a worker that has ended.

    Args:
        name: of the worker.
        doing: what it was doing, to follow "while"; "" if it had no clip.
        code: exit code as of `multiprocessing`: a negative signal, or a number.
        others: workers that have ended too.
    """
    reason, advice = _cause(code)
    if not doing:
        doing = "it had no clip"
        if code not in (-signal.SIGKILL, -getattr(signal, "SIGBUS", 0)):
            advice = "run the same command again, with --workers 0 if that repeats itself"
    also = f", and {others} more ended" if others else ""
    return InputError(f"{name} {reason} while {doing}{also}: {advice}")


def _cause(code: int) -> tuple[str, str]:
    """Return what an exit code of a worker says, and what to do."""
    again = "then run the same command again"
    if code == -signal.SIGKILL:
        return (
            "was killed (signal 9)",
            "most likely memory ran out; use fewer --workers or a smaller --batch-size, or end "
            f"other programs, {again}",
        )
    if code == -getattr(signal, "SIGBUS", 0):
        return f"was ended by signal {-code} (SIGBUS)", _room_advice()
    if code in (-signal.SIGTERM, -signal.SIGINT):
        return (
            f"was ended by signal {-code}",
            f"somebody stopped it; {again.removeprefix('then ')}",
        )
    reason = f"crashed (signal {-code})" if code < 0 else f"ended by itself (exit code {code})"
    return (
        reason,
        "its file is damaged, or what reads it has a fault; check it with tools/check_dataset.py, "
        f"leave it out or prepare it anew, {again}",
    )


def say_no_room(what: str, error: object) -> InputError:
    """Return the line about something that finds no shared memory."""
    return InputError(f"{what} ({error}): {_room_advice()}")


def say_not_sent(worker: int, fault: str) -> Exception:
    """Return why a batch of a worker did not arrive: an `InputError` if users can help."""
    error = RuntimeError(f"loader worker {worker} cannot hand over a batch: {fault}")
    return say_shortage(error) or error


def _room_advice() -> str:
    room = ""
    with suppress(OSError):
        usage = shutil.disk_usage(_SHARED)
        room = f" ({usage.free >> 20} of {usage.total >> 20} MiB are free)"
    return (
        f"most likely shared memory {_SHARED}{room} is full; give it more room (docker run "
        "--shm-size=8g), or use fewer --workers or a smaller --batch-size"
    )


def say_shortage(error: Exception) -> InputError | None:
    """Return what this process lacks to receive a batch, if that is what an error says."""
    text = next(iter(str(error).strip().splitlines()), "")
    if not isinstance(error, (OSError, RuntimeError, MemoryError)) or text.startswith("Caught "):
        return None
    is_many = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
    if is_many or "open files" in text or "ancdata" in text:
        return InputError(
            f"too many files are open to hand over batches ({text}): allow more with ulimit -n "
            "65536 before the command, or use fewer --workers"
        )
    if is_no_room(error):
        return say_no_room("a batch finds no place in shared memory", text)
    if is_no_memory(error):
        return InputError(
            f"there is not enough memory for the loader ({text or 'none is left'}): use fewer "
            "--workers or a smaller --batch-size, or end other programs"
        )
    return None
