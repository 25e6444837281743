"""The clips of splits, checked, as the records that training goes through."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from datasets.annotations.annotation_set import AnnotationSet
from datasets.annotations.checks import Finding, check_annotations
from datasets.prepare.splits import cut_validation
from datasets.records import ClipRecord
from errors import InputError

_NAMED = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """Clips to train and evaluate with.

    Attributes:
        records: list ("train", "val", "test") -> its clips; the name is that in the pickle.
        left_out: list -> its clips that are broken and were left out.
        num_classes: K.
        warnings: what may be as it should be, a line each.
    """

    records: dict[str, tuple[ClipRecord, ...]]
    left_out: dict[str, tuple[str, ...]]
    num_classes: int
    warnings: tuple[str, ...]


def choose_clips(
    found: AnnotationSet,
    chosen: Mapping[str, str | None],
    *,
    skip: bool = False,
    num_classes: int | None = None,
    val_fraction: float = 0.15,
    used: Collection[str] = ("train", "val", "test"),
    allow_overlap: bool = False,
    needs_size: bool = False,
) -> Chosen:
    """Return the clips of the chosen splits.

    Args:
        found: the annotations.
        chosen: of "train", "val", "test": the name of the split in the pickle, None for no such
            list. Where train is there and val is not, val is cut off train.
        skip: leave out broken clips, rather than stop.
        num_classes: K; None for one more than the highest label.
        val_fraction: share of train that is cut off: always the same clips of a file, so that tests
            and runs of other seeds have the same val.
        used: lists that are used. Of the others it is told which clips they have; those that are
            broken are left out, and no list of them need be usable.
        allow_overlap: two lists may share clips.
        needs_size: with `skip`, clips that do not say the size of their frames are left out, too.

    Raises:
        InputError: the pickle has no such split; a clip of one is broken and `skip` is not given;
            two lists would share clips; a list would be empty.
    """
    named = {kind: name for kind, name in chosen.items() if name is not None}
    splits = {kind: name for kind, name in named.items() if kind in used}
    for kind, name in splits.items():
        _refuse_unknown(found, kind, name)
    findings = check_annotations(found, num_classes)
    if any(finding.kind == "no labels" for finding in findings):
        raise InputError(f"{found.path} has no labels: it can be predicted on, not trained with")
    broken = _broken(found, findings, list(splits.values()), skip)
    if skip and needs_size:
        broken |= {clip for clip in found.names if found.size(clip) is None}
    if not allow_overlap:
        _refuse_shared(found, splits)
    records, left_out = {}, {}
    for kind, name in splits.items():
        clips = tuple(dict.fromkeys(found.splits[name]))
        records[kind] = tuple(_record(found, clip) for clip in clips if clip not in broken)
        left_out[kind] = tuple(clip for clip in clips if clip in broken)
        if not records[kind]:
            raise InputError(f"{found.path} has no usable clip in split {name!r}")
    records |= _others(found, findings, {k: n for k, n in named.items() if k not in splits})
    if "train" in records and "val" not in named:
        records |= _cut(found, records["train"], val_fraction)
        left_out["val"] = ()
    labels = [record.label for clips in records.values() for record in clips]
    return Chosen(records, left_out, num_classes or max(labels) + 1, _warnings(found, findings))


def _broken(
    found: AnnotationSet, findings: Sequence[Finding], splits: Sequence[str], skip: bool
) -> set[str]:
    """Return the clips of these splits that cannot be used.

    Raises:
        InputError: there is one, and `skip` is not given.
    """
    wanted = {clip for split in splits for clip in found.splits[split]}
    errors = [
        finding
        for finding in findings
        if finding.severity == "error"
        and finding.sample in wanted
        # that a clip of another split has no annotation is nothing to these
        and (not finding.splits or set(finding.splits) & set(splits))
    ]
    broken = {finding.sample for finding in errors}
    if broken and not skip:
        first, names = errors[0], " and ".join(dict.fromkeys(splits))
        raise InputError(
            f"{found.path} has {len(broken)} broken clips in split {names}; the "
            f"first: clip {first.sample[:80]!r} {first.text}. Name all of them with "
            "tools/check_annotations.py, mend them, or leave them out with --skip_broken"
        )
    return broken


def _others(
    found: AnnotationSet, findings: Sequence[Finding], splits: Mapping[str, str]
) -> dict[str, tuple[ClipRecord, ...]]:
    """Return the usable clips of lists that are only told of."""
    kept: dict[str, tuple[ClipRecord, ...]] = {}
    for kind, name in splits.items():
        clips = found.splits.get(name, ())
        broken = _broken(found, findings, [name], skip=True) if clips else set()
        kept[kind] = tuple(_record(found, clip) for clip in clips if clip not in broken)
    return {kind: records for kind, records in kept.items() if records}


def _record(found: AnnotationSet, clip: str) -> ClipRecord:
    label = found.label(clip)
    assert label is not None
    return ClipRecord(clip, found.num_frames(clip), label)


def _refuse_unknown(found: AnnotationSet, kind: str, name: str) -> None:
    if name not in found.splits:
        known = ", ".join(found.splits) or "none at all"
        raise InputError(
            f"{found.path} has no split {name[:80]!r}: give --{kind}_split one of {known}"
        )
    if not found.splits[name]:
        raise InputError(f"{found.path} has no clip in split {name!r}: choose another one")


def _refuse_shared(found: AnnotationSet, splits: Mapping[str, str]) -> None:
    """Make sure that no clip is in two lists.

    Val may be the test list, as in published results; where it is named as the train list, training
    clips tell how training goes.
    """
    clips = {kind: set(found.splits[name]) for kind, name in splits.items()}
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = clips.get(one, set()) & clips.get(other, set())
        is_published = (one, other) == ("val", "test") and clips.get(one) == clips.get(other)
        is_asked_for = (one, other) == ("train", "val") and splits.get(one) == splits.get(other)
        if shared and not (is_published or is_asked_for):
            raise InputError(
                f"{found.path} has {len(shared)} clips in both the {one} split {splits[one]!r} and "
                f"the {other} split {splits[other]!r}, such as {min(shared)[:80]!r}: choose splits "
                "that share none, or add --allow_overlap"
            )


def _cut(
    found: AnnotationSet, records: Sequence[ClipRecord], val_fraction: float
) -> dict[str, tuple[ClipRecord, ...]]:
    # Nobody knows which clips are of one person: each is its own group.
    labels, names = [record.label for record in records], [record.name for record in records]
    try:
        sides = cut_validation(labels, names, val_fraction, seed=0)
    except InputError as error:
        raise InputError(
            f"val cannot be cut off the training clips of {found.path}: {error}. Or give "
            "--val_split, also the name of the train split"
        ) from None
    pairs = list(zip(records, sides, strict=True))
    return {
        kind: tuple(record for record, side in pairs if side == kind) for kind in ("train", "val")
    }


def _warnings(found: AnnotationSet, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return a line for each kind of warning, with how many clips it is about."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.severity == "warning":
            kinds.setdefault(finding.kind, []).append(finding)
    return tuple(_warning_line(found, same) for same in kinds.values())


def _warning_line(found: AnnotationSet, same: Sequence[Finding]) -> str:
    if not same[0].sample:
        return f"{found.path} {same[0].text}"
    first = same[0]
    names = ", ".join(repr(finding.sample[:40]) for finding in same[:_NAMED])
    more = f" and {len(same) - _NAMED} more" if len(same) > _NAMED else ""
    return f"{found.path}: {len(same)} clips ({names}{more}), such as the first, {first.text}"
