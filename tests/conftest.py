"""A tiny data set in the layout of FR-FS, whose pixels say which frame they are."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

SIZE = (64, 36)
# What OMP_NUM_THREADS gives a process that nobody has tuned.
_THREADS = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def grey_of(frame: int) -> int:
    """Return the grey level of a 0-based frame; far enough apart to survive JPEG."""
    return 20 + 8 * frame


def write_frames(
    folder: Path, num_frames: int, first: int = 1, pattern: str = "{:05d}.jpg", size=SIZE
) -> None:
    folder.mkdir(parents=True)
    for frame in range(num_frames):
        image = np.full((size[1], size[0], 3), grey_of(frame), np.uint8)
        assert cv2.imwrite(str(folder / pattern.format(first + frame)), image)


def standing_person(num_frames: int, size=SIZE, seed: int = 0) -> np.ndarray:
    """Return (N, 1, 17, 3) keypoints of somebody upright in mid-frame who leans a little."""
    rng = np.random.default_rng(seed)
    offsets = np.array(
        [
            (0, -40), (2, -42), (-2, -42), (4, -40), (-4, -40), (8, -30), (-8, -30), (10, -15),
            (-10, -15), (11, 0), (-11, 0), (5, 0), (-5, 0), (5, 20), (-5, 20), (5, 40), (-5, 40),
        ]
    )  # fmt: skip
    scale = size[1] / 100
    keypoints = np.ones((num_frames, 1, 17, 3), np.float32)
    keypoints[:, 0, :, :2] = offsets * scale + np.array(size) / 2
    keypoints[..., :2] += rng.normal(0, 0.02 * size[1], keypoints[..., :2].shape)
    return keypoints


def write_archive(path: Path, keypoints: np.ndarray, size=SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, keypoints=keypoints, height=size[1], width=size[0])


def write_dataset(
    root: Path, clips=(4, 2, 2), num_frames: int = 12, poses: str | None = "npz", size=SIZE
) -> Path:
    """Write `clips` clips of each split with two classes in turn; return `root`."""
    for split, count in zip(("train", "val", "test"), clips, strict=True):
        names = [f"{split}_{number}" for number in range(count)]
        for seed, name in enumerate(names):
            write_frames(root / "frames" / name, num_frames, size=size)
            keypoints = standing_person(num_frames, size, seed)
            if poses == "npz":
                write_archive(root / "poses" / f"{name}.npz", keypoints, size)
            elif poses == "npy":
                for frame, person in enumerate(keypoints[:, 0, :, :2], start=1):
                    np.save(root / "frames" / name / f"{frame:05d}.npy", person)
        lines = [f"{name} {num_frames} {number % 2}\n" for number, name in enumerate(names)]
        (root / f"{split}_videofolder.txt").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return the folder of a data set of 4, 2 and 2 clips with keypoint archives."""
    return write_dataset(tmp_path / "data" / "FRFS")


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a data set to order and returns its folder."""
    return lambda name="FRFS", **choices: write_dataset(tmp_path / "data" / name, **choices)


@pytest.fixture
def make_frames() -> Callable[..., None]:
    return write_frames


@pytest.fixture
def make_archive() -> Callable[..., None]:
    return write_archive


@pytest.fixture
def person() -> Callable[..., np.ndarray]:
    return standing_person


@pytest.fixture
def golden() -> Path:
    """Return the folder of golden vectors of the published system, or skip."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "reference" / "golden" / "gsp"
    if not folder.is_dir():
        pytest.skip("../shared/reference is not part of the project: no golden vectors")
    return folder


@pytest.fixture(autouse=True)
def machine_state():
    """Give the tests after a session, which tunes its process, theirs back."""
    yield
    torch = sys.modules.get("torch")  # tests that need none do not wait for it
    if torch is not None:
        torch.set_flush_denormal(False)
        torch.set_num_threads(_THREADS)


def pytest_collection_finish() -> None:
    """Run a backward pass: where the first one follows an ONNX export, forks can run none."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Start the training programs with faults planted in them; see `tests.faulty_run`."""
    from tests.forking import launching

    with launching("tests.faulty_run", tmp_path_factory.mktemp("printed")) as launcher:
        yield launcher
