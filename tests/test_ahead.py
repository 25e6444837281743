"""Work done ahead in a thread."""

import threading
import time

import pytest

from datasets.prepare.ahead import Ahead


def slow(count: int, seconds: float):
    for number in range(count):
        time.sleep(seconds)
        yield number


def test_making_and_using_overlap():
    begin = time.perf_counter()
    with Ahead(slow(20, 0.02), 2) as ahead:
        seen = []
        for number in ahead:
            time.sleep(0.02)
            seen.append(number)
    seconds = time.perf_counter() - begin
    assert seen == list(range(20))
    assert seconds < 0.75 * 2 * 20 * 0.02
    assert ahead.made > 0.35
    assert ahead.waited < 0.2


def test_a_slow_maker_is_waited_for():
    with Ahead(slow(5, 0.03), 2) as ahead:
        assert list(ahead) == list(range(5))
    assert ahead.waited > 0.1


def test_no_more_is_made_than_may_wait():
    made = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    with Ahead(items(), 2) as ahead:
        first = next(iter(ahead))
        time.sleep(0.1)
        assert first == 0
        assert len(made) <= 4  # used, two waiting, one in hand


def test_an_error_comes_after_what_was_made():
    def items():
        yield 1
        raise KeyError("broken")

    seen = []
    with Ahead(items(), 2) as ahead, pytest.raises(KeyError, match="broken"):
        seen.extend(ahead)
    assert seen == [1]


def test_leaving_early_stops_the_thread():
    before = threading.active_count()
    with Ahead(slow(10_000, 0.001), 2) as ahead:
        assert next(iter(ahead)) == 0
    assert threading.active_count() == before
