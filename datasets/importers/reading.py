"""Run `reader.py`: hostile pickles meet it alone, in a process with limits."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets.importers.people import regular_file
from errors import InputError

_READER = Path(__file__).resolve().with_name("reader.py")
_MOST_BYTES = 32 * 2**30
# Seconds of one core for the smallest file, and bytes for each further second.
_SECONDS, _BYTES_PER_SECOND = 3, 20 * 2**20
# A small pickle takes less than a millisecond; one that means harm may take what all of its
# process have.
_VIDEOS_PER_SECOND = 50
_VIDEOS_PER_PROCESS = 1000
# Others may keep the machine busy meanwhile.
_PATIENCE = 10


def read_annotations(path: Path, folder: Path) -> dict[str, Any]:
    """Read an annotation pickle; its numbers go to `arrays.bin` in `folder`.

    Returns:
        The index, see `reader.py`.

    Raises:
        InputError: it is no annotation pickle, or asks for more than numbers and containers.
    """
    return _read_one("annotations", path, folder, "an annotation pickle")


def read_ddnet_file(path: Path, folder: Path) -> dict[str, Any]:
    """Read a pickle of DD-Net's; the same, with an index of poses and labels."""
    return _read_one("ddnet", path, folder, "a pickle of DD-Net, such as GT_train_1.pkl")


def _read_one(kind: str, path: Path, folder: Path, what: str) -> dict[str, Any]:
    size = regular_file(path, _MOST_BYTES)
    if not size:
        raise InputError(f"{path} is empty: give {what}")
    seconds = _SECONDS + size // _BYTES_PER_SECOND
    if not _run([kind, str(path.resolve()), str(folder), str(seconds)], folder, seconds):
        raise InputError(
            f"{path} broke the process that read it, or took it more than {seconds} seconds: leave "
            f"it alone, and give {what}"
        )
    index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    (folder / "index.json").unlink()
    if "fault" in index:
        raise InputError(f"{path} {one_line(index['fault'])}: give {what}")
    return index


def read_videos(paths: Sequence[Path], folder: Path) -> Iterator[dict[str, Any]]:
    """Read the pickles of single videos, many in a process, and yield what `reader.py` says.

    A pickle that breaks the process is left out, and those after it get another one.

    Args:
        paths: regular files.
        folder: their numbers are appended to `arrays.bin` in it.
    """
    for first in range(0, len(paths), _VIDEOS_PER_PROCESS):
        yield from _read_some(paths[first : first + _VIDEOS_PER_PROCESS], folder)


def _read_some(paths: Sequence[Path], folder: Path) -> Iterator[dict[str, Any]]:
    listed, log = folder / "videos.json", folder / "videos.jsonl"
    listed.write_text(json.dumps([str(path.resolve()) for path in paths]), encoding="utf-8")
    log.write_bytes(b"")
    total = sum(path.stat().st_size for path in paths)
    seconds = _SECONDS + len(paths) // _VIDEOS_PER_SECOND + total // _BYTES_PER_SECOND
    done = 0
    while done < len(paths):
        _run(["videos", str(listed), str(folder), str(seconds), str(done)], folder, seconds)
        with log.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break
                done += 1
                yield json.loads(line)
        log.write_bytes(b"")
        if done < len(paths):
            done += 1
            yield {"fault": "broke the process that read it, or took it too long: leave it alone"}
    listed.unlink()
    log.unlink()


def _run(arguments: list[str], folder: Path, seconds: int) -> bool:
    """Run the reader; return whether it came to its end."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_READER), *arguments],
            env={**os.environ, **threads},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def one_line(text: str) -> str:
    """Return text without line ends."""
    return " ".join(text.split())
