"""Named poses of a skater who turns anticlockwise and lands on the right foot.

A pose is ten bone directions (left, up, forward) in the body frame. They are written by eye and
normalised here, so a length other than 1 is no mistake.
"""

from enum import Enum

import numpy as np

from datasets.synthetic.body import Bone, unit

Direction = tuple[float, float, float]
Limb = tuple[Direction, Direction]  # upper arm and forearm, or thigh and shin


class Pose(Enum):
    """What the body does, from the approach to the ice or the exit edge."""

    # Approach, jump and landing.
    GLIDE = "glide"
    STROKE = "stroke"
    CROUCH = "crouch"
    TAKEOFF = "takeoff"
    AIR = "air"
    OPEN = "open"
    LAND = "land"
    EDGE = "edge"
    # Low figures that are no falls.
    DUCK = "duck"
    LUNGE = "lunge"
    SPIRAL = "spiral"
    HAND_DOWN = "hand_down"
    # Losing balance, then the ice.
    SLIP = "slip"
    TRIP = "trip"
    SIT = "sit"
    SIDE = "side"
    HANDS = "hands"
    PRONE = "prone"
    KNEEL = "kneel"


LOW_FIGURES = (Pose.DUCK, Pose.LUNGE, Pose.SPIRAL, Pose.HAND_DOWN)

_ARMS_WIDE: tuple[Limb, Limb] = (
    ((0.95, 0.02, 0.25), (0.93, 0.1, 0.35)),
    ((-0.95, 0.05, -0.12), (-0.95, 0.14, 0.05)),
)


def _mirrored(limb: Limb) -> Limb:
    (ax, ay, az), (bx, by, bz) = limb
    return (-ax, ay, az), (-bx, by, bz)


def _both(limb: Limb) -> tuple[Limb, Limb]:
    """Give the right side the left side's mirror image."""
    return limb, _mirrored(limb)


def _pose(
    spine: Direction, head: Direction, arms: tuple[Limb, Limb], legs: tuple[Limb, Limb]
) -> np.ndarray:
    """Return (10, 3) unit directions; `arms` and `legs` are (left, right)."""
    directions = np.empty((len(Bone), 3))
    directions[Bone.SPINE], directions[Bone.HEAD] = spine, head
    for side in (0, 1):
        directions[Bone.LEFT_UPPER_ARM + side], directions[Bone.LEFT_FOREARM + side] = arms[side]
        directions[Bone.LEFT_THIGH + side], directions[Bone.LEFT_SHIN + side] = legs[side]
    return unit(directions)


DIRECTIONS: dict[Pose, np.ndarray] = {
    Pose.GLIDE: _pose(
        spine=(0, 1, 0.1),
        head=(0, 1, 0.12),
        arms=_both(((0.8, -0.55, 0.12), (0.85, -0.25, 0.3))),
        legs=(((0.05, -1, 0.28), (0.02, -1, -0.22)), ((-0.1, -1, 0.06), (-0.05, -1, -0.28))),
    ),
    Pose.STROKE: _pose(
        spine=(0.05, 0.95, 0.34),
        head=(0, 1, 0.2),
        arms=(((0.75, -0.5, 0.5), (0.5, -0.1, 0.85)), ((-0.8, -0.45, -0.4), (-0.8, -0.15, -0.5))),
        legs=(((0.05, -0.86, 0.52), (0, -0.92, -0.4)), ((-0.42, -0.82, -0.4), (-0.4, -0.8, -0.5))),
    ),
    Pose.CROUCH: _pose(
        spine=(0, 0.92, 0.42),
        head=(0, 1, 0.25),
        arms=(((0.55, -0.55, 0.6), (0.3, -0.2, 0.9)), ((-0.65, -0.5, -0.5), (-0.6, -0.3, -0.7))),
        legs=(((0.08, -0.72, 0.7), (0, -0.82, -0.58)), ((-0.14, -0.8, -0.5), (-0.1, -0.6, -0.8))),
    ),
    Pose.TAKEOFF: _pose(
        spine=(0, 1, 0.06),
        head=(0, 1, 0.14),
        arms=_both(((0.45, 0.0, 0.85), (-0.15, 0.55, 0.75))),
        legs=(((0.05, -1, 0.14), (0, -1, -0.06)), ((-0.06, -0.62, 0.78), (0, -0.98, -0.25))),
    ),
    Pose.AIR: _pose(
        spine=(0, 1, 0.02),
        head=(0.08, 1, 0.08),
        arms=(((0.32, -0.85, 0.4), (-0.72, 0.42, 0.5)), ((-0.32, -0.85, 0.4), (0.72, 0.22, 0.6))),
        legs=(((-0.17, -1, 0.14), (-0.14, -1, 0.04)), ((0.12, -1, -0.03), (0.16, -1, -0.1))),
    ),
    Pose.OPEN: _pose(
        spine=(0, 1, 0.16),
        head=(0, 1, 0.12),
        arms=_both(((0.8, -0.4, 0.4), (0.65, 0, 0.7))),
        legs=(((0.2, -0.8, 0.5), (0.1, -0.97, -0.1)), ((-0.02, -0.95, 0.28), (0, -1, -0.14))),
    ),
    Pose.LAND: _pose(
        spine=(0.02, 0.9, 0.42),
        head=(0, 1, 0.14),
        arms=_ARMS_WIDE,
        legs=(((0.3, -0.6, -0.7), (0.2, -0.35, -0.9)), ((-0.02, -0.8, 0.62), (0, -0.86, -0.5))),
    ),
    Pose.EDGE: _pose(
        spine=(0.02, 0.95, 0.32),
        head=(0, 1, 0.02),
        arms=_ARMS_WIDE,
        legs=(((0.26, -0.3, -0.9), (0.16, -0.04, -1)), ((-0.02, -0.96, 0.3), (0, -0.97, -0.26))),
    ),
    Pose.DUCK: _pose(
        spine=(0, 0.82, 0.6),
        head=(0, 0.97, 0.25),
        arms=_both(((0.35, -0.25, 0.9), (0.1, -0.12, 0.97))),
        legs=(((0.08, -0.06, 1), (0.05, -0.1, 1)), ((-0.08, -0.1, 1), (0, -0.86, -0.52))),
    ),
    Pose.LUNGE: _pose(
        spine=(0, 0.98, 0.12),
        head=(0, 1, 0),
        arms=_both(((0.9, 0.2, 0.05), (0.9, 0.32, 0.1))),
        legs=(((0.1, -0.55, -0.83), (0.05, -0.22, -0.97)), ((-0.1, -0.25, 0.96), (0, -1, -0.04))),
    ),
    Pose.SPIRAL: _pose(
        spine=(0, 0.34, 0.94),
        head=(0, 0.72, 0.69),
        arms=_both(((0.92, 0.16, 0.22), (0.94, 0.22, 0.12))),
        legs=(((0.08, 0.3, -0.95), (0.04, 0.36, -0.93)), ((-0.02, -1, 0.05), (0, -1, -0.03))),
    ),
    Pose.HAND_DOWN: _pose(
        spine=(-0.28, 0.55, 0.8),
        head=(0, 0.8, 0.55),
        arms=(((0.9, 0.35, -0.05), (0.88, 0.45, 0.05)), ((-0.3, -0.93, 0.22), (-0.12, -1, 0.15))),
        legs=(((0.34, -0.5, -0.8), (0.2, -0.22, -0.95)), ((-0.08, -0.35, 0.93), (0, -0.88, -0.45))),
    ),
    Pose.SLIP: _pose(
        spine=(0.1, 0.85, -0.45),
        head=(0, 1, 0.15),
        arms=(((0.8, 0.4, 0.2), (0.6, 0.75, 0.25)), ((-0.85, 0.2, 0.2), (-0.6, 0.6, 0.45))),
        legs=(((0.25, -0.4, 0.85), (0.15, -0.5, 0.82)), ((-0.1, -0.7, 0.7), (0, -0.85, 0.35))),
    ),
    Pose.TRIP: _pose(
        spine=(0.06, 0.72, 0.68),
        head=(0, 0.9, 0.4),
        arms=(((0.5, -0.2, 0.85), (0.3, -0.3, 0.9)), ((-0.5, -0.1, 0.85), (-0.3, -0.25, 0.92))),
        legs=(((0.15, -0.8, -0.5), (0.1, -0.5, -0.85)), ((-0.08, -0.82, 0.55), (0, -0.62, -0.78))),
    ),
    Pose.SIT: _pose(
        spine=(0, 0.78, -0.6),
        head=(0, 0.97, 0.05),
        arms=_both(((0.42, -0.8, -0.5), (0.25, -0.94, -0.3))),
        legs=(((0.22, 0.42, 0.88), (0.12, -0.62, 0.78)), ((-0.25, 0.04, 0.97), (-0.12, -0.03, 1))),
    ),
    Pose.SIDE: _pose(
        spine=(-0.66, 0.68, -0.3),
        head=(-0.25, 0.95, 0.1),
        arms=(((0.3, -0.7, 0.6), (-0.15, -0.5, 0.85)), ((-0.5, -0.85, -0.1), (-0.4, -0.9, 0.1))),
        legs=(((0.3, 0.14, 0.95), (0.35, -0.5, 0.75)), ((0.1, -0.04, 1), (0.55, -0.05, 0.8))),
    ),
    Pose.HANDS: _pose(
        spine=(0, 0.26, 0.96),
        head=(0, 0.5, 0.85),
        arms=_both(((0.2, -0.96, 0.16), (0.08, -1, 0.08))),
        legs=(((0.16, -1, -0.16), (0.05, 0.16, -1)), ((-0.14, -1, 0.12), (-0.05, 0.16, -1))),
    ),
    Pose.PRONE: _pose(
        spine=(0, 0.14, 0.99),
        head=(0, 0.5, 0.86),
        arms=(((0.5, -0.25, 0.85), (0.05, -0.12, 1)), ((-0.55, -0.25, 0.8), (-0.1, -0.12, 1))),
        legs=(((0.2, -0.12, -0.97), (0.1, 0.22, -1)), ((-0.2, -0.12, -0.97), (-0.1, 0.4, -0.95))),
    ),
    Pose.KNEEL: _pose(
        spine=(0, 0.92, 0.38),
        head=(0, 0.97, 0.24),
        arms=(((0.25, -0.8, 0.5), (-0.15, -0.55, 0.8)), ((-0.35, -0.92, 0.15), (-0.12, -0.9, 0.4))),
        legs=(((0.14, -0.12, 0.98), (0, -1, -0.1)), ((-0.1, -1, 0.02), (0, 0.2, -1))),
    ),
}
