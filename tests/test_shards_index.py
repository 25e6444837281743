"""An index comes from anywhere: it is used as it should be, or refused in one line."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datasets.records import load_records
from datasets.scan import NOMINAL_SIZE, find_clips
from datasets.shards.clips import Needs, ShardClips, find_packed_clips
from datasets.shards.fetching import LocalShards
from datasets.shards.index import load_index, npz_bytes
from datasets.shards.opening import open_shards
from datasets.shards.reading import Packed
from errors import InputError
from tools import pack_dataset


@pytest.fixture
def shards(tmp_path, dataset):
    output = tmp_path / "shards"
    pack_dataset.main([
        "--dataset", "FRFS", "--dataset_path", str(dataset.parent), "--output", str(output),
        "--workers", "0",
    ])  # fmt: skip
    return output


def rewrite(folder, change):
    path = folder / "index.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rewrite_arrays(folder, change):
    """Change the arrays, and the index so that it fits them."""
    with np.load(folder / "index.npz", allow_pickle=False) as file:
        arrays = dict(file)
    change(arrays)
    data = npz_bytes(arrays)
    (folder / "index.npz").write_bytes(data)
    describe(folder, data)


def describe(folder, data):
    def note(value):
        for file in value["files"]:
            if file["file"] == "index.npz":
                file.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    rewrite(folder, note)


def refused(folder):
    with pytest.raises(InputError) as caught:
        load_index(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


NAMES = [
    "../../etc/passwd", "/etc/passwd", "train-000000.tar; touch x", "train-000000.tar\n",
    "$(touch x)", "train-000000.tar/../../x", "train-٠٠٠٠٠٠.tar", "", "x" * 5000, None, 7,
    "index.json", ".train-000000.tar", "train-000000.tar\0",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["shards", "files"])
def test_names_are_plain(kind, name, shards):
    rewrite(shards, lambda value: value[kind][0].update(file=name))
    assert "cannot be used (it names the file" in refused(shards)


def change_version(value):
    value["version"] = 2


CHANGES = {
    "newer": (change_version, "of version 2, not 1"),
    "foreign": (lambda v: v.update(format="x"), "no index of shards"),
    "no shards": (lambda v: v.update(shards=[]), "lacks a file"),
    "no list": (lambda v: v.update(shards={"a": 1}), "are no list"),
    "twice": (lambda v: v["shards"].append(v["shards"][0]), "names one twice"),
    "no arrays": (lambda v: v["files"].pop(), "lacks a file"),
    "no sum": (lambda v: v["shards"][0].update(sha256="x"), "no length and SHA-256"),
    "negative": (lambda v: v["shards"][0].update(bytes=-1), "no length and SHA-256"),
    "huge": (lambda v: v["shards"][0].update(bytes=10**30), "no length and SHA-256"),
    "bool": (lambda v: v["shards"][0].update(clips=True), "no length and SHA-256"),
    "records": (lambda v: v.update(shards=[1]), "is no record"),
    "more clips": (lambda v: v["shards"][0].update(clips=10**12), "has the shape"),
    "data set": (lambda v: v.update(dataset=["a"]), "names no data set"),
    "no data set": (lambda v: v.pop("dataset"), "cannot be used"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_an_index_that_is_none(case, shards):
    change, message = CHANGES[case]
    rewrite(shards, change)
    assert message in refused(shards)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, "\xff", '{"a": NaN}'])
def test_text_that_is_no_index(text, shards):
    (shards / "index.json").write_bytes(text.encode("latin-1"))
    assert "index.json cannot be used" in refused(shards)


def put(name, place, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][place] = value

    return change


ARRAYS = {
    "beyond the end": (put("start", 0, 2**40), "beyond the end"),
    "not at a block": (put("start", 0, 100), "beyond the end"),
    "negative start": (put("start", 0, -512), "holds -512 in 'start'"),
    "no such shard": (put("shard", 0, 99), "names a shard"),
    "no such kind": (put("kind", 0, 77), "names a shard or a kind"),
    "long member": (put("lengths", 1, 2**32 - 1), "beyond the end"),
    "no frames": (put("num_frames", 0, 0), "holds 0 in 'num_frames'"),
    "fewer members": (put("members", 0, 5), "should be|a member for each frame"),
    "frames": (put("num_frames", 0, 2**31 - 1), "a member for each frame"),
    "name": (put("name_bytes", 0, 2**31 - 1), "should be"),
    "no text": (put("names", slice(None), 255), "no readable index of shards"),
    "same names": (lambda a: a.update(names=np.tile(a["names"][:7], 8)[: len(a["names"])]), ""),
    "floats": (lambda a: a.update(start=a["start"].astype(float)), "holds no 'start' of type"),
    "missing": (lambda a: a.pop("lengths"), "holds no 'lengths'"),
    "shape": (lambda a: a.update(start=a["start"][:-1]), "it should be (8,)"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_do_not_fit(case, shards):
    change, message = ARRAYS[case]
    rewrite_arrays(shards, change)
    found = refused(shards)
    assert any(part in found for part in message.split("|"))


def test_pickles_and_other_files_are_not_opened(shards, tmp_path):
    class Canary:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "canary",))

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("shard.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array([Canary()], object), allow_pickle=True)
    for data in (buffer.getvalue(), b"", b"PK\x03\x04 nothing", b"x" * 10_000):
        (shards / "index.npz").write_bytes(data)
        assert "is not the file that index.json describes" in refused(shards)
        describe(shards, data)
        assert "index.npz" in refused(shards)
    assert not (tmp_path / "canary").exists()


def test_random_changes_of_the_arrays_never_read_outside_a_shard(shards):
    """Bytes of index.npz changed at will, with a sum that fits: refused, or every read is."""
    data = (shards / "index.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            changed[place] = rng.integers(0, 256)
        (shards / "index.npz").write_bytes(changed)
        describe(shards, bytes(changed))
        try:
            index = load_index(shards)
        except InputError:
            continue
        packed = Packed(index, LocalShards(shards, index.shards))
        for row in range(len(index)):
            assert len(packed.members(row, [0, -1])) == 2


def test_a_shard_that_is_cut_missing_or_no_file(shards, dataset):
    records = load_records(dataset / "train_videofolder.txt")
    opened = open_shards(str(shards), "FRFS", shards, 1)
    clips, _ = find_packed_clips(opened.packed, records, Needs(True, True))
    path = shards / "train-000000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    with pytest.raises(InputError, match=r"train-000000\.tar is cut short"):
        [clip.images.load(np.arange(12), clip.size) for clip in clips]
    path.unlink()
    with pytest.raises(InputError, match=r"train-000000\.tar cannot be read"):
        clips[0].poses.load()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="regular file"):
        clips[0].poses.load()


@pytest.mark.parametrize("seed", range(5))
def test_damage_in_a_shard_is_named_with_its_clip(seed, shards, dataset):
    """What is not noticed is one flipped bit in the picture data of a JPEG, as in folders."""
    records = load_records(dataset / "train_videofolder.txt")
    clips, _ = find_packed_clips(
        open_shards(str(shards), "FRFS", shards, 1).packed, records, Needs(True, True)
    )
    path = shards / "train-000000.tar"
    start, length = clips.packed.index.spans(int(clips.rows[1]))[4]
    data = bytearray(path.read_bytes())
    data[start : start + length // 2] = np.random.default_rng(seed).bytes(length // 2)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"train-000000\.tar/train_1, frame 4"):
        clips[1].images.load(np.array([3]), clips[1].size)


def test_lists_must_fit(shards, dataset):
    packed = open_shards(str(shards), "FRFS", shards, 1).packed
    (shards / "own.txt").write_text("train_0 13 0\n")
    with pytest.raises(InputError, match="train_0 has 13 frames in its list and 12 in the shards"):
        find_packed_clips(packed, load_records(shards / "own.txt"), Needs(True, True))
    (shards / "own.txt").write_text("elsewhere 13 0\n")
    with pytest.raises(InputError, match="clip elsewhere of a list is not in the shards"):
        find_packed_clips(packed, load_records(shards / "own.txt"), Needs(True, True))


@pytest.mark.parametrize("has_size", [True, False])
@pytest.mark.parametrize("in_pixels", [True, False])
def test_the_size_of_keypoints_without_frames(has_size, in_pixels, make_dataset, tmp_path):
    root = make_dataset(poses="npz" if has_size else "npy")
    output = tmp_path / "s"
    pack_dataset.main([
        "--dataset", "FRFS", "--dataset_path", str(root.parent), "--output", str(output), "-j", "0",
    ])  # fmt: skip
    records = load_records(root / "val_videofolder.txt")
    plain, _ = find_clips(root, records, has_frames=False, has_poses=True, in_pixels=in_pixels)
    packed = open_shards(str(output), "FRFS", output, 1).packed
    clips, _ = find_packed_clips(packed, records, Needs(False, True, in_pixels))
    assert [clip.size for clip in clips] == [clip.size for clip in plain]
    if not has_size and not in_pixels:
        assert clips[0].size == NOMINAL_SIZE
    assert isinstance(clips[:1], ShardClips)
    assert len(clips[:1]) == 1
