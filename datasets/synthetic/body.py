"""The skater's body: joints, bone lengths, forward kinematics, contact with the ice.

The body frame is right-handed: x to the skater's left, y up, z forward. Lengths are metres, or
fractions of body height where a name says so.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

REFERENCE_HEIGHT = 1.65  # metres: the body height at which all radii are given
NUM_KEYPOINTS = 17  # COCO


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

    @property
    def mirrored(self) -> "Joint":
        """The same joint of the other side; itself on the body's axis."""
        side, _, part = self.name.partition("_")
        other = {"LEFT": "RIGHT", "RIGHT": "LEFT"}.get(side)
        return Joint[f"{other}_{part}"] if other else self


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


MIRRORED_JOINTS = np.array([joint.mirrored for joint in Joint])

# Bone lengths as fractions of body height.
SPINE, NECK_TO_HEAD = 0.295, 0.108
UPPER_ARM, FOREARM, HAND = 0.168, 0.152, 0.052
THIGH, SHIN, FOOT = 0.245, 0.245, 0.098
SHOULDER_DROP = 0.022  # shoulders sit this far below the neck
HEAD_RADIUS = 0.056

# Radii of the spheres that touch the ice, metres at REFERENCE_HEIGHT. The ankle's is the height of
# boot and blade. Toes and face are small: heel, head and hands meet the ice before them.
_CONTACT_RADIUS = {
    Joint.PELVIS: 0.125,
    Joint.NECK: 0.09,
    Joint.HEAD: 0.105,
    Joint.LEFT_SHOULDER: 0.07,
    Joint.LEFT_ELBOW: 0.045,
    Joint.LEFT_WRIST: 0.035,
    Joint.LEFT_HAND: 0.03,
    Joint.LEFT_HIP: 0.11,
    Joint.LEFT_KNEE: 0.06,
    Joint.LEFT_ANKLE: 0.10,
    Joint.LEFT_TOE: 0.06,
}
CONTACT_RADIUS = np.array(
    [_CONTACT_RADIUS.get(j, _CONTACT_RADIUS.get(j.mirrored, 0.02)) for j in Joint]
)


@dataclass(frozen=True, slots=True)
class Physique:
    """What differs between bodies: height in metres, half widths as fractions of it."""

    height: float
    hip_half_width: float
    shoulder_half_width: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Physique":
        """Draw a grown skater."""
        return cls(rng.uniform(1.5, 1.8), rng.uniform(0.047, 0.056), rng.uniform(0.086, 0.105))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale (..., 3) vectors to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def joint_positions(directions: np.ndarray, physique: Physique) -> np.ndarray:
    """Build the body from its bone directions.

    Args:
        directions: (N, 10, 3) unit vectors in the body frame, indexed by `Bone`.
        physique: height and widths.

    Returns:
        (N, J, 3) joint positions in metres, body frame, pelvis at the origin.
    """
    height = physique.height
    left = np.array([1.0, 0.0, 0.0])
    spine = directions[:, Bone.SPINE]
    shoulder_axis = unit(left - spine * (spine @ left)[:, None])
    hip_axis = unit(0.6 * left + 0.4 * shoulder_axis)

    joints = np.zeros((len(directions), len(Joint), 3))
    joints[:, Joint.NECK] = spine * SPINE * height
    joints[:, Joint.HEAD] = joints[:, Joint.NECK] + directions[:, Bone.HEAD] * NECK_TO_HEAD * height
    for side, sign in ((0, 1.0), (1, -1.0)):  # left, right: neighbours in Joint and in Bone
        shoulder = (
            joints[:, Joint.NECK]
            + sign * shoulder_axis * physique.shoulder_half_width * height
            - spine * SHOULDER_DROP * height
        )
        forearm = directions[:, Bone.LEFT_FOREARM + side]
        shin = directions[:, Bone.LEFT_SHIN + side]
        elbow = shoulder + directions[:, Bone.LEFT_UPPER_ARM + side] * UPPER_ARM * height
        hip = sign * hip_axis * physique.hip_half_width * height
        knee = hip + directions[:, Bone.LEFT_THIGH + side] * THIGH * height
        joints[:, Joint.LEFT_SHOULDER + side] = shoulder
        joints[:, Joint.LEFT_ELBOW + side] = elbow
        joints[:, Joint.LEFT_WRIST + side] = elbow + forearm * FOREARM * height
        joints[:, Joint.LEFT_HAND + side] = elbow + forearm * (FOREARM + HAND) * height
        joints[:, Joint.LEFT_HIP + side] = hip
        joints[:, Joint.LEFT_KNEE + side] = knee
        joints[:, Joint.LEFT_ANKLE + side] = knee + shin * SHIN * height
        joints[:, Joint.LEFT_TOE + side] = (
            joints[:, Joint.LEFT_ANKLE + side] + _foot_direction(shin) * FOOT * height
        )
    _place_face(joints, directions[:, Bone.HEAD], height)
    return joints


def _foot_direction(shin: np.ndarray) -> np.ndarray:
    """Return (N, 3) ankle-to-toe directions: at right angles to an upright shin.

    The foot turns with the shin about the body's left axis, and points its toe as the shin leaves
    the vertical, as a skater's free leg does.
    """
    ahead = unit(np.cross(shin, [1.0, 0.0, 0.0]))
    point = 0.3 + 1.0 * (1.0 - np.abs(shin[:, 1:2])) ** 2
    return unit(ahead + point * shin)


def _place_face(joints: np.ndarray, head: np.ndarray, height: float) -> None:
    """Fill nose, eyes and ears of `joints` (N, J, 3) from the head's direction (N, 3)."""
    left = np.array([1.0, 0.0, 0.0])
    across = unit(left - head * (head @ left)[:, None])
    ahead = np.cross(across, head)
    centre, radius = joints[:, Joint.HEAD], HEAD_RADIUS * height
    joints[:, Joint.NOSE] = centre + radius * (1.05 * ahead - 0.25 * head)
    for side, sign in ((0, 1.0), (1, -1.0)):
        joints[:, Joint.LEFT_EYE + side] = centre + radius * (
            0.87 * ahead + sign * 0.4 * across + 0.12 * head
        )
        joints[:, Joint.LEFT_EAR + side] = centre + radius * (sign * 0.98 * across - 0.05 * head)


def lowest_point(joints: np.ndarray, height: float) -> np.ndarray:
    """Return (N,) the height of the lowest contact sphere of (N, J, 3) joints, metres."""
    radius = CONTACT_RADIUS * (height / REFERENCE_HEIGHT)
    return (joints[..., 1] - radius).min(axis=-1)


def yaw_matrix(yaw: np.ndarray) -> np.ndarray:
    """Return (N, 3, 3) rotations about the vertical; positive is anticlockwise from above."""
    cos, sin, zero = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)
    rows = [[cos, zero, sin], [zero, zero + 1, zero], [-sin, zero, cos]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def lean_matrix(lean: np.ndarray) -> np.ndarray:
    """Return (N, 3, 3) rotations that tip the vertical over.

    Args:
        lean: (N, 2) world x and z components; direction says where the head goes, length the
            angle in radians.
    """
    angle = np.linalg.norm(lean, axis=-1)
    x, z = (lean / np.maximum(angle, 1e-9)[:, None]).T
    zero = np.zeros_like(x)
    # Rodrigues' formula about the horizontal axis (z, 0, -x).
    cross = np.stack(
        [
            np.stack([zero, x, zero], axis=-1),
            np.stack([-x, zero, -z], axis=-1),
            np.stack([zero, z, zero], axis=-1),
        ],
        axis=-2,
    )
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sin * cross + (1 - cos) * (cross @ cross)
