"""The graph convolutional networks of the zoo: published numbers, people, pooling, gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from errors import InputError
from models.classifier import ClipClassifier
from models.skeleton.agcn import AAGCN, AGCN, AdaptiveGraphConv
from models.skeleton.ctrgcn import CTRGCN, RefinedGraphConv
from models.skeleton.flops import count_flops
from models.skeleton.stgcn import STGCN, ImportanceGraphConv
from models.skeleton.stgcnpp import LearnedGraphConv, STGCNPlusPlus
from models.skeleton.trunk import SkeletonGCN
from ops.batch import Batch
from ops.graph import adjacency_stack
from ops.skeleton import BODY18, COCO17, HAND21, JHMDB15, NTU25
from tests.golden_zoo import fill, load_case, load_keys, needs_golden

MODELS = {
    "stgcn": STGCN,
    "agcn": AGCN,
    "aagcn": AAGCN,
    "stgcnpp": STGCNPlusPlus,
    "ctrgcn": CTRGCN,
}
PUBLISHED = [name for name in MODELS if name != "ctrgcn"]
ANY_PEOPLE = ("stgcn", "stgcnpp")
# With 60 classes. CTR-GCN's are ours: there is no published count of this very layout.
PARAMETERS = {
    "stgcn": (3_088_704, 3_098_832),
    "stgcnpp": (1_393_016, 1_403_144),
    "agcn": (3_459_344, 3_469_520),
    "aagcn": (3_760_228, 3_781_668),
    "ctrgcn": (1_436_496, 1_446_672),
}
# Multiply-adds in 10^9 of 2 people, 100 frames, as published.
FLOPS = {
    "stgcn": (3.822, 5.713, 4.055),
    "stgcnpp": (1.948, 2.956, 2.071),
    "agcn": (4.349, 6.488, 4.613),
    "aagcn": (4.351, 6.491, 4.616),
}


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def published(name):
    """Return the published name of a parameter of a `ClipClassifier`."""
    if name.startswith("encoder."):
        return "backbone." + name.removeprefix("encoder.")
    return name.replace("head.linear.", "cls_head.fc.")


def skeletons(layout=JHMDB15, rows=2, frames=9, people=2, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, frames, people, len(layout), channels, generator=generator)


def norms_of(model):
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def trained(model):
    """Return a model whose every part matters: gates open, statistics and graphs of its own."""
    generator = torch.Generator().manual_seed(1)

    def drawn(tensor):
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("alpha"):
                value.fill_(0.3)
            elif value.ndim == 1 and name.endswith("weight"):
                value.copy_(1 + 0.1 * drawn(value))
            elif name.endswith(("bias", "conv_ta.weight", "fc2c.weight", ".A", "PA")):
                value.add_(0.1 * drawn(value))
        for norm in norms_of(model):
            norm.running_mean.copy_(0.1 * drawn(norm.running_mean))
    if isinstance(model, SkeletonGCN):
        _follow_statistics(model)
    return model.eval()


def _follow_statistics(model):
    for norm in norms_of(model):
        norm.momentum = 1.0
    with torch.no_grad():
        batch = skeletons(model.layout, rows=4, channels=model.in_channels, seed=5)
        model.train()(Batch(skeletons=batch))
    for norm in norms_of(model):
        norm.momentum = 0.1


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    for layout, expected in zip((COCO17, NTU25), PARAMETERS[name], strict=True):
        model = ClipClassifier(MODELS[name](layout), 60, 0.0)
        assert sum(p.numel() for p in model.parameters()) == expected


@needs_golden
@pytest.mark.parametrize("layout", [COCO17, NTU25], ids=["coco", "ntu"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_published_ones(name, layout):
    tag = {COCO17: "coco", NTU25: "ntu"}[layout]
    state = ClipClassifier(MODELS[name](layout), 60, 0.0).state_dict()
    ours = {published(key): tuple(value.shape) for key, value in state.items()}
    assert ours == load_keys(f"{name}_{tag}")


@needs_golden
@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_are_the_published_ones(name):
    case = load_case(f"{name}_coco")
    model = ClipClassifier(MODELS[name](COCO17), 60, 0.0).eval()
    state = {published(key): value for key, value in model.state_dict().items()}
    filled = fill(state, small=name in ("agcn", "aagcn"))
    model.load_state_dict({key: filled[published(key)] for key in model.state_dict()})
    with torch.no_grad():
        logits = model(Batch(skeletons=case["in0"].transpose(1, 2)))
    assert (logits - case["out0"]).abs().max() < 1e-5 * case["out0"].abs().max()


@pytest.mark.parametrize("name", FLOPS)
def test_multiply_adds_are_the_published_ones(name):
    for layout, expected in zip((COCO17, NTU25, BODY18), FLOPS[name], strict=True):
        model = ClipClassifier(MODELS[name](layout), 60, 0.0)
        counted = count_flops(model, Batch(skeletons=skeletons(layout, rows=1, frames=100)))
        assert counted == pytest.approx(expected * 1e9, rel=0.01)
        assert model.training


# ---------------------------------------------------------------- units, by plain formulas


def features(channels, frames=6, joints=5):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, channels, joints, frames, generator=generator, dtype=torch.float64)


def graphs_of(joints=5):
    return torch.rand(3, joints, joints, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("unit", [ImportanceGraphConv, LearnedGraphConv])
@pytest.mark.parametrize(("c_in", "c_out"), [(3, 16), (8, 16), (16, 16)])
def test_graph_conv_is_the_published_sum(unit, c_in, c_out):
    gcn = trained(unit(c_in, c_out, graphs_of()).double())
    x = features(c_in)
    strength = gcn.A * gcn.PA if unit is ImportanceGraphConv else gcn.A
    parts = gcn.conv(x).view(2, 3, c_out, 5, 6)
    y = gcn.bn(torch.einsum("nkcvt,kvw->ncwt", parts, strength))
    around = 0 if unit is ImportanceGraphConv else gcn.down(x)
    assert torch.allclose(gcn(x), F.relu(y + around))


@pytest.mark.parametrize("attention", [False, True])
def test_adaptive_graph_conv_is_the_formula(attention):
    gcn = trained(AdaptiveGraphConv(6, 16, graphs_of(), attention=attention).double())
    x = features(6)
    y = 0
    for k in range(3):
        a, b = gcn.conv_a[k](x), gcn.conv_b[k](x)
        alike = torch.tanh(torch.einsum("nevt,newt->nvw", a, b) / (4 * 6))
        moved = torch.einsum("ncvt,nvw->ncwt", x, gcn.A[k] + gcn.alpha * alike)
        y = y + gcn.conv_d[k](moved)
    y = F.relu(gcn.bn(y) + gcn.down(x))
    if attention:
        y = y * torch.sigmoid(gcn.conv_sa(y.mean(3)))[..., None] + y
        y = y * torch.sigmoid(gcn.conv_ta(y.mean(2)))[:, :, None] + y
        gate = gcn.fc2c(F.relu(gcn.fc1c(y.flatten(2).mean(2))))
        y = y * torch.sigmoid(gate)[..., None, None] + y
    assert torch.allclose(gcn(x), y)


def refined_by_loops(gcn, x):
    """The paper's model M_1 as published, one sample, channel and pair of joints at a time."""
    n, _, joints, frames = x.shape
    y = torch.zeros(n, gcn.bn.num_features, joints, frames, dtype=x.dtype)
    for conv, shared in zip(gcn.convs, gcn.A, strict=True):
        first, second = conv.conv1(x).mean(3), conv.conv2(x).mean(3)  # (N, E, V)
        values = conv.conv3(x)
        for i in range(n):
            for w in range(joints):
                for v in range(joints):
                    related = torch.tanh(first[i, :, v] - second[i, :, w])
                    refined = conv.conv4.weight[:, :, 0, 0] @ related + conv.conv4.bias
                    strength = shared[v, w] + gcn.alpha * refined  # (C',)
                    y[i, :, w] += strength[:, None] * values[i, :, v]
    return F.relu(gcn.bn(y) + gcn.down(x))


@pytest.mark.parametrize(("c_in", "c_out"), [(3, 16), (16, 16)])
def test_refined_graph_conv_is_the_formula(c_in, c_out):
    gcn = trained(RefinedGraphConv(c_in, c_out, graphs_of()).double())
    assert torch.allclose(gcn(features(c_in)), refined_by_loops(gcn, features(c_in)))


def test_first_weights():
    agcn = AAGCN(JHMDB15)
    block = agcn.gcn[1].gcn
    assert (block.bn.weight == 1e-6).all()
    assert not block.conv_ta.weight.any()
    assert not block.fc2c.weight.any()
    assert block.alpha == 0
    assert torch.equal(block.A, adjacency_stack(JHMDB15, "spatial"))
    deep = agcn.gcn[9].gcn.conv_d[0].weight.detach()
    assert deep.std() == pytest.approx((2 / (256 * 256 * 3)) ** 0.5, rel=0.05)
    tcn = STGCN(JHMDB15).gcn[9].tcn.conv
    assert tcn.weight.detach().std() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.05)
    assert not tcn.bias.any()
    # Even numbers of joints: the attention's span stays odd.
    assert AAGCN(BODY18).gcn[0].gcn.conv_sa.kernel_size == (17,)


def test_dropout_of_the_first_publication_spares_the_first_block():
    rates = [block.tcn.drop.p for block in STGCN(JHMDB15, dropout=0.5).gcn]
    assert rates == [0.0, *[0.5] * 9]


# ---------------------------------------------------------------- as encoders


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    model = ClipClassifier(trained(MODELS[name](JHMDB15)), 4, 0.0).train()
    F.cross_entropy(model(Batch(skeletons=skeletons())), torch.tensor([1, 2])).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # A bias before batch norm, of statistics of the batch, moves nothing.
        assert parameter.grad.any() or key.endswith("bias"), key


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frames", [1, 2, 5, 12])
def test_features_are_a_quarter_as_long(name, frames):
    encoder = trained(MODELS[name](HAND21))
    batch = Batch(skeletons=skeletons(HAND21, frames=frames))
    with torch.no_grad():
        out = encoder(batch)
    assert out.shape == (2, -(-frames // 4), encoder.feature_dim)
    assert out.isfinite().all()
    assert encoder.segment_mask(batch) is None
    assert encoder.shares_dropout


@pytest.mark.parametrize("name", MODELS)
def test_clips_do_not_mix_and_frames_reach_their_clip(name):
    encoder = trained(MODELS[name](JHMDB15))
    x = skeletons(frames=16)
    moved = x.clone()
    moved[1, 7] += 1
    with torch.no_grad():
        change = (encoder(Batch(skeletons=x)) - encoder(Batch(skeletons=moved))).abs().amax(dim=2)
    assert change[0].max() < 1e-5
    assert (change[1] > 1e-4).all()


@pytest.mark.parametrize("name", MODELS)
def test_memory_order_and_many_streams(name):
    encoder = trained(MODELS[name](JHMDB15, in_channels=6))
    x = skeletons(channels=6)
    strided = torch.stack([x, x], dim=-1)[..., 0].transpose(1, 3).contiguous().transpose(1, 3)
    with torch.no_grad():
        out, other = (encoder(Batch(skeletons=given)) for given in (x, strided))
    assert (out - other).abs().max() < 1e-4 * out.abs().max()


@pytest.mark.parametrize("name", ANY_PEOPLE)
@pytest.mark.parametrize("people", [1, 3])
def test_people_are_averaged(name, people):
    encoder = trained(MODELS[name](JHMDB15))
    x = skeletons(people=people)
    with torch.no_grad():
        alone = [encoder(Batch(skeletons=x[:, :, [m]])) for m in range(people)]
        together = encoder(Batch(skeletons=x))
    assert torch.allclose(together, torch.stack(alone).mean(dim=0), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_missing_people_do_not_count_when_masked(name):
    plain = trained(MODELS[name](JHMDB15))
    masked = MODELS[name](JHMDB15, pooling="masked").eval()
    masked.load_state_dict(plain.state_dict())
    x = skeletons(frames=10)
    present = torch.ones(2, 10, 2, dtype=torch.bool)
    with torch.no_grad():
        full = Batch(skeletons=x, present=present)
        assert torch.allclose(masked(full), plain(full), atol=1e-6)
        assert torch.equal(masked(Batch(skeletons=x)), plain(Batch(skeletons=x)))
        present = present.clone()
        present[0, :, 1] = False  # the second person of the first clip is never there
        present[1, 1:] = False  # the second clip has somebody in its first frame alone
        some = Batch(skeletons=x, present=present)
        mask, out = masked.segment_mask(some), masked(some)
        assert mask.tolist() == [[True] * 3, [True, False, False]]
        assert out.isfinite().all()
        assert not out[1, 1:].any()
        assert torch.allclose(out[1, 0], plain(some)[1, 0], atol=1e-6)
        nobody = Batch(skeletons=x, present=torch.zeros_like(present))
        logits = ClipClassifier(masked, 4, 0.0).eval()(nobody)
    assert logits.isfinite().all()


def test_who_is_missing_has_no_say_when_masked():
    masked = trained(STGCN(JHMDB15, pooling="masked"))
    x = skeletons(frames=8)
    present = torch.ones(2, 8, 2, dtype=torch.bool)
    present[:, :, 1] = False
    other = x.clone()
    other[:, :, 1] = torch.nan
    with torch.no_grad():
        first = masked(Batch(skeletons=x, present=present))
        assert torch.equal(first, masked(Batch(skeletons=other, present=present)))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("stgcn", (2, 9, 2, 17, 3), r"have 17 joints, the model has 15 \(jhmdb15\).*--skeleton_la"),
        ("agcn", (2, 9, 2, 15, 6), r"have 6 channels a joint, the model has 3.*--pose_streams"),
        ("aagcn", (2, 9, 1, 15, 3), r"of 1 people, the model norms each of 2"),
        ("ctrgcn", (2, 9, 3, 15, 3), r"of 3 people, the model norms each of 2"),
        ("stgcnpp", (2, 9, 15, 3), r"\(2, 9, 15, 3\), the model needs \(B, L, M, V, C\)"),
        ("stgcnpp", (2, 0, 2, 15, 3), r"at least one frame and person"),
    ],
)
def test_skeletons_that_do_not_fit(name, shape, message):
    with pytest.raises(InputError, match=message):
        MODELS[name](JHMDB15)(Batch(skeletons=torch.zeros(shape)))


def test_batches_and_choices_that_do_not_fit():
    with pytest.raises(InputError, match=r"no skeletons.*\(B, L, M, 15, 3\)"):
        STGCN(JHMDB15)(Batch(keypoints=torch.zeros(1, 1, 1, 17, 3)))
    with pytest.raises(InputError, match=r"\(2, 8, 2\) who is present.*\(2, 9, 2\)"):
        STGCN(JHMDB15)(Batch(skeletons=skeletons(), present=torch.ones(2, 8, 2) > 0))
    with pytest.raises(ValueError, match="unknown pooling 'max'"):
        STGCN(JHMDB15, pooling="max")


# ---------------------------------------------------------------- types, copies, exports


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_autocast(name):
    model = ClipClassifier(trained(MODELS[name](JHMDB15)), 4, 0.0)
    batch = Batch(skeletons=skeletons())
    exact = model.eval().encoder(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.encoder(batch)
        model.train()(batch).float().square().mean().backward()
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_pure_bfloat16(name):
    encoder = trained(MODELS[name](JHMDB15))
    batch = Batch(skeletons=skeletons())
    with torch.no_grad():
        exact = encoder(batch)
        rough = copy.deepcopy(encoder).bfloat16()(batch._map(torch.Tensor.bfloat16))
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_traced_whole_with_any_number_of_clips(name):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = trained(MODELS[name](JHMDB15))

        def forward(self, x):
            return self.encoder(Batch(skeletons=x))

    plain = Plain().eval()
    rows = torch.export.Dim("rows", min=2, max=64)
    with torch.no_grad():
        program = torch.export.export(plain, (skeletons(rows=3),), dynamic_shapes=({0: rows},))
        x = skeletons(rows=5, seed=4)
        out = plain(x)
        assert (program.module()(x) - out).abs().max() < 1e-4 * out.abs().max()
