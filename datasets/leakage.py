"""What two lists of a data set may not share, if a result on one of them is to be a test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from datasets.clip_table import ClipRow
from datasets.records import ClipRecord


@dataclass(frozen=True, slots=True)
class Overlap:
    """Something that is on both sides of a split.

    Attributes:
        kind: "clip" for the same name, "content" for the same files, "group" for the same
            athlete, event or source video.
        one: a split.
        other: the other split.
        shared: what they share, sorted: names of clips or of groups.
        examples: a clip of each split that shows it.
    """

    kind: str
    one: str
    other: str
    shared: tuple[str, ...]
    examples: tuple[str, str]

    def text(self) -> str:
        """Return what is shared, in words that follow the names of the two lists."""
        count, first = len(self.shared), self.shared[0]
        if self.kind == "clip":
            return f"share {count} clips, such as {first}"
        pair = f"{self.examples[0]} and {self.examples[1]}"
        if self.kind == "group":
            return f"share {count} groups (athletes, events or videos), such as {first} in {pair}"
        return f"hold {count} clips with the same content, such as {pair}"


def find_overlaps(
    splits: Mapping[str, Sequence[ClipRecord]], table: Mapping[str, ClipRow]
) -> list[Overlap]:
    """Find what lists share: clips first, then contents, then groups.

    Args:
        splits: split -> its records.
        table: `clips.csv` of the data set, which knows contents and groups; may be empty.
    """
    overlaps = []
    for kind in ("clip", "content", "group"):
        keys = {split: _keys(records, table, kind) for split, records in splits.items()}
        for one, other in combinations(splits, 2):
            shared = sorted(keys[one].keys() & keys[other].keys())
            if shared:
                examples = (keys[one][shared[0]], keys[other][shared[0]])
                overlaps.append(Overlap(kind, one, other, tuple(shared), examples))
    return overlaps


def _keys(records: Sequence[ClipRecord], table: Mapping[str, ClipRow], kind: str) -> dict[str, str]:
    """Return what identifies the clips of a list -> a clip that has it."""
    if kind == "clip":
        return {record.name: record.name for record in records}
    rows = [table[record.name] for record in records if record.name in table]
    if kind == "group":
        return {row.group: row.clip for row in rows if row.group}
    # Intervals of one video have its sum in common, and are different clips.
    return {f"{row.sha256} {row.first_frame}": row.clip for row in rows if row.sha256}
