"""The frame cache meets damage, kills, full disks and other programs."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import cache
from datasets.cache import CacheSpec, cache_clips
from datasets.cached_frames import shrink
from datasets.frame_store import StoredClip, map_clip
from datasets.frames import ImageFrames
from datasets.records import load_records
from datasets.scan import Clip, find_clips
from errors import InputError
from files import alone_in, partial_of

FORK = multiprocessing.get_context("fork")
SMALL = (32, 18)
EVERY = np.arange(12)


@pytest.fixture(autouse=True)
def _nothing_stays_mapped():
    map_clip.cache_clear()
    yield
    map_clip.cache_clear()


@pytest.fixture
def clips(dataset) -> tuple[Clip, ...]:
    """Return 4 clips of 12 frames of 64 x 36 pixels."""
    rng = np.random.default_rng(0)
    for file in (dataset / "frames").rglob("*.jpg"):
        noise = rng.integers(0, 256, (36, 64, 3), dtype=np.uint8)
        assert cv2.imwrite(str(file), noise)
    records = load_records(dataset / "train_videofolder.txt")
    return find_clips(dataset, records, has_frames=True, has_poses=True)[0]


@pytest.fixture
def spec(tmp_path) -> CacheSpec:
    return CacheSpec(tmp_path / "cache" / "FRFS", 18)


class Heard(list):
    @contextmanager
    def __call__(self, text: str):
        self.append(text)
        yield lambda _done, _total: None


def expected(clip: Clip) -> np.ndarray:
    return shrink(clip.images.load(EVERY, clip.size), SMALL)


def check(clips, stored) -> None:
    for clip, other in zip(clips, stored, strict=True):
        assert np.array_equal(other.images.load(EVERY, SMALL), expected(clip))


def complaint(act) -> str:
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- damage


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("place", [4096, 4096 + 5 * 32 * 18 * 3 + 7, -52, -1])
def test_a_flipped_bit_is_found_and_made_good(clips, spec, place):
    path = cache_clips(clips, spec)[1].images.stored.path
    flip(path, place)
    stored = cache_clips(clips, spec)  # what costs nothing to see is whole
    check(clips, stored)
    assert not path.exists()
    assert stored[1].images.stored.set_aside.exists()
    check(clips, stored)  # nor does the missing file matter
    map_clip.cache_clear()
    check(clips, stored)
    heard = Heard()
    check(clips, cache_clips(clips, spec, heard))
    assert len(heard) == 1
    assert "storing 1 of 4 clips, 1 of them again, as they were damaged" in heard[0]
    assert path.exists()
    assert not stored[1].images.stored.set_aside.exists()
    assert sorted(spec.folder.iterdir()) == sorted(c.images.stored.path for c in stored)


def test_every_byte_of_a_file_counts(clips, spec):
    stored = cache_clips(clips[:1], spec)[0].images.stored
    whole = stored.path.read_bytes()
    rng = np.random.default_rng(0)
    places = {0, 4095, 4096, len(whole) - 1, *rng.integers(len(whole), size=60).tolist()}
    truth = expected(clips[0])
    for place in places:
        stored.path.write_bytes(whole)
        flip(stored.path, place)
        map_clip.cache_clear()
        found = cache_clips(clips[:1], spec)[0].images
        assert np.array_equal(found.load(EVERY, SMALL), truth)
        assert (place < 4096) == stored.path.exists()


@pytest.mark.parametrize("harm", ["cut", "empty", "longer", "header", "gone", "folder"])
def test_a_file_that_is_no_longer_whole_is_made_again(clips, spec, harm):
    path = cache_clips(clips, spec)[2].images.stored.path
    data = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
        assert "cannot be written" in complaint(lambda: cache_clips(clips, spec))
        return
    broken = {"cut": data[:-1], "empty": b"", "longer": data + b"0", "header": b"x" + data[1:]}
    if harm in broken:
        path.write_bytes(broken[harm])
    heard = Heard()
    check(clips, cache_clips(clips, spec, heard))
    assert "storing 1 of 4 clips:" in heard[0]
    assert path.read_bytes() == data


def test_a_cache_that_is_removed_while_it_is_used_changes_nothing(clips, spec):
    stored = cache_clips(clips, spec)
    shutil.rmtree(spec.folder)
    check(clips, stored)


def test_a_file_of_other_frames_is_not_used(clips, spec):
    """Another data set of the same name may write to the same folder."""
    stored = cache_clips(clips, spec)
    one, other = stored[0].images.stored, stored[1].images.stored
    shutil.copy(other.path, one.path)
    assert np.array_equal(stored[0].images.load(EVERY, SMALL), expected(clips[0]))
    assert one.path.exists()  # it may be right for the other program


def test_a_cache_that_can_only_be_read_is_enough(clips, spec, monkeypatch):
    cache_clips(clips, spec)

    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(spec.folder))

    for name in ("mkdir", "unlink", "replace", "touch"):
        monkeypatch.setattr(Path, name, refuse)
    check(clips, cache_clips(clips, spec))
    with monkeypatch.context() as patch:
        patch.setattr(StoredClip, "is_there", lambda _self: False)
        text = complaint(lambda: cache_clips(clips, spec))
    assert text == (
        f"{spec.folder} cannot be written (Permission denied): name another folder with "
        "--cache_dir, or leave out --cache"
    )
    path = cache_clips(clips, spec)[1].images.stored.path
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"xyz")
    check(clips, cache_clips(clips, spec))  # though it cannot be set aside


# ---------------------------------------------------------------- clips that cannot be read


def test_damaged_clips_are_named_when_the_others_are_stored(clips, spec, dataset):
    for number in (0, 2):
        file = dataset / "frames" / f"train_{number}" / "00007.jpg"
        file.write_bytes(file.read_bytes()[:200])
    text = complaint(lambda: cache_clips(clips, spec))
    assert "train_0/00007.jpg is damaged" in text
    assert "2 clips of 4 cannot be stored" in text
    assert len(list(spec.folder.glob("*"))) == 2
    assert not list(spec.folder.glob(".*"))


def test_frames_that_vanish_meanwhile(clips, spec, dataset):
    shutil.rmtree(dataset / "frames" / "train_3")
    assert "train_3 has changed since it was looked at" in complaint(
        lambda: cache_clips(clips, spec)
    )


# ---------------------------------------------------------------- room


def test_too_little_room_is_told_before_anything_is_written(clips, spec, monkeypatch):
    usage = namedtuple("usage", "total used free")
    free = 4 * (4096 + 12 * (32 * 18 * 3 + 4) + 4) + 10**6 // 50
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(10**6, 0, free - 1))
    text = complaint(lambda: cache_clips(clips, spec))
    assert "the frame cache needs 0.1 MB more in" in text
    assert "--cache_dir" in text
    assert not list(spec.folder.iterdir())
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage(10**6, 0, free))
    check(clips, cache_clips(clips, spec))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_runs_full_ends_in_one_line(clips, spec, monkeypatch, workers):
    write = StoredClip.write

    def fill(self, blocks):
        if self.clip == "train_2":
            partial_of(spec.folder / "of another process").touch()
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        write(self, blocks)

    monkeypatch.setattr(StoredClip, "write", fill)
    spec = CacheSpec(spec.folder, 18, workers)
    assert "(No space left on device): name another folder" in complaint(
        lambda: cache_clips(clips, spec)
    )
    assert not list(spec.folder.glob(".*"))
    monkeypatch.setattr(StoredClip, "write", write)
    check(clips, cache_clips(clips, spec))
    assert not list(spec.folder.glob(".*"))


def test_a_place_that_cannot_be_a_folder(clips, tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "cannot be written" in complaint(
            lambda f=folder: cache_clips(clips, CacheSpec(f, 18))
        )


def test_a_linked_folder(clips, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    check(clips, cache_clips(clips, CacheSpec(tmp_path / "link", 18)))
    assert len(list((tmp_path / "elsewhere").iterdir())) == 4


# ---------------------------------------------------------------- kills, and other programs


def slow_blocks(seconds: float):
    blocks = ImageFrames.blocks

    def slow(self, size, most):
        for block in blocks(self, size, 3):
            time.sleep(seconds)
            yield block

    return slow


def start(act):
    """Run `act` in a process of its own."""
    process = FORK.Process(target=act)
    process.start()
    return process


@pytest.mark.parametrize("workers", [0, 2])
def test_a_kill_at_any_time_leaves_what_was_finished(clips, spec, monkeypatch, workers):
    monkeypatch.setattr(ImageFrames, "blocks", slow_blocks(0.02))
    spec = CacheSpec(spec.folder, 18, workers)
    for finished in (1, 2, 3):
        process = start(lambda: cache_clips(clips, spec))
        end = time.monotonic() + 20
        while len(list(spec.folder.glob("*.frames"))) < finished and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        there = {path: path.stat().st_mtime_ns for path in spec.folder.glob("*.frames")}
        assert len(there) >= finished
    heard = Heard()
    check(clips, cache_clips(clips, spec, heard))
    assert not list(spec.folder.glob(".*"))
    assert all(path.stat().st_mtime_ns == when for path, when in there.items())
    assert len(list(spec.folder.iterdir())) == 4


def test_a_second_program_waits_and_stores_nothing_twice(clips, spec, monkeypatch):
    monkeypatch.setattr(ImageFrames, "blocks", slow_blocks(0.05))
    monkeypatch.setattr(cache, "_PATIENCE_SECONDS", 0.01)
    other = start(lambda: cache_clips(clips, spec))
    while not list(spec.folder.glob(".*.partial")):
        time.sleep(0.005)
    heard = Heard()
    stored = cache_clips(clips, spec, heard)
    other.join()
    assert heard == [f"frame cache: waiting for another program that fills {spec.folder}"]
    check(clips, stored)


def test_a_full_cache_is_used_while_another_program_fills_the_folder(clips, spec):
    cache_clips(clips, spec)
    with alone_in(spec.folder):
        heard = Heard()
        check(clips, cache_clips(clips, spec, heard))
        assert not heard
