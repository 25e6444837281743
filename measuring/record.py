"""What was measured: sections of rows, and what rows are compared with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from measuring.timing import Timing

# Which clock decides: CPU time where one thread works, the wall where several do or a device does.
Clock = Literal["cpu", "wall"]


@dataclass(frozen=True, slots=True)
class Row:
    """One way of doing one thing.

    Attributes:
        case: what is done, as in "64x56x56, forward"; rows with the same case are comparable.
        variant: how.
        timing: milliseconds; None where it could not be measured.
        clock: which of the two times is compared.
        facts: further numbers, by the title of their column.
        settings: numbers and names that say the case to a program.
        note: why it could not be measured, or what to know about it.
    """

    case: str
    variant: str
    timing: Timing | None = None
    clock: Clock = "cpu"
    facts: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def cost(self) -> float | None:
        """Return the time that is compared, milliseconds."""
        return None if self.timing is None else getattr(self.timing, self.clock).median


@dataclass(slots=True)
class Section:
    """One table.

    Attributes:
        name: for programs, as in "module".
        title: for people.
        unit: of the times, as in "ms" or "ms a frame".
        peer: variant that the others are how many times as fast as.
        limit: variant that the others cost how many times as much as.
        rows: in the order of the table.
        notes: what to know.
    """

    name: str
    title: str
    unit: str = "ms"
    peer: str | None = None
    limit: str | None = None
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, case: str, variant: str | None) -> Row | None:
        """Return a row, if it is there."""
        wanted = (row for row in self.rows if (row.case, row.variant) == (case, variant))
        return next(wanted, None)

    def cases(self) -> list[str]:
        """Return the cases in order."""
        return list(dict.fromkeys(row.case for row in self.rows))

    def speed_up(self, row: Row) -> float | None:
        """Return how many times as fast as its peer a row is."""
        peer = self.find(row.case, self.peer)
        return None if peer is None or peer is row else _ratio(peer.cost, row.cost)

    def relative_cost(self, row: Row) -> float | None:
        """Return how many times as much as the limit a row costs."""
        limit = self.find(row.case, self.limit)
        return None if limit is None or limit is row else _ratio(row.cost, limit.cost)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        rows = [
            {
                **asdict(row),
                "settings": dict(row.settings),
                "facts": dict(row.facts),
                "speed_up": self.speed_up(row),
                "relative_cost": self.relative_cost(row),
            }
            for row in self.rows
        ]
        head = {"name": self.name, "title": self.title, "unit": self.unit}
        return head | {"peer": self.peer, "limit": self.limit, "rows": rows, "notes": self.notes}


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    if numerator is None or denominator is None or denominator <= 0:
        return None
    return numerator / denominator
