"""Events from windows: in order, apart, inside the video, equal to a brute force search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prediction.events import EventRule, find_events, spread
from prediction.results import Window

CLASSES = ("landed", "fall")


def window(start, end, fall, track=0):
    return Window(track, start, end, 0, 0, (1 - fall, fall))


def test_a_moment_has_the_mean_of_the_windows_that_cover_it():
    pieces = spread([(0, 2, 0.2), (1, 3, 0.8)])
    assert [(p.start, p.end, p.probability) for p in pieces] == [
        (0, 1, 0.2),
        (1, 2, 0.5),
        (2, 3, 0.8),
    ]


def test_an_event_is_where_the_mean_reaches_the_threshold():
    windows = [window(0, 2, 0.1), window(1, 3, 0.95), window(2, 4, 0.7), window(3, 5, 0.0)]
    (event,) = find_events(windows, CLASSES, EventRule(merge_seconds=0))
    assert (event.start, event.end, event.probability) == (1, 3, 0.95)
    assert (event.label, event.track) == ("fall", 0)


def test_short_pauses_are_bridged_and_short_events_dropped():
    windows = [window(0, 1, 0.9), window(1, 2, 0.1), window(2, 3, 0.8), window(5, 5.2, 0.9)]
    assert len(find_events(windows, CLASSES, EventRule(merge_seconds=0.5))) == 3
    (event,) = find_events(windows, CLASSES, EventRule(merge_seconds=1.0, min_seconds=0.5))
    assert (event.start, event.end) == (0, 3)


def test_two_classes_look_for_the_second_more_for_all():
    assert EventRule().labels(2) == (1,)
    assert EventRule().labels(3) == (0, 1, 2)
    assert EventRule(classes=(0,)).labels(2) == (0,)


def test_people_have_their_own_events():
    windows = [window(0, 1, 0.9, track=1), window(0, 1, 0.2, track=0), window(0, 1, 0.8, track=2)]
    assert [event.track for event in find_events(windows, CLASSES, EventRule())] == [1, 2]


def test_no_windows_no_events():
    assert find_events([], CLASSES, EventRule()) == ()


WINDOWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 40),
        st.integers(1, 15),
        st.sampled_from([0, 0.25, 0.5, 1]),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(rows=WINDOWS, merge=st.integers(0, 4), least=st.integers(0, 4))
def test_events_of_a_track_are_in_order_apart_and_inside(rows, merge, least):
    windows = [window(start, start + length, p, track) for track, start, length, p in rows]
    rule = EventRule(classes=(0, 1), merge_seconds=merge, min_seconds=least)
    events = find_events(windows, CLASSES, rule)
    for event in events:
        own = [w for w in windows if w.track == event.track]
        assert min(w.start for w in own) <= event.start < event.end <= max(w.end for w in own)
        assert event.end - event.start >= least
        assert rule.threshold <= event.probability <= 1
    for one, two in zip(events, events[1:], strict=False):
        assert (one.track, one.start) <= (two.track, two.start)
    for key in {(e.track, e.label) for e in events}:
        own = [e for e in events if (e.track, e.label) == key]
        assert all(b.start - a.end > merge for a, b in zip(own, own[1:], strict=False))


@settings(max_examples=200, deadline=None)
@given(rows=WINDOWS)
def test_spread_equals_asking_every_half_second(rows):
    scores = [(start, start + length, p) for _, start, length, p in rows]
    pieces = spread(scores)
    for moment in np.arange(0.5, 60):
        covering = [p for start, end, p in scores if start <= moment < end]
        found = [p.probability for p in pieces if p.start <= moment < p.end]
        expected = [np.mean(covering)] if covering else []
        assert found == pytest.approx(expected)


def test_an_hour_of_windows_takes_no_time():
    windows = [window(start, start + 3.4, 0.5 + 0.4 * (start % 7 > 3)) for start in range(10_000)]
    assert len(find_events(windows, CLASSES, EventRule(threshold=0.7))) > 1000
