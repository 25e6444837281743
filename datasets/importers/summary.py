"""What an import found, added up over the clips, in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from datasets.importers.importing import ClipPoses, Damaged, Plan

_NAMED = 10


@dataclass(slots=True)
class Summary:
    """Counts over clips.

    Attributes:
        clips: with keypoints.
        there: of these, left as they were.
        sizes: clip -> (width, height) that its keypoints are of.
        damaged: clips whose keypoints could not be used.
        empty: clips with nobody in any frame.
        hints: oddities, a line each.
        crowd: frames with 0, 1, 2, ... people.
        joints: joints that were found.
        counts: what else is to be told -> how often.
    """

    clips: int = 0
    there: int = 0
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    damaged: list[Damaged] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    joints: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, clip: ClipPoses, *, is_there: bool) -> None:
        """Take in a clip; `is_there` says that its file is left as it was."""
        self.clips += 1
        self.there += is_there
        self.sizes[clip.clip] = clip.size
        self.joints += clip.joints
        crowd = np.zeros(max(len(self.crowd), len(clip.crowd)), np.int64)
        crowd[: len(self.crowd)] += self.crowd
        crowd[: len(clip.crowd)] += clip.crowd
        self.crowd = crowd
        if len(clip.crowd) == 1:
            self.empty.append(clip.clip)
        if clip.hint:
            self.hints.append(clip.hint)
        for what, count in (
            ("people of single frames are in no slot (--people keeps more)", clip.left_over),
            ("of them have the track of somebody else in their frame", clip.twice),
            ("joints were NaN, infinite or absurdly far away: undetected now", clip.unusable),
            ("confidences above 1 were set to 1", clip.above_one),
            ("joints are outside of their frame", clip.outside),
        ):
            self.counts[what] = self.counts.get(what, 0) + count

    def warnings(self, plan: Plan, damaged: Sequence[Damaged]) -> list[str]:
        """Return what must not be missed, a line each; every clip that is left out has one."""
        groups = (
            ("clips without keypoints", plan.matches.clips_without),
            ("keypoints of no clip of the lists", plan.matches.keys_without),
            ("nobody in any frame", self.empty),
        )
        return [
            *plan.source.findings,
            *(f"left out: {clip.reason}" for clip in damaged),
            *self.hints,
            *(f"{what}: {name_some(names)}" for what, names in groups if names),
        ]

    def lines(self, plan: Plan, left_out: int, is_dry: bool) -> list[str]:
        """Return the report, a line each."""
        matches = plan.matches
        written = self.clips - self.there
        done = "would be written" if is_dry else "written"
        lines = [
            f"{written} clips {done} to {plan.root / 'poses'}, {self.there} were there already, "
            f"{left_out} left out",
            f"{len(matches.keys)} clips matched, {len(matches.clips_without)} clips without "
            f"keypoints, {len(matches.keys_without)} keypoints of no clip",
        ]
        frames = int(self.crowd.sum())
        if frames:
            share = self.crowd[0] / frames
            people = ", ".join(
                f"{count:,} with {number}" for number, count in enumerate(self.crowd) if count
            )
            lines.append(f"{frames:,} frames, nobody in {share:.1%} of them; people: {people}")
        return lines + [f"{count:,} {what}" for what, count in self.counts.items() if count]


def name_some(names: Sequence[str]) -> str:
    """Return how many names there are, and the first of them."""
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)}: {shown}{more}"
