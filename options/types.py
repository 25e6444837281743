"""The parser of all scripts, and the types of option values."""

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

# The largest numbers of options that checkpoints keep. Far above any use: beyond them a checkpoint
# from anywhere would end in a machine without memory, so training takes no more either.
LIMITS = {
    "width": 4096,
    "num_segments": 100_000,
    "input_size": 65_536,
    "frame_interval": 10**9,
    "num_people": 100,
    "posec3d_stages": 50,
    "pose_frames": 10_000,
    "pose_size": 1024,
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown, text = action.default, action.help or ""
        if shown is None or isinstance(shown, bool) or action.nargs == 0 or "(default" in text:
            return action.help
        if isinstance(shown, list | tuple):  # as it is typed
            return f"{text} (default: {' '.join(map(str, shown))})" if shown else text
        return super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """A parser that shows defaults in its help and reports a user error in one line."""

    def __init__(self, **settings: object) -> None:
        super().__init__(
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **settings,  # type: ignore[arg-type]
        )

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def hide(self, names: Collection[str]) -> None:
        """Leave options out of the help, by their destinations; they are read as before."""
        for action in self._actions:
            if action.dest in names:
                action.help = argparse.SUPPRESS


def named_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> frozenset[str]:
    """Return the destinations that `argv` names: parse again without any default.

    The parser is of no use afterwards.
    """
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return frozenset(vars(parser.parse_args(argv)))


# ---------------------------------------------------------------- value types


def frame_size(text: str) -> tuple[int, int]:
    """Read '160x90' as (width, height)."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write WIDTHxHEIGHT, as in 160x90")
    return int(width), int(height)


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def up_to(most: int) -> Callable[[str], int]:
    """Return what reads a whole number from 1 to `most`."""

    def read(text: str) -> int:
        value = positive(text)
        if value > most:
            raise argparse.ArgumentTypeError(f"{text!r} must be at most {most}")
        return value

    return read


def real_up_to(most: float) -> Callable[[str], float]:
    """Return what reads a number from 0 to `most`."""

    def read(text: str) -> float:
        value = _real(text)
        if not 0 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to {most:g}")
        return value

    return read


def natural(text: str) -> int:
    """Read a whole number of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 0")
    return int(text)


def seed_number(text: str) -> int:
    """Read a whole number of at least 0 that fits in 32 bits."""
    value = natural(text)
    if value >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} must be below 2^32")
    return value


def positive_real(text: str) -> float:
    """Read a number above 0."""
    value = _real(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0")
    return value


def non_negative_real(text: str) -> float:
    """Read a number of at least 0."""
    value = _real(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of at least 0")
    return value


def share_of_one(text: str) -> float:
    """Read a number above 0 and at most 1."""
    value = _real(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be above 0 and at most 1")
    return value


def probability(text: str) -> float:
    """Read a number in [0, 1)."""
    value = _real(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 0 and below 1")
    return value


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
