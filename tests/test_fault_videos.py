"""RELIABILITY 16 to 18 through whole programs: broken pictures and videos, in time and memory."""

import math
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import main
import predict
import process_dataset_videos
from datasets.clip_table import load_table
from datasets.prepare.probing import probe_video
from datasets.records import read_header
from errors import InputError
from tests.making_models import write_checkpoint
from tests.making_videos import cut, write_sound, write_video
from tests.small_runs import RGB, command, numbers_of, run_of

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 30
MEGABYTES = 300


def without_frames(path):
    """Write a video whose stream holds no frame."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.start_encoding()


def huge(path):
    """Write a video whose header promises 16,000 x 10,000 pixels."""
    data = bytearray(write_video(path, 3, codec="rawvideo", pixels="bgr24").read_bytes())
    place = data.index(b"strf") + 12
    data[place : place + 8] = struct.pack("<II", 16_000, 10_000)
    path.write_bytes(data)


def cut_off(path):
    whole = write_video(path.with_suffix(".whole.mkv"), 100, size=(320, 240), gop=30)
    cut(whole, path, 0.5)
    whole.unlink()


# What becomes of each: a part of the line that refuses it, or "" where its frames can be used.
VIDEOS = {
    "sound.mp4": (write_sound, "holds only sound"),
    "without frames.avi": (without_frames, "frame"),
    "without frames.mp4": (without_frames, "frame"),
    "huge.avi": (huge, "16000x10000 pixels"),
    "eight hours.mkv": (
        lambda p: write_video(p, 960, size=(16, 16), pts=[30_000 * i for i in range(960)]),
        "8.0 hours",
    ),
    "empty.mp4": (lambda p: p.touch(), "is empty"),
    "text.mp4": (lambda p: p.write_text("hello"), "is no video"),
    "uneven.mkv": (
        lambda p: write_video(p, 24, pts=np.cumsum([20, 60, 200] * 8).tolist()),
        "",
    ),
    "turned.mp4": (lambda p: write_video(p, 24, rotation=90), ""),
    "cut.mkv": (cut_off, ""),
    "ten bits.mp4": (lambda p: write_video(p, 24, pixels="yuv444p10le"), ""),
    "sound too.mp4": (lambda p: write_video(p, 24, sound=True), ""),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name, (write, _) in VIDEOS.items():
        write(folder / name)
    return folder


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_has_frames_or_one_clear_line_in_time(name, videos):
    begin = time.monotonic()
    try:
        assert probe_video(videos / name).num_frames > 5
        said = ""
    except InputError as error:
        said = str(error)
        assert str(videos / name) in said
        assert len(said.splitlines()) == 1
    assert time.monotonic() - begin < SECONDS
    expected = VIDEOS[name][1]
    assert expected in said
    assert bool(expected) == bool(said)


def in_limits(program, arguments):
    """Run a program in a process that says how much memory it and its children have taken."""
    code = (
        "import resource, runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    # What ru_maxrss says of this process is at least what its parent had.\n"
        "    own = [line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line]\n"
        "    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "    print('peak', max(int(own[0]), children) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ROOT / program, *map(str, arguments)],
        capture_output=True, text=True, timeout=3 * SECONDS, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done, int(done.stdout.rpartition("peak ")[2])


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_a_folder_of_broken_videos_is_prepared_in_little_memory(videos, tmp_path):
    source = tmp_path / "in" / "fall"
    source.mkdir(parents=True)
    for path in videos.iterdir():
        (source / path.name).hardlink_to(path)
    good = tmp_path / "in" / "stand"
    for number in range(4):
        write_video(good / f"{number}.mp4", 12, first=10 * number)
    line = ["--dataset", "mine", "--dataset_path", tmp_path / "out", "--source", tmp_path / "in"]
    line.append("--no_check")
    done, peak = in_limits("process_dataset_videos.py", [*line, "--workers", "1"])
    assert (done.returncode, done.stderr) == (0, "")
    refused = [name for name, (_, part) in VIDEOS.items() if part]
    for name in refused:
        assert name in done.stdout
    root = tmp_path / "out" / "mine"
    assert read_header(root / "train_videofolder.txt")["left_out"] == str(len(refused))
    assert len(load_table(root)) == len(VIDEOS) - len(refused) + 4
    assert peak < MEGABYTES
    strict, _ = in_limits("process_dataset_videos.py", [*line, "--strict", "--workers", "0"])
    assert (strict.returncode, strict.stderr.count("\n")) == (2, 1)


def test_a_prediction_has_a_result_or_one_line_for_each_video(videos, tmp_path, capsys):
    weights = write_checkpoint(tmp_path / "best.pth.tar", "rgb")
    names = ["sound.mp4", "without frames.mp4", "text.mp4", "cut.mkv", "ten bits.mp4"]
    line = ["--weights", weights, "--output", tmp_path / "out", "--device", "cpu", "--source"]
    begin = time.monotonic()
    with pytest.raises((InputError, SystemExit)) as end:
        predict.main([str(word) for word in [*line, *(videos / name for name in names)]])
    assert time.monotonic() - begin < SECONDS
    text = capsys.readouterr()
    said = text.out + text.err + str(end.value)
    for name in names[:3]:
        assert name in said
    assert sorted(path.parent.name for path in tmp_path.glob("out/*/events.json")) or said


def test_a_video_that_is_damaged_after_its_preparation_stops_training_and_is_named(tmp_path):
    for label in ("fall", "stand"):
        for number in range(6):
            target = tmp_path / "in" / label / f"{number}.mkv"
            write_video(target, 30, size=(320, 240), first=3 * number, gop=5)
    process_dataset_videos.main(
        ["--dataset", "FRFS", "--dataset_path", str(tmp_path / "data"), "--workers", "0",
         "--source", str(tmp_path / "in"), "--no_check"],
    )  # fmt: skip
    root = tmp_path / "data" / "FRFS"
    main.main(command(root, tmp_path / "out", *RGB, epochs=1))
    assert run_of(tmp_path / "out")
    first = (root / "train_videofolder.txt").read_text(encoding="utf-8").splitlines()[-1]
    name = first.rsplit(maxsplit=2)[0]
    video = root / "videos" / load_table(root)[name].video
    data = video.read_bytes()
    video.unlink()
    video.write_bytes(data[: len(data) // 3])
    with pytest.raises(InputError) as caught:
        main.main(command(root, tmp_path / "again", *RGB, epochs=1))
    assert str(video) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# ---------------------------------------------------------------- 16: pictures in training


def exif_turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.copy().save(path, "JPEG", exif=exif, quality=95)


def as_cmyk(path):
    with Image.open(path) as image:
        image.convert("CMYK").save(path, "JPEG", quality=95)


def as_deep_png(path):
    deep = cv2.imread(str(path)).astype(np.uint16) * 257
    path.write_bytes(cv2.imencode(".png", deep)[1].tobytes())


def of_size(width, height):
    """Return what makes a picture of this size in place of another."""
    data = cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1].tobytes()
    return lambda path: path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [exif_turned, as_cmyk, as_deep_png, of_size(1, 1), of_size(65_500, 1), of_size(1, 65_500)],
    ids=["turned", "cmyk", "16 bit", "1x1", "wide", "tall"],
)
def test_odd_pictures_train_as_the_plain_ones(change, dataset, tmp_path):
    """They are whole: marks of rotation are ignored, deep and CMYK ones become RGB bytes."""
    for path in (dataset / "frames" / "train_1").iterdir():
        change(path)
    main.main(command(dataset, tmp_path, *RGB, epochs=1))
    assert all(math.isfinite(value) for value in numbers_of(run_of(tmp_path))[0].values())


@pytest.mark.parametrize("content", [b"", b"<html>", "cut", "bomb"], ids=str)
def test_a_picture_that_cannot_be_used_stops_training_and_is_named(content, dataset, tmp_path):
    """Never zeros, never another clip: one line with the file, and no epoch is counted."""
    path = dataset / "frames" / "train_1" / "00006.jpg"
    data = path.read_bytes()
    if content == "cut":
        content = data[: len(data) // 2]
    elif content == "bomb":
        place = data.index(b"\xff\xc0") + 5
        content = data[:place] + struct.pack(">HH", 30_000, 30_000) + data[place + 4 :]
    for other in (dataset / "frames" / "train_1").iterdir():
        other.write_bytes(content)
    with pytest.raises(InputError) as caught:
        main.main(command(dataset, tmp_path, *RGB, epochs=1))
    assert "train_1" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
