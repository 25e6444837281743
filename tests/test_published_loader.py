"""The published data path, as ours is measured against it."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import published_loader as published
from transforms import train_geometry


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(3):
        pixels = np.kron(rng.integers(40, 220, (9, 16, 3)), np.ones((80, 80, 1))).astype(np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def joints():
    return np.random.default_rng(1).uniform((250, 100), (390, 260), (3, 17, 2))


def test_heatmap_equals_the_published_one(golden):
    with np.load(golden / "heatmaps.npz") as archive:
        for joints, heatmap in zip(archive["keypoints"], archive["heatmap"], strict=True):
            assert np.abs(published.draw_heatmap(joints) - heatmap).max() < 1e-6


def test_heatmap_is_cut_at_the_edges():
    heatmap = published.draw_heatmap(np.array([[1.0, 1.0], [639.0, 359.0], [0.0, 0.0]]))
    assert heatmap.shape == (360, 640)
    assert heatmap[1, 1] == heatmap[359, 639] == 1
    assert heatmap[180, 320] == 0


def test_a_training_view_is_four_normalised_planes(frames, joints):
    view = published.published_train_clip(frames, joints, 224, np.random.default_rng(0))
    assert view.shape == (3, 4, 224, 224)
    assert view.dtype == torch.float32
    # The heatmap was an alpha plane, so the background far from the joints is black.
    black = (0 - 0.485) / 0.229
    assert torch.isclose(view[:, 0], torch.tensor(black)).float().mean() > 0.3
    assert view[:, 3].max() > 0.5


def test_a_training_view_is_a_function_of_its_generator(frames, joints):
    one, same, other = (
        published.published_train_clip(frames, joints, 96, np.random.default_rng(seed))
        for seed in (0, 0, 3)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_crop_is_that_of_the_recipe(frames, joints):
    packed = [
        published.pack(published.fit(published.decode(path)), np.ones((360, 640)))
        for path in frames
    ]
    (crop, *_) = published.crop_for_training(packed, 64, np.random.default_rng(5))
    view = train_geometry(640, 360, 64, np.random.default_rng(5))
    box = view.box
    corners = (box.left, box.top, box.left + box.width, box.top + box.height)
    expected = packed[0].crop(corners).resize((64, 64), Image.Resampling.BILINEAR)
    if view.flip:
        expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert np.array_equal(np.asarray(crop), np.asarray(expected))


def test_ten_test_views_are_five_and_their_mirror_images(frames, joints):
    views = [published.published_test_view(frames, joints, 224, number) for number in range(10)]
    assert all(view.shape == (3, 4, 224, 224) for view in views)
    for number in range(5):
        assert torch.equal(views[number].flip(-1), views[number + 5])
    assert not any(torch.equal(views[0], view) for view in views[1:])
