"""Skeletons by batches: the same samples as one by one, no images, and little time."""

import builtins
import io
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import main_only_pose
import opts
import session
from datasets import scan
from datasets.clips import ClipDataset, ViewSpec, collate
from datasets.loading import build_eval_loader, build_train_loader
from datasets.opening import open_dataset
from datasets.order import EpochBatches, SampleKey
from datasets.records import ClipRecord
from datasets.scan import Clip
from datasets.skeletons import SkeletonDataset, SkeletonLoader, as_batch
from datasets.views import InputSpec
from ops.batch import Batch

SIZE = (160, 90)


def people(num_frames, seed, unseen=0.2, num_people=1):
    rng = np.random.default_rng(seed)
    keypoints = np.ones((num_frames, num_people, 17, 3), np.float32)
    keypoints[..., :2] = rng.uniform(0, SIZE, (num_frames, num_people, 17, 2))
    keypoints[..., 2] = rng.uniform(0.1, 1, (num_frames, num_people, 17))
    keypoints[rng.random((num_frames, num_people, 17)) < unseen] = 0
    return keypoints


def hipless():
    keypoints = people(6, 5)
    keypoints[:, :, 11:13] = 0
    return keypoints


def point():
    """Everything in one place: a body without length."""
    keypoints = people(3, 6, 0.0)
    keypoints[..., :2] = 40
    return keypoints


TRACKS = {
    "long": people(40, 0),
    "short": people(3, 1),
    "one frame": people(1, 2),
    "crowd": people(9, 3, num_people=3),
    "nobody": people(12, 4, unseen=2.0),
    "without hips": hipless(),
    "a point": point(),
    "missing": None,
}


class Forgetful:
    """A keypoint file that is read each time."""

    path = Path("clip.npz")

    def __init__(self, keypoints):
        self.keypoints = keypoints

    def load(self):
        return self

    def keypoints_at(self, size):
        return self.keypoints


def clips(in_memory=True):
    made = []
    for number, (name, track) in enumerate(TRACKS.items()):
        source = None if track is None else Forgetful(track)
        length = 10 if track is None else len(track)
        kept = track if in_memory else None
        made.append(Clip(ClipRecord(name, length, number % 2), None, source, SIZE, kept))
    return made


def spec_of(**changes):
    values = {"num_segments": 4, "input_size": 64, "has_frames": False, **changes}
    return InputSpec(**values)


VIEWS = {
    "training": ViewSpec(train=True),
    "no flip": ViewSpec(train=True, may_flip=False),
    "augmented": ViewSpec(train=True, rand_augment=True),
    "validation": ViewSpec(),
    "ten crops": ViewSpec(num_clips=3, test_crops=10),
}


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("field", ["square", "frame"])
@pytest.mark.parametrize("normalize", ["clip", "frame", "none"])
@pytest.mark.parametrize("views", VIEWS)
def test_a_batch_equals_its_samples_one_by_one(views, normalize, field, in_memory):
    """Same draws, same numbers: the reference is the path that clips with frames take."""
    spec = spec_of(pose_normalize=normalize, field_of_view=field)
    one = ClipDataset(clips(in_memory), spec, VIEWS[views], seed=7)
    many = SkeletonDataset(clips(in_memory), spec, VIEWS[views], seed=7)
    for epoch in (0, 3, 3):  # the second time units are remembered
        keys = [SampleKey(epoch, index) for index in (3, 0, 7, 1, 5, 2, 4, 6)]
        expected, batch = collate([one[key] for key in keys]), many.__getitems__(keys)
        assert batch.frames is None
        assert (batch.clips, batch.views) == (expected.clips, expected.views)
        assert torch.equal(batch.label, expected.label)
        assert batch.keypoints.dtype == torch.float32
        assert torch.allclose(batch.keypoints, expected.keypoints, rtol=1e-6, atol=2e-5)
        unseen = expected.keypoints[..., 2] == 0
        assert (batch.keypoints[unseen] == 0).all()


def test_interval_sampling_equals_too():
    spec = spec_of(interval=2)
    keys = [SampleKey(1, index) for index in range(len(TRACKS))]
    one = ClipDataset(clips(), spec, VIEWS["training"])
    many = SkeletonDataset(clips(), spec, VIEWS["training"])
    expected = collate([one[key] for key in keys])
    assert torch.allclose(many.__getitems__(keys).keypoints, expected.keypoints, atol=2e-5)


@pytest.mark.parametrize("views", ["training", "ten crops"])
@pytest.mark.parametrize("at_once", [1, 50, 512])
def test_the_loader_gives_the_batches_of_its_sampler(views, at_once, monkeypatch):
    """From any batch on, the last one smaller, however many are made at once."""
    monkeypatch.setattr("datasets.skeletons._VIEWS_AT_ONCE", at_once)
    dataset = SkeletonDataset(clips(), spec_of(), VIEWS[views])
    order = EpochBatches(len(dataset), 3, seed=1, shuffle=True)
    loader = SkeletonLoader(dataset, order, pin_memory=False)
    assert len(loader) == 3
    for first in (0, 1, 3):
        order.start(epoch=2, first_batch=first)
        batches = list(loader)
        assert [len(batch) for batch in batches] == [3, 3, 2][first:]
        for batch, keys in zip(batches, order, strict=True):
            expected = dataset.__getitems__(keys)
            assert torch.equal(batch.keypoints, expected.keypoints)
            assert torch.equal(batch.label, expected.label)
            assert (batch.clips, batch.views) == (expected.clips, expected.views)


def test_frames_are_refused():
    with pytest.raises(ValueError, match="has no frames"):
        SkeletonDataset(clips(), InputSpec(4, 64), ViewSpec())


def test_a_batch_passes_and_samples_are_joined():
    dataset = ClipDataset(clips(), spec_of(), ViewSpec())
    batch = as_batch([dataset[SampleKey(0, 0)]])
    assert isinstance(batch, Batch)
    assert as_batch(batch) is batch


def parse(dataset, *more):
    return opts.parse_pose_train_args(
        ["--dataset", "FRFS", "--dataset_path", str(dataset.parent), "--num_segments", "4",
         "--batch-size", "2", "--epochs", "1", *more]
    )  # fmt: skip


@pytest.fixture
def only_poses(dataset):
    """The data set without a single image."""
    shutil.rmtree(dataset / "frames")
    return dataset


def test_pose_only_training_needs_no_image(only_poses, tmp_path, monkeypatch):
    """The frames are gone, and nothing is opened that could be one."""
    opened = []

    def note(real):
        def opening(path, *args, **options):
            opened.append(str(path))
            return real(path, *args, **options)

        return opening

    for owner, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(owner, name, note(getattr(owner, name)))
    args = ["--dataset", "FRFS", "--dataset_path", str(only_poses.parent), "--num_segments", "4"]
    args += ["--batch-size", "2", "--epochs", "2", "--workers", "0"]
    main_only_pose.main([*args, "--experiment_path", str(tmp_path)])
    assert any(path.endswith(".npz") for path in opened)
    assert not [path for path in opened if path.lower().endswith((".jpg", ".jpeg", ".png"))]


def test_keypoint_files_are_read_once(only_poses, monkeypatch):
    args = parse(only_poses)
    source = open_dataset(args)
    loaders = (build_train_loader(args, source), build_eval_loader(args, source, "val"))
    assert all(isinstance(loader, SkeletonLoader) for loader in loaders)
    shutil.rmtree(only_poses / "poses")
    assert [len(list(loader)) for loader in loaders for _ in range(2)] == [2, 2, 2, 2]


@pytest.mark.parametrize("workers", ["0", "1"])
def test_keypoints_beyond_memory_are_read_again(only_poses, workers, monkeypatch):
    args = parse(only_poses, "--workers", workers)
    source = open_dataset(args)
    quick = build_train_loader(args, source)
    monkeypatch.setattr(scan, "_MEMORY_BYTES", 0)
    slow = build_train_loader(args, source)
    assert not isinstance(slow, SkeletonLoader)
    for a, b in zip(quick, slow, strict=True):
        assert torch.equal(a.keypoints, b.keypoints)
        assert a.clips == b.clips


def test_augmented_skeletons_go_through_the_plain_loader(only_poses):
    args = parse(only_poses, "--rand_augment", "--workers", "0")
    loader = build_train_loader(args, open_dataset(args))
    assert not isinstance(loader, SkeletonLoader)
    assert sum(len(batch) for batch in loader) == 4


def test_an_epoch_is_limited_by_the_network(monkeypatch):
    """400 clips of 100 frames: less than half the time of one by one; CPU time."""
    tracks = [people(100, seed) for seed in range(25)]
    many = [
        Clip(ClipRecord(f"{n}", 100, n % 2), None, Forgetful(t), SIZE, t)
        for n, t in enumerate(tracks * 16)
    ]
    spec = spec_of(num_segments=8, input_size=224)
    order = EpochBatches(len(many), 8, seed=0, shuffle=True)
    loader = SkeletonLoader(SkeletonDataset(many, spec, VIEWS["training"]), order, pin_memory=False)
    plain = ClipDataset(many, spec, VIEWS["training"])
    ratios = []
    for epoch in range(5):
        order.start(epoch)
        start = time.thread_time()
        keypoints = torch.cat([batch.keypoints for batch in loader])
        middle = time.thread_time()
        expected = torch.cat([plain[key].keypoints for keys in order for key in keys])
        ratios.append((time.thread_time() - middle) / (middle - start))
        assert torch.allclose(keypoints, expected, atol=2e-5)
    assert np.median(ratios) > 2, ratios


def test_the_session_says_how_long_it_waited(only_poses, tmp_path, capsys):
    args = parse(only_poses, "--experiment_path", str(tmp_path), "--workers", "0")
    session.train(args)
    assert "s, waiting for data " in capsys.readouterr().out
