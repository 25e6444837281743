"""The camera and what stands still before it: ice, boards and crowd.

The operator follows where the skater was expected to go, not where the body goes: the picture
behind the skater must not tell a fall from a landing.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from datasets.synthetic.choreography import Jump, flight, foreseen_path
from datasets.synthetic.textures import (
    ICE_FAR,
    ICE_HALF_LENGTH,
    WALL_HALF_LENGTH,
    WALL_HEIGHT,
    Rink,
)

_FOLLOW_LAG = 0.35  # seconds: the operator smooths the skater's path over this time
_NEAREST = 0.5  # metres: nothing is projected from closer, so far outside points stay finite


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera on a tripod, at N instants. Pixel centres have whole coordinates.

    Attributes:
        position: (3,) metres.
        rotation: (N, 3, 3), rows right, down, forward in the world.
        focal: (N,) pixels.
        pan_speed: (N,) pixels per second by which the far background moves sideways.
        centre: (2,) pixels, where the axis meets the picture.
        size: width, height in pixels.
    """

    position: np.ndarray
    rotation: np.ndarray
    focal: np.ndarray
    pan_speed: np.ndarray
    centre: np.ndarray
    size: tuple[int, int]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map (N, P, 3) world points to (N, P, 2) pixels and (N, P) depths in metres."""
        seen = (points - self.position) @ np.swapaxes(self.rotation, -1, -2)
        depth = np.maximum(seen[..., 2], _NEAREST)
        scale = self.focal[:, None, None] / depth[..., None]
        return seen[..., :2] * scale + self.centre, depth

    def plane_to_pixels(
        self, index: int, origin: np.ndarray, across: np.ndarray, along: np.ndarray
    ) -> np.ndarray:
        """Return (3, 3): (u, v) on the plane origin + u across + v along to pixels."""
        focal, (cx, cy) = self.focal[index], self.centre
        intrinsic = np.array([[focal, 0.0, cx], [0.0, focal, cy], [0.0, 0.0, 1.0]])
        plane = np.stack([across, along, origin - self.position], axis=-1)
        return intrinsic @ self.rotation[index] @ plane

    def take(self, instants: np.ndarray) -> "Camera":
        """Return the camera at some of its instants only."""
        return replace(
            self,
            rotation=self.rotation[instants],
            focal=self.focal[instants],
            pan_speed=self.pan_speed[instants],
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """A camera and the rink before it."""

    camera: Camera
    wall_z: float


def plan_scene(
    jump: Jump, size: tuple[int, int], times: np.ndarray, rng: np.random.Generator
) -> Scene:
    """Place camera and boards so that the expected path fits; knows nothing of the label.

    Args:
        jump: gives the path that the operator expects.
        size: width, height in pixels.
        times: (N,) seconds, evenly spaced.
        rng: draws distance, height, framing, zoom and the unsteady hand.
    """
    width, height = size
    path = foreseen_path(jump, times)
    position = np.array([rng.uniform(-3, 3), rng.uniform(1.6, 3.6), rng.uniform(9.5, 14.0)])
    wall_z = min(-rng.uniform(4.5, 7.0), path[:, 1].min() - 1.5)

    target = np.empty((len(times), 3))
    target[:, [0, 2]] = _smooth(path, times)
    target[:, 1] = 0.8 + 0.6 * _smooth(flight(jump, times)[:, None], times)[:, 0]
    towards = target - position
    distance = np.linalg.norm(towards, axis=1)

    shake = np.cumsum(rng.normal(0, 1, (len(times), 2)), axis=0)
    shake = _smooth(shake, times) * 0.004 * np.sqrt(times[1] - times[0])
    yaw = np.arctan2(towards[:, 0], -towards[:, 2]) + shake[:, 0]
    pitch = np.arctan2(towards[:, 1], np.hypot(towards[:, 0], towards[:, 2])) + shake[:, 1]
    zoom = 1 + rng.uniform(-0.1, 0.1) * np.linspace(-1, 1, len(times))
    # A skater of 1.75 m fills this share of the picture's height; the zoom half makes up for
    # coming closer and going away.
    share = rng.uniform(0.56, 0.76)
    at_rest = np.linalg.norm(position)
    focal = share * height * at_rest / 1.75 * zoom * np.sqrt(distance / at_rest)
    framing = rng.uniform(-1, 1, 2) * (0.10, 0.035) * np.array(size)
    return Scene(
        camera=Camera(
            position=position,
            rotation=_look(yaw, pitch),
            focal=focal,
            pan_speed=np.abs(np.gradient(yaw, times)) * focal,
            centre=(np.array(size) - 1) / 2 + framing,
            size=(width, height),
        ),
        wall_z=wall_z,
    )


def _smooth(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Low-pass the columns of (N, C) values with a Hann window of the operator's lag."""
    half = max(1, int(_FOLLOW_LAG / (times[1] - times[0])))
    window = np.hanning(2 * half + 3)[1:-1]
    window /= window.sum()
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, window, "valid") for column in padded.T], axis=-1)


def _look(yaw: np.ndarray, pitch: np.ndarray) -> np.ndarray:
    """Return (N, 3, 3) rotations, rows right, down, forward; yaw 0 looks along -z."""
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = np.sin(yaw), np.cos(yaw), np.sin(pitch), np.cos(pitch)
    forward = np.stack([sin_yaw * cos_pitch, sin_pitch, -cos_yaw * cos_pitch], axis=-1)
    right = np.stack([cos_yaw, np.zeros_like(yaw), sin_yaw], axis=-1)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def render_background(scene: Scene, rink: Rink, index: int, exposure: float) -> np.ndarray:
    """Draw ice, boards and crowd at instant `index`: (H, W, 3) uint8.

    Args:
        scene: camera and place of the boards.
        rink: textures.
        index: instant of the camera.
        exposure: seconds that the shutter is open, for the blur of panning.
    """
    camera = scene.camera
    ice = _warp(
        rink.ice,
        camera.plane_to_pixels(
            index,
            origin=np.array([-ICE_HALF_LENGTH, 0.0, ICE_FAR]),
            across=np.array([1.0, 0.0, 0.0]) / rink.ice_scale,
            along=np.array([0.0, 0.0, 1.0]) / rink.ice_scale,
        ),
        camera.size,
    )
    wall = _warp(
        rink.wall,
        camera.plane_to_pixels(
            index,
            origin=np.array([-WALL_HALF_LENGTH, WALL_HEIGHT, scene.wall_z]),
            across=np.array([1.0, 0.0, 0.0]) / rink.wall_scale,
            along=np.array([0.0, -1.0, 0.0]) / rink.wall_scale,
        ),
        camera.size,
    )
    alpha = wall[..., 3:].astype(np.uint16)
    picture = ((ice * (255 - alpha) + wall[..., :3] * alpha) // 255).astype(np.uint8)
    blur = round(float(camera.pan_speed[index]) * exposure)
    return cv2.blur(picture, (blur, 1)) if blur >= 2 else picture


def _warp(texture: np.ndarray, homography: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpPerspective(
        texture, homography, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
