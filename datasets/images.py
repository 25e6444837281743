"""Single images, JPEG or PNG, decoded strictly: whole or not at all."""

import struct
from pathlib import Path

import cv2
import numpy as np

from errors import InputError
from files import read_regular

# More than any video frame; stops a header that promises gigabytes before anything is allocated.
MOST_PIXELS = 50_000_000
_MOST_BYTES = 200 * 2**20
_REMEDY = "extract the frames of this clip again"

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
# Start-of-frame markers; the gaps are tables, not frames.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_DATA = 0xDA

# Older versions of OpenCV decode to BGR alone.
_IS_RGB = hasattr(cv2, "IMREAD_COLOR_RGB")
_COLOUR = cv2.IMREAD_COLOR_RGB if _IS_RGB else cv2.IMREAD_COLOR
# The flags of reduced decoding hold that of BGR, which does not go with that of RGB.
_REDUCED = {
    factor: flags & ~cv2.IMREAD_COLOR | _COLOUR
    for factor, flags in (
        (2, cv2.IMREAD_REDUCED_COLOR_2),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (8, cv2.IMREAD_REDUCED_COLOR_8),
    )
}


def decode_image(
    path: Path, reduction: int = 1, expected: tuple[int, int] | None = None
) -> np.ndarray:
    """Read one image as (H, W, 3) uint8 RGB, as stored: rotation tags are ignored.

    Args:
        path: of a JPEG or PNG image.
        reduction: k = 1, 2, 4 or 8: decode at 1/k of its size, rounded up.
        expected: (width, height) of the first frame of its clip; None takes any.

    Raises:
        InputError: it is of another size, or cannot be read whole. (`cv2.imread` would return a
            picture of a truncated JPEG; `cv2.imdecode` does not.)
    """
    return decode_bytes(path, _read_bytes(path), reduction, expected)


def decode_bytes(
    place: object, data: bytes, reduction: int = 1, expected: tuple[int, int] | None = None
) -> np.ndarray:
    """Decode the bytes of one image as `decode_image` does that of a file.

    Args:
        place: what messages call it; made into text only then.
        data: of a JPEG or PNG image.
        reduction: as there.
        expected: as there.

    Raises:
        InputError: as there.
    """
    size = measure_bytes(place, data)
    if expected is not None and size != expected:
        raise InputError(
            f"{place} is {size[0]}x{size[1]} pixels, the first frame of its clip "
            f"{expected[0]}x{expected[1]}: {_REMEDY} at one size"
        )
    return _decode(place, data, size, reduction)


def _decode(place: object, data: bytes, size: tuple[int, int], reduction: int) -> np.ndarray:
    if data.startswith(_PNG_START) and not _has_whole_chunks(data):
        raise InputError(f"{place} is damaged ({len(data)} bytes are no whole PNG): {_REMEDY}")
    is_reduced = reduction > 1 and _has_square_colours(data)
    flags = _REDUCED[reduction] if is_reduced else _COLOUR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    factor = reduction if is_reduced else 1
    if image is None or image.shape != (-(-size[1] // factor), -(-size[0] // factor), 3):
        raise InputError(f"{place} is damaged ({len(data)} bytes do not decode): {_REMEDY}")
    if not _IS_RGB:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return image if factor == reduction else _shrink(image, reduction)


def _shrink(image: np.ndarray, reduction: int) -> np.ndarray:
    """Average squares of pixels, where decoding cannot do so."""
    height, width, _ = image.shape
    below, right = -height % reduction, -width % reduction
    whole = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    size = (whole.shape[1] // reduction, whole.shape[0] // reduction)
    return cv2.resize(whole, size, interpolation=cv2.INTER_AREA)


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image from its header, without decoding it.

    Raises:
        InputError: it cannot be read, is no image, or is too large.
    """
    return measure_bytes(path, _read_bytes(path))


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {_REMEDY}") from None


def measure_bytes(place: object, data: bytes) -> tuple[int, int]:
    """Return (width, height) of the bytes of an image from their header; see `image_size`."""
    size = _header_size(data)
    if size is None or 0 in size:
        raise InputError(f"{place} is no JPEG or PNG image ({len(data)} bytes): {_REMEDY}")
    if size[0] * size[1] > MOST_PIXELS:
        raise InputError(
            f"{place} is {size[0]}x{size[1]} pixels, frames may have at most "
            f"{MOST_PIXELS // 1_000_000} million: {_REMEDY} at a smaller size"
        )
    return size


def _has_square_colours(data: bytes) -> bool:
    """Return whether an image is a JPEG that keeps colours as coarsely across as down.

    libjpeg reduces each component for itself: of 4:2:2 and 4:1:1 it would blur the colours.
    """
    place = _jpeg_frame(data) if data.startswith(_JPEG_START) else None
    if place is None or len(data) < place + 12:
        return False
    factors = [divmod(byte, 16) for byte in data[place + 11 : place + 10 + 3 * data[place + 9] : 3]]
    if not factors:
        return False
    across, down = (max(factor) for factor in zip(*factors, strict=True))
    return all(across * v == down * h for h, v in factors)


def _has_whole_chunks(data: bytes) -> bool:
    """Say whether a PNG has all that its chunks promise: OpenCV takes memory for the promise."""
    place = len(_PNG_START)
    while place + 12 <= len(data):
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + struct.unpack_from(">I", data, place)[0]
    return False


def _header_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) as the header says, None when there is no such header."""
    try:
        if data.startswith(_PNG_START):
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        place = _jpeg_frame(data) if data.startswith(_JPEG_START) else None
        if place is None:
            return None
        height, width = struct.unpack_from(">HH", data, place + 5)
        return width, height
    except (struct.error, IndexError):
        return None


def _jpeg_frame(data: bytes) -> int | None:
    """Walk the segments of a JPEG (ITU T.81, annex B) to the one that holds size and sampling."""
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _JPEG_FRAMES:
            return place
        if marker == _JPEG_DATA:
            return None
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _JPEG_BARE:
            place += 2
        else:
            place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    return None
