import csv
import os
import shutil

import pytest

from datasets.check.manifest import (
    COLUMNS,
    NAME,
    read_manifest,
    scan_files,
    verify_manifest,
    write_manifest,
)
from datasets.check.pool import Workers
from errors import InputError
from tests.scenes import NUM_FRAMES, write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("data") / "mine", clips=(2, 1, 0))


@pytest.fixture
def root(scenes, tmp_path):
    """Return a copy that a test may break."""
    return shutil.copytree(scenes, tmp_path / "mine")


def changes(root):
    return {(f.kind, f.path.removeprefix(f"{root}/")) for f in verify_manifest(root)}


def test_it_names_every_file_with_its_size_and_sum(root):
    import hashlib

    (root / "check").mkdir()
    (root / "check" / "report.html").write_text("not part of it", encoding="utf-8")
    (root / "videos").mkdir()
    (root / "videos" / "film.mp4").write_bytes(b"film")
    count = write_manifest(root)
    rows = list(read_manifest(root / NAME))
    assert count == len(rows) == 2 + 3 * NUM_FRAMES + 3 + 1
    assert [row.order for row in rows] == sorted(row.order for row in rows)
    for row in rows:
        data = (root / row.path).read_bytes()
        assert (row.size, row.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert (row.width, row.height) == ((96, 64) if row.path.endswith(".jpg") else (0, 0))
    assert changes(root) == set()


def test_a_program_brings_up_to_date_only_what_it_wrote(root):
    """Else a frame that was damaged since would be taken for a good one."""
    write_manifest(root)
    before = (root / NAME).read_bytes()
    assert write_manifest(root, wrote=("poses",)) == before.count(b"\n") - 1
    assert (root / NAME).read_bytes() == before

    damaged = root / "frames" / "train_0" / "00005.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (root / "frames" / "val_0" / "00001.jpg").unlink()
    (root / "frames" / "val_0" / "00001.npy").write_bytes(b"new")
    (root / "poses" / "train_0.npz").write_bytes(b"new")
    (root / "poses" / "val_0.npz").unlink()
    (root / "train_videofolder.txt").write_text("train_0 5 0\n", encoding="utf-8")
    write_manifest(root, wrote=("poses",))
    assert [row.order for row in read_manifest(root / NAME)] == sorted(
        row.order for row in read_manifest(root / NAME)
    )
    assert changes(root) == {
        ("manifest_changed", "frames/train_0/00005.jpg"),
        ("manifest_gone", "frames/val_0/00001.jpg"),
    }
    write_manifest(root)
    assert changes(root) == set()


def test_a_flipped_bit_that_still_decodes_is_found(root):
    import cv2

    write_manifest(root)
    path = root / "frames" / "train_0" / "00005.jpg"
    data = bytearray(path.read_bytes())
    data[-60] ^= 1
    path.write_bytes(data)
    assert cv2.imread(str(path)) is not None
    assert changes(root) == {("manifest_changed", "frames/train_0/00005.jpg")}


def test_missing_and_new_files_are_found(root):
    write_manifest(root)
    (root / "frames" / "train_0" / "00005.jpg").unlink()
    (root / "frames" / "train_0.extra").mkdir()
    (root / "frames" / "train_0.extra" / "00001.jpg").write_bytes(b"x")
    # "train_0.extra/" sorts before "train_0/" as text, and after it as folders are read.
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    write_manifest(copy)
    assert changes(copy) == set()
    (root / "poses" / "train_1.npz").write_bytes(b"other")
    (root / "clips.csv").write_text("clip\n", encoding="utf-8")
    assert changes(root) == {
        ("manifest_gone", "frames/train_0/00005.jpg"),
        ("manifest_new", "frames/train_0.extra/00001.jpg"),
        ("manifest_changed", "poses/train_1.npz"),
        ("manifest_new", "clips.csv"),
    }


def test_a_folder_that_is_gone_is_found_file_by_file_and_counted_beyond_a_hundred(root):
    write_manifest(root)
    (root / "poses").rename(root / "elsewhere")
    assert {kind for kind, _ in changes(root)} == {"manifest_gone"}
    assert len(changes(root)) == 3
    for number in range(150):
        (root / "frames" / "val_0" / f"more{number}.jpg").write_bytes(b"")
    new = [f for f in verify_manifest(root) if f.kind == "manifest_new"]
    assert len(new) == 101
    assert "50 more files" in new[-1].text


def test_odd_names_come_back_as_they_are(root):
    folder = root / "frames" / 'a, "b"\nc'
    folder.mkdir()
    for name in ("=1+1.jpg", "ü 🤸.jpg", os.fsdecode(b"\xff.jpg")):
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    write_manifest(root)
    assert list(read_manifest(root / NAME)) == list(scan_files(root))
    assert changes(root) == set()


def test_links_and_pipes_are_not_followed_into_trouble(root, tmp_path):
    (root / "frames" / "loop").symlink_to(root / "frames")
    os.mkfifo(root / "frames" / "train_0" / "pipe.jpg")
    (root / "frames" / "train_0" / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "frame.jpg").write_bytes(b"elsewhere")
    (root / "frames" / "train_0" / "00021.jpg").symlink_to(tmp_path / "frame.jpg")
    assert write_manifest(root) == 2 + 3 * NUM_FRAMES + 3 + 1


def test_processes_give_the_same_as_one(root):
    with Workers(2) as pool:
        assert list(scan_files(root, pool)) == list(scan_files(root, 1))


BROKEN = {
    "empty": "",
    "another table": "a,b\n1,2\n",
    "no number": ",".join(COLUMNS) + "\nclips.csv,many,00,0,0\n",
    "too few cells": ",".join(COLUMNS) + "\nclips.csv,1\n",
    "out of order": ",".join(COLUMNS) + "\nposes/b,1,0,0,0\nposes/a,1,0,0,0\n",
    "an open quote": ",".join(COLUMNS) + '\n"poses/b,1,0,0,0\n',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_manifest_is_a_finding(root, text):
    (root / NAME).write_text(text, encoding="utf-8")
    found = list(verify_manifest(root))
    assert found[-1].kind == "manifest_unreadable"
    assert "\n" not in found[-1].line()


def test_a_manifest_that_is_not_there_is_an_error(root):
    with pytest.raises(InputError, match="is not there"):
        next(read_manifest(root / NAME))


def test_a_file_that_vanishes_leaves_the_old_manifest(root, monkeypatch):
    from datasets.check import manifest

    write_manifest(root)
    before = (root / NAME).read_bytes()
    real = manifest._measure

    def vanish(base, path):
        return (
            manifest.ManifestRow(path, -1, "") if path.endswith("00007.jpg") else real(base, path)
        )

    monkeypatch.setattr(manifest, "_measure", vanish)
    with pytest.raises(InputError, match=r"00007\.jpg cannot be read"):
        write_manifest(root)
    assert (root / NAME).read_bytes() == before
    assert [p.name for p in root.iterdir() if "partial" in p.name] == []


def test_the_file_is_plain_csv(root):
    write_manifest(root)
    with (root / NAME).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
