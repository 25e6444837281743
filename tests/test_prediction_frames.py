"""Time stamps of decoded frames: those of neighbours are put in order, the rest is left."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import pytest

from errors import InputError
from prediction.frames import VideoFile, in_order, timed


def decoded(stamps):
    for stamp in stamps:
        frame = av.VideoFrame(16, 16, "rgb24")
        frame.pts, frame.time_base = stamp, Fraction(1, 25)
        yield frame


def ordered(*stamps):
    return [frame.pts for frame in in_order(decoded(stamps))]


def test_stamps_of_neighbours_are_put_in_order():
    assert ordered(0, 1, 2, 4, 3, 5, 7, 6) == list(range(8))
    assert ordered(1, 0, 2) == [0, 1, 2]
    assert ordered(0, 3, 5, 9) == [0, 3, 5, 9]
    assert ordered(7) == [7]
    assert ordered() == []


def test_other_stamps_are_left():
    assert ordered(0, 1, None, 2, 3) == [0, 1, None, 2, 3]
    assert ordered(5, 6, 7, 0, 1, 2) == [5, 6, 7, 0, 1, 2]  # begins anew
    assert ordered(0, 1, 1, 2) == [0, 1, 1, 2]
    seconds = [frame.seconds for frame in timed(in_order(decoded([0, 1, 1, 9, 0, 2])), 25)]
    assert all(one < two for one, two in pairwise(seconds))


def test_no_frame_is_lost_where_decoding_fails():
    def broken():
        yield from decoded([0, 2, 1])
        raise InputError("cut")

    seen = []

    def watch():
        for frame in in_order(broken()):
            seen.append(frame.pts)

    with pytest.raises(InputError, match="cut"):
        watch()
    assert seen == [0, 1, 2]


def test_frames_come_when_the_index_says():
    shared = Path(__file__).resolve().parents[2] / "shared"
    path = shared / "data" / "clips" / "test_xvid.avi"
    if not path.is_file():
        pytest.skip("../shared/data is not part of the project: no video with packed B-frames")
    video = VideoFile(path)
    seconds = [frame.seconds for frame in video.frames()]
    assert seconds == pytest.approx(video.times())
