"""The steps of the data path one by one, the published ones and ours."""

from collections.abc import Callable

import numpy as np

from benchmarks import published_loader
from datasets.clips import ClipDataset, collate
from datasets.loading import build_train_loader
from datasets.order import SampleKey
from datasets.views import Crop, CutFrames, draw_heatmap
from measuring.clips import ClipsOnDisk, make_images
from measuring.loaders import SEGMENTS, SIDE, one_thread, options, published_joints
from measuring.plan import Plan
from measuring.record import Row, Section
from measuring.timing import race
from transforms import reduce_decoding, train_geometry

# Frames of the clip; the first of them are used.
_FRAMES = 24


def measure_stages(plan: Plan) -> Section:
    """Time each step on the frames of one training view."""
    section = Section(
        name="stages",
        title=f"Loader step by step, a training view of {SEGMENTS} frames at {SIDE} pixels, "
        "4 channels, 1 thread",
        unit="ms a frame",
        notes=["normalise: on the device; here it is the CPU"],
    )
    with one_thread():
        for size in plan.sizes:
            name = f"{size[0]}x{size[1]}"
            plan.progress(f"loader steps at {name}")
            clips = make_images(plan.folder / f"stages_{name}", size, 1, _FRAMES)
            for label, stages in (("published", _published(clips)), ("ours", _ours(clips))):
                section.rows += [
                    Row(
                        case=f"{name}, {label}",
                        variant=stage,
                        timing=timing.times(1e3 / SEGMENTS),
                        settings={"width": size[0], "height": size[1], "path": label},
                    )
                    for stage, timing in race(stages, plan.repeats).items()
                ]
    return section


def _published(clips: ClipsOnDisk) -> dict[str, Callable[[], object]]:
    """Return the published steps, each on what the one before it made."""
    joints = published_joints(clips)[:SEGMENTS]
    paths = [clips.frame(clips.names[0], index) for index in range(SEGMENTS)]
    decoded = [published_loader.decode(path) for path in paths]
    fitted = [published_loader.fit(image) for image in decoded]
    heatmaps = [published_loader.draw_heatmap(points) for points in joints]
    packed = list(map(published_loader.pack, fitted, heatmaps))
    crops = published_loader.crop_for_training(packed, SIDE, np.random.default_rng(0))
    pixels = published_loader.stack(crops)
    return {
        "read + decode": lambda: [published_loader.decode(path) for path in paths],
        "resize to 640x360": lambda: [published_loader.fit(image) for image in decoded],
        "heatmap": lambda: [published_loader.draw_heatmap(points) for points in joints],
        "pack as RGBA": lambda: list(map(published_loader.pack, fitted, heatmaps)),
        "cut + resize": lambda: published_loader.crop_for_training(
            packed, SIDE, np.random.default_rng(0)
        ),
        "stack": lambda: published_loader.stack(crops),
        "normalise": lambda: published_loader.normalise(pixels),
    }


def _ours(clips: ClipsOnDisk) -> dict[str, Callable[[], object]]:
    """Return our steps, on the same frames and with the same crop."""
    args, source = clips.open(options(1, 0))
    dataset = build_train_loader(args, source).dataset
    assert isinstance(dataset, ClipDataset)
    clip = dataset.clips[0]
    images, size = clip.images, clip.size
    assert images is not None
    assert clip.poses is not None
    used = np.arange(SEGMENTS)
    view = train_geometry(*size, SIDE, np.random.default_rng(0))
    crop = Crop(reduce_decoding([view])[0] if images.can_reduce else view)
    reduction = crop.geometry.reduction
    frames = list(images.stream(used, size, reduction))
    tracks = clip.poses.load().keypoints_at(size)[used]
    sample = dataset[SampleKey(0, 0)]
    batch = collate([sample])
    paths = [clips.frame(clips.names[0], int(index)) for index in used]
    return {
        "read": lambda: [path.read_bytes() for path in paths],
        "read + decode": lambda: list(images.stream(used, size, reduction)),
        "cut + resize": lambda: CutFrames(frames, len(used), [crop])[0],
        "heatmap": lambda: draw_heatmap(dataset.spec, crop, tracks, size),
        "stack": lambda: collate([sample]),
        "normalise": lambda: batch.prepared(),
    }
