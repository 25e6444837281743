import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.heatmap import joint_heatmap


def one_joint(x: float, y: float, confidence: float = 1.0) -> np.ndarray:
    return np.array([[[[x, y, confidence]]]], np.float32)


def plain_heatmap(keypoints, height, width, sigma_x, sigma_y):
    """The definition, joint by joint and pixel by pixel."""
    out = np.zeros((len(keypoints), height, width))
    for t, people in enumerate(keypoints):
        for x, y, confidence in people.reshape(-1, 3):
            if confidence <= 0 or not (0 < x < width and 0 < y < height):
                continue
            for i in range(height):
                for j in range(width):
                    u, v = (j + 0.5 - x) / sigma_x, (i + 0.5 - y) / sigma_y
                    if abs(u) <= 3 and abs(v) <= 3:
                        out[t, i, j] += math.exp(-(u * u + v * v) / 2)
    return np.minimum(out, 1)


@given(seed=st.integers(0, 999), sigma_x=st.floats(0.6, 4), sigma_y=st.floats(0.6, 4))
def test_equals_its_definition(seed, sigma_x, sigma_y):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(-5, 25, (2, 2, 3, 3)).astype(np.float32)
    keypoints[..., 2] = rng.random((2, 2, 3)) < 0.7
    heatmap = joint_heatmap(keypoints, 14, 20, (sigma_x, sigma_y))
    assert heatmap.dtype == np.float32
    # A pixel exactly at 3 sigma may fall to either side in single precision.
    difference = np.abs(heatmap - plain_heatmap(keypoints, 14, 20, sigma_x, sigma_y))
    assert (difference > 1e-5).sum() <= 4


def test_defect_05_the_peak_is_where_the_joint_is():
    heatmap = joint_heatmap(one_joint(20.5, 7.5), 16, 32, 2.0)[0]
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (7, 20)
    assert heatmap.max() == 1


@pytest.mark.parametrize(
    ("x", "y", "confidence"),
    [(20, 7, 0), (0, 7, 1), (-1, 7, 1), (32, 7, 1), (20, 0, 1), (20, 16, 1), (20, 99, 1)],
)
def test_undetected_and_outside_joints_are_not_drawn(x, y, confidence):
    assert not joint_heatmap(one_joint(x, y, confidence), 16, 32, 3.0).any()


def test_gaussians_end_at_3_sigma_without_tiny_numbers():
    heatmap = joint_heatmap(one_joint(50.5, 50.5), 101, 101, 5.0)[0]
    rows, columns = np.nonzero(heatmap)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (35, 65, 35, 65)
    assert heatmap[heatmap > 0].min() > 1e-4


def test_joints_and_people_add_up_to_at_most_1():
    close = np.array([[[[10, 10, 1], [14, 10, 1]], [[12, 13, 1], [12, 12, 1]]]], np.float32)
    each = [
        joint_heatmap(close[:, p : p + 1, j : j + 1], 24, 24, 4.0) for p in (0, 1) for j in (0, 1)
    ]
    assert np.allclose(joint_heatmap(close, 24, 24, 4.0), np.minimum(sum(each), 1), atol=1e-6)


def test_frames_do_not_mix():
    two = np.concatenate((one_joint(5, 5), one_joint(15, 15)))
    heatmap = joint_heatmap(two, 20, 20, 1.0)
    assert np.array_equal(heatmap[0], joint_heatmap(two[:1], 20, 20, 1.0)[0])
    assert heatmap[0, 15, 15] == 0


def published(golden) -> tuple[np.ndarray, np.ndarray]:
    with np.load(golden / "heatmaps.npz") as archive:
        points, heatmap = archive["keypoints"], archive["heatmap"]
    found = (points != 0).any(axis=-1, keepdims=True)
    return np.concatenate((points, found), axis=-1)[:, None].astype(np.float32), heatmap


def test_truncated_equals_the_published_heatmap(golden):
    keypoints, expected = published(golden)
    heatmap = joint_heatmap(keypoints, 360, 640, 10.0, truncate=True)
    assert np.abs(heatmap - expected).max() < 1e-6


def test_without_truncation_the_difference_is_half_a_pixel(golden):
    keypoints, expected = published(golden)
    difference = np.abs(joint_heatmap(keypoints, 360, 640, 10.0) - expected)
    # A Gaussian's steepest slope is exp(-1/2) / sigma a pixel, in each direction.
    assert difference.max() < 2 * 0.5 * math.exp(-0.5) / 10 * 1.1
    assert difference.mean() < 1e-3
