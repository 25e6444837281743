"""What crops show: decoded once, resized once, and the bits of before."""

import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import resized_crop

from datasets import frames as frames_module
from datasets.clips import ClipDataset, ViewSpec, collate
from datasets.frames import ImageFrames
from datasets.order import SampleKey
from datasets.records import load_records
from datasets.scan import find_clips
from datasets.views import Crop, CutFrames, InputSpec, draw_heatmap, make_views
from ops.body_frame import BodyTrack, normalize_keypoints
from ops.heatmap import joint_heatmap
from ops.pixels import HEATMAP_MEAN, HEATMAP_STD, RGB_MEAN, RGB_STD
from ops.skeleton import COCO17
from prediction.decoding import Decoder
from prediction.frames import ImageFolder, can_reduce
from transforms import (
    Augmentation,
    CropBox,
    Geometry,
    draw_augmentation,
    eval_geometries,
    reduce_decoding,
    train_geometry,
)

SIZE, SIDE, T = (150, 100), 64, 4
FIRST = SampleKey(0, 0)


@pytest.fixture
def noisy(make_dataset) -> Path:
    """Return a data set whose frames all differ, and whose pixels do."""
    root = make_dataset(size=SIZE)
    rng = np.random.default_rng(0)
    for path in sorted((root / "frames").rglob("*.jpg")):
        noise = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 1.5))
    return root


def build(root, views=ViewSpec(), estimate=None, **spec) -> ClipDataset:  # noqa: B008
    spec = InputSpec(**({"num_segments": T, "input_size": SIDE, "heatmap_channel": True} | spec))
    clips, _ = find_clips(
        root,
        load_records(root / "train_videofolder.txt"),
        has_frames=spec.has_frames,
        has_poses=spec.has_poses,
        missing_pose="estimate" if estimate else "error",
    )
    return ClipDataset(clips, spec, views, seed=3, estimate=estimate)


def decode_plainly(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def as_before(root: Path, clips: ClipDataset, key: SampleKey, person) -> torch.Tensor:
    """Return the normalised training view of a clip by the steps of then, in float32."""
    rng = np.random.default_rng([clips.seed, key.epoch, key.index])
    edges = np.arange(T + 1) * 12 // T
    picks = edges[:-1] + rng.integers(np.maximum(np.diff(edges), 1))
    geometry = train_geometry(*SIZE, clips.spec.input_size, rng)
    augmentation = draw_augmentation(rng) if clips.views.rand_augment else None
    folder = root / "frames" / clips.clips[key.index].record.name
    frames = np.stack([decode_plainly(folder / f"{pick + 1:05d}.jpg") for pick in picks])
    box, side = geometry.box, geometry.out_size
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)
    video = resized_crop(video, box.top, box.left, box.height, box.width, [side, side])
    video = video.flip(-1) if geometry.flip else video
    points = geometry.apply_to_keypoints(person(12, size=SIZE, seed=key.index))
    if augmentation is not None:
        frames = np.ascontiguousarray(video.permute(0, 2, 3, 1).numpy())
        video = torch.from_numpy(augmentation.apply_to_frames(frames)).permute(0, 3, 1, 2)
        points = augmentation.apply_to_keypoints(points, side)
    sigma = [10 * SIZE[1] / 360 * side / length for length in (box.width, box.height)]
    heatmap = torch.from_numpy(joint_heatmap(points[picks], side, side, tuple(sigma)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (RGB_MEAN, RGB_STD))
    rgb = torch.mul(video, 1 / (255 * std)) - mean / std
    return torch.cat((rgb, ((heatmap - HEATMAP_MEAN) / HEATMAP_STD)[:, None]), dim=1)


@pytest.mark.parametrize("rand_augment", [False, True])
def test_training_views_are_those_of_before(noisy, person, rand_augment):
    clips = build(noisy, ViewSpec(train=True, rand_augment=rand_augment))
    for epoch in range(8):
        key = SampleKey(epoch, epoch % 4)
        found = collate([clips[key]]).prepared().frames[0]
        expected = as_before(noisy, clips, key, person)
        assert torch.equal(found[:, :3], expected[:, :3])
        assert torch.allclose(found[:, 3], expected[:, 3], atol=1e-5)


# ---------------------------------------------------------------- once


@pytest.fixture
def work(monkeypatch) -> dict[str, list]:
    """Count what is decoded and resized from now on."""
    done: dict[str, list] = {"decoded": [], "resized": [], "drawn": []}
    decode, resize = frames_module.decode_image, Geometry.resize

    def counted_decode(path, *how):
        done["decoded"].append((path.name, *how[:1]))
        return decode(path, *how)

    def counted_resize(self, frame):
        done["resized"].append((self.box, frame.tobytes()))
        return resize(self, frame)

    def counted_draw(keypoints, *how):
        done["drawn"].append(len(keypoints))
        return joint_heatmap(keypoints, *how)

    monkeypatch.setattr(frames_module, "decode_image", counted_decode)
    monkeypatch.setattr(Geometry, "resize", counted_resize)
    monkeypatch.setattr("datasets.views.joint_heatmap", counted_draw)
    return done


@pytest.mark.parametrize(("side", "reduction"), [(64, 1), (24, 2)])
def test_ten_crops_of_two_samplings_decode_and_resize_each_frame_once(noisy, work, side, reduction):
    clips = build(noisy, ViewSpec(num_clips=2, test_crops=10), input_size=side)
    sample = clips[FIRST]
    assert len(sample.frames) == len(sample.heatmap) == 20
    frames = 2 * T
    assert work["decoded"] == [
        (f"{number + 1:05d}.jpg", reduction) for number in sorted([0, 3, 6, 9, 1, 4, 7, 10])
    ]
    assert len(work["resized"]) == len(set(work["resized"])) == 5 * frames
    assert work["drawn"] == [frames] * 5


@pytest.mark.parametrize("side", [64, 24])
def test_ten_crops_of_two_samplings_are_each_what_they_are_alone(noisy, side):
    clips = build(noisy, ViewSpec(num_clips=2, test_crops=10), input_size=side)
    sample = clips[FIRST]
    views = reduce_decoding(eval_geometries(*SIZE, side, 10))
    images = ImageFrames.find(noisy / "frames" / "train_0", 12)
    frames = list(images.stream(np.arange(12), SIZE, views[0].reduction))
    tracks = clips.clips[0].poses.load().keypoints_at(SIZE)
    for sampling, picks in enumerate(([0, 3, 6, 9], [1, 4, 7, 10])):
        for number, view in enumerate(views):
            row, crop = 10 * sampling + number, Crop(view)
            alone = crop.apply_to_frames(np.stack([frames[pick] for pick in picks]))
            assert np.array_equal(sample.frames[row].movedim(1, -1).numpy(), alone)
            heatmap = draw_heatmap(clips.spec, crop, tracks[picks], SIZE)
            assert np.array_equal(sample.heatmap[row].numpy(), heatmap)
            moved = crop.apply_to_keypoints(tracks[picks], COCO17)
            sigma = 10 * SIZE[1] / 360 * side / view.box.width
            assert np.allclose(heatmap, joint_heatmap(moved, side, side, sigma), atol=1e-4)


def test_frames_are_not_held_after_they_are_cut(noisy):
    given: list[weakref.ref] = []

    def stream():
        for _ in range(30):
            # The one that is being taken from us, and no other.
            assert sum(frame() is not None for frame in given) <= 1
            frame = np.zeros((100, 150, 3), np.uint8)
            given.append(weakref.ref(frame))
            yield frame
            del frame

    crops = [Crop(view) for view in eval_geometries(*SIZE, SIDE, 10)]
    cut = CutFrames(stream(), 30, crops)
    assert len(cut) == 10
    assert cut[7].shape == (30, SIDE, SIDE, 3)


def test_views_that_repeat_frames_and_augmented_crops_are_whole():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 60, 90, 3), dtype=np.uint8)
    turned = Augmentation((("brightness", 0.3),), np.array([[0, -1, 0], [1, 0, 0]], float))
    view = Geometry(CropBox(3, 5, 50, 40), 32, flip=True)
    crops = [Crop(view), Crop(view, turned), Crop(replace(view, flip=False))]
    cut = CutFrames(frames, 3, crops)
    for crop, seen in zip(crops, cut, strict=True):
        assert np.array_equal(seen, crop.apply_to_frames(frames))


def test_a_clip_of_fewer_frames_than_segments_repeats_them(noisy):
    clips = build(noisy, num_segments=30, interval=None)
    sample = clips[FIRST]
    assert sample.frames.shape == (1, 30, 3, SIDE, SIDE)
    assert sample.heatmap.shape == (1, 30, SIDE, SIDE)
    assert len({frame.numpy().tobytes() for frame in sample.frames[0]}) == 12


# ---------------------------------------------------------------- reduced, everywhere alike


@pytest.mark.parametrize("side", [64, 24])
def test_who_finds_the_keypoints_does_not_change_the_frames(noisy, person, side):
    given = build(noisy, input_size=side)[FIRST]
    (noisy / "poses" / "train_0.npz").unlink()
    shapes = []

    def estimate(frames):
        shapes.append(frames.shape)
        return person(12, size=SIZE)[[1, 4, 7, 10]]

    found = build(noisy, estimate=estimate, input_size=side)[FIRST]
    assert torch.equal(found.frames, given.frames)
    assert torch.equal(found.heatmap, given.heatmap)
    assert shapes == [(T, SIZE[1], SIZE[0], 3)]


@pytest.mark.parametrize("side", [64, 24])
@pytest.mark.parametrize("every", [0, 1])
def test_prediction_cuts_the_same_pixels_as_tests(noisy, side, every):
    sample = build(noisy, ViewSpec(test_crops=10), input_size=side)[FIRST]
    source = ImageFolder(noisy / "frames" / "train_0", 10.0)
    assert can_reduce(source)
    views = reduce_decoding(eval_geometries(*SIZE, side, 10))
    decoder = Decoder(source, lambda _: tuple(map(Crop, views)))
    seen = list(decoder.frames(every))
    for row in range(10):
        for segment, pick in enumerate([1, 4, 7, 10]):
            frame = sample.frames[row, segment].movedim(0, -1).numpy()
            assert np.array_equal(seen[pick].crops[row], frame)
    assert all((frame.picture is None) is not bool(every) for frame in seen)


def test_batches_keep_the_channels_of_a_pixel_together(noisy):
    clips = build(noisy, ViewSpec(test_crops=3))
    batch = collate([clips[SampleKey(0, index)] for index in range(3)])
    assert batch.frames.shape == (9, T, 3, SIDE, SIDE)
    assert batch.frames.movedim(2, -1).is_contiguous()
    assert all(part.frames.movedim(2, -1).is_contiguous() for part in batch.rows(4))


@pytest.mark.parametrize("mode", ["clip", "frame", "none"])
def test_keypoints_are_those_of_a_clip_that_is_moved_whole(person, mode):
    tracks = person(12, size=SIZE)
    tracks[3:5] = 0
    tracks[7, :, 11:13] = 0
    spec = InputSpec(num_segments=T, input_size=SIDE, has_frames=False, pose_normalize=mode)
    rows, place = np.array([1, 4, 7, 10]), np.arange(T)[None]
    crops = [Crop(view) for view in eval_geometries(*SIZE, SIDE, 10)]
    crops.append(Crop(Geometry(CropBox(3, 5, 50, 40), SIDE, flip=True)))
    body = BodyTrack.of(tracks)
    for given in (None, body):
        views = make_views(spec, crops, place, None, tracks, rows, SIZE, body=given)
        for seen, crop in zip(views.keypoints.numpy(), crops, strict=True):
            moved = crop.apply_to_keypoints(tracks, COCO17)
            assert np.allclose(seen, normalize_keypoints(moved, mode)[rows], atol=2e-5)
            assert not seen[1].any()  # undetected joints stay 0


def test_a_clip_is_measured_once(noisy, monkeypatch):
    measured = []
    measure = BodyTrack.of.__func__

    def counted(cls, *how):
        measured.append(1)
        return measure(cls, *how)

    monkeypatch.setattr(BodyTrack, "of", classmethod(counted))
    clips = build(noisy, ViewSpec(train=True))
    for epoch in range(3):
        assert torch.isfinite(clips[SampleKey(epoch, 0)].keypoints).all()
    assert len(measured) == 1
