"""Heatmap volumes of joints and limbs, against a loop over all that is drawn."""

import numpy as np
import torch
from torch import Tensor

from benchmarks.published_skeletons import looped_volumes
from measuring.plan import Plan, Setup
from measuring.record import Row, Section
from measuring.variants import PUBLISHED
from measuring.zoo import (
    OURS,
    VOLUME,
    Shape,
    apart,
    moving_joints,
    one_layout,
    race_ways,
    settings_of,
    shape_of,
)
from ops.heatmap import joint_volumes, limb_volumes
from ops.skeleton import COCO17

JOINTS, LIMBS = "joint volumes", "limb volumes"


def measure_volumes(plan: Plan) -> Section:
    """Time heatmap volumes against a loop over clips, frames, joints and people."""
    section = Section(
        name="volumes",
        title="Heatmap volumes of two people",
        peer=PUBLISHED,
        notes=["published draws one joint or limb of one person in one frame at a time, by NumPy"],
    )
    shape = shape_of(plan, VOLUME)
    for setup in one_layout(plan).setups(shape.clips):
        for what, limbs in ((JOINTS, None), (LIMBS, COCO17.limbs)):
            plan.progress(setup.case(what))
            section.rows += _draw(plan, setup, shape, what, limbs)
    return section


def _draw(
    plan: Plan,
    setup: Setup,
    shape: Shape,
    what: str,
    limbs: tuple[tuple[int, int], ...] | None,
) -> list[Row]:
    """Return the rows of one kind of volumes."""
    size = (shape.side, shape.side)
    joints = moving_joints(shape, setup.batch, shape.side)
    skeletons = torch.from_numpy(joints).to(plan.device)

    def ours() -> Tensor:
        if limbs is None:
            return joint_volumes(skeletons, size)
        return limb_volumes(skeletons, limbs, size)

    def published() -> np.ndarray:
        return looped_volumes(joints, limbs, size)

    odd = apart(ours().cpu(), torch.from_numpy(published()))
    row = Row(
        case=setup.case(f"{what}, {setup.batch} clips of {shape.text()}"),
        variant=OURS,
        clock=setup.clock(plan.device),
        settings={"what": what, **settings_of(plan, setup)},
    )
    calls = {PUBLISHED: published, OURS: ours}
    return race_ways(plan, row, setup.batch, calls, {PUBLISHED: odd})
