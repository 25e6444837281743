"""RGB encoders and late fusion: shapes, reach, missing poses, wrong input."""

import pytest
import torch

from errors import InputError
from models.fusion import LateFusion, RGBEncoder
from models.pose_encoders import PoseMLP
from models.resnet_gsf import build_resnet
from ops.attention import SegmentAttention
from ops.batch import Batch

SEGMENTS = 4


def rgb_encoder(gsf: bool = False, channels: int = 3) -> RGBEncoder:
    torch.manual_seed(0)
    return RGBEncoder(
        build_resnet("resnet18", in_channels=channels, width=8, gsf=gsf, num_segments=SEGMENTS)
    )


def late_fusion(scope: str | None, dropout: float = 0.0) -> LateFusion:
    rgb = rgb_encoder()
    attention = SegmentAttention(rgb.feature_dim + 128, 4, dropout, scope) if scope else None
    return LateFusion(rgb, PoseMLP(), attention, dropout).eval()


def batch(channels: int = 3) -> Batch:
    torch.manual_seed(1)
    points = torch.cat([torch.randn(2, SEGMENTS, 1, 17, 2), torch.ones(2, SEGMENTS, 1, 17, 1)], -1)
    return Batch(frames=torch.randn(2, SEGMENTS, channels, 32, 32), keypoints=points)


def changed_segments(encoder, before: Batch, after: Batch) -> list[list[bool]]:
    """Say which segments' features differ, (B, T)."""
    with torch.inference_mode():
        difference = (encoder(before) - encoder(after)).abs().amax(dim=2)
    return (difference > 1e-6).tolist()


NONE, ALL = [False] * SEGMENTS, [True] * SEGMENTS
ONLY_SECOND = [False, True, False, False]

# ---------------------------------------------------------------- RGB and early fusion


@pytest.mark.parametrize("channels", [3, 4])
def test_rgb_features_are_those_of_each_frame(channels):
    encoder = rgb_encoder(channels=channels).eval()
    data = batch(channels)
    features = encoder(data)
    assert features.shape == (2, SEGMENTS, encoder.feature_dim)
    alone = encoder.backbone(data.frames[1, 2][None])[0]
    assert torch.allclose(features[1, 2], alone, atol=1e-5)
    assert encoder.segment_mask(data) is None


@pytest.mark.parametrize("gsf", [False, True])
def test_gsf_makes_a_frame_reach_its_whole_clip(gsf):
    encoder, data, moved = rgb_encoder(gsf=gsf).eval(), batch(), batch()
    moved.frames[0, 1] += 1
    assert changed_segments(encoder, data, moved) == [ALL if gsf else ONLY_SECOND, NONE]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (None, "no frames"),
        (torch.zeros(2, SEGMENTS, 4, 8, 8), r"the model takes \(B, T, 3, H, W\)"),
        (torch.zeros(8, 3, 8, 8), r"the frames are \(8, 3, 8, 8\)"),
        (torch.zeros(2, 6, 3, 8, 8), "6 segments, the GSF modules were built for 4"),
    ],
)
def test_wrong_frames(frames, reason):
    with pytest.raises(InputError, match=reason):
        rgb_encoder(gsf=True)(Batch(frames=frames, keypoints=torch.zeros(1)))


def test_without_gsf_any_number_of_segments_will_do():
    assert rgb_encoder()(Batch(frames=torch.randn(2, 6, 3, 32, 32))).shape[:2] == (2, 6)


# ---------------------------------------------------------------- late fusion


@pytest.mark.parametrize("scope", [None, "clip", "frame"])
def test_late_features_are_a_quarter_of_both_streams(scope):
    encoder = late_fusion(scope)
    assert encoder(batch()).shape == (2, SEGMENTS, encoder.feature_dim)
    assert encoder.feature_dim == (encoder.rgb.feature_dim + 128) // 4
    assert encoder.segment_mask(batch()) is None


@pytest.mark.parametrize(
    ("scope", "expected"), [("clip", ALL), ("frame", ONLY_SECOND), (None, ONLY_SECOND)]
)
def test_defect_06_how_far_the_pose_of_a_segment_reaches(scope, expected):
    data, moved = batch(), batch()
    moved.keypoints[0, 1, ..., :2] *= -1
    assert changed_segments(late_fusion(scope), data, moved) == [expected, NONE]


@pytest.mark.parametrize("scope", [None, "clip", "frame"])
@pytest.mark.parametrize("stream", ["rgb", "pose"])
def test_the_scale_of_a_stream_does_not_matter(stream, scope):
    # Both streams have unit length: neither drowns the other.
    encoder, data = late_fusion(scope), batch()
    before = encoder(data)
    getattr(encoder, stream).register_forward_hook(lambda *call: 100 * call[2])
    assert torch.allclose(encoder(data), before, atol=1e-5)


@pytest.mark.parametrize("scope", [None, "clip", "frame"])
def test_where_nobody_is_detected_the_pose_stream_is_silent(scope):
    encoder, data, other = late_fusion(scope), batch(), batch()
    for each in (data, other):
        each.keypoints[0, 1, ..., 2] = 0
    other.keypoints[0, 1, ..., :2] = torch.nan
    assert changed_segments(encoder, data, other) == [NONE, NONE]
    with torch.no_grad():
        for bias in (encoder.pose.fc1.bias, encoder.pose.fc2.bias, encoder.pose.fc3.bias):
            bias += 1  # a constant that only detected segments may show
    seen = []
    encoder.refinement.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(data)
    if scope is None:
        pose = seen[0].unflatten(0, (2, SEGMENTS))[:, :, encoder.rgb.feature_dim :]
        assert not pose[0, 1].any()
        assert pose[0, 0].any()


@pytest.mark.parametrize("is_detected", [True, False])
def test_segments_without_a_pose_are_not_attended_to(is_detected):
    encoder, data, moved = late_fusion("clip"), batch(), batch()
    for each in (data, moved):
        each.keypoints[0, 1] *= is_detected
    moved.frames[0, 1] += 1
    own, other = changed_segments(encoder, data, moved)
    assert own[:1] + own[2:] == [is_detected] * 3
    assert other == NONE


@pytest.mark.parametrize("scope", [None, "clip", "frame"])
@pytest.mark.parametrize("missing", ["some", "all"])
def test_missing_poses_leave_finite_gradients(scope, missing):
    encoder, data = late_fusion(scope).train(), batch()
    data.keypoints[0, 1:] = 0
    if missing == "all":
        data.keypoints.zero_()
    encoder(data).square().sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("scope", [None, "clip", "frame"])
def test_mixed_precision(scope):
    encoder, data = late_fusion(scope).train(), batch()
    data.keypoints[0, 1] = 0
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(data).float().square().sum()
    out.backward()
    assert out.isfinite()
    assert all(p.grad.isfinite().all() for p in encoder.rgb.parameters())


def test_frames_and_keypoints_of_different_clips():
    data = batch()
    with pytest.raises(InputError, match="one set of keypoints per frame"):
        late_fusion(None)(Batch(frames=data.frames, keypoints=data.keypoints[:1]))
