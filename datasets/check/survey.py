"""All checks of a data set, and what they found."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.catalogue import DatasetRow
from datasets.check.clip import ClipResult, ClipTask, check_clips
from datasets.check.duplicates import Signature
from datasets.check.findings import KINDS, Finding
from datasets.check.keypoints import PoseFacts
from datasets.check.lists import ClipLists, read_lists
from datasets.check.pool import Workers, batched
from datasets.check.splits import (
    SplitFacts,
    check_classes,
    check_near_duplicates,
    check_overlaps,
    count_splits,
)
from datasets.check.unlisted import find_unlisted

_BATCH = 8
# Frame rates are told apart when they differ by more than clocks do.
_RATE_STEP = 0.5


@dataclass(slots=True)
class Survey:
    """What is known of a data set after it was checked.

    Attributes:
        root: its folder.
        row: of the catalogue.
        lists: what its lists say.
        has_frames: it has frames; one of skeletons alone has none.
        has_poses: it has keypoints.
        splits: the classes of each split.
        findings: what is wrong, the worst first.
        frames: frames that were looked at.
        sizes: (width, height) -> clips.
        rates: frames per second -> clips; empty where `clips.csv` does not tell.
        poses: clip -> what is known of its keypoints.
    """

    root: Path
    row: DatasetRow
    lists: ClipLists
    has_frames: bool = True
    has_poses: bool = False
    splits: list[SplitFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    frames: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    rates: Counter[float] = field(default_factory=Counter)
    poses: dict[str, PoseFacts] = field(default_factory=dict)

    def count(self, level: str) -> int:
        """Return how many findings are of a level."""
        return sum(finding.level == level for finding in self.findings)

    def by_kind(self) -> dict[str, list[Finding]]:
        """Return the findings of each kind that occurs, in order of `KINDS`, errors first."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.kind, []).append(finding)
        return found


@dataclass(slots=True)
class _Contents:
    """What clips are compared by, a few bytes for each frame."""

    sums: dict[str, str] = field(default_factory=dict)
    keys: dict[str, np.ndarray] = field(default_factory=dict)
    signatures: dict[str, Signature] = field(default_factory=dict)


def survey(
    root: Path,
    row: DatasetRow,
    workers: Workers,
    decode: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Check a data set.

    Args:
        root: its folder.
        row: of the catalogue.
        workers: processes that look at the clips.
        decode: decode every frame; without, only what files say of themselves.
        progress: called with clips done and clips in all.

    Raises:
        InputError: there is no list, or a clip cannot be checked.
    """
    lists = read_lists(root, row.num_classes, row.class_names)
    found = Survey(root, row, lists, _has_frames(root, lists), _has_poses(root, lists))
    found.findings += lists.findings
    found.splits = count_splits(lists)
    clips = lists.clips()
    contents = _Contents()
    for done, result in enumerate(_results(found, workers, decode), start=1):
        _take(found, contents, result)
        if progress is not None:
            progress(done, len(clips))
    found.findings += check_classes(lists)
    found.findings += check_overlaps(lists, contents.sums, contents.keys)
    found.findings += check_near_duplicates(lists, contents.signatures, contents.sums)
    found.findings += _check_uniform(found)
    found.findings += find_unlisted(root, lists)
    found.findings = in_order(found.findings)
    return found


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings fit to be shown: errors first, then kinds in order of `KINDS`."""
    places = {name: place for place, name in enumerate(KINDS)}
    shown = (finding.printable() for finding in findings)
    return sorted(shown, key=lambda finding: (finding.level != "error", places[finding.kind]))


def _results(found: Survey, workers: Workers, decode: bool) -> Iterator[ClipResult]:
    lists = found.lists
    tasks = (
        ClipTask(
            found.root,
            record,
            lists.table.get(record.name),
            decode,
            found.has_frames,
            found.has_poses,
            found.row.layout,
        )
        for record in lists.clips()
    )
    for results in workers.map(check_clips, batched(tasks, _BATCH)):
        yield from results


def _has_frames(root: Path, lists: ClipLists) -> bool:
    """Say whether frames are to be expected: only a data set of skeletons alone has none."""
    if (root / "frames").is_dir() or any(row.video for row in lists.table.values()):
        return True
    return not any((root / "poses").rglob("*.npz"))


def _has_poses(root: Path, lists: ClipLists) -> bool:
    if any((root / "poses").rglob("*.npz")):
        return True
    return any(_holds_npy(root / "frames" / record.name) for record in lists.clips())


def _holds_npy(folder: Path) -> bool:
    try:
        return any(folder.glob("*.npy"))
    except OSError:
        return False


def _take(found: Survey, contents: _Contents, result: ClipResult) -> None:
    found.findings += result.findings
    found.frames += result.frames
    if result.size is not None:
        found.sizes[result.size] += 1
    row = found.lists.table.get(result.name)
    if row is not None and row.fps:
        found.rates[round(row.fps / _RATE_STEP) * _RATE_STEP] += 1
    if result.poses is not None:
        found.poses[result.name] = result.poses
    if result.sha256:
        contents.sums[result.name] = result.sha256
    if len(result.keys):
        contents.keys[result.name] = result.keys
    if result.signature is not None:
        contents.signatures[result.name] = result.signature


def _check_uniform(found: Survey) -> Iterator[Finding]:
    """Find sizes and rates that differ between clips."""
    if len(found.sizes) > 1:
        many = [f"{w}x{h} ({count} clips)" for (w, h), count in found.sizes.most_common(5)]
        yield _uniform(found, "sizes_differ", len(found.sizes), "frame sizes", many)
    rates = found.rates.most_common(5)
    if len(found.rates) > 1 and max(found.rates) > 1.1 * min(found.rates):
        many = [f"{rate:g} ({count} clips)" for rate, count in rates]
        yield _uniform(found, "rates_differ", len(found.rates), "frame rates", many)


def _uniform(found: Survey, kind: str, count: int, what: str, many: list[str]) -> Finding:
    more = f" and {count - 5} more" if count > 5 else ""
    return Finding(kind, "", str(found.root), f"has {count} {what}: {', '.join(many)}{more}")
