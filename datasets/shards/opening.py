"""From what `--shards` names to shards that can be read."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from datasets.shards.fetching import CachedShards, LocalShards, Remote, is_remote
from datasets.shards.index import INDEX, MOST_INDEX_BYTES, load_index, read_index
from datasets.shards.locks import locked
from datasets.shards.reading import Packed
from errors import InputError
from files import holds, replacing


@dataclass(frozen=True, eq=False)
class ShardSet:
    """A packed data set.

    Attributes:
        folder: with its index, lists and `clips.csv`: as the folder of a data set without frames.
        packed: its clips.
        is_remote: whether shards are fetched when they are needed.
    """

    folder: Path
    packed: Packed
    is_remote: bool


def open_shards(location: str, dataset: str, cache: Path, most: int) -> ShardSet:
    """Open shards; of remote ones the index and the lists are fetched.

    Args:
        location: a folder, a URL, or a template with {} for the name of a file.
        dataset: name of the data set that they should hold.
        cache: where remote shards are kept.
        most: bytes that these may take.

    Raises:
        InputError: there are none, or of another data set.
    """
    if not is_remote(location) or Path(location).is_dir():
        folder = Path(location)
        index = load_index(folder)
        opened = ShardSet(folder, Packed(index, LocalShards(folder, index.shards)), False)
    else:
        opened = _open_remote(Remote(location), cache, most)
    found = opened.packed.index.dataset
    if found != dataset:
        raise InputError(
            f"{location.partition('?')[0]} holds the data set {found!r:.100}, "
            f"the command says --dataset {dataset}: name the same"
        )
    return opened


def _open_remote(remote: Remote, cache: Path, most: int) -> ShardSet:
    """Fetch what describes the shards into a folder that belongs to exactly this index."""
    data = remote.read(INDEX, MOST_INDEX_BYTES)
    _, shards, files = read_index(remote.url(INDEX).partition("?")[0], data)
    folder = cache / hashlib.sha256(data).hexdigest()[:24]
    largest = max(shard.num_bytes for shard in shards)
    if largest > most:
        raise InputError(
            f"a shard has {largest / 1e9:.3g} GB, --shard_cache_gb {most / 1e9:g} cannot hold it: "
            "raise that"
        )
    with locked(folder / ".index.lock"):
        for stored in files:
            path = folder / stored.name
            if not _is_same(path, stored.num_bytes, stored.sha256):
                path.parent.mkdir(parents=True, exist_ok=True)
                remote.copy(stored, path)
        if not holds(folder / INDEX, data):
            with replacing(folder / INDEX) as file:
                file.write(data)
    index = load_index(folder)
    store = CachedShards(remote, folder, index.shards, cache, most)
    return ShardSet(folder, Packed(index, store), True)


def _is_same(path: Path, num_bytes: int, sha256: str) -> bool:
    try:
        if path.stat().st_size != num_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
