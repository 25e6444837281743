"""Work done ahead in a thread."""

import threading
import time

import pytest

from datasets.prepare.ahead import Ahead


def test_making_and_using_overlap():
    begun = [threading.Event() for _ in range(6)]

    def items():
        for number, event in enumerate(begun):
            event.set()
            yield number

    with Ahead(items(), 2) as ahead:
        seen = []
        for number in ahead:
            following = begun[min(number + 1, 5)]
            assert following.wait(20), "nothing is made while an item is used"
            seen.append(number)
    assert seen == list(range(6))


def test_a_slow_maker_is_waited_for():
    def items():
        for number in range(5):
            time.sleep(0.03)
            yield number

    with Ahead(items(), 2) as ahead:
        assert list(ahead) == list(range(5))
    assert ahead.made >= 5 * 0.03
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
    with Ahead(iter(range(10_000)), 2) as ahead:
        assert next(iter(ahead)) == 0
    assert threading.active_count() == before
