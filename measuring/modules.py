"""The GSF module by itself."""

import copy
import statistics
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from benchmarks.published_gsf import PublishedGSF
from measuring.contest import Contest
from measuring.plan import Plan, Setup
from measuring.record import Row, Section
from measuring.variants import COMPILED, PLAIN, PUBLISHED, compile_in_place, why_not_compiled
from ops.gsf import GSF

# (channels, side) where GSF stands in ResNet-18 and ResNet-50 at 224 pixels.
SHAPES = ((64, 56), (256, 56), (512, 28), (1024, 14), (2048, 7))
_SEGMENTS = 8
_CLIPS = 2


class _Copy(nn.Module):
    """The least that a module can do: read its input, write its output."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone(memory_format=torch.preserve_format)


def measure_modules(plan: Plan) -> Section:
    """Time GSF at the shapes of two backbones, forward in evaluation and both ways in training."""
    section = Section(
        name="module",
        title="GSF module, 8 segments: evaluation forward; training forward + backward",
        peer=PUBLISHED,
        limit=PLAIN,
        notes=["plain is a copy of the input: the least that any module costs"],
    )
    for setup in plan.setups(batch=_CLIPS):
        rows: list[Row] = []
        for channels, side in SHAPES[-2:] if plan.is_quick else SHAPES:
            plan.progress(setup.case(f"GSF module {channels}x{side}x{side}"))
            rows += _contest(plan, setup, channels, side).run(plan, setup)
        section.rows += rows
        section.notes += _means(section, rows, setup)
    return section


def _contest(plan: Plan, setup: Setup, channels: int, side: int) -> Contest:
    torch.manual_seed(channels)
    gsf = GSF(channels, _SEGMENTS).to(plan.device)
    x = torch.randn(setup.batch * _SEGMENTS, channels, side, side, device=plan.device)
    if setup.dtype != "float32":
        x = x.to(getattr(torch, setup.dtype))  # as a convolution under autocast gives it
    modules: dict[str, nn.Module | str] = {}
    for variant in plan.variants:
        modules[variant] = _module(variant, copy.deepcopy(gsf), plan)
    return Contest(
        what=f"{channels}x{side}x{side}",
        x=x.to(memory_format=setup.layout),
        modules=modules,
        needs_input_gradient=True,
        settings={"channels": channels, "side": side},
    )


def _module(variant: str, gsf: GSF, plan: Plan) -> nn.Module | str:
    if variant == PLAIN:
        return _Copy()
    if variant == PUBLISHED:
        return PublishedGSF(gsf)
    if variant == COMPILED:
        reason = why_not_compiled(plan.device)
        if reason:
            return reason
        compile_in_place(gsf)
    return gsf


def _means(section: Section, rows: Iterable[Row], setup: Setup) -> list[str]:
    """Say how many times as fast as published each variant is, over all shapes."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        ratio = section.speed_up(row)
        if ratio is not None and row.variant != PLAIN:
            ratios.setdefault((str(row.settings["work"]), row.variant), []).append(ratio)
    return [
        setup.case(
            f"{variant}, {work}: {statistics.geometric_mean(values):.1f} times as fast as "
            f"published (geometric mean of {len(values)} shapes)"
        )
        for (work, variant), values in ratios.items()
    ]
