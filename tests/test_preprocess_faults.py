"""Keypoint extraction that is killed, interrupted, shared by processes: the files stay the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

TESTS = Path(__file__).resolve().parent
PROGRAM = TESTS / "fake_pose_run.py"
NUM_CLIPS, NUM_FRAMES = 12, 6
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture
def make_root(tmp_path):
    """Return a function that writes the same data set under a new name."""

    def make(name: str) -> Path:
        root = tmp_path / name / "FRFS"
        rng = np.random.default_rng(0)
        lines = []
        for number in range(NUM_CLIPS):
            clip = f"séance/clip {number}"
            folder = root / "frames" / clip
            folder.mkdir(parents=True)
            for t in range(NUM_FRAMES):
                frame = np.full((36, 64, 3), rng.integers(0, 200), np.uint8)
                cv2.imwrite(str(folder / f"{t + 1:05d}.jpg"), frame)
            lines.append(f"{clip} {NUM_FRAMES} 0\n")
        (root / "train_videofolder.txt").write_text("".join(lines), encoding="utf-8")
        return root

    return make


def command(root: Path, seconds: float, *more: str) -> list[str]:
    options = ["--dataset_path", str(root.parent), "--pose_batch", "4", "--per_frame_npy"]
    options += ["--pose_weights", "none.pt"]
    return [str(PROGRAM), str(seconds), *options, *more]


def run(root: Path, seconds: float = 0, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command(root, seconds, *more)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=180,
    )


def start(root: Path, seconds: float, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command(root, seconds, *more)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_clips(root: Path, process: subprocess.Popen, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(root.glob("poses/**/[!.]*.npz"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def content(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def check_whole(root: Path, reference: dict[str, bytes]) -> None:
    """Make sure that what has its name is whole, whenever the program was killed."""
    for name, data in content(root).items():
        if ".partial" not in name:
            assert data == reference[name], name


@pytest.fixture
def reference(make_root):
    root = make_root("whole")
    done = run(root)
    assert done.returncode == 0, done.stderr
    files = content(root)
    assert len(files) == NUM_CLIPS * (2 * NUM_FRAMES + 1) + 1
    return files


def test_killed_at_any_moment_and_run_again(make_root, reference):
    kills = int(os.environ.get("GSP_KILLS", "8"))
    rng = random.Random(0)
    root, survived = make_root("killed"), 0
    for _ in range(kills):
        process = start(root, 0.01)
        there = len(list(root.glob("poses/**/[!.]*.npz")))
        wait_for_clips(root, process, there) if there else None
        time.sleep(rng.uniform(0, 0.5) if rng.random() < 0.3 else 0)
        if there < NUM_CLIPS:
            wait_for_clips(root, process, there + rng.randrange(2))
            time.sleep(rng.uniform(0, 0.07))
        process.kill()
        survived += process.wait() == 0
        process.communicate()
        check_whole(root, reference)
        if len(list(root.glob("poses/**/[!.]*.npz"))) == NUM_CLIPS:
            for path in list(root.glob("poses/**/*.npz"))[::2]:
                path.unlink()
    done = run(root)
    assert done.returncode == 0, done.stderr
    assert content(root) == reference
    assert survived < kills


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_drops_the_current_clip(make_root, reference, signum, code):
    root = make_root("stopped")
    process = start(root, 0.02)
    wait_for_clips(root, process, 3)
    process.send_signal(signum)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert errors == ""
    there = content(root)
    assert not [name for name in there if ".partial" in name]
    assert 3 <= sum(name.endswith(".npz") for name in there) < NUM_CLIPS
    check_whole(root, reference)
    assert run(root).returncode == 0
    assert content(root) == reference


def torchrun(root: Path, seconds: float = 0, *more: str, count: int = 2):
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}"),
            "--standalone",
            *command(root, seconds, *more),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_two_processes_write_the_files_of_one(make_root, reference):
    root = make_root("shared")
    (root / "poses").mkdir()
    (root / "poses" / ".x.npz.partial").write_bytes(b"half")
    done = torchrun(root)
    assert done.returncode == 0, done.stderr
    assert content(root) == reference
    assert done.stdout.count(f"{NUM_CLIPS} clips with {NUM_CLIPS * NUM_FRAMES} frames written") == 1
    assert done.stdout.count("somebody in 100.0% of frames") == 1
    again = torchrun(root)
    assert again.returncode == 0
    assert again.stdout == f"{root}: {NUM_CLIPS} clips have keypoints, nothing to do\n"


def test_damaged_clips_of_every_process_are_named_once(make_root):
    root = make_root("damaged")
    for number in (2, 5):  # one of each process
        (root / "frames" / f"séance/clip {number}" / "00004.jpg").write_bytes(b"\xff\xd8\xffcut")
    done = torchrun(root)
    assert done.returncode == 0, done.stderr
    for number in (2, 5):
        assert done.stdout.count(f"left out séance/clip {number}: ") == 1
    assert "2 damaged clips were left out" in done.stdout
    assert len(list(root.glob("poses/**/*.npz"))) == NUM_CLIPS - 2


@pytest.mark.parametrize("clip", [2, 5], ids=["first", "second"])
def test_a_process_that_fails_ends_the_others(make_root, clip):
    root = make_root("failing")
    for path in (root / "frames" / f"séance/clip {clip}").glob("*.jpg"):
        cv2.imwrite(str(path), np.full((36, 64, 3), 255, np.uint8))
    begin = time.monotonic()
    done = torchrun(root, 0.02)
    assert done.returncode != 0
    assert time.monotonic() - begin < 60
    assert done.stderr.count("error: a frame is too bright for this estimator") == 1
    assert "exitcode  : 2" in done.stderr
    assert "Traceback" not in done.stderr.partition("torch/distributed")[0]


def test_a_full_disk_leaves_nothing_half(make_root, reference):
    root = make_root("full")
    (root / "poses").mkdir()
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))"
    code = (
        f"{limit}; import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); import runpy, sys;"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *command(root, 0)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert not [name for name in content(root) if ".partial" in name]
    assert run(root).returncode == 0
    assert content(root) == reference
