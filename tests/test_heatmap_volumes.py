"""Heatmap volumes of joints and limbs against their definition, window by window."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.heatmap import joint_volumes, limb_volumes, mirror_volumes
from ops.skeleton import COCO17
from tests.conftest import standing_person
from tests.golden_zoo import load_case, needs_golden

# The order in which MMAction2 draws limbs unless told otherwise.
DEFAULT_LIMBS = [
    (0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (5, 7), (7, 9), (0, 6), (6, 8), (8, 10), (5, 11),
    (11, 13), (13, 15), (6, 12), (12, 14), (14, 16), (11, 12),
]  # fmt: skip


def whole(skeletons: torch.Tensor) -> torch.Tensor:
    """Return skeletons that are drawn as GPUs and graphs do: with gradients, by whole images."""
    return skeletons.clone().requires_grad_()


def draw_point(image, x, y, score, sigma):
    height, width = image.shape
    left, right = max(int(x - 3 * sigma), 0), min(int(x + 3 * sigma) + 1, width)
    top, bottom = max(int(y - 3 * sigma), 0), min(int(y + 3 * sigma) + 1, height)
    if left >= right or top >= bottom:
        return
    columns, rows = np.arange(left, right), np.arange(top, bottom)[:, None]
    value = score * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2 / sigma**2)
    image[top:bottom, left:right] = np.maximum(image[top:bottom, left:right], value)


def draw_segment(image, start, end, sigma):
    score, (height, width) = min(start[2], end[2]), image.shape
    start_xy, end_xy = start[:2], end[:2]
    length = np.hypot(*(end_xy - start_xy))
    if length**2 < 1:
        draw_point(image, *start, sigma)
        return
    low, high = np.minimum(start_xy, end_xy) - 3 * sigma, np.maximum(start_xy, end_xy) + 3 * sigma
    left, right = max(int(low[0]), 0), min(int(high[0]) + 1, width)
    top, bottom = max(int(low[1]), 0), min(int(high[1]) + 1, height)
    if left >= right or top >= bottom:
        return
    columns, rows = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    pixel = np.stack([columns, rows], axis=-1)
    share = ((pixel - start_xy) @ (end_xy - start_xy)) / length**2
    nearest = start_xy + np.clip(share, 0, 1)[..., None] * (end_xy - start_xy)
    value = score * np.exp(-np.square(pixel - nearest).sum(-1) / 2 / sigma**2)
    image[top:bottom, left:right] = np.maximum(image[top:bottom, left:right], value)


def loop(skeletons, limbs, size, sigma):
    """The definition: every person's every channel by itself; a joint is a pair (v, v)."""
    num_frames, num_people = skeletons.shape[:2]
    volume = np.zeros((len(limbs), num_frames, *size), np.float32)
    for t in range(num_frames):
        for m in range(num_people):
            for channel, (a, b) in enumerate(limbs):
                start, end = skeletons[t, m, a], skeletons[t, m, b]
                if min(start[2], end[2]) < 1e-3:
                    continue
                if a == b:
                    draw_point(volume[channel, t], *start, sigma)
                else:
                    draw_segment(volume[channel, t], start, end, sigma)
    return volume


def random_skeletons(seed, people=2, joints=5, frames=3, size=(14, 20)):
    rng = np.random.default_rng(seed)
    skeletons = rng.uniform(-0.5, 1.5, (1, frames, people, joints, 3)).astype(np.float32)
    skeletons[..., 0] *= size[1]
    skeletons[..., 1] *= size[0]
    skeletons[..., 2] = rng.random(skeletons.shape[:-1]) * (rng.random(skeletons.shape[:-1]) < 0.8)
    skeletons[0, :, :, 1, :2] = skeletons[0, :, :, 0, :2] + 0.3  # a limb shorter than a pixel
    return skeletons


@needs_golden
@pytest.mark.parametrize("way", [torch.clone, whole])
def test_equal_the_published_volumes(way):
    case = load_case("transforms")
    scores = case["anno_score"][:, case["frame_inds48"].long()]
    tracks = torch.cat([case["resize_kp"], scores[..., None]], dim=-1)  # (M, T, V, 3)
    skeletons = way(tracks.transpose(0, 1)[None])
    joints = joint_volumes(skeletons, (64, 64))[0].transpose(0, 1)
    limbs = limb_volumes(skeletons, DEFAULT_LIMBS, (64, 64))[0].transpose(0, 1)
    assert (joints[:8] - case["heat_kp"]).abs().max() < 1e-5
    assert (limbs[:4] - case["heat_limb_default"]).abs().max() < 1e-5


@settings(deadline=None)
@given(seed=st.integers(0, 999), people=st.integers(1, 3), sigma=st.floats(0.4, 2.5))
def test_equal_their_definition(seed, people, sigma):
    size, limbs = (14, 20), [(0, 1), (1, 2), (4, 3), (2, 0)]
    skeletons = random_skeletons(seed, people)
    given = torch.from_numpy(skeletons)
    points = loop(skeletons[0], [(v, v) for v in range(5)], size, sigma)
    segments = loop(skeletons[0], limbs, size, sigma)
    for way in (torch.clone, whole):
        joints = joint_volumes(way(given), size, sigma)[0].detach().numpy()
        drawn = limb_volumes(way(given), limbs, size, sigma)[0].detach().numpy()
        # A window may end one pixel elsewhere where single precision rounds x to a whole number.
        assert (np.abs(joints - points) > 1e-5).sum() <= 4
        assert (np.abs(drawn - segments) > 1e-5).sum() <= 4


def one(*joints):
    return torch.tensor([[[joints]]], dtype=torch.float32)


def test_a_whole_coordinate_peaks_at_its_pixel():
    volume = joint_volumes(one((5.0, 3.0, 0.7)), (8, 12))[0, 0, 0]
    assert volume.argmax() == 3 * 12 + 5
    assert volume.max() == pytest.approx(0.7)
    assert volume[:, 5].nonzero().flatten().tolist() == [1, 2, 3, 4]  # int(4.8) is the last


def test_a_limb_is_as_high_as_its_lower_score_and_a_short_one_as_its_start():
    volume = limb_volumes(one((2, 4, 0.9), (9, 4, 0.4)), [(0, 1)], (8, 12))[0, 0, 0]
    torch.testing.assert_close(volume[4, 2:10], torch.full((8,), 0.4))
    short = one((2, 4, 0.9), (2.5, 4, 0.4))
    volume = limb_volumes(short, [(0, 1)], (8, 12))
    torch.testing.assert_close(volume, joint_volumes(short[..., :1, :], (8, 12)))


@pytest.mark.parametrize("way", [torch.clone, whole])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_broken_numbers_of_one_joint_stay_in_its_channels(way, value, axis):
    skeletons = torch.from_numpy(random_skeletons(3))
    broken = skeletons.clone()
    broken[0, 1, 1, 2, axis] = value
    limbs = [(0, 1), (1, 2), (3, 4)]
    joints, limb = joint_volumes(way(broken), (14, 20)), limb_volumes(way(broken), limbs, (14, 20))
    if not (axis == 2 and value > 1):  # such a score is drawn as it is
        assert joints.isfinite().all()
        assert limb.isfinite().all()
    others = [0, 1, 3, 4]
    assert torch.equal(joints[:, others], joint_volumes(way(skeletons), (14, 20))[:, others])
    kept = limb_volumes(way(skeletons), limbs, (14, 20))
    assert torch.equal(limb[:, [0, 2]], kept[:, [0, 2]])


def test_joints_below_the_least_score_are_not_drawn():
    skeletons = one((4, 4, 9e-4), (4, 4, 2e-3), (0, 0, 0))
    volumes = joint_volumes(skeletons, (8, 8), with_scores=False)[0, :, 0]
    assert [volume.max().item() for volume in volumes] == [0, 1, 0]


def test_people_meet_by_their_maximum():
    skeletons = torch.from_numpy(random_skeletons(5, people=3))
    alone = [joint_volumes(skeletons[:, :, m : m + 1], (14, 20)) for m in range(3)]
    together = joint_volumes(skeletons, (14, 20))
    assert torch.equal(together, torch.stack(alone).amax(dim=0))


def test_scaling_comes_first():
    skeletons = torch.from_numpy(random_skeletons(1))
    smaller = skeletons * torch.tensor([0.25, 0.25, 1])
    scaled = joint_volumes(skeletons, (56, 80), scaling=0.25)
    assert torch.equal(scaled, joint_volumes(smaller, (14, 20)))


def test_mirrored_twice_is_the_same_and_once_the_mirrored_skeleton():
    order, size = COCO17.mirror_order(), (16, 24)
    rng = np.random.default_rng(0)
    skeletons = torch.from_numpy(rng.uniform(6, 10, (2, 3, 1, 17, 3)).astype(np.float32)).round()
    skeletons[..., 0] += 0.01  # windows as wide to the left as to the right: sigma 1/2
    skeletons[..., 2] = 0.5
    volumes = joint_volumes(skeletons, size, 0.5)
    mirrored = mirror_volumes(volumes, order)
    assert torch.equal(mirror_volumes(mirrored, order), volumes)
    flipped = skeletons[..., order, :]
    flipped[..., 0] = size[1] - 1 - flipped[..., 0]
    seen = (mirrored > 0) & (joint_volumes(flipped, size, 0.5) > 0)
    assert seen.sum() > 0.5 * (mirrored > 0).sum()
    difference = mirrored - joint_volumes(flipped, size, 0.5)
    assert difference[seen].abs().max() < 1e-5


def test_any_memory_and_number_type():
    skeletons = torch.from_numpy(random_skeletons(2, joints=6))
    strided = skeletons.flip(1).permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4)
    assert not strided.is_contiguous()
    assert torch.equal(joint_volumes(strided.flip(1), (9, 7)), joint_volumes(skeletons, (9, 7)))
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        volumes = joint_volumes(skeletons.to(kind), (9, 7))
        assert volumes.dtype == torch.float32
        assert torch.equal(volumes, joint_volumes(skeletons.to(kind).float(), (9, 7)))
    for way in (torch.clone, whole):
        assert joint_volumes(way(skeletons[:0]), (9, 7)).shape == (0, 6, 3, 9, 7)
        assert joint_volumes(way(skeletons[:, :0]), (9, 7)).shape == (1, 6, 0, 9, 7)


def test_gradients_are_finite():
    skeletons = whole(torch.from_numpy(random_skeletons(4)))
    drawn = (
        joint_volumes(skeletons, (14, 20)).sum()
        + limb_volumes(skeletons, [(0, 1), (2, 3)], (14, 20)).sum()
    )
    (gradient,) = torch.autograd.grad(drawn, skeletons)
    assert gradient.isfinite().all()
    assert gradient[..., 2].any()


def test_whole_graphs_hold_them():
    def both(skeletons):
        limbs = limb_volumes(skeletons, [(0, 1), (1, 2)], (14, 20))
        return torch.cat([joint_volumes(skeletons, (14, 20)), limbs], dim=1)

    compiled = torch.compile(both, backend="eager", fullgraph=True)
    skeletons = torch.from_numpy(random_skeletons(6))
    torch.testing.assert_close(compiled(skeletons), both(skeletons), atol=1e-6, rtol=1e-5)


def test_many_frames_are_drawn_in_parts(monkeypatch):
    skeletons = whole(torch.from_numpy(random_skeletons(7, frames=5)))
    expected = limb_volumes(skeletons, [(0, 1), (2, 3)], (14, 20))
    monkeypatch.setattr("ops.heatmap._MOST_PIXELS", 14 * 20 * 2 * 2 * 2)
    assert torch.equal(limb_volumes(skeletons, [(0, 1), (2, 3)], (14, 20)), expected)


@pytest.mark.parametrize("shape", [(2, 3, 5, 3), (1, 2, 3, 5, 2), (1, 2, 0, 5, 3), (1, 2, 1, 0, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="volumes need skeletons"):
        joint_volumes(torch.zeros(shape), (8, 8))


def test_empty_sizes_and_limbs_are_refused():
    skeletons = torch.zeros(1, 1, 1, 2, 3)
    with pytest.raises(ValueError, match="at least one channel"):
        limb_volumes(skeletons, [], (8, 8))
    with pytest.raises(ValueError, match="above 0"):
        joint_volumes(skeletons, (8, 0))
    with pytest.raises(ValueError, match="above 0"):
        joint_volumes(skeletons, (8, 8), 0.0)


@pytest.mark.parametrize("kind", ["joints", "limbs"])
def test_are_ten_times_as_fast_as_a_loop_over_joints(kind):
    """48 frames of two people at 64 x 64, on one thread."""
    people = [standing_person(48, (58, 58), seed) + np.float32([3 * seed, 0, 0]) for seed in (0, 1)]
    tracks = np.concatenate(people, axis=1).astype(np.float32)
    channels = [(v, v) for v in range(17)] if kind == "joints" else list(COCO17.limbs)
    skeletons = torch.from_numpy(tracks)[None]

    def ours():
        if kind == "joints":
            return joint_volumes(skeletons, (64, 64))
        return limb_volumes(skeletons, channels, (64, 64))

    torch.set_num_threads(1)
    ours()
    slow = best_time(lambda: loop(tracks, channels, (64, 64), 0.6), 3)
    assert slow / best_time(ours, 20) > 10


def best_time(work, times):
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)
