import numpy as np
import pytest
import torch

from models.classifier import ClipClassifier, Encoder
from ops.batch import Batch
from ops.pixels import HEATMAP_MEAN, HEATMAP_STD, RGB_MEAN, RGB_STD, normalize_frames


def frames_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def batch_of(rows=3, segments=2, side=5, heatmap=True) -> Batch:
    rng = np.random.default_rng(1)
    frames = torch.from_numpy(frames_of(rows, segments, side, side + 2, 3)).movedim(-1, 2)
    heat = torch.from_numpy(rng.random((rows, segments, side, side + 2), np.float32))
    return Batch(frames=frames, heatmap=heat if heatmap else None)


def as_before(batch: Batch) -> torch.Tensor:
    """Return what loaders gave when they normalised, by the formula of then."""
    mean, std = torch.tensor(RGB_MEAN).view(3, 1, 1), torch.tensor(RGB_STD).view(3, 1, 1)
    out = torch.mul(batch.frames, 1 / (255 * std)) - mean / std
    if batch.heatmap is None:
        return out
    return torch.cat((out, ((batch.heatmap - HEATMAP_MEAN) / HEATMAP_STD)[:, :, None]), dim=2)


@pytest.mark.parametrize("heatmap", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("bytes_by_pixel", [False, True])
def test_the_numbers_are_those_of_before_in_every_layout(heatmap, channels_last, bytes_by_pixel):
    batch = batch_of(heatmap=heatmap)
    if not bytes_by_pixel:
        batch = Batch(frames=batch.frames.contiguous(), heatmap=batch.heatmap)
    seen = batch.prepared(channels_last)
    assert seen.heatmap is None
    assert seen.frames.dtype == torch.float32
    assert torch.equal(seen.frames, as_before(batch))
    rows = seen.frames.flatten(0, 1)
    assert rows.is_contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )


def test_every_channel_of_every_frame_has_its_own_constants():
    """Part 4: the published constants walk through the planes and miss the last ones."""
    frame, heatmap = frames_of(6, 6, 3), np.random.default_rng(0).random((6, 6), np.float32)
    frames = torch.from_numpy(np.stack([frame] * 8)).movedim(-1, 1)
    out = normalize_frames(frames, torch.from_numpy(np.stack([heatmap] * 8)))
    assert out.shape == (8, 4, 6, 6)
    rgb = (frame / 255 - RGB_MEAN) / RGB_STD
    for t in range(8):
        assert np.allclose(out[t, :3].numpy(), rgb.transpose(2, 0, 1), atol=1e-5)
        assert np.allclose(out[t, 3].numpy(), (heatmap - HEATMAP_MEAN) / HEATMAP_STD, atol=1e-5)


def test_frames_that_are_no_bytes_are_left_alone():
    batch = Batch(frames=torch.randn(1, 2, 3, 4, 4))
    assert batch.prepared() is batch
    skeletons = Batch(keypoints=torch.zeros(1, 2, 1, 17, 3))
    assert skeletons.prepared() is skeletons
    once = batch_of().prepared()
    assert once.prepared() is once


def test_neither_autocast_nor_the_default_type_changes_the_numbers():
    batch = batch_of()
    expected = batch.prepared().frames
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(batch.prepared().frames, expected)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(batch.prepared().frames, expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_parts_and_rows_cut_heatmaps_with_their_frames():
    batch = batch_of(rows=5)
    parts = list(batch.rows(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.prepared().frames for part in parts]), as_before(batch))
    assert torch.equal(batch.part(slice(3, 4)).prepared().frames, as_before(batch)[3:4])


def test_moving_a_batch_takes_its_heatmap_along():
    moved = batch_of().to("meta")
    assert moved.heatmap.device.type == moved.frames.device.type == "meta"


class Probe(Encoder):
    """Keeps what it was given."""

    feature_dim = 4

    def forward(self, batch: Batch) -> torch.Tensor:
        self.seen = batch
        return batch.frames.mean(dim=(3, 4))


@pytest.mark.parametrize("as_dict", [False, True])
def test_models_take_bytes(as_dict):
    batch, probe = batch_of(), Probe()
    model = ClipClassifier(probe, 2, 0.0).eval()
    given = {"frames": batch.frames, "heatmap": batch.heatmap} if as_dict else batch
    logits = model(given)
    assert torch.equal(probe.seen.frames, as_before(batch))
    assert torch.equal(logits, model(Batch(frames=as_before(batch))))


def test_it_compiles_without_a_break():
    for channels_last in (False, True):
        prepare = torch.compile(
            lambda batch, last=channels_last: batch.prepared(last).frames,
            fullgraph=True,
            backend="eager",
        )
        assert torch.equal(prepare(batch_of()), as_before(batch_of()))
