"""The processes of one `torchrun` call: who this is, and waiting for each other.

They exchange JSON through torchrun's own store, and need no process group.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from torch.distributed import Store, rendezvous

from errors import InputError, Interrupted

Item = TypeVar("Item")

_LOOK = 0.05  # seconds between looks at the others
_FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its siblings.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
        local: number of this process on its machine, from 0.
        store: shared by all; None where this is the only one.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    store: Store | None = None

    @classmethod
    def join(cls) -> "Ranks":
        """Find the siblings that `torchrun` started; one process where it did not."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        store, rank, count = next(rendezvous("env://"))
        return cls(rank, count, int(os.environ.get("LOCAL_RANK", rank)), store)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that talks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this process; together the processes have each exactly once."""
        return list(items[self.rank :: self.count])

    def gather(self, name: str, value: Any, poll: Callable[[], None]) -> list[Any]:
        """Bring a JSON value of every process to process 0.

        Args:
            name: of this exchange, used once.
            value: of this process.
            poll: called while waiting; raises to give up.

        Returns:
            The values in order of the ranks; empty in all processes but 0.
        """
        if self.store is None:
            return [value]
        self.store.set(f"{name}/{self.rank}", json.dumps(value))
        if not self.is_first:
            return []
        return [json.loads(self._wait(f"{name}/{rank}", poll)) for rank in range(self.count)]

    def wait_for_first(self, name: str, poll: Callable[[], None]) -> None:
        """Go on when process 0 has come here too."""
        if self.store is None:
            return
        if self.is_first:
            self.store.set(name, "")
        else:
            self._wait(name, poll)

    def wait_for_all(self, name: str, poll: Callable[[], None]) -> None:
        """Go on when every process has come here."""
        self.gather(name, None, poll)
        self.wait_for_first(f"{name}/all", poll)

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Tell the others when this process fails, so that they do not wait for it.

        Raises:
            SystemExit: with the exit code of another process that failed; that one says why.
        """
        try:
            yield
        except BaseException as error:
            if self.store is not None and not isinstance(error, SystemExit):
                self._tell(_exit_code(error))
            raise

    def check(self) -> None:
        """End when another process has failed.

        Raises:
            SystemExit: with its exit code.
        """
        if self.store is not None and self.store.check([_FAILED]):
            raise SystemExit(int(self.store.get(_FAILED)))

    def _tell(self, code: int) -> None:
        try:
            if self.store is not None:
                self.store.set(_FAILED, str(code))
        except RuntimeError:  # the store has gone with the process that kept it
            return

    def _wait(self, key: str, poll: Callable[[], None]) -> bytes:
        assert self.store is not None
        try:
            while not self.store.check([key]):
                self.check()
                poll()
                time.sleep(_LOOK)
            return self.store.get(key)
        except RuntimeError as error:
            raise InputError(
                f"process {self.rank} has lost the others ({str(error).splitlines()[0]}): look for "
                "their messages, and run the same command again"
            ) from None


def _exit_code(error: BaseException) -> int:
    if isinstance(error, Interrupted):
        return 128 + error.signum
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 2 if isinstance(error, (InputError, OSError)) else 1
