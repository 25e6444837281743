"""Work done ahead in a thread, so that reading and computing go on at the same time."""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")

_LOOK = 0.1  # seconds between looks at whether somebody still wants the items


@dataclass(frozen=True, slots=True)
class _End:
    """After the last item: what went wrong, None where nothing did."""

    error: BaseException | None


class Ahead(Generic[Item]):
    """Iterates over `items`, which a thread makes while the previous ones are used.

    Use as a context manager: leaving it stops the thread.

    Args:
        items: made one after the other in the thread. An error ends them and is raised here.
        depth: items that may wait to be used, at least 1; this bounds the memory.

    Attributes:
        made: seconds that the thread spent making items.
        waited: seconds that the user of the items waited for them.
    """

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self.made = 0.0
        self.waited = 0.0
        self._items = items
        self._queue: queue.Queue[Item | _End] = queue.Queue(depth)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._make, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unwanted.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        while True:
            begin = time.perf_counter()
            item = self._queue.get()
            self.waited += time.perf_counter() - begin
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def _make(self) -> None:
        error = None
        try:
            begin = time.perf_counter()
            for item in self._items:
                self.made += time.perf_counter() - begin
                if not self._put(item):
                    return
                begin = time.perf_counter()
            self.made += time.perf_counter() - begin
        except BaseException as caught:  # noqa: BLE001 - raised again where the items are used
            error = caught
        self._put(_End(error))

    def _put(self, item: Item | _End) -> bool:
        """Hand over an item; say whether anybody wants more."""
        while not self._unwanted.is_set():
            try:
                self._queue.put(item, timeout=_LOOK)
            except queue.Full:
                continue
            return True
        return False
