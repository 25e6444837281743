"""Keypoint extraction that is killed, interrupted, shared by processes: the files stay the same."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.distributed import TCPStore

from tests.forking import launching

TESTS = Path(__file__).resolve().parent
PROGRAM = TESTS / "fake_pose_run.py"
NUM_CLIPS, NUM_FRAMES = 13, 6
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with launching("tests.fake_pose_run", tmp_path_factory.mktemp("printed")) as launcher:
        yield launcher


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


def options(root: Path, seconds: float = 0) -> list[str]:
    options = ["--dataset_path", str(root.parent), "--pose_batch", "4", "--per_frame_npy"]
    return [str(seconds), *options, "--pose_weights", "none.pt"]


def clips_done(root: Path) -> int:
    return len(list(root.glob("poses/**/[!.]*.npz")))


def wait_for_clips(root: Path, process, count: int) -> None:
    deadline = time.monotonic() + 60
    while clips_done(root) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


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
def reference(make_root, program):
    root = make_root("whole")
    done = program.run(*options(root))
    assert done.poll() == 0, done.stderr
    files = content(root)
    assert len(files) == NUM_CLIPS * (2 * NUM_FRAMES + 1) + 1
    return files


def test_killed_at_any_moment_and_run_again(make_root, program, reference):
    """GSP_KILLS says how often; from 20 on, half of them must hit the middle of the work."""
    kills = int(os.environ.get("GSP_KILLS", "8"))
    rng = random.Random(0)
    root, moments, halves = make_root("killed"), Counter(), 0
    given = content(root).keys()
    for number in range(kills):
        process, before = program.start(*options(root, 0.01)), clips_done(root)
        if number % 4 == 0:  # at once or a little later
            time.sleep(rng.uniform(0, 0.3))
        else:
            wait_for_clips(root, process, before + rng.randrange(1, 4))
            time.sleep(rng.uniform(0, 0.07))
        process.send_signal(signal.SIGKILL)
        code = process.wait()
        there = content(root)
        moments["after" if code == 0 else "middle" if there.keys() - given else "before"] += 1
        halves += any(".partial" in name for name in there)
        check_whole(root, reference)
        if clips_done(root) == NUM_CLIPS or rng.random() < 0.2:
            done = program.run(*options(root))
            assert done.poll() == 0, done.stderr
            assert content(root) == reference
            root = make_root(f"killed {number}")
    assert program.run(*options(root)).poll() == 0
    assert content(root) == reference
    print(f"{kills} kills: {dict(moments)}, {halves} with files half-written")  # noqa: T201
    assert moments["middle"] >= (kills // 2 if kills >= 20 else 1)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_drops_the_current_clip(make_root, program, reference, signum, code):
    root = make_root("stopped")
    process = program.start(*options(root, 0.02))
    wait_for_clips(root, process, 3)
    process.send_signal(signum)
    assert process.wait(30) == code, process.stderr
    assert process.stderr == ""
    there = content(root)
    assert not [name for name in there if ".partial" in name]
    assert 3 <= sum(name.endswith(".npz") for name in there) < NUM_CLIPS
    check_whole(root, reference)
    assert program.run(*options(root)).poll() == 0
    assert content(root) == reference


# ---------------------------------------------------------------- several processes


def start_both(program, root: Path, seconds: float = 0, late: float = 0):
    """Start two processes of one call, with a store as torchrun keeps it for them."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    ranks = [{**common, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    ranks[1]["SECONDS_BEFORE_PLAN"] = str(late)
    return store, [program.start(*options(root, seconds), env=env) for env in ranks]


def run_both(program, root: Path, seconds: float = 0, late: float = 0) -> list:
    _store, processes = start_both(program, root, seconds, late)
    for process in processes:
        process.wait()
    return processes


def test_torchrun_writes_the_files_of_one_process(make_root, program, reference):
    root = make_root("shared")
    (root / "poses").mkdir()
    (root / "poses" / ".x.npz.partial").write_bytes(b"half")
    torchrun = ("torch.distributed.run", "--nproc_per_node=2", "--standalone")
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, str(PROGRAM), *options(root)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    assert content(root) == reference
    assert done.stdout.count(f"{NUM_CLIPS} clips with {NUM_CLIPS * NUM_FRAMES} frames written") == 1
    assert done.stdout.count("somebody in 100.0% of frames") == 1
    first, second = run_both(program, root)
    assert (first.poll(), second.poll()) == (0, 0), first.stderr + second.stderr
    assert first.stdout == f"{root}: {NUM_CLIPS} clips have keypoints, nothing to do\n"
    assert second.stdout == ""


def test_two_processes_share_the_clips(make_root, program, reference):
    root = make_root("both")
    processes = run_both(program, root, 0.005)
    assert [process.poll() for process in processes] == [0, 0]
    assert content(root) == reference
    assert [process.stdout.count("frames written") for process in processes] == [1, 0]


def test_one_that_looks_late_shares_the_same_clips(make_root, program, reference):
    root = make_root("late")
    first, second = run_both(program, root, 0.002, late=0.7)
    assert (first.poll(), second.poll()) == (0, 0), first.stderr + second.stderr
    assert content(root) == reference
    assert f"{NUM_CLIPS} clips with {NUM_CLIPS * NUM_FRAMES} frames written" in first.stdout


def test_damaged_clips_of_every_process_are_named_once(make_root, program):
    root = make_root("damaged")
    for number in (2, 5):  # one of each process
        (root / "frames" / f"séance/clip {number}" / "00004.jpg").write_bytes(b"\xff\xd8\xffcut")
    first, second = run_both(program, root)
    assert (first.poll(), second.poll()) == (0, 0), first.stderr + second.stderr
    for number in (2, 5):
        assert first.stdout.count(f"left out séance/clip {number}: ") == 1
    assert "2 damaged clips were left out" in first.stdout
    assert second.stdout == ""
    assert len(list(root.glob("poses/**/*.npz"))) == NUM_CLIPS - 2


@pytest.mark.parametrize("clip", [2, 5], ids=["first", "second"])
def test_a_process_that_fails_ends_the_others(make_root, program, clip):
    root = make_root("failing")
    for path in (root / "frames" / f"séance/clip {clip}").glob("*.jpg"):
        cv2.imwrite(str(path), np.full((36, 64, 3), 255, np.uint8))
    processes = run_both(program, root, 0.02)
    assert [process.poll() for process in processes] == [2, 2]
    said = [process.stderr for process in processes]
    assert said[clip % 2] == "error: a frame is too bright for this estimator\n"
    assert said[1 - clip % 2] == ""


def test_one_of_two_is_killed(make_root, program, reference):
    root = make_root("alone")
    _store, (first, second) = start_both(program, root, 0.02)
    wait_for_clips(root, first, 2)
    second.send_signal(signal.SIGKILL)
    second.wait()
    first.send_signal(signal.SIGTERM)  # as torchrun does
    assert first.wait(30) == 143
    assert first.stderr == ""
    check_whole(root, reference)
    assert [process.poll() for process in run_both(program, root)] == [0, 0]
    assert content(root) == reference


def test_a_full_disk_leaves_nothing_half(make_root, program, reference):
    root = make_root("full")
    done = program.run(*options(root), most_bytes=700)
    assert done.poll() == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert not [name for name in content(root) if ".partial" in name]
    assert program.run(*options(root)).poll() == 0
    assert content(root) == reference
