"""Check a prepared data set, say what is wrong with it, and write the report."""

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from console import StepLine, say
from datasets.catalogue import find_row
from datasets.check.findings import KINDS, Finding
from datasets.check.manifest import NAME as MANIFEST
from datasets.check.manifest import verify_manifest, write_manifest
from datasets.check.pool import Workers
from datasets.check.survey import Survey, in_order, survey
from errors import InputError, csv_cell
from files import partial_of, write_json, write_text
from pages.data_report import MANY_CLASSES, Report, detection_by_split, write_report

_EXAMPLES = 3
# Spreadsheets take what begins with these for a formula.


@dataclass(frozen=True, slots=True)
class Checkup:
    """What a check found, and where it is written.

    Attributes:
        name: of the data set, as `--dataset` spells it.
        survey: everything that was found.
        output: folder of findings.csv, summary.json and report.html.
        notes: how it was checked, a sentence each.
    """

    name: str
    survey: Survey
    output: Path
    notes: tuple[str, ...] = field(default=())

    @property
    def findings(self) -> list[Finding]:
        """Return all findings, errors first."""
        return self.survey.findings

    @property
    def errors(self) -> int:
        """Return how many findings are errors."""
        return self.survey.count("error")

    @property
    def warnings(self) -> int:
        """Return how many findings are warnings."""
        return self.survey.count("warning")

    @property
    def verdict(self) -> str:
        """Return one line that says whether the data set can be used."""
        if self.errors:
            return (
                f"{_count(self.errors, 'error')} and {_count(self.warnings, 'warning')}: mend the "
                "errors before training"
            )
        if self.warnings:
            return f"no error, {_count(self.warnings, 'warning')}: look at them before training"
        return "nothing wrong was found"

    @property
    def tone(self) -> str:
        """Return "bad", "fair" or "good"."""
        return "bad" if self.errors else "fair" if self.warnings else "good"


def check_prepared(
    dataset: str,
    dataset_path: Path,
    *,
    strict: bool = False,
    decode: bool = True,
    verify: bool = False,
    workers: int | None = None,
    output: Path | None = None,
    report: bool = True,
    update_manifest: bool = False,
    wrote: Collection[str] | None = None,
) -> Checkup:
    """Check the data set `dataset_path / dataset`, print a summary and write the report.

    Args:
        dataset: as `--dataset` spells it.
        dataset_path: folder of data sets.
        strict: raise on any finding, warnings too.
        decode: decode every frame; without, only what files say of themselves.
        verify: compare every file with the manifest.
        workers: processes; None for as many as there are cores.
        output: where everything is written, the manifest too; None for `check/` in the data set's
            folder, with the manifest beside the lists.
        report: draw report.html.
        update_manifest: write the manifest again; it is always written where there is none.
        wrote: folders of the data set that the caller has just written: the manifest is brought up
            to date for them alone.

    Raises:
        InputError: there is no such data set or no list; something was found and `strict`.
    """
    row = find_row(dataset)
    root = dataset_path / row.folder
    if not root.is_dir():
        raise InputError(
            f"{root} is not there: it should be the folder of a prepared data set; correct "
            "--dataset or --dataset_path"
        )
    if (root / "index.json").is_file() and not (root / "frames").is_dir():
        raise InputError(
            f"{root} holds shards: check the data set before it is packed, and compare shards with "
            f"tools/pack_dataset.py --verify {root}"
        )
    folder, manifest = output or root / "check", (output or root) / MANIFEST
    # Not everything in a folder that the user names is ours.
    for name in ("findings.csv", "summary.json", "report.html"):
        partial_of(folder / name).unlink(missing_ok=True)
    with Workers(workers) as pool:
        with StepLine("checked, clips", every=1000) as line:
            found = survey(root, row, pool, decode, line)
        folder.mkdir(parents=True, exist_ok=True)
        notes = [
            *_notes(found, decode),
            *_keep_manifest(found, manifest, pool, verify, update_manifest, wrote),
        ]
    checkup = Checkup(dataset, found, folder, tuple(notes))
    _write(checkup, report)
    for text in summary_lines(checkup):
        say(text)
    if strict and checkup.findings:
        raise InputError(
            f"{root} has {_count(len(checkup.findings), 'finding')}, and --strict accepts none: "
            f"see {folder / 'findings.csv'}"
        )
    return checkup


def _notes(found: Survey, decode: bool) -> Iterator[str]:
    yield (
        "every frame was decoded"
        if decode
        else "frames were not decoded, only their headers and ends were read"
    )
    if not found.has_frames:
        yield "there are no frames: a data set of skeletons alone"
    if not found.has_poses:
        yield "there are no keypoints: only models of RGB alone can be trained on it"


def _keep_manifest(
    found: Survey,
    manifest: Path,
    pool: Workers,
    verify: bool,
    update: bool,
    wrote: Collection[str] | None,
) -> Iterator[str]:
    """Compare with the manifest if asked, write it if asked or missing; yield what was done."""
    partial_of(manifest).unlink(missing_ok=True)
    is_there = manifest.is_file()
    if verify and is_there:
        changes = list(verify_manifest(found.root, manifest, pool))
        found.findings = in_order([*found.findings, *changes])
        yield f"every file was compared with {manifest.name}"
    if update or not is_there or wrote is not None:
        files = write_manifest(found.root, manifest, pool, None if update else wrote)
        yield f"wrote {manifest.name}: {_count(files, 'file')} with their SHA-256"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------- files


def _write(checkup: Checkup, report: bool) -> None:
    write_text(checkup.output / "findings.csv", findings_csv(checkup.findings))
    write_json(checkup.output / "summary.json", summary_json(checkup))
    if not report:
        return
    # Loads torch, which takes seconds and a gigabyte: not before the check is done.
    from datasets.check.sheets import draw_classes, draw_worst

    found = checkup.survey
    page = Report(
        name=checkup.name,
        survey=found,
        verdict=checkup.verdict,
        tone=checkup.tone,
        notes=checkup.notes,
        worst=draw_worst(found) if found.has_frames else (),
        classes=draw_classes(found) if found.has_frames else (),
    )
    write_report(checkup.output / "report.html", page)


def findings_csv(findings: list[Finding]) -> str:
    """Return a table of findings in which no cell is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("level", "kind", "clip", "path", "text", "remedy", "frame"))
    for finding in findings:
        cells = (finding.level, finding.kind, finding.clip, finding.path, finding.text)
        frame = "" if finding.frame is None else finding.frame
        writer.writerow([*map(csv_cell, cells), csv_cell(finding.remedy), frame])
    return text.getvalue()


def summary_json(checkup: Checkup) -> dict[str, Any]:
    """Return the numbers of a check as plain values."""
    found = checkup.survey
    rates = [facts.detected for facts in found.poses.values()]
    return {
        "dataset": checkup.name,
        "verdict": checkup.verdict,
        "errors": checkup.errors,
        "warnings": checkup.warnings,
        "findings": {kind: len(some) for kind, some in found.by_kind().items()},
        "clips": len(found.lists.clips()),
        "frames": found.frames,
        "published_protocol": found.lists.is_published,
        "splits": {
            facts.split: {
                "clips": facts.clips,
                "frames": facts.frames,
                "classes": {found.lists.class_name(k): n for k, n in facts.counts.items()},
                "majority": facts.majority,
            }
            for facts in found.splits
        },
        "sizes": {f"{w}x{h}": count for (w, h), count in found.sizes.items()},
        "rates": {f"{rate:g}": count for rate, count in found.rates.items()},
        "keypoints": {
            "clips": len(rates),
            "mean_detection_rate": float(np.mean(rates)) if rates else None,
            "least_detection_rate": min(rates, default=None),
        },
        "notes": list(checkup.notes),
    }


# ---------------------------------------------------------------- text


def summary_lines(checkup: Checkup) -> list[str]:
    """Return what is printed: classes, keypoints, findings, and the verdict last."""
    found = checkup.survey
    clips = len(found.lists.clips())
    return [
        f"{found.root}: {_count(clips, 'clip')}, {_count(found.frames, 'frame')}",
        *(f"note: {note}" for note in checkup.notes),
        *_protocol_lines(found),
        "",
        *_split_lines(found),
        *_keypoint_lines(found),
        "",
        *_finding_lines(found),
        f"report: {checkup.output}",
        f"verdict: {checkup.verdict}",
    ]


def _protocol_lines(found: Survey) -> list[str]:
    if not found.lists.is_published:
        return []
    return ["PUBLISHED PROTOCOL: val and test are the same clips; results are optimistic"]


def _split_lines(found: Survey) -> list[str]:
    """Return a table: one line a split, one column a class where there are not too many."""
    labels = sorted({label for facts in found.splits for label in facts.counts})
    names = [found.lists.class_name(label) for label in labels]
    if len(labels) > MANY_CLASSES:
        labels, names = [], []
    widths = [max(6, len(name)) for name in names]
    head = "  ".join(n.rjust(w) for n, w in zip(names, widths, strict=True))
    lines = [f"split    clips    frames  majority  {head}".rstrip()]
    for facts in found.splits:
        cells = (str(facts.counts.get(label, 0)) for label in labels)
        row = "  ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True))
        lines.append(
            f"{facts.split:<5}  {facts.clips:>7,}  {facts.frames:>8,}  {facts.majority:>8.1%}  "
            f"{row}".rstrip()
        )
    return lines


def _keypoint_lines(found: Survey) -> list[str]:
    return [
        f"keypoints, {split}: {_count(clips, 'clip')}, somebody found in {detected:.1%} of the "
        f"frames of a clip on average, {joints:.1%} of their joints, at most "
        f"{_count(people, 'person').replace('persons', 'people')}"
        for split, clips, detected, joints, people in detection_by_split(found)
    ]


def _finding_lines(found: Survey) -> list[str]:
    lines = []
    for kind, some in found.by_kind().items():
        about = KINDS[kind]
        lines.append(f"{about.level}: {about.title} ({kind}, {len(some):,})")
        lines += [f"  {finding.line()}" for finding in some[:_EXAMPLES]]
        if len(some) > _EXAMPLES:
            lines.append(f"  and {len(some) - _EXAMPLES:,} more")
    return lines
