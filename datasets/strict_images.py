"""Decide whether an image file is whole, more strictly than decoding it for training can.

libjpeg paints grey over what it cannot read in the middle of a JPEG and goes on; FFmpeg's decoder
can be told to stop. Both must be content. What no decoder can find: most single flipped bits in
the picture data of a JPEG, which has no checksum there (a manifest of sums finds those), and the
lack of the last 50 bytes where the end marker was put in their place.
"""

from hashlib import sha256
from pathlib import Path

import av

from datasets.frames import decode_image, image_size
from errors import InputError
from files import read_regular

# A frame of 50 million pixels, the most that is decoded, as a PNG without compression.
_MOST_BYTES = 200 * 2**20
_JPEG_START = b"\xff\xd8\xff"
_EXPLODE = {"err_detect": "crccheck+bitstream+buffer+explode"}


def check_image(path: Path) -> tuple[tuple[int, int], bytes]:
    """Decode an image strictly.

    Returns:
        (width, height) and the SHA-256 of the file, 32 bytes.

    Raises:
        InputError: it is not a regular file, not a whole JPEG or PNG image, or too large.
    """
    try:
        data = read_regular(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): extract the frames of this clip again"
        ) from None
    image_size(path)  # refuses by the header what would take gigabytes to decode
    if data.startswith(_JPEG_START) and not is_whole_jpeg(data):
        raise InputError(
            f"{path} is damaged (picture data break off or are wrong in {len(data)} bytes): "
            "extract the frames of this clip again"
        )
    height, width, _ = decode_image(path).shape
    return (width, height), sha256(data).digest()


def is_whole_jpeg(data: bytes) -> bool:
    """Say whether FFmpeg decodes a JPEG without an error; kinds that it does not know are whole."""
    context = av.CodecContext.create("mjpeg", "r")
    context.options = _EXPLODE
    context.thread_count = 1
    try:
        for packet in (av.Packet(data), None):
            context.decode(packet)  # type: ignore[attr-defined]
    except av.InvalidDataError:
        return False
    except av.FFmpegError:
        pass
    return True
