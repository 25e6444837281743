"""How the clips of an epoch become steps, and how the processes of a training share these.

A step is `iter_size` micro-batches of `batch_size` clips, whatever the number of processes: batch
norm sees a micro-batch, the optimiser sees a step. Processes share the micro-batches of a step;
only where there are more processes than micro-batches are these cut.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """One process among those that share the work.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.
        local: number of this process on its machine, from 0.
        neighbours: processes on this machine.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    neighbours: int = 1


ALONE = Share()


@dataclass(frozen=True, slots=True)
class Part:
    """What one process computes at once.

    Attributes:
        piece: number of the micro-batch in its step.
        start, stop: clips of it, as positions in the order of the epoch.
        share: clips of it among those of the micro-batch, 0 to 1.
        offset: clips of the micro-batch before it.
    """

    piece: int
    start: int
    stop: int
    share: float = 1.0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Deal:
    """The share of one process in every step of an epoch.

    Attributes:
        num_clips: of an epoch.
        batch_size: clips of a micro-batch.
        iter_size: micro-batches of a step.
        rank: number of this process.
        count: of processes: at most `iter_size`, or a multiple of it that cuts each micro-batch
            into equally many parts.
    """

    num_clips: int
    batch_size: int
    iter_size: int = 1
    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count > self.iter_size and (
            self.count % self.iter_size or self.cuts > self.batch_size
        ):
            raise ValueError(
                f"{self.count} processes cannot share {self.iter_size} x {self.batch_size} clips"
            )

    @property
    def cuts(self) -> int:
        """Return how many processes share one micro-batch."""
        return max(1, self.count // self.iter_size)

    @property
    def num_batches(self) -> int:
        """Return the micro-batches of an epoch; the last may be smaller."""
        return -(-self.num_clips // self.batch_size)

    @property
    def num_steps(self) -> int:
        """Return the steps of an epoch; the last may have fewer micro-batches."""
        return -(-self.num_batches // self.iter_size)

    def pieces(self, step: int) -> int:
        """Return the number of micro-batches in a step."""
        return min(self.iter_size, self.num_batches - step * self.iter_size)

    def parts(self, step: int, rank: int | None = None) -> tuple[Part, ...]:
        """Return what a process (None: this one) computes in a step; may be nothing."""
        rank = self.rank if rank is None else rank
        if self.count > self.iter_size:
            piece = rank // self.cuts
            cut = self._cut(step, piece, rank % self.cuts) if piece < self.pieces(step) else None
            return () if cut is None else (cut,)
        return tuple(
            Part(piece, *self._bounds(step, piece))
            for piece in range(rank, self.pieces(step), self.count)
        )

    def owners(self, step: int, most: int | None = None) -> tuple[int, ...]:
        """Return the process of each forward pass of a step, in order of the clips.

        Args:
            step: of the epoch.
            most: clips in one forward pass; None: parts are computed whole.
        """
        parts = [(part, rank) for rank in range(self.count) for part in self.parts(step, rank)]
        return tuple(
            rank
            for part, rank in sorted(parts, key=lambda pair: pair[0].start)
            for _ in range(0, part.stop - part.start, most or self.batch_size)
        )

    def is_shared_by_all(self, step: int) -> bool:
        """Say whether every process has something to compute in a step."""
        return all(self.parts(step, rank) for rank in range(self.count))

    def _bounds(self, step: int, piece: int) -> tuple[int, int]:
        start = (step * self.iter_size + piece) * self.batch_size
        return start, min(start + self.batch_size, self.num_clips)

    def _cut(self, step: int, piece: int, number: int) -> Part | None:
        start, stop = self._bounds(step, piece)
        size = stop - start
        if size < self.cuts:  # too few for all: one process computes them
            return Part(piece, start, stop) if number == 0 else None
        first, last = (start + size * n // self.cuts for n in (number, number + 1))
        return Part(piece, first, last, (last - first) / size, first - start)
