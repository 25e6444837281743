"""What a part of the fault injection found: promises with figures, as a table and as JSON."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from files import write_json, write_text


@dataclass(frozen=True, slots=True)
class Row:
    """A promise and what was measured.

    Attributes:
        part: of the fault injection.
        what: was done, with its number.
        measured: in words.
        promise: what it should be.
        kept: whether it is.
    """

    part: str
    what: str
    measured: str
    promise: str
    kept: bool


@dataclass
class Findings:
    """Rows, and the facts behind them.

    Attributes:
        rows: of the table.
        facts: part -> numbers, as JSON can hold them.
        broken: in words, what did not go as promised; an example each.
    """

    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, other: "Findings") -> None:
        """Take over what another part found."""
        self.rows += other.rows
        self.facts |= other.facts
        self.broken += other.broken

    @property
    def is_kept(self) -> bool:
        """Say whether every promise was kept."""
        return all(row.kept for row in self.rows) and not self.broken


class Deadline:
    """A moment after which nothing new is begun."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def is_over(self) -> bool:
        """Say whether the time is up."""
        return time.monotonic() > self._end


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    head = ["| part | what was done | measured | promise | kept |", "|---|---|---|---|---|"]
    lines = [
        f"| {row.part} | {row.what} | {row.measured} | {row.promise} | "
        f"{'yes' if row.kept else '**NO**'} |"
        for row in rows
    ]
    return "\n".join([*head, *lines])


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def write(folder: Path, findings: Findings, settings: Mapping[str, Any], seconds: float) -> None:
    """Write `chaos.json` and `chaos.md` into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {**machine(), "settings": dict(settings), "minutes": round(seconds / 60, 1)}
    write_json(
        folder / "chaos.json",
        {
            **about,
            "kept": findings.is_kept,
            "rows": [asdict(row) for row in findings.rows],
            "facts": findings.facts,
            "broken": findings.broken,
        },
    )
    lines = [f"{key}: {value}" for key, value in about.items()]
    broken = [f"- {' '.join(line.split())}" for line in findings.broken]
    text = ["# Fault injection", "", markdown(findings.rows), "", *broken, "", "; ".join(lines)]
    write_text(folder / "chaos.md", "\n".join(text) + "\n")


def quantile_text(seconds: Sequence[float]) -> str:
    """Return median, 99th percentile and maximum of some times."""
    if not seconds:
        return "none"
    middle, late = np.quantile(seconds, [0.5, 0.99])
    return f"p50 {middle:.2f} s, p99 {late:.2f} s, most {max(seconds):.2f} s"
