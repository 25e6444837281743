"""Every fusion mode from its command line: sizes, gradients, reach, nothing on the side."""

import math

import pytest
import torch

from errors import InputError
from models import ENCODERS, build_model
from ops.batch import Batch
from options.testing import adopt_options, parse_test_args
from opts import FUSIONS, parse_pose_train_args, parse_train_args

SEGMENTS = 4
FLAGS = {
    "none": (),
    "early": ("--early_fusion_poses",),
    "late": ("--late_fusion_poses",),
    "late_fast": ("--late_fusion_poses_fast",),
    "late_attention": ("--late_fusion_poses_attention",),
}
POSE_MODELS = ("mlp", "conv1d", "gcn")


def parse(mode: str, *more: str):
    common = ["--dataset", "synthetic", "--pretrained", "none", *more]
    if mode == "pose":
        return parse_pose_train_args(common)
    return parse_train_args([*common, *FLAGS[mode]])


def small(mode: str, *more: str):
    size = ("--arch", "resnet18", "--width", "8", "--num_segments", str(SEGMENTS), "--gsf")
    torch.manual_seed(0)
    return build_model(parse(mode, *size, *more), num_classes=3)


def batch(channels: int, people_missing: bool = False) -> Batch:
    torch.manual_seed(1)
    points = torch.cat([torch.randn(2, SEGMENTS, 1, 17, 2), torch.ones(2, SEGMENTS, 1, 17, 1)], -1)
    if people_missing:
        points[0, 1] = 0
        points[1] = 0
    return Batch(frames=torch.randn(2, SEGMENTS, channels, 32, 32), keypoints=points)


def channels_of(mode: str) -> int:
    return 4 if mode == "early" else 3


MODES = [*((mode, ()) for mode in ENCODERS)]
MODES += [(mode, ("--pose_model", p)) for mode in ("late_fast", "pose") for p in POSE_MODELS]
IDS = ["-".join((mode, *more[1:])) for mode, more in MODES]


def test_the_table_has_every_mode_of_the_command_line():
    assert set(ENCODERS) | {"rgbpose"} == set(FUSIONS)


@pytest.mark.parametrize(("mode", "more"), MODES, ids=IDS)
class TestEveryMode:
    def test_every_parameter_gets_a_gradient(self, mode, more):
        # Defect 6: query and key of the attention had none.
        model = small(mode, *more, "--dropout", "0")
        with torch.no_grad():  # away from the tiny initialisation: it would hide what is dead
            model.head.linear.weight.normal_()
        model(batch(channels_of(mode)))[:, 0].square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            # Query and key stand in one tensor with value: look at each part.
            parts = parameter.grad.chunk(3) if "in_proj" in name else [parameter.grad]
            # The bias of the key shifts all scores of a query alike: softmax does not see it.
            parts = [parts[0], parts[2]] if name.endswith("in_proj_bias") else parts
            assert all(part.abs().max() > 0 for part in parts), name

    def test_a_segment_changes_its_own_clip_alone(self, mode, more):
        model = small(mode, *more).eval()
        data, moved = batch(channels_of(mode)), batch(channels_of(mode))
        moved.frames[0, 1] += 1
        moved.keypoints[0, 1, ..., :2] += 1
        with torch.inference_mode():
            before, after = model(data), model(moved)
        assert not torch.allclose(before[0], after[0], rtol=0, atol=1e-7)
        assert torch.allclose(before[1], after[1], rtol=0, atol=1e-8)

    def test_missing_people_leave_finite_logits(self, mode, more):
        model = small(mode, *more)
        logits = model(batch(channels_of(mode), people_missing=True))
        assert logits.shape == (2, 3)
        assert logits.isfinite().all()

    def test_defects_30_31_nothing_is_printed_or_written(
        self, mode, more, capfd, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        small(mode, *more)(batch(channels_of(mode)))
        assert capfd.readouterr() == ("", "")
        assert not list(tmp_path.iterdir())

    def test_the_first_loss_is_that_of_a_guess(self, mode, more):
        logits = small(mode, *more)(batch(channels_of(mode)))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2]))
        assert loss.item() == pytest.approx(math.log(3), abs=0.05)


@pytest.mark.parametrize("mode", ["late", "late_fast", "late_attention"])
def test_defect_27_late_fusion_without_dropout(mode):
    logits = small(mode, "--dropout", "0")(batch(3))
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("mode", ["late_fast", "late_attention"])
def test_late_fusion_with_the_heatmap_as_fourth_channel(mode):
    model = small(mode, "--num_channels", "4")
    assert model(batch(4)).shape == (2, 3)


def test_defect_29_four_channels_without_gsf():
    args = parse("early", "--arch", "resnet18", "--width", "8", "--num_segments", "4")
    assert build_model(args, 3)(batch(4)).shape == (2, 3)


@pytest.mark.parametrize("scope", ["clip", "frame"])
def test_defect_06_attention_scope_decides_how_far_a_pose_reaches(scope):
    encoder = small("late_attention", "--attention_scope", scope).eval().encoder
    data, moved = batch(3), batch(3)
    moved.keypoints[0, 1, ..., :2] *= -1
    with torch.inference_mode():
        changed = ((encoder(data) - encoder(moved)).abs().amax(dim=2) > 1e-7)[0]
    assert changed.tolist() == [scope == "clip", True, scope == "clip", scope == "clip"]


# ---------------------------------------------------------------- sizes

SIZES = [
    ("early", "resnet34", (), 21_398_978),
    ("early", "resnet50", (), 23_953_922),
    ("none", "resnet34", (), 21_395_842),
    ("none", "resnet50", (), 23_950_786),
    ("late_attention", "resnet34", (), 23_320_610),
    ("late_attention", "resnet50", (), 45_887_714),
    ("late_fast", "resnet34", (), 21_679_650),
    ("late_fast", "resnet50", (), 26_939_106),
    ("late_attention", "resnet50", ("--num_channels", "4"), 45_890_850),
    ("late_fast", "resnet50", ("--num_channels", "4"), 26_942_242),
    ("pose", "resnet50", (), 146_082),
]


@pytest.mark.parametrize(("mode", "arch", "more", "expected"), SIZES)
def test_published_parameter_counts(mode, arch, more, expected):
    with torch.device("meta"):
        model = build_model(parse(mode, "--gsf", "--arch", arch, *more), num_classes=2)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(("arch", "expected"), [("resnet34", 110_144), ("resnet50", 438_656)])
def test_published_parameter_counts_of_gsf(arch, expected):
    with torch.device("meta"):
        model = build_model(parse("none", "--gsf", "--arch", arch), num_classes=2)
    gsf = {name: p for name, p in model.named_parameters() if ".gsf." in name}
    assert sum(p.numel() for p in gsf.values()) == expected
    assert len({name.split(".gsf.")[0] for name in gsf}) == 16


# ---------------------------------------------------------------- testing, and wrong options


def test_the_options_of_a_test_build_the_same_model_and_download_nothing(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    given = parse_test_args(
        [
            *("--dataset", "synthetic", "--weights", str(tmp_path / "w.pth.tar"), "--gsf"),
            *("--arch", "resnet18", "--width", "8", "--num_segments", "4"),
            *FLAGS["late_attention"],
        ]
    )
    args = adopt_options(given, {})
    trained = small("late_attention").state_dict()
    build_model(args, num_classes=3).load_state_dict(trained)


def test_unknown_names():
    args = parse("pose")
    args.pose_model = "transformer"
    with pytest.raises(InputError, match="unknown --pose_model 'transformer': choose from mlp"):
        build_model(args, 2)
    args.fusion = "later"
    with pytest.raises(InputError, match="unknown fusion 'later': choose from none, early"):
        build_model(args, 2)
