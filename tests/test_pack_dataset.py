"""Packing: standard tar files, the same bytes again, going on after a kill, honest refusals."""

import json
import shutil
import signal
import tarfile
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from datasets.clip_table import ClipRow, write_table
from datasets.frames import ImageFrames
from datasets.records import ClipRecord, load_records
from datasets.scan import find_clips
from datasets.shards import packing, planning
from datasets.shards.clips import Needs, find_packed_clips
from datasets.shards.fetching import LocalShards
from datasets.shards.index import load_index
from datasets.shards.reading import Packed
from datasets.videos import VideoFrames
from errors import InputError
from ops.skeleton import COCO17
from tests.forking import launching
from tests.making_videos import write_video
from tools import pack_dataset


def pack(root, output, *more):
    pack_dataset.main([
        "--dataset", root.name, "--dataset_path", str(root.parent), "--output", str(output),
        "--workers", "0", *more,
    ])  # fmt: skip
    return output


def clips_of(output, records, **needs):
    index = load_index(output)
    packed = Packed(index, LocalShards(output, index.shards))
    return find_packed_clips(packed, records, Needs(True, True, **needs))[0]


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def same_clips(root, output, split="train"):
    """Compare every frame and keypoint of folders and shards."""
    records = load_records(root / f"{split}_videofolder.txt")
    plain, _ = find_clips(root, records, has_frames=True, has_poses=True)
    for a, b in zip(plain, clips_of(output, records), strict=True):
        every = np.arange(a.record.num_frames)
        assert (a.record, a.size, a.images.first) == (b.record, b.size, b.images.first)
        assert np.array_equal(a.images.load(every, a.size), b.images.load(every, b.size))
        blocks = np.concatenate(list(b.images.blocks(b.size, 5)))
        assert np.array_equal(blocks, a.images.load(every, a.size))
        if a.images.can_reduce:
            one, other = (list(c.images.stream(every[:2], a.size, 2)) for c in (a, b))
            assert np.array_equal(one, other)
        assert np.array_equal(a.keypoints, b.poses.load().keypoints_at(b.size))


def test_frames_and_keypoints_are_those_of_the_folders(dataset, tmp_path):
    output = pack(dataset, tmp_path / "s")
    for split in ("train", "val", "test"):
        same_clips(dataset, output, split)


# That package leaves files open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_shard_is_a_tar_file_that_webdataset_reads(dataset, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    output = pack(dataset, tmp_path / "s")
    read = webdataset.WebDataset(str(output / "train-000000.tar"), shardshuffle=False).decode()
    samples = list(read)
    assert {s["json"]["name"] for s in samples} == {f"train_{n}" for n in range(4)}
    for sample in samples:
        facts = sample["json"]
        assert facts["label"] == int(facts["name"][-1]) % 2
        assert sample["npz"]["keypoints"].shape == (12, 1, 17, 3)
        image = (dataset / "frames" / facts["name"] / "00003.jpg").read_bytes()
        raw = {key: value for key, value in sample.items() if key.endswith(".jpg")}
        assert len(raw) == 12
        assert image in tar_bytes(output / "train-000000.tar").values()


def tar_bytes(path):
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


def test_training_clips_are_mixed_and_the_others_in_order(make_dataset, tmp_path):
    root = make_dataset(clips=(12, 6, 2), num_frames=2)
    output = pack(root, tmp_path / "s")
    index = load_index(output)
    names = [index.name(row) for row in range(len(index))]
    assert sorted(names[:12]) == sorted(f"train_{n}" for n in range(12)) != names[:12]
    assert names[12:] == [f"val_{n}" for n in range(6)] + ["test_0", "test_1"]
    assert content(pack(root, tmp_path / "again")) == content(output)
    assert content(pack(root, tmp_path / "two", "--workers", "2")) == content(output)
    assert content(pack(root, tmp_path / "other", "--seed", "1")) != content(output)


def test_odd_names(make_dataset, tmp_path):
    root = make_dataset(clips=(4, 2, 2))
    for number, name in enumerate(["a/b c", "ünïcode 🎽", "<script>.x", "=1+1"]):
        old = f"train_{number}"
        for folder, suffix in (("frames", ""), ("poses", ".npz")):
            target = root / folder / f"{name}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            (root / folder / f"{old}{suffix}").rename(target)
        text = (root / "train_videofolder.txt").read_text(encoding="utf-8")
        (root / "train_videofolder.txt").write_text(text.replace(old, name), encoding="utf-8")
    output = pack(root, tmp_path / "my shards <1>")
    same_clips(root, output)
    assert all(len(name.split(".")[0]) == 9 for name in tar_bytes(output / "train-000000.tar"))


def test_png_stays_png_and_jpeg_is_made_when_asked(make_dataset, make_frames, tmp_path):
    root = make_dataset()
    for folder in (root / "frames").iterdir():
        shutil.rmtree(folder)
        make_frames(folder, 12, pattern="img_{:03d}.png", first=7)
    same_clips(root, pack(root, tmp_path / "png"))
    output = pack(root, tmp_path / "jpeg", "--frames", "jpeg", "--quality", "90")
    assert all(".png" not in name for name in tar_bytes(output / "train-000000.tar"))


@pytest.mark.parametrize("frames", ["keep", "jpeg", "video"])
def test_smaller_frames_take_their_keypoints_along(frames, make_dataset, tmp_path):
    root = make_dataset(size=(128, 72), poses="npy")
    output = pack(root, tmp_path / "s", "--short_side", "36", "--frames", frames)
    records = load_records(root / "val_videofolder.txt")
    for clip, plain in zip(
        clips_of(output, records),
        find_clips(root, records, has_frames=True, has_poses=True)[0],
        strict=True,
    ):
        assert clip.size == (64, 36)
        keypoints = clip.poses.load().keypoints_at(clip.size)
        assert np.allclose(keypoints[..., :2], plain.keypoints[..., :2] / 2, atol=1e-4)
        seen = clip.images.load(np.arange(12), clip.size).mean((1, 2, 3))
        full = plain.images.load(np.arange(12), plain.size).mean((1, 2, 3))
        assert np.abs(seen - full).max() < 3


def video_dataset(root, codec="libx264", **choices):
    """Two clips in one long video, one that is a whole video."""
    write_video(root / "videos" / "long.mp4", 60, codec=codec, gop=10, **choices)
    write_video(root / "videos" / "short.mp4", 12, codec=codec, **choices)
    rows = []
    for name, video, first, count in (
        ("one", "long.mp4", 13, 14), ("two", "long.mp4", 40, 20), ("three", "short.mp4", 0, 12),
    ):  # fmt: skip
        frames = VideoFrames(root / "videos" / video, 12, 0, None, (64, 48)).decode(first + 1)
        pts = [frame.pts for frame in frames][-1]
        rows.append(ClipRow(name, video, first, pts, count, 64, 48, 25.0, group="g " + video))
    write_table(root, rows)
    lines = "".join(f"{row.clip} {row.num_frames} {n % 2}\n" for n, row in enumerate(rows))
    (root / "train_videofolder.txt").write_text(lines)
    return rows


@pytest.mark.parametrize(
    ("codec", "choices"),
    [("libx264", {}), ("mpeg4", {}), ("libx264", {"rotation": 90})],
)
def test_parts_of_videos_are_cut_without_a_change(codec, choices, tmp_path):
    root = tmp_path / "data" / "own"
    rows = video_dataset(root, codec, **choices)
    if choices:
        write_table(root, [replace(row, width=48, height=64) for row in rows])
    output = pack(root, tmp_path / "s")
    records = load_records(root / "train_videofolder.txt")
    plain, _ = find_clips(root, records, has_frames=True, has_poses=False)
    index = load_index(output)
    packed = Packed(index, LocalShards(output, index.shards))
    clips, _ = find_packed_clips(packed, records, Needs(True, False))
    for a, b in zip(plain, clips, strict=True):
        every = np.arange(a.record.num_frames)
        assert np.array_equal(a.images.load(every, a.size), b.images.load(every, b.size))
        some = every[3:9:2]
        assert np.array_equal(list(b.images.stream(some, b.size)), a.images.load(some, a.size))
    members = tar_bytes(output / "train-000000.tar")
    cut = [len(data) for name, data in members.items() if name.endswith(".mkv")]
    assert len(cut) >= 2
    assert max(cut) < (root / "videos" / "long.mp4").stat().st_size
    assert content(pack(root, tmp_path / "again")) == content(output)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with launching("tools.pack_dataset", tmp_path_factory.mktemp("printed")) as launcher:
        yield launcher


def test_a_killed_program_goes_on(make_dataset, tmp_path, program):
    root = make_dataset(clips=(40, 6, 6), poses=None)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    image = cv2.imencode(".jpg", noise)[1].tobytes()  # some 100 KB, so that it takes a while
    for path in root.glob("frames/*/*.jpg"):
        path.write_bytes(image)
    whole = content(pack(root, tmp_path / "whole", "--shard_mb", "4"))
    output = tmp_path / "s"
    line = ["--dataset", "FRFS", "--dataset_path", root.parent, "--output", output]
    line += ["--shard_mb", "4"]
    for _ in range(3):
        before = len(list(output.glob("*.tar")))
        started = program.start(*line)
        while len(list(output.glob("*.tar"))) < before + 2 and started.poll() is None:
            time.sleep(0.001)
        started.send_signal(signal.SIGKILL, whole_group=True)
        started.wait()
        for path in output.glob("*.tar"):
            assert path.read_bytes() == whole[path.name]
    done = program.run(*line)
    assert (done.poll(), done.stderr) == (0, "")
    assert "were there already" in done.stdout
    assert content(output) == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_one_line(workers, dataset, tmp_path, program):
    output = tmp_path / "s"
    line = ["--dataset", "FRFS", "--dataset_path", dataset.parent, "--output", output]
    done = program.run(*line, "-j", workers, most_bytes=60_000)
    assert done.poll() == 2
    assert done.stderr.count("\n") == 1
    assert "train-000000.tar" in done.stderr
    assert not list(output.glob("*.tar"))
    assert program.run(*line).poll() == 0  # there is room again
    assert len(load_index(output)) == 8


def without_val(root):
    (root / "val_videofolder.txt").unlink()


BAD = {
    "other options": (lambda r, o: pack(r, o, "--seed", "5"), "with other options"),
    "foreign folder": (lambda r, o: pack(r, r.parent.parent / "data"), "holds other files|lies in"),
    "inside the data set": (lambda r, o: pack(r, r / "s"), "name a folder outside"),
    "no data set": (lambda r, o: pack(r.parent / "no", o), "is not there"),
    "no list": (lambda r, o: (without_val(r), pack(r, o, "--splits", "val")), "is not there"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_refusals(case, dataset, tmp_path):
    output = pack(dataset, tmp_path / "s")
    before = content(output)
    attempt, message = BAD[case]
    with pytest.raises(InputError, match=message):
        attempt(dataset, output)
    assert content(output) == before


def test_packing_again_changes_nothing(dataset, tmp_path, capsys):
    output = pack(dataset, tmp_path / "s")
    before, times = content(output), [path.stat().st_mtime_ns for path in output.iterdir()]
    pack(dataset, output)
    assert content(output) == before
    assert [path.stat().st_mtime_ns for path in output.iterdir()] == times
    assert "3 of the shards were there already" in capsys.readouterr().out
    (output / "val-000000.tar").unlink()
    pack(dataset, output)
    assert content(output) == before


@pytest.mark.parametrize("fault", ["missing", "empty", "size", "text"])
def test_a_bad_frame_stops_and_leaves_no_shard(fault, dataset, tmp_path, make_frames):
    path = dataset / "frames" / "train_2" / "00005.jpg"
    if fault == "missing":
        path.unlink()
    elif fault == "size":
        make_frames(tmp_path / "f", 1, size=(32, 32))
        path.write_bytes((tmp_path / "f" / "00001.jpg").read_bytes())
    else:
        path.write_bytes(b"" if fault == "empty" else b"<html>no image</html>")
    with pytest.raises(InputError, match="train_2"):
        pack(dataset, tmp_path / "s")
    assert not list((tmp_path / "s").glob("*.tar")) or fault != "missing"
    assert not (tmp_path / "s" / "index.json").exists()


def test_bad_keypoints_stop(dataset, tmp_path, make_archive, person):
    make_archive(dataset / "poses" / "train_1.npz", person(5))
    with pytest.raises(InputError, match="holds 5 poses, its clip has 12 frames"):
        pack(dataset, tmp_path / "s")


def test_clips_without_keypoints_are_counted(dataset, tmp_path, capsys):
    (dataset / "poses" / "train_1.npz").unlink()
    output = pack(dataset, tmp_path / "s")
    assert "1 of 8 clips have no keypoints" in capsys.readouterr().out
    records = load_records(dataset / "train_videofolder.txt")
    index = load_index(output)
    packed = Packed(index, LocalShards(output, index.shards))
    with pytest.raises(InputError, match="1 of 4 clips have no keypoints .* such as train_1"):
        find_packed_clips(packed, records, Needs(True, True))
    for policy, count in (("skip", 3), ("zero", 4)):
        clips, report = find_packed_clips(packed, records, Needs(True, True), policy)
        assert (len(clips), report.missing) == (count, 1)


def test_lists_table_and_folds_come_along(dataset, tmp_path):
    write_table(dataset, [ClipRow("train_0", group="anna", num_frames=12)])
    folder = dataset / "folds" / "1of2"
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        (folder / f"{split}_videofolder.txt").write_text(f"{split}_0 12 0\n")
    output = pack(dataset, tmp_path / "s")
    packed = content(output)
    for name in ("clips.csv", "folds/1of2/test_videofolder.txt", "val_videofolder.txt"):
        assert packed[name] == (dataset / name).read_bytes()
    facts = [
        json.loads(v) for n, v in tar_bytes(output / "train-000000.tar").items() if "json" in n
    ]
    assert [f["group"] for f in facts if f["name"] == "train_0"] == ["anna"]


def test_verify(dataset, tmp_path, capsys):
    output = pack(dataset, tmp_path / "s")
    pack_dataset.main(["--verify", str(output)])
    assert "as they were packed" in capsys.readouterr().out
    path = output / "val-000000.tar"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="val-000000.tar is not as it was packed"):
        pack_dataset.main(["--verify", str(output)])


def test_more_images_than_the_list_says(dataset, tmp_path):
    for path in dataset.glob("*.txt"):
        path.write_text(path.read_text().replace(" 12 ", " 9 "))
    same_clips(dataset, pack(dataset, tmp_path / "s"))


def test_a_clip_of_two_lists_is_packed_once(dataset, tmp_path):
    shutil.copy(dataset / "test_videofolder.txt", dataset / "val_videofolder.txt")
    index = load_index(pack(dataset, tmp_path / "s"))
    assert len(index) == 6


def test_two_programs_at_once(dataset, tmp_path):
    with packing.alone_in(tmp_path / "s"), pytest.raises(InputError, match="another program"):
        pack(dataset, tmp_path / "s")


def test_records_of_images_only(dataset):
    source = planning.Source(dataset, {}, COCO17, 0.0, planning.Encoding())
    record = ClipRecord("train_0", 12, 0)
    assert isinstance(source.frames(record), ImageFrames)
    size = sum(p.stat().st_size for p in (dataset / "frames" / "train_0").iterdir())
    found, mark = planning.source_bytes(source, record)
    assert found == size
    poses = dataset / "poses" / "train_0.npz"
    with np.load(poses) as archive:
        changed = {**archive, "keypoints": archive["keypoints"] * 0.5}
    assert planning.source_bytes(source, record) == (size, mark)
    np.savez(poses, **changed)
    assert planning.source_bytes(source, record)[1] != mark


@pytest.mark.parametrize("change", ["keypoints", "clips.csv", "frame"])
def test_a_data_set_that_changed_is_not_taken_for_packed(change, dataset, tmp_path):
    line = ["--dataset", dataset.name, "--dataset_path", str(dataset.parent)]
    line += ["--output", str(tmp_path / "out"), "-j", "0"]
    pack_dataset.main(line)
    if change == "keypoints":
        poses = dataset / "poses" / "train_0.npz"
        with np.load(poses) as archive:
            np.savez(poses, **{**archive, "keypoints": archive["keypoints"] * 0.5})
    elif change == "clips.csv":
        write_table(dataset, [ClipRow("train_0", group="a")])
    else:
        frame = dataset / "frames" / "train_0" / "00001.jpg"
        frame.write_bytes((dataset / "frames" / "train_0" / "00002.jpg").read_bytes() + b"\0")
    with pytest.raises(InputError, match="name a new folder"):
        pack_dataset.main(line)
