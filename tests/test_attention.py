"""Attention over segments: its two scopes, and who may be attended to."""

import pytest
import torch
from torch import nn

from errors import InputError
from ops.attention import SegmentAttention

DIM, HEADS = 8, 2


def attention(scope: str, dropout: float = 0.0) -> SegmentAttention:
    torch.manual_seed(0)
    layer = SegmentAttention(DIM, HEADS, dropout, scope)
    nn.init.normal_(layer.layer.in_proj_bias)
    nn.init.normal_(layer.layer.out_proj.bias)
    return layer


def by_formula(layer: nn.MultiheadAttention, x: torch.Tensor, keys: list[int]) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v per head, over the segments `keys` of one clip x (T, E)."""
    q, k, v = (x @ layer.in_proj_weight.T + layer.in_proj_bias).chunk(3, dim=1)
    heads = []
    for part in torch.arange(DIM).chunk(HEADS):
        scores = q[:, part] @ k[keys][:, part].T / len(part) ** 0.5
        heads.append(scores.softmax(dim=1) @ v[keys][:, part])
    return layer.out_proj(torch.cat(heads, dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_clip_scope_equals_the_formula_and_skips_missing_segments(training):
    layer = attention("clip").train(training)
    x = torch.randn(2, 5, DIM)
    missing = torch.zeros(2, 5, dtype=torch.bool)
    missing[1, [0, 3]] = True
    with torch.inference_mode():
        out = layer(x, missing)
        assert torch.allclose(out[0], by_formula(layer.layer, x[0], [0, 1, 2, 3, 4]), atol=1e-6)
        assert torch.allclose(out[1], by_formula(layer.layer, x[1], [1, 2, 4]), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_a_clip_in_which_everything_is_missing_is_treated_as_whole(training):
    layer = attention("clip").train(training)
    x = torch.randn(2, 5, DIM, requires_grad=True)
    out = layer(x, torch.ones(2, 5, dtype=torch.bool))
    assert torch.allclose(out, layer(x), atol=1e-6)
    out.sum().backward()
    assert x.grad.isfinite().all()


def test_frame_scope_is_the_published_attention_over_one_segment():
    layer = attention("frame").eval()
    x = torch.randn(2, 5, DIM)
    single = x.flatten(0, 1)[:, None]  # sequences of length 1
    published = layer.layer(single, single, single)[0].unflatten(0, (2, 5))[:, :, 0]
    assert torch.allclose(layer(x), published, atol=1e-6)


@pytest.mark.parametrize(("scope", "reaches"), [("clip", True), ("frame", False)])
def test_reach(scope, reaches):
    layer = attention(scope).eval()
    x = torch.randn(2, 5, DIM)
    moved = x.clone()
    moved[0, 2] += 1
    changed = (layer(moved) - layer(x)).abs().amax(dim=2) > 1e-6
    assert changed[0].tolist() == [reaches, reaches, True, reaches, reaches]
    assert not changed[1].any()


def test_defect_06_query_and_key_learn():
    layer = attention("clip")
    layer(torch.randn(2, 5, DIM)).square().sum().backward()
    query, key, value = layer.layer.in_proj_weight.grad.chunk(3)
    assert query.abs().max() > 1e-6
    assert key.abs().max() > 1e-6
    assert value.abs().max() > 1e-6


def test_both_scopes_load_the_same_weights():
    attention("clip").load_state_dict(attention("frame").state_dict())


def test_wrong_arguments():
    with pytest.raises(InputError, match="10 features cannot have 4 heads"):
        SegmentAttention(10, 4, 0.0)
    with pytest.raises(ValueError, match="'video' is none of clip, frame"):
        SegmentAttention(8, 4, 0.0, "video")
