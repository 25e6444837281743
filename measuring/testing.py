"""What the loader does for a test of 10 crops x 2 samplings of one video."""

from collections.abc import Callable

import torch

from benchmarks import published_loader
from datasets.clips import ClipDataset, collate
from datasets.loading import build_eval_loader
from datasets.order import SampleKey
from datasets.sampling import sample_frames
from measuring.clips import ClipsOnDisk, make_images
from measuring.loaders import SIDE, one_thread, options, published_joints
from measuring.memory import peak_bytes
from measuring.plan import Plan
from measuring.record import Row, Section
from measuring.timing import race
from ops.batch import Batch

TOGETHER, NORMALISED = "ours", "ours, normalised"
APART, PUBLISHED_APART = "ours, crop by crop", "published, crop by crop"
_CROPS, _SAMPLINGS = 10, 2
_KEY = SampleKey(0, 0)
_CPU = torch.device("cpu")
# Views that are normalised at a time.
_ROWS = 2


def measure_tests(plan: Plan) -> Section:
    """Time the loading of all views of a clip at once, and of each view by itself."""
    segments, num_frames = (8, 40) if plan.is_quick else (32, 103)
    section = Section(
        name="testing",
        title=f"Test of one video, {_CROPS} crops x {_SAMPLINGS} samplings of {segments} frames "
        f"at {SIDE} pixels, 4 channels: the loader's part, 1 thread",
        peer=APART,
        notes=[
            f"{APART}: the loader of one crop, {_CROPS} times; {PUBLISHED_APART}: the published "
            "steps for each view by itself, normalised",
        ],
    )
    with one_thread():
        for size in plan.sizes:
            name = f"{size[0]}x{size[1]}"
            plan.progress(f"test of one video at {name}")
            clips = make_images(plan.folder / f"test_{name}", size, 1, num_frames)
            together = _dataset(clips, segments, _CROPS)
            calls: dict[str, Callable[[], object]] = {
                PUBLISHED_APART: _published(clips, segments),
                APART: _apart(_dataset(clips, segments, 1)),
                TOGETHER: lambda data=together: _load(data),  # type: ignore[misc]
                NORMALISED: lambda data=together: _normalised(_load(data)),  # type: ignore[misc]
            }
            peaks = {key: peak_bytes(call, _CPU) for key, call in calls.items()}
            section.rows += [
                Row(
                    case=name,
                    variant=key,
                    timing=timing.times(1e3),
                    facts={} if (peak := peaks[key]) is None else {"peak, MiB": peak / 2**20},
                    settings={"width": size[0], "height": size[1]},
                )
                for key, timing in race(calls, plan.repeats, warm_up=0).items()
            ]
    return section


def _dataset(clips: ClipsOnDisk, segments: int, crops: int) -> ClipDataset:
    args, source = clips.open([*options(1, 0), "--num_segments", str(segments)])
    loader = build_eval_loader(args, source, "test", num_clips=_SAMPLINGS, test_crops=crops)
    assert isinstance(loader.dataset, ClipDataset)
    return loader.dataset


def _load(dataset: ClipDataset) -> Batch:
    return collate([dataset[_KEY]])


def _normalised(batch: Batch) -> None:
    for part in batch.rows(_ROWS):
        part.prepared()


def _apart(dataset: ClipDataset) -> Callable[[], object]:
    def load() -> None:
        for _ in range(_CROPS):
            _load(dataset)

    return load


def _published(clips: ClipsOnDisk, segments: int) -> Callable[[], object]:
    picks = sample_frames(clips.num_frames, segments, None, _SAMPLINGS, None)
    joints = published_joints(clips)

    def load() -> None:
        for frames in picks:
            paths = [clips.frame(clips.names[0], int(i)) for i in frames]
            for view in range(_CROPS):
                published_loader.published_test_view(paths, joints[frames], SIDE, view)

    return load
