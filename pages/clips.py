"""Clips of a test report: which are shown, what is said of them, and their pictures."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from console import StepLine
from datasets.check.strips import Strip
from errors import InputError, printable
from evaluation import Outcome, Scored, Tested
from explanation.film import Film, detection_rates
from machine import choose_device
from models import build_model
from models.weights import load_checkpoint
from options.skeletons import with_layout
from results.worst_clips import ClipVerdict, choose_clips, judge_clips

# All pictures of a page together, as JPEG; in the page they take a third more.
MOST_PICTURE_BYTES = 6 * 2**20
_MOST_BARS = 5  # classes shown for a clip


@dataclass(frozen=True, slots=True)
class ClipCard:
    """One clip in the report.

    Attributes:
        name: of the clip.
        true, answer: names of classes.
        is_right: they are the same.
        facts: what is known of it beside, such as its group.
        bars: class, probability, whether it is the true one; the most probable first.
        strips: pictures; none when there are none to show.
        trouble: why not, or "".
    """

    name: str
    true: str
    answer: str
    is_right: bool
    facts: tuple[str, ...]
    bars: tuple[tuple[str, float, bool], ...]
    strips: tuple[Strip, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What the data set says about the tested clips, in the order of the scores; NaN if unknown.

    Attributes:
        detection: (N,) share of the frames in which somebody was found, 0-1.
        frames: (N,) length.
    """

    detection: np.ndarray
    frames: np.ndarray

    @classmethod
    def of(cls, tested: Tested | None, clips: Sequence[str]) -> "ClipFacts":
        """Look up the clips, which need not all be in the data set."""
        nothing = np.full(len(clips), np.nan)
        if tested is None:
            return cls(nothing, nothing)
        names = [clip.record.name for clip in tested.clips.clips]
        lengths = [float(clip.record.num_frames) for clip in tested.clips.clips]
        frames = dict(zip(names, lengths, strict=True))
        rates = detection_rates(tested.clips, tested.source.root).tolist()
        found = dict(zip(names, rates, strict=True))
        return cls(
            np.array([found.get(clip, np.nan) for clip in clips]),
            np.array([frames.get(clip, np.nan) for clip in clips]),
        )


def draw_cards(
    outcome: Outcome, seen_by: Scored | None, facts: ClipFacts, args: argparse.Namespace
) -> tuple[list[ClipCard], list[ClipCard], list[str]]:
    """Return cards of the worst clips, of the least sure ones, and the kinds of maps in them."""
    worst, unsure = choose_clips(judge_clips(outcome.scores), args.report_clips)
    film = _film(seen_by, args) if worst or unsure else None
    # By rank, so that a page that runs full has the first of both kinds.
    ordered = sorted(
        [(rank, "worst", v) for rank, v in enumerate(worst)]
        + [(rank, "unsure", v) for rank, v in enumerate(unsure)],
        key=lambda item: item[:2],
    )
    cards: dict[int, ClipCard] = {}
    used = 0
    with StepLine("pictures of clips", every=4) as line:
        for number, (_, _, verdict) in enumerate(ordered, start=1):
            strips, trouble = _draw(film, outcome, verdict, MOST_PICTURE_BYTES - used)
            used += sum(len(strip.jpeg) for strip in strips)
            cards[verdict.row] = _card(outcome, verdict, facts, strips, trouble)
            line(number, len(ordered))
    maps = [] if film is None else film.maps
    return [cards[v.row] for v in worst], [cards[v.row] for v in unsure], maps


def _film(seen_by: Scored | None, args: argparse.Namespace) -> Film | None:
    if seen_by is None or seen_by.tested is None:
        return None
    tested, model = seen_by.tested, None
    device = choose_device(args.device, args.gpus)
    if seen_by.name:
        options = with_layout(tested.options, tested.source.row.layout)
        model = build_model(options, len(tested.source.classes))
        load_checkpoint(model, tested.options.weights)
        model = model.to(device).eval()
    return Film(tested.clips, tested.source.root, model, device)


def _draw(
    film: Film | None, outcome: Outcome, verdict: ClipVerdict, room: int
) -> tuple[tuple[Strip, ...], str]:
    """Return pictures of a clip of at most `room` bytes, or none and why."""
    if film is None:
        return (), ""
    scores = outcome.scores
    try:
        name = printable(scores.classes[verdict.answer])
        strips = tuple(film.draw(scores.clips[verdict.row], verdict.answer, name))
    except InputError as error:
        return (), printable(error)
    if sum(len(strip.jpeg) for strip in strips) > room:
        return (), f"left out: the pictures of a page have {MOST_PICTURE_BYTES // 2**20} MB"
    return strips, ""


def _card(
    outcome: Outcome,
    verdict: ClipVerdict,
    facts: ClipFacts,
    strips: tuple[Strip, ...],
    trouble: str,
) -> ClipCard:
    scores, row = outcome.scores, verdict.row
    known = []
    if scores.groups and scores.groups[row]:
        known.append(f"group {printable(scores.groups[row])}")
    if np.isfinite(facts.frames[row]):
        known.append(f"{facts.frames[row]:.0f} frames")
    if np.isfinite(facts.detection[row]):
        known.append(f"somebody in {facts.detection[row]:.0%}")
    known.append(f"loss {verdict.loss:.2f}")
    best = np.argsort(-verdict.probabilities, kind="stable")[:_MOST_BARS].tolist()
    if verdict.label not in best:
        best[-1] = verdict.label
    classes = [printable(name) for name in scores.classes]
    return ClipCard(
        printable(scores.clips[row]),
        classes[verdict.label],
        classes[verdict.answer],
        verdict.is_right,
        tuple(known),
        tuple((classes[k], float(verdict.probabilities[k]), k == verdict.label) for k in best),
        strips,
        trouble,
    )
