"""The parts of tools/benchmark.py: clocks, memory, tables, promises, generated clips."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from measuring import targets
from measuring.chart import render_chart
from measuring.clips import make_images, make_skeletons, make_video, natural_picture
from measuring.contest import FORWARD, SAVED, TRAINING
from measuring.loaders import OURS, PUBLISHED
from measuring.memory import peak_bytes, saved_bytes
from measuring.networks import build_variant
from measuring.plan import Plan
from measuring.record import Row, Section
from measuring.tables import markdown_table, number, text_table
from measuring.targets import check_targets
from measuring.timing import Spread, Timing, race
from measuring.training import LOADER_SHARE
from measuring.variants import formulation, why_not
from tests.clocks import SetClock

CPU = torch.device("cpu")


def timing(cpu, wall=None):
    """Times in milliseconds that were the same each time."""
    wall = cpu if wall is None else wall
    return Timing(Spread(wall, wall, wall), Spread(cpu, cpu, cpu))


@pytest.fixture
def section():
    return Section(
        name="module",
        title="A table",
        peer="published",
        limit="plain",
        rows=[
            Row("case", "plain", timing(1.0)),
            Row("case", "published", timing(12.0), facts={SAVED: 8.0}),
            Row("case", "fused", timing(2.0, 5.0), facts={SAVED: 3.0, "other": 1e-6}),
            Row("case", "compiled", note="there is no C++ compiler | here"),
        ],
        notes=["a note"],
    )


# ---------------------------------------------------------------- clocks


@pytest.fixture
def clock(monkeypatch):
    """The clock that calls are timed by."""
    clock = SetClock()
    monkeypatch.setattr("measuring.timing.time", clock)
    return clock


def test_calls_take_turns_and_each_begins_a_round(clock):
    order = []
    calls = {name: lambda name=name: (order.append(name), clock.sleep(0.03)) for name in "abc"}
    race(calls, repeats=3)
    assert order[:6] == list("aabbcc")  # one to warm up, one to see how long it takes
    assert order[6:] == list("abcbcacab")


def test_short_calls_are_repeated_and_time_is_that_of_one(clock):
    waits = iter([0.9, 0.004, *[0.004] * 4, *[0.005] * 4, *[0.009] * 4])

    def short():
        clock.compute(0.001)
        clock.sleep(next(waits))

    found = race({"short": short}, repeats=3)["short"]
    assert next(waits, None) is None  # one to warm up, one to see, three times 20 ms
    assert found.wall == Spread(*(pytest.approx(value) for value in (0.006, 0.005, 0.010)))
    assert found.cpu == Spread(*(pytest.approx(0.001) for _ in range(3)))


def test_no_calls_are_no_race():
    assert race({}, repeats=2) == {}


# ---------------------------------------------------------------- memory


def test_saved_bytes_count_a_storage_once_and_leave_out_what_was_there():
    weight = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(1000, 4, requires_grad=True)

    def run():
        product = x @ weight  # keeps x and weight
        return product * product.view(1000, 4)  # keeps product, twice

    assert saved_bytes(run, [weight]) == 2 * x.numel() * 4
    assert saved_bytes(run, [weight, x]) == x.numel() * 4


def test_peak_memory_sees_what_is_given_back():
    if (small := peak_bytes(lambda: None, CPU)) is None:
        pytest.skip("this system does not say how much memory a process has")
    large = peak_bytes(lambda: torch.ones(20_000_000), CPU)
    assert large > 75e6 > small


# ---------------------------------------------------------------- formulations


def test_networks_of_all_variants_have_the_same_weights_and_say_the_same():
    x = torch.randn(4, 3, 32, 32)
    outputs = {}
    for variant in ("published", "eager"):
        network = build_variant(variant, "resnet18", 4, CPU).eval()
        with torch.no_grad(), formulation(variant):
            outputs[variant] = network(x)
    assert (outputs["published"] - outputs["eager"]).abs().max() < 1e-5
    plain = build_variant("plain", "resnet18", 4, CPU).state_dict()
    published = build_variant("published", "resnet18", 4, CPU).state_dict()
    assert torch.equal(plain["conv1.weight"], published["conv1.weight"])
    assert torch.equal(plain["layer4.1.conv2.weight"], published["layer4.1.conv2.0.weight"])
    gates = [key for key in published if key.endswith("gsf.conv3D.weight")]
    assert len(gates) == 8


def test_published_stands_before_the_last_norm_of_a_bottleneck():
    block = build_variant("published", "resnet50", 2, CPU).layer1[0]
    assert isinstance(block.conv3, nn.Sequential)
    assert isinstance(block.conv2, nn.Conv2d)


def test_what_cannot_run_says_why_in_one_line():
    def fail():
        raise RuntimeError("no such device\nand a traceback")

    assert why_not(fail) == "no such device"
    assert why_not(lambda: None) == ""


def test_the_sweep_has_every_combination_and_gives_the_threads_back(tmp_path):
    before = torch.get_num_threads()
    plan = make_plan(tmp_path, threads=(1, 2), batches=(1, 4))
    seen = [(torch.get_num_threads(), s.threads, s.batch, s.text) for s in plan.setups(batch=9)]
    assert seen == [
        (1, 1, 1, "1 thread, batch 1"),
        (1, 1, 4, "1 thread, batch 4"),
        (2, 2, 1, "2 threads, batch 1"),
        (2, 2, 4, "2 threads, batch 4"),
    ]
    assert torch.get_num_threads() == before
    (only,) = make_plan(tmp_path).setups(batch=9)
    assert (only.batch, only.text, only.clock(CPU)) == (9, "", "cpu")
    assert only.clock(torch.device("cuda")) == "wall"


def make_plan(folder, **choices) -> Plan:
    values = {
        "device": CPU,
        "threads": (1,),
        "batches": (),
        "dtypes": ("float32",),
        "layouts": ("contiguous",),
        "variants": ("plain", "published", "eager"),
        "archs": ("resnet18",),
        "models": ("stgcn",),
        "input_size": 32,
        "num_segments": 4,
        "workers": (0,),
        "sizes": ((64, 36),),
        "repeats": 1,
        "is_quick": True,
        "folder": folder,
        "progress": lambda text: None,
    }
    return Plan(**{**values, **choices})


# ---------------------------------------------------------------- tables


def test_ratios_are_of_the_same_case_and_of_the_deciding_clock(section):
    _, published, fused, missing = section.rows
    assert section.speed_up(fused) == 6
    assert section.relative_cost(published) == 12
    assert section.speed_up(published) is None
    assert section.speed_up(missing) is None
    by_wall = Row("case", "eager", timing(2.0, 4.0), clock="wall")
    assert section.speed_up(by_wall) == 3


def test_tables_have_every_row_and_equally_many_cells(section):
    text = text_table(section)
    assert all(row.variant in text for row in section.rows)
    assert "there is no C++ compiler" in text
    lines = markdown_table(section).splitlines()
    cells = {line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")}
    assert len(cells) == 1
    assert "1.0e-06" in text


def test_json_has_ratios_and_no_nan(section):
    values = json.loads(json.dumps(section.as_json(), allow_nan=False))
    assert [row["speed_up"] for row in values["rows"]] == [12, None, 6, None]
    assert values["rows"][2]["timing"]["wall"]["median"] == 5


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1234"), (99.96, "100.0"), (12.34, "12.3"), (0.1234, "0.12")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_chart_shows_what_was_measured(section, tmp_path):
    odd = Section("odd", "dollars $x$", rows=[Row("a $ case", "v", timing(0.0))])
    render_chart([section, odd], tmp_path / "chart.png")
    image = cv2.imread(str(tmp_path / "chart.png"))
    assert image.shape[1] > 500
    render_chart([Section("none", "nothing measured")], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


# ---------------------------------------------------------------- promises


def module_rows(variant, cost, **settings):
    known = {"threads": 1, "batch": 2, "dtype": "float32", "channels_last": False, "device": "cpu"}
    return [
        Row(
            f"{shape} {work}",
            variant,
            timing(cost),
            facts={SAVED: cost},
            settings={**known, "work": work, **settings},
        )
        for shape in ("one", "two")
        for work in (FORWARD, TRAINING)
    ]


def outcome_of(sections, name, device="cpu"):
    found = [o for o in check_targets(sections, device) if o.target.name.startswith(name)]
    assert len(found) == 1
    return found[0]


def test_a_promise_is_met_by_what_users_get():
    rows = [*module_rows("published", 20), *module_rows("eager", 10), *module_rows("fused", 2)]
    sections = {"module": Section("module", "", peer="published", rows=rows)}
    forward = outcome_of(sections, "GSF module, forward, ")
    assert forward.value == pytest.approx(10)
    assert forward.is_met
    saved = outcome_of(sections, "GSF module, saved")
    assert saved.value == pytest.approx(0.1)
    assert "met" in saved.text()


def test_a_promise_is_missed_without_the_fused_kernels():
    rows = [*module_rows("published", 20), *module_rows("eager", 10)]
    sections = {"module": Section("module", "", peer="published", rows=rows)}
    outcome = outcome_of(sections, "GSF module, forward, ")
    assert outcome.is_met is False
    assert outcome.text().startswith("MISSED")


def test_other_settings_and_parts_decide_nothing():
    rows = [*module_rows("published", 20, threads=2), *module_rows("fused", 1, threads=2)]
    sections = {"module": Section("module", "", peer="published", rows=rows)}
    assert outcome_of(sections, "GSF module, forward, ").is_met is None
    assert all(outcome.value is None for outcome in check_targets({}, "cuda"))


def test_loaders_and_waiting_are_looked_up():
    rows = [Row("1280x720", PUBLISHED, timing(16)), Row("1280x720", OURS, timing(4))]
    pose = Row("pose-only epoch, 400 clips", "0 workers", timing(1), facts={LOADER_SHARE: 30.0})
    sections = {
        "loader": Section("loader", "", peer=PUBLISHED, rows=rows),
        "waiting": Section("waiting", "", rows=[pose]),
    }
    assert outcome_of(sections, "loader, 1280x720").value == 4
    assert outcome_of(sections, "pose-only").is_met is False


def test_promises_for_a_gpu_are_asked_of_a_gpu_alone():
    def names(device):
        return [outcome.target.name for outcome in check_targets({}, device)]

    assert len(names("cuda")) == len(targets.TARGETS)
    assert not any("GPU" in name for name in names("cpu"))


# ---------------------------------------------------------------- generated clips


def test_pictures_compress_like_photographs():
    picture = natural_picture((640, 360), np.random.default_rng(0))
    assert picture.shape == (360, 640, 3)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    assert 45_000 < len(data) < 70_000


def test_generated_clips_load(tmp_path):
    images = make_images(tmp_path / "images", (64, 36), num_clips=2, num_frames=8)
    video = make_video(tmp_path / "video", (64, 48), num_clips=2, num_frames=8)
    for clips in (images, video):
        _, source = clips.open(["--early_fusion_poses", "--workers", "0"])
        assert len(source.records("train")) == 2
    args, source = make_skeletons(tmp_path / "bones", 3, 5).open(["--pose_only"])
    assert args.fusion == "pose"
    assert len(source.records("train")) == 3
