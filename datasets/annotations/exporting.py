"""Keypoints as an annotation pickle that PYSKL and MMAction2 read."""

import pickle
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from errors import InputError
from files import replacing


@dataclass(frozen=True, slots=True)
class Annotation:
    """One clip.

    Attributes:
        name: `frame_dir`, without the ending of a video.
        label: class, None for none.
        tracks: (N, M, V, 3) x, y in pixels and confidence, or (N, M, V, 4) x, y, z in metres and
            confidence; undetected joints are 0.
        size: (width, height) of the frames; None in three dimensions.
    """

    name: str
    label: int | None
    tracks: np.ndarray
    size: tuple[int, int] | None = None

    def fields(self, dtype: type = np.float32) -> dict[str, Any]:
        """Return the dict that a pickle holds, numbers in half or single precision.

        Raises:
            InputError: a coordinate is too far for half precision.
        """
        slots = np.moveaxis(self.tracks, 1, 0)  # (M, N, V, D)
        dims = slots.shape[-1] - 1
        fields: dict[str, Any] = {"frame_dir": self.name, "total_frames": len(self.tracks)}
        if self.label is not None:
            fields["label"] = self.label
        if self.size is not None:
            fields["img_shape"] = fields["original_shape"] = (self.size[1], self.size[0])
        far = float(np.abs(slots[..., :dims]).max(initial=0))
        if far > float(np.finfo(dtype).max):
            raise InputError(
                f"clip {self.name[:80]!r} has a coordinate of {far:.6g}, too far for half "
                "precision: write it in single precision"
            )
        fields["keypoint"] = np.ascontiguousarray(slots[..., :dims], dtype)
        if dims == 2:
            fields["keypoint_score"] = np.ascontiguousarray(slots[..., dims], dtype)
        return fields


def write_annotations(
    path: Path,
    annotations: Iterable[Annotation],
    splits: Mapping[str, Sequence[str]],
    dtype: type = np.float32,
) -> int:
    """Write a pickle {split, annotations}, whole or not at all.

    Clips are pickled one by one, so that memory holds one of them.

    Args:
        path: of the pickle; its folder is made.
        annotations: of the clips.
        splits: name -> clips; those without an annotation are left out.
        dtype: of the keypoints, np.float16 or np.float32.

    Returns:
        The number of clips.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    with replacing(path) as file:
        # {"annotations": [...], "split": ...}, the list opened here and filled piece by piece.
        file.write(b"\x80\x04}(" + _text("annotations") + b"]")
        for annotation in annotations:
            file.write(_value(annotation.fields(dtype)) + b"a")
            written.add(annotation.name)
        kept = {split: [name for name in ids if name in written] for split, ids in splits.items()}
        file.write(_text("split") + _value(kept) + b"u.")
    return len(written)


# ---------------------------------------------------------------- the opcodes of a pickle


def _value(value: object) -> bytes:
    """Return opcodes that leave a value on the stack.

    Not by `pickle.dumps`: numpy 2 names itself in a way that numpy 1 does not know, which most
    installations of the toolboxes have; each reads the older name.
    """
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        items = (_value(key) + _value(held) for key, held in value.items())
        return b"}(" + b"".join(items) + b"u"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_value, value)) + b"t"
    if isinstance(value, Sequence):
        return b"](" + b"".join(map(_value, value)) + b"e"
    return pickle.dumps(value, 2)[2:-1]  # a number, without the protocol and the end


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(data)) + data


def _array(array: np.ndarray) -> bytes:
    """Return opcodes of an array as numpy writes them."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    kind = _text(f"{array.dtype.kind}{array.dtype.itemsize}")
    order = _text("|" if array.dtype.itemsize == 1 else "<")
    minus_one = pickle.dumps(-1, 2)[2:-1]
    dtype = (
        b"cnumpy\ndtype\n(" + kind + b"\x89\x88tR"  # dtype(kind, False, True)
        b"(K\x03" + order + b"NNN" + minus_one * 2 + b"K\x00tb"
    )
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    content = b"\x8e" + struct.pack("<Q", len(data)) + data
    return empty + b"(K\x01" + _value(array.shape) + dtype + b"\x89" + content + b"tb"
