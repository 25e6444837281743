"""Processes of one torchrun call: together they have everything once, and no one waits in vain."""

import threading
import time

import pytest
from torch.distributed import TCPStore

from errors import InputError, Interrupted
from ranks import Ranks, _meet


def nothing():
    pass


@pytest.fixture
def pair():
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    other = TCPStore("127.0.0.1", store.port, is_master=False)
    return Ranks(0, 2, 0, store), Ranks(1, 2, 1, other)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("number", [0, 1, 4, 7, 10])
def test_every_item_is_had_once(count, number):
    shares = [Ranks(rank, count).share(range(number)) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == list(range(number))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_waited_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Ranks.join()
    alone.wait_for_first("a", nothing)
    alone.wait_for_all("b", nothing)
    assert alone.gather("c", {"x": 1}, nothing) == [{"x": 1}]
    assert alone.is_first


def test_values_arrive_in_order_of_the_ranks(pair):
    first, second = pair
    assert second.gather("sum", {"n": 2}, nothing) == []
    assert first.gather("sum", {"n": 1}, nothing) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("early", [0, 1])
def test_nobody_goes_on_before_all_have_come(pair, early):
    passed = threading.Event()
    thread = threading.Thread(
        target=lambda: (pair[early].wait_for_all("here", nothing), passed.set())
    )
    thread.start()
    assert not passed.wait(0.3)
    pair[1 - early].wait_for_all("here", nothing)
    thread.join(10)
    assert passed.is_set()


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("bad"), 2), (OSError(28, "full"), 2), (Interrupted(15), 143),
     (KeyboardInterrupt(), 130), (RuntimeError("ours"), 1)],
)  # fmt: skip
def test_who_waits_for_one_that_failed_ends_with_its_code(pair, error, code):
    first, second = pair
    with pytest.raises(type(error)), second.ending_together():
        raise error
    with pytest.raises(SystemExit) as caught:
        first.gather("done", None, nothing)
    assert caught.value.code == code
    with pytest.raises(SystemExit):
        first.check()


def test_a_signal_ends_the_waiting(pair):
    def stop():
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        pair[1].wait_for_first("never", stop)


def test_processes_that_are_started_again_do_not_meet_those_before(pair):
    """The store of torchrun may outlive them, with what they left."""
    store, other = pair[0].store, pair[1].store
    names = []
    for first in (0, 1):  # whoever comes first, both times
        met = {}

        def meet(rank, met=met):
            met[rank] = _meet(store if rank == 0 else other, rank, 2)

        threads = [threading.Thread(target=meet, args=(rank,)) for rank in (first, 1 - first)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)
        for thread in threads:
            thread.join(10)
        assert met[0] == met[1]
        names.append(met[0])
    assert names[0] != names[1]
