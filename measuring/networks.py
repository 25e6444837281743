"""Whole networks: without GSF, with the published one, with ours."""

import copy

import torch
from torch import nn

from benchmarks.published_gsf import PublishedGSF
from machine import use_channels_last
from measuring.contest import Contest
from measuring.plan import Plan, Setup
from measuring.record import Section
from measuring.variants import COMPILED, PLAIN, PUBLISHED, compile_in_place, why_not_compiled
from models.resnet_gsf import Backbone, build_resnet

_STAGES = ("layer1", "layer2", "layer3", "layer4")


def measure_networks(plan: Plan) -> Section:
    """Time backbones on clips: evaluation forward, training forward + backward."""
    side, segments = plan.input_size, plan.num_segments
    section = Section(
        name="network",
        title=f"Whole networks, {segments}x3x{side}x{side} a clip: evaluation forward; training "
        "forward + backward",
        peer=PUBLISHED,
        limit=PLAIN,
        notes=["plain is the network without GSF"],
    )
    for setup in plan.setups(batch=1):
        for arch in plan.archs:
            plan.progress(setup.case(arch))
            section.rows += _contest(plan, setup, arch).run(plan, setup)
    return section


def _contest(plan: Plan, setup: Setup, arch: str) -> Contest:
    torch.manual_seed(0)
    side = plan.input_size
    x = torch.randn(setup.batch * plan.num_segments, 3, side, side, device=plan.device)
    modules: dict[str, nn.Module | str] = {}
    for variant in plan.variants:
        modules[variant] = build_variant(
            variant, arch, plan.num_segments, plan.device, layout=setup.layout
        )
    settings = {"arch": arch, "input_size": side, "num_segments": plan.num_segments}
    return Contest(arch, x.to(memory_format=setup.layout), modules, settings=settings)


def build_variant(
    variant: str,
    arch: str,
    num_segments: int,
    device: torch.device,
    *,
    in_channels: int = 3,
    layout: torch.memory_format = torch.contiguous_format,
) -> Backbone | str:
    """Build a backbone in one formulation; all of them have the same weights.

    Returns:
        The module, or in words why there is none.
    """
    torch.manual_seed(0)
    plain = build_resnet(arch, in_channels=in_channels, gsf=False, num_segments=num_segments)
    network = plain
    if variant != PLAIN:
        network = build_resnet(arch, in_channels=in_channels, gsf=True, num_segments=num_segments)
        network.load_state_dict(plain.state_dict(), strict=False)
    if variant == PUBLISHED:
        network = _with_published(plain, network)
    network.to(device)
    if layout is torch.channels_last:
        use_channels_last(network)
    if variant == COMPILED:
        reason = why_not_compiled(device)
        if reason:
            return reason
        compile_in_place(network)
    return network


def _with_published(plain: Backbone, ours: Backbone) -> Backbone:
    """Put the published GSF behind the last convolution of every block of torchvision's own."""
    for stage in _STAGES:
        for block, other in zip(getattr(plain, stage), getattr(ours, stage), strict=True):
            name = "conv3" if hasattr(block, "conv3") else "conv2"
            gsf = PublishedGSF(copy.deepcopy(other.gsf))
            setattr(block, name, nn.Sequential(getattr(block, name), gsf))
    return plain
