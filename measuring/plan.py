"""What to measure, and how: the options of `tools/benchmark.py` without its parser."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from measuring.record import Clock


@dataclass(frozen=True, slots=True)
class Setup:
    """How a network or a module is run.

    Attributes:
        threads: of PyTorch.
        batch: clips.
        dtype: "float32", or a type that autocast computes in.
        channels_last: memory layout of frames and weights.
        text: what of this other setups of the plan have otherwise; "" when there is no other.
    """

    threads: int
    batch: int
    dtype: str
    channels_last: bool
    text: str = ""

    @property
    def layout(self) -> torch.memory_format:
        """Return the memory layout."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return what to compute within."""
        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(device.type, getattr(torch, self.dtype))

    def clock(self, device: torch.device) -> Clock:
        """Return the clock to compare by: CPU time says nothing of devices and of many threads."""
        return "cpu" if device.type == "cpu" and self.threads == 1 else "wall"

    def facts(self) -> dict[str, object]:
        """Return what a program may select rows by."""
        return {
            "threads": self.threads,
            "batch": self.batch,
            "dtype": self.dtype,
            "channels_last": self.channels_last,
        }

    def case(self, what: str) -> str:
        """Name a case of this setup."""
        return f"{what}, {self.text}" if self.text else what


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and how.

    Attributes:
        device: where networks run; loaders run on the CPU.
        threads, batches, dtypes, layouts: the sweep; no batches mean those of the issue's tables.
        variants: formulations of GSF.
        archs: backbones.
        models: of skeletons.
        input_size: side of the networks' input, pixels.
        num_segments: T of the networks.
        workers: loader processes, a sweep.
        sizes: (width, height) of the frames that loaders read.
        repeats: rounds that count.
        is_quick: smaller work: proves that all runs, measures little.
        folder: for generated files; they go when the program ends.
        progress: told what is measured next.
    """

    device: torch.device
    threads: tuple[int, ...]
    batches: tuple[int, ...]
    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]
    variants: tuple[str, ...]
    archs: tuple[str, ...]
    models: tuple[str, ...]
    input_size: int
    num_segments: int
    workers: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    repeats: int
    is_quick: bool
    folder: Path
    progress: Callable[[str], None]

    def setups(self, batch: int) -> Iterator[Setup]:
        """Yield the sweep with PyTorch's threads set; `batch` holds where none is asked for."""
        batches = self.batches or (batch,)
        before = torch.get_num_threads()
        try:
            for values in product(self.threads, batches, self.dtypes, self.layouts):
                threads, clips, dtype, layout = values
                torch.set_num_threads(threads)
                texts = (
                    (self.threads, f"{threads} thread{'s' * (threads > 1)}"),
                    (batches, f"batch {clips}"),
                    (self.dtypes, dtype),
                    (self.layouts, layout),
                )
                text = ", ".join(text for choices, text in texts if len(choices) > 1)
                yield Setup(threads, clips, dtype, layout == "channels_last", text)
        finally:
            torch.set_num_threads(before)
