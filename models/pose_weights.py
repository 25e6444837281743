"""Weights files of pose estimators: found, fetched when that is asked for, and identified."""

import hashlib
import http.client
import urllib.request
from pathlib import Path

import numpy as np

from errors import InputError
from files import replacing

_SECONDS = 30
_CHUNK = 1 << 20


def find_weights(
    path: Path, what: str, address: str, *, url: str | None = None, sha256: str = ""
) -> str:
    """Make sure that a weights file is there and return its SHA-256 as 64 hex digits.

    Args:
        path: the file.
        what: it should be, for messages, with its licence.
        address: where a user gets it.
        url: fetched to `path` when the file is not there; None never reaches for the network.
        sha256: first digits that a fetched file must have; "" when not known.

    Raises:
        InputError: it is not there, or cannot be fetched or read.
    """
    if not path.is_file():
        if url is None:
            raise InputError(
                f"{path} is not there, it should be {what}: get it from {address} and give its "
                "path with --pose_weights"
            )
        _fetch(url, path, sha256)
    return sha256_of(path)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its rights") from None


def check_frames(frames: np.ndarray) -> None:
    """Make sure that frames are what an estimator takes.

    Raises:
        ValueError: they are not (T, H, W, 3) uint8.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"the frames are {frames.shape} {frames.dtype}, the estimator takes (T, H, W, 3) "
            "uint8 RGB"
        )


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _fetch(url: str, path: Path, sha256: str) -> None:
    digest = hashlib.sha256()
    way_out = f"download it elsewhere and give its path with --pose_weights ({url})"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer, replacing(path) as file:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            expected = answer.headers.get("Content-Length")
            if expected is not None and file.tell() != int(expected):
                raise InputError(
                    f"{path} could not be downloaded: {file.tell()} of {expected} bytes came; "
                    f"try again, or {way_out}"
                )
            if not digest.hexdigest().startswith(sha256):
                raise InputError(
                    f"{path} could not be downloaded: its SHA-256 begins with "
                    f"{digest.hexdigest()[: len(sha256)]} and should with {sha256}; {way_out}"
                )
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not there and cannot be downloaded ({reason_of(error)}): {way_out}"
        ) from None
