"""Keypoints that people already have, from other programs: one file a format, and their table."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from datasets.importers.alphapose import AlphaPose
from datasets.importers.npy import NpyFrames, NpzClips
from datasets.importers.openpose import OpenPose
from datasets.importers.people import KeypointSource
from datasets.importers.pyskl import open_annotations


def _plain(
    read: Callable[[Path], KeypointSource],
) -> Callable[[Path], AbstractContextManager[KeypointSource]]:
    @contextmanager
    def opened(source: Path) -> Iterator[KeypointSource]:
        yield read(source)

    return opened


# What `--format` may be. Every reader is given --source and yields its `KeypointSource`.
READERS: dict[str, Callable[[Path], AbstractContextManager[KeypointSource]]] = {
    "alphapose": _plain(AlphaPose.open),
    "openpose": _plain(OpenPose.open),
    "npy": _plain(NpyFrames.open),
    "npz": _plain(NpzClips.open),
    "pyskl": open_annotations,
}
