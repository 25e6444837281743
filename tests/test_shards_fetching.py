"""Shards that are fetched: whole or not at all, within their room, once for all processes."""

import multiprocessing
import os
import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import opts
from datasets.loading import build_train_loader
from datasets.opening import open_dataset
from datasets.shards import fetching, locks
from datasets.shards.fetching import CachedShards, Remote, is_remote
from datasets.shards.index import StoredFile, load_index
from datasets.shards.opening import open_shards
from errors import InputError
from tools import pack_dataset

pytest.importorskip("webdataset")
SIZE = 4096


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def shards(tmp_path, make_dataset):
    root = make_dataset(clips=(6, 2, 2))
    output = tmp_path / "shards"
    pack_dataset.main([
        "--dataset", "FRFS", "--dataset_path", str(root.parent), "--output", str(output),
        "--workers", "0",
    ])  # fmt: skip
    return output


def counted(folder, log):
    """Return a template that copies a file and notes it."""
    return f"pipe:echo {{}} >> '{log}'; cat '{folder}'/{{}}"


def fetched(log):
    return sorted(log.read_text().split()) if log.exists() else []


def make_store(tmp_path, count=4, most=10 * SIZE, location=None):
    """Return a store of shards of 4096 bytes, each full of its number."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    stored = []
    for number in range(count):
        path = source / f"train-{number:06d}.tar"
        path.write_bytes(bytes([number]) * SIZE)
        digest = fetching.hashlib.sha256(path.read_bytes()).hexdigest()
        stored.append(StoredFile(path.name, SIZE, digest, 1))
    location = location or counted(source, tmp_path / "log")
    cache = tmp_path / "cache"
    return CachedShards(Remote(location), cache / "set", tuple(stored), cache, most)


def kept(store):
    return sorted(path.name for path in store.folder.glob("*.tar"))


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://host/data/", "https://host/data/train-000000.tar"),
        ("s3://bucket/x", "s3://bucket/x/train-000000.tar"),
        ("pipe:curl -sf https://h/{}?t=1", "pipe:curl -sf https://h/train-000000.tar?t=1"),
    ],
)
def test_urls(location, url):
    assert is_remote(location)
    assert Remote(location).url("train-000000.tar") == url


def test_what_is_no_url_is_a_folder(tmp_path):
    assert not any(map(is_remote, ["shards", "/a/b", "C:\\shards", "./x y"]))
    with pytest.raises(InputError, match="--shards should name a folder"):
        open_shards(str(tmp_path), "FRFS", tmp_path / "c", 10**9)


@pytest.mark.skipif(shutil.which("curl") is None, reason="HTTP is fetched with curl")
def test_over_http(shards, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=str(shards))
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        packed = open_shards(url, "FRFS", tmp_path / "c", 10**9).packed
        spans = [(0, 700), (1024, 9)]
        whole = (shards / "train-000000.tar").read_bytes()
        assert packed.store.read(0, spans) == [whole[a : a + n] for a, n in spans]
        with pytest.raises(InputError, match=r"index\.json from http.* does not come"):
            open_shards(f"{url}/nowhere", "FRFS", tmp_path / "c", 10**9)
        server.shutdown()


def test_a_shard_is_fetched_once(tmp_path):
    store = make_store(tmp_path)
    for _ in range(3):
        assert store.read(1, [(0, 3), (SIZE - 1, 1)]) == [b"\1\1\1", b"\1"]
    assert fetched(tmp_path / "log") == ["train-000001.tar"]


def test_the_least_recently_used_goes(tmp_path):
    store = make_store(tmp_path, most=2 * SIZE)
    for shard in (0, 1, 0, 2):
        store.read(shard, [(0, 1)])
        time.sleep(0.02)
    assert kept(store) == ["train-000000.tar", "train-000002.tar"]


def test_a_shard_that_is_read_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_PATIENCE_SECONDS", 0.3)
    store = make_store(tmp_path, most=SIZE)
    store.read(0, [(0, 1)])
    with locks.reading(store.path(0), SIZE) as file:
        with pytest.raises(InputError, match="raise --shard_cache_gb"):
            store.read(1, [(0, 1)])
        assert file.read(1) == b"\0"
    assert store.read(1, [(0, 1)]) == [b"\1"]
    assert kept(store) == ["train-000001.tar"]


def read_many(store, seed):
    rng = np.random.default_rng(seed)
    for shard in rng.integers(0, len(store.shards), 60).tolist():
        assert store.read(shard, [(0, SIZE)]) == [bytes([shard]) * SIZE]
        with locks.locked(store.base / ".room.lock"):  # nothing is removed meanwhile
            total = sum(path.stat().st_size for path in store.folder.glob("*.tar"))
        assert total <= store.most


@pytest.mark.parametrize("most", [2, 10])
def test_processes_share(most, tmp_path):
    store = make_store(tmp_path, count=5, most=most * SIZE)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=read_many, args=(store, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    if most == 10:
        assert fetched(tmp_path / "log") == [stored.name for stored in store.shards]


FAULTS = {
    "nothing": ("pipe:false # {}", "does not come|ends after 0"),
    "short": ("pipe:head -c 100 '%s'/{}", "ends after 100 of 4,096 bytes"),
    "long": ("pipe:cat '%s'/{} '%s'/{}", "has more than 4,096 bytes|does not come"),
    "other": ("pipe:tr '\\000' x < '%s'/{}", "has another SHA-256"),
    "no such program": ("pipe:no-such-program-here {} 2>/dev/null", "does not come|ends after 0"),
    "unknown scheme": ("gopher://host/{}", "does not come"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_does_not_come_whole_is_not_there(case, tmp_path, capfd):
    location, message = FAULTS[case]
    store = make_store(tmp_path)
    source = str(tmp_path / "source")
    bad = CachedShards(
        Remote(location.replace("%s", source)), store.folder, store.shards, store.base, store.most
    )
    with pytest.raises(InputError, match=message) as caught:
        bad.read(0, [(0, 1)])
    assert "3 times" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert kept(store) == []
    assert store.read(0, [(0, 1)]) == [b"\0"]


def test_a_try_that_fails_is_made_again(tmp_path):
    flag = tmp_path / "flag"
    location = f"pipe:test -e '{flag}' && cat '{tmp_path}/source'/{{}} || (touch '{flag}'; false)"
    assert make_store(tmp_path, location=location).read(2, [(0, 1)]) == [b"\2"]


def test_a_killed_fetch_leaves_nothing_that_counts(tmp_path):
    source = tmp_path / "source"
    slow = make_store(tmp_path, most=SIZE, location=f"pipe:head -c 9 '{source}'/{{}}; exec sleep 5")
    process = multiprocessing.get_context("fork").Process(target=slow.read, args=(0, [(0, 1)]))
    process.start()
    partial = slow.folder / ".train-000000.tar.partial"
    while not partial.exists():
        time.sleep(0.01)
    time.sleep(0.3)  # the claim is there, then the download begins
    process.kill()
    process.join()
    assert partial.stat().st_size == SIZE
    store = make_store(tmp_path, most=SIZE)
    assert store.read(1, [(0, 1)]) == [b"\1"]  # its claim of the only place is void
    assert not partial.exists()
    assert store.read(0, [(0, 1)]) == [b"\0"]


def test_a_cut_or_emptied_file_is_fetched_again(tmp_path):
    store = make_store(tmp_path)
    store.read(0, [(0, 1)])
    for data in (b"", b"x" * 100):
        store.path(0).write_bytes(data)
        assert store.read(0, [(0, 1)]) == [b"\0"]
    store.path(0).unlink()
    assert store.read(0, [(0, 1)]) == [b"\0"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="--shard_cache"):
        make_store(tmp_path).read(0, [(0, 1)])


def test_an_index_that_changed_has_a_place_of_its_own(shards, tmp_path):
    location, cache = f"pipe:cat '{shards}'/{{}}", tmp_path / "cache"
    first = open_shards(location, "FRFS", cache, 10**9)
    text = (shards / "index.json").read_text()
    (shards / "index.json").write_text(text.replace('"seed": 0', '"seed": 7'))
    second = open_shards(location, "FRFS", cache, 10**9)
    assert first.folder != second.folder
    assert len(first.packed.index) == len(second.packed.index) == 10


def test_too_little_room_is_said_at_once(shards, tmp_path):
    with pytest.raises(InputError, match="--shard_cache_gb 1e-06 cannot hold it"):
        open_shards(f"pipe:cat '{shards}'/{{}}", "FRFS", tmp_path / "cache", 1000)


def test_an_order_that_would_fetch_shards_over_and_over_is_refused(tmp_path):
    store = make_store(tmp_path, count=12, most=10 * SIZE)
    in_order, mixed = np.repeat(np.arange(12), 5), np.tile(np.arange(12), 5)
    store.check_room(in_order, by_shards=False, shuffled=False)
    store.check_room(mixed, by_shards=True, shuffled=True)
    store.check_room(mixed % 10, by_shards=False, shuffled=True)
    for choice in ({"by_shards": False, "shuffled": True}, {"by_shards": False, "shuffled": False}):
        with pytest.raises(InputError, match="over and over: raise it"):
            store.check_room(mixed, **choice)
    few = make_store(tmp_path, count=12, most=8 * SIZE)
    with pytest.raises(InputError, match="over and over"):
        few.check_room(mixed, by_shards=True, shuffled=True)


def test_another_data_set_is_refused(shards, tmp_path):
    with pytest.raises(InputError, match="holds the data set 'FRFS', the command says --dataset x"):
        open_shards(str(shards), "x", tmp_path, 10**9)


def samples(args):
    loader = build_train_loader(args, open_dataset(args))
    loader.batch_sampler.start(3)
    return [(batch.clips, batch.frames.sum().item()) for batch in loader]


def options(*more):
    line = "--dataset FRFS --num_segments 4 --input_size 32 --pretrained none --arch resnet18"
    return opts.parse_train_args([*line.split(), "--batch-size", "2", *more])


@pytest.mark.parametrize("workers", ["0", "2"])
def test_remote_samples_are_those_of_the_folder(workers, shards, tmp_path):
    """In the order of clips; every shard is fetched once, whatever the number of workers."""
    log, cache = tmp_path / "log", tmp_path / "cache"
    remote = ["--shards", counted(shards, log), "--shard_cache", str(cache), "-j", workers]
    local = samples(options("--shards", str(shards), "-j", "0"))
    assert samples(options(*remote, "--shard_order", "clips")) == local
    names = fetched(log)
    assert names.count("train-000000.tar") == 1
    assert "val-000000.tar" not in names
    by_shards = samples(options(*remote))
    assert sorted(c for clips, _ in by_shards for c in clips) == sorted(
        c for clips, _ in local for c in clips
    )


def test_remote_shards_are_trained_on_one_after_the_other(shards, tmp_path):
    args = options("--shards", f"pipe:cat '{shards}'/{{}}", "--shard_cache", str(tmp_path / "c"))
    assert args.shard_order == "shards"
    dataset = build_train_loader(args, open_dataset(args)).dataset
    assert dataset.groups.tolist() == [0] * 6
    local = options("--shards", os.path.relpath(shards))
    assert local.shard_order == "clips"
    assert Path(local.shards) == shards
    assert build_train_loader(local, open_dataset(local)).dataset.groups is None
    assert load_index(shards).dataset == "FRFS"


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1:9/x/{}?token=secret", "pipe:exit 7; {}?token=secret"]
)
def test_why_a_file_does_not_come_is_short_and_tells_no_secret(location, monkeypatch):
    monkeypatch.setattr(fetching, "_PAUSE_SECONDS", 0)
    with pytest.raises(InputError, match="ends with exit code 7") as caught:
        Remote(location).read("index.json", 100)
    assert "secret" not in str(caught.value)
    assert "curl" not in str(caught.value)
