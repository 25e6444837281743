"""Extracted frames are those of the video, and a folder is whole or not there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.frames import ImageFrames
from datasets.prepare.extract import (
    STAMP,
    ExtractJob,
    JpegSettings,
    Part,
    extract_frames,
    hash_frames,
)
from datasets.prepare.jobs import run_jobs
from datasets.prepare.probing import hash_file, probe_video
from errors import InputError
from tests.making_videos import SIZE, number_of, write_video


def job_of(path, folder, spans, settings=None):
    info = probe_video(path)
    parts = tuple(Part(folder / f"{first}_{count}", first, count) for first, count in spans)
    size = (info.width, info.height)
    return ExtractJob(path, info.sha256, size, parts, settings or JpegSettings())


def test_each_part_has_its_frames_in_one_pass(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40)
    spans = [(0, 40), (3, 1), (10, 20), (25, 15)]
    job = job_of(path, tmp_path / "frames", spans)
    assert extract_frames(job) == 76
    for part in job.parts:
        images = ImageFrames.find(part.folder, part.count)
        assert (images.count, images.found, images.size()) == (part.count, part.count, SIZE)
        got = [number_of(image, 40) for image in images.load(np.arange(part.count), SIZE)]
        assert got == list(range(part.first, part.first + part.count))
    assert len(hash_frames(job.parts[0].folder, 40)) == 64
    assert extract_frames(job) == 0


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [((64, 48), 24, (32, 24)), ((48, 64), 24, (24, 32)), ((64, 48), 100, (64, 48)),
     ((64, 48), 48, (64, 48)), ((63, 47), 10, (13, 10))],
)  # fmt: skip
def test_the_short_side_shrinks_and_never_grows(size, short, expected, tmp_path):
    assert JpegSettings(short).scaled(*size) == expected
    path = write_video(tmp_path / "a.mkv", 2, codec="ffv1", pixels="yuv444p", size=size)
    job = job_of(path, tmp_path / "f", [(0, 2)], JpegSettings(short))
    extract_frames(job)
    assert ImageFrames.find(job.parts[0].folder, 2).size() == expected


def test_turned_videos_are_written_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4", 2, rotation=90)
    job = job_of(path, tmp_path / "f", [(0, 2)], JpegSettings(24))
    extract_frames(job)
    image = ImageFrames.find(job.parts[0].folder, 2).load(np.array([0]), (24, 32))[0]
    assert image[-4, 4].min() > 200  # the white corner was turned to the lower left
    assert image[4, 4].max() < 50


def test_other_settings_write_again_and_foreign_frames_are_left_alone(tmp_path):
    path = write_video(tmp_path / "a.mp4", 5)
    job = job_of(path, tmp_path / "f", [(0, 5)], JpegSettings(24))
    extract_frames(job)
    other = job_of(path, tmp_path / "f", [(0, 5)], JpegSettings(16))
    assert extract_frames(other) == 5
    assert min(ImageFrames.find(job.parts[0].folder, 5).size()) == 16
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["0_5"]
    (job.parts[0].folder / STAMP).unlink()
    with pytest.raises(InputError, match="were not extracted by this program"):
        extract_frames(job)
    assert len(list(job.parts[0].folder.iterdir())) == 5


def test_a_failing_video_leaves_finished_parts_and_nothing_half(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20)
    job = job_of(path, tmp_path / "f", [(0, 5), (10, 30)])
    with pytest.raises(InputError, match="ends before frame 20"):
        extract_frames(job)
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["0_5"]


def test_the_stamp_names_what_the_frames_are_made_of(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    job = job_of(path, tmp_path / "f", [(1, 2)], JpegSettings(24, 80))
    extract_frames(job)
    stamp = json.loads((job.parts[0].folder / STAMP).read_text())
    assert stamp["video_sha256"] == hash_file(path)
    wanted = {"first_frame": 1, "num_frames": 2, "short_side": 24, "jpeg_quality": 80}
    assert wanted.items() <= stamp.items()


# ---------------------------------------------------------------- processes


def work(job: str) -> str:
    if job == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "leave":
        os._exit(3)
    if job == "bad":
        raise InputError("bad is bad")
    if job == "full":
        raise OSError(28, "No space left on device", "x")
    if job == "signals":
        return str(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    if job == "slow":
        time.sleep(60)
    return job.upper()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_crash_costs_its_own_job_alone(workers):
    jobs = ["a", "crash", "b", "bad", "c", "leave", "d"]
    done = {one.place: one for one in run_jobs(work, jobs, workers, Path)}
    assert [done[i].result for i in range(7)] == ["A", None, "B", None, "C", None, "D"]
    assert "crash ended the process that read it (SIGKILL)" in str(done[1].error)
    assert str(done[3].error) == "bad is bad"
    assert "(exit code 3)" in str(done[5].error)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_do_not_depend_on_the_number_of_processes(workers):
    jobs = list("abcdefgh")
    done = sorted(run_jobs(work, jobs, workers, Path), key=lambda one: one.place)
    assert [one.result for one in done] == list("ABCDEFGH")
    assert list(run_jobs(work, [], workers, Path)) == []


def test_ctrl_c_is_for_the_parent_alone():
    (done,) = run_jobs(work, ["signals"], 1, Path)
    assert done.result == "True"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_stops_everything(workers):
    with pytest.raises(OSError, match="No space left"):
        list(run_jobs(work, ["a", "full", "b"], workers, Path))


def test_processes_end_when_the_work_is_left():
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the loop is what is left
        for _ in run_jobs(work, ["a", "slow", "slow"], 2, Path):
            raise KeyboardInterrupt
    assert time.monotonic() - begin < 30


def test_processes_end_with_a_killed_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from datasets.prepare.jobs import run_jobs\n"
        "def work(job):\n"
        "    Path(sys.argv[1], f'{os.getpid()}.pid').touch()\n"
        "    time.sleep(60)\n"
        "list(run_jobs(work, [1, 2], 2, str))\n"
    )
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=root)
    pids = wait_for(lambda: [int(p.stem) for p in tmp_path.glob("*.pid")], 2)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.05)


def wait_for(look, number):
    end = time.monotonic() + 60
    while len(found := look()) < number:
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
