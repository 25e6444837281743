"""Generated data sets to load from: pictures with the statistics of photographs, a skeleton."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

import opts
from datasets.clip_table import ClipRow, write_table
from datasets.opening import DataSource, open_dataset
from datasets.poses import save_poses
from datasets.records import ClipRecord, write_list

NAME = "benchmark"
_QUALITY = 90
# The amplitude of a photograph falls with its spatial frequency; with this power a JPEG of 1280x720
# pixels has about 190 kB at quality 90, and one of 640x360 about 57 kB.
_SLOPE = 1.48
_CONTRAST = 50.0
_SPEED = (5, 2)  # pixels a frame
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class ClipsOnDisk:
    """A generated data set.

    Attributes:
        folder: what `--dataset_path` names.
        size: (width, height) of the frames.
        names: of the clips.
        num_frames: of each clip.
        kilobytes: mean size of a frame's file; 0 for videos.
    """

    folder: Path
    size: tuple[int, int]
    names: tuple[str, ...]
    num_frames: int
    kilobytes: float = 0.0

    @property
    def root(self) -> Path:
        """Return the folder with the lists."""
        return self.folder / NAME

    def frame(self, clip: str, index: int) -> Path:
        """Return the file of a 0-based frame."""
        return self.root / "frames" / clip / f"{index + 1:05d}.jpg"

    def open(self, options: Sequence[str]) -> tuple[argparse.Namespace, DataSource]:
        """Return parsed options of a training script and the opened data set."""
        pose_only = "--pose_only" in options
        parse = opts.parse_pose_train_args if pose_only else opts.parse_train_args
        given = [option for option in options if option != "--pose_only"]
        where = ["--dataset", NAME, "--dataset_path", str(self.folder), "--device", "cpu"]
        args = parse([*where, *given])
        return args, open_dataset(args)


def make_images(
    folder: Path, size: tuple[int, int], num_clips: int, num_frames: int
) -> ClipsOnDisk:
    """Write clips as folders of JPEG frames, with keypoints."""
    root = folder / NAME
    encoded = [_encode(picture) for picture in moving_pictures(size, num_frames)]
    names = _clip_names(num_clips)
    for name in names:
        place = root / "frames" / name
        place.mkdir(parents=True)
        for number, data in enumerate(encoded, start=1):
            (place / f"{number:05d}.jpg").write_bytes(data)
    _write_rest(root, names, num_frames, size)
    mean = sum(map(len, encoded)) / len(encoded)
    return ClipsOnDisk(folder, size, names, num_frames, mean / 1e3)


def make_video(folder: Path, size: tuple[int, int], num_clips: int, num_frames: int) -> ClipsOnDisk:
    """Write one video whose whole length every clip shows, with keypoints."""
    root = folder / NAME
    path = root / "videos" / "video.mp4"
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for picture in moving_pictures(size, num_frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    names = _clip_names(num_clips)
    width, height = size
    rows = [
        ClipRow(clip=name, video=path.name, num_frames=num_frames, width=width, height=height)
        for name in names
    ]
    write_table(root, rows)
    _write_rest(root, names, num_frames, size)
    return ClipsOnDisk(folder, size, names, num_frames)


def make_skeletons(folder: Path, num_clips: int, num_frames: int) -> ClipsOnDisk:
    """Write clips that have keypoints alone."""
    size = (640, 360)
    names = _clip_names(num_clips)
    _write_rest(folder / NAME, names, num_frames, size)
    return ClipsOnDisk(folder, size, names, num_frames)


def moving_pictures(size: tuple[int, int], num_frames: int) -> list[np.ndarray]:
    """Draw a picture and move it on from frame to frame; always the same ones.

    Returns:
        `num_frames` arrays (H, W, 3) uint8 RGB.
    """
    picture = natural_picture(size, np.random.default_rng(0))
    return [
        np.roll(picture, (_SPEED[1] * i, _SPEED[0] * i), axis=(0, 1)) for i in range(num_frames)
    ]


def natural_picture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw noise with the spectrum of a photograph, its channels alike: (H, W, 3) uint8 RGB."""
    width, height = size
    rows = np.fft.fftfreq(height)[:, None] * height
    columns = np.fft.rfftfreq(width)[None] * width
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf

    def layer(slope: float) -> np.ndarray:
        phases = np.exp(2j * np.pi * rng.random(frequency.shape))
        plane = np.fft.irfft2(phases / frequency**slope, (height, width))
        return plane / plane.std()

    grey = layer(_SLOPE)
    planes = [0.9 * grey + 0.35 * layer(_SLOPE + 0.3) for _ in range(3)]
    return np.clip(120 + _CONTRAST * np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def skeleton(num_frames: int, size: tuple[int, int]) -> np.ndarray:
    """Return (N, 1, 17, 3) keypoints of somebody in mid-frame who moves a little."""
    rng = np.random.default_rng(0)
    keypoints = np.ones((num_frames, 1, 17, 3), np.float32)
    spread = np.array([0.08 * size[1], 0.25 * size[1]])
    place = rng.uniform(-1, 1, (17, 2)) * spread + np.array(size) / 2
    keypoints[:, 0, :, :2] = place + rng.normal(0, 0.01 * size[1], (num_frames, 17, 2))
    return keypoints


def _encode(picture: np.ndarray) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)
    assert done
    return data.tobytes()


def _clip_names(count: int) -> tuple[str, ...]:
    return tuple(f"clip_{number:03d}" for number in range(count))


def _write_rest(root: Path, names: Sequence[str], num_frames: int, size: tuple[int, int]) -> None:
    """Write keypoints and lists; every list has all clips."""
    keypoints = skeleton(num_frames, size)
    for name in names:
        save_poses(root / "poses" / f"{name}.npz", keypoints, size, "generated")
    records = [ClipRecord(name, num_frames, number % 2) for number, name in enumerate(names)]
    for split in _SPLITS:
        write_list(root / f"{split}_videofolder.txt", records)
