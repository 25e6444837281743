"""Windows by time stamps: every frame is in one, whatever the frame rate does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prediction.windows import SlidingWindows, Span, WholeVideo, video_length


def cut(times, length, stride, duration=None):
    cutter = SlidingWindows(length, stride)
    spans = []
    for seconds in times:
        oldest = cutter.oldest
        spans += [(span, oldest) for span in cutter.add(seconds)]
    step = times[-1] / (len(times) - 1) if len(times) > 1 else 0.04
    oldest = cutter.oldest
    spans += [(span, oldest) for span in cutter.end(duration or times[-1] + step)]
    assert all(span.first >= oldest for span, oldest in spans)  # its frames are still kept
    return [span for span, _ in spans]


def even(count, rate):
    return [number / rate for number in range(count)]


def test_windows_of_a_steady_video_lie_a_stride_apart():
    spans = cut(even(100, 25), length=2.0, stride=1.0)
    assert [(s.start, s.end, s.first, s.last) for s in spans] == [
        (0.0, 2.0, 0, 49),
        (1.0, 3.0, 25, 74),
        (2.0, 4.0, 50, 99),
    ]


def test_the_last_window_ends_with_the_video():
    spans = cut(even(110, 25), length=2.0, stride=1.0)
    assert (spans[-1].first, spans[-1].last) == (60, 109)
    assert spans[-1].end == pytest.approx(4.4)
    assert len(spans) == 4


def test_a_video_shorter_than_a_window_is_one_window():
    assert cut(even(7, 10), length=3.0, stride=1.5) == [Span(0.0, pytest.approx(0.7), 0, 6)]
    assert cut([0.0], length=3.0, stride=1.5) == [Span(0.0, pytest.approx(0.04), 0, 0)]


def test_half_a_frame_more_is_no_further_window():
    assert len(cut(even(50, 25), length=2.0, stride=1.0)) == 1
    assert len(cut(even(50, 25), length=1.99, stride=1.0)) == 1
    assert len(cut(even(50, 25), length=2.01, stride=1.0)) == 1


def test_no_window_ends_after_the_video():
    times = even(50, 25)
    for duration in (1.987, 1.99, 2.0):
        (span,) = cut(times, length=2.0, stride=1.0, duration=duration)
        assert (span.end, span.first, span.last) == (duration, 0, 49)


def test_the_last_frame_is_shown_as_long_as_most():
    assert video_length([0.0]) == 0.04
    assert video_length([0.0, 0.5]) == 1.0
    assert video_length([0.0, 0.1, 20.0]) == pytest.approx(20.1)  # a gap is no frame
    assert video_length([0.0, 0.1, 0.2, 20.0, 20.1]) == pytest.approx(20.2)
    assert video_length([*even(50, 25), *(2.0 + t for t in even(60, 10))]) == pytest.approx(8.0)


def test_rounded_time_stamps_change_no_window():
    exact = cut(even(200, 30), length=2.0, stride=1.0)
    rounded = cut([round(t, 3) for t in even(200, 30)], length=2.0, stride=1.0)
    assert [(s.first, s.last) for s in exact] == [(s.first, s.last) for s in rounded]


def test_a_gap_has_no_windows_and_takes_no_time():
    times = [*even(50, 25), *(1e9 + t for t in even(50, 25))]
    spans = cut(times, length=1.0, stride=0.5)
    assert len(spans) < 12
    assert {n for s in spans for n in range(s.first, s.last + 1)} == set(range(100))


def test_memory_does_not_grow_with_the_video():
    cutter = SlidingWindows(2.0, 1.0)
    for number, seconds in enumerate(even(10_000, 25)):
        cutter.add(seconds)
        assert number + 1 - cutter.oldest <= 2.0 * 25 + 2


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.02, 0.033, 0.04, 0.1, 0.5, 4.0]), min_size=0, max_size=80),
    length=st.floats(0.1, 5),
    share=st.floats(0.2, 1.0),
)
def test_every_frame_of_any_video_is_in_a_window(steps, length, share):
    times = [0.0, *np.cumsum(steps).tolist()]
    spans = cut(times, length, length * share)
    assert {n for s in spans for n in range(s.first, s.last + 1)} == set(range(len(times)))
    starts = [s.start for s in spans]
    assert starts == sorted(starts)
    for span in spans:
        inside = [n for n, t in enumerate(times) if span.start - 1e-3 <= t < span.end - 1e-3]
        assert [span.first, span.last] == [inside[0], inside[-1]]


def test_strides_longer_than_windows_leave_gaps_on_purpose():
    spans = cut(even(100, 10), length=1.0, stride=3.0)
    assert [s.start for s in spans] == [0.0, 3.0, 6.0, 9.0]


def test_a_whole_video_is_one_window():
    cutter = WholeVideo()
    assert [cutter.add(seconds) for seconds in even(9, 3)] == [[]] * 9
    assert cutter.end(3.0) == [Span(0.0, 3.0, 0, 8)]
    assert cutter.oldest == 0


def test_a_window_has_a_length():
    with pytest.raises(ValueError, match="length and a stride"):
        SlidingWindows(0.0, 1.0)
