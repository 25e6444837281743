"""The table of models, and the one function that builds them."""

from argparse import Namespace
from collections.abc import Callable

from errors import InputError
from models.classifier import ClipClassifier, Encoder
from models.fusion import NUM_HEADS, LateFusion, RGBEncoder, StreamClassifier
from models.pose_encoders import POSE_ENCODERS
from models.resnet_gsf import build_resnet
from models.skeleton import SKELETON_ENCODERS
from models.skeleton.posec3d import PoseC3D
from models.skeleton.rgbpose_conv3d import RGBPoseConv3D
from models.weights import backbone_weights
from ops.attention import SegmentAttention
from ops.skeleton import COCO17, SkeletonLayout
from options.skeletons import layout_of

# What every network is: logits of a batch, see `ClipClassifier`.
Network = ClipClassifier | RGBPoseConv3D


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


def pose_stream(args: Namespace) -> Encoder:
    """Build the encoder of skeletons."""
    name = args.pose_model
    if name in POSE_ENCODERS:
        return POSE_ENCODERS[name]()
    layout = _layout(args)
    if name == "posec3d":
        stages = tuple(args.posec3d_stages or (4, 6, 3))
        return PoseC3D(layout, stages, args.pose_streams[0])
    if name not in SKELETON_ENCODERS:
        known = ", ".join([*POSE_ENCODERS, *SKELETON_ENCODERS, "posec3d"])
        raise InputError(f"unknown --pose_model {name!r}: choose from {known}")
    options = {"dropout": args.tcn_dropout} if name == "stgcn" else {}
    return SKELETON_ENCODERS[name](
        layout,
        in_channels=3 * len(args.pose_streams),
        num_people=args.num_people,
        pooling=args.pose_pooling,
        **options,
    )


def _layout(args: Namespace) -> SkeletonLayout:
    return layout_of(args.skeleton_layout) or COCO17


def late_fusion(args: Namespace) -> LateFusion:
    """Build both streams, concatenated and refined."""
    return LateFusion(rgb_stream(args), pose_stream(args), None, args.dropout)


def late_fusion_attention(args: Namespace) -> LateFusion:
    """Build both streams, attended, concatenated and refined."""
    rgb, pose = rgb_stream(args), pose_stream(args)
    dim = rgb.feature_dim + pose.feature_dim
    attention = SegmentAttention(dim, NUM_HEADS, args.dropout, args.attention_scope)
    return LateFusion(rgb, pose, attention, args.dropout)


def _rgbpose(args: Namespace, num_classes: int) -> RGBPoseConv3D:
    # Only the parser of training has the last two.
    detached = getattr(args, "rgbpose_detach", ())
    drop_rgb, drop_pose = getattr(args, "rgbpose_drop_path", (0.0, 0.0))
    return RGBPoseConv3D(
        num_classes,
        _layout(args),
        args.rgbpose_streams,
        args.dropout,
        rgb_detach="rgb" in detached,
        pose_detach="pose" in detached,
        rgb_drop_path=drop_rgb,
        pose_drop_path=drop_pose,
    )


ENCODERS: dict[str, Callable[[Namespace], Encoder]] = {
    "none": rgb_stream,
    "early": rgb_stream,
    "late": late_fusion,
    "late_fast": late_fusion,
    "late_attention": late_fusion_attention,
    "pose": pose_stream,
}


def build_model(args: Namespace, num_classes: int) -> Network:
    """Build the model that the options of `opts.py` describe.

    Args:
        args: as parsed; `pretrained` may be absent.
        num_classes: K.

    Raises:
        InputError: options that no model can have, or weights that cannot be had.
    """
    if args.fusion == "rgbpose":
        return _rgbpose(args, num_classes)
    if args.fusion not in ENCODERS:
        raise InputError(f"unknown fusion {args.fusion!r}: choose from {', '.join(ENCODERS)}")
    encoder = ENCODERS[args.fusion](args)
    if isinstance(encoder, LateFusion) and args.stream_losses:
        return StreamClassifier(encoder, num_classes, args.dropout, args.stream_losses)
    return ClipClassifier(encoder, num_classes, args.dropout)
