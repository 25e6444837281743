"""Bars of what was measured."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from files import replacing
from measuring.record import Row, Section
from measuring.tables import number
from measuring.variants import PLAIN, PUBLISHED

_PEER_COLOUR, _LIMIT_COLOUR = "#ee6677", "#bbbbbb"
_OTHERS = ("#4477aa", "#228833", "#ccbb44", "#66ccee", "#aa3377")
_ROW, _MARGIN = 0.19, 0.75  # inches
_BEYOND = 1.12  # room for the numbers at the end of the longest bar


def render_chart(sections: Sequence[Section], path: Path) -> None:
    """Draw the median times of every section, with least and most, as a PNG.

    The bars of one case are drawn as shares of its slowest way; their ends say the times.
    """
    shown = [section for section in sections if _measured(section)]
    if not shown:
        return
    matplotlib.use("agg")
    heights = [_MARGIN + _ROW * _slots(section) for section in shown]
    figure = Figure(figsize=(10, sum(heights)), layout="constrained", dpi=110)
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)
    for section, (ax,) in zip(shown, axes, strict=True):
        _draw(ax, section)
    with replacing(path) as file:
        figure.savefig(file, format="png")


def _measured(section: Section) -> list[Row]:
    return [row for row in section.rows if row.timing is not None]


def _slots(section: Section) -> int:
    """Return the lines of a section: its bars, and one above each case for its name."""
    rows = _measured(section)
    return len(rows) + len({row.case for row in rows})


def _draw(ax: Axes, section: Section) -> None:
    rows = _measured(section)
    variants = list(dict.fromkeys(row.variant for row in rows))
    colours = _colours(variants)
    place, ticks, labels = 0, [], []
    for case in dict.fromkeys(row.case for row in rows):
        ax.text(0, place, _plain(case), fontsize=8, va="center", weight="bold")
        group = [row for row in rows if row.case == case]
        whole = max(row.cost or 0 for row in group) or 1
        for row in group:
            place += 1
            _draw_bar(ax, place, row, whole, colours[row.variant], section.unit)
            ticks.append(place)
            labels.append(_plain(row.variant))
        place += 1
    ax.set_yticks(ticks, labels, fontsize=7)
    ax.set_ylim(place - 0.4, -0.7)
    ax.set_xlim(0, _BEYOND)
    ax.set_xticks([])
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.set_title(_plain(section.title), fontsize=9, loc="left", wrap=True)


def _colours(variants: Sequence[str]) -> dict[str, str]:
    """Give each variant a colour: what is published or the limit has the same everywhere."""
    others = [name for name in variants if name != PLAIN and not name.startswith(PUBLISHED)]
    colours = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    return {
        name: colours.get(name, _LIMIT_COLOUR if name == PLAIN else _PEER_COLOUR)
        for name in variants
    }


def _draw_bar(ax: Axes, place: int, row: Row, whole: float, colour: str, unit: str) -> None:
    assert row.timing is not None
    spread = getattr(row.timing, row.clock).times(1 / whole)
    reach = [[spread.median - spread.least], [spread.most - spread.median]]
    ax.barh(place, spread.median, color=colour, height=0.8)
    ax.errorbar(spread.median, place, xerr=reach, color="#333333", linewidth=1)
    end = min(spread.most, _BEYOND) + 0.005
    ax.text(end, place, f"{number(row.cost or 0)} {unit}", fontsize=7, va="center")


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar would start a formula
