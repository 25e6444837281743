"""A clean data set of clips that all differ, for planting faults in."""

from pathlib import Path

import cv2
import numpy as np

from datasets.poses import save_poses

SIZE = (96, 64)
NUM_FRAMES = 20
BODY = np.array(
    [
        (0, -22), (1, -23), (-1, -23), (2, -22), (-2, -22), (6, -16), (-6, -16), (8, -8),
        (-8, -8), (9, 0), (-9, 0), (4, 2), (-4, 2), (4, 12), (-4, 12), (4, 22), (-4, 22),
    ],
    np.float32,
)  # fmt: skip


def write_clip(folder: Path, seed: int, num_frames: int = NUM_FRAMES, size=SIZE) -> None:
    """Write frames of a place and of something that moves through it, both of the seed."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    place = cv2.resize(rng.uniform(0, 255, (5, 7, 3)).astype(np.float32), size)
    patch = cv2.resize(rng.uniform(0, 255, (3, 3, 3)).astype(np.float32), (24, 24))
    path = rng.uniform((0, 0), (size[0] - 24, size[1] - 24), (4, 2))
    for frame in range(num_frames):
        where = np.array([np.interp(3 * frame / num_frames, range(4), axis) for axis in path.T])
        left, top = where.astype(int)
        image = place.copy()
        image[top : top + 24, left : left + 24] = patch
        image += rng.normal(0, 2, image.shape)
        assert cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), np.clip(image, 0, 255))


def walker(seed: int, num_frames: int = NUM_FRAMES, size=SIZE) -> np.ndarray:
    """Return (N, 1, 17, 3) keypoints of somebody who walks through the middle of the frame."""
    rng = np.random.default_rng(seed)
    keypoints = np.ones((num_frames, 1, 17, 3), np.float32)
    keypoints[:, 0, :, :2] = BODY + np.array(size) / 2 + rng.normal(0, 0.3, (num_frames, 17, 2))
    keypoints[:, 0, :, 0] += np.linspace(-20, 20, num_frames)[:, None]
    return keypoints


def write_scenes(root: Path, clips=(4, 2, 2), poses: bool = True, size=SIZE) -> Path:
    """Write a data set of two classes in turn; return its folder."""
    seed = 0
    for split, count in zip(("train", "val", "test"), clips, strict=True):
        lines = []
        for number in range(count):
            name = f"{split}_{number}"
            write_clip(root / "frames" / name, seed, size=size)
            if poses:
                path = root / "poses" / f"{name}.npz"
                save_poses(path, walker(seed, size=size), size, "test")
            lines.append(f"{name} {NUM_FRAMES} {number % 2}\n")
            seed += 1
        if count:
            (root / f"{split}_videofolder.txt").write_text("".join(lines), encoding="utf-8")
    return root
