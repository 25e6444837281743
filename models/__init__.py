"""The table of models, and the one function that builds them."""

from argparse import Namespace
from collections.abc import Callable

from errors import InputError
from models.classifier import ClipClassifier, Encoder
from models.fusion import NUM_HEADS, LateFusion, RGBEncoder
from models.pose_encoders import POSE_ENCODERS, PoseEncoder
from models.resnet_gsf import build_resnet
from models.weights import backbone_weights
from ops.attention import SegmentAttention


def rgb_stream(args: Namespace) -> RGBEncoder:
    """Build the backbone; with 4 channels and `fusion` "early" this is early fusion."""
    # The parser of tests has no --pretrained: their weights come from the checkpoint.
    pretrained = getattr(args, "pretrained", "none")
    backbone = build_resnet(
        args.arch,
        in_channels=args.num_channels,
        width=args.width,
        gsf=args.gsf,
        gsf_ch_ratio=args.gsf_ch_ratio,
        num_segments=args.num_segments,
        weights=backbone_weights(args.arch, pretrained, args.width),
    )
    return RGBEncoder(backbone)


def pose_stream(args: Namespace) -> PoseEncoder:
    """Build the encoder of skeletons."""
    if args.pose_model not in POSE_ENCODERS:
        raise InputError(
            f"unknown --pose_model {args.pose_model!r}: choose from {', '.join(POSE_ENCODERS)}"
        )
    return POSE_ENCODERS[args.pose_model]()


def late_fusion(args: Namespace) -> LateFusion:
    """Build both streams, concatenated and refined."""
    return LateFusion(rgb_stream(args), pose_stream(args), None, args.dropout)


def late_fusion_attention(args: Namespace) -> LateFusion:
    """Build both streams, attended, concatenated and refined."""
    rgb, pose = rgb_stream(args), pose_stream(args)
    dim = rgb.feature_dim + pose.feature_dim
    attention = SegmentAttention(dim, NUM_HEADS, args.dropout, args.attention_scope)
    return LateFusion(rgb, pose, attention, args.dropout)


ENCODERS: dict[str, Callable[[Namespace], Encoder]] = {
    "none": rgb_stream,
    "early": rgb_stream,
    "late": late_fusion,
    "late_fast": late_fusion,
    "late_attention": late_fusion_attention,
    "pose": pose_stream,
}


def build_model(args: Namespace, num_classes: int) -> ClipClassifier:
    """Build the model that the options of `opts.py` describe.

    Args:
        args: as parsed; `pretrained` may be absent.
        num_classes: K.

    Raises:
        InputError: options that no model can have, or weights that cannot be had.
    """
    if args.fusion not in ENCODERS:
        raise InputError(f"unknown fusion {args.fusion!r}: choose from {', '.join(ENCODERS)}")
    return ClipClassifier(ENCODERS[args.fusion](args), num_classes, args.dropout)
