"""The work of preprocess_pose.py: clips through an estimator, and what came of it."""

import argparse
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from console import StepLine, say
from datasets.frames import ImageFrames
from datasets.pose_files import write_frame_poses
from datasets.poses import save_poses
from datasets.prepare.ahead import Ahead
from datasets.prepare.pose_jobs import DecodedPart, PoseJob, decode_jobs
from files import alone_in
from machine import StopRequest
from models.estimators import Estimator
from ops.people import Detections
from ops.tracking import follow_people, most_confident
from ranks import Ranks

# Parts of clips that wait for the detector, each of --pose_batch frames.
_AHEAD = 2
_NAMED = 5


@dataclass
class Tally:
    """What one process did, in numbers and names that JSON can hold.

    Attributes:
        clips: written.
        frames: in them.
        found: frames of them in which somebody was found.
        nobody: clips of them in which nobody was found.
        damaged: clip -> why it could not be done.
        derived: clips whose published files were written from their .npz.
        seconds: from the first clip to the last.
        decoding: seconds that the decoder was busy.
        waiting: seconds that the detector waited for it.
        detecting: seconds that the detector was busy.
        finishing: seconds that following people and writing took.
    """

    clips: int = 0
    frames: int = 0
    found: int = 0
    nobody: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    derived: int = 0
    seconds: float = 0.0
    decoding: float = 0.0
    waiting: float = 0.0
    detecting: float = 0.0
    finishing: float = 0.0

    def count(self, clip: str, keypoints: np.ndarray) -> None:
        """Count a clip that was written with keypoints (N, M, V, 3)."""
        found = int((keypoints[..., 2] > 0).any(axis=(1, 2)).sum())
        self.clips += 1
        self.frames += len(keypoints)
        self.found += found
        if not found:
            self.nobody.append(clip)

    @classmethod
    def sum(cls, tallies: Sequence["Tally"]) -> "Tally":
        """Add up what all processes did; `seconds` is the longest, the shares are means."""
        total = cls()
        for tally in tallies:
            for name in ("clips", "frames", "found", "nobody", "derived"):
                setattr(total, name, getattr(total, name) + getattr(tally, name))
            total.damaged |= tally.damaged
        busy = [tally for tally in tallies if tally.seconds > 0]
        total.seconds = max((tally.seconds for tally in busy), default=0.0)
        for name in ("decoding", "waiting", "detecting", "finishing"):
            share = sum(getattr(tally, name) for tally in busy) / max(
                sum(tally.seconds for tally in busy), 1e-9
            )
            setattr(total, name, share * total.seconds)
        return total

    def text(self, root: Path) -> str:
        """Return the summary."""
        seconds = max(self.seconds, 1e-9)
        lines = [
            f"{self.clips} clips with {self.frames} frames written to {root / 'poses'} in "
            f"{seconds:.1f} s: {self.frames / seconds:.1f} frames per second",
            f"of the time, decoding ran {self.decoding / seconds:.0%}, detection "
            f"{self.detecting / seconds:.0%}, following people and writing "
            f"{self.finishing / seconds:.0%}, and detection waited for decoding "
            f"{self.waiting / seconds:.0%}",
            f"somebody in {self.found / max(self.frames, 1):.1%} of frames; "
            f"{len(self.nobody)} clips with nobody"
            + (": " if self.nobody else "")
            + named(self.nobody),
        ]
        return "\n".join(lines)


def named(names: Collection[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(sorted(names)[:_NAMED]) + more


def say_damaged(damaged: Mapping[str, str | None]) -> None:
    """Name clips that were left out, each with its reason."""
    for name, reason in damaged.items():
        if reason is not None:
            say(f"left out {name}: {reason}")


class Worker:
    """Estimates clips and writes their keypoints.

    Args:
        root: folder of the data set.
        args: options of preprocess_pose.py.
        notes: the options that decide keypoints, to keep with them.
        estimator: finds people.
    """

    def __init__(
        self,
        root: Path,
        args: argparse.Namespace,
        notes: Mapping[str, str],
        estimator: Estimator,
    ) -> None:
        self.root, self.args, self.estimator = root, args, estimator
        self.source = f"{estimator.name} {estimator.weights}"
        self.notes = {
            **notes,
            "detector_version": estimator.version,
            "weights": estimator.weights,
            "weights_sha256": estimator.weights_hash,
        }

    def run(self, todo: Sequence[PoseJob], tally: Tally, ranks: Ranks, stop: StopRequest) -> None:
        """Do this process's share of the clips and count them in `tally`.

        Raises:
            Interrupted: a signal came; the current clip is dropped.
        """
        jobs = ranks.share(todo)
        begin, seen = time.perf_counter(), 0
        people: list[Detections] = []
        parts = decode_jobs(jobs, self.args.pose_batch, self.args.main_athlete)
        with StepLine("clips", every=10) as line, Ahead(parts, _AHEAD) as ahead:
            for part in ahead:
                stop.poll()
                ranks.check()
                if part.frames is not None:
                    started = time.perf_counter()
                    people += self.estimator.detect(part.frames)
                    tally.detecting += time.perf_counter() - started
                    continue
                started = time.perf_counter()
                self.end_clip(part, people, tally)
                tally.finishing += time.perf_counter() - started
                people, seen = [], seen + 1
                if ranks.is_first:
                    say_damaged({part.job.name: tally.damaged.get(part.job.name)})
                    line(seen, len(jobs))
        tally.seconds = time.perf_counter() - begin
        tally.decoding, tally.waiting = ahead.made, ahead.waited

    def end_clip(self, part: DecodedPart, people: Sequence[Detections], tally: Tally) -> None:
        """Write the keypoints of a clip whose frames have all been seen, or note what is wrong."""
        job, error = part.job, part.error
        if not error and len(people) != job.images.count:
            error = (
                f"{job.images.place} gave {len(people)} frames, the list says "
                f"{job.images.count}: prepare the data set again"
            )
        if error:
            tally.damaged[job.name] = error
            return
        keypoints = self.choose(part, people)
        path = self.root / "poses" / f"{job.name}.npz"
        save_poses(path, keypoints, part.size, self.source, {**self.notes, "clip": job.identity})
        if self.args.per_frame_npy and isinstance(job.images, ImageFrames):
            write_frame_poses(job.images.files, keypoints[:, 0])
        tally.count(job.name, keypoints)

    def choose(self, part: DecodedPart, people: Sequence[Detections]) -> np.ndarray:
        """Return (N, M, 17, 3): who is kept, the main athlete first."""
        if self.args.main_athlete == "confident":
            return most_confident(people, self.args.max_people)
        return follow_people(people, part.size, self.args.max_people, part.boxes)


# ---------------------------------------------------------------- the folder


@contextmanager
def claimed(root: Path, ranks: Ranks) -> Iterator[None]:
    """Keep a second call out of poses/, whose unfinished files this one would remove.

    Raises:
        InputError: another call is at work there.
    """
    if not ranks.is_first or not root.is_dir():
        yield
        return
    with alone_in(root / "poses"):
        yield
