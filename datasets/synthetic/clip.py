"""One clip from its seed: first the motion and its keypoints, then, if wanted, the pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from datasets.synthetic.body import NUM_KEYPOINTS, Physique
from datasets.synthetic.choreography import (
    FPS,
    Jump,
    Outcome,
    perform,
    plan_jump,
    plan_outcome,
)
from datasets.synthetic.detector import detect
from datasets.synthetic.scene import Camera, Scene, plan_scene, render_background
from datasets.synthetic.skater import (
    Box,
    Look,
    Projection,
    Solids,
    bounding_box,
    build_solids,
    draw_flat,
    draw_skater,
    project_solids,
)
from datasets.synthetic.textures import POOL_SIZE, load_rink

Seed = int | Sequence[int]

EXPOSURE = 0.024  # seconds that the shutter is open
_STEPS = 40  # instants per frame interval on the fine time grid
_OPEN_STEPS = 13  # of these, the ones while the shutter is open, and the most that are averaged
_SPRAY = (10, 18, 18)  # grains of ice at take-off, touch-down and after; the same for both labels
_SPRAY_SECONDS = 0.4
_LAMP_SLANT = np.array([0.28, -0.22])  # metres that a shadow moves in x and z per metre of height


class Stream(IntEnum):
    """Independent sources of chance, so that no aspect of a clip shifts another's draws."""

    PHYSIQUE = 0
    JUMP = 1
    OUTCOME = 2
    SCENE = 3
    LOOK = 4
    PICTURE = 5
    DETECTOR = 6
    SPRAY = 7


@dataclass(frozen=True, slots=True)
class SimulatedClip:
    """A clip without pixels: the motion of N frames and what a camera makes of it.

    Attributes:
        seed: what it was drawn from.
        label: 0 landed, 1 fall.
        jump: everything up to the touch-down.
        outcome: everything after it.
        physique: the body.
        joints: (N, J, 3) metres in the world, at the middle of each exposure.
        keypoints_exact: (N, 17, 3) float32 x, y in pixels from the picture's upper left corner,
            and 1 inside the picture, else 0.
        keypoints: (N, 17, 3) float32, as a pose estimator finds them; 0, 0, 0 where missing.
        scene: camera at N frames and the boards.
        open_shutter: camera at N * S instants while the shutter is open.
        open_joints: (N * S, J, 3) joints at these instants.
    """

    seed: Seed
    label: int
    jump: Jump
    outcome: Outcome
    physique: Physique
    joints: np.ndarray
    keypoints_exact: np.ndarray
    keypoints: np.ndarray
    scene: Scene
    open_shutter: Camera
    open_joints: np.ndarray


@dataclass(frozen=True, slots=True)
class RenderedClip:
    """A clip with its pixels: `frames` (N, H, W, 3) uint8 RGB; the rest as in `facts`."""

    frames: np.ndarray
    keypoints_exact: np.ndarray
    keypoints: np.ndarray
    label: int
    facts: SimulatedClip


def stream(seed: Seed, which: Stream) -> np.random.Generator:
    """Return the generator of one aspect of one clip."""
    parts = [seed] if isinstance(seed, int) else list(seed)
    return np.random.default_rng([*parts, int(which)])


def simulate_clip(size: tuple[int, int], seed: Seed, label: int) -> SimulatedClip:
    """Move the body and the camera, and find the keypoints; draws no picture.

    Args:
        size: width, height in pixels.
        seed: one number or several; clips of one seed and both labels are alike up to landing.
        label: 0 landed, 1 fall.
    """
    jump = plan_jump(stream(seed, Stream.JUMP))
    outcome = plan_outcome(jump, label, stream(seed, Stream.OUTCOME))
    physique = Physique.draw(stream(seed, Stream.PHYSIQUE))
    fine = np.arange(jump.num_frames * _STEPS) - _OPEN_STEPS // 2
    fine_times = fine / (FPS * _STEPS)
    scene = plan_scene(jump, size, fine_times, stream(seed, Stream.SCENE))
    first = np.arange(jump.num_frames) * _STEPS
    instants = (first[:, None] + np.arange(_OPEN_STEPS)).ravel()
    middle = np.arange(jump.num_frames) * _OPEN_STEPS + _OPEN_STEPS // 2

    open_joints = perform(jump, outcome, physique, fine_times[instants])
    open_shutter = scene.camera.take(instants)
    camera, joints = open_shutter.take(middle), open_joints[middle]
    pixels, depth = camera.project(joints[:, :NUM_KEYPOINTS])
    pixels += 0.5  # a keypoint's coordinates start at the picture's corner, not in a pixel's centre
    inside = ((pixels > 0) & (pixels < np.array(size))).all(axis=-1, keepdims=True)
    body_height = camera.focal * physique.height / depth.mean(axis=1)
    return SimulatedClip(
        seed=seed,
        label=label,
        jump=jump,
        outcome=outcome,
        physique=physique,
        joints=joints,
        keypoints_exact=np.concatenate([pixels, inside], axis=-1).astype(np.float32),
        keypoints=detect(
            pixels, body_height, round(jump.landing * FPS), size, stream(seed, Stream.DETECTOR)
        ),
        scene=Scene(camera=camera, wall_z=scene.wall_z),
        open_shutter=open_shutter,
        open_joints=open_joints,
    )


def render_clip(
    size: tuple[int, int], seed: Seed, label: int, *, rink_seed: int = 0, noise: bool = True
) -> RenderedClip:
    """Simulate a clip and draw its frames.

    Args:
        size: width, height in pixels.
        seed: one number or several; the whole clip follows from it and the label.
        label: 0 landed, 1 fall.
        rink_seed: the pool of rinks to draw from; clips of one data set share it.
        noise: add the sensor's noise.
    """
    clip = simulate_clip(size, seed, label)
    rng = stream(seed, Stream.PICTURE)
    rink = load_rink(rink_seed, int(rng.integers(POOL_SIZE)), detail=1 if size[1] < 150 else 2)
    gain = rng.uniform(0.8, 1.08) * rng.uniform(0.95, 1.05, 3)
    grain = rng.uniform(1, 4.5) if noise else 0.0
    look = Look.draw(stream(seed, Stream.LOOK))
    solids = build_solids(clip.open_joints, clip.physique.height, look)
    views = _Views.of(solids, clip)
    grains = _spray(clip, stream(seed, Stream.SPRAY))

    frames = np.empty((clip.jump.num_frames, size[1], size[0], 3), np.uint8)
    for index in range(clip.jump.num_frames):
        picture = render_background(clip.scene, rink, index, EXPOSURE)
        _draw_mirror_image(picture, solids, views.reflected, index)
        _draw_shadow(picture, clip, views.shadow, index)
        draw_skater(picture, solids, views.exposed(index))
        _draw_spray(picture, clip.scene.camera, grains, index)
        frames[index] = _expose(picture, gain, grain, rng)
    return RenderedClip(frames, clip.keypoints_exact, clip.keypoints, label, clip)


@dataclass(frozen=True, slots=True)
class _Views:
    """The skater's solids seen directly (N * S instants), in the ice and as a shadow (N)."""

    direct: Projection
    reflected: Projection
    shadow: Projection

    @classmethod
    def of(cls, solids: Solids, clip: SimulatedClip) -> "_Views":
        middle = np.arange(clip.jump.num_frames) * _OPEN_STEPS + _OPEN_STEPS // 2
        camera = clip.scene.camera
        at_frames = solids.take(middle)
        return cls(
            direct=project_solids(solids, clip.open_shutter),
            reflected=project_solids(at_frames.mirrored(), camera),
            shadow=project_solids(at_frames.flattened(_LAMP_SLANT), camera),
        )

    def exposed(self, index: int) -> Projection:
        """Return as many instants of a frame's exposure as its motion needs to look smooth."""
        instants = index * _OPEN_STEPS + np.arange(_OPEN_STEPS)
        ends = self.direct.ends[instants]
        moved = float(np.abs(ends[-1] - ends[0]).max())
        count = int(np.clip(np.ceil(moved / 1.4), 1, _OPEN_STEPS))
        if count == 1:
            return self.direct.take(instants[_OPEN_STEPS // 2 : _OPEN_STEPS // 2 + 1])
        return self.direct.take(
            instants[np.linspace(0, _OPEN_STEPS - 1, count).round().astype(int)]
        )


def _draw_mirror_image(
    picture: np.ndarray, solids: Solids, reflected: Projection, index: int
) -> None:
    """Let the ice reflect the skater, blurred and faint."""
    view = reflected.take(np.array([index]))
    height, width = picture.shape[:2]
    blur = height / 75
    box = bounding_box(view, (width, height), margin=3 * blur)
    if box is None:
        return
    patch = picture[box]
    mirrored = patch.copy()
    draw_flat(mirrored, view.moved(_corner(box)), 0, 0.85 * solids.colours)
    picture[box] = cv2.addWeighted(patch, 0.78, cv2.GaussianBlur(mirrored, (0, 0), blur), 0.22, 0)


def _draw_shadow(picture: np.ndarray, clip: SimulatedClip, shadow: Projection, index: int) -> None:
    """Darken the ice below the skater; the higher, the softer."""
    view = shadow.take(np.array([index]))
    height, width = picture.shape[:2]
    camera = clip.scene.camera
    metre = float(camera.focal[index] / view.depth.mean())
    altitude = float(np.clip(clip.joints[index, :, 1].min() - 0.05, 0, 1))
    blur = (0.05 + 0.1 * altitude) * metre
    box = bounding_box(view, (width, height), margin=3 * blur)
    if box is None:
        return
    patch = picture[box]
    mask = np.zeros(patch.shape[:2], np.uint8)
    draw_flat(mask, view.moved(_corner(box)), 0, np.full((view.ends.shape[1], 1), 255.0))
    dark = (0.42 - 0.18 * altitude) / 255 * cv2.GaussianBlur(mask, (0, 0), blur)
    picture[box] = (patch * (1 - dark[..., None])).astype(np.uint8)


def _corner(box: Box) -> np.ndarray:
    return np.array([box[1].start, box[0].start], np.float32)


@dataclass(frozen=True, slots=True)
class _Spray:
    """Grains of ice in flight: (G,) start times, (G, 3) starts and velocities."""

    times: np.ndarray
    starts: np.ndarray
    velocities: np.ndarray


def _spray(clip: SimulatedClip, rng: np.random.Generator) -> _Spray:
    """Throw up the same number of grains in every clip, where the body meets the ice."""
    instants = (clip.jump.takeoff, clip.jump.landing, clip.outcome.spray_at)
    times = np.repeat(instants, _SPRAY) + rng.uniform(0, 0.1, sum(_SPRAY))
    frames = np.clip(np.ceil(times * FPS).astype(int), 0, clip.jump.num_frames - 1)
    lowest = clip.joints[frames, clip.joints[frames, :, 1].argmin(axis=1)]
    starts = lowest * (1, 0, 1) + rng.normal(0, 1, lowest.shape) * (0.07, 0, 0.07)
    velocities = rng.normal(0, 0.5, lowest.shape)
    velocities[:, 1] = rng.uniform(0.5, 2.0, len(times))
    return _Spray(times, starts, velocities)


def _draw_spray(picture: np.ndarray, camera: Camera, grains: _Spray, index: int) -> None:
    age = index / FPS - grains.times
    at = grains.starts + grains.velocities * age[:, None]
    at[:, 1] -= 0.5 * 9.81 * age**2
    flying = (age >= 0) & (age < _SPRAY_SECONDS) & (at[:, 1] >= 0)
    if not flying.any():
        return
    pixels, depth = camera.take(np.array([index])).project(at[flying][None])
    radius = np.maximum(0.009 * camera.focal[index] / depth[0], 0.35)
    for (x, y), r in zip((pixels[0] * 16).round().astype(int).tolist(), radius, strict=True):
        cv2.circle(picture, (x, y), int(r * 16), (246.0, 249.0, 252.0), -1, cv2.LINE_AA, 4)


def _expose(
    picture: np.ndarray, gain: np.ndarray, grain: float, rng: np.random.Generator
) -> np.ndarray:
    """Apply the clip's exposure and colour cast, and the sensor's noise."""
    height, width = picture.shape[:2]
    exposed = picture * gain.astype(np.float32)
    if grain:
        coarse = rng.standard_normal((height // 2, width // 2), dtype=np.float32) * grain
        exposed += cv2.resize(coarse, (width, height))[..., None]
    return np.clip(exposed + 0.5, 0, 255).astype(np.uint8)
