"""Several networks on the same input: times forward and backward, memory, differences."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from measuring.memory import peak_bytes, saved_bytes
from measuring.plan import Plan, Setup
from measuring.record import Row
from measuring.timing import race
from measuring.variants import COMPILED, PLAIN, PUBLISHED, why_not, within

FORWARD, TRAINING = "forward", "forward + backward"
SAVED, PEAK, DIFFERENCE = "saved, MiB", "peak, MiB", "largest difference"
_MIB = 2**20


@dataclass
class Contest:
    """Modules that do the same on one input.

    Attributes:
        what: is computed, for the name of the case.
        x: the input.
        modules: by variant; where a string stands instead, that variant cannot run, and why.
        needs_input_gradient: the backward pass goes on into the input.
        settings: of the rows.
    """

    what: str
    x: Tensor
    modules: Mapping[str, nn.Module | str]
    needs_input_gradient: bool = False
    settings: dict[str, object] = field(default_factory=dict)

    def run(self, plan: Plan, setup: Setup) -> list[Row]:
        """Measure both passes; return a row for each variant and pass."""
        return [*self._forward(plan, setup), *self._training(plan, setup)]

    def _forward(self, plan: Plan, setup: Setup) -> list[Row]:
        calls: dict[str, Callable[[], Tensor]] = {}
        for variant, module in self.modules.items():
            if isinstance(module, nn.Module):
                calls[variant] = _forward_call(variant, module.eval(), self.x, plan, setup)
        reasons = {name: why_not(call) for name, call in calls.items()}
        runnable = {name: call for name, call in calls.items() if not reasons[name]}
        facts = _differences({name: call() for name, call in runnable.items()})
        timings = race(runnable, plan.repeats, plan.device)
        rows = self._rows(FORWARD, plan, setup, reasons)
        return [
            replace(row, timing=timings[row.variant].times(1e3), facts=facts.get(row.variant, {}))
            if row.variant in timings
            else row
            for row in rows
        ]

    def _training(self, plan: Plan, setup: Setup) -> list[Row]:
        x = self.x.clone().requires_grad_(self.needs_input_gradient)
        calls: dict[str, Callable[[], None]] = {}
        facts: dict[str, dict[str, float]] = {}
        reasons: dict[str, str] = {}
        for variant, module in self.modules.items():
            if not isinstance(module, nn.Module):
                continue
            step = _Step(variant, module.train(), x, plan, setup)
            reasons[variant] = why_not(step)
            if not reasons[variant]:
                calls[variant] = step
                facts[variant] = step.memory()
        timings = race(calls, plan.repeats, plan.device)
        rows = self._rows(TRAINING, plan, setup, reasons)
        return [
            replace(row, timing=timings[row.variant].times(1e3), facts=facts[row.variant])
            if row.variant in timings
            else row
            for row in rows
        ]

    def _rows(self, work: str, plan: Plan, setup: Setup, reasons: Mapping[str, str]) -> list[Row]:
        settings = {**self.settings, **setup.facts(), "work": work, "device": plan.device.type}
        return [
            Row(
                case=setup.case(f"{self.what} {work}"),
                variant=variant,
                clock=setup.clock(plan.device),
                settings=settings,
                note=module if isinstance(module, str) else reasons[variant],
            )
            for variant, module in self.modules.items()
        ]


def _forward_call(
    variant: str, module: nn.Module, x: Tensor, plan: Plan, setup: Setup
) -> Callable[[], Tensor]:
    run = within(variant, module)

    def call() -> Tensor:
        with torch.no_grad(), setup.autocast(plan.device):
            return run(x)

    return call


class _Step:
    """A forward and a backward pass of a module."""

    def __init__(
        self, variant: str, module: nn.Module, x: Tensor, plan: Plan, setup: Setup
    ) -> None:
        self._variant, self._module, self._x = variant, module, x
        self._run = within(variant, module)
        self._device, self._setup = plan.device, setup
        self._cotangent: Tensor | None = None

    def _forward(self) -> Tensor:
        with self._setup.autocast(self._device):
            return self._run(self._x)

    def __call__(self) -> None:
        out = self._forward()
        if self._cotangent is None:
            self._cotangent = torch.randn_like(out)
        if out.requires_grad:
            out.backward(self._cotangent)
        self._x.grad = None
        self._module.zero_grad(set_to_none=True)

    def memory(self) -> dict[str, float]:
        """Return what one pass keeps for its backward and what it needs at its peak, MiB."""
        facts = {}
        # Compiled graphs keep what they save out of reach of the hooks that count.
        if self._variant != COMPILED:
            there = [*self._module.parameters(), *self._module.buffers()]
            facts[SAVED] = saved_bytes(self._forward, there) / _MIB
        peak = peak_bytes(self, self._device)
        return facts if peak is None else {**facts, PEAK: peak / _MIB}


def _differences(outputs: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Return the largest difference of each output to the published one."""
    if PUBLISHED not in outputs:
        return {}
    published = outputs[PUBLISHED].float()
    return {
        name: {DIFFERENCE: float((out.float() - published).abs().max())}
        for name, out in outputs.items()
        if name not in (PUBLISHED, PLAIN)
    }
