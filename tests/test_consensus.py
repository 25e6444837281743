"""The average over the segments of a clip."""

import pytest
import torch
import torch.nn.functional as F

from ops.consensus import average, to_segments


def test_without_a_mask_it_is_the_mean():
    logits = torch.randn(3, 4, 2)
    assert torch.allclose(average(logits), logits.mean(dim=1))
    everything = torch.ones(3, 4, dtype=torch.bool)
    assert torch.allclose(average(logits, everything), logits.mean(dim=1))


def test_masked_segments_have_no_say_whatever_they_hold():
    logits = torch.randn(2, 4, 3)
    expected = logits[:, [0, 2]].mean(dim=1)
    logits[:, 1] = torch.nan
    logits[:, 3] = torch.inf
    mask = torch.tensor([True, False, True, False]).expand(2, 4)
    assert torch.allclose(average(logits, mask), expected)


def test_a_clip_without_a_segment_that_counts_gets_the_plain_mean():
    logits = torch.randn(2, 4, 3, requires_grad=True)
    mask = torch.tensor([[False] * 4, [True, False, False, False]])
    out = average(logits, mask)
    assert torch.allclose(out[0], logits[0].mean(dim=0))
    assert torch.allclose(out[1], logits[1, 0])
    out.sum().backward()
    assert logits.grad.isfinite().all()


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="one entry per segment"):
        average(torch.zeros(2, 4, 3), torch.ones(2, 5, dtype=torch.bool))


@pytest.mark.parametrize(("length", "segments"), [(25, 8), (8, 8), (3, 8), (24, 8), (1, 4), (7, 1)])
def test_parts_of_time_are_those_of_adaptive_pooling(length, segments):
    features = torch.randn(2, length, 5)
    expected = F.adaptive_avg_pool1d(features.mT, segments).mT
    assert torch.allclose(to_segments(features, segments), expected, atol=1e-6)
