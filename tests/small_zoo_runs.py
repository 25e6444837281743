"""Small trainings of skeleton models on annotation pickles, by the scripts' own functions."""

from pathlib import Path

import numpy as np

import main_only_pose
import test_models as tester
from tests.making_annotations import annotation, write

SPLITS = {"train": 12, "val": 6, "test": 6}


def clip(name: str, label: int, joints: int, dims: int):
    """Return a clip of one person who moves to the right (class 1) or down (class 0)."""
    frames = 10 + len(name)
    moved = annotation(name, frames, 1, joints, dims, np.float32, label=label)
    moved["keypoint"][..., label] += np.linspace(0, 6, frames)[None, :, None]
    return moved


def write_moves(folder: Path, joints: int = 17, dims: int = 2, splits=None, **changes) -> Path:
    """Write a pickle of three splits; `changes` are those of every annotation."""
    names = {
        split: [f"{split}{i}" for i in range(count)] for split, count in (splits or SPLITS).items()
    }
    clips = [
        {**clip(name, number % 2, joints, dims), **changes}
        for split in names.values()
        for number, name in enumerate(split)
    ]
    return write(folder / "moves.pkl", clips, names)


def train(pickle: Path, *more: object, script=main_only_pose) -> Path:
    """Train an epoch; return the run."""
    out = pickle.parent / "out"
    line = ["--annotations", pickle, "--experiment_path", out, "--threads", 1, "-j", 0]
    defaults = ["--epochs", 1, "-b", 4, "--iter_size", 1, "--pose_frames", 8, "--num_people", 1]
    script.main(list(map(str, [*line, *defaults, *more])))
    return newest(out)


def newest(out: Path) -> Path:
    """Return the run that was begun last."""
    return max(out.glob("experiments/*/*/*"), key=lambda run: run.stat().st_mtime_ns)


def score(run: Path, *more: object):
    return tester.main(list(map(str, ["--weights", run / "last.pth.tar", "--no_report", *more])))
