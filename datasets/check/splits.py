"""Classes of each split, and what the splits may not share."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from datasets.check.duplicates import Signature, find_near_duplicates
from datasets.check.findings import Finding
from datasets.check.lists import ClipLists
from datasets.clip_table import ClipRow
from datasets.leakage import Overlap, find_overlaps
from datasets.records import ClipRecord

_SHARED_KINDS = {"clip": "shared_clip", "content": "shared_content", "group": "shared_group"}
# Frames that several clips may have in common by chance: black ones at their begin and end.
_LEAST_SHARED_FRAMES = 3


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """The classes of one split.

    Attributes:
        split: its name.
        clips: how many.
        frames: how many, as the list says.
        counts: label -> clips, by label.
    """

    split: str
    clips: int
    frames: int
    counts: Mapping[int, int]

    @property
    def majority(self) -> float:
        """Return the share of the most frequent class, which a constant answer reaches."""
        return max(self.counts.values(), default=0) / max(self.clips, 1)


def count_splits(lists: ClipLists) -> list[SplitFacts]:
    """Count clips, frames and classes of each list."""
    return [
        SplitFacts(
            split,
            len(records),
            sum(record.num_frames for record in records),
            dict(sorted(Counter(record.label for record in records).items())),
        )
        for split, records in lists.records.items()
    ]


def check_classes(lists: ClipLists) -> Iterator[Finding]:
    """Find splits that lack a class."""
    counts = {facts.split: facts.counts for facts in count_splits(lists) if facts.clips}
    everywhere = sorted({label for labels in counts.values() for label in labels})
    for split, labels in counts.items():
        path = str(lists.paths[split])
        if len(labels) == 1:
            name = lists.class_name(next(iter(labels)))
            yield Finding("one_class", "", path, f"has only clips of {name}")
        missing = [lists.class_name(label) for label in everywhere if label not in labels]
        if missing:
            names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" * (len(missing) > 5))
            kind = "class_not_trained" if split == "train" else "class_not_tested"
            yield Finding(kind, "", path, f"has no clip of {names}")
    if lists.is_published:
        path = str(next(iter(lists.paths.values())).parent)
        text = "declares the published protocol: the epoch is chosen on the test clips"
        yield Finding("published", "", path, text)


def check_overlaps(
    lists: ClipLists, sums: Mapping[str, str], keys: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Find clips, contents, groups and frames on both sides of a split.

    Args:
        lists: the lists.
        sums: clip -> SHA-256 of its content as it is on disk, of those that are known.
        keys: clip -> one number for the content of each of its frame files.
    """
    table = dict(lists.table)
    for clip, total in sums.items():
        table[clip] = replace(table.get(clip, ClipRow(clip)), sha256=total)
    owners = _owners(lists)
    once = {
        split: [record for record in records if owners[record.name] == split]
        for split, records in lists.records.items()
    }
    # A clip that two lists name has its content and group in both: that is said once.
    overlaps = [overlap for overlap in find_overlaps(lists.records, {}) if overlap.kind == "clip"]
    for overlap in overlaps + find_overlaps(once, table):
        if not _is_declared(lists, overlap.one, overlap.other):
            yield _overlap_finding(lists, overlap)
    for split, records in lists.records.items():
        yield from _repeats(str(lists.paths[split]), records, table)
    yield from _shared_frames(lists, sums, keys)


def _is_declared(lists: ClipLists, one: str, other: str) -> bool:
    return lists.is_published and {one, other} == {"val", "test"}


def _overlap_finding(lists: ClipLists, overlap: Overlap) -> Finding:
    path = str(lists.paths[overlap.one])
    text = f"and {lists.paths[overlap.other].name} {overlap.text()}"
    return Finding(_SHARED_KINDS[overlap.kind], overlap.examples[0], path, text)


def _repeats(
    path: str, records: Sequence[ClipRecord], table: Mapping[str, ClipRow]
) -> Iterator[Finding]:
    first: dict[tuple[str, int], ClipRecord] = {}
    for record in records:
        row = table.get(record.name)
        if row is None or not row.sha256:
            continue
        twin = first.setdefault((row.sha256, row.first_frame), record)
        if twin is not record:
            other = "" if twin.label == record.label else ", under another label"
            text = f"names clip {record.name}, which has the content of {twin.name}{other}"
            yield Finding("repeated_content", record.name, path, text)


def _owners(lists: ClipLists) -> dict[str, str]:
    """Return clip -> the first split that names it."""
    owners: dict[str, str] = {}
    for split, records in lists.records.items():
        for record in records:
            owners.setdefault(record.name, split)
    return owners


def _shared_frames(
    lists: ClipLists, sums: Mapping[str, str], keys: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Find clips of two splits with equal frame files, as when they were cut to overlap."""
    owners = _owners(lists)
    clips = [clip for clip in owners if len(keys.get(clip, ()))]
    if not clips:
        return
    number = np.repeat(np.arange(len(clips)), [len(keys[clip]) for clip in clips])
    pairs = _count_pairs(np.concatenate([keys[clip] for clip in clips]), number)
    told: set[str] = set()
    for (i, j), count in sorted(pairs.items(), key=lambda item: -item[1]):
        one, other = clips[i], clips[j]
        if count < _LEAST_SHARED_FRAMES or owners[one] == owners[other] or other in told:
            continue
        is_same = sums.get(one) == sums.get(other) != ""
        if is_same or _is_declared(lists, owners[one], owners[other]):
            continue
        told.add(other)
        text = f"clip {other} shares {count} frames with {one} of {owners[one]}"
        yield Finding("shared_frames", other, str(lists.paths[owners[other]]), text)


def _count_pairs(keys: np.ndarray, number: np.ndarray) -> Counter[tuple[int, int]]:
    """Count, for pairs of clips, the different frames that both have.

    Of a frame in many clips only the pairs with the first of them are counted.
    """
    order = np.lexsort((number, keys))
    keys, number = keys[order], number[order]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[1:] != keys[:-1]) | (number[1:] != number[:-1])
    keys, number = keys[is_new], number[is_new]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    first = number[np.repeat(starts, np.diff(np.append(starts, len(keys))))]
    is_pair = first != number
    return Counter(zip(first[is_pair].tolist(), number[is_pair].tolist(), strict=True))


def check_near_duplicates(
    lists: ClipLists, signatures: Mapping[str, Signature], sums: Mapping[str, str]
) -> Iterator[Finding]:
    """Find clips of two splits that look the same although their files differ."""
    owners = _owners(lists)
    clips = [clip for clip in owners if clip in signatures]
    splits = {split: i for i, split in enumerate(lists.records)}
    if lists.is_published and {"val", "test"} <= splits.keys():
        splits["val"] = splits["test"]
    groups = [splits[owners[clip]] for clip in clips]
    told: set[str] = set()
    for pair in find_near_duplicates([signatures[clip] for clip in clips], groups):
        one, other = clips[pair.one], clips[pair.other]
        is_same = one in sums and sums[one] == sums.get(other)
        if other in told or is_same:
            continue
        told.add(other)
        text = (
            f"clip {other} looks like {one} of {owners[one]} (their movements correlate by "
            f"{pair.likeness:.2f})"
        )
        yield Finding("near_duplicate", other, str(lists.paths[owners[other]]), text)
