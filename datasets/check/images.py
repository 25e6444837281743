"""What the bytes of an image file say without decoding its pixels."""

import re
import struct
import zlib
from dataclasses import dataclass

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8\xff"
# Entropy-coded data goes on over stuffed bytes and restart markers (ITU T.81, B.1.1.5).
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_ORIENTATION = 0x0112
# Smaller than any crop: a mistake, or a tracking pixel of a web page.
_LEAST_SIDE = 8


@dataclass(slots=True)
class ImageFacts:
    """What an image file says of itself.

    Attributes:
        size: (width, height) in pixels, None where no header says it.
        end: bytes up to and with the end marker, None where there is no end.
        notes: what is unusual about it.
        is_sound: False where a checksum is wrong.
    """

    size: tuple[int, int] | None = None
    end: int | None = None
    notes: tuple[str, ...] = ()
    is_sound: bool = True


def inspect_bytes(data: bytes) -> tuple[ImageFacts, list[tuple[str, str]]]:
    """Look at a file's bytes: kind of finding and words that follow the file's name."""
    if not data:
        return ImageFacts(), [("frame_empty", "has 0 bytes")]
    if data.startswith(_PNG_START):
        facts = _inspect_png(data)
    elif data.startswith(_JPEG_START):
        facts = _inspect_jpeg(data)
    else:
        start = " ".join(f"{byte:02x}" for byte in data[:4])
        return ImageFacts(), [("frame_not_image", f"begins with bytes {start}: no JPEG or PNG")]
    return facts, list(_faults(facts, len(data)))


def _faults(facts: ImageFacts, length: int) -> list[tuple[str, str]]:
    faults = []
    if facts.end is None:
        faults.append(("frame_truncated", f"ends after {length} bytes without an end marker"))
    elif facts.end < length:
        tail = length - facts.end
        faults.append(("frame_tail", f"has {tail} bytes after its end marker"))
    if not facts.is_sound:
        faults.append(("frame_corrupt", "has a wrong checksum"))
    if facts.size is not None and 0 < min(facts.size) < _LEAST_SIDE:
        faults.append(("frame_unusual", f"is {facts.size[0]}x{facts.size[1]} pixels"))
    faults += [("frame_unusual", note) for note in facts.notes]
    return faults


def _inspect_png(data: bytes) -> ImageFacts:
    """Walk the chunks of a PNG (ISO 15948, 5.3), checking their sums."""
    facts, place = ImageFacts(), len(_PNG_START)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        name, stop = data[place + 4 : place + 8], place + 12 + length
        if stop > len(data):
            return facts
        told = int.from_bytes(data[stop - 4 : stop], "big")
        facts.is_sound &= zlib.crc32(data[place + 4 : stop - 4]) == told
        if name == b"IHDR" and length >= 9:
            width, height, depth = struct.unpack_from(">IIB", data, place + 8)
            facts.size = (width, height)
            if depth == 16:
                facts.notes += ("has 16 bits per colour, 8 are used",)
        if name == b"IEND":
            facts.end = stop
            return facts
        place = stop
    return facts


def _inspect_jpeg(data: bytes) -> ImageFacts:
    """Walk the segments of a JPEG (ITU T.81, annex B) to its end marker."""
    facts, place = ImageFacts(), 2
    while match := _NEXT_MARKER.match(data, place):
        marker, place = data[match.end() - 1], match.end()
        if marker == _END:
            facts.end = place
            return facts
        length = int.from_bytes(data[place : place + 2], "big")
        _read_segment(facts, marker, data[place + 2 : place + length])
        place += length
        if marker == _SCAN:
            found = _NEXT_MARKER.search(data, place)
            if not found:
                return facts
            place = found.start()
    return facts


def _read_segment(facts: ImageFacts, marker: int, content: bytes) -> None:
    if marker in _FRAME_MARKERS and len(content) >= 6:
        precision, height, width, parts = struct.unpack_from(">BHHB", content)
        facts.size = (width, height)
        if parts == 4:
            facts.notes += ("is CMYK, RGB is used",)
        if precision != 8:
            facts.notes += (f"has {precision} bits per colour",)
    elif marker == _APP1 and content.startswith(b"Exif\0\0"):
        orientation = _exif_orientation(content[6:])
        if orientation not in (None, 1):
            facts.notes += (
                f"has a rotation tag (EXIF orientation {orientation}), which is ignored",
            )


def _exif_orientation(tiff: bytes) -> int | None:
    """Find the orientation in the first directory of a TIFF header (Exif 2.32, 4.6)."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, 200), 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:
        return None
    return None
