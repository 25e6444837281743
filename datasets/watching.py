"""A loader that says which clip it hangs on: a worker that dies or stalls is not waited for.

torch names no clip when a worker is killed, and waits without end for one that hangs. Here workers
note what they do (`worker_notes`), and `worker_watch` reads that while a batch is waited for.
"""

import multiprocessing
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset, IterableDataset

from datasets.worker_notes import BeginWorker, NameOf, Noting, NotingCollate, make_notes
from datasets.worker_watch import StackPipe, WorkerWatch
from errors import InputError

Result = TypeVar("Result")


class WatchedLoader(DataLoader):
    """torch's loader, whose workers cannot keep the program waiting.

    A worker that is killed, or stands still for `stall_seconds` while a batch is waited for, ends
    the iteration with an `InputError` that names its clip; so does a batch that cannot be sent.
    Errors of the data set name the clip too. After any error the workers are gone, and a new
    iteration starts new ones. Without workers nobody can watch: errors alone are explained.

    Attributes:
        stall_seconds: how long a worker may stand still; 0 waits for ever.
        poll: called twice a second, in another thread, while a batch is waited for; what it
            raises ends the wait and is raised there. None: nothing is called.
    """

    def __init__(
        self,
        dataset: Dataset,
        *args: Any,
        name_of: NameOf,
        stall_seconds: float = 60.0,
        **options: Any,
    ) -> None:
        """Take what torch's loader takes, and a little more.

        Args:
            dataset: gives samples by key, maybe also batches by keys (`__getitems__`).
            args: as of torch's loader.
            name_of: a key that the sampler gives -> name of the clip; called in the workers.
            stall_seconds: how long a worker may stand still; 0 waits for ever.
            options: as of torch's loader, without `timeout`.
        """
        if options.get("timeout") or isinstance(dataset, IterableDataset):
            raise ValueError("a watched loader loads by keys, and has stall_seconds for timeout")
        super().__init__(dataset, *args, **options)
        self.stall_seconds = stall_seconds
        self.poll: Callable[[], None] | None = None
        self._name_of = name_of
        self._inner: DataLoader | None = None
        self._watch: WorkerWatch | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self._inner is None or not self.persistent_workers:
            self._inner = self._make_inner()
        if self._watch is None:
            return iter(self._inner)
        self._watch.stall_seconds, self._watch.poll = self.stall_seconds, self.poll
        return _Iteration(self, self._inner, self._watch)

    def close(self) -> None:
        """End the workers at once, also those that hang."""
        # First of all: torch's loader, when it goes, would wait for those that hang.
        if self._watch is not None:
            self._watch.end()
        self._inner = self._watch = None

    def explain(self, error: BaseException) -> InputError | None:
        """See `as_input_error`."""
        explained = self._watch.explain(error) if self._watch is not None else None
        return explained if isinstance(explained, InputError) else None

    def leave(self, watch: WorkerWatch) -> None:
        """End the workers of an iteration that failed; later ones are not touched."""
        if watch is self._watch:
            self.close()
        else:
            watch.end()

    def _make_inner(self) -> DataLoader:
        """Return torch's own loader of the same batches, whose workers note what they do."""
        context = self.multiprocessing_context or multiprocessing
        notes = make_notes(max(self.num_workers, 1), context)
        noting = Noting.of(self.dataset, self._name_of, notes)
        begin = self.worker_init_fn
        if self.num_workers > 0:
            # What is not forked does not inherit the pipe.
            pipe = StackPipe() if context.get_start_method() == "fork" else None
            self._watch = WorkerWatch(notes, pipe)
            # When the loader goes, or the program: torch and Python would wait for who hangs.
            weakref.finalize(self, self._watch.end)
            begin = BeginWorker(begin, os.getpid(), pipe.writer if pipe else -1)
        options: dict[str, Any] = {"batch_sampler": self.batch_sampler}
        if self.batch_sampler is None:
            options = {"batch_size": None, "sampler": self.sampler}
        names = ("pin_memory", "generator", "prefetch_factor", "persistent_workers", "in_order")
        options |= {name: getattr(self, name) for name in names if hasattr(self, name)}
        return DataLoader(
            noting,
            num_workers=self.num_workers,
            collate_fn=NotingCollate(self.collate_fn, noting),
            worker_init_fn=begin,
            multiprocessing_context=self.multiprocessing_context,
            **options,
        )


def as_input_error(loader: object, error: BaseException) -> InputError | None:
    """Return what an error has to do with the workers of a loader, as a line for users.

    For errors that surface elsewhere than in the loop over the batches.

    Returns:
        The line; None where the error has nothing to do with them, or the loader is not watched.
    """
    return loader.explain(error) if isinstance(loader, WatchedLoader) else None


class _Iteration:
    """One run through the batches."""

    def __init__(self, loader: WatchedLoader, inner: DataLoader, watch: WorkerWatch) -> None:
        self._loader = loader
        self._watch = watch
        self._run = watch.begin()
        self._batches = self._wait_for(lambda: watch.start(inner, self._run))

    def __iter__(self) -> "_Iteration":
        return self

    def __next__(self) -> Any:
        return self._wait_for(self._batches.__next__)

    def __del__(self) -> None:
        self._watch.finish(self._run)

    def _wait_for(self, step: Callable[[], Result]) -> Result:
        """Take a step of torch's iterator; if it fails, explain and leave no worker behind."""
        try:
            return self._watch.wait_for(step)
        except StopIteration:
            self._watch.finish(self._run)
            raise
        except BaseException as error:
            explained = self._watch.explain(error)
            self._loader.leave(self._watch)
            if explained is None:
                raise
            raise explained from None
