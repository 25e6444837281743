"""`report.html` of a test: what was found, how far to believe it, and where the model fails."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import assembly
from datasets.loading import build_eval_loader
from errors import InputError, printable
from evaluation import Outcome, Scored, Tested, comparison_texts
from files import write_text
from models.weights import read_checkpoint
from options.skeletons import needs_frames, sees_whole_clips
from pages.clips import ClipFacts, draw_cards
from pages.page import render_page
from pages.tables import (
    Row,
    about_differences,
    about_intervals,
    class_rows,
    confusion_cells,
    curve_rows,
    metric_rows,
    model_rows,
    reliability_bars,
    verdict_of,
)
from reports import environment
from results.run_results import describe
from results.slices import Slicing, adjusted, slice_by_name, slice_by_value

_MOST_SLICES = 40
MANY_CLASSES = 12


def write_test_report(path: Path, outcome: Outcome, args: argparse.Namespace) -> str:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        outcome: of the test.
        args: options of the test.

    Returns:
        A line on the pictures that could not be drawn; "" when all could.

    Raises:
        InputError: the page cannot be written.
    """
    page, trouble = render_test_report(outcome, args)
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name another --output; the numbers are "
            "in test_report.json"
        ) from None
    return trouble


def render_test_report(outcome: Outcome, args: argparse.Namespace) -> tuple[str, str]:
    """Return the page, and a line on the pictures that could not be drawn."""
    seen_by, trouble = _find_clips(outcome, args)
    tested = None if seen_by is None else seen_by.tested
    facts = ClipFacts.of(tested, outcome.scores.clips)
    worst, unsure, maps = draw_cards(outcome, seen_by, facts, args)
    slicings = _slicings(outcome, facts)
    scores, metrics = outcome.scores, outcome.metrics
    several = len(outcome.models) > 1
    verdict, tone = verdict_of(outcome)
    context = {
        "title": f"Test on {_name_of(outcome, args)}",
        "banners": [*map(printable, outcome.selection), *outcome.cautions],
        "verdict": verdict,
        "tone": tone,
        "metrics": metrics,
        "numbers": metric_rows(outcome),
        "over": about_intervals(outcome),
        "notes": [printable(note) for note in (*outcome.notes, outcome.intervals.note) if note],
        "how": _how(outcome, args, tested),
        "models": model_rows(outcome) if several else [],
        "comparisons": ["\n".join(lines) for lines in comparison_texts(outcome)],
        "classes": class_rows(outcome),
        "confusion": confusion_cells(metrics),
        "class_names": [printable(name) for name in scores.classes],
        "many_classes": MANY_CLASSES,
        "reliability": reliability_bars(metrics),
        "curves": curve_rows(outcome),
        "slicings": [(s, about_differences(s, slicings)) for s in slicings],
        "most_slices": _MOST_SLICES,
        "worst": worst,
        "unsure": unsure,
        "asked": args.report_clips,
        "wrong": metrics.total - metrics.correct,
        "maps": maps,
        "picture_notes": _picture_notes(outcome, seen_by, trouble),
    }
    lost = [card for card in (*worst, *unsure) if card.trouble]
    if lost and not trouble:
        trouble = f"{len(lost)} clips of the report have no pictures: {lost[0].trouble}"
    return render_page("test_report.html", context), trouble


# ---------------------------------------------------------------- what it was tested on


def _name_of(outcome: Outcome, args: argparse.Namespace) -> str:
    dataset = next((m.tested.options.dataset for m in outcome.models if m.tested), args.dataset)
    return f"the {outcome.split} list{f' of {printable(dataset)}' if dataset else ''}"


def _short_name(outcome: Outcome, name: str) -> str:
    numbers = {model.name: f"model {n}" for n, model in enumerate(outcome.models, start=1)}
    return numbers.get(name, name)


def _find_clips(outcome: Outcome, args: argparse.Namespace) -> tuple[Scored | None, str]:
    """Return the model whose input is shown: the first that sees frames, else the first.

    Score files have none, but the options may name the data set.
    """
    tested = [model for model in outcome.models if model.tested is not None]
    if tested:
        seeing = (m for m in tested if m.tested and needs_frames(m.tested.options))
        return next(seeing, tested[0]), ""
    if args.dataset is None:
        return None, ""
    try:
        source = assembly.open_data(args)
        loader = build_eval_loader(args, source, outcome.split)
        found = Tested(args, source, assembly.clips_of(loader))
        _check_same_clips(outcome, found)
    except InputError as error:
        return None, f"no pictures: {printable(error)}"
    return Scored("", outcome.scores, tested=found), ""


def _check_same_clips(outcome: Outcome, tested: Tested) -> None:
    labels = {clip.record.name: clip.record.label for clip in tested.clips.clips}
    for clip, label in zip(outcome.scores.clips, outcome.scores.labels.tolist(), strict=True):
        if labels.get(clip) != label:
            raise InputError(
                f"clip {clip} of the scores is {'of another class' if clip in labels else 'not'} "
                f"in the list of {tested.options.dataset}: name the data set that was scored"
            )


def _how(outcome: Outcome, args: argparse.Namespace, tested: Tested | None) -> list[Row]:
    """Return how it was tested, in rows of a name and what there is to say."""
    scores = outcome.scores
    total = len(scores)
    if tested is not None and outcome.models[0].tested is not None:
        total = len(tested.source.records(outcome.split))
    part = f"the first {len(scores):,} of {total:,}" if len(scores) < total else f"{total:,}"
    clips = f"{part} clips of {len(scores.classes)} classes"
    units = scores.units
    groups = f", {len(set(units)):,} groups" if units else ", groups not known"
    rows = [Row("Clips", clips + groups)]
    if tested is None or outcome.models[0].tested is None:
        rows.append(Row("Scores", "read from a file, which does not say its views"))
    else:
        views = f"{args.num_clips} x {args.test_crops} views (samplings x crops) of each clip"
        views += ", each also mirrored" * getattr(args, "double_flip", False)
        mean = "probabilities" if args.softmax else "logits"
        rows.append(Row("Views", f"{views}, mean of {mean}"))
        report = tested.clips.report
        if report is not None and report.missing:
            rows.append(Row("Keypoints", report.text()))
    for number, model in enumerate(outcome.models, start=1):
        title = "Model" if len(outcome.models) == 1 else f"Model {number}"
        rows += _about_model(title, model)
    versions = environment()
    commit = versions["commit"] or "not known"
    changed = ", files changed since" if commit.endswith("+") else ""
    text = f"torch {versions['torch']}, Python {versions['python']}, commit {commit[:12]}{changed}"
    rows.append(Row("Made with", text))
    return rows


def _about_model(title: str, model: Scored) -> list[Row]:
    rows = [Row(title, printable(model.name))]
    if model.temperature is not None:
        value = model.temperature.value
        rows.append(
            Row("Temperature", f"{value:.3f}, fitted on {model.temperature.clips} val clips")
        )
    if model.tested is None:
        return rows
    options = vars(model.tested.options)
    text = describe(options)
    if sees_whole_clips(model.tested.options):
        text += f", skeletons of {options['pose_frames']} frames"
    if needs_frames(model.tested.options) or not sees_whole_clips(model.tested.options):
        text += f", {options['num_segments']} segments"
    if needs_frames(model.tested.options):
        text += f" of {options['input_size']} x {options['input_size']} pixels"
    rows.append(Row("Network", text))
    content = read_checkpoint(model.tested.options.weights)
    data = content.get("data") if isinstance(content, dict) else None
    return [*rows, Row("Trained on", _about_training(data or {}))]


def _about_training(data: dict[str, Any]) -> str:
    lists = data.get("lists") or {}
    if not lists:
        return "the checkpoint does not say"
    parts = [
        f"{split} list of {facts['clips']:,} clips (SHA-256 {facts['sha256'][:12]})"
        for split, facts in lists.items()
    ]
    return f"{printable(data.get('dataset'))}: {', '.join(parts)}"


# ---------------------------------------------------------------- where it fails


def _slicings(outcome: Outcome, facts: ClipFacts) -> list[Slicing]:
    scores = outcome.scores
    is_right = scores.scores.argmax(1) == scores.labels
    names = [printable(scores.classes[label]) for label in scores.labels]
    found = [slice_by_name("Class", names, is_right)]
    if scores.units is not None and scores.groups is not None:
        groups = [printable(group) or "clips without a group" for group in scores.groups]
        by_group = slice_by_name("Group (athlete, event or video)", groups, is_right)
        slices = tuple(sorted(by_group.slices, key=lambda s: s.accuracy))
        found.append(Slicing(by_group.title, slices, None, by_group.p_value))
    for title, values, show in (
        ("Frames in which somebody was found", facts.detection, _show_shares),
        ("Length of the clip", facts.frames, _show_frames),
    ):
        if np.isfinite(values).any():
            found.append(slice_by_value(title, values, is_right, show))
    return adjusted(found)


def _show_shares(low: float, high: float) -> str:
    return f"{low:.0%}" if low == high else f"{low:.0%} to {high:.0%}"


def _show_frames(low: float, high: float) -> str:
    return f"{low:.0f} frames" if low == high else f"{low:.0f} to {high:.0f} frames"


def _picture_notes(outcome: Outcome, seen_by: Scored | None, trouble: str) -> list[str]:
    """Return what there is to know about the pictures, a sentence each."""
    if seen_by is None or seen_by.tested is None:
        return [trouble or "no pictures: score files hold no frames; name the data set to see them"]
    notes = []
    if not seen_by.name:
        notes.append("frames of the data set; a score file has no model, so there are no maps")
    if len(outcome.models) > 1 and seen_by.name:
        which = _short_name(outcome, seen_by.name)
        notes.append(
            f"probabilities are those of the ensemble; frames and maps are those of {which} alone"
        )
    options = seen_by.tested.options
    if seen_by.name and (options.num_clips > 1 or options.test_crops > 1):
        notes.append("pictures show one of the views: first sampling, centre crop")
    return notes
