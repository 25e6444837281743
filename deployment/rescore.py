"""Does an exported model say what the model says that it was made of."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from deployment.networks import Network
from errors import InputError
from ops.batch import Batch

# Clips at once, in turn: a graph that is right for one size may be wrong for others.
BATCH_SIZES = (1, 3, 4)


@dataclass(slots=True)
class Agreement:
    """How far two models agree.

    Attributes:
        clips: that both scored.
        difference: the largest absolute difference of two logits.
        same_labels: clips on which both say the same class.
    """

    clips: int = 0
    difference: float = 0.0
    same_labels: int = 0

    def holds(self, tolerance: float) -> bool:
        """Say whether the models agree: in every label, and in logits within `tolerance`."""
        return 0 < self.clips == self.same_labels and self.difference <= tolerance

    def text(self) -> str:
        """Return a sentence for people."""
        return (
            f"largest difference of a logit {self.difference:.1e}, "
            f"{self.same_labels} of {self.clips} labels equal"
        )


def rescore(
    reference: Network, exported: Sequence[Network], batches: Iterable[Batch]
) -> list[Agreement]:
    """Score clips with a model and what was exported of it.

    Args:
        reference: the model.
        exported: others, which should say the same.
        batches: of clips; they are scored in batches of `BATCH_SIZES`.

    Returns:
        One entry for each of `exported`.

    Raises:
        InputError: the model itself answers with numbers that are not finite.
    """
    found = [Agreement() for _ in exported]
    for batch in _in_sizes(batches):
        expected = reference.logits(batch)
        if not torch.isfinite(expected).all():
            raise InputError(
                f"{reference.source} answers with numbers that are not finite: use another "
                "checkpoint"
            )
        for network, agreement in zip(exported, found, strict=True):
            given = network.logits(batch)
            # NaN is as far away as can be: a comparison with it is always false.
            gap = float(torch.nan_to_num((given - expected).abs(), nan=torch.inf).max())
            agreement.clips += len(expected)
            agreement.difference = max(agreement.difference, gap)
            agreement.same_labels += int((given.argmax(1) == expected.argmax(1)).sum())
    return found


def _in_sizes(batches: Iterable[Batch]) -> Iterator[Batch]:
    number = 0
    for batch in batches:
        total, start = len(batch) * batch.views, 0
        while start < total:
            part = slice(start, start + BATCH_SIZES[number % len(BATCH_SIZES)])
            yield batch.part(part)
            start, number = part.stop, number + 1
