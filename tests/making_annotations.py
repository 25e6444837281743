"""Annotation pickles for tests."""

import pickle
from pathlib import Path

import numpy as np

from datasets.annotations.annotation_set import open_annotations
from datasets.annotations.checks import check_annotations


def annotation(name="a", frames=4, people=2, joints=17, dims=2, dtype=np.float16, **changes):
    """Return an annotation without a fault; `changes` replace fields, None removes one."""
    rng = np.random.default_rng(sum(map(ord, str(name))))
    made = {
        "frame_dir": name,
        "label": 0,
        "img_shape": (36, 64),
        "original_shape": (36, 64),
        "total_frames": frames,
        "keypoint": rng.uniform(1, 30, (people, frames, joints, dims)).astype(dtype),
        "keypoint_score": rng.uniform(0.1, 1, (people, frames, joints)).astype(dtype),
        **changes,
    }
    if dims == 3 and "keypoint_score" not in changes:
        del made["keypoint_score"]
    return {field: value for field, value in made.items() if value is not None}


def write(path: Path, annotations, splits=None, protocol=4) -> Path:
    content = annotations if splits is None else {"split": splits, "annotations": annotations}
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def opened(folder: Path, annotations, splits=None, layout=None, **options):
    """Return the set of these annotations, its pickle and its store below `folder`."""
    path = write(folder / "x.pkl", annotations, splits)
    return open_annotations(path, layout, folder / "cache", **options)


def found_in(folder, annotations, splits=None, **options):
    """Return what is wrong with annotations: (severity, clip, field, text) of each finding."""
    findings = check_annotations(opened(folder, annotations, splits), **options)
    return [(f.severity, f.sample, f.field, f.text) for f in findings]
