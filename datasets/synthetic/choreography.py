"""One jump in time: where the body is and how it is held, from approach to exit or fall.

Everything up to the touch-down is drawn without knowing the label, so two clips of one seed, one
landed and one fallen, are the same film until the blade meets the ice again. World frame,
right-handed: x along the boards, y up, z towards the audience's camera; origin below the take-off.
Angles in plan grow anticlockwise seen from above; angle 0 looks along z.
"""

import math
from dataclasses import dataclass

import numpy as np

from datasets.synthetic.body import (
    MIRRORED_JOINTS,
    Bone,
    Physique,
    joint_positions,
    lean_matrix,
    lowest_point,
    unit,
    yaw_matrix,
)
from datasets.synthetic.poses import DIRECTIONS, LOW_FIGURES, Pose

FPS = 12.5
GRAVITY = 9.81  # m/s2
MIN_FRAMES, MAX_FRAMES = 36, 49  # 2.9 to 3.9 s
LANDED, FALL = 0, 1

_ROTATIONS = {1.0: 0.12, 1.5: 0.12, 2.0: 0.20, 2.5: 0.18, 3.0: 0.20, 3.5: 0.08, 4.0: 0.10}
_PATH_STEP = 0.005  # seconds: how finely the path on the ice is integrated
_MIDDLE_DECELERATION = 1.0  # m/s2: between a landing's and a fall's, for the camera's guess


@dataclass(frozen=True, slots=True)
class Keyframes:
    """Poses at instants: times (K,) in seconds, directions (K, 10, 3)."""

    times: np.ndarray
    directions: np.ndarray

    def __add__(self, other: "Keyframes") -> "Keyframes":
        """Join two runs of keyframes."""
        return Keyframes(
            np.concatenate([self.times, other.times]),
            np.concatenate([self.directions, other.directions]),
        )

    @classmethod
    def draw(cls, poses: list[tuple[float, Pose]], rng: np.random.Generator) -> "Keyframes":
        """Take the named poses, each held a little differently, as no two skaters are alike."""
        directions = [
            DIRECTIONS[pose] + rng.normal(0, 0.035 if pose is Pose.AIR else 0.085, (len(Bone), 3))
            for _, pose in poses
        ]
        return cls(np.array([time for time, _ in poses]), unit(np.stack(directions)))

    def at(self, times: np.ndarray) -> np.ndarray:
        """Interpolate directions at (N,) times, easing in and out of each pose: (N, 10, 3)."""
        last = len(self.times) - 1
        index = np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, last - 1)
        span = np.maximum(self.times[index + 1] - self.times[index], 1e-4)
        weight = smoothstep((times - self.times[index]) / span)[:, None, None]
        return self.directions[index] * (1 - weight) + self.directions[index + 1] * weight


@dataclass(frozen=True, slots=True)
class Jump:
    """All that is settled before the touch-down. Times in seconds from the first frame."""

    num_frames: int
    takeoff: float
    landing: float
    apex: float  # metres
    rotations: float
    low_entry: bool  # a low figure before the jump
    keyframes: Keyframes
    speed: float  # m/s
    heading: float  # radians, at take-off
    approach_curve: float  # radians/s
    exit_curve: float
    air_tilt: np.ndarray  # (2,) radians towards x and z
    spin_error: float  # turns over or under `rotations` at the touch-down
    sway: np.ndarray  # (2, 10, 3) frequency in rad/s and phase of the small movements of each bone
    mirrored: bool  # turns clockwise and lands on the left foot

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / FPS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the label decides: everything after the touch-down."""

    label: int
    kind: str
    keyframes: Keyframes
    balance_lost: float | None  # seconds: when the arms flail
    deceleration: float  # m/s2
    brake_from: float  # seconds
    curve_factor: float  # share of the exit curve that is followed
    drift: float  # radians of unwanted turn on the ice
    spray_at: float  # seconds: when ice flies a second time, from a scraping blade or a hip


def smoothstep(x: np.ndarray) -> np.ndarray:
    """Ease from 0 to 1 for x in [0, 1], flat outside."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def draw_num_frames(rng: np.random.Generator) -> int:
    """Draw a clip's length; the first draw of a jump, so it is known without the rest."""
    return int(rng.integers(MIN_FRAMES, MAX_FRAMES + 1))


def plan_jump(rng: np.random.Generator) -> Jump:
    """Draw approach, take-off and flight."""
    num_frames = draw_num_frames(rng)
    apex = rng.uniform(0.28, 0.62)
    landing = num_frames / FPS - rng.uniform(1.15, 1.6)
    takeoff = landing - 2 * math.sqrt(2 * apex / GRAVITY)
    low_entry = bool(rng.random() < 0.35) and takeoff > 1.0
    spin_error = rng.uniform(-0.22, 0.12)
    tilt, tilt_towards = abs(rng.normal(0, 0.09)), rng.uniform(0, 2 * np.pi)
    return Jump(
        num_frames=num_frames,
        takeoff=takeoff,
        landing=landing,
        apex=apex,
        rotations=float(rng.choice(list(_ROTATIONS), p=list(_ROTATIONS.values()))),
        low_entry=low_entry,
        keyframes=Keyframes.draw(_approach(takeoff, landing, low_entry, rng), rng),
        speed=rng.uniform(3.2, 5.2),
        heading=np.pi / 2 + rng.uniform(-0.4, 0.4),
        approach_curve=rng.uniform(-0.25, 0.25),
        exit_curve=rng.uniform(0.1, 0.55),
        air_tilt=tilt * np.array([math.cos(tilt_towards), math.sin(tilt_towards)]),
        spin_error=spin_error,
        sway=np.stack(
            [rng.uniform(2, 6, (len(Bone), 3)), rng.uniform(0, 2 * np.pi, (len(Bone), 3))]
        ),
        mirrored=bool(rng.random() < 0.5),
    )


def _approach(
    takeoff: float, landing: float, low_entry: bool, rng: np.random.Generator
) -> list[tuple[float, Pose]]:
    poses = [(-0.2, Pose.GLIDE)]
    if low_entry:
        figure = LOW_FIGURES[rng.integers(len(LOW_FIGURES))]
        before = Pose.GLIDE if rng.random() < 0.5 else Pose.STROKE
        poses += [(max(0.0, takeoff - 1.3), before), (takeoff - 0.95, figure)]
        poses += [(takeoff - 0.6, figure)]
    else:
        poses += [(max(0.05, takeoff - 0.95), Pose.STROKE), (max(0.2, takeoff - 0.6), Pose.GLIDE)]
    poses += [(takeoff - 0.22, Pose.CROUCH), (takeoff + 0.01, Pose.TAKEOFF)]
    return [*poses, (takeoff + 0.13, Pose.AIR), (landing - 0.12, Pose.AIR), (landing, Pose.OPEN)]


def plan_outcome(jump: Jump, label: int, rng: np.random.Generator) -> Outcome:
    """Draw what follows the touch-down."""
    return _plan_fall(jump, rng) if label == FALL else _plan_landing(jump, rng)


def _plan_landing(jump: Jump, rng: np.random.Generator) -> Outcome:
    down = jump.landing
    kind = str(rng.choice(["clean", "low", "hand_down", "wobble"], p=[0.40, 0.28, 0.18, 0.14]))
    poses = [(down + 0.13, Pose.LAND)]
    if kind == "hand_down":
        poses += [(down + 0.32, Pose.HAND_DOWN), (down + rng.uniform(0.5, 0.7), Pose.HAND_DOWN)]
        poses += [(down + rng.uniform(0.9, 1.1), Pose.EDGE)]
    elif kind == "low":
        figure = (Pose.LUNGE, Pose.DUCK, Pose.SPIRAL)[rng.integers(3)]
        poses += [(down + 0.36, Pose.EDGE), (down + rng.uniform(0.65, 0.85), figure)]
    elif kind == "wobble":
        poses += [(down + 0.27, Pose.TRIP), (down + 0.5, Pose.LAND), (down + 0.85, Pose.EDGE)]
    else:
        poses += [(down + rng.uniform(0.4, 0.55), Pose.EDGE)]
    return Outcome(
        label=LANDED,
        kind=kind,
        keyframes=Keyframes.draw(_held(poses, jump), rng),
        balance_lost=down + 0.25 if kind == "wobble" else None,
        deceleration=rng.uniform(0.2, 1.2),
        brake_from=down,
        curve_factor=1.0,
        drift=0.0,
        spray_at=down + rng.uniform(0.3, 0.65),
    )


def _plan_fall(jump: Jump, rng: np.random.Generator) -> Outcome:
    down = jump.landing
    fallen = (Pose.SIT, Pose.SIDE, Pose.HANDS, Pose.PRONE)[
        rng.choice(4, p=[0.34, 0.28, 0.20, 0.18])
    ]
    losing = Pose.SLIP if fallen in (Pose.SIT, Pose.SIDE) else Pose.TRIP
    lost = down + rng.uniform(0.08, 0.28)
    hit = lost + rng.uniform(0.22, 0.4)
    poses = [(lost, losing), (hit, fallen)]
    if rng.random() < 0.45:
        up = hit + rng.uniform(0.35, 0.6)
        poses += [(up, fallen), (up + rng.uniform(0.4, 0.5), Pose.KNEEL)]
    return Outcome(
        label=FALL,
        kind=fallen.value,
        keyframes=Keyframes.draw(_held(poses, jump), rng),
        balance_lost=down + 0.25,
        deceleration=rng.uniform(1.0, 2.4),
        brake_from=hit - 0.15,
        curve_factor=rng.uniform(0.2, 0.7),
        drift=rng.uniform(-1.4, 1.4),
        spray_at=hit,
    )


def _held(poses: list[tuple[float, Pose]], jump: Jump) -> list[tuple[float, Pose]]:
    """Keep the last pose until after the clip's end."""
    time, pose = poses[-1]
    return [*poses, (max(time + 0.1, jump.duration + 0.3), pose)]


def perform(jump: Jump, outcome: Outcome, physique: Physique, times: np.ndarray) -> np.ndarray:
    """Return (N, J, 3) world joint positions in metres at (N,) times."""
    directions = _held_directions(jump, outcome, times)
    position, heading = _travel(
        jump, times, outcome.deceleration, outcome.brake_from, outcome.curve_factor
    )
    turned = yaw_matrix(_yaw(jump, outcome, times, heading))
    leaning = lean_matrix(_lean(jump, outcome, times, heading))
    body = joint_positions(directions, physique)
    joints = body @ np.swapaxes(leaning @ turned, -1, -2)
    # Whatever is lowest (blade, hand, hip) rests on the ice; in flight it follows the parabola.
    joints[..., 1] += (flight(jump, times) - lowest_point(joints, physique.height))[:, None]
    joints[..., [0, 2]] += position[:, None]
    return mirror(joints) if jump.mirrored else joints


def mirror(joints: np.ndarray) -> np.ndarray:
    """Reflect (N, J, 3) joints in the plane x = 0, left and right swapped."""
    return joints[:, MIRRORED_JOINTS] * np.array([-1.0, 1.0, 1.0])


def flight(jump: Jump, times: np.ndarray) -> np.ndarray:
    """Return (N,) the clearance over the ice in metres: ballistic in flight, 0 elsewhere."""
    return np.maximum(0.5 * GRAVITY * (times - jump.takeoff) * (jump.landing - times), 0.0)


def foreseen_path(jump: Jump, times: np.ndarray) -> np.ndarray:
    """Return (N, 2) x and z of where the camera expects the skater: the same for both labels."""
    position, _ = _travel(jump, times, _MIDDLE_DECELERATION, jump.landing + 0.15, 0.75)
    return position * np.array([-1.0, 1.0]) if jump.mirrored else position


def _held_directions(jump: Jump, outcome: Outcome, times: np.ndarray) -> np.ndarray:
    directions = (jump.keyframes + outcome.keyframes).at(times)
    frequency, phase = jump.sway
    at = times[:, None, None]
    directions = directions + 0.03 * np.sin(at * frequency + phase)
    if outcome.balance_lost is not None:
        around = np.exp(-(((times - outcome.balance_lost) / 0.2) ** 2))
        around = around * smoothstep((times - jump.landing) / 0.1)  # never before the touch-down
        arms = slice(Bone.LEFT_UPPER_ARM, Bone.RIGHT_FOREARM + 1)
        flail = 0.35 * around[:, None, None] * np.sin(18.0 * at + phase)
        directions[:, arms] += flail[:, arms]
    return unit(directions)


def _yaw(jump: Jump, outcome: Outcome, times: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Return (N,) where the body faces. Half-turn jumps start forwards; all end backwards."""
    start, end = jump.takeoff - 0.12, jump.landing + 0.05
    share = (times - start) / (end - start)
    turns = jump.rotations + jump.spin_error
    turned = 0.65 * np.clip(share, 0, 1) + 0.35 * smoothstep(share)
    backwards = 0.0 if jump.rotations % 1 else np.pi
    after = times - end
    settled = -jump.spin_error * (1 - outcome.label) * smoothstep(after / 0.3)
    return (
        heading
        + backwards
        + 2 * np.pi * (turned * turns + settled)
        + outcome.drift * smoothstep(after / 0.5)
    )


def _lean(jump: Jump, outcome: Outcome, times: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Return (N, 2): into the curve while on the ice, off the axis in the air."""
    rate = np.where(times < jump.takeoff, jump.approach_curve, jump.exit_curve)
    on_ice = 1 - smoothstep((times - jump.takeoff + 0.1) / 0.1)
    on_ice = on_ice + outcome.curve_factor * smoothstep((times - jump.landing) / 0.3)
    inwards = np.stack([np.cos(heading), -np.sin(heading)], axis=-1)  # left of the heading
    curve = np.arctan(jump.speed * rate / GRAVITY) * on_ice
    air = smoothstep((times - jump.takeoff) / (jump.landing - jump.takeoff))
    air = air * (1 - smoothstep((times - jump.landing) / 0.3))
    return inwards * curve[:, None] + jump.air_tilt * air[:, None]


def _travel(
    jump: Jump, times: np.ndarray, deceleration: float, brake_from: float, curve_factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate the path on the ice.

    Returns:
        (N, 2) x and z in metres, 0 at take-off, and (N,) headings in radians.
    """
    grid = np.arange(-0.2, jump.duration + 0.2, _PATH_STEP)
    speed = (
        jump.speed
        - 0.6 * smoothstep((grid - jump.takeoff + 0.2) / 0.2)
        - deceleration * np.maximum(grid - brake_from, 0.0)
    )
    speed = np.maximum(speed, 0.1)
    heading = (
        jump.heading
        + jump.approach_curve * np.minimum(grid - jump.takeoff, 0.0)
        + jump.exit_curve * curve_factor * np.maximum(grid - jump.landing, 0.0)
    )
    velocity = speed[:, None] * np.stack([np.sin(heading), np.cos(heading)], axis=-1)
    path = np.cumsum(velocity, axis=0) * _PATH_STEP
    columns = [np.interp(times, grid, column) for column in (*path.T, heading)]
    origin = [np.interp(jump.takeoff, grid, column) for column in path.T]
    return np.stack(columns[:2], axis=-1) - origin, columns[2]
