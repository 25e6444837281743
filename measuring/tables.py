"""Sections as aligned text for a terminal and as Markdown for a page."""

from collections.abc import Sequence

from measuring.record import Row, Section


def text_table(section: Section) -> str:
    """Return a section as aligned lines."""
    head, rows = _cells(section)
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [_aligned(row, widths) for row in (head, *rows)]
    return "\n".join([section.title, *lines, *(f"* {note}" for note in section.notes)])


def markdown_table(section: Section) -> str:
    """Return a section as a Markdown table under a heading."""
    head, rows = _cells(section)
    marks = ["---", "---", *("---:" for _ in head[2:-1]), "---"]
    lines = ["| " + " | ".join(map(_escaped, row)) + " |" for row in (head, marks, *rows)]
    notes = [f"- {_escaped(note)}" for note in section.notes]
    return "\n".join([f"### {section.title}", "", *lines, "", *notes]).rstrip() + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Names and notes stand to the left of their column, numbers to the right."""
    last = len(cells) - 1
    shown = (
        cell.ljust(width) if place in (0, 1, last) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(shown).rstrip()


def _cells(section: Section) -> tuple[list[str], list[list[str]]]:
    facts = list(dict.fromkeys(name for row in section.rows for name in row.facts))
    ratios = []
    if section.peer is not None:
        ratios.append(f"speed, x {section.peer}")
    if section.limit is not None:
        ratios.append(f"cost, x {section.limit}")
    times = [f"CPU, {section.unit}", f"clock, {section.unit}", "least to most"]
    head = ["what", "how", *times, *ratios, *facts, "note"]
    rows, last = [], ""
    for row in section.rows:
        case = row.case if row.case != last else ""
        last = row.case
        rows.append([case, row.variant, *_row_cells(section, row, facts), row.note])
    return head, rows


def _row_cells(section: Section, row: Row, facts: Sequence[str]) -> list[str]:
    if row.timing is None:
        times = ["-", "-", ""]
    else:
        spread = getattr(row.timing, row.clock)
        medians = [number(row.timing.cpu.median), number(row.timing.wall.median)]
        times = [*medians, f"{number(spread.least)} to {number(spread.most)}"]
    ratios = []
    if section.peer is not None:
        ratios.append(_ratio(section.speed_up(row)))
    if section.limit is not None:
        ratios.append(_ratio(section.relative_cost(row)))
    return [*times, *ratios, *(_fact(row, name) for name in facts)]


def number(value: float) -> str:
    """Show three digits, and no power of ten for what a clock says."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _fact(row: Row, name: str) -> str:
    value = row.facts.get(name)
    if value is None:
        return ""
    return f"{value:.1e}" if 0 < abs(value) < 0.01 else number(value)
