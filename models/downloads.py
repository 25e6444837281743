"""Published weights by name: found, fetched once, whole or not at all, and compared."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch

from console import say
from errors import InputError, printable
from files import open_regular, replacing
from models.reading import read_checkpoint
from models.skeleton.catalogue import PublishedWeights, find_published, nearest_names
from models.weight_files import FileFault

_CHUNK = 2**20
# The largest of them has 150 MB.
_MOST_BYTES = 2**31
# What files of weights are called: such a text is a path, not a name.
_ENDINGS = (".pth", ".pt", ".tar", ".safetensors", ".bin", ".ckpt", ".onnx")


def weights_folder() -> Path:
    """Return where downloaded weights lie: beside those of torch."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def published_entry(text: str | Path) -> PublishedWeights | None:
    """Return the published weights that a text names; None where it is a file, or names none."""
    with suppress(OSError, ValueError):  # of a text that no path can be
        if Path(text).exists():
            return None
    return find_published(_as_name(text))


def _as_name(text: str | Path) -> str:
    # What became a path has lost a slash of "https://".
    return Path(text).as_posix().replace(":/", "://", 1)


def resolve_weights(text: str | Path, *, seconds: float = 30, most_seconds: float = 1800) -> Path:
    """Return the file that a text names: a path, or published weights, which are then fetched.

    Args:
        text: a path; or a name of `models.skeleton.catalogue`, such as
            "stgcnpp/ntu60-xsub-2d-joint", the name of its file or its URL.
        seconds: that a server may be silent.
        most_seconds: that a download may take.

    Returns:
        The file. A path that looks like a file of weights is returned even if nothing is there.

    Raises:
        InputError: no such weights, or they can be neither found nor fetched, or are not those
            that were published.
    """
    path = Path(text)
    with suppress(OSError, ValueError):  # of a text that no path can be
        if path.exists():
            return path
    name = _as_name(path)
    entry = find_published(name)
    if entry is None:
        if path.name.lower().endswith(_ENDINGS) and "://" not in name:
            return path
        raise InputError(
            f"{printable(name)[:200]} is neither a file nor the name of published weights: give "
            f"the path of a checkpoint, or a name such as {', '.join(nearest_names(name))}"
        )
    found = weights_folder() / entry.file_name
    if not found.exists():
        _fetch(entry, found, seconds, time.monotonic() + most_seconds)
    elif entry.sha256 and not (digest := _digest(found)).startswith(entry.sha256):
        raise InputError(
            f"{found} is damaged: its SHA-256 begins with {digest[:8]}, that of {entry.name} with "
            f"{entry.sha256}: delete the file to download it again from {entry.url}"
        )
    return found


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its rights") from None


def _fetch(entry: PublishedWeights, path: Path, seconds: float, deadline: float) -> None:
    """Download weights to `path`, unless it comes to be there meanwhile.

    Raises:
        InputError: they do not come, not in time, not whole, or are others.
    """
    # Several processes may want them at once: each writes a file of its own.
    mine = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(entry.url, timeout=seconds) as answer, replacing(mine) as file:
            digest = _copy(answer, file, deadline)
            if not digest.startswith(entry.sha256):
                raise OSError(
                    f"what came is another file: its SHA-256 begins with {digest[:8]}, not with "
                    f"{entry.sha256}"
                )
        _check(mine)
        mine.replace(path)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer, too
        with suppress(OSError):
            mine.unlink(missing_ok=True)
        raise InputError(
            f"the weights {entry.name} are not in {path.parent} and cannot be downloaded from "
            f"{entry.url} ({_reason(error)}): put the file there by hand, named {path.name}"
        ) from None
    check = "compared" if entry.sha256 else f"none is published to compare; this one: {digest}"
    say(f"downloaded {entry.name} ({entry.toolbox}) to {path}, SHA-256 {check}")


def _check(path: Path) -> None:
    """Make sure that what came is a checkpoint: a server may answer with a page, or nothing.

    Raises:
        OSError: it is none.
    """
    try:
        read_checkpoint(path)
    except FileFault as error:
        raise OSError(f"what came {error.fault}") from None


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0][:200] if lines else type(error).__name__)


def _copy(answer: http.client.HTTPResponse, file: IO[bytes], deadline: float) -> str:
    """Copy an answer to a file and return its SHA-256 as 64 hex digits."""
    digest, size = hashlib.sha256(), 0
    while chunk := answer.read1(_CHUNK):
        size += len(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {size:,} bytes came in time")
        if size > _MOST_BYTES:
            raise OSError(f"more than {_MOST_BYTES:,} bytes came")
        digest.update(chunk)
        file.write(chunk)
    expected = answer.headers.get("Content-Length")
    if expected is not None and size != int(expected):
        raise OSError(f"{size:,} of {int(expected):,} bytes came")
    return digest.hexdigest()
