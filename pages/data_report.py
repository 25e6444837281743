"""The report of a check as one HTML file that needs nothing else: no script, no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.check.findings import KINDS, Finding, Kind, printable
from datasets.check.keypoints import LEAST_DETECTED
from datasets.check.strips import Sheet
from datasets.check.survey import Survey
from files import write_text
from pages.page import render_page

_EXAMPLES = 12
_BINS = 10
# More classes than this are folded away.
MANY_CLASSES = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart.

    Attributes:
        label: below or beside it.
        count: what it stands for.
        share: of the longest, 0-1.
    """

    label: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class KindGroup:
    """The findings of one kind: how many, and the first of them."""

    kind: Kind
    count: int
    examples: tuple[Finding, ...]

    @property
    def more(self) -> int:
        """Return how many are not shown."""
        return self.count - len(self.examples)


@dataclass(frozen=True, slots=True)
class Report:
    """What the template shows.

    Attributes:
        name: of the data set.
        survey: what was found.
        verdict: one line.
        tone: "bad", "fair" or "good".
        notes: how it was checked, a sentence each.
        worst: clips with findings, in pictures.
        classes: some clips of each class, in pictures.
    """

    name: str
    survey: Survey
    verdict: str
    tone: str
    notes: Sequence[str]
    worst: Sequence[Sheet] = ()
    classes: Sequence[Sheet] = ()


def write_report(path: Path, report: Report) -> None:
    """Write the report, whole or not at all."""
    write_text(path, render_report(report))


def render_report(report: Report) -> str:
    """Return the report as HTML; every text in it is escaped."""
    root = report.survey.root
    filters = {"short": lambda path: _short(path, root)}
    return render_page("dataset_report.html", _context(report), filters)


def _context(report: Report) -> dict[str, Any]:
    survey = report.survey
    return {
        "report": report,
        "survey": survey,
        "groups": group_findings(survey),
        "splits": [(facts, class_bars(survey, facts.split)) for facts in survey.splits],
        "detection": detection_bars(survey),
        "detection_by_split": detection_by_split(survey),
        "least_detected": LEAST_DETECTED,
        "sizes": _count_bars({f"{w}x{h}": n for (w, h), n in survey.sizes.items()}),
        "rates": _count_bars({f"{rate:g}": n for rate, n in survey.rates.items()}),
        "many_classes": MANY_CLASSES,
    }


def group_findings(survey: Survey) -> list[KindGroup]:
    """Return the findings by kind, errors first."""
    return [
        KindGroup(KINDS[kind], len(found), tuple(found[:_EXAMPLES]))
        for kind, found in survey.by_kind().items()
    ]


def class_bars(survey: Survey, split: str) -> list[Bar]:
    """Return a bar for each class that occurs anywhere: its clips in one split."""
    labels = sorted({label for facts in survey.splits for label in facts.counts})
    labels = sorted({*labels, *range(len(survey.lists.classes or ()))})
    counts = next(facts.counts for facts in survey.splits if facts.split == split)
    longest = max(counts.values(), default=0) or 1
    return [
        Bar(
            printable(survey.lists.class_name(label)),
            counts.get(label, 0),
            counts.get(label, 0) / longest,
        )
        for label in labels
    ]


def detection_bars(survey: Survey) -> list[Bar]:
    """Return how many clips have somebody in 0-10 %, 10-20 % ... of their frames."""
    rates = [facts.detected for facts in survey.poses.values()]
    counts, _ = np.histogram(rates, bins=_BINS, range=(0, 1))
    longest = max(int(counts.max()), 1)
    return [
        Bar(f"{100 * i // _BINS}-{100 * (i + 1) // _BINS} %", int(n), int(n) / longest)
        for i, n in enumerate(counts)
    ]


def detection_by_split(survey: Survey) -> list[tuple[str, int, float, float, int]]:
    """Return split, clips with keypoints, mean detection and joint rates, most people."""
    rows = []
    for split, records in survey.lists.records.items():
        known = [survey.poses[r.name] for r in records if r.name in survey.poses]
        if known:
            detected = float(np.mean([facts.detected for facts in known]))
            joints = float(np.mean([facts.joints for facts in known]))
            rows.append((split, len(known), detected, joints, max(f.people for f in known)))
    return rows


def _count_bars(counts: dict[str, int]) -> list[Bar]:
    longest = max(counts.values(), default=1)
    ordered = sorted(counts.items(), key=lambda item: -item[1])[:10]
    return [Bar(name, count, count / longest) for name, count in ordered]


def _short(path: str, root: Path) -> str:
    """Return a path relative to the data set, where it lies in it."""
    return path.removeprefix(f"{root}/") or path
