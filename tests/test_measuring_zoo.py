"""The skeleton part of the benchmark: what it measures is what users get, and so is its peer."""

import json

import numpy as np
import pytest
import torch

from benchmarks.published_skeletons import PublishedSTGCNPlusPlus, looped_volumes
from measuring import zoo
from measuring.plan import Plan
from measuring.record import Row, Section
from measuring.targets import check_targets
from measuring.timing import Spread, Timing
from measuring.variants import PUBLISHED
from measuring.volumes import JOINTS, LIMBS, measure_volumes
from measuring.zoo import FLOPS, GIVEN, INFERENCE, OTHER_SPEED, OURS, PARAMETERS, SPEED, STEP
from models.skeleton import SKELETON_ENCODERS
from ops.batch import Batch
from ops.heatmap import joint_volumes, limb_volumes
from ops.skeleton import COCO17, NTU25
from options.benchmarking import MODELS, parse_benchmark_args

CPU = torch.device("cpu")


def make_plan(**choices) -> Plan:
    values = {
        "device": CPU,
        "threads": (1,),
        "batches": (1,),
        "dtypes": ("float32",),
        "layouts": ("contiguous",),
        "variants": ("published", "eager"),
        "archs": ("resnet18",),
        "models": MODELS,
        "input_size": 32,
        "num_segments": 4,
        "workers": (0,),
        "sizes": ((64, 36),),
        "repeats": 1,
        "is_quick": True,
        "folder": None,
        "progress": lambda text: None,
    }
    return Plan(**{**values, **choices})


@pytest.fixture(autouse=True)
def short_calls(monkeypatch):
    monkeypatch.setattr("measuring.timing._LEAST_SECONDS", 1e-9)


# ---------------------------------------------------------------- the published order


@pytest.mark.parametrize("people", [1, 3])
@pytest.mark.parametrize("is_training", [False, True])
def test_the_plain_formulation_says_the_same(people, is_training):
    torch.manual_seed(0)
    ours = SKELETON_ENCODERS["stgcnpp"](COCO17)
    for name, buffer in ours.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    published = PublishedSTGCNPlusPlus(ours).train(is_training)
    ours.train(is_training)
    batch = Batch(skeletons=torch.randn(2, 13, people, 17, 3))
    one, other = ours(batch), published(batch)
    assert one.shape == other.shape == (2, 4, 256)
    # Batch norm over few numbers enlarges rounding.
    assert (one - other).abs().max() < (1e-2 if is_training else 1e-4) * one.abs().max()


def test_the_plain_formulation_has_as_many_weights_and_learns():
    ours = SKELETON_ENCODERS["stgcnpp"](NTU25)
    published = PublishedSTGCNPlusPlus(ours)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (ours, published)]
    assert sizes[0] == sizes[1]
    published(Batch(skeletons=torch.randn(2, 8, 2, 25, 3))).square().mean().backward()
    assert all(p.grad is not None for p in published.parameters())
    assert all(p.grad is None for p in ours.parameters())


def random_skeletons(frames=5, people=2):
    rng = np.random.default_rng(0)
    skeletons = rng.uniform(-4, 24, (2, frames, people, 17, 3)).astype(np.float32)
    skeletons[..., 2] = rng.uniform(0, 1, skeletons.shape[:-1])
    skeletons[0, 0] = 0
    skeletons[1, :, 0, :5, 2] = 0
    skeletons[1, :, 0, 6, :2] = skeletons[1, :, 0, 8, :2] + 0.3  # a limb shorter than a pixel
    return skeletons


@pytest.mark.parametrize("people", [1, 2])
def test_the_loop_draws_the_same_joints_and_limbs(people):
    skeletons = random_skeletons(people=people)
    size = (18, 22)
    joints = joint_volumes(torch.from_numpy(skeletons), size).numpy()
    assert np.abs(looped_volumes(skeletons, None, size) - joints).max() < 1e-5
    limbs = limb_volumes(torch.from_numpy(skeletons), COCO17.limbs, size).numpy()
    assert np.abs(looped_volumes(skeletons, COCO17.limbs, size) - limbs).max() < 1e-5


def test_the_loop_draws_nothing_of_nan():
    skeletons = random_skeletons()
    skeletons[..., 2] = np.nan
    assert looped_volumes(skeletons, None, (8, 8)).max() == 0


# ---------------------------------------------------------------- the table


@pytest.fixture(scope="module")
def section():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("measuring.timing._LEAST_SECONDS", 1e-9)
        return zoo.measure_zoo(make_plan())


def test_every_model_is_measured_both_ways(section):
    found = {(row.settings["model"], row.settings["work"]) for row in section.rows if row.timing}
    names = {name for name in MODELS if name != "posec3d"} | {"posec3d, joints", "posec3d, limbs"}
    assert found == {(name, work) for name in names for work in (INFERENCE, STEP)}
    assert {row.note for row in section.rows} == {""}
    json.dumps(section.as_json(), allow_nan=False)


def test_sizes_are_the_published_ones(section):
    sizes = {
        row.settings["model"]: row.facts[PARAMETERS]
        for row in section.rows
        if PARAMETERS in row.facts
    }
    # ZOO: 60 classes, 25 joints; PoseC3D and RGBPose-Conv3D 17.
    known = {
        "stgcn": 3_098_832,
        "stgcnpp": 1_403_144,
        "agcn": 3_469_520,
        "aagcn": 3_781_668,
        "posec3d, joints": 2_024_860,
        "rgbpose": 36_147_928,
    }
    assert {name: sizes[name] for name in known} == known


def test_speeds_are_clips_by_the_deciding_clock(section):
    for row in section.rows:
        assert row.facts[SPEED] == pytest.approx(1e3 * row.settings["batch"] / row.cost)


def test_peers_stand_beside_st_gcn_plus_plus_alone(section):
    assert {row.settings["model"] for row in section.rows if row.variant == PUBLISHED} == {
        "stgcnpp"
    }
    assert {row.settings["model"] for row in section.rows if row.variant == GIVEN} == {
        "posec3d, joints"
    }
    compared = [row for row in section.rows if section.speed_up(row) is not None]
    assert {(row.settings["model"], row.variant) for row in compared} == {("stgcnpp", OURS)}


def test_quick_figures_stand_beside_no_published_ones(section):
    assert not any(OTHER_SPEED in row.facts for row in section.rows)


def test_full_size_has_the_published_shape_flops_and_figure(monkeypatch):
    monkeypatch.setattr(zoo, "race", lambda *_, **__: {})
    monkeypatch.setattr(zoo, "why_not", lambda call: "")
    monkeypatch.setattr(zoo, "_odd_ways", lambda ways, batch: {})
    rows = zoo.measure_zoo(make_plan(is_quick=False, batches=(), models=("stgcnpp",))).rows
    assert rows[0].case == "stgcnpp, 100 frames, 25 joints, 2 people, 16 clips: inference"
    assert rows[0].facts[FLOPS] == pytest.approx(2.956, rel=0.01)
    assert rows[0].facts[OTHER_SPEED] == 8.9
    assert rows[0].settings["batch"] == 16


def test_what_says_something_else_is_not_timed(monkeypatch):
    def spoilt(ours):
        other = PublishedSTGCNPlusPlus(ours)
        torch.nn.init.constant_(other.data_bn.bias, 1.0)
        return other

    monkeypatch.setattr(zoo, "PublishedSTGCNPlusPlus", spoilt)
    found = zoo.measure_zoo(make_plan(models=("stgcnpp",)))
    published = [row for row in found.rows if row.variant == PUBLISHED]
    assert all(row.timing is None and "says something else" in row.note for row in published)
    assert all(found.speed_up(row) is None for row in found.rows)


def test_memory_layouts_are_the_models_own():
    plan = make_plan(models=("gcn",), layouts=("contiguous", "channels_last"))
    assert len(zoo.measure_zoo(plan).rows) == 2


def test_short_types_are_measured_too():
    rows = zoo.measure_zoo(make_plan(models=("stgcn",), dtypes=("bfloat16",))).rows
    assert [row.note for row in rows] == ["", ""]
    assert all(row.timing is not None for row in rows)


def test_volumes_are_at_least_ten_times_as_fast_as_the_loop():
    section = measure_volumes(make_plan(batches=(2,), repeats=3))
    ratios = {
        row.settings["what"]: section.speed_up(row) for row in section.rows if row.variant == OURS
    }
    assert set(ratios) == {JOINTS, LIMBS}
    assert min(ratios.values()) >= 10


# ---------------------------------------------------------------- promises and options


def rows_of(name, settings, ours, published):
    known = {
        "threads": 1, "batch": 16, "dtype": "float32", "channels_last": False, "device": "cpu",
        "quick": False, **settings,
    }  # fmt: skip

    def timing(cost):
        return Timing(Spread(cost, cost, cost), Spread(cost, cost, cost))

    rows = [
        Row("case", variant, timing(cost), settings=known)
        for variant, cost in ((OURS, ours), (PUBLISHED, published))
    ]
    return {name: Section(name, "", peer=PUBLISHED, rows=rows)}


def values_of(sections):
    found = check_targets(sections, "cpu")
    return {outcome.target.name: outcome.value for outcome in found if outcome.value is not None}


def test_promises_are_looked_up():
    found = values_of(rows_of("zoo", {"model": "stgcnpp", "work": INFERENCE}, 2, 3))
    assert found == {
        "ST-GCN++, inference, times as fast as published, 16 clips of 2x100x25": 1.5,
    }
    found = values_of(rows_of("volumes", {"what": LIMBS, "batch": 8}, 1, 25))
    assert found == {"limb volumes of 8 clips, 17x48x56x56, times as fast as a loop": 25}


@pytest.mark.parametrize("odd", [{"quick": True}, {"threads": 2}, {"batch": 4}, {"model": "stgcn"}])
def test_other_settings_promise_nothing(odd):
    settings = {"model": "stgcnpp", "work": STEP, **odd}
    assert values_of(rows_of("zoo", settings, 2, 3)) == {}


def test_models_are_chosen_once():
    args = parse_benchmark_args(["--what", "zoo", "--models", "stgcn", "posec3d", "stgcn"])
    assert args.models == ["stgcn", "posec3d"]
    with pytest.raises(SystemExit):
        parse_benchmark_args(["--models", "resnet50"])
