"""The skater's body: joints, bone lengths, forward kinematics, contact with the ice.

The body frame has x to the skater's left, y up and z forward; it is right-handed. Lengths are in
metres, or in fractions of body height where a name says so.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

REFERENCE_HEIGHT = 1.65  # metres: the body height at which all radii are given


class Joint(IntEnum):
    """Joints, J = 24. The first 17 are COCO's keypoints in COCO's order."""

    NOSE = 0
    LEFT_EYE = 1
    RIGHT_EYE = 2
    LEFT_EAR = 3
    RIGHT_EAR = 4
    LEFT_SHOULDER = 5
    RIGHT_SHOULDER = 6
    LEFT_ELBOW = 7
    RIGHT_ELBOW = 8
    LEFT_WRIST = 9
    RIGHT_WRIST = 10
    LEFT_HIP = 11
    RIGHT_HIP = 12
    LEFT_KNEE = 13
    RIGHT_KNEE = 14
    LEFT_ANKLE = 15
    RIGHT_ANKLE = 16
    PELVIS = 17
    NECK = 18
    HEAD = 19
    LEFT_TOE = 20
    RIGHT_TOE = 21
    LEFT_HAND = 22
    RIGHT_HAND = 23


class Bone(IntEnum):
    """The ten bones whose directions make a pose."""

    SPINE = 0
    HEAD = 1
    LEFT_UPPER_ARM = 2
    RIGHT_UPPER_ARM = 3
    LEFT_FOREARM = 4
    RIGHT_FOREARM = 5
    LEFT_THIGH = 6
    RIGHT_THIGH = 7
    LEFT_SHIN = 8
    RIGHT_SHIN = 9


NUM_KEYPOINTS = 17  # COCO
MIRRORED_JOINTS = np.array(
    [Joint[_swap] for _swap in [j.name.translate({}) for j in Joint]], dtype=np.int64
)
