"""The clip lists and clips.csv of a data set, read to the end however much is wrong with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets.check.findings import Finding
from datasets.clip_table import NAME, ClipRow, load_table
from datasets.records import PUBLISHED, ClipRecord, header_classes, read_header
from errors import InputError

SPLITS = ("train", "val", "test")
# More lines of one kind in one list than anybody reads.
_MOST_LINES = 20


@dataclass(slots=True)
class ClipLists:
    """What the lists of a data set say.

    Attributes:
        paths: split -> its list, of those that are there.
        records: split -> its clips, of the lines that can be read.
        headers: split -> the header of its list.
        classes: names in order of the label, of a header or of the catalogue; None if not named.
        table: `clips.csv`; empty where there is none.
        findings: what is wrong.
    """

    paths: dict[str, Path] = field(default_factory=dict)
    records: dict[str, tuple[ClipRecord, ...]] = field(default_factory=dict)
    headers: dict[str, Mapping[str, str]] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    table: Mapping[str, ClipRow] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_published(self) -> bool:
        """Say whether a list declares the published protocol."""
        return any(header.get("protocol") == PUBLISHED for header in self.headers.values())

    def class_name(self, label: int) -> str:
        """Return the name of a class."""
        named = self.classes or ()
        return named[label] if label < len(named) else f"class {label}"

    def clips(self) -> list[ClipRecord]:
        """Return every clip once, in order of the lists."""
        records = (record for split in self.records.values() for record in split)
        unique: dict[str, ClipRecord] = {}
        for record in records:
            unique.setdefault(record.name, record)
        return list(unique.values())


def read_lists(
    root: Path, num_classes: int | None = None, class_names: tuple[str, ...] | None = None
) -> ClipLists:
    """Read the lists and the table of a data set.

    Args:
        root: its folder.
        num_classes: what the catalogue says, None if it says nothing.
        class_names: likewise.

    Raises:
        InputError: there is no list at all, or no folder.
    """
    lists = ClipLists(classes=class_names)
    places = {split: root / f"{split}_videofolder.txt" for split in SPLITS}
    if not any(path.is_file() for path in places.values()):
        raise InputError(
            f"{root} has no clip list ({', '.join(path.name for path in places.values())}): "
            "prepare the data set first, or name its place with --dataset and --dataset_path"
        )
    for split, path in places.items():
        if path.is_file():
            _read_list(lists, split, path)
        else:
            lists.findings.append(Finding("list_missing", "", str(path), "is not there"))
    _check_labels(lists, len(lists.classes) if lists.classes else num_classes)
    try:
        lists.table = load_table(root)
    except InputError as error:
        lists.findings.append(_finding("table_unreadable", root / NAME, error))
    return lists


def _read_list(lists: ClipLists, split: str, path: Path) -> None:
    try:
        header = read_header(path)
        lists.headers[split], lists.paths[split] = header, path
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except InputError as error:
        lists.findings.append(_finding("list_unreadable", path, error))
        return
    _check_header(lists, path, header)
    records, findings = _parse_lines(lines)
    lists.findings += _shortened(path, findings)
    lists.records[split] = records
    if not records:
        lists.findings.append(Finding("list_empty", "", str(path), "names no clip"))


def _check_header(lists: ClipLists, path: Path, header: Mapping[str, str]) -> None:
    try:
        lists.classes = header_classes(path, header) or lists.classes
    except InputError as error:
        lists.findings.append(_finding("list_header", path, error))
    if (left_out := header.get("left_out", "0")) != "0":
        text = f"leaves out {left_out[:40]} damaged clips"
        lists.findings.append(Finding("left_out", "", str(path), text))


def _parse_lines(
    lines: Sequence[str],
) -> tuple[tuple[ClipRecord, ...], list[tuple[str, int, str]]]:
    """Return the records, and (kind, number of the line, words) of the lines that are none."""
    seen: dict[str, int] = {}
    records, faults = [], []
    for number, line in _body(lines):
        try:
            record = ClipRecord.parse(line)
        except ValueError as error:
            faults.append(("list_line", number, str(error)))
            continue
        if record.name in seen:
            faults.append(
                ("list_repeat", number, f"repeats clip {record.name} of line {seen[record.name]}")
            )
            continue
        seen[record.name] = number
        records.append(record)
    return tuple(records), faults


def _body(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines below the header that are not blank."""
    is_header = True
    for number, line in enumerate(lines, start=1):
        is_header = is_header and line.startswith("# ")
        if not is_header and line.strip():
            yield number, line


def _shortened(path: Path, faults: list[tuple[str, int, str]]) -> Iterator[Finding]:
    count: dict[str, int] = {}
    for kind, number, words in faults:
        count[kind] = count.get(kind, 0) + 1
        if count[kind] <= _MOST_LINES:
            yield Finding(kind, "", f"{path}:{number}", " ".join(words.split()))
    for kind, total in count.items():
        if total > _MOST_LINES:
            yield Finding(kind, "", str(path), f"has {total - _MOST_LINES} more such lines")


def _check_labels(lists: ClipLists, num_classes: int | None) -> None:
    if num_classes is None:
        return
    for split, records in lists.records.items():
        wrong = [record for record in records if record.label >= num_classes]
        if wrong:
            first = wrong[0]
            text = (
                f"gives {len(wrong)} clips a label beyond the {num_classes} classes, such as "
                f"{first.label} of {first.name}"
            )
            path = str(lists.paths[split])
            lists.findings.append(Finding("label_unknown", first.name, path, text))


def _finding(kind: str, path: Path, error: InputError) -> Finding:
    place, text = str(path), str(error)
    rest = text.removeprefix(place)
    # Messages about a line begin with file:line.
    if rest.startswith(":") and " " in rest:
        line, _, rest = rest.partition(" ")
        place += line
    return Finding(kind, "", place, " ".join(rest.split()))
