"""JSON that somebody else wrote: bounded, and wrong only with a file and a place."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from datasets.importers.people import regular_file
from errors import InputError


def read_json(path: Path, most_bytes: int, hook: Callable[[dict], object] | None = None) -> object:
    """Read a JSON file; every number becomes a float, of any length, and NaN is allowed.

    Args:
        path: the file.
        most_bytes: a larger one is refused.
        hook: takes the place of each object as soon as that is read.

    Raises:
        InputError: it cannot be read, is not UTF-8 or not JSON, or is nested too deeply.
    """
    regular_file(path, most_bytes)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text, parse_int=float, object_hook=hook)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}): export it again"
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno} is not JSON (column {error.colno}: {error.msg}): export it "
            "again"
        ) from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply to be keypoints: export it again") from None


def numbers_of(values: object) -> np.ndarray | None:
    """Return a flat list of numbers as (n,) float64, NaN for null; None if it is something else."""
    if not isinstance(values, list):
        return None
    if not all(value is None or type(value) is float for value in values):
        return None
    return np.array(values, np.float64)


def whole_number(value: object) -> int | None:
    """Return a number that `read_json` read, or text, as int; None if it is not whole."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return None
