"""The processes of one `torchrun` call: who this is, and waiting for each other.

They exchange JSON through torchrun's own store. Those that train or test together also form a
process group, in which numbers and tensors are added up.
"""

import io
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, rendezvous

from errors import InputError, Interrupted
from ops.dealing import Share

Item = TypeVar("Item")

_LOOK = 0.05  # seconds between looks at the others
_MEETING_SECONDS = 600.0  # to wait for the others at the start
_FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among its siblings.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
        local: number of this process on its machine, from 0.
        store: shared by all; None where this is the only one.
        neighbours: processes on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    store: Store | None = None
    neighbours: int = 1

    @classmethod
    def join(cls) -> "Ranks":
        """Find the siblings that `torchrun` started; one process where it did not."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        store, rank, count = next(rendezvous("env://"))
        store = PrefixStore(_meet(store, rank, count), store)
        local = int(os.environ.get("LOCAL_RANK", rank))
        return cls(rank, count, local, store, int(os.environ.get("LOCAL_WORLD_SIZE", count)))

    @property
    def own_share(self) -> Share:
        """Which part of the work this process does."""
        return Share(self.rank, self.count, self.local, self.neighbours)

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
    def first_goes_first(self, name: str, poll: Callable[[], None]) -> Iterator[None]:
        """Let process 0 through the block, which may make files, before the others enter it."""
        if not self.is_first:
            self.wait_for_first(name, poll)
        yield
        if self.is_first:
            self.wait_for_first(name, poll)

    def from_first(self, name: str, value: Any, poll: Callable[[], None]) -> Any:
        """Give every process the JSON value that process 0 has; `name` is used once."""
        if self.store is None:
            return value
        if self.is_first:
            self.store.set(name, json.dumps(value))
            return value
        return json.loads(self._wait(name, poll))

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Tell the others when this process fails, so that they do not wait for it.

        Raises:
            SystemExit: with the exit code of another process that failed; that one says why.
        """
        try:
            with self.losing_others():
                yield
        except BaseException as error:
            if self.store is not None and not self._tell(_exit_code(error)):
                raise SystemExit(_exit_code(error)) from None  # another one has said why
            raise

    # ------------------------------------------------------------ process group

    def start_group(self, device: torch.device, seconds: float) -> None:
        """Form the process group: gloo for what lies on the CPU, NCCL for CUDA.

        Args:
            device: of this process.
            seconds: to wait for the others in any exchange before giving up.
        """
        if self.store is None or dist.is_initialized():
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", self.store),
            rank=self.rank,
            world_size=self.count,
            timeout=timedelta(seconds=seconds),
        )

    def end_group(self) -> None:
        """Leave the process group; what the others still want of it fails there."""
        if self.store is not None and dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up numbers over all processes, exactly in float64 as far as it goes."""
        if self.store is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()  # type: ignore[no-any-return]

    def add(self, tensor: Tensor) -> None:
        """Add up a tensor over all processes, in place, on its device."""
        if self.store is not None:
            dist.all_reduce(tensor)

    def spread(self, tensor: Tensor, owner: int) -> None:
        """Overwrite a tensor by that of one process, in place, on its device."""
        if self.store is not None:
            dist.broadcast(tensor, src=owner)

    def collect(self, value: Any) -> list[Any]:
        """Bring a value of every process to every process, in order of the ranks."""
        if self.store is None:
            return [value]
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def content_of_first(self, content: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """Give every process the checkpoint that process 0 has read; None where it has none."""
        if self.store is None:
            return None if content is None else dict(content)
        packed = io.BytesIO()
        if self.is_first and content is not None:
            torch.save(dict(content), packed)
        size = torch.tensor([packed.tell()])
        dist.broadcast(size, src=0)
        if not int(size):
            return None
        data = torch.frombuffer(bytearray(packed.getvalue() or bytes(int(size))), dtype=torch.uint8)
        dist.broadcast(data, src=0)
        return torch.load(io.BytesIO(data.numpy().tobytes()), weights_only=True)  # type: ignore[no-any-return]

    @contextmanager
    def losing_others(self) -> Iterator[None]:
        """Say in one line that another process has gone, which the group reports in its words."""
        try:
            yield
        except RuntimeError as error:
            if self.store is None or not _is_of_group(error):
                raise
            self.check()
            raise InputError(self._lost(error)) from None

    def _lost(self, error: RuntimeError) -> str:
        return (
            f"process {self.rank} has lost the others ({str(error).splitlines()[0]}): look for "
            "their messages, and run the same command again"
        )

    def check(self) -> None:
        """End when another process has failed.

        Raises:
            SystemExit: with its exit code.
        """
        try:
            failed = self.store is not None and self.store.check([_FAILED])
        except RuntimeError:  # the store has gone with the process that kept it
            return
        if failed and self.store is not None:
            raise SystemExit(int(self.store.get(_FAILED)))

    def _tell(self, code: int) -> bool:
        """Note the end of this process; return whether it is the first that ends."""
        assert self.store is not None
        try:
            is_first = self.store.add(f"{_FAILED}/number", 1) == 1
            if is_first:
                self.store.set(_FAILED, str(code))
        except RuntimeError:  # the store has gone with the process that kept it
            return True
        return is_first

    def _wait(self, key: str, poll: Callable[[], None]) -> bytes:
        assert self.store is not None
        try:
            while not self.store.check([key]):
                self.check()
                poll()
                time.sleep(_LOOK)
            return self.store.get(key)
        except RuntimeError as error:
            raise InputError(self._lost(error)) from None


def _meet(store: Store, rank: int, count: int) -> str:
    """Return a name that the processes which run now have in common.

    When torchrun starts processes again, its store may still hold what those before have left, and
    nothing says which start this is. So each process calls itself by a name that nobody had, and
    process 0 tells all that it hears of its own, until all have answered.

    Raises:
        InputError: some do not come.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + _MEETING_SECONDS
    if rank > 0:
        store.set(f"hello/{rank}", own)
    heard: dict[int, bytes] = {}
    while time.monotonic() < end:
        if rank > 0 and store.check([f"welcome/{own}"]):
            name = store.get(f"welcome/{own}").decode()
            store.set(f"here/{name}/{rank}", "")
            return name
        if rank == 0:
            _welcome(store, own, count, heard)
            if all(store.check([f"here/{own}/{other}"]) for other in range(1, count)):
                return own
        time.sleep(_LOOK)
    raise InputError(
        f"process {rank} has waited {_MEETING_SECONDS:.0f} s for the others of torchrun: look for "
        "their messages, and run the same command again"
    )


def _welcome(store: Store, name: str, count: int, heard: dict[int, bytes]) -> None:
    """Tell `name` to every process that has called itself by a new name."""
    for other in range(1, count):
        if store.check([f"hello/{other}"]):
            called = store.get(f"hello/{other}")
            if heard.get(other) != called:
                store.set(f"welcome/{called.decode()}", name)
                heard[other] = called


def _is_of_group(error: RuntimeError) -> bool:
    """Say whether an error came from the exchange with other processes."""
    words = ("gloo", "NCCL", "Connection closed by peer")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return int(error.code or 0) if isinstance(error.code, (int, type(None))) else 1
    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 2 if isinstance(error, (InputError, OSError)) else 1
